//! Section G: an id is no right, and what one may not see does not exist.

use std::collections::BTreeSet;

use axum::{body::Body, http::Request};
use dayfly::flow::Issued;
use serde_json::{Value, json};

use super::stand::{CONTROL, JWT, Stand, bundle, exchange, refusal};
use crate::world::{Answer, Job, form, get, handle, lease, local, post_json, secret, token};

const NO_TASK: &str = "tsk_00000000000000000000000001";
const NO_LEASE: &str = "lse_00000000000000000000000001";
const NO_EVENT: &str = "evt_00000000000000000000000001";

/// The same request id, so that bodies can be compared.
fn same(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert("x-request-id", "same".parse().unwrap());
    request
}

fn told(answer: &Answer) -> (u16, &str, &str) {
    (answer.status, answer.head("content-type"), &answer.text)
}

/// The shop's task, and a token of the payments' that has every action.
async fn two_owners(stand: &mut Stand) -> (Issued, String) {
    let shop = stand.world.open(&Job::shop(), "deploy").await;
    let watch = stand.world.open(&Job::pay(), "pay-watch").await;
    (shop, token(&watch))
}

/// Every verb about one task or lease.
fn verbs(task: &str, lease: &str, bearer: &str) -> Vec<Request<Body>> {
    let bearer = Some(bearer);
    vec![
        get(&format!("/v1/tasks/{task}"), bearer),
        get(&format!("/v1/leases/{lease}"), bearer),
        post_json(&format!("/v1/tasks/{task}/end"), bearer, &json!({})),
        post_json(&format!("/v1/tasks/{task}/end"), bearer, &json!({ "block": true, "reason": "mine" })),
        post_json(&format!("/v1/leases/{lease}/end"), bearer, &json!({})),
        get(&format!("/v1/tasks?task={task}"), bearer),
        get(&format!("/v1/leases?task={task}"), bearer),
        get(&format!("/v1/ledger?task={task}"), bearer),
        get(&format!("/v1/ledger?lease={lease}"), bearer),
    ]
}

#[tokio::test]
async fn t_110_a_foreign_row_is_answered_like_an_unknown_one() {
    let mut stand = Stand::new();
    let (shop, theirs) = two_owners(&mut stand).await;
    let stranger = handle(&stand.world.open(&Job::pay(), "pay").await);
    let before = stand.tally().await;
    for bearer in [&theirs, &stranger] {
        let known = verbs(&shop.task.to_string(), &lease(&shop).to_string(), bearer);
        for (known, unknown) in known.into_iter().zip(verbs(NO_TASK, NO_LEASE, bearer)) {
            let path = known.uri().to_string();
            let (known, unknown) = (stand.world.call(same(known)).await, stand.world.call(same(unknown)).await);
            assert_eq!(told(&known), told(&unknown), "{path}");
            let empty = known.text == "{\"items\":[]}";
            assert!(
                known.status == 404 || known.status == 403 || empty && known.status == 200,
                "{path}: {}",
                known.text
            );
        }
    }
    assert_eq!(stand.tally().await, before);
    assert!(stand.world.active(&token(&shop)).await);
}

#[tokio::test]
async fn t_111_an_id_is_no_secret_wherever_it_is_shown() {
    let mut stand = Stand::new();
    let (shop, theirs) = two_owners(&mut stand).await;
    let row = stand.world.flow.lease(&crate::world::OPERATOR, lease(&shop)).await.unwrap().row;
    let hash: String = row.credential_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let ids = [lease(&shop).to_string(), shop.task.to_string(), hash, super::forge::b64(row.credential_hash)];
    let before = stand.tally().await;
    for id in ids {
        assert_eq!(stand.world.call(get("/v1/tasks", Some(&id))).await.status, 401, "{id}");
        let introspected = form("/oauth2/introspect", Some(&theirs), &[("token", &id)]);
        assert_eq!(stand.world.call(introspected).await.text, "{\"active\":false}");
        let revoked = stand.world.call(form("/oauth2/revoke", None, &[("token", &id)])).await;
        assert_eq!((revoked.status, &*revoked.text), (200, ""), "RFC 7009 section 2.2");
        for kind in [JWT, CONTROL] {
            let fed = exchange(&[("subject_token", &id), ("subject_token_type", kind), ("scope", "deploy")]);
            assert_eq!(stand.world.call(fed).await.status, 400);
        }
    }
    assert_eq!(stand.tally().await, before);
    assert!(stand.world.active(&token(&shop)).await);
}

