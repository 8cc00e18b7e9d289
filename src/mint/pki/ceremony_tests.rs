//! Ceremonies: what is made, what is refused, what is said of it.

use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::mint::pki::SealKey;
use crate::sys::files;

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
    assert_eq!((kept.crls.len(), kept.revoked.len()), (1, 1));
    let opened = kept.opened(&held.folder, START).unwrap();
    assert_eq!(opened.areas.iter().map(|area| area.revoked).collect::<Vec<_>>(), [false, true]);
    assert_eq!(opened.crls[0].next_update, START.plus_s(-30 + 100 * DAY_S));
    let stranger = [CaId::named("00ff").unwrap()];
    assert!(held.at(START).make_area(&held.folder, &root, &stranger, &mut told).is_err());
}

/// What the root's CRL in this folder lists, and its number.
fn crl_of(folder: &Folder, root: &RootKey) -> (Vec<String>, u64) {
    use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};
    let kept = folder.authority().unwrap().unwrap();
    let ders = kept.crls.iter().map(|text| decoded(text).unwrap());
    let der = ders.into_iter().find(|der| upper_crl(der).unwrap().issuer == *root.id()).unwrap();
    let (_, read) = CertificateRevocationList::from_der(&der).unwrap();
    let mut listed: Vec<String> = read.iter_revoked_certificates().map(|one| hex(one.raw_serial())).collect();
    listed.sort();
    (listed, kept.crl_number(root.id()).unwrap())
}

/// The area CA of now, and its serial number.
fn area_of(folder: &Folder) -> (CaId, String) {
    let area = folder.authority().unwrap().unwrap().opened(folder, START).unwrap().areas.remove(0).ca;
    (area.id().clone(), hex(&area.serial().unwrap()))
}

#[test]
fn an_empty_folder_does_not_bring_a_revoked_area_ca_back() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let (stolen, serial) = area_of(&held.folder);
    // The folder got out: it is moved away, and with it what it knew. The root knows what it signed.
    let second = Folder { dir: held.dir.path().join("second"), ..held.folder.clone() };
    let root = RootKey::open(&held.root(), PASSPHRASE).unwrap();
    held.at(START).make_area(&second, &root, &[stolen], &mut told).unwrap();
    let (listed, number) = crl_of(&second, &root);
    assert_eq!(listed, std::slice::from_ref(&serial));
    assert!(number > crl_of(&held.folder, &root).1);
    // And what it took back, also when that folder is lost and the clock is behind.
    let (again, other) = area_of(&second);
    let third = Folder { dir: held.dir.path().join("third"), ..held.folder.clone() };
    let root = RootKey::open(&held.root(), PASSPHRASE).unwrap();
    held.at(START.plus_s(-40)).make_area(&third, &root, &[], &mut told).unwrap();
    assert_eq!(crl_of(&third, &root), (vec![serial.clone()], number + 1));
    // Twice is once, and one more is one more.
    held.at(START).make_area(&third, &root, &[again.clone(), again], &mut told).unwrap();
    let mut both = vec![serial, other];
    both.sort();
    assert_eq!(crl_of(&third, &root).0, both);
    // A folder from before the theft that is put back learns it as well.
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let opened = held.folder.authority().unwrap().unwrap().opened(&held.folder, START).unwrap();
    assert_eq!(opened.areas.iter().map(|area| area.revoked).collect::<Vec<_>>(), [false, true]);
    assert_eq!(crl_of(&held.folder, &root).0, both);
}

#[test]
fn what_a_root_took_back_is_not_rubbed_out_of_its_file() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let revoke = [area_of(&held.folder).0];
    held.at(START).make_area(&held.folder, &root, &revoke, &mut told).unwrap();
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(held.root()).unwrap()).unwrap();
    let put = |value: &serde_json::Value| files::write_atomic(&held.root(), value.to_string().as_bytes(), 0o600);
    type Change = fn(&mut serde_json::Value);
    let changes: [Change; 4] = [
        |file| file["record"]["revoked"] = serde_json::json!([]),
        |file| file["record"]["areas"] = serde_json::json!([]),
        |file| file["record"]["crl_number"] = serde_json::json!(1),
        |file| {
            file.as_object_mut().unwrap().remove("record");
        },
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed);
        put(&changed).unwrap();
        assert!(matches!(RootKey::open(&held.root(), PASSPHRASE), Err(PkiError::Sealed | PkiError::Form(_))));
        assert!(held.at(START).make_area(&held.folder, &root, &[], &mut told).is_err(), "also while it is open");
    }
    put(&good).unwrap();
    RootKey::open(&held.root(), PASSPHRASE).unwrap();
}

