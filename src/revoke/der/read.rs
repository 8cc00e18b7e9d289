//! Strict DER, one element at a time.

use super::{BOOLEAN, INTEGER};

/// It is not what DER would have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not DER")]
pub(in crate::revoke) struct NotDer;

/// What is still to be read.
#[derive(Debug, Clone, Copy)]
pub(in crate::revoke) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Exactly one element of this kind: its contents.
    pub fn whole(octets: &'a [u8], tag: u8) -> Result<Self, NotDer> {
        let mut input = Self(octets);
        let inside = input.inside(tag)?;
        input.end()?;
        Ok(inside)
    }

    pub fn end(self) -> Result<(), NotDer> {
        if self.0.is_empty() { Ok(()) } else { Err(NotDer) }
    }

    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub fn octets(self) -> &'a [u8] {
        self.0
    }

    /// The contents of the next element, which must be of this kind.
    pub fn inside(&mut self, tag: u8) -> Result<Self, NotDer> {
        let (found, contents, _) = self.next()?;
        if found == tag { Ok(Self(contents)) } else { Err(NotDer) }
    }

    /// The same, where the next element is of this kind.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Self>, NotDer> {
        if self.0.first() == Some(&tag) { self.inside(tag).map(Some) } else { Ok(None) }
    }

    /// The next element with its head, which must be of this kind.
    pub fn raw(&mut self, tag: u8) -> Result<&'a [u8], NotDer> {
        let (found, _, raw) = self.next()?;
        if found == tag { Ok(raw) } else { Err(NotDer) }
    }

    /// A number that is not negative, as it is written.
    pub fn positive(&mut self) -> Result<&'a [u8], NotDer> {
        let octets = self.inside(INTEGER)?.0;
        match octets {
            [] => Err(NotDer),
            [0, next, ..] if *next < 0x80 => Err(NotDer),
            [first, ..] if *first > 0x7f => Err(NotDer),
            _ => Ok(octets),
        }
    }

    /// `BOOLEAN DEFAULT FALSE`: absent, or true.
    pub fn flag(&mut self) -> Result<bool, NotDer> {
        match self.optional(BOOLEAN)? {
            None => Ok(false),
            Some(value) if value.0 == [0xff] => Ok(true),
            Some(_) => Err(NotDer),
        }
    }

    // SECURITY: `t_130_what_der_would_not_write_is_not_read`.
    fn next(&mut self) -> Result<(u8, &'a [u8], &'a [u8]), NotDer> {
        let [tag, first, rest @ ..] = self.0 else { return Err(NotDer) };
        if tag & 0x1f == 0x1f {
            return Err(NotDer);
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            // Four octets are more than anything that is read here may have.
            0x81..=0x84 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(NotDer)?;
                let length = octets.iter().fold(0_usize, |length, octet| length << 8 | usize::from(*octet));
                let shortest = octets[0] != 0 && length > 0x7f;
                if !shortest {
                    return Err(NotDer);
                }
                (length, rest)
            }
            _ => return Err(NotDer),
        };
        let (contents, after) = rest.split_at_checked(length).ok_or(NotDer)?;
        let raw = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Ok((*tag, contents, raw))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{OCTET_STRING, SEQUENCE, element},
        *,
    };

    #[test]
    fn elements_are_read_as_they_were_written() {
        let long = element(OCTET_STRING, &[&[9; 300]]);
        let both = element(SEQUENCE, &[&[2, 1, 5], &long]);
        let mut inside = Input::whole(&both, SEQUENCE).unwrap();
        assert_eq!(inside.positive(), Ok(&[5][..]));
        assert_eq!(inside.optional(SEQUENCE).unwrap().map(Input::octets), None);
        assert_eq!(inside.raw(OCTET_STRING), Ok(&long[..]));
        inside.end().unwrap();
    }

    #[test]
    fn t_130_what_der_would_not_write_is_not_read() {
        for bad in [
            &[][..],
            &[0x30],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 0],
            &[0x30, 0x82, 0, 1, 0],
            &[0x30, 0x85, 0, 0, 0, 0, 1, 0],
            &[0x30, 0xff],
            &[0x30, 1, 0, 0],
            &[0x30, 2, 0],
            &[0x3f, 1, 0],
            &[0x31, 0],
        ] {
            assert!(Input::whole(bad, SEQUENCE).is_err(), "{bad:x?}");
        }
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0x7f], &[3, 1, 1]] {
            assert!(Input(bad).positive().is_err(), "{bad:x?}");
        }
        assert!(Input(&[1, 1, 0]).flag().is_err() && Input(&[1, 1, 1]).flag().is_err());
        assert_eq!(Input(&[1, 1, 0xff]).flag(), Ok(true));
    }
}
