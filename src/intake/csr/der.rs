//! DER, as strictly as X.690 has it, so that no two readers see two things in the same octets. In: what a
//! stranger sent. Out: elements, each in its one encoding, or nothing.

/// Deeper than any request for a certificate.
const DEPTH_MAX: u8 = 16;

pub const INTEGER: u8 = 0x02;
pub const BOOLEAN: u8 = 0x01;
pub const BIT_STRING: u8 = 0x03;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;
const NULL: u8 = 0x05;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// One element: its identifier octet, what is in it, and both with the length between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    pub raw: &'a [u8],
}

impl<'a> Element<'a> {
    /// What `der` is, and nothing after it. All that is inside has been looked at.
    // SECURITY: `t_130_what_is_no_der_is_refused`, `t_132_nested_sequences_are_refused_at_once`.
    pub fn whole(der: &'a [u8]) -> Option<Self> {
        let (element, rest) = Self::next(der)?;
        (rest.is_empty() && element.is_canonical(DEPTH_MAX)).then_some(element)
    }

    /// What is in a constructed element of this tag.
    pub fn children(&self, tag: u8) -> Option<Vec<Self>> {
        if self.tag != tag {
            return None;
        }
        split(self.content)
    }

    /// What is in an element of this tag.
    pub fn content(&self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.content)
    }

    fn next(der: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&tag, rest) = der.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Tags of more than one octet stand nowhere in what is read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81 | 0x82 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
                let shortest = if octets.len() == 1 { 0x80 } else { 0x100 };
                (Some(length).filter(|&length| length >= shortest)?, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some((Self { tag, content, raw: &der[..der.len() - rest.len()] }, rest))
    }

    fn is_canonical(&self, depth: u8) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        let inside = || split(self.content).filter(|all| all.iter().all(|element| element.is_canonical(depth)));
        match self.tag {
            SEQUENCE => inside().is_some(),
            SET => inside().is_some_and(|all| all.is_sorted_by(|one, next| one.raw < next.raw)),
            // Context-specific: what it is, its place says.
            0xa0..=0xbf => inside().is_some(),
            0x80..=0x9f => true,
            _ => is_canonical_value(self.tag, self.content),
        }
    }
}

fn split(mut content: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut all = Vec::new();
    while !content.is_empty() {
        let (element, rest) = Element::next(content)?;
        all.push(element);
        content = rest;
    }
    Some(all)
}

/// Other kinds of text than these three have more than one reading.
fn is_canonical_value(tag: u8, content: &[u8]) -> bool {
    let plain = |text: &str| !text.chars().any(char::is_control);
    match (tag, content) {
        (BOOLEAN, [value]) => matches!(value, 0 | 0xff),
        (INTEGER, [_]) => true,
        (INTEGER, [first, second, ..]) => !matches!((first, second), (0, 0..=0x7f) | (0xff, 0x80..)),
        (BIT_STRING, [unused, bits @ ..]) => {
            let last = bits.last().copied().unwrap_or(if *unused == 0 { 0 } else { 0xff });
            *unused < 8 && last.trailing_zeros() >= u32::from(*unused)
        }
        (OCTET_STRING, _) | (NULL, []) => true,
        (OID, [.., last]) => last & 0x80 == 0 && !starts_part_with_zeros(content),
        (UTF8_STRING, text) => std::str::from_utf8(text).is_ok_and(plain),
        (PRINTABLE_STRING, text) => {
            text.iter().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte))
        }
        (IA5_STRING, text) => text.is_ascii() && std::str::from_utf8(text).is_ok_and(plain),
        _ => false,
    }
}

/// A part of an object identifier that has a shorter form.
fn starts_part_with_zeros(content: &[u8]) -> bool {
    let begins = |at: usize| at == 0 || content[at - 1] & 0x80 == 0;
    content.iter().enumerate().any(|(at, &octet)| octet == 0x80 && begins(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_der(bytes: &[u8]) -> bool {
        Element::whole(bytes).is_some()
    }

    #[test]
    fn t_130_what_is_no_der_is_refused() {
        assert!(is_der(&[0x30, 0x03, 0x02, 0x01, 0x00]));
        let bad: [&[u8]; 19] = [
            &[],
            &[0x30],
            &[0x30, 0x03, 0x02, 0x01, 0x00, 0x00],       // something after it
            &[0x30, 0x04, 0x02, 0x01, 0x00],             // less than it says
            &[0x30, 0x81, 0x03, 0x02, 0x01, 0x00],       // a length in a longer form
            &[0x30, 0x82, 0x00, 0x03, 0x02, 0x01, 0x00], // the same
            &[0x30, 0x80, 0x02, 0x01, 0x00, 0x00, 0x00], // BER: until an end mark
            &[0x30, 0x84, 0, 0, 0, 3, 0x02, 0x01, 0x00], // more than it can be
            &[0x02, 0x00],                               // no number
            &[0x02, 0x02, 0x00, 0x01],                   // a number in a longer form
            &[0x02, 0x02, 0xff, 0x80],                   // the same, negative
            &[0x01, 0x01, 0x01],                         // true in another spelling
            &[0x03, 0x02, 0x07, 0x81],                   // bits that are not used, and set
            &[0x03, 0x01, 0x01],                         // unused bits of no bits
            &[0x06, 0x02, 0x80, 0x01],                   // an identifier in a longer form
            &[0x0c, 0x03, 0x61, 0x00, 0x62],             // NUL in a text
            &[0x14, 0x01, 0x61],                         // T61String
            &[0x1e, 0x02, 0x00, 0x61],                   // BMPString
            &[0x24, 0x03, 0x04, 0x01, 0x00],             // a string of strings
        ];
        for bytes in bad {
            assert!(!is_der(bytes), "{bytes:02x?}");
        }
        assert!(!is_der(&[0x31, 0x06, 0x02, 0x01, 0x02, 0x02, 0x01, 0x01]), "a set out of order");
        assert!(!is_der(&[0x31, 0x06, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01]), "the same twice");
    }

    #[test]
    fn t_132_nested_sequences_are_refused_at_once() {
        let mut nested = vec![0x05, 0x00];
        for depth in 1..200 {
            let length = nested.len();
            let head = if length < 0x80 {
                vec![0x30, length as u8]
            } else {
                vec![0x30, 0x82, (length >> 8) as u8, length as u8]
            };
            let head = if (0x80..0x100).contains(&length) { vec![0x30, 0x81, length as u8] } else { head };
            nested = [head, nested].concat();
            assert_eq!(is_der(&nested), depth < u32::from(DEPTH_MAX), "{depth}");
        }
    }
}
