//! The process as a whole: killed, doubled, started on a store it does not know, told to reload.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    store::{LeaseFilter, Page, Reader, StatusSlot},
    sys::{
        clock::Clock,
        net::{Answer, Client},
    },
};
use dayfly_domain::TaskId;
use dayfly_verifier::StatusRef;
use http_body_util::Full;
use hyper::Request;
use ring::digest;
use rustix::process::Signal;
use serde_json::Value;

use super::{
    by_list,
    dev::{self, Dev, wait_until},
    outside,
};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const CONTROL: &str = "urn:dayfly:token-type:task-control";

fn handle() -> (String, [u8; 32]) {
    let secret: [u8; 32] = dayfly::sys::entropy::bytes().unwrap();
    let handle = format!("dtc_{}", URL_SAFE_NO_PAD.encode(secret));
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, handle.as_bytes()).as_ref());
    (handle, hash)
}

/// `/oauth2/token` with these parameters, none of which needs escaping.
async fn exchange(work: &Path, fields: &[(&str, &str)]) -> Result<Answer, dayfly::sys::net::ClientError> {
    let vars = dev::env(work);
    let ca = fs::read(&vars["DAYFLY_CA"]).unwrap();
    let client = Client::https(&vars["DAYFLY_ADDR"], Some(ca)).unwrap();
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let request = Request::post("/oauth2/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(pairs.join("&")))
        .unwrap();
    client.send(request).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn ask(work: &Path, fields: &[(&str, &str)]) -> (u16, Value) {
    let answer = runtime().block_on(exchange(work, fields)).unwrap();
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

fn readyz(work: &Path) -> String {
    ops(work, "/readyz")
}

/// What the listener of health and metrics says, head and body.
pub fn ops(work: &Path, path: &str) -> String {
    let url = dev::env(work)["DAYFLY_METRICS"].clone();
    let address = url.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Where the only lease of a task stands on a status list.
fn slot(reader: &Reader, task: TaskId) -> StatusSlot {
    let filter = LeaseFilter { task: Some(task), ..LeaseFilter::default() };
    let rows = reader.leases(&filter, Clock::Machine.wall(), Page { before: None, limit: 10 }).unwrap();
    let [(lease, _)] = rows.as_slice() else { panic!("{} leases", rows.len()) };
    lease.status.unwrap()
}

/// The evidence alone: with its handle's hash, without it, and with a thief's own.
fn assert_worth_nothing(work: &Path, open: &[(&str, &str)]) {
    let stolen = URL_SAFE_NO_PAD.encode(handle().1);
    let (last, others) = open.split_last().unwrap();
    for control in [Some(*last), None, Some((last.0, stolen.as_str()))] {
        let again: Vec<_> = others.iter().copied().chain(control).collect();
        let (status, replayed) = ask(work, &again);
        assert_eq!((status, &replayed["reason"]), (400, &Value::from("E-REPLAYED")), "{control:?}");
    }
}

#[test]
fn t_109_killed_between_commit_and_answer() {
    let work = dev::work();
    let work = work.path();
    by_list::policies(work);
    let broker = Dev::start(work, &["--policies", "mine"]);
    let evidence = dev::evidence(work, "evidence");
    let evidence = fs::read_to_string(work.join(evidence)).unwrap().trim().to_owned();
    let task = dev::env(work)["DAYFLY_DEV_TASK"].clone();
    let (handle, hash) = handle();
    let control = URL_SAFE_NO_PAD.encode(hash);
    let open = [
        ("grant_type", EXCHANGE),
        ("subject_token_type", JWT),
        ("subject_token", evidence.as_str()),
        ("scope", task.as_str()),
        ("task_control_s256", control.as_str()),
    ];
    // A client that never hears the answer: its request is dropped with the broker.
    let reader = Reader::open(&work.join("state/dayfly.db")).unwrap();
    runtime().block_on(async {
        let began = Instant::now();
        let asking = exchange(work, &open);
        let committed = async {
            while reader.task_by_handle(&hash).unwrap().is_none() {
                assert!(began.elapsed() < Duration::from_secs(20), "nothing was committed");
                tokio::task::yield_now().await;
            }
            dev::signal(broker.child(), Signal::KILL);
        };
        // The answer is not looked at, whether it came or not.
        let _ = tokio::join!(asking, committed);
    });
    drop(broker);
    let unseen = reader.task_by_handle(&hash).unwrap().unwrap();
    let slot = slot(&reader, unseen.id);
    drop(reader);

    let _broker = Dev::start(work, &["--policies", "mine"]);
    let uri = format!("{}/status/{}", dev::env(work)["DAYFLY_ADDR"], slot.list);
    let unseen_entry = StatusRef { idx: slot.index, uri };
    assert_eq!(outside::bit(work, &unseen_entry), 0);
    assert_worth_nothing(work, &open);
    let feed = [
        ("grant_type", EXCHANGE),
        ("subject_token_type", CONTROL),
        ("subject_token", handle.as_str()),
        ("supersede", "0"),
    ];
    let (status, fed) = ask(work, &feed);
    assert_eq!((status, &fed["task_id"]), (200, &Value::from(unseen.id.to_string())));
    let found = fed["access_token"].as_str().unwrap();
    assert!(outside::is_active(work, found));
    wait_until("the list", || outside::bit(work, &unseen_entry) == 1);
    assert_eq!(outside::bit(work, &outside::entry(found)), 0);
    assert_eq!(outside::causes(work), ["superseded"]);
    let leases =
        dev::good(work, &["lease", "ls", "--state-dir", "state", "--task", &unseen.id.to_string(), "--output", "json"]);
    let leases: Value = serde_json::from_str(&leases).unwrap();
    let states: Vec<_> =
        leases["items"].as_array().unwrap().iter().map(|lease| (&lease["state"], &lease["cause"])).collect();
    assert_eq!(states, [(&"active".into(), &Value::Null), (&"ended".into(), &"superseded".into())]);
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_as_it_is() {
    let work = dev::work();
    let work = work.path();
    Dev::start(work, &[]).end(Signal::TERM);
    let database = work.join("state/dayfly.db");
    let change = |version: &str| {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute("UPDATE meta SET value = ?1 WHERE key = 'schema_version'", [version]).unwrap()
    };
    let known: String = rusqlite::Connection::open(&database)
        .unwrap()
        .query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(change("99"), 1);
    let refused = dev::dayfly(&["dev", "--state", "state"]).current_dir(work).output().unwrap();
    assert!(!refused.status.success());
    assert!(dev::text(&refused.stderr).contains("schema 99"), "{}", dev::text(&refused.stderr));
    change(&known);
    let _broker = Dev::start(work, &[]);
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}

#[test]
fn a_broken_bundle_never_replaces_a_good_one() {
    let work = dev::work();
    let work = work.path();
    let policies = work.join("mine");
    fs::create_dir(&policies).unwrap();
    for name in ["shop.toml", "production.cedar"] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(name), policies.join(name)).unwrap();
    }
    let broker = Dev::start(work, &["--policies", "mine"]);
    let good = fs::read_to_string(policies.join("shop.toml")).unwrap();
    let issued = dev::job(work, "job.token");
    assert!(issued.status.success(), "{}", dev::text(&issued.stderr));

    fs::write(policies.join("shop.toml"), &good[..good.len() / 2]).unwrap();
    dev::signal(broker.child(), Signal::HUP);
    wait_until("the refusal", || readyz(work).contains("bundle"));
    assert!(readyz(work).starts_with("HTTP/1.1 503"));
    assert!(dev::job(work, "second.token").status.success(), "the old bundle decides");

    // Without the row, what it opened ends.
    let id = "shop-staging-main";
    assert!(good.contains(id));
    fs::write(policies.join("shop.toml"), good.replace(id, "shop-staging-other")).unwrap();
    dev::signal(broker.child(), Signal::HUP);
    let ended = || dev::good(work, &["task", "ls", "--output", "json"]).matches("\"cause\":\"policy\"").count() == 2;
    wait_until("the end of both tasks", ended);
    wait_until("readiness", || readyz(work).starts_with("HTTP/1.1 200"));
}

#[test]
fn keys_without_their_store_are_no_first_start() {
    let work = dev::work();
    let work = work.path();
    Dev::start(work, &[]).end(Signal::TERM);
    let state = work.join("state");
    for name in ["dayfly.db", "dayfly.db-wal", "dayfly.db-shm"] {
        let _ = fs::rename(state.join(name), work.join(name));
    }
    let refused = dev::dayfly(&["dev", "--state", "state"]).current_dir(work).output().unwrap();
    assert!(!refused.status.success());
    assert!(dev::text(&refused.stderr).contains("its store is gone"), "{}", dev::text(&refused.stderr));
    assert!(!state.join("dayfly.db").exists(), "nothing was begun");
    for name in ["dayfly.db", "dayfly.db-wal", "dayfly.db-shm"] {
        let _ = fs::rename(work.join(name), state.join(name));
    }
    let _broker = Dev::start(work, &[]);
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}

/// Acknowledged, and then the process is gone: what was meant is dead from the first answer on.
#[test]
fn killed_after_an_end_by_selector_everything_stays_ended() {
    let work = dev::work();
    let work = work.path();
    let broker = Dev::start(work, &[]);
    let task = dev::env(work)["DAYFLY_DEV_TASK"].clone();
    for number in 0..5 {
        let evidence = dev::evidence(work, &format!("evidence-{number}"));
        let evidence = fs::read_to_string(work.join(evidence)).unwrap().trim().to_owned();
        let open =
            [("grant_type", EXCHANGE), ("subject_token_type", JWT), ("subject_token", &*evidence), ("scope", &*task)];
        assert_eq!(ask(work, &open).0, 200);
    }
    let socket = work.join("state/dayfly.sock");
    let end = || {
        let body = serde_json::json!({ "filter": { "template": task }, "reason": "the night of the test" }).to_string();
        let request = Request::post("http://localhost/v1/end").header("content-type", "application/json");
        let request = request.body(Full::from(body)).unwrap();
        runtime().block_on(Client::socket(socket.clone()).send(request)).unwrap()
    };
    let listed = |state: &str| {
        let args = ["lease", "ls", "--state-dir", "state", "--template", &task, "--output", "json"];
        let leases: Value = serde_json::from_str(&dev::good(work, &args)).unwrap();
        leases["items"].as_array().unwrap().iter().filter(|lease| lease["state"] == state).count()
    };
    assert_eq!(listed("active"), 5);
    let ended = end();
    assert_eq!(ended.status, 200, "{}", String::from_utf8_lossy(&ended.body));
    let first: Value = serde_json::from_slice(&ended.body).unwrap();
    assert_eq!(first["count"], 5);
    broker.end(Signal::KILL);
    let _broker = Dev::start(work, &[]);
    assert_eq!((listed("active"), listed("ended")), (0, 5));
    let again: Value = serde_json::from_slice(&end().body).unwrap();
    assert_eq!((&again["id"], &again["count"]), (&first["id"], &first["count"]));
    wait_until("the rows are caught up", || {
        let reader = Reader::open(&work.join("state/dayfly.db")).unwrap();
        let mut behind = 0;
        reader.snapshot(|rows| rows.each_tomb(|tomb| behind += u32::from(!tomb.done))).unwrap().unwrap();
        behind == 0
    });
    assert!(dev::good(work, &["ledger", "verify", "--state", "state"]).contains("verified"));
}
