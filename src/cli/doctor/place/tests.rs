//! Really broken folders and files.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::cli::doctor::finding::Verdict;

fn verdicts(found: &[Finding]) -> Vec<Verdict> {
    found.iter().map(|finding| finding.verdict).collect()
}

/// A state folder with files that only hold a letter.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    files::set_mode(dir.path(), 0o700).unwrap();
    for name in [DATABASE, KEYS_FILE] {
        files::write_atomic(&dir.path().join(name), b"x", 0o600).unwrap();
    }
    dir
}

#[test]
fn a_secret_file_that_others_may_read_is_wrong() {
    let dir = folder();
    assert_eq!(verdicts(&state(dir.path())), [Verdict::Ok]);
    let keys = dir.path().join(KEYS_FILE);
    files::set_mode(&keys, 0o644).unwrap();
    let found = state(dir.path());
    assert_eq!(verdicts(&found), [Verdict::Wrong]);
    assert_eq!(found[0].mend, Some(format!("chmod 0600 {}", keys.display())));
    assert_eq!(files::held(&keys).unwrap().unwrap().mode, 0o644, "it is told, not changed");
}

#[test]
fn an_open_folder_is_warned_of_and_a_file_in_its_place_is_wrong() {
    let dir = folder();
    files::set_mode(dir.path(), 0o755).unwrap();
    assert_eq!(verdicts(&state(dir.path())), [Verdict::Warning]);
    assert_eq!(verdicts(&state(&dir.path().join(DATABASE))), [Verdict::Wrong]);
    assert_eq!(verdicts(&state(&dir.path().join("new"))), [Verdict::Ok]);
    assert_eq!(verdicts(&state(&dir.path().join(DATABASE).join("below"))), [Verdict::Wrong]);
}

#[test]
fn a_folder_that_is_closed_to_this_user_is_one_finding() {
    let dir = Path::new("/var/lib/dayfly");
    let found = closed_as(dir, Some(&io::ErrorKind::PermissionDenied.into())).unwrap();
    assert!(found.what.starts_with("cannot look into `/var/lib/dayfly`"), "{found:?}");
    assert!(found.mend.unwrap().starts_with("run this as root, or as the broker's user"));
    assert_eq!(closed_as(dir, Some(&io::ErrorKind::NotADirectory.into())), None);
    assert_eq!((closed_as(dir, None), closed(folder().path())), (None, None));
}

#[test]
fn keys_without_their_store_are_wrong() {
    let dir = folder();
    std::fs::remove_file(dir.path().join(DATABASE)).unwrap();
    let found = state(dir.path());
    assert!(found.len() == 1 && found[0].what.contains("its store is gone"), "{found:?}");
}

#[test]
fn a_file_of_someone_else_in_the_folder() {
    let folder = Held { mode: 0o700, uid: 5, gid: 5, is_dir: true, written: UnixMs::from_s(1) };
    let file = Held { mode: 0o600, uid: 0, gid: 0, is_dir: false, ..folder };
    let found = of_file(Path::new("/s/dayfly.db-shm"), file, folder);
    assert_eq!((found[0].verdict, found[0].mend.as_deref()), (Verdict::Wrong, Some("chown 5:5 /s/dayfly.db-shm")));
}

#[test]
fn a_bundle_that_anybody_may_write() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shop.toml");
    files::write_atomic(&file, b"x", 0o640).unwrap();
    let paths = [dir.path().to_owned(), file.clone()];
    assert_eq!(writable(&paths), []);
    files::set_mode(&file, 0o666).unwrap();
    assert_eq!(writable(&paths)[0].mend, Some(format!("chmod o-w {}", file.display())));
}

/// Settings whose certificate is for `broker.test` until the end of 2030.
fn with_tls(dir: &Path, issuer: &str) -> Settings {
    let mut params = CertificateParams::new(vec!["broker.test".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2031, 1, 1));
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    files::write_atomic(&dir.join("key.pem"), key.serialize_pem().as_bytes(), 0o600).unwrap();
    let dir = dir.display();
    let text = format!("issuer = '{issuer}'\n[tls]\ncert_file = '{dir}/cert.pem'\nkey_file = '{dir}/key.pem'\n");
    Settings::parse(&text).unwrap()
}

#[test]
fn a_certificate_that_nobody_would_take_is_wrong() {
    dayfly_verifier::crypto::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |text| UnixMs::parse(text).unwrap();
    let now = at("2027-01-01T00:00:00Z");
    let settings = with_tls(dir.path(), "https://broker.test:8443");
    assert_eq!(verdicts(&tls(&settings, now)), [Verdict::Ok], "{:?}", tls(&settings, now));

    let look = |now| tls(&settings, at(now)).remove(0);
    assert_eq!(look("2030-12-31T00:00:00Z").verdict, Verdict::Warning);
    let expired = look("2031-01-02T00:00:00Z");
    assert!(expired.verdict == Verdict::Wrong && expired.what.contains("expired at 2031-01-01"), "{expired:?}");
    assert!(look("2025-01-01T00:00:00Z").mend.unwrap().contains("timedatectl"));

    let other = tls(&with_tls(dir.path(), "https://other.test"), now);
    assert!(other[0].verdict == Verdict::Wrong && other[0].what.contains("not for `other.test`"), "{other:?}");

    files::set_mode(&dir.path().join("key.pem"), 0o644).unwrap();
    let open = tls(&settings, now);
    assert!(open[0].verdict == Verdict::Wrong && open[0].mend.as_ref().unwrap().starts_with("chmod 0600"), "{open:?}");

    std::fs::write(dir.path().join("cert.pem"), "half a file").unwrap();
    files::set_mode(&dir.path().join("key.pem"), 0o600).unwrap();
    assert_eq!(verdicts(&tls(&settings, now)), [Verdict::Wrong]);
}

#[test]
fn hosts_of_issuers() {
    for (url, host) in
        [("https://b.example", "b.example"), ("https://b.example:8443/x", "b.example"), ("https://[::1]:8443", "::1")]
    {
        assert_eq!(host_of(url), host);
    }
}
