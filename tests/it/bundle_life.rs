//! The life of a bundle from outside, as the program shows it: a change is tried against what was
//! decided, put in place by a link, found in the ledger, and taken back.

use std::{fs, os::unix::fs::symlink, path::Path};

use rustix::process::Signal;
use serde_json::Value;

use crate::dev::{self, Dev, wait_until};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn swap(work: &Path, to: &str) {
    symlink(to, work.join("new")).unwrap();
    fs::rename(work.join("new"), work.join("current")).unwrap();
}

/// The shipped bundle, with an edit.
fn checkout(work: &Path, name: &str, edit: impl FnOnce(String) -> String) {
    fs::create_dir(work.join(name)).unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for file in ["shop.toml", "production.cedar"] {
        fs::copy(shipped.join(file), work.join(name).join(file)).unwrap();
    }
    let shop = work.join(name).join("shop.toml");
    fs::write(&shop, edit(fs::read_to_string(&shop).unwrap())).unwrap();
}

fn swaps(work: &Path) -> Vec<Value> {
    let events = dev::good(work, &["ledger", "show", "--output", "json", "--limit", "500"]);
    let events = json(&events)["items"].as_array().unwrap().clone();
    events.into_iter().filter(|event| event["type"] == "bundle_swapped").collect()
}

#[test]
fn a_change_is_tried_put_in_place_and_taken_back() {
    let work = dev::work();
    let work = work.path();
    let row = "shop-staging-main";
    checkout(work, "one", |text| text);
    // Nobody may deploy to staging any more; what promises that somebody may goes with it.
    checkout(work, "two", |text| {
        assert!(text.contains(row) && text.contains("[[test]]"));
        let text = text[..text.find("[[test]]").unwrap()].to_owned();
        text.replace(&format!("id     = \"{row}\""), &format!("disabled = true\nid     = \"{row}\""))
    });
    swap(work, "one");
    let broker = Dev::start(work, &["--policies", "current"]);
    assert!(dev::job(work, "first.token").status.success());

    let same = json(&dev::good(work, &["policy", "replay", "--policies", "one", "--output", "json", "--strict"]));
    assert_eq!((&same["same"], &same["newly_denied"]), (&1.into(), &0.into()), "{same}");
    let strict = dev::verb(work, &["policy", "replay", "--policies", "two", "--output", "json", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    let told = json(dev::text(&strict.stdout));
    let change = &told["changes"][0];
    assert_eq!((&change["change"], &change["after"]), (&"newly_denied".into(), &"E-NOMATCH".into()), "{told}");
    let example = dev::good(work, &["ledger", "show", change["example"].as_str().unwrap(), "--output", "json"]);
    assert_eq!(json(&example)["type"], "issued");

    swap(work, "two");
    wait_until("the swap", || swaps(work).len() == 2);
    assert_eq!(swaps(work)[0]["actor"], "directory");
    let refused = dev::job(work, "second.token");
    assert!(dev::text(&refused.stderr).contains("E-NOMATCH"), "{}", dev::text(&refused.stderr));
    // The refusal is a decision too: under the earlier bundle it would have been allowed.
    let back = json(&dev::good(work, &["policy", "replay", "--policies", "one", "--output", "json"]));
    assert_eq!((&back["newly_allowed"], &back["same"]), (&1.into(), &1.into()), "{back}");

    swap(work, "one");
    wait_until("going back", || swaps(work).len() == 3);
    assert_eq!(swaps(work)[0]["rollback"], true);
    assert!(dev::job(work, "third.token").status.success());

    let used = || {
        let args = ["policy", "usage", "--template", "deploy-staging", "--output", "json"];
        json(&dev::good(work, &args))["items"][0]["count"].as_u64().unwrap()
    };
    // A stop writes what is counted, whatever the moment.
    broker.end(Signal::TERM);
    let _broker = Dev::start(work, &["--policies", "current"]);
    assert_eq!(used(), 2);
    let never = ["policy", "usage", "--unused-for", "30d", "--output", "name"];
    assert!(dev::good(work, &never).contains("deploy-prod/"));
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}
