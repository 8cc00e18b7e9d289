//! Revocation lists by hand, so that each part of one can be wrong though its CA signed it (RFC 5280 section 5;
//! after x509-limbo's `crl` cases).

use dayfly_verifier::x509::{CrlError, CrlSet, PeerRefusal};
use rcgen::SigningKey;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    paths::{changed, tlv},
    pki::*,
    support::NOW_S,
};

const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const NUMBER: u8 = 20;
const DELTA: u8 = 27;
const POINT: u8 = 28;
const REASON: u8 = 21;
const CERTIFICATE_ISSUER: u8 = 29;

/// A list of which every part is given.
#[derive(Clone)]
struct Hand {
    version: Vec<u8>,
    this_update: Vec<u8>,
    next_update: Vec<u8>,
    entries: Vec<u8>,
    extensions: Vec<Vec<u8>>,
}

fn utc(unix_s: i64) -> Vec<u8> {
    let at = OffsetDateTime::from_unix_timestamp(unix_s).unwrap();
    let (year, month, day, (hour, minute, second)) = (at.year() % 100, u8::from(at.month()), at.day(), at.to_hms());
    tlv(0x17, &[format!("{year:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z").as_bytes()])
}

/// `id-ce` and its last arc.
fn extension(id: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
    tlv(0x30, &[&[0x06, 0x03, 0x55, 0x1d, id], flag, &tlv(0x04, &[value])])
}

/// The place of a list, and what else is said of it (tag and content).
fn point(uri: &str, more: &[&[u8]]) -> Vec<u8> {
    let name = tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[uri.as_bytes()])])]);
    extension(POINT, true, &tlv(0x30, &[&name, &more.concat()]))
}

fn entry(serial: u128, extensions: &[Vec<u8>]) -> Vec<u8> {
    let more = if extensions.is_empty() { Vec::new() } else { tlv(0x30, &[&extensions.concat()]) };
    tlv(0x30, &[&tlv(0x02, &[&serial.to_be_bytes()]), &utc(NOW_S - 5), &more])
}

impl Hand {
    fn of(tier: &Tier) -> Self {
        Self {
            version: tlv(0x02, &[&[1]]),
            this_update: utc(NOW_S - 10),
            next_update: utc(NOW_S + 600),
            entries: Vec::new(),
            extensions: vec![extension(NUMBER, false, &[0x02, 0x01, 0x09]), point(&tier.crl, &[])],
        }
    }

