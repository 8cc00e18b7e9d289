//! Status lists: what a target that verifies by list reads, against what introspection says.

use std::collections::HashSet;

use axum::{body::Body, http::Request};
use dayfly::{
    flow::{ChannelState, Exchange, Issued, Subject},
    mint::KeyUse,
    revoke::Sizes,
};
use dayfly_domain::{Cause, Channel, Reason, UnixMs};
use dayfly_verifier::{
    Jws, KeySet,
    status::{LIST_ENTRIES_MAX, ListToken},
};
use serde_json::{Value, json};

use crate::world::{
    Answer, BUNDLE, ISSUER, Job, OPERATOR, START, World, ask, get, handle, lease, local, post_json, reason, secret,
    token,
};

/// Two small targets of one environment, and one of another.
const LISTED: &str = r#"
[target.edge]
uri         = "https://edge.example.org"
environment = "staging"
owner       = "team-shop"
binding     = "bearer"
verifies    = "list"
list_life   = "10m"
actions     = ["edge:flush"]

[target.cdn]
uri         = "https://cdn.example.org"
environment = "staging"
owner       = "team-shop"
binding     = "bearer"
verifies    = "list"
leeway      = "1m"
actions     = ["cdn:flush"]

[target.till]
uri         = "https://till.example.org"
environment = "shops"
owner       = "team-pay"
binding     = "bearer"
verifies    = "list"
actions     = ["till:open"]

[task.flush]
purpose   = "flush the edge"
owner     = "team-shop"
grants    = { edge = ["edge:flush"] }
ttl       = "15m"
deadline  = "2h"
per_job   = 9000
review_by = 2099-01-01

[[task.flush.allow]]
id     = "shop-flushes"
issuer = "ci"
claims = { sub = "shop" }

[task.flush-cdn]
purpose   = "flush the network"
owner     = "team-shop"
grants    = { cdn = ["cdn:flush"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.flush-cdn.allow]]
id     = "shop-flushes-all"
issuer = "ci"
claims = { sub = "shop" }

[task.sell]
purpose   = "sell"
owner     = "team-pay"
grants    = { till = ["till:open"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.sell.allow]]
id     = "pay-sells"
issuer = "ci"
claims = { sub = "pay" }
"#;

pub fn bundle() -> String {
    format!("{BUNDLE}{LISTED}")
}

fn world() -> World {
    World::of(&bundle())
}

fn on_file() -> World {
    World::on_file_with(&bundle(), "")
}

/// Where the token says that its end will be read.
pub fn place(token: &str) -> (String, u32) {
    let jws = Jws::parse(token).unwrap();
    let status = &jws.unverified_claims()["status"]["status_list"];
    let path = status["uri"].as_str().unwrap().strip_prefix(ISSUER).unwrap().to_owned();
    (path, status["idx"].as_u64().unwrap() as u32)
}

fn keys(world: &World) -> KeySet {
    KeySet::parse(world.flow.jwks().to_string().as_bytes()).unwrap()
}

pub async fn fetch(world: &World, path: &str) -> ListToken {
    let answer = world.call(get(path, None)).await;
    assert_eq!((answer.status, answer.head("content-type")), (200, "application/statuslist+jwt"), "{}", answer.text);
    ListToken::read(&answer.text, &keys(world), ISSUER, LIST_ENTRIES_MAX, world.now()).unwrap()
}

/// As a server reads it that fetched its list just now, a second after the last one did.
pub async fn ended(world: &World, token: &str) -> bool {
    let (path, index) = place(token);
    let list = fetch(world, &path).await;
    assert_eq!(list.uri(), format!("{ISSUER}{path}"));
    match list.list().get(index) {
        Some(0) => false,
        Some(1) => true,
        other => panic!("{other:?}"),
    }
}

/// A second later, list and introspection say the same of a token that has not expired.
pub async fn agree(world: &World, token: &str, live: bool) {
    world.pass_s(1);
    assert_eq!((world.active(token).await, !ended(world, token).await), (live, live));
}

fn set(list: &ListToken) -> HashSet<u32> {
    (0..list.list().len() as u32).filter(|index| list.list().get(*index) == Some(1)).collect()
}

