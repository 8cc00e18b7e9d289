//! `dayfly demo` from the outside: it tells its story whatever is set, and leaves nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
};

use rustix::process::Signal;

use super::dev::{dayfly, signal};

#[test]
fn the_story_comes_out_as_told_whatever_is_set() {
    let tmp = tempfile::tempdir().unwrap();
    let mut command = dayfly(&["demo"]);
    for name in ["DAYFLY_ADDR", "DAYFLY_CA", "DAYFLY_CONFIG", "DAYFLY_OUTPUT", "DAYFLY_TOKEN_FILE"] {
        command.env(name, "nonsense");
    }
    let output = command.env("TMPDIR", tmp.path()).current_dir("/").output().unwrap();
    let story = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{story}\n{}", String::from_utf8_lossy(&output.stderr));
    let steps: Vec<_> = story.lines().filter_map(|line| line.get(..2)?.trim().parse::<u32>().ok()).collect();
    assert_eq!(steps, (1..=20).collect::<Vec<_>>(), "{story}");
    for part in [
        "E-REPLAYED",
        "kill -9",
        "{\"active\": false}",
        "status list: entry ",
        "refuses the handshake",
        "root ",
        "dayfly dev --state",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    assert!(!story.contains('\u{1b}') && !story.contains("eyJ") && !story.contains("dtc_"), "{story}");
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
}

#[test]
fn an_interrupted_story_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child =
        dayfly(&["demo"]).env("TMPDIR", tmp.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The broker runs, and the story is under way.
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.starts_with(" 1  broker")));
    signal(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
}
