//! Turns against a clock that is stepped: who signs, who is known, what is in the file.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::mint::{
    NotTainted,
    pki::{CaSigner, RootKey, SealKey, Transcript},
};

const START: UnixMs = UnixMs::from_s(1_800_000_000);
const DOMAIN: &str = "example.org";

fn places() -> Places {
    Places { base: "http://pki.test".to_owned() }
}

fn memory() -> Pki {
    Pki::in_memory(DOMAIN, places(), START).unwrap()
}

fn folder(dir: &std::path::Path) -> Folder {
    let seal = dir.join("seal");
    if !seal.exists() {
        std::fs::write(&seal, SealKey::generate().unwrap().as_bytes()).unwrap();
    }
    let seal = SealKey::parse(&std::fs::read(seal).unwrap()).unwrap();
    Folder { dir: dir.join("pki"), seal: Arc::new(seal), token: None }
}

fn ceremony(places: &Places, now: UnixMs) -> Ceremony<'_> {
    Ceremony { trust_domain: DOMAIN, places, dns: &[], now, by: "a test" }
}

/// A folder with an authority, and its broker's CAs.
fn on_disk() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().unwrap();
    ceremony(&places(), START).without_root(&folder(dir.path())).unwrap();
    let pki = open(dir.path(), START);
    pki.rotate(START).unwrap().unwrap();
    (dir, pki)
}

fn open(dir: &std::path::Path, now: UnixMs) -> Pki {
    Pki::open(folder(dir), places(), now).unwrap()
}

fn ids(pki: &Pki) -> Vec<String> {
    pki.issuing().iter().map(|ca| ca.id().to_string()).collect()
}

fn signs(pki: &Pki) -> String {
    pki.active_id().unwrap().to_string()
}

#[test]
fn each_tier_is_signed_by_the_one_above_and_ends_no_later() {
    let pki = memory();
    let (area, issuing) = (pki.area(), pki.active(START.plus_s(900)).unwrap());
    assert!(issuing.not_after() <= area.not_after());
    assert_eq!(issuing.not_after().as_s() - issuing.not_before().as_s(), 3 * 86_400 - 1);
    assert!(pki.active(START.plus_s(4 * 86_400)).is_err(), "none lives that long");
    assert_eq!(pki.chain(issuing.id()), [issuing.der().clone(), area.der().clone()], "and not the root");
    assert_eq!(pki.upper_crls().len(), 1);
}

#[test]
fn the_next_ca_is_known_a_day_ahead_and_the_old_one_stays_for_its_leaves() {
    let pki = memory();
    let first = signs(&pki);
    assert_eq!(pki.rotate(START.plus_s(DAY_S - 120)).unwrap(), None);
    assert_eq!(ids(&pki).len(), 1);
    pki.rotate(START.plus_s(DAY_S)).unwrap();
    let known = ids(&pki);
    assert_eq!((known.len(), signs(&pki)), (2, first.clone()), "it signs nothing yet");
    let exp = START.plus_s(2 * DAY_S + 900);
    pki.active(exp).unwrap();
    let rotation = pki.rotate(START.plus_s(2 * DAY_S)).unwrap().unwrap();
    assert_eq!((rotation.from.unwrap().to_string(), rotation.to.to_string()), (first.clone(), known[1].clone()));
    pki.rotate(exp.plus_s(CRL_SLACK_S - 1)).unwrap();
    assert!(ids(&pki).contains(&first), "its CRL is still asked for");
    pki.rotate(exp.plus_s(CRL_SLACK_S)).unwrap();
    assert!(!ids(&pki).contains(&first));
}

#[test]
fn for_a_hundred_days_somebody_signs_and_nobody_longer_than_his_area_ca() {
    let pki = memory();
    let over = pki.area().not_after();
    let mut turns = 0;
    for hour in 1..24 * 100 {
        let now = START.plus_s(hour * 3_600);
        let rotated = pki.rotate(now);
        if now.plus_s(3_600) < over {
            turns += u32::from(rotated.unwrap().is_some());
            assert!(pki.active(now.plus_s(3_600)).is_ok(), "hour {hour}");
            assert!(ids(&pki).len() <= 3);
        } else if now > over {
            assert!(
                rotated.is_err() && pki.active(now).is_err(),
                "hour {hour}: nothing is signed below a CA that is over"
            );
            assert!(!pki.health(now).faults.is_empty());
        }
    }
    assert!((80..=92).contains(&turns), "{turns} turns");
}

