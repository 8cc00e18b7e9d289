use dayfly_domain::Cause;
use ring::digest;
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
};

use super::{
    super::{
        CrlReason,
        der::{self, Input},
    },
    *,
};
use crate::mint::pki::{CA_TIERS, CaSigner, CaTerms, FileKey, Pki, Places};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);
const SHA1: &[u8] = &[0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];
const SHA256_BARE: &[u8] = &[0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const MD5: &[u8] = &[0x30, 0x0c, 0x06, 0x08, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 0x05, 0x05, 0x00];
const NONCE: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x02];

fn pki() -> Pki {
    dayfly_verifier::crypto::init().unwrap();
    Pki::in_memory("example.org", Places { base: "http://pki.test".into() }, AT).unwrap()
}

/// What a CA's certificate says of it: its name, and its key.
fn named(ca: &Ca) -> (Vec<u8>, Vec<u8>) {
    let (_, read) = X509Certificate::from_der(ca.der()).unwrap();
    (read.subject().as_raw().to_vec(), read.public_key().subject_public_key.data.to_vec())
}

fn cert_id(ca: &Ca, algorithm: &[u8], serial: &[u8]) -> Vec<u8> {
    let hash = if algorithm == SHA1 { &digest::SHA1_FOR_LEGACY_USE_ONLY } else { &digest::SHA256 };
    let (name, key) = named(ca);
    let hashed = |octets: &[u8]| der::element(der::OCTET_STRING, &[digest::digest(hash, octets).as_ref()]);
    der::sequence(&[algorithm, &hashed(&name), &hashed(&key), &der::element(der::INTEGER, &[serial])])
}

fn nonce(octets: &[u8]) -> Vec<u8> {
    let extension = der::extension(NONCE, false, &der::element(der::OCTET_STRING, &[octets]));
    der::element(der::context(2), &[&der::sequence(&[&extension])])
}

/// Of these CertIDs, with what follows them.
fn request(ids: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
    let all: Vec<u8> = ids.iter().flat_map(|id| der::sequence(&[id])).collect();
    der::sequence(&[&der::sequence(&[&der::sequence(&[&all]), rest])])
}

/// Status octets of the answers, what is signed, and the signer's certificate.
struct Read {
    statuses: Vec<u8>,
    data: Vec<u8>,
    signature: Vec<u8>,
    signer: Vec<u8>,
}

fn read(answer: &[u8]) -> Read {
    let mut whole = Input::whole(answer, der::SEQUENCE).unwrap();
    assert_eq!(whole.inside(der::ENUMERATED).unwrap().octets(), [0]);
    let mut bytes = whole.inside(der::context(0)).unwrap().inside(der::SEQUENCE).unwrap();
    bytes.inside(der::OID).unwrap();
    let basic = bytes.inside(der::OCTET_STRING).unwrap().octets();
    let mut basic = Input::whole(basic, der::SEQUENCE).unwrap();
    let data = basic.raw(der::SEQUENCE).unwrap();
    assert_eq!(basic.raw(der::SEQUENCE).unwrap(), der::ECDSA_SHA256);
    let signature = basic.inside(der::BIT_STRING).unwrap().octets()[1..].to_vec();
    let signer = basic.inside(der::context(0)).unwrap().inside(der::SEQUENCE).unwrap().raw(der::SEQUENCE).unwrap();
    let mut inside = Input::whole(data, der::SEQUENCE).unwrap();
    inside.inside(der::context(2)).unwrap();
    inside.inside(0x18).unwrap();
    let mut singles = inside.inside(der::SEQUENCE).unwrap();
    let mut statuses = Vec::new();
    while !singles.is_empty() {
        let mut single = singles.inside(der::SEQUENCE).unwrap();
        single.raw(der::SEQUENCE).unwrap();
        statuses.push(single.octets()[0]);
    }
    Read { statuses, data: data.to_vec(), signature, signer: signer.to_vec() }
}

fn refused(der: &[u8]) -> Option<NotAnswered> {
    OcspRequest::parse(der).err()
}

