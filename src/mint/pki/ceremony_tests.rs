//! Ceremonies: what is made, what is refused, what is said of it.

use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::mint::pki::SealKey;

const START: UnixMs = UnixMs::from_s(1_800_000_000);
const PASSPHRASE: &str = "correct horse battery";

struct Held {
    dir: tempfile::TempDir,
    folder: Folder,
    places: Places,
}

impl Held {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seal = Arc::new(SealKey::parse(SealKey::generate().unwrap().as_bytes()).unwrap());
        let folder = Folder { dir: dir.path().join("pki"), seal, token: None };
        Self { dir, folder, places: Places { base: "http://pki.test".to_owned() } }
    }

    fn at(&self, now: UnixMs) -> Ceremony<'_> {
        Ceremony { trust_domain: "example.org", places: &self.places, dns: &[], now, by: "uid 7 on host h" }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

#[test]
fn the_root_is_written_once_and_never_over_another() {
    let (held, mut told) = (Held::new(), Transcript::default());
    held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    let before = std::fs::read(held.root()).unwrap();
    let again = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap_err();
    assert!(matches!(again, PkiError::File { .. }));
    assert_eq!(std::fs::read(held.root()).unwrap(), before);
    files::require_private(&held.root()).unwrap();
    files::set_mode(&held.root(), 0o644).unwrap();
    assert!(matches!(RootKey::open(&held.root(), PASSPHRASE), Err(PkiError::File { .. })));
}

#[test]
fn the_transcript_says_what_was_made_and_nothing_secret() {
    let held = Held::new();
    let mut told = Transcript::begin("root and area CA", "example.org", START, "uid 7 on host h");
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let area = held.folder.authority().unwrap().unwrap().opened(&held.folder, START).unwrap().areas.remove(0);
    for said in [
        "uid 7 on host h",
        root.id().as_str(),
        area.ca.id().as_str(),
        &super::super::transcript::fingerprint(root.der()),
        "CN=example.org root ",
        &START.to_string(),
    ] {
        assert!(told.text().contains(said), "{said}: {}", told.text());
    }
    assert!(!told.text().contains(PASSPHRASE) && !format!("{root:?}").contains("pkcs8"));
}

#[test]
fn a_root_crl_has_a_greater_number_each_time_and_lists_what_is_revoked() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let kept = || held.folder.authority().unwrap().unwrap();
    let (first, area) = (kept().crl_number(root.id()).unwrap(), kept().opened(&held.folder, START).unwrap());
    // Also when the clock went back.
    let revoke = [area.areas[0].ca.id().clone()];
    held.at(START.plus_s(-30)).make_area(&held.folder, &root, &revoke, &mut told).unwrap();
    let (second, kept) = (kept().crl_number(root.id()).unwrap(), kept());
    assert!(second > first);
    assert_eq!((kept.crls.len(), kept.listed(root.id())), (1, 1));
    let opened = kept.opened(&held.folder, START).unwrap();
    assert_eq!(opened.areas.iter().map(|area| area.revoked).collect::<Vec<_>>(), [false, true]);
    assert_eq!(opened.crls[0].next_update, START.plus_s(-30 + 100 * DAY_S));
    let stranger = [CaId::named("00ff").unwrap()];
    assert!(held.at(START).make_area(&held.folder, &root, &stranger, &mut told).is_err());
}

#[test]
fn the_root_key_is_not_kept_where_the_broker_is() {
    let dir = tempfile::tempdir().unwrap();
    let (state, vault) = (dir.path().join("state"), dir.path().join("vault"));
    std::fs::create_dir_all(state.join("pki/deep")).unwrap();
    std::fs::create_dir(&vault).unwrap();
    std::os::unix::fs::symlink(&state, vault.join("link")).unwrap();
    let may = |file: PathBuf| may_hold_root(&file, &[&state]);
    assert!(may(vault.join("root")).is_ok());
    for bad in [state.join("root"), state.join("pki/deep/root"), vault.join("../state/root"), vault.join("link/root")] {
        assert!(may(bad.clone()).is_err(), "{}", bad.display());
    }
}