#[test]
fn two_ceremonies_at_once_lose_nothing() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let before = std::fs::read(held.folder.dir.join("authority.json")).unwrap();
    let other = held.folder.hold_ceremony().unwrap();
    let refused = [
        held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap_err(),
        held.at(START).request(&held.folder, &mut told).unwrap_err(),
        held.at(START).import(&held.folder, &[], &[], &mut told).unwrap_err(),
    ];
    assert!(refused.iter().all(|error| error.to_string().contains("another ceremony")), "{refused:?}");
    assert_eq!(std::fs::read(held.folder.dir.join("authority.json")).unwrap(), before);
    drop(other);
    // One root, two folders: whoever is slower does not write over the record of the other.
    let read = root.record().unwrap();
    let second = Folder { dir: held.dir.path().join("second"), ..held.folder.clone() };
    held.at(START).make_area(&second, &root, &[], &mut told).unwrap();
    assert!(root.keep(&read, read.clone()).unwrap_err().to_string().contains("meanwhile"));
    assert_eq!(root.record().unwrap().areas.len(), 2);
}

#[test]
fn an_area_ca_below_another_root_is_not_revoked_in_vain() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let first = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &first, &[], &mut told).unwrap();
    let area = area_of(&held.folder).0;
    let second = held.at(START).make_root(&held.dir.path().join("second"), PASSPHRASE, &mut told).unwrap();
    let refused = held.at(START).make_area(&held.folder, &second, &[area], &mut told).unwrap_err().to_string();
    assert!(refused.contains(first.id().as_str()) && refused.contains("own key"), "{refused}");
    let own = [second.id().clone()];
    assert!(held.at(START).make_area(&held.folder, &second, &own, &mut told).is_err(), "not while it is used");
}

#[test]
fn a_root_that_leaked_is_given_out_no_more() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let old = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &old, &[], &mut told).unwrap();
    let pki = super::super::turns::Pki::open(held.folder.clone(), held.places.clone(), START).unwrap();
    pki.rotate(START).unwrap().unwrap();
    let (issuing, now) = (pki.active_id().unwrap(), START.plus_s(DAY_S));
    let new = held.at(now).make_root(&held.dir.path().join("new"), PASSPHRASE, &mut told).unwrap();
    held.at(now).make_area(&held.folder, &new, std::slice::from_ref(old.id()), &mut told).unwrap();
    pki.rotate(now).unwrap().unwrap();
    assert_eq!((pki.roots(), pki.sequence()), (vec![new.der().clone()], 2), "it is news that one is gone");
    assert_eq!(pki.condemned(), [issuing], "what is below it goes with it");
    assert_eq!(pki.health(now).root_crl_until, Some(now.plus_s(ROOT_CRL_DAYS * DAY_S)), "nobody makes its next CRL");
    let again = held.at(now).make_area(&held.folder, &old, &[], &mut told).unwrap_err().to_string();
    assert!(again.contains("its root was left"), "{again}");
    // Once its area CA is over, nothing of it is left, and that is no news.
    let later = START.plus_s(91 * DAY_S + 3_600);
    held.at(later).make_area(&held.folder, &new, &[], &mut told).unwrap();
    pki.rotate(later).unwrap();
    let kept = held.folder.authority().unwrap().unwrap();
    assert_eq!((kept.crls.len(), kept.areas.len()), (1, 2), "its own and its CRL are gone");
    assert_eq!((pki.roots(), pki.sequence()), (vec![new.der().clone()], 2));
}

