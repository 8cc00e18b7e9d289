use dayfly_domain::{Cause, TaskId};
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate},
    revocation_list::CertificateRevocationList,
};

use super::*;
use crate::mint::pki::{Ca, Pki, Places};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);

fn pki() -> Pki {
    dayfly_verifier::crypto::init().unwrap();
    Pki::in_memory("example.org", Places { base: "http://pki.test".into() }, AT).unwrap()
}

fn issuing(pki: &Pki) -> Arc<Ca> {
    pki.active(AT).unwrap()
}

fn row(number: u64, ca: &str, life_s: i64) -> LeaseRow {
    LeaseRow {
        id: lease(number),
        task: TaskId::from_parts(1, [1; 10]),
        seq: number,
        target: "edge".into(),
        kind: Kind::X509,
        row: "r".into(),
        actions: "[]".into(),
        issued_at: AT,
        expires: AT.plus_s(life_s),
        credential_hash: [0; 32],
        thumbprint: None,
        kid: Some(ca.to_owned()),
        status: None,
        end: None,
    }
}

fn lease(number: u64) -> LeaseId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    LeaseId::from_parts(AT.as_ms() as u64, random)
}

fn end(at: UnixMs, cause: Cause) -> End {
    End { at, cause, seq: None }
}

/// All that was ended, on one list of this CA, by hand.
struct Desk {
    crls: Crls,
    ca: Arc<Ca>,
    shards: u32,
}

impl Desk {
    fn new(leases: u64) -> Self {
        let desk = Self { crls: Crls::default(), ca: issuing(&pki()), shards: 1 };
        (0..leases).for_each(|number| desk.crls.apply(&Change::AddLease(row(number, desk.ca.id().as_str(), 900))));
        desk
    }

    fn cas(&self) -> Vec<(Arc<str>, u32)> {
        vec![(self.ca.id().as_str().into(), self.shards)]
    }

    /// How many lists were made anew.
    fn press(&self, now: UnixMs) -> usize {
        let due = self.crls.due(&self.cas(), now);
        let number = self.crls.next_number(now);
        let made: Vec<_> = due.into_iter().map(|due| self.made(due, number, now)).collect();
        let count = made.len();
        self.crls.publish(made, &self.cas(), Vec::new(), now);
        count
    }

    fn made(&self, due: DueCrl, number: u64, now: UnixMs) -> (DueCrl, PublishedCrl) {
        let uri = format!("http://pki.test/pki/{}/{}.crl", self.ca.id(), due.place.1);
        let this_update = now.plus_s(-CRL_BACK_S);
        let terms = CrlTerms { uri: &uri, number, this_update, next_update: now.plus_s(i64::from(CRL_LIFE_S)) };
        let der = sign_crl(&self.ca, terms, due.entries.clone()).unwrap();
        (due, PublishedCrl::new(der, this_update, now))
    }

    fn list(&self, shard: u32) -> Arc<[u8]> {
        self.crls.shelf().get(&(self.ca.id().as_str().into(), shard)).unwrap().bytes.clone()
    }

    /// Serial numbers and reasons, as another parser reads them, of a list whose signature it checked.
    fn read(&self, shard: u32) -> Vec<(LeaseId, u8)> {
        let der = self.list(shard);
        let (rest, list) = CertificateRevocationList::from_der(&der).unwrap();
        let (_, above) = X509Certificate::from_der(self.ca.der()).unwrap();
        assert!(rest.is_empty() && list.verify_signature(above.public_key()).is_ok());
        assert_eq!(list.issuer().as_raw(), above.subject().as_raw(), "the name, octet for octet");
        let entry = |entry: &x509_parser::revocation_list::RevokedCertificate<'_>| {
            let mut serial = Serial::default();
            serial.copy_from_slice(entry.raw_serial());
            (lease_of(&serial), entry.reason_code().unwrap().1.0)
        };
        list.iter_revoked_certificates().map(entry).collect()
    }
}