#[tokio::test]
async fn t_112_names_that_mean_a_place_are_no_names() {
    for name in
        [".", "..", "", "%2e%2e", "a/../b", "a b", "Root", "ROOT", "r\u{f6}\u{f6}t", "-a", "a.", "*", "\u{ff52}oot"]
    {
        let text =
            bundle().replace("team-pay", name).replace(&format!("[owner.{name}]"), &format!("[owner.\"{name}\"]"));
        assert!(!super::jose::problems(&text).is_empty(), "{name}");
    }
    let mut stand = Stand::new();
    let theirs = two_owners(&mut stand).await.1;
    for id in ["root", "sys", "self", "*", "all", "0", "null", NO_LEASE, "tsk_", "TSK_00000000000000000000000001"] {
        let answer = stand.world.call(same(get(&format!("/v1/tasks/{id}"), Some(&theirs)))).await;
        let unknown = stand.world.call(same(get(&format!("/v1/tasks/{NO_TASK}"), Some(&theirs)))).await;
        assert_eq!(told(&answer), told(&unknown), "{id}");
    }
}

/// Ways to write the path to a task that are not the way.
fn detours(task: &str) -> Vec<String> {
    let escaped: String = task.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let twice = escaped.replace('%', "%25");
    [
        format!("/v1/tasks/../tasks/{task}"),
        format!("/v1/./tasks/{task}"),
        format!("/v1//tasks/{task}"),
        format!("//v1/tasks/{task}"),
        format!("/v1/tasks//{task}"),
        format!("/v1/tasks/{task}/"),
        format!("/v1/tasks/{task}/."),
        format!("/v1/tasks/{task}/.."),
        format!("/v1/tasks/x/../{task}"),
        format!("/v1/tasks/{task};v=1"),
        format!("/v1;x/tasks/{task}"),
        format!("/v1/tasks/{escaped}"),
        format!("/v1/tasks/{twice}"),
        format!("/v1/tasks%2f{task}"),
        format!("/v1/%74asks/{task}"),
        format!("/v1/tasks/%2e%2e/tasks/{task}"),
        format!("/v1/tasks/%252e%252e/tasks/{task}"),
        format!("/V1/tasks/{task}"),
        format!("/v1/Tasks/{task}"),
        format!("/v1/tasks/{task}%00"),
        format!("/v1/tasks/{task}%20"),
        format!("/v1\\tasks\\{task}").replace('\\', "%5c"),
    ]
    .to_vec()
}

#[tokio::test]
async fn t_113_a_path_has_one_spelling() {
    let mut stand = Stand::new();
    let shop = stand.world.open(&Job::shop(), "deploy").await;
    let (task, own) = (shop.task.to_string(), handle(&shop));
    assert_eq!(stand.world.call(local(get(&format!("/v1/tasks/{task}"), None))).await.status, 200, "the one spelling");
    let before = stand.tally().await;
    for path in detours(&task) {
        // The operator may do everything, so only the path can be what is refused.
        for request in [get(&path, Some(&own)), local(get(&path, None))] {
            assert_eq!(stand.world.call(request).await.status, 404, "{path}");
        }
        for end in [format!("{path}/end"), path.replace(&task, &format!("{task}/end"))] {
            assert_eq!(stand.world.call(local(post_json(&end, None, &json!({})))).await.status, 404, "{end}");
        }
    }
    assert_eq!(stand.tally().await, before);
    assert!(stand.world.active(&token(&shop)).await);
}

/// The rule and the router see one thing: the row's own entity, never a path.
#[tokio::test]
async fn t_114_a_forbid_holds_on_every_way_to_its_row() {
    let (mut stand, task) = forbidding().await;
    let (id, hidden) = (task.task.to_string(), lease(&task).to_string());
    let watch = token(&stand.world.open(&Job::shop(), "watch").await);
    for (path, unknown) in [
        (format!("/v1/tasks/{id}"), format!("/v1/tasks/{NO_TASK}")),
        (format!("/v1/leases/{hidden}"), format!("/v1/leases/{NO_LEASE}")),
    ] {
        for caller in [Some(&*watch), None] {
            let ask = |path: &str| if caller.is_none() { local(get(path, None)) } else { get(path, caller) };
            let (seen, other) = (stand.world.call(same(ask(&path))).await, stand.world.call(same(ask(&unknown))).await);
            assert_eq!(told(&seen), told(&other), "{path}");
            assert_eq!(seen.status, 404);
        }
    }
    for path in detours(&id) {
        assert_eq!(stand.world.call(local(get(&path, None))).await.status, 404, "{path}");
    }
}

/// A world in which nobody may read what `pair` opened, and one such task.
async fn forbidding() -> (Stand, Issued) {
    let forbid = "@id(\"hidden\") @purpose(\"test\") forbid (principal, action in [Dayfly::Action::\"tasks:read\", \
                  Dayfly::Action::\"leases:read\", Dayfly::Action::\"ledger:read\"], resource) \
                  when { resource has template && resource.template == \"pair\" };";
    let forge = super::forge::Forge::new();
    let world = crate::world::World::with_cedar(&bundle(), forbid, &[("multi.json", &forge.jwks())]);
    let mut stand = Stand::with(world, forge);
    let task = stand.world.open(&Job::shop(), "pair").await;
    (stand, task)
}