    fn with(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    fn placed(mut self, point: Vec<u8>) -> Self {
        self.extensions[1] = point;
        self
    }

    fn numbered(mut self, value: &[u8]) -> Self {
        self.extensions[0] = extension(NUMBER, false, value);
        self
    }

    fn listing(mut self, entries: &[Vec<u8>]) -> Self {
        self.entries = tlv(0x30, &[&entries.concat()]);
        self
    }

    fn by(&self, tier: &Tier) -> Vec<u8> {
        let (_, certificate) = X509Certificate::from_der(&tier.der).unwrap();
        self.named(tier, certificate.subject().as_raw())
    }

    fn named(&self, tier: &Tier, issuer: &[u8]) -> Vec<u8> {
        let extensions = match &self.extensions[..] {
            [] => Vec::new(),
            some => tlv(0xa0, &[&tlv(0x30, &[&some.concat()])]),
        };
        let parts: [&[u8]; 7] =
            [&self.version, ECDSA_SHA256, issuer, &self.this_update, &self.next_update, &self.entries, &extensions];
        let body = tlv(0x30, &parts);
        let signature = SigningKey::sign(tier.issuer.key(), &body).unwrap();
        tlv(0x30, &[&body, ECDSA_SHA256, &tlv(0x03, &[&[0], &signature])])
    }
}

/// What comes of a live leaf when this is the list of its issuing CA.
fn told(pki: &Pki, list: &[u8]) -> Result<(), PeerRefusal> {
    let rest = [pki.area.list(&Said::default()), pki.root.list(&Said::default())];
    let crls = set(&[&[list.to_vec()], &rest[..]].concat());
    pki.check_by(&pki.leaf().chain, &crls, NOW_S).map(drop)
}

#[test]
fn t_139_a_list_says_of_whom_it_speaks_and_how() {
    let pki = Pki::new();
    let (ca, crl) = (&pki.issuing, pki.issuing.crl.as_str());
    let plain = || Hand::of(ca);
    let said = |hand: Hand| told(&pki, &hand.by(ca));
    assert_eq!(said(plain()), Ok(()), "as it should be");
    assert_eq!(said(plain().listing(&[entry(LEASE + 1, &[])])), Ok(()), "another certificate");
    assert_eq!(said(plain().listing(&[entry(LEASE + 1, &[]), entry(LEASE, &[])])), Err(PeerRefusal::Revoked));
    let reason = |code: u8| extension(REASON, false, &[0x0a, 0x01, code]);
    for code in [0, 1, 4, 5, 6, 9] {
        let listed = plain().listing(&[entry(LEASE, &[reason(code)])]);
        assert_eq!(said(listed), Err(PeerRefusal::Revoked), "{code}");
    }
    assert_eq!(said(plain().placed(point(crl, &[&[0x81, 0x01, 0xff]]))), Ok(()), "of leaves only");
    assert_eq!(said(plain().placed(point(crl, &[&[0x82, 0x01, 0xff]]))), Err(PeerRefusal::NoCrl), "of CAs only");
    let neither = point(crl, &[&[0x81, 0x01, 0xff, 0x82, 0x01, 0xff]]);
    assert_eq!(said(plain().placed(neither)), Err(PeerRefusal::NoCrl), "of leaves only and of CAs only");
    let elsewhere = point("http://pki.example/pki/issuing/1.crl", &[]);
    assert_eq!(said(plain().placed(elsewhere)), Err(PeerRefusal::NoCrl), "another place");
    let (_, area) = X509Certificate::from_der(&pki.area.der).unwrap();
    let another = plain().named(ca, area.subject().as_raw());
    assert_eq!(told(&pki, &another), Err(PeerRefusal::NoCrl), "under another CA's name");
    assert_eq!(told(&pki, &plain().by(&Pki::new().issuing)), Err(PeerRefusal::BadCrl), "under another CA's key");
    let silent = changed(|tier, params| {
        if tier == 2 {
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        }
    });
    assert_eq!(
        told(&silent, &Hand::of(&silent.issuing).by(&silent.issuing)),
        Err(PeerRefusal::BadCrl),
        "no signer of lists"
    );
    let mut whole = plain();
    whole.extensions.pop();
    assert_eq!(said(whole), Ok(()), "without a place it is of all");
}

#[test]
fn t_140_a_list_in_a_form_that_is_not_understood_is_refused_though_it_is_signed() {
    let pki = Pki::new();
    let (ca, crl) = (&pki.issuing, pki.issuing.crl.as_str());
    let plain = || Hand::of(ca);
    let unknown = |critical: bool| {
        let flag: &[u8] = if critical { &[0x01, 0x01, 0xff] } else { &[] };
        tlv(0x30, &[&[0x06, 0x03, 0x2a, 0x03, 0x04], flag, &tlv(0x04, &[&[5, 0]])])
    };
    let mut no_number = plain();
    no_number.extensions.remove(0);
    let broken = [
        ("no number", no_number),
        ("no extensions", Hand { extensions: Vec::new(), ..plain() }),
        ("a number of 21 octets", plain().numbered(&tlv(0x02, &[&[1; 21]]))),
        ("a number below zero", plain().numbered(&[0x02, 0x01, 0xff])),
        ("a number that is none", plain().numbered(&[0x05, 0x00])),
        ("no nextUpdate", Hand { next_update: Vec::new(), ..plain() }),
        ("a nextUpdate that is no time", Hand { next_update: tlv(0x17, &[b"269999999999Z"]), ..plain() }),
        ("a nextUpdate without its zone", Hand { next_update: tlv(0x17, &[b"270115080000"]), ..plain() }),
        ("version 1", Hand { version: Vec::new(), ..plain() }),
        ("version 1, said", Hand { version: tlv(0x02, &[&[0]]), ..plain() }),
        ("version 3", Hand { version: tlv(0x02, &[&[2]]), ..plain() }),
        ("a delta", plain().with(extension(DELTA, true, &[0x02, 0x01, 0x08]))),
        ("an unknown extension that is critical", plain().with(unknown(true))),
        ("two places", plain().with(point(crl, &[]))),
        ("a place that is none", plain().placed(extension(POINT, true, &[0x05, 0x00]))),
        ("for some reasons only", plain().placed(point(crl, &[&[0x83, 0x02, 0x06, 0x40]]))),
        ("of other CAs too", plain().placed(point(crl, &[&[0x84, 0x01, 0xff]]))),
        ("of attribute certificates", plain().placed(point(crl, &[&[0x85, 0x01, 0xff]]))),
        ("an entry with something critical", plain().listing(&[entry(7, &[unknown(true)])])),
        ("an entry of another CA", plain().listing(&[entry(7, &[extension(CERTIFICATE_ISSUER, true, &[0x30, 0])])])),
        (
            "an entry with a reason that is none",
            plain().listing(&[entry(7, &[extension(REASON, false, &[0x0a, 1, 7])])]),
        ),
        ("an entry that is cut", plain().listing(&[entry(7, &[])[..9].to_vec()])),
        ("an entry without a serial number", plain().listing(&[tlv(0x30, &[&utc(NOW_S)])])),
    ];
    for (what, hand) in broken {
        assert_eq!(CrlSet::parse(&hand.by(ca)).map(drop), Err(CrlError::Malformed), "{what}");
    }
    assert_eq!(told(&pki, &plain().with(unknown(false)).by(ca)), Ok(()), "what nobody must know");
}

/// RUSTSEC-2026-0104: what is inside an extension is read before the signature is.
#[test]
fn t_140_no_octets_in_the_place_of_a_list_stop_the_reader_or_let_anybody_in() {
    let pki = Pki::new();
    let (chain, rest) = (pki.leaf().chain, [pki.area.list(&Said::default()), pki.root.list(&Said::default())]);
    let revoking = Hand::of(&pki.issuing).listing(&[entry(LEASE, &[])]);
    for length in 0..6_usize {
        for fill in [0x00, 0x01, 0x30, 0x80, 0x83, 0xa0, 0xff] {
            for tag in [0x30, 0xa0, 0xa1, 0x83, 0x03, 0x80] {
                let inner = tlv(tag, &[&vec![fill; length]]);
                for value in [inner.clone(), tlv(0x30, &[&inner]), tlv(0x30, &[&tlv(0xa0, &[&inner])])] {
                    let list = revoking.clone().placed(extension(POINT, true, &value)).by(&pki.issuing);
                    let Ok(_) = CrlSet::parse(&list) else { continue };
                    let crls = set(&[&[list], &rest[..]].concat());
                    assert!(pki.check_by(&chain, &crls, NOW_S).is_err(), "{value:02x?}");
                }
            }
        }
    }
}