#[tokio::test]
async fn a_token_says_where_its_end_is_read_and_its_list_shows_it() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "flush").await;
    let reach = &issued.credential.as_ref().unwrap().revocation;
    assert_eq!((reach.len(), reach[0].channel, reach[0].usual_s, reach[0].bound_s), (1, Channel::StatusList, 16, 630));
    agree(&world, &token(&issued), true).await;
    world.pass_s(1);
    let ended = world.end(&handle(&issued), issued.task).await.unwrap();
    let state = ChannelState { channel: Channel::StatusList, known: true, worst_case_at: START.plus_s(2 + 600 + 30) };
    assert_eq!(ended.channels, [state]);
    agree(&world, &token(&issued), false).await;
    assert!(world.verify().problems.is_empty());
}

/// Time passes, and the broker lives through it.
async fn settle_s(world: &World, seconds: i64) {
    world.pass_s(seconds);
    world.upkeep.each_second();
}

#[tokio::test]
async fn whatever_ends_a_lease_list_and_introspection_agree() {
    let mut world = on_file();
    let mut open = Vec::new();
    for run in 0..7 {
        open.push(world.open(&Job::shop().run(&run.to_string()), "flush").await);
    }
    for issued in &open {
        agree(&world, &token(issued), true).await;
    }
    let [completed, revoked, alone, presented, superseded, ahead, untouched] = &open[..] else { panic!("seven") };
    world.end(&handle(completed), completed.task).await.unwrap();
    world.revoke(revoked.task, Some(false)).await.unwrap();
    world.flow.end_lease(&OPERATOR, lease(alone), None).await.unwrap();
    world.flow.revoke_presented(&secret(&token(presented))).await.unwrap();
    let renewed = world.feed(&handle(superseded), Some(0)).await.unwrap();
    let later = world.feed(&handle(ahead), Some(30)).await.unwrap();
    for issued in [completed, revoked, alone, presented, superseded] {
        agree(&world, &token(issued), false).await;
    }
    for issued in [untouched, &renewed, ahead, &later] {
        agree(&world, &token(issued), true).await;
    }
    world.pass_s(30);
    agree(&world, &token(ahead), false).await;
    agree(&world, &token(&later), true).await;
    // What the bundle no longer has.
    world.bundle.edit(
        "grants    = { edge = [\"edge:flush\"] }\n",
        "grants    = { edge = [\"edge:flush\"] }\ndisabled = true\n",
    );
    world.flow.load_bundle("test").await.unwrap();
    for issued in [untouched, &renewed, &later] {
        agree(&world, &token(issued), false).await;
    }
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}

#[tokio::test]
async fn a_lost_hold_is_read_on_the_list() {
    let mut world = world();
    world.live_s(1);
    let issued = world.open(&Job::shop(), "flush").await;
    let other = world.open(&Job::shop(), "flush").await;
    let beat = post_json(&crate::hold::path(issued.task), Some(&handle(&issued)), &json!({}));
    assert_eq!(world.call(beat).await.status, 200);
    agree(&world, &token(&issued), true).await;
    world.live_s(20);
    agree(&world, &token(&issued), false).await;
    agree(&world, &token(&other), true).await;
}

/// As in memory (law L6): an end that the disk refuses is read at once all the same.
#[tokio::test]
async fn an_end_that_is_not_durable_is_on_the_list() {
    let mut world = on_file();
    let issued = world.open(&Job::shop(), "flush").await;
    world.sql("ALTER TABLE event RENAME TO event_gone");
    assert_eq!(reason(world.end(&handle(&issued), issued.task).await), Reason::NotDurable);
    agree(&world, &token(&issued), false).await;
    world.sql("ALTER TABLE event_gone RENAME TO event");
    let ended = world.end(&handle(&issued), issued.task).await.unwrap();
    assert_eq!((ended.cause, ended.channels[0].known), (Some(Cause::Completed), true));
}

#[tokio::test]
async fn plain_expiry_is_on_no_list_and_an_end_stays_until_the_list_is_gone() {
    let mut world = on_file();
    let (issued, other) = (world.open(&Job::shop(), "flush").await, world.open(&Job::shop(), "flush").await);
    world.end(&handle(&other), other.task).await.unwrap();
    let (path, index) = place(&token(&issued));
    // START is a full hour: these expire at a quarter past.
    for _ in 0..2 {
        settle_s(&world, 1_000).await;
        world.upkeep.each_second();
        let list = fetch(&world, &path).await;
        assert_eq!((list.list().get(index), list.list().get(place(&token(&other)).1)), (Some(0), Some(1)));
        world.restart().await;
        let again = fetch(&world, &path).await;
        assert_eq!(set(&list), set(&again), "what is over is not read as if it had never been");
    }
    settle_s(&world, 1_600 + 299).await;
    world.upkeep.each_ten_seconds();
    assert_eq!(world.call(get(&path, None)).await.status, 200, "a server's leeway");
    settle_s(&world, 1).await;
    world.upkeep.each_ten_seconds();
    assert_eq!(world.call(get(&path, None)).await.status, 404);
}

