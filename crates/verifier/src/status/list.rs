//! A status list by itself: entries of 1, 2, 4 or 8 bits in a row, and their text (draft-ietf-oauth-
//! status-list-21 section 4). The broker builds one, a verifier reads one back.
//!
//! In comes an `lst` of a stranger; out goes a list of bounded size, or why not. What is read is
//! never larger than the caller said, however small its text was.

use std::fmt;

use miniz_oxide::{
    deflate::compress_to_vec_zlib,
    inflate::{
        TINFLStatus,
        core::{DecompressorOxide, decompress, inflate_flags},
    },
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::json;

/// Most entries of a list that is read, unless the caller says otherwise: 2^17.
pub const LIST_ENTRIES_MAX: u32 = 1 << 17;

/// Of zlib: 9 takes ten times as long for an eighth less.
const LEVEL: u8 = 6;

/// How many bits an entry has (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusBits {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl StatusBits {
    /// `None` for all but 1, 2, 4 and 8.
    pub fn new(bits: u8) -> Option<Self> {
        [Self::One, Self::Two, Self::Four, Self::Eight].into_iter().find(|known| *known as u8 == bits)
    }

    fn mask(self) -> u8 {
        u8::MAX >> (8 - self as u8)
    }

    /// Which byte an entry is in, and how far left in it: from the least significant bit on.
    fn place(self, index: u32) -> (usize, u32) {
        let per_byte = 8 / self as u32;
        ((index / per_byte) as usize, index % per_byte * self as u32)
    }
}

/// As the JSON number.
impl Serialize for StatusBits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for StatusBits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = u8::deserialize(deserializer)?;
        Self::new(bits).ok_or_else(|| de::Error::custom("`bits` is none of 1, 2, 4 and 8"))
    }
}

/// Why an `lst` is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StatusListError {
    #[error("the list is not base64url of zlib data, or has something after it")]
    Malformed,
    #[error("the list has more entries than are read")]
    TooLarge,
}

/// The statuses of many tokens. An entry of 0 is valid; whatever else it is, the token is not (section 7.1).
#[derive(Clone, PartialEq, Eq)]
pub struct StatusList {
    bits: StatusBits,
    bytes: Vec<u8>,
}

impl StatusList {
    /// All entries 0. `entries` is rounded up to whole bytes.
    pub fn new(bits: StatusBits, entries: u32) -> Self {
        Self { bits, bytes: vec![0; bytes_of(bits, entries)] }
    }

    /// From the array itself (section 4.1), as a broker may keep it.
    pub fn from_bytes(bits: StatusBits, bytes: Vec<u8>) -> Self {
        Self { bits, bytes }
    }

    /// The array itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn bits(&self) -> StatusBits {
        self.bits
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.bytes.len() * (8 / self.bits as usize)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entry at this place; `None` past the end (section 8.3: such a token is refused).
    pub fn get(&self, index: u32) -> Option<u8> {
        let (byte, shift) = self.bits.place(index);
        Some(self.bytes.get(byte)? >> shift & self.bits.mask())
    }

    /// Writes the entry. `false`: past the end, or the value has more bits than an entry; nothing is written.
    #[must_use]
    pub fn set(&mut self, index: u32, value: u8) -> bool {
        let (byte, shift) = self.bits.place(index);
        let Some(byte) = self.bytes.get_mut(byte).filter(|_| value <= self.bits.mask()) else { return false };
        *byte = *byte & !(self.bits.mask() << shift) | value << shift;
        true
    }

    /// `lst`: zlib (RFC 1950) at level 6, then base64url (section 4.2).
    pub fn encode(&self) -> String {
        json::to_base64url(&compress_to_vec_zlib(&self.bytes, LEVEL))
    }

    /// Reads `lst`: one zlib stream with a right checksum and nothing after it, of `entries_max`
    /// entries at most. It never writes more memory than those take.
    // SECURITY: a_bomb_is_not_unpacked
    pub fn decode(bits: StatusBits, lst: &str, entries_max: u32) -> Result<Self, StatusListError> {
        let packed = json::base64url(lst).ok_or(StatusListError::Malformed)?;
        let mut bytes = vec![0; bytes_of(bits, entries_max)];
        let flags = inflate_flags::TINFL_FLAG_PARSE_ZLIB_HEADER
            | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF
            | inflate_flags::TINFL_FLAG_COMPUTE_ADLER32;
        match decompress(&mut DecompressorOxide::new(), &packed, &mut bytes, 0, flags) {
            (TINFLStatus::Done, read, written) if read == packed.len() => {
                bytes.truncate(written);
                Ok(Self { bits, bytes })
            }
            (TINFLStatus::HasMoreOutput, ..) => Err(StatusListError::TooLarge),
            _ => Err(StatusListError::Malformed),
        }
    }
}

impl fmt::Debug for StatusList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusList").field("bits", &self.bits).field("len", &self.len()).finish_non_exhaustive()
    }
}

