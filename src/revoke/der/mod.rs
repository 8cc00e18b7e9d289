//! DER (X.690) as CRLs and OCSP need it: written to the byte, and read strictly. What is read comes from
//! anybody: definite lengths in their shortest form, one element at a time, no recursion.
//!
//! In: values or octets. Out: octets or values.

mod read;

use dayfly_domain::UnixMs;
use time::OffsetDateTime;

pub(super) use read::{Input, NotDer};

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;

/// `ecdsa-with-SHA256`, as a whole AlgorithmIdentifier (RFC 5758 section 3.2: no parameters).
pub(super) const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// The context's own tag of something built of parts.
pub(super) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The context's own tag of something plain.
pub(super) const fn context_plain(number: u8) -> u8 {
    0x80 | number
}

/// One element of these parts.
pub(super) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    head(&mut out, tag, length);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

pub(super) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    element(SEQUENCE, parts)
}

pub(super) fn oid(body: &[u8]) -> Vec<u8> {
    element(OID, &[body])
}

/// A number that is not negative, by its octets.
pub(super) fn integer(octets: &[u8]) -> Vec<u8> {
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    match &octets[zeros..] {
        [] => element(INTEGER, &[&[0]]),
        [first, ..] if *first > 0x7f => element(INTEGER, &[&[0], &octets[zeros..]]),
        shortest => element(INTEGER, &[shortest]),
    }
}

/// Whole octets.
pub(super) fn bit_string(octets: &[u8]) -> Vec<u8> {
    element(BIT_STRING, &[&[0], octets])
}

/// RFC 5280 section 4.1: `critical` only where it is true.
pub(super) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[BOOLEAN, 1, 0xff] } else { &[] };
    sequence(&[&oid(id), critical, &element(OCTET_STRING, &[value])])
}

/// RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime after.
pub(super) fn time(at: UnixMs) -> Vec<u8> {
    let text = digits(at);
    if text < *b"20500101000000Z" { element(UTC_TIME, &[&text[2..]]) } else { element(GENERALIZED_TIME, &[&text]) }
}

/// Without fractions.
pub(super) fn generalized(at: UnixMs) -> Vec<u8> {
    element(GENERALIZED_TIME, &[&digits(at)])
}

/// `YYYYMMDDHHMMSSZ`. Thousands of them stand in a CRL.
fn digits(at: UnixMs) -> [u8; 15] {
    // Times of the broker lie in this age; what does not is the beginning of it.
    let at = OffsetDateTime::from_unix_timestamp(at.as_s()).ok().filter(|at| (0..=9_999).contains(&at.year()));
    let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let year = year.unsigned_abs();
    let pairs = [(year / 100) as u8, (year % 100) as u8, u8::from(month), day, hour, minute, second];
    let mut text = [b'Z'; 15];
    for (place, pair) in text.chunks_exact_mut(2).zip(pairs) {
        place.copy_from_slice(&[b'0' + pair / 10, b'0' + pair % 10]);
    }
    text
}

/// Tag and length.
pub(super) fn head(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
        return;
    }
    let octets = length.to_be_bytes();
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    out.push(0x80 | (octets.len() - zeros) as u8);
    out.extend_from_slice(&octets[zeros..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_have_their_shortest_form() {
        assert_eq!(element(OCTET_STRING, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(element(OCTET_STRING, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(element(OCTET_STRING, &[&[7; 300]])[..4], [4, 0x82, 1, 44]);
        assert_eq!(integer(&[0, 0, 5]), [2, 1, 5]);
        assert_eq!(integer(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!((integer(&[]), integer(&[0, 0])), (vec![2, 1, 0], vec![2, 1, 0]));
    }

    #[test]
    fn times_are_those_of_rfc_5280() {
        assert_eq!(&time(UnixMs::from_s(1_800_000_000))[2..], b"270115080000Z");
        assert_eq!(&generalized(UnixMs::new(1_800_000_000_999))[2..], b"20270115080000Z");
        assert_eq!(time(UnixMs::from_s(2_524_608_000))[0], GENERALIZED_TIME, "from 2050 on");
        assert_eq!(time(UnixMs::from_s(2_524_607_999))[0], UTC_TIME);
    }
}
