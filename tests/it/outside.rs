//! A running broker as a test reads it from outside, over its own socket, also when its network is cut:
//! one entry of a status list, introspection, the ledger.

use std::path::Path;

use dayfly::sys::{
    clock::Clock,
    net::{Answer, Client},
};
use dayfly_verifier::{
    Jws, KeySet, StatusRef,
    status::{LIST_ENTRIES_MAX, ListToken},
};
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

fn send(work: &Path, request: Request<String>) -> Answer {
    let client = Client::socket(work.join("state/dayfly.sock"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(client.send(request.map(|body| Full::from(body.into_bytes())))).unwrap();
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer
}

fn get(work: &Path, path: &str) -> Vec<u8> {
    send(work, Request::get(path).body(String::new()).unwrap()).body
}

/// Where a token says that its end is read.
pub fn entry(token: &str) -> StatusRef {
    let jws = Jws::parse(token).unwrap();
    serde_json::from_value(jws.unverified_claims()["status"]["status_list"].clone()).unwrap()
}

/// What the list says there to whoever asks now.
pub fn bit(work: &Path, entry: &StatusRef) -> u8 {
    let (issuer, id) = entry.uri.split_once("/status/").unwrap();
    let keys = KeySet::parse(&get(work, "/oauth2/jwks")).unwrap();
    let token = String::from_utf8(get(work, &format!("/status/{id}"))).unwrap();
    let list = ListToken::read(&token, &keys, issuer, LIST_ENTRIES_MAX, Clock::Machine.wall()).unwrap();
    assert_eq!(list.uri(), entry.uri);
    list.list().get(entry.idx).unwrap()
}

/// What introspection says to the local operator.
pub fn is_active(work: &Path, token: &str) -> bool {
    let request = Request::post("/oauth2/introspect").header("content-type", "application/x-www-form-urlencoded");
    let answer = send(work, request.body(format!("token={token}")).unwrap());
    serde_json::from_slice::<Value>(&answer.body).unwrap()["active"].as_bool().unwrap()
}

/// Causes of the ends on the ledger, the newest first.
pub fn causes(work: &Path) -> Vec<String> {
    let page: Value = serde_json::from_slice(&get(work, "/v1/ledger?limit=200")).unwrap();
    let causes = page["items"].as_array().unwrap().iter().filter_map(|event| event["cause"].as_str());
    causes.map(str::to_owned).collect()
}