#[test]
fn every_status_is_answered_by_a_delegated_signer() {
    let pki = pki();
    let ca = pki.active(AT).unwrap();
    let ids = [cert_id(&ca, SHA1, &[1; 16]), cert_id(&ca, SHA256_BARE, &[2; 16]), cert_id(&ca, SHA1, &[3])];
    let der = request(&ids, &nonce(&[7; 32]));
    let asked = OcspRequest::parse(&der).unwrap();
    assert!(Arc::ptr_eq(asked_ca(&asked, &pki.issuing()).unwrap(), &pki.issuing()[0]));
    let leases: Vec<_> = asked.asked.iter().map(|asked| asked.lease().unwrap().as_u128()).collect();
    assert_eq!(leases, [u128::from_be_bytes([1; 16]), u128::from_be_bytes([2; 16]), 3]);
    let revoked = CertStatus::Revoked(Revocation { at: AT, reason: CrlReason::from(Cause::Superseded) });
    let signers = OcspSigners::default();
    let answered = answer(&asked, &[CertStatus::Good, revoked, CertStatus::Unknown], &ca, &signers, AT).unwrap();
    assert!(answered.is_single, "it has a nonce");
    let Read { statuses, data, signature, signer } = read(&answered.der);
    assert_eq!(statuses, [0x80, 0xa1, 0x82]);
    assert!(data.windows(32).any(|window| window == [7; 32]), "the nonce is echoed");
    let (_, signer) = X509Certificate::from_der(&signer).unwrap();
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        &signer.public_key().subject_public_key.data,
    );
    key.verify(&data, &signature).unwrap();
    let (_, above) = X509Certificate::from_der(ca.der()).unwrap();
    signer.verify_signature(Some(above.public_key())).unwrap();
    assert!(signer.extended_key_usage().unwrap().unwrap().value.ocsp_signing && !signer.is_ca());
    let nocheck = signer.iter_extensions().find(|extension| extension.oid.to_id_string() == "1.3.6.1.5.5.7.48.1.5");
    assert!(nocheck.is_some_and(|extension| !extension.critical && extension.value == [5, 0]));
    let above_id = above.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    let own_id = signer.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    assert_eq!(above_id, own_id);
}

#[test]
fn an_answer_without_a_nonce_is_for_everybody() {
    let pki = pki();
    let ca = pki.active(AT).unwrap();
    let der = request(&[cert_id(&ca, SHA1, &[1; 16])], &[]);
    let asked = OcspRequest::parse(&der).unwrap();
    let answered = answer(&asked, &[CertStatus::Good], &ca, &OcspSigners::default(), AT).unwrap();
    assert!(!answered.is_single);
    assert_eq!((answered.this_update, answered.next_update), (AT.plus_s(-60), AT.plus_s(300)));
}

/// A key somewhere else, and how often it signed.
#[derive(Debug)]
struct Remote(FileKey, std::sync::atomic::AtomicUsize);

impl CaSigner for Remote {
    fn public_key(&self) -> &[u8] {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.0.sign(message)
    }

    fn is_remote(&self) -> bool {
        true
    }
}

#[test]
fn whoever_asks_about_a_ca_in_a_token_never_reaches_the_token() {
    dayfly_verifier::crypto::init().unwrap();
    let remote = Arc::new(Remote(FileKey::generate().unwrap(), Default::default()));
    let (trust_domain, from) = ("example.org", AT.plus_s(-60));
    let terms =
        CaTerms { tier: CA_TIERS[0], trust_domain, serial: [7; 16], from, life_s: 9 * 3_600, above: None, dns: &[] };
    let ca = Arc::new(Ca::root(&terms, remote.clone()).unwrap());
    let signed = || remote.1.load(std::sync::atomic::Ordering::SeqCst);
    let (before, signers) = (signed(), OcspSigners::default());
    let der = request(&[cert_id(&ca, SHA1, &[1; 16])], &nonce(&[7; 32]));
    let asked = OcspRequest::parse(&der).unwrap();
    let ask = |now: UnixMs| answer(&asked, &[CertStatus::Good], &ca, &signers, now);
    for _ in 0..9 {
        assert_eq!(ask(AT), Err(NotAnswered::TryLater));
    }
    assert_eq!(signed(), before);
    assert_eq!(due_signers(&signers, vec![ca.clone()], AT).len(), 1);
    renew_signer(&signers, &ca, AT).unwrap();
    assert!(ask(AT).is_ok() && due_signers(&signers, vec![ca.clone()], AT).is_empty());
    // Nobody renewed it in time: it goes on to its end.
    let later = AT.plus_s(4 * 3_600);
    assert!(ask(later).is_ok() && due_signers(&signers, vec![ca.clone()], later).len() == 1);
    assert_eq!(ask(AT.plus_s(6 * 3_600)), Err(NotAnswered::TryLater));
    assert_eq!(signed(), before + 1);
    assert!(due_signers(&signers, vec![ca.clone()], ca.not_after().plus_s(1)).is_empty(), "it is over");
}