#[test]
fn a_list_is_what_rfc_5280_wants_and_its_point_is_that_of_the_certificates() {
    let desk = Desk::new(1);
    assert_eq!(desk.press(AT), 1, "one that is empty too");
    let der = desk.list(0);
    let (_, list) = CertificateRevocationList::from_der(&der).unwrap();
    assert!(list.tbs_cert_list.revoked_certificates.is_empty());
    assert_eq!(list.last_update().timestamp(), AT.as_s() - 60);
    assert_eq!(list.next_update().unwrap().timestamp(), AT.as_s() + 600);
    assert_eq!(list.crl_number().unwrap().to_bytes_be(), AT.as_ms().to_be_bytes()[2..]);
    let (_, above) = X509Certificate::from_der(desk.ca.der()).unwrap();
    let own = above.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    });
    let mut seen = Vec::new();
    for extension in list.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                assert_eq!(id.key_identifier.as_ref().map(|id| id.0.to_vec()), own);
                assert!(!extension.critical);
            }
            ParsedExtension::IssuingDistributionPoint(point) => {
                assert!(extension.critical && !point.only_contains_user_certs && !point.only_contains_ca_certs);
            }
            _ => assert!(!extension.critical),
        }
        seen.push(extension.oid.to_id_string());
    }
    assert_eq!(seen, ["2.5.29.35", "2.5.29.20", "2.5.29.28"]);
    // As `CrlDistributionPoint` writes it into a certificate: `[0] { [0] { [6] uri } }`.
    let uri = format!("http://pki.test/pki/{}/0.crl", desk.ca.id());
    let point =
        [&[0xa0, uri.len() as u8 + 4, 0xa0, uri.len() as u8 + 2, 0x86, uri.len() as u8], uri.as_bytes()].concat();
    assert!(der.windows(point.len()).any(|window| window == point));
}

#[test]
fn what_has_ended_is_on_the_list_with_its_reason() {
    let desk = Desk::new(9);
    let causes: Vec<_> = Cause::ALL.iter().zip(0..).collect();
    causes.iter().for_each(|(cause, number)| desk.crls.end(lease(*number), end(AT, **cause)));
    desk.crls.end(lease(77), end(AT, Cause::Revoked));
    desk.press(AT);
    let expected: Vec<_> =
        causes.iter().map(|(cause, number)| (lease(*number), CrlReason::from(**cause) as u8)).collect();
    assert_eq!(desk.read(0), expected, "and nothing that is no certificate of ours");
}

#[test]
fn a_list_is_made_anew_when_it_reads_differently_and_each_minute() {
    let desk = Desk::new(2);
    assert_eq!((desk.press(AT), desk.press(AT.plus_s(59)), desk.press(AT.plus_s(60))), (1, 0, 1));
    let before = desk.list(0);
    desk.crls.end(lease(0), end(AT.plus_s(61), Cause::Revoked));
    assert_eq!((desk.press(AT.plus_s(61)), desk.press(AT.plus_s(62))), (1, 0));
    assert_ne!(before, desk.list(0));
    desk.crls.end(lease(0), end(AT.plus_s(61), Cause::Revoked));
    assert_eq!(desk.press(AT.plus_s(63)), 0, "the same end again says nothing new");
    assert_eq!(desk.press(AT.plus_s(-1)), 1, "a clock that went back: it would never be old");
}

#[test]
fn numbers_only_grow_whatever_the_clock_does() {
    let crls = Crls::default();
    let at = AT.as_ms() as u64;
    assert_eq!((crls.next_number(AT), crls.next_number(AT)), (at, at + 1));
    assert_eq!(crls.next_number(AT.plus_s(-9)), at + 2);
    let again = Crls::default();
    again.go_on_from(at + 5_000);
    assert_eq!((again.next_number(AT), again.next_number(AT.plus_s(9))), (at + 5_001, at + 9_000));
}

#[test]
fn an_entry_stays_for_one_list_after_the_certificate_expired() {
    let desk = Desk::new(1);
    desk.crls.end(lease(0), end(AT, Cause::Revoked));
    desk.press(AT);
    let expired = AT.plus_s(900);
    desk.crls.over(lease(0), Some(end(AT, Cause::Revoked)));
    assert_eq!((desk.press(expired), desk.read(0).len()), (1, 1), "its `thisUpdate` lies before");
    let after = expired.plus_s(CRL_BACK_S);
    assert_eq!((desk.press(after), desk.read(0).len()), (1, 1), "the one list that was made after");
    assert_eq!((desk.press(after.plus_s(59)), desk.press(after.plus_s(60))), (0, 1));
    assert!(desk.read(0).is_empty());
    assert_eq!(desk.crls.counts(), (0, 0));
}

#[test]
fn an_end_in_the_last_moment_is_not_lost() {
    let desk = Desk::new(1);
    desk.crls.over(lease(0), Some(end(AT.plus_s(899), Cause::Completed)));
    desk.crls.end(lease(0), end(AT, Cause::Revoked));
    desk.press(AT.plus_s(901));
    assert_eq!(desk.read(0), [(lease(0), 5)]);
}