#[test]
fn an_area_ca_on_the_list_of_the_ca_above_is_out() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let (id, serial) = area_of(&held.folder);
    let revoked = KeptRevoked { id: String::new(), root: String::new(), serial, at_s: START.as_s() };
    let record = RootRecord { crl_number: u64::MAX >> 1, areas: Vec::new(), revoked: vec![revoked] };
    let crl = held.at(START).root_crl(&root.ca, &record).unwrap();
    held.at(START).import(&held.folder, &[], &[crl], &mut told).unwrap();
    let opened = held.folder.authority().unwrap().unwrap().opened(&held.folder, START).unwrap();
    assert!(opened.areas[0].revoked && *opened.areas[0].ca.id() == id);
    assert_eq!(opened.roots, [root.der().clone()], "of the newest the root stays");
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
fn a_chain_that_servers_would_refuse_is_refused_at_the_import() {
    use rcgen::{CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, NameConstraints};
    let (held, mut told, company) = (Held::new(), Transcript::default(), Company::new());
    let request = held.at(START).request(&held.folder, &mut told).unwrap();
    let names = |of: &str| {
        let mut names = rcgen::DistinguishedName::new();
        names.push(DnType::OrganizationName, of);
        GeneralSubtree::DirectoryName(names)
    };
    let constrained = |permitted: Vec<GeneralSubtree>| {
        company.signed(&request, |params| {
            let excluded_subtrees = Vec::new();
            params.name_constraints = Some(NameConstraints { permitted_subtrees: permitted, excluded_subtrees });
        })
    };
    let purposes = |purposes: Vec<ExtendedKeyUsagePurpose>| {
        company.signed(&request, |params| params.extended_key_usages = purposes.clone())
    };
    let (client, server) = (ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth);
    let import = |chain: &[CertificateDer<'_>]| {
        let said = held.at(START).import(&held.folder, chain, &[], &mut Transcript::default());
        said.map_err(|error| error.to_string())
    };
    let long = company.signed(&request, |params| params.not_after = moment(START.as_s() + 1_001 * DAY_S).unwrap());
    for (why, chain) in [
        ("extended key usage", purposes(vec![ExtendedKeyUsagePurpose::CodeSigning])),
        ("extended key usage", purposes(vec![client.clone()])),
        ("extended key usage", purposes(vec![server.clone()])),
        ("names of subjects", constrained(vec![names("A Company")])),
        ("ends before", long.clone()),
    ] {
        let refused = import(&chain).unwrap_err();
        assert!(refused.contains(why), "{why}: {refused}");
    }
    // Put there by hand, it is refused at a start as well.
    let mut kept = held.folder.authority().unwrap().unwrap();
    let key = kept.pending.clone().unwrap();
    kept.areas = vec![KeptArea { chain: long.iter().map(|der| encoded(der)).collect(), key }];
    assert!(kept.opened(&held.folder, START).unwrap_err().to_string().contains("ends before"));
    // What constrains nothing of ours does no harm.
    let address = GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, 0, 0, 0], 8));
    import(&constrained(vec![address, GeneralSubtree::DnsName("example.org".to_owned())])).unwrap();
    let request = held.at(START).request(&held.folder, &mut told).unwrap();
    let both = company.signed(&request, |params| params.extended_key_usages = vec![client, server]);
    import(&both).unwrap();
}

/// What looks right one by one, and is refused as a whole.
#[test]
fn a_probe_is_checked_as_a_server_checks_it() {
    let (held, company) = (Held::new(), Company::new());
    let key = Arc::new(FileKey::generate().unwrap());
    let request = area_request("example.org", key.as_ref()).unwrap();
    let chain = company.signed(&request, |_| ());
    let area = Ca::new(chain[0].clone(), key).unwrap();
    let probed = |above: &[CertificateDer<'_>], now: UnixMs| probe(&area, above, "example.org", &held.places, now);
    probed(&chain[1..], START).unwrap();
    let other = Company::new().signed(&request, |_| ());
    assert!(probed(&other[1..], START).unwrap_err().to_string().contains("servers would refuse"));
    assert!(probed(&chain[1..], START.plus_s(91 * DAY_S)).is_err() && probed(&[], START).is_err());
}

#[test]
fn only_a_ca_above_us_makes_crls_for_us() {
    let (held, mut told) = (Held::new(), Transcript::default());
    let root = held.at(START).make_root(&held.root(), PASSPHRASE, &mut told).unwrap();
    held.at(START).make_area(&held.folder, &root, &[], &mut told).unwrap();
    let crl = |root: &RootKey, now: UnixMs| {
        let record = RootRecord { crl_number: now.as_ms().unsigned_abs(), ..RootRecord::default() };
        held.at(now).root_crl(&root.ca, &record).unwrap()
    };
    let import = |crl: Vec<u8>| held.at(START).import(&held.folder, &[], &[crl], &mut Transcript::default());
    import(crl(&root, START.plus_s(5))).unwrap();
    assert!(import(crl(&root, START.plus_s(1))).is_err(), "older than what is here");
    let other = held.at(START).make_root(&held.dir.path().join("other"), PASSPHRASE, &mut told).unwrap();
    assert!(import(crl(&other, START.plus_s(9))).is_err());
    let whole = crl(&root, START.plus_s(9));
    assert!(import(whole[..whole.len() - 1].to_vec()).is_err() && import(b"-----BEGIN".to_vec()).is_err());
}