#[test]
fn an_answer_is_kept_only_while_the_certificate_stands_as_it_stood() {
    let pki = pki();
    let (ca, signers) = (pki.active(AT).unwrap(), OcspSigners::default());
    let id = cert_id(&ca, SHA1, &[1; 16]);
    let ask = |ids: &[Vec<u8>], rest: &[u8], status, now| {
        let der = request(ids, rest);
        let asked = OcspRequest::parse(&der).unwrap();
        answer(&asked, &vec![status; ids.len()], &ca, &signers, now).unwrap()
    };
    let one = |status, now| ask(std::slice::from_ref(&id), &[], status, now);
    let revoked = CertStatus::Revoked(Revocation { at: AT, reason: CrlReason::Superseded });
    let (last, over) = (AT.plus_s(i64::from(OCSP_MAX_AGE_S) - 1), AT.plus_s(i64::from(OCSP_MAX_AGE_S)));
    let first = one(CertStatus::Good, AT);
    assert_eq!(one(CertStatus::Good, last), first, "the same, for as long as caches may keep it");
    let ended = one(revoked, last);
    assert_eq!((read(&ended.der).statuses, ended.this_update), (vec![0xa1], last.plus_s(-60)), "at once");
    assert_ne!(one(CertStatus::Good, last), first, "what was true is not said again");
    assert_eq!(one(CertStatus::Good, over).this_update, last.plus_s(-60));
    assert_ne!(one(CertStatus::Good, AT.plus_s(-1)).this_update, last.plus_s(-60), "the clock went back");
    for (what, ids, rest, status) in [
        ("a nonce", vec![id.clone()], nonce(&[7; 8]), CertStatus::Good),
        ("a number that was made up", vec![cert_id(&ca, SHA1, &[9; 16])], Vec::new(), CertStatus::Unknown),
        ("two at once", vec![id.clone(), id.clone()], Vec::new(), CertStatus::Good),
    ] {
        assert_ne!(ask(&ids, &rest, status, AT), ask(&ids, &rest, status, AT), "{what}");
    }
    assert_ne!(ask(&[cert_id(&ca, SHA1, &[2; 16])], &[], CertStatus::Good, AT), one(CertStatus::Good, AT));
}

#[test]
fn a_signer_is_renewed_by_itself_and_never_outlives_its_ca() {
    let pki = pki();
    let ca = pki.active(AT).unwrap();
    let signers = OcspSigners::default();
    let signer = |now| signers.of(&ca, now).map(|signer| signer.unwrap().certificate().to_vec());
    let first = signer(AT).unwrap();
    assert_eq!(first, signer(AT.plus_s(3 * 3_600 - 1)).unwrap());
    assert_ne!(first, signer(AT.plus_s(3 * 3_600)).unwrap());
    let last_s = ca.not_after();
    let last = signer(last_s).unwrap();
    let (_, read) = X509Certificate::from_der(&last).unwrap();
    assert_eq!(read.validity().not_after.timestamp(), last_s.as_s());
    assert!(signer(last_s.plus_s(1)).is_err(), "a CA that is over says nothing");
    assert!(read.raw_serial().len() == 16 && read.raw_serial()[0] & 0xc0 == 0x40, "no lease has such a number");
    keep_signers(&signers, &[]);
    assert_ne!(last, signer(last_s).unwrap());
}

#[test]
fn t_143_what_is_not_ours_is_not_spoken_for() {
    let (pki, other) = (pki(), pki());
    let (ca, foreign) = (pki.active(AT).unwrap(), other.active(AT).unwrap());
    let cas: Vec<_> = pki.issuing().into_iter().chain(pki.areas()).collect();
    let found = |ids: &[Vec<u8>]| {
        let der = request(ids, &[]);
        asked_ca(&OcspRequest::parse(&der).unwrap(), &cas).map(|ca| ca.id().clone())
    };
    let id = |ca: &Ca| cert_id(ca, SHA1, &[1; 16]);
    assert_eq!(found(&[id(&ca)]).as_ref(), Ok(ca.id()));
    assert_eq!(found(&[id(&pki.area())]).as_ref(), Ok(pki.area().id()));
    assert_eq!(found(&[id(&foreign)]), Err(NotAnswered::Unauthorized));
    assert_eq!(found(&[id(&ca), id(&foreign)]), Err(NotAnswered::Unauthorized));
    assert_eq!(found(&[id(&ca), id(&pki.area())]), Err(NotAnswered::Unauthorized), "no signer speaks for both");
    assert_eq!(found(&[cert_id(&ca, MD5, &[1; 16])]), Err(NotAnswered::Unauthorized));
    // The name of one with the key of the other.
    let mut mixed = id(&ca);
    let keys = [named(&ca).1, named(&foreign).1];
    let [own, theirs] = keys.map(|key| digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &key).as_ref().to_vec());
    let at = mixed.windows(20).position(|window| window == own).unwrap();
    mixed[at..at + 20].copy_from_slice(&theirs);
    assert_eq!(found(&[mixed]), Err(NotAnswered::Unauthorized));
    assert_eq!(NotAnswered::Unauthorized.der(), [0x30, 3, 0x0a, 1, 6]);
}

