//! A short text in sixteen bytes: what is left of a job's label once what it shares is taken away is
//! numbers and slashes nearly always, two to a byte; other texts as they are; long ones elsewhere.

use super::slab::{Place, Slab};

/// Texts that are too long.
pub type Texts = Slab<Box<str>>;

/// The first byte says how: so many bytes, so many halves, or a place in [`Texts`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Brief([u8; 16]);

const ROOM: usize = 15;
const HALVES: u8 = 0x80;
const LONG: u8 = 0xff;
const LETTERS: &[u8; 16] = b"0123456789/-._:,";

impl Brief {
    pub fn new(text: &str, texts: &mut Texts) -> Self {
        let mut bytes = [0; 16];
        if let Some(halves) = halves(text) {
            bytes[0] = HALVES | text.len() as u8;
            for (at, half) in halves.into_iter().enumerate() {
                bytes[1 + at / 2] |= half << (4 * (at % 2));
            }
        } else if text.len() <= ROOM {
            bytes[0] = text.len() as u8;
            bytes[1..=text.len()].copy_from_slice(text.as_bytes());
        } else {
            bytes[0] = LONG;
            bytes[1..5].copy_from_slice(&texts.put(text.into()).to_le_bytes());
        }
        Self(bytes)
    }

    pub fn add_to(self, out: &mut String, texts: &Texts) {
        let [how, rest @ ..] = self.0;
        match how {
            LONG => out.push_str(texts.at(self.place())),
            how if how >= HALVES => {
                let half = |at: usize| rest[at / 2] >> (4 * (at % 2)) & 0xf;
                out.extend((0..usize::from(how - HALVES)).map(|at| char::from(LETTERS[usize::from(half(at))])));
            }
            bytes => out.push_str(str::from_utf8(&rest[..usize::from(bytes)]).unwrap_or_default()),
        }
    }

    /// Its text is not needed any more.
    pub fn forget(self, texts: &mut Texts) {
        if self.0[0] == LONG {
            texts.take(self.place());
        }
    }

    fn place(self) -> Place {
        let [_, place @ .., _, _, _, _, _, _, _, _, _, _, _] = self.0;
        Place::from_le_bytes(place)
    }
}

/// Of a text that has no other letters, and room.
fn halves(text: &str) -> Option<Vec<u8>> {
    let half = |letter: u8| LETTERS.iter().position(|known| *known == letter).map(|at| at as u8);
    (text.len() <= 2 * ROOM).then(|| text.bytes().map(half).collect()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn back(brief: Brief, texts: &Texts) -> String {
        let mut text = String::new();
        brief.add_to(&mut text, texts);
        text
    }

    #[test]
    fn what_runs_are_named_needs_no_room_elsewhere() {
        let mut texts = Texts::default();
        for text in ["", "9876543210/1/40123456789", "012345678901234567890123456789", "plan", "5bc4d02f/apply"] {
            let brief = Brief::new(text, &mut texts);
            assert_eq!((back(brief, &texts).as_str(), texts.len()), (text, 0));
        }
        let brief = Brief::new("0123456789012345678901234567890", &mut texts);
        assert_eq!(texts.len(), 1);
        brief.forget(&mut texts);
        assert_eq!(texts.len(), 0);
    }

    proptest! {
        #[test]
        fn whatever_is_put_in_comes_out(words in proptest::collection::vec("[0-9/]{0,40}|\\PC{0,40}", 1..4)) {
            let mut texts = Texts::default();
            let briefs: Vec<_> = words.iter().map(|word| Brief::new(word, &mut texts)).collect();
            for (brief, word) in briefs.iter().zip(&words) {
                prop_assert_eq!(&back(*brief, &texts), word);
                brief.forget(&mut texts);
            }
            prop_assert_eq!(texts.len(), 0);
        }
    }
}