#[test]
fn keys_are_sealed_in_the_file_and_come_back() {
    let (dir, pki) = on_disk();
    pki.rotate(START.plus_s(DAY_S)).unwrap();
    for name in [ISSUING_FILE, crate::mint::pki::AUTHORITY_FILE] {
        let file = dir.path().join("pki").join(name);
        crate::sys::files::require_private(&file).unwrap();
        let text = std::fs::read(&file).unwrap();
        // `PRIVATE`, or the OID of an EC key in base64, would be one that is not sealed.
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("PRIVATE") && !text.contains("MIGHAgEA"), "{name}");
    }
    let again = open(dir.path(), START.plus_s(DAY_S));
    assert_eq!((ids(&again), signs(&again)), (ids(&pki), signs(&pki)));
    assert!(again.active(START.plus_s(DAY_S)).is_ok());
}

#[test]
fn another_seal_key_opens_nothing() {
    let (dir, _) = on_disk();
    std::fs::remove_file(dir.path().join("seal")).unwrap();
    assert!(matches!(Pki::open(folder(dir.path()), places(), START), Err(PkiError::Sealed)));
}

#[test]
fn truncated_and_turned_files_are_refused_and_never_quoted() {
    let (dir, pki) = on_disk();
    pki.rotate(START.plus_s(DAY_S)).unwrap();
    for name in [ISSUING_FILE, crate::mint::pki::AUTHORITY_FILE] {
        let file = dir.path().join("pki").join(name);
        let whole = std::fs::read(&file).unwrap();
        for cut in (0..whole.len() - 1).step_by(97) {
            crate::sys::files::write_atomic(&file, &whole[..cut], 0o600).unwrap();
            let error = Pki::open(folder(dir.path()), places(), START).unwrap_err();
            assert!(matches!(error, PkiError::Form(_)), "{name} at {cut}: {error}");
        }
        crate::sys::files::write_atomic(&file, &whole, 0o640).unwrap();
        assert!(
            matches!(Pki::open(folder(dir.path()), places(), START), Err(PkiError::File { .. })),
            "others may read it"
        );
        crate::sys::files::write_atomic(&file, &whole, 0o600).unwrap();
    }
    assert!(Pki::open(folder(dir.path()), places(), START).is_ok());
}

#[test]
fn a_key_under_another_cas_name_is_refused() {
    let (dir, pki) = on_disk();
    pki.rotate(START.plus_s(DAY_S)).unwrap();
    let file = dir.path().join("pki").join(ISSUING_FILE);
    let mut all: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let (one, other) = (all[0]["key"].clone(), all[1]["key"].clone());
    all[0]["key"] = other;
    all[1]["key"] = one;
    crate::sys::files::write_atomic(&file, all.to_string().as_bytes(), 0o600).unwrap();
    assert!(Pki::open(folder(dir.path()), places(), START).is_err());
}

#[test]
fn a_tainted_ca_never_signs_again() {
    let (dir, pki) = on_disk();
    pki.rotate(START.plus_s(DAY_S)).unwrap();
    let (active, next) = (ids(&pki)[0].clone(), ids(&pki)[1].clone());
    let at = START.plus_s(DAY_S + 60);
    assert_eq!(pki.taint(&active, at).unwrap().was, KeyState::Active);
    assert_eq!(signs(&pki), next);
    assert!(pki.is_tainted(&active) && !ids(&pki).contains(&active));
    let revoked = pki.revoked();
    assert_eq!((revoked[0].id.to_string(), revoked[0].at, &revoked[0].issuer), (active.clone(), at, pki.area().id()));
    assert!(pki.certificate(&active).is_some(), "whoever checks an old chain finds it");
    let text = std::fs::read_to_string(dir.path().join("pki").join(ISSUING_FILE)).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&text).unwrap();
    let gone = stored.as_array().unwrap().iter().find(|one| one["state"] == "tainted").unwrap();
    assert!(gone.get("key").is_none(), "its key is destroyed");
    let again = open(dir.path(), at);
    assert!(again.is_tainted(&active) && again.revoked() == revoked);
    assert_eq!(again.taint(&active, at.plus_s(9)).unwrap().at, at, "twice is once");
    for day in 2..6 {
        again.rotate(START.plus_s(day * DAY_S)).unwrap();
        assert!(!ids(&again).contains(&active));
    }
    assert!(matches!(pki.taint("no-such", at), Err(NotTainted::Unknown)));
    assert!(matches!(pki.taint(pki.area().id().as_str(), at), Err(NotTainted::Unknown)), "that takes a ceremony");
}

