//! The little DER that is written here and not by the builder of certificates.

pub const OID: u8 = 0x06;
/// `GeneralName`: uniformResourceIdentifier.
pub const URI: u8 = 0x86;
/// Authority information access, and where the certificate of the issuer is (RFC 5280 section 4.2.2.1).
pub const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
pub const CA_ISSUERS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
pub const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// `AlgorithmIdentifier` of ECDSA with SHA-256 (RFC 5758 section 3.2).
pub const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

pub fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let octets = long.to_be_bytes();
            let octets = &octets[long.leading_zeros() as usize / 8..];
            out.push(0x80 | octets.len() as u8);
            out.extend_from_slice(octets);
        }
    }
    out.extend_from_slice(content);
    out
}

pub fn sequence(content: &[u8]) -> Vec<u8> {
    element(SEQUENCE, content)
}

/// What was signed, how, and its signature: a certificate, a CRL, an answer of OCSP.
pub fn signed(tbs: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = element(BIT_STRING, &[&[0], signature].concat());
    sequence(&[tbs, ECDSA_SHA256, &signature].concat())
}

/// The first element within a sequence, whole.
pub fn first_of(der: &[u8]) -> Option<&[u8]> {
    let inside = &der[head(der)?.0..];
    let (head, length) = head(inside)?;
    inside.get(..head + length)
}

/// All elements within a sequence, each whole.
pub fn all_of(der: &[u8]) -> Option<Vec<&[u8]>> {
    let (start, length) = head(der)?;
    let mut inside = der.get(start..).filter(|inside| inside.len() == length)?;
    let mut all = Vec::new();
    while !inside.is_empty() {
        let (head, length) = head(inside)?;
        let (element, rest) = inside.split_at_checked(head + length)?;
        all.push(element);
        inside = rest;
    }
    Some(all)
}

/// Whether all in it is of a kind that certificates are made of, down to what is opaque.
pub fn is_plain(der: &[u8]) -> bool {
    let Some((head, length)) = head(der) else { return false };
    let content = &der[head..];
    content.len() == length
        && match der[0] {
            0x01 => matches!(content, [0 | 0xff]),
            0x05 => content.is_empty(),
            // INTEGER, BIT STRING, OCTET STRING, OID, texts, times, and what a place gives its meaning.
            0x02 | 0x03 | 0x04 | 0x06 | 0x0c | 0x13 | 0x17 | 0x18 | 0x80..=0x9e => true,
            0x30 | 0x31 | 0xa0..=0xbe => all_of(der).is_some_and(|all| all.into_iter().all(is_plain)),
            _ => false,
        }
}

/// Octets of the head, and of what it announces.
fn head(der: &[u8]) -> Option<(usize, usize)> {
    match *der.get(1)? {
        short @ 0..=0x7f => Some((2, usize::from(short))),
        long @ 0x81..=0x84 => {
            let octets = der.get(2..2 + usize::from(long & 0x7f))?;
            Some((2 + octets.len(), octets.iter().fold(0, |length, &octet| length << 8 | usize::from(octet))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_their_shortest_form() {
        let heads = [(0x7f, 2), (0x80, 3), (0xff, 3), (0x100, 4), (0x1_0000, 5)];
        for (length, octets) in heads {
            let whole = sequence(&vec![0; length]);
            assert_eq!((whole.len(), head(&whole)), (length + octets, Some((octets, length))));
        }
        let inner = element(OID, &[1; 200]);
        assert_eq!(first_of(&sequence(&[&inner[..], &[5, 0]].concat())), Some(&inner[..]));
        assert_eq!(first_of(&sequence(&inner[..9])), None, "less than it says");
    }
}