#[tokio::test]
async fn t_115_what_may_not_be_read_is_in_no_list() {
    let (mut stand, hidden) = forbidding().await;
    let shown = stand.world.open(&Job::shop(), "deploy").await;
    let watch = token(&stand.world.open(&Job::shop(), "watch").await);
    let (id, hidden_lease) = (hidden.task.to_string(), lease(&hidden).to_string());
    for list in ["tasks", "leases", "ledger"] {
        for query in ["?limit=500".to_owned(), format!("?task={id}"), "?limit=1".into()] {
            for request in
                [get(&format!("/v1/{list}{query}"), Some(&watch)), local(get(&format!("/v1/{list}{query}"), None))]
            {
                let answer = stand.world.call(request).await;
                assert_eq!(answer.status, 200, "{list}{query}: {}", answer.text);
                assert!(!answer.text.contains(&id) && !answer.text.contains(&hidden_lease), "{list}{query}");
                let whole = query.contains("500");
                assert!(!whole || answer.text.contains(&shown.task.to_string()), "{list}{query}");
            }
        }
    }
}

#[tokio::test]
async fn t_117_ids_come_once_and_cannot_be_guessed() {
    let mut stand = Stand::new();
    let (mut ids, mut tails) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..60 {
        let issued = stand.world.open(&Job::shop(), "deploy").await;
        for id in [issued.task.to_string(), lease(&issued).to_string()] {
            // 48 bits of time and 80 of chance: the clock stands still here.
            tails.insert(id[id.len() - 16..].to_owned());
            assert!(ids.insert(id));
        }
        stand.world.end(&handle(&issued), issued.task).await.unwrap();
    }
    assert_eq!((ids.len(), tails.len()), (120, 120));
    let heads: BTreeSet<_> = ids.iter().map(|id| &id[4..13]).collect();
    assert_eq!(heads.len(), 1, "made in the same millisecond");
}

#[tokio::test]
async fn t_118_unknown_and_not_permitted_sound_the_same() {
    let mut stand = Stand::new();
    let (pay, watch) =
        (stand.world.open(&Job::pay(), "pay").await, token(&stand.world.open(&Job::shop(), "watch").await));
    let told_of = |answer: Answer| {
        let mut body: Value = answer.json();
        body.as_object_mut().unwrap().remove("decision_id");
        (answer.status, body.to_string())
    };
    let evidence = stand.world.evidence(&Job::shop());
    let ask = |template: &str| same(exchange(&super::stand::evidence(&evidence, template)));
    let known = told_of(stand.world.call(ask("pay")).await);
    for unknown in ["nothing", "pay2", "PAY"] {
        assert_eq!(told_of(stand.world.call(ask(unknown)).await), known, "a template: {unknown}");
    }
    let introspect = |asked: &str| same(form("/oauth2/introspect", Some(&watch), &[("token", asked)]));
    let hidden = told_of(stand.world.call(introspect(&token(&pay))).await);
    assert_eq!(hidden, told_of(stand.world.call(introspect("unknown")).await), "a token");
    let revoke = |asked: &str| same(form("/oauth2/revoke", None, &[("token", asked)]));
    let ended = lease(&pay).to_string();
    for asked in ["unknown", "a.b.c", &ended] {
        let answer = stand.world.call(revoke(asked)).await;
        assert_eq!((answer.status, &*answer.text), (200, ""), "a lease");
    }
    let pairs = [("tasks", pay.task.to_string(), NO_TASK), ("leases", ended, NO_LEASE)];
    for (kind, known, unknown) in pairs {
        let ask = |id: &str| same(get(&format!("/v1/{kind}/{id}"), Some(&watch)));
        let (known, unknown) = (stand.world.call(ask(&known)).await, stand.world.call(ask(unknown)).await);
        assert_eq!((told(&known), known.status), (told(&unknown), 404), "{kind}");
    }
    let events = stand.world.call(local(get(&format!("/v1/ledger?task={}", pay.task), None))).await.json();
    let event = events["items"][0]["id"].as_str().unwrap().to_owned();
    let ask = |id: &str| same(get(&format!("/v1/ledger/{id}"), Some(&watch)));
    let (known, unknown) = (stand.world.call(ask(&event)).await, stand.world.call(ask(NO_EVENT)).await);
    assert_eq!((told(&known), known.status), (told(&unknown), 404), "an event");
    // A workload that nobody knows is told no more than one whose rows are not these.
    let stranger = stand.forge.claims(json!({ "sub": "nobody" }));
    let other = stand.forge.claims(json!({ "sub": "pay" }));
    let by = |token: &str| same(exchange(&super::stand::evidence(token, "deploy")));
    assert_eq!(told_of(stand.world.call(by(&stranger)).await), told_of(stand.world.call(by(&other)).await));
}