#[test]
fn all_cas_can_be_tainted_and_a_fresh_one_signs() {
    let pki = memory();
    pki.rotate(START.plus_s(DAY_S)).unwrap();
    let before = ids(&pki);
    std::thread::scope(|scope| {
        before.iter().for_each(|id| drop(scope.spawn(|| pki.taint(id, START.plus_s(DAY_S)).unwrap())));
    });
    assert!(before.iter().all(|id| pki.is_tainted(id)));
    assert!(matches!(pki.active(START.plus_s(DAY_S)), Err(PkiError::NoCa)), "nobody is asked to sign one meanwhile");
    assert_eq!(pki.rotate(START.plus_s(DAY_S)).unwrap().unwrap().from, None);
    assert!(!before.contains(&signs(&pki)) && pki.active(START.plus_s(DAY_S)).is_ok());
}

#[test]
fn a_ca_that_is_in_no_file_never_signs() {
    let (dir, pki) = on_disk();
    let first = signs(&pki);
    let (own, away) = (dir.path().join("pki"), dir.path().join("away"));
    std::fs::rename(&own, &away).unwrap();
    std::fs::write(&own, "in the way").unwrap();
    assert!(pki.rotate_now(START.plus_s(60)).is_err());
    assert_eq!(signs(&pki), first, "the old one goes on");
    assert!(matches!(pki.taint(&first, START.plus_s(61)), Err(NotTainted::Unsaved(_))));
    assert!(pki.is_tainted(&first), "it is out all the same");
    assert!(matches!(pki.active(START.plus_s(62)), Err(PkiError::NoCa)));
    assert!(pki.rotate(START.plus_s(62)).is_err() && pki.active_id().is_none());
    std::fs::remove_file(&own).unwrap();
    std::fs::rename(&away, &own).unwrap();
    pki.rotate(START.plus_s(63)).unwrap();
    assert!(pki.active(START.plus_s(64)).is_ok());
    assert!(open(dir.path(), START.plus_s(65)).is_tainted(&first));
}

/// Signs as its key does, until it is told to sign something else, or to wait.
#[derive(Debug)]
struct Faulty {
    key: FileKey,
    broken: Arc<AtomicBool>,
    /// How often it was asked.
    asked: Arc<AtomicI64>,
    /// Whoever has this keeps it waiting.
    hangs: Arc<Mutex<()>>,
}

impl Faulty {
    fn new() -> Self {
        let key = FileKey::generate().unwrap();
        Self { key, broken: Arc::default(), asked: Arc::default(), hangs: Arc::default() }
    }

    /// An authority whose area CA this is.
    fn authority(self: Arc<Self>) -> Pki {
        let above = Above { crl: "http://pki.test/c".to_owned(), certificate: "http://pki.test/r".to_owned() };
        let terms = |tier: usize, life_s, above| CaTerms {
            tier: crate::mint::pki::CA_TIERS[tier],
            trust_domain: DOMAIN,
            serial: random().unwrap(),
            from: START,
            life_s,
            above,
            dns: &[],
        };
        let root = Ca::root(&terms(0, i64::MAX >> 8, None), Arc::new(FileKey::generate().unwrap())).unwrap();
        let ca = Arc::new(root.subordinate(&terms(1, 90 * DAY_S, Some(above)), self).unwrap());
        let area = Area { ca, above: vec![root.der().clone()], revoked: false };
        let (trust_domain, roots) = (DOMAIN.to_owned(), vec![area.root().clone()]);
        let authority = Authority { trust_domain, sequence: 1, roots, areas: vec![area], crls: Vec::new() };
        Pki::with(authority, places(), None, Turns::default())
    }
}

impl CaSigner for Faulty {
    fn public_key(&self) -> &[u8] {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        drop(self.hangs.lock());
        match self.broken.load(Ordering::SeqCst) {
            true => self.key.sign(&[message, b"!"].concat()),
            false => self.key.sign(message),
        }
    }
}

