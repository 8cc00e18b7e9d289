//! A bundle as a folder: read twice, whole or not at all.

use std::os::unix::fs::symlink;

use dayfly::{
    flow::{BundleSource, Folder},
    policy::BundleEnv,
};
use dayfly_domain::BindingKind;
use dayfly_verifier::crypto::SigningKey;
use serde_json::json;
use tempfile::TempDir;

use crate::world::{BUNDLE, ISSUER};

fn folder() -> (TempDir, Folder) {
    dayfly_verifier::crypto::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
    std::fs::write(dir.path().join("world.toml"), BUNDLE).unwrap();
    std::fs::write(dir.path().join("ci.json"), json!({ "keys": [key.jwk()] }).to_string()).unwrap();
    let env = BundleEnv { issuer_url: ISSUER.into(), broker_binding: BindingKind::Bearer };
    let folder = Folder { path: dir.path().to_owned(), env };
    (dir, folder)
}

fn problems(folder: &Folder) -> String {
    let problems = folder.load().expect_err("this must not load");
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_bundle_that_changes_while_it_is_read_is_refused() {
    let (dir, folder) = folder();
    folder.load().unwrap();
    // The kernel makes up another text for each reader.
    symlink("/proc/sys/kernel/random/uuid", dir.path().join("moving.toml")).unwrap();
    assert!(problems(&folder).contains("the folder changed while it was read"));
}

#[test]
fn an_empty_or_missing_folder_is_no_bundle() {
    let (dir, folder) = folder();
    std::fs::remove_file(dir.path().join("world.toml")).unwrap();
    assert!(problems(&folder).contains("no `*.toml`"));
    let gone = Folder { path: dir.path().join("gone"), ..folder };
    assert!(problems(&gone).contains("cannot be read"));
}

#[test]
fn a_named_file_that_is_missing_is_told_by_its_name() {
    let (dir, folder) = folder();
    std::fs::remove_file(dir.path().join("ci.json")).unwrap();
    assert!(problems(&folder).contains("ci.json"));
}