fn bytes_of(bits: StatusBits, entries: u32) -> usize {
    (entries as usize).div_ceil(8 / bits as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = include_str!("../../../../tests/corpus/status_list/draft.json");

    struct Vector {
        bits: StatusBits,
        lst: String,
        entries: u32,
        set: Vec<(u32, u8)>,
    }

    fn vectors() -> Vec<Vector> {
        let all: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
        all.iter()
            .map(|vector| Vector {
                bits: serde_json::from_value(vector["bits"].clone()).unwrap(),
                lst: vector["lst"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect(),
                entries: serde_json::from_value(vector["entries"].clone()).unwrap(),
                set: serde_json::from_value(vector["set"].clone()).unwrap(),
            })
            .collect()
    }

    #[test]
    fn the_drafts_vectors_read_as_the_draft_says() {
        let vectors = vectors();
        assert_eq!(vectors.iter().map(|vector| vector.bits as u8).collect::<Vec<_>>(), [1, 2, 1, 2, 4, 8]);
        for Vector { bits, lst, entries, set } in vectors {
            let list = StatusList::decode(bits, &lst, entries).unwrap();
            assert_eq!(list.len(), entries as usize);
            let mut built = StatusList::new(bits, entries);
            assert!(set.iter().all(|&(index, value)| built.set(index, value)));
            assert_eq!(list, built, "every entry, those that the draft does not name are 0");
            assert!(set.iter().all(|&(index, value)| list.get(index) == Some(value)));
            assert_eq!(StatusList::decode(bits, &built.encode(), entries), Ok(list));
        }
    }

    #[test]
    fn the_drafts_first_example_is_these_bytes() {
        let [one, two, ..] = &vectors()[..] else { panic!("two examples") };
        let bytes = |vector: &Vector| StatusList::decode(vector.bits, &vector.lst, 16).unwrap().bytes;
        assert_eq!(bytes(one), [0xb9, 0xa3]);
        assert_eq!(bytes(two), [0xc9, 0x44, 0xf9]);
    }

    #[test]
    fn an_entry_past_the_end_is_none() {
        let mut list = StatusList::new(StatusBits::One, 9);
        assert_eq!(list.len(), 16, "whole bytes");
        assert_eq!((list.get(15), list.get(16), list.get(u32::MAX)), (Some(0), None, None));
        assert!(!list.set(16, 1) && !list.set(0, 2) && list.set(15, 1));
        assert_eq!(list.as_bytes(), [0, 0x80]);
        assert!(list.set(15, 0) && list.as_bytes() == [0, 0]);
        assert_eq!(StatusList::new(StatusBits::Eight, 0).get(0), None);
    }

    /// 16 MiB of zeros in 16 kB: a thousand times what is read.
    #[test]
    fn a_bomb_is_not_unpacked() {
        let bomb = json::to_base64url(&compress_to_vec_zlib(&vec![0; 16 << 20], 9));
        assert!(bomb.len() < 24_000);
        assert_eq!(StatusList::decode(StatusBits::One, &bomb, LIST_ENTRIES_MAX), Err(StatusListError::TooLarge));
        let list = StatusList::new(StatusBits::One, LIST_ENTRIES_MAX);
        assert!(StatusList::decode(StatusBits::One, &list.encode(), LIST_ENTRIES_MAX).is_ok(), "exactly the most");
        let more = StatusList::new(StatusBits::One, LIST_ENTRIES_MAX + 1);
        let read = StatusList::decode(StatusBits::One, &more.encode(), LIST_ENTRIES_MAX);
        assert_eq!(read, Err(StatusListError::TooLarge));
    }

    #[test]
    fn what_is_not_one_whole_stream_is_refused() {
        let whole = compress_to_vec_zlib(&[0xb9, 0xa3], LEVEL);
        let decode = |bytes: &[u8]| StatusList::decode(StatusBits::One, &json::to_base64url(bytes), 64);
        assert!(decode(&whole).is_ok());
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]), Err(StatusListError::Malformed), "cut at {end}");
        }
        assert_eq!(decode(&[&whole[..], &[0]].concat()), Err(StatusListError::Malformed), "a byte after it");
        assert_eq!(decode(&[&whole[..], &whole[..]].concat()), Err(StatusListError::Malformed), "a second stream");
        let mut wrong = whole.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(decode(&wrong), Err(StatusListError::Malformed), "the checksum");
        assert_eq!(decode(&whole[2..whole.len() - 4]), Err(StatusListError::Malformed), "DEFLATE without zlib");
        assert_eq!(decode(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0]), Err(StatusListError::Malformed));
        for text in ["=", "eNrbuRgAAhcBXQ==", "eNrbuRgAAhcBXR", "eNrb uRgAAhcBXQ", "eNrb+RgAAhcBXQ"] {
            let read = StatusList::decode(StatusBits::One, text, 64);
            assert_eq!(read, Err(StatusListError::Malformed), "{text}");
        }
    }

    #[test]
    fn only_four_widths_are_known() {
        let known: Vec<u8> = (0..=u8::MAX).filter(|&bits| StatusBits::new(bits).is_some()).collect();
        assert_eq!(known, [1, 2, 4, 8]);
        for bad in ["0", "3", "16", "256", "-1", "1.0", "\"1\"", "null"] {
            assert!(serde_json::from_str::<StatusBits>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::to_string(&StatusBits::Four).unwrap(), "4");
    }
}