/// A company's CA, and what it signs of a request.
struct Company {
    params: CertificateParams,
    key: KeyPair,
}

impl Company {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = moment(START.as_s() - DAY_S).unwrap();
        params.not_after = moment(START.as_s() + 1_000 * DAY_S).unwrap();
        Self { params, key: KeyPair::generate().unwrap() }
    }

    fn signed(&self, request: &[u8], change: impl FnOnce(&mut CertificateParams)) -> Vec<CertificateDer<'static>> {
        let root = self.params.self_signed(&self.key).unwrap();
        let mut read = CertificateSigningRequestParams::from_der(&request.to_vec().into()).unwrap();
        read.params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        read.params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        read.params.use_authority_key_identifier_extension = true;
        read.params.not_before = moment(START.as_s() - DAY_S).unwrap();
        read.params.not_after = moment(START.as_s() + 90 * DAY_S).unwrap();
        change(&mut read.params);
        let issuer = rcgen::Issuer::from_params(&self.params, &self.key);
        let area = read.params.signed_by(&read.public_key, &issuer).unwrap();
        vec![area.der().clone(), root.der().clone()]
    }
}

#[test]
fn what_a_company_signed_is_taken_in_only_when_it_can_carry_issuing_cas() {
    let (held, mut told, company) = (Held::new(), Transcript::default(), Company::new());
    let request = held.at(START).request(&held.folder, &mut told).unwrap();
    let import = |chain: &[CertificateDer<'_>], now: UnixMs| {
        held.at(now).import(&held.folder, chain, &[], &mut Transcript::default())
    };
    let good = company.signed(&request, |_| ());
    let no_ca = company.signed(&request, |params| params.is_ca = IsCa::NoCa);
    let no_path = company.signed(&request, |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let no_crls = company.signed(&request, |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let other = Company::new().signed(&request, |_| ());
    let elsewhere = Held::new();
    let foreign = company.signed(&elsewhere.at(START).request(&elsewhere.folder, &mut told).unwrap(), |_| ());
    let mixed = [good[0].clone(), other[1].clone()];
    for (what, chain) in [
        ("no CA", &no_ca[..]),
        ("no CA may follow", &no_path),
        ("no CRLs", &no_crls),
        ("another root", &mixed),
        ("another's key", &foreign),
        ("no root", &good[..1]),
        ("upside down", &[good[1].clone(), good[0].clone()]),
    ] {
        assert!(import(chain, START).is_err(), "{what}");
    }
    assert!(import(&good, START.plus_s(91 * DAY_S)).is_err(), "over");
    import(&good, START).unwrap();
    let pki = super::super::turns::Pki::open(held.folder.clone(), held.places.clone(), START).unwrap();
    pki.rotate(START).unwrap().unwrap();
    assert_eq!(pki.roots(), [good[1].clone()]);
    assert!(import(&good, START).is_err(), "no request waits any more");
    assert!(pki.health(START).warnings.iter().any(|line| line.contains("no CRL of the CAs above")));
}

#[test]
fn only_a_ca_above_us_makes_crls_for_us() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let crl =
        |root: &RootKey, now: UnixMs| held.at(now).root_crl(&root.ca, &KeptAuthority::empty("example.org")).unwrap();
    let import = |crl: Vec<u8>| held.at(START).import(&held.folder, &[], &[crl], &mut Transcript::default());
    import(crl(&root, START.plus_s(5))).unwrap();
    assert!(import(crl(&root, START.plus_s(1))).is_err(), "older than what is here");
    let other = held.at(START).make_root(&held.dir.path().join("other"), PASSPHRASE, &mut told).unwrap();
    assert!(import(crl(&other, START.plus_s(9))).is_err());
    let whole = crl(&root, START.plus_s(9));
    assert!(import(whole[..whole.len() - 1].to_vec()).is_err() && import(b"-----BEGIN".to_vec()).is_err());
}