#[tokio::test]
async fn a_restart_changes_nothing_that_a_server_reads() {
    let mut world = on_file();
    let mut open = Vec::new();
    for run in 0..20 {
        open.push(world.open(&Job::shop().run(&run.to_string()), "flush").await);
    }
    for issued in &open[..5] {
        world.end(&handle(issued), issued.task).await.unwrap();
    }
    let path = place(&token(&open[0])).0;
    let before = fetch(&world, &path).await;
    world.restart().await;
    let after = fetch(&world, &path).await;
    assert_eq!((before.uri(), set(&before)), (after.uri(), set(&after)), "the same list, places and decoys");
    for (number, issued) in open.iter().enumerate() {
        agree(&world, &token(issued), number >= 5).await;
    }
    let further = world.open(&Job::shop(), "flush").await;
    assert_eq!(place(&token(&further)).0, path, "it is filled on");
    assert!(open.iter().all(|issued| place(&token(issued)) != place(&token(&further))));
    world.end(&handle(&open[7]), open[7].task).await.unwrap();
    agree(&world, &token(&open[7]), false).await;
}

#[tokio::test]
async fn small_targets_share_a_list_with_their_environment_and_hour() {
    let mut world = world();
    let edge = world.open(&Job::shop(), "flush").await;
    let cdn = world.open(&Job::shop(), "flush-cdn").await;
    let till = world.open(&Job::pay(), "sell").await;
    let [edge, cdn, till] = [edge, cdn, till].map(|issued| place(&token(&issued)));
    assert!(edge.0 == cdn.0 && edge.1 != cdn.1 && till.0 != edge.0);
    let list = fetch(&world, &edge.0).await;
    assert_eq!((list.expires_at_s() - list.issued_at_s(), list.ttl_s()), (300, 15), "the shorter life of the two");
    assert_eq!(list.list().len(), 4_096);
    world.pass_s(2_701);
    let next = world.open(&Job::shop(), "flush").await;
    assert_ne!(place(&token(&next)).0, edge.0, "it expires in the next hour");
}