#[test]
fn a_nonce_has_1_to_128_octets_and_stands_once() {
    let ca = pki().active(AT).unwrap();
    let with = |rest: &[u8]| refused(&request(&[cert_id(&ca, SHA1, &[1; 16])], rest));
    assert_eq!((with(&nonce(&[1])), with(&nonce(&[1; 128]))), (None, None));
    let twice = der::extension(NONCE, false, &der::element(der::OCTET_STRING, &[&[1]]));
    let twice = der::element(der::context(2), &[&der::sequence(&[&twice, &twice])]);
    let bare = der::extension(NONCE, false, &[1, 2, 3]);
    let bare = der::element(der::context(2), &[&der::sequence(&[&bare])]);
    let strange = |critical| {
        let extension = der::extension(&[0x2a, 0x03], critical, &[1]);
        der::element(der::context(2), &[&der::sequence(&[&extension])])
    };
    for bad in [nonce(&[]), nonce(&[1; 129]), twice, bare, strange(true), der::element(der::context(2), &[])] {
        assert_eq!(with(&bad), Some(NotAnswered::Malformed), "{bad:x?}");
    }
    assert_eq!(with(&strange(false)), None, "what is not critical is ignored");
}

#[test]
fn t_132_a_request_is_short_and_flat() {
    let ca = pki().active(AT).unwrap();
    let id = cert_id(&ca, SHA1, &[1; 16]);
    let good = request(std::slice::from_ref(&id), &[]);
    assert_eq!(refused(&good), None);
    assert_eq!(refused(&request(&vec![id.clone(); OCSP_ASKED_MAX], &[])), None);
    let nested = (0..1_000).fold(Vec::new(), |inner, _| der::sequence(&[&inner]));
    let indefinite = [&[0x30, 0x80][..], &good[2..], &[0, 0]].concat();
    for bad in [
        Vec::new(),
        vec![0; 100],
        nested,
        indefinite,
        [good.as_slice(), &[0]].concat(),
        good[..good.len() - 1].to_vec(),
        request(&[], &[]),
        request(&vec![id.clone(); OCSP_ASKED_MAX + 1], &[]),
        request(std::slice::from_ref(&id), &vec![0; OCSP_MAX_BYTES]),
        request(&[cert_id(&ca, SHA1, &[0xff; 16])], &[]),
        request(&[cert_id(&ca, SHA1, &[0, 1])], &[]),
        request(&[cert_id(&ca, SHA1, &[])], &[]),
        request(&[cert_id(&ca, SHA1, &[1; 21])], &[]),
        // `version` v1, which is the default.
        der::sequence(&[&der::sequence(&[&[0xa0, 3, 2, 1, 0], &der::sequence(&[&der::sequence(&[&id])])])]),
    ] {
        assert_eq!(refused(&bad), Some(NotAnswered::Malformed), "{:x?}", &bad[..bad.len().min(40)]);
    }
    // Every octet changed, every length cut: an answer or a refusal, and no panic.
    for at in 0..good.len() {
        for octet in [0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff] {
            let mut changed = good.clone();
            changed[at] = octet;
            let _ = refused(&changed);
        }
        assert_eq!(refused(&good[..at]), Some(NotAnswered::Malformed));
    }
}

#[test]
fn a_number_that_none_of_ours_has_is_no_lease() {
    let ca = pki().active(AT).unwrap();
    let lease = |serial: &[u8]| {
        let der = request(&[cert_id(&ca, SHA1, serial)], &[]);
        OcspRequest::parse(&der).unwrap().asked[0].lease()
    };
    assert!(lease(&[1; 16]).is_some() && lease(&[0; 1]).is_some());
    assert!(lease(&[1; 17]).is_none() && lease(&[1; 20]).is_none());
    let high: Vec<u8> = [0].into_iter().chain([0xff; 16]).collect();
    assert_eq!(lease(&high).map(dayfly_domain::LeaseId::as_u128), Some(u128::MAX));
}