/// T-134: whatever is wrong with a new issuer, it never signs, and the old one goes on.
#[test]
fn t_134_an_invalid_new_issuer_never_becomes_active_and_issuing_goes_on_under_the_old() {
    let signer = Arc::new(Faulty::new());
    let (broken, pki) = (signer.broken.clone(), signer.authority());
    pki.rotate(START).unwrap().unwrap();
    let first = signs(&pki);
    broken.store(true, Ordering::SeqCst);
    for at in [START.plus_s(DAY_S), START.plus_s(2 * DAY_S), START.plus_s(2 * DAY_S + 3_600)] {
        assert!(matches!(pki.rotate(at), Err(PkiError::Refused(_))), "{at}");
        assert!(pki.rotate_now(at).is_err());
        assert_eq!(ids(&pki), std::slice::from_ref(&first), "nobody else is known");
        assert_eq!(pki.active(at.plus_s(900)).unwrap().id().to_string(), first);
        assert!(pki.health(at).warnings.iter().any(|line| line.contains("do not take turns")));
    }
    broken.store(false, Ordering::SeqCst);
    let at = START.plus_s(2 * DAY_S + 7_200);
    pki.rotate(at).unwrap();
    assert_eq!(pki.rotate_now(at).unwrap().unwrap().from.unwrap().to_string(), first);
    assert!(pki.health(at).faults.is_empty());
}

/// T-134: neither waits the taint for the token, nor does the turn that waits for it bring back what was tainted.
#[test]
fn a_ca_that_is_tainted_while_a_token_hangs_is_out_at_once_and_stays_out() {
    let signer = Arc::new(Faulty::new());
    let (asked, hangs, pki) = (signer.asked.clone(), signer.hangs.clone(), signer.authority());
    let first = pki.rotate(START).unwrap().unwrap().to.to_string();
    let (before, now) = (asked.load(Ordering::SeqCst), START.plus_s(60));
    let hung = hangs.lock().unwrap();
    std::thread::scope(|scope| {
        let turn = scope.spawn(|| pki.rotate_now(now));
        while asked.load(Ordering::SeqCst) == before {
            std::thread::yield_now();
        }
        // The token hangs until this thread is through.
        assert_eq!(pki.taint(&first, now).unwrap().was, KeyState::Active);
        assert!(pki.is_tainted(&first) && matches!(pki.active(now), Err(PkiError::NoCa)));
        drop(hung);
        let turned = turn.join().unwrap().unwrap().unwrap();
        assert_eq!((turned.from, turned.to.to_string()), (None, signs(&pki)), "it gave nobody's place away");
    });
    assert!(pki.is_tainted(&first) && !ids(&pki).contains(&first) && pki.active(now).is_ok());
}

#[test]
fn a_ceremony_while_the_broker_runs_is_taken_in_and_a_bad_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, places, told) = (folder(dir.path()), places(), &mut Transcript::default());
    let held = ceremony(&places, START);
    let root = held.make_root(&dir.path().join("root"), "correct horse battery", told).unwrap();
    held.make_area(&folder, &root, &[], told).unwrap();
    let pki = open(dir.path(), START);
    pki.rotate(START).unwrap();
    let (old_area, old) = (pki.area().id().clone(), signs(&pki));
    let file = dir.path().join("pki").join(crate::mint::pki::AUTHORITY_FILE);
    let good = std::fs::read(&file).unwrap();
    crate::sys::files::write_atomic(&file, b"{}", 0o600).unwrap();
    assert!(pki.rotate(START.plus_s(60)).is_err());
    assert_eq!((pki.area().id(), signs(&pki)), (&old_area, old.clone()));
    crate::sys::files::write_atomic(&file, &good, 0o600).unwrap();
    let later = START.plus_s(80 * DAY_S);
    assert!(!pki.health(later).warnings.is_empty(), "ten days are left");
    let root = RootKey::open(&dir.path().join("root"), "correct horse battery").unwrap();
    ceremony(&places, later).make_area(&folder, &root, std::slice::from_ref(&old_area), told).unwrap();
    pki.rotate(later).unwrap().unwrap();
    assert_ne!(pki.area().id(), &old_area);
    assert_eq!(pki.areas().len(), 2, "what the old one carries still has a CRL");
    assert_eq!((pki.sequence(), pki.roots().len()), (1, 1), "the root is the same");
    assert!(pki.health(later).faults.is_empty());
    assert!(RootKey::open(&dir.path().join("root"), "correct horse batterY").is_err());
}

