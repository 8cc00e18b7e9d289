//! Foreign eyes on our status lists: a decoder written from the draft alone reads the draft's own vectors
//! and what we encode, and says the same as we do.

use std::{collections::BTreeMap, fs};

use dayfly::sys::clock::Clock;
use dayfly_domain::UnixMs;
use dayfly_verifier::{
    KeySet,
    crypto::SigningKey,
    status::{EncodedList, LIST_ENTRIES_MAX, LIST_TOKEN_TYP, ListClaims, ListToken, StatusBits, StatusList},
};
use serde_json::{Value, json};

use super::{
    dev::text,
    foreign::{python, skipped, with_input},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const ISSUER: &str = "https://dayfly.example";
const URI: &str = "https://dayfly.example/status/a";

#[test]
fn a_foreign_decoder_reads_the_drafts_vectors() {
    if skipped("python") {
        return;
    }
    let file = format!("{ROOT}/tests/corpus/status_list/draft.json");
    let said = python("status_list.py").args(["vectors", &file]).output().unwrap();
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(text(&said.stdout), "vectors 6\n");
}

/// Lists that look chosen at random and are the same each time.
fn ended(bits: StatusBits, entries: u32, one_in: u32) -> StatusList {
    let (mut list, mut state) = (StatusList::new(bits, entries), 7_u32);
    for index in 0..entries {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if (state >> 8) % one_in == 0 {
            let value = 1 + (state >> 24) as u8 % (u8::MAX >> (8 - bits as u8));
            assert!(list.set(index, value));
        }
    }
    list
}

#[test]
fn a_foreign_decoder_reads_what_we_encode() {
    if skipped("python") {
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
    let jwks = json!({ "keys": [key.jwk()] }).to_string();
    let file = work.path().join("jwks.json");
    fs::write(&file, &jwks).unwrap();
    let iat = Clock::Machine.wall().as_s();
    for (bits, entries, one_in) in [
        (StatusBits::One, LIST_ENTRIES_MAX, 100),
        (StatusBits::One, LIST_ENTRIES_MAX, 2),
        (StatusBits::One, 8, 3),
        (StatusBits::Two, 4096, 7),
        (StatusBits::Four, 4096, 7),
        (StatusBits::Eight, 4096, 7),
    ] {
        let list = ended(bits, entries, one_in);
        let status_list = EncodedList::of(&list);
        let claims = ListClaims { sub: URI.to_owned(), iat, exp: iat + 300, ttl: 15, status_list };
        let token = key.sign(LIST_TOKEN_TYP, &claims).unwrap();
        let ours =
            ListToken::read(&token, &KeySet::parse(jwks.as_bytes()).unwrap(), ISSUER, entries, UnixMs::from_s(iat));
        assert_eq!(ours.unwrap().list(), &list);
        let mut command = python("status_list.py");
        let said = with_input(command.args(["read", file.to_str().unwrap(), URI]), token.as_bytes());
        assert!(said.status.success(), "{}", text(&said.stderr));
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!((&said["bits"], &said["entries"]), (&json!(bits as u8), &json!(entries)));
        let theirs: BTreeMap<u32, u8> = serde_json::from_value(said["set"].clone()).unwrap();
        let set =
            (0..entries).filter_map(|index| list.get(index).filter(|value| *value > 0).map(|value| (index, value)));
        assert_eq!(theirs, set.collect::<BTreeMap<_, _>>());
    }
}

/// The first block of this language on the page.
fn block<'a>(page: &'a str, language: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n```{language}\n")).expect("the page has such a block");
    rest.split_once("\n```\n").expect("the block ends").0
}

#[test]
fn the_page_shows_the_very_files_that_are_run() {
    let read = |path: &str| fs::read_to_string(format!("{ROOT}/{path}")).unwrap();
    let page = read("docs/how-to/verify-by-list.md");
    for (language, file) in
        [("rust", "crates/verifier/examples/list_server.rs"), ("python", "tests/interop/list_server.py")]
    {
        assert_eq!(format!("{}\n", block(&page, language)), read(file), "paste {file} anew");
    }
}