/// Fields and variables that hold a secret's hash are compared in constant time, or looked up.
#[test]
fn t_119_secrets_are_not_compared_byte_by_byte() {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut looked_at, mut open) = (0, vec![src]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        // Two records of our own are held against each other there; nobody presents one.
        if path.ends_with("ledger/verify.rs") || is_of_tests(&path) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let live = text.split("#[cfg(test)]").next().unwrap();
        looked_at += usize::from(live.contains("ct_eq"));
        for (at, line) in live.lines().enumerate() {
            assert!(!compares_a_secret(line), "{}:{}: {line}", path.display(), at + 1);
        }
    }
    assert!(looked_at >= 1, "`ct_eq` is used somewhere");
    for planted in ["if lease.credential_hash == hash {", "hash != row.handle_hash", "token.expose() == other"] {
        assert!(compares_a_secret(planted), "{planted}");
    }
}

fn is_of_tests(path: &std::path::Path) -> bool {
    path.iter().any(|part| part.to_string_lossy().trim_end_matches(".rs").ends_with("_tests"))
}

fn compares_a_secret(line: &str) -> bool {
    let secret = ["credential_hash", "handle_hash", ".expose()", "control_s256"];
    let compared = |name: &&str| {
        [format!("{name} =="), format!("{name} !="), format!("== {name}"), format!("!= {name}")]
            .iter()
            .any(|form| line.contains(form.as_str()))
            || line.split(['=', '!', ' ', '(', '&', ',', ')']).any(|word| word.ends_with(*name))
                && (line.contains(" == ") || line.contains(" != "))
    };
    secret.iter().any(compared)
}

#[tokio::test]
async fn t_120_a_cursor_is_sealed() {
    let mut stand = Stand::new();
    for _ in 0..4 {
        stand.world.open(&Job::shop(), "deploy").await;
        stand.world.open(&Job::pay(), "pay").await;
    }
    let shop = token(&stand.world.open(&Job::shop(), "watch").await);
    let pay = token(&stand.world.open(&Job::pay(), "pay-watch").await);
    let first = stand.world.call(get("/v1/tasks?limit=2", Some(&shop))).await.json();
    let cursor = first["next_cursor"].as_str().unwrap().to_owned();
    let with =
        |list: &str, cursor: &str, bearer: &str| get(&format!("/v1/{list}?limit=2&cursor={cursor}"), Some(bearer));
    assert_eq!(stand.world.call(with("tasks", &cursor, &shop)).await.status, 200);
    let mut bad = vec![with("tasks", &cursor, &pay), with("leases", &cursor, &shop), with("ledger", &cursor, &shop)];
    bad.push(with("tasks", &format!("{cursor}&state=active"), &shop));
    for at in (0..cursor.len()).step_by(3) {
        let mut bytes = cursor.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        bad.push(with("tasks", &String::from_utf8(bytes).unwrap(), &shop));
    }
    for text in ["1", "0", "-1", "4294967296", "18446744073709551616", "%27%20OR%201=1--", "..%2f", &cursor[1..]] {
        bad.push(with("tasks", text, &shop));
    }
    for request in bad {
        let path = request.uri().to_string();
        let answer = stand.world.call(request).await;
        assert!([400, 410].contains(&answer.status), "{path}: {}", answer.text);
        assert!(!answer.text.contains("items") && !answer.text.contains(&cursor), "{path}");
    }
    let other = Stand::new();
    let elsewhere = other.world.call(local(get(&format!("/v1/tasks?cursor={cursor}"), None))).await;
    assert_eq!(elsewhere.status, 410, "of an earlier start");
    assert!(secret(&cursor).expose().len() < 200);
}

#[tokio::test]
async fn t_121_a_huge_page_is_refused_before_anything_is_made_for_it() {
    let stand = Stand::new();
    for list in ["tasks", "leases", "ledger"] {
        for limit in
            ["501", "2147483648", "4294967297", "18446744073709551615", "1e9", "-1", "0", "", "0x10", "%2B5", "5.0"]
        {
            let answer = stand.world.call(local(get(&format!("/v1/{list}?limit={limit}"), None))).await;
            assert_eq!((answer.status, &answer.json()["reason"]), (422, &json!("E-INVALID")), "{list} {limit}");
        }
        assert_eq!(stand.world.call(local(get(&format!("/v1/{list}?limit=500"), None))).await.status, 200);
        let twice = stand.world.call(local(get(&format!("/v1/{list}?limit=1&limit=2"), None))).await;
        assert_eq!(twice.status, 400, "{list}");
    }
    let empty = stand.exchange(&[]).await;
    refusal(&empty, super::stand::REQUEST, "nothing at all");
}