#[test]
fn a_turn_by_hand_is_below_the_area_ca_of_the_last_ceremony() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, places, told) = (folder(dir.path()), places(), &mut Transcript::default());
    let root = ceremony(&places, START).make_root(&dir.path().join("root"), "correct horse battery", told).unwrap();
    ceremony(&places, START).make_area(&folder, &root, &[], told).unwrap();
    let pki = open(dir.path(), START);
    pki.rotate(START).unwrap();
    let now = START.plus_s(DAY_S);
    pki.rotate(now).unwrap();
    let (old, before) = (pki.area().id().clone(), ids(&pki));
    assert_eq!(before.len(), 2, "the next one is known");
    ceremony(&places, now).make_area(&folder, &root, &[], told).unwrap();
    pki.rotate_now(now).unwrap().unwrap();
    assert!(pki.area().id() != &old && !before.contains(&signs(&pki)));
    assert_eq!(pki.chain(&pki.active_id().unwrap())[1], *pki.area().der());
    assert!(before.iter().all(|id| ids(&pki).contains(id)), "their CRLs are still asked for");
}

#[test]
fn t_134_a_turn_is_told_though_the_file_of_a_ceremony_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, places, told) = (folder(dir.path()), places(), &mut Transcript::default());
    let held = ceremony(&places, START);
    let root = held.make_root(&dir.path().join("root"), "correct horse battery", told).unwrap();
    held.make_area(&folder, &root, &[], told).unwrap();
    let pki = open(dir.path(), START);
    pki.rotate(START).unwrap();
    let first = signs(&pki);
    let file = dir.path().join("pki").join(crate::mint::pki::AUTHORITY_FILE);
    crate::sys::files::write_atomic(&file, b"{}", 0o600).unwrap();
    let by_hand = pki.rotate_now(START.plus_s(60)).unwrap().unwrap();
    assert_eq!((by_hand.from.unwrap().to_string(), by_hand.to.to_string()), (first, signs(&pki)));
    let told = |now| pki.health(now).warnings.iter().any(|line| line.contains("do not take turns"));
    assert!(told(START.plus_s(60)), "and the file is told of");
    assert!(pki.rotate(START.plus_s(120)).is_err() && told(START.plus_s(120)), "where nobody took over, what is wrong");
    let hourly = (1..72).filter_map(|hour| pki.rotate(START.plus_s(hour * 3_600)).ok().flatten());
    assert_eq!(hourly.last().unwrap().to.to_string(), signs(&pki), "by the clock too");
    assert!(!pki.health(START.plus_s(71 * 3_600)).warnings.is_empty(), "and what is wrong is said");
}

#[test]
fn an_issuing_ca_below_an_area_that_was_taken_back_retires_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, places, told) = (folder(dir.path()), places(), &mut Transcript::default());
    let held = ceremony(&places, START);
    let root = held.make_root(&dir.path().join("root"), "correct horse battery", told).unwrap();
    held.make_area(&folder, &root, &[], told).unwrap();
    let pki = open(dir.path(), START);
    pki.rotate(START).unwrap();
    let (area, old) = (pki.area().id().clone(), signs(&pki));
    let now = START.plus_s(600);
    ceremony(&places, now).make_area(&folder, &root, &[area], told).unwrap();
    pki.rotate(now).unwrap().unwrap();
    assert_ne!(signs(&pki), old);
    assert!(ids(&pki).contains(&old), "its CRL is still asked for");
    let condemned = || pki.condemned().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(condemned(), std::slice::from_ref(&old));
    // Also when it has left before anybody said so.
    pki.rotate(now.plus_s(CRL_SLACK_S)).unwrap();
    assert!(!ids(&pki).contains(&old));
    assert_eq!(condemned(), std::slice::from_ref(&old));
    pki.taint(&old, now.plus_s(CRL_SLACK_S)).unwrap();
    assert!(condemned().is_empty());
}