#[test]
fn an_end_that_lies_ahead_is_shown_when_it_is_due() {
    let desk = Desk::new(1);
    desk.crls.ends_at(lease(0), AT.plus_s(30));
    desk.crls.ends_at(lease(9), AT.plus_s(30));
    assert!(desk.crls.due_ends(AT.plus_s(29)).is_empty());
    assert_eq!(desk.crls.due_ends(AT.plus_s(30)), [lease(0)]);
    assert!(desk.crls.due_ends(AT.plus_s(31)).is_empty());
}

#[test]
fn t_108_what_is_known_is_what_the_next_reader_of_a_crl_sees() {
    let desk = Desk::new(2);
    assert_eq!(desk.crls.would_show(lease(0), AT), Some(true), "it would be made first");
    desk.press(AT);
    desk.crls.end(lease(0), end(AT, Cause::Revoked));
    assert_eq!(desk.crls.would_show(lease(0), AT.plus_ms(999)), Some(false));
    assert_eq!(desk.crls.would_show(lease(0), AT.plus_s(1)), Some(true));
    desk.press(AT.plus_s(1));
    assert_eq!(desk.crls.would_show(lease(0), AT.plus_s(1)), Some(true));
    assert_eq!(desk.crls.would_show(lease(1), AT.plus_s(1)), Some(false));
    assert_eq!(desk.crls.would_show(lease(7), AT), None);
}

#[test]
fn shards_share_the_certificates_of_a_ca_among_them() {
    let desk = Desk { shards: 4, ..Desk::new(64) };
    (0..64).for_each(|number| desk.crls.end(lease(number), end(AT, Cause::Completed)));
    assert_eq!(desk.press(AT), 4);
    let mut all = Vec::new();
    for shard in 0..4 {
        let read = desk.read(shard);
        assert!(read.iter().all(|(lease, _)| shard_of(&serial_of(*lease), 4) == shard));
        all.extend(read);
    }
    assert_eq!(all.len(), 64);
    desk.crls.apply(&Change::AddLease(row(100, desk.ca.id().as_str(), 900)));
    desk.crls.end(lease(100), end(AT, Cause::Completed));
    assert_eq!(desk.press(AT.plus_s(1)), 1, "the one that reads differently");
}

#[test]
fn the_shard_of_a_certificate_is_its_distribution_point() {
    let pki = pki();
    let ca = issuing(&pki);
    for number in 0..8 {
        let shard = shard_of(&serial_of(lease(number)), pki.crl_shards(ca.id()));
        assert_eq!(pki.crl_of(ca.id(), lease(number)), pki.places().crl(ca.id(), shard));
    }
}

#[test]
fn the_bundle_has_the_lists_of_all_levels_and_none_of_a_ca_that_is_gone() {
    let pki = pki();
    let desk = Desk::new(1);
    desk.press(AT);
    let upper =
        || pki.upper_crls().into_iter().map(|crl| (Arc::from(crl.issuer.as_str()), crl.der)).collect::<Vec<_>>();
    let (root, der): (Arc<str>, Arc<[u8]>) = upper().remove(0);
    desk.crls.publish(Vec::new(), &desk.cas(), upper(), AT);
    let shelf = desk.crls.shelf();
    let text = std::str::from_utf8(&shelf.all().unwrap().bytes).unwrap().to_owned();
    assert_eq!(text.matches("-----BEGIN X509 CRL-----\n").count(), 2);
    assert!(text.lines().all(|line| line.len() <= 64) && text.ends_with("-----END X509 CRL-----\n"));
    assert_eq!(shelf.get(&(root, 0)).unwrap().bytes, der);
    let etag = shelf.all().unwrap().etag.clone();
    desk.crls.publish(Vec::new(), &desk.cas(), upper(), AT);
    assert_eq!(desk.crls.shelf().all().unwrap().etag, etag);
    desk.crls.publish(Vec::new(), &[], Vec::new(), AT);
    assert!(desk.crls.shelf().all().unwrap().bytes.is_empty());
    desk.crls.end(lease(0), end(AT, Cause::Completed));
    assert!(desk.crls.due(&[], AT).is_empty() && desk.crls.counts().1 == 0);
}

#[test]
fn a_ca_that_was_withdrawn_is_on_the_list_of_the_one_above() {
    let desk = Desk::new(0);
    let revocation = Revocation { at: AT, reason: CrlReason::KeyCompromise };
    for _ in 0..2 {
        desk.crls.withdraw(desk.ca.id().as_str(), [0x41; 16], revocation, AT.plus_s(9_000));
    }
    desk.press(AT);
    assert_eq!(desk.read(0), [(lease_of(&[0x41; 16]), 1)]);
    desk.crls.withdraw(desk.ca.id().as_str(), [0x41; 16], revocation, AT.plus_s(9_000));
    assert_eq!(desk.press(AT.plus_s(1)), 0);
}