#[tokio::test]
async fn a_list_that_is_full_is_followed_by_another() {
    let mut world = on_file();
    world.resize(Sizes { shared: 64, small: 8, own: 64, most: 128 }).await;
    let mut issued = vec![world.open(&Job::shop(), "flush").await];
    let first = handle(&issued[0]);
    for _ in 0..180 {
        issued.push(world.feed(&first, None).await.unwrap());
    }
    let places: Vec<_> = issued.iter().map(|issued| place(&token(issued))).collect();
    assert_eq!(places.iter().collect::<HashSet<_>>().len(), 181, "no place twice");
    let lists: HashSet<_> = places.iter().map(|(path, _)| path.clone()).collect();
    assert!((4..=5).contains(&lists.len()), "8 shared, 48 of 64, 96 of 128, the rest: {}", lists.len());
    world.flow.end_lease(&OPERATOR, lease(&issued[170]), None).await.unwrap();
    agree(&world, &token(&issued[170]), false).await;
    agree(&world, &token(&issued[171]), true).await;
    world.restart().await;
    agree(&world, &token(&issued[170]), false).await;
    let further = world.feed(&first, None).await.unwrap();
    assert!(!places.contains(&place(&token(&further))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_at_once_on_a_fresh_list_have_places_of_their_own() {
    let mut world = on_file();
    let mut asking = Vec::new();
    for run in 0..64 {
        let evidence = world.evidence(&Job::shop().run(&run.to_string()));
        let subject = Subject::Evidence { token: secret(&evidence), control_s256: None };
        let (flow, exchange) =
            (world.flow.clone(), Exchange { subject, ask: ask("flush"), possession: None, csr: None });
        asking.push(tokio::spawn(async move { flow.exchange(exchange).await.unwrap() }));
    }
    let mut issued: Vec<Issued> = Vec::new();
    for asked in asking {
        issued.push(asked.await.unwrap());
    }
    let places: HashSet<_> = issued.iter().map(|issued| place(&token(issued))).collect();
    let lists: HashSet<_> = places.iter().map(|(path, _)| path).collect();
    assert_eq!((places.len(), lists.len()), (64, 1));
    let rows = rusqlite::Connection::open(world.file()).unwrap();
    let count: i64 = rows.query_row("SELECT count(*) FROM list", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    drop(rows);
    let before = fetch(&world, lists.iter().next().unwrap()).await;
    world.restart().await;
    assert_eq!(set(&before), set(&fetch(&world, lists.iter().next().unwrap()).await));
    agree(&world, &token(&issued[0]), true).await;
}

#[tokio::test]
async fn a_list_whose_first_commit_failed_is_written_with_the_next() {
    let mut world = on_file();
    world.sql("ALTER TABLE event RENAME TO event_gone");
    let refused = world.try_open(&Job::shop(), ask("flush")).await;
    assert_eq!(reason(refused), Reason::Store);
    world.sql("ALTER TABLE event_gone RENAME TO event");
    let issued = world.open(&Job::shop(), "flush").await;
    agree(&world, &token(&issued), true).await;
    world.restart().await;
    agree(&world, &token(&issued), true).await;
    world.end(&handle(&issued), issued.task).await.unwrap();
    agree(&world, &token(&issued), false).await;
}

/// T-108: what is promised when a token is issued holds, and what is said after its end is so.
#[tokio::test]
async fn t_108_an_end_is_read_within_the_second_and_until_then_it_is_not_said_to_be_known() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "flush").await;
    let other = world.open(&Job::shop(), "flush").await;
    let (path, _) = place(&token(&issued));
    let stale = fetch(&world, &path).await;
    let promised = issued.credential.as_ref().unwrap().revocation[0].bound_s as i64;
    let after = world.end(&handle(&issued), issued.task).await.unwrap();
    assert!(!after.channels[0].known, "whoever asks in this second reads the list of a moment ago");
    assert_eq!(set(&stale), set(&fetch(&world, &path).await));
    world.pass_s(1);
    agree(&world, &token(&issued), false).await;
    let known = world.end(&handle(&issued), issued.task).await.unwrap().channels[0];
    assert!(known.known);
    // The last list without the end, at a server that nobody tells anything.
    let believed_until = UnixMs::from_s(stale.expires_at_s());
    assert!(believed_until <= after.channels[0].worst_case_at);
    assert!(after.channels[0].worst_case_at <= START.plus_s(promised));
    world.pass_s(5);
    let ended = world.end(&handle(&other), other.task).await.unwrap();
    assert!(ended.channels[0].known, "nobody asked for a while: the next one reads it");
    agree(&world, &token(&other), false).await;
}

#[tokio::test]
async fn t_108_a_list_is_signed_by_a_list_key_and_a_token_never() {
    let mut world = on_file();
    let issued = world.open(&Job::shop(), "flush").await;
    let (path, _) = place(&token(&issued));
    let list = world.call(get(&path, None)).await.text;
    let kid = |token: &str| Jws::parse(token).unwrap().kid().unwrap().to_owned();
    let jwks = world.flow.jwks();
    let kids: Vec<_> = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect();
    assert_eq!(kids.iter().collect::<HashSet<_>>().len(), 4, "two of tokens, two of lists: {jwks}");
    assert!(kids.contains(&json!(kid(&list))) && kids.contains(&json!(kid(&token(&issued)))));
    let ours = world.flow.keys(&OPERATOR).await.unwrap();
    let of = |kid: &str| ours.iter().find(|(_, key)| key.kid == kid).map(|(what, _)| *what);
    assert_eq!((of(&kid(&token(&issued))), of(&kid(&list))), (Some(KeyUse::Tokens), Some(KeyUse::Lists)));
    world.restart().await;
    assert_eq!(kid(&world.call(get(&path, None)).await.text), kid(&list), "kept in a file of its own");
    // A day later another one signs, and what the old one signed is still verified.
    world.pass_s(24 * 3_600);
    let issued = world.open(&Job::shop(), "flush").await;
    let (path, _) = place(&token(&issued));
    let old = world.call(get(&path, None)).await.text;
    world.upkeep.each_minute().await;
    world.pass_s(200);
    let new = world.call(get(&path, None)).await.text;
    assert_ne!(kid(&old), kid(&new));
    for text in [old, new] {
        ListToken::read(&text, &keys(&world), ISSUER, LIST_ENTRIES_MAX, world.now()).unwrap();
    }
}

/// Whoever has a list's key could say that what ended lives: it is out at once, and so is what it signed.
#[tokio::test]
async fn t_197_a_list_key_is_tainted_like_any_other() {
    let mut world = on_file();
    let issued = world.open(&Job::shop(), "flush").await;
    let (path, _) = place(&token(&issued));
    let before = world.call(get(&path, None)).await.text;
    let leaked = Jws::parse(&before).unwrap().kid().unwrap().to_owned();
    let taint = post_json(&format!("/v1/keys/{leaked}/taint"), None, &json!({ "reason": "it was in a backup" }));
    let answer = world.call(local(taint)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = answer.json();
    assert_eq!((&told["was"], &told["leases_ended"]), (&json!("active"), &json!(0)), "{told}");
    // Within the second in which a list is signed once at most.
    let after = world.call(get(&path, None)).await.text;
    assert_ne!(Jws::parse(&after).unwrap().kid().unwrap(), leaked);
    let refused = ListToken::read(&before, &keys(&world), ISSUER, LIST_ENTRIES_MAX, world.now());
    assert!(refused.is_err() && !world.flow.jwks().to_string().contains(&leaked));
    assert!(world.active(&token(&issued)).await, "no token was signed with it");
    world.restart().await;
    agree(&world, &token(&issued), true).await;
    assert!(!world.flow.jwks().to_string().contains(&leaked) && world.verify().problems.is_empty());
}

fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn a_list_is_for_everybody_and_for_caches() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "flush").await;
    let (path, _) = place(&token(&issued));
    let first = world.call(get(&path, None)).await;
    assert_eq!(first.head("cache-control"), "public, max-age=15");
    assert_eq!(first.head("access-control-allow-origin"), "*");
    let etag = first.head("etag").to_owned();
    let again = world.call(with(get(&path, None), "if-none-match", &etag)).await;
    assert_eq!((again.status, &*again.text, again.head("etag")), (304, "", &*etag));
    assert_eq!(again.head("cache-control"), "public, max-age=15");
    world.end(&handle(&issued), issued.task).await.unwrap();
    world.pass_s(1);
    let changed = world.call(with(get(&path, None), "if-none-match", &etag)).await;
    assert!(changed.status == 200 && changed.head("etag") != etag && changed.text != first.text);
    let mut head = get(&path, None);
    *head.method_mut() = axum::http::Method::HEAD;
    let answer = world.call(head).await;
    assert_eq!((answer.status, answer.head("etag")), (200, changed.head("etag")));
    // Garbage in a header of credentials is nobody's business here.
    assert_eq!(world.call(get(&path, Some("garbage"))).await.text, changed.text);
    let posted = world.call(post_json(&path, None, &json!({}))).await;
    assert_eq!((posted.status, posted.json()["reason"].clone()), (405, json!("E-METHOD")));
}

#[tokio::test]
async fn whatever_is_no_list_looks_alike() {
    let mut world = world();
    let issued = world.open(&Job::shop(), "flush").await;
    let (path, _) = place(&token(&issued));
    let id = path.rsplit('/').next().unwrap();
    let seen = async |path: &str| {
        let Answer { status, text, headers } = world.call(with(get(path, None), "x-request-id", "same")).await;
        (status, text, headers)
    };
    let unknown = seen("/status/lst_00000000000000000000000001").await;
    assert_eq!(unknown.0, 404);
    let lease = lease(&issued).to_string();
    for odd in
        [&*id.to_uppercase(), &id[..id.len() - 1], &format!("{id}0"), &id[4..], "lst_", "x", &lease, "..", "lst_%30"]
    {
        let path = format!("/status/{odd}");
        if path.parse::<axum::http::Uri>().is_ok() {
            assert_eq!(seen(&path).await, unknown, "{odd}");
        }
    }
    assert_eq!(seen(&format!("{path}/")).await, unknown);
    assert_eq!(seen(&format!("{path}/x")).await, unknown);
    assert_eq!(seen(&path).await.0, 200);
}

#[tokio::test]
async fn a_server_is_told_which_lists_it_needs() {
    let servers = r#"
[issuer.edge-server]
profile = "oidc"
owner   = "team-shop"
kind    = "verifier"
url     = "edge-0"
keys    = { jwks_file = "other.json" }

[[target.edge.verifier]]
issuer = "edge-server"
"#;
    let mut world = World::of(&format!("{}{servers}", bundle()));
    let none = world.call(local(get("/status", None))).await;
    assert_eq!((none.status, none.json()), (200, json!({ "lists": [] })));
    let (edge, till) = (world.open(&Job::shop(), "flush").await, world.open(&Job::pay(), "sell").await);
    let entry = |issued: &Issued, targets: Value| {
        let uri = format!("{ISSUER}{}", place(&token(issued)).0);
        json!({ "uri": uri, "targets": targets, "expires_at": "2027-01-15T09:00:00Z" })
    };
    let all = world.call(local(get("/status", None))).await.json();
    let lists = all["lists"].as_array().unwrap();
    assert_eq!(lists.len(), 2, "{all}");
    assert!(lists.contains(&entry(&edge, json!(["cdn", "edge"]))) && lists.contains(&entry(&till, json!(["till"]))));
    let assertion = world.sign_as_other(Job(json!({ "iss": "edge-0", "sub": "edge-0" })));
    let own = world.call(get("/status", Some(&assertion))).await;
    assert_eq!((own.status, own.json()), (200, json!({ "lists": [entry(&edge, json!(["edge"]))] })));
    assert_eq!(own.head("cache-control"), "no-store");
    let watch = token(&world.open(&Job::pay(), "pay-watch").await);
    let pay = world.call(get("/status", Some(&watch))).await.json();
    assert_eq!(pay, json!({ "lists": [entry(&till, json!(["till"]))] }));
    for nobody in [None, Some("garbage"), Some(&*token(&edge))] {
        let refused = world.call(get("/status", nobody)).await;
        assert_eq!((refused.status, refused.json()["reason"].clone()), (401, json!("E-CLIENT")), "{nobody:?}");
    }
    let refused = world.call(get("/status?target=edge", Some(&assertion))).await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(
        world.call(get(&format!("{}?time=1", place(&token(&edge)).0), None)).await.status,
        400,
        "only as it is now"
    );
}

/// Whoever watches a list does not see how many of its tokens there are.
#[tokio::test]
async fn most_of_what_is_set_on_a_list_never_was_a_token() {
    let mut world = world();
    let mut ended = HashSet::new();
    for run in 0..10 {
        let issued = world.open(&Job::shop().run(&run.to_string()), "flush").await;
        world.end(&handle(&issued), issued.task).await.unwrap();
        ended.insert(place(&token(&issued)).1);
    }
    let live = world.open(&Job::shop(), "flush").await;
    let (path, index) = place(&token(&live));
    let first = set(&fetch(&world, &path).await);
    assert!(ended.is_subset(&first) && first.len() > 300, "{}", first.len());
    let mut before = first.clone();
    for _ in 0..10 {
        world.pass_s(60);
        let now = set(&fetch(&world, &path).await);
        assert!(now.is_superset(&before) && !now.contains(&index));
        before = now;
    }
    // About four a minute turn on a list of this size, so that a minute may well have none.
    assert!(before.len() > first.len(), "nobody's place has turned in ten minutes");
}

/// T-108: one tombstone for all of an owner's.
#[tokio::test]
async fn t_108_an_end_by_selector_is_read_on_the_list() {
    let mut world = on_file();
    let edge = world.open(&Job::shop().run("1"), "flush").await;
    let further = world.feed(&handle(&edge), None).await.unwrap();
    let till = world.open(&Job::pay(), "sell").await;
    let ended = crate::mass::end(&world, crate::mass::by("owner == \"team-shop\"")).await.unwrap();
    let known: Vec<_> = ended.channels.iter().map(|state| (state.channel, state.known)).collect();
    assert_eq!((ended.leases, known), (2, vec![(Channel::StatusList, true)]));
    for issued in [&edge, &further] {
        agree(&world, &token(issued), false).await;
    }
    agree(&world, &token(&till), true).await;
    world.restart().await;
    agree(&world, &token(&edge), false).await;
}