#[test]
fn an_issuing_ca_that_has_left_is_tainted_like_any_other_while_its_certificate_is_valid() {
    let (dir, pki) = on_disk();
    let (old, until) = (signs(&pki), pki.active(START.plus_s(60)).unwrap().not_after());
    pki.rotate_now(START.plus_s(60)).unwrap().unwrap();
    let at = START.plus_s(60 + CRL_SLACK_S);
    pki.rotate(at).unwrap();
    assert!(!ids(&pki).contains(&old) && pki.certificate(&old).is_some());
    let stored = || {
        let text = std::fs::read(dir.path().join("pki").join(ISSUING_FILE)).unwrap();
        let all: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let one = all.as_array().unwrap().iter().find(|one| one.get("key").is_none());
        one.map(|one| one["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(stored().unwrap(), "retired", "its key is destroyed");
    let pki = open(dir.path(), at);
    let view = |pki: &Pki| pki.view().into_iter().find(|ca| ca.id.as_str() == old).map(|ca| (ca.state, ca.until));
    assert_eq!(view(&pki), Some((KeyState::Retired, Some(until))));
    assert_eq!(pki.left().len(), 1);
    // Somebody has a copy of its key.
    assert_eq!(pki.taint(&old, at.plus_s(1)).unwrap().was, KeyState::Retired);
    assert!(pki.is_tainted(&old) && pki.left().is_empty());
    assert_eq!((pki.revoked()[0].id.to_string(), pki.revoked()[0].at), (old.clone(), at.plus_s(1)));
    assert_eq!(stored().unwrap(), "tainted");
    let pki = open(dir.path(), at.plus_s(2));
    assert_eq!(pki.revoked().len(), 1);
    // Nobody takes its certificate any more.
    pki.rotate(until).unwrap();
    assert_eq!(pki.revoked().len(), 1);
    pki.rotate(until.plus_s(DAY_S + 1)).unwrap();
    assert!(pki.revoked().is_empty() && view(&pki).is_none() && open(dir.path(), until).revoked().is_empty());
}

#[test]
fn a_tainted_ca_stays_on_its_area_cas_list_though_its_file_is_gone() {
    let (dir, pki) = on_disk();
    let (old, until) = (signs(&pki), pki.active(START.plus_s(60)).unwrap().not_after());
    assert!(pki.tainted_text(&old).is_none());
    pki.taint(&old, START.plus_s(60)).unwrap();
    let (text, revoked) = (pki.tainted_text(&old).unwrap(), pki.revoked());
    assert!(!text.contains("sealed"));
    std::fs::remove_file(dir.path().join("pki").join(ISSUING_FILE)).unwrap();
    let again = open(dir.path(), START.plus_s(70));
    assert!(again.revoked().is_empty());
    let kept = [text, "{}".to_owned()];
    assert_eq!(again.restore(&kept, START.plus_s(70)).unwrap(), [revoked[0].id.clone()]);
    assert_eq!((again.revoked(), again.tainting(&old).unwrap().was), (revoked.clone(), KeyState::Active));
    assert!(again.restore(&kept, START.plus_s(71)).unwrap().is_empty(), "once");
    assert_eq!(open(dir.path(), START.plus_s(72)).revoked(), revoked);
    std::fs::remove_file(dir.path().join("pki").join(ISSUING_FILE)).unwrap();
    let late = open(dir.path(), START.plus_s(73));
    assert!(late.restore(&kept, until.plus_s(DAY_S + 1)).unwrap().is_empty(), "it is over");
}

#[test]
fn an_authority_that_is_over_is_said_before_and_after() {
    let pki = memory();
    let area = pki.area().not_after();
    let told = |now: UnixMs| {
        let health = pki.health(now);
        (health.faults.len(), health.warnings.iter().filter(|line| line.contains("area CA")).count())
    };
    assert_eq!(told(START), (0, 0));
    assert_eq!(told(area.plus_s(-13 * DAY_S)).1, 1);
    assert_eq!(told(area.plus_s(-15 * DAY_S)).1, 0);
    assert_eq!(told(area.plus_s(1)).0, 2, "neither area CA nor issuing CA");
    let crl = pki.upper_crls()[0].next_update;
    let of_crl = |now: UnixMs| pki.health(now).warnings.iter().filter(|line| line.contains("CRL")).count();
    assert_eq!((of_crl(crl.plus_s(-31 * DAY_S)), of_crl(crl.plus_s(-29 * DAY_S)), of_crl(crl.plus_s(1))), (0, 1, 1));
}
