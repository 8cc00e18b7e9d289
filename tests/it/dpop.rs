//! Proofs of possession (RFC 9449) through the HTTP door: what is bound to a key is worth nothing
//! without it, anywhere.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicU64, Ordering},
};

use axum::{body::Body, http::Request};
use dayfly::{
    http::{Listener, ROUTES, Verb, Who},
    store::EventRow,
};
use dayfly_verifier::{
    algorithms,
    crypto::SigningKey,
    dpop::{ProofRules, prove},
};
use serde_json::{Value, json};

use crate::world::{Answer, BUNDLE, ISSUER, Job, World, delete, form, get, local, post_json};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const CONTROL: &str = "urn:dayfly:token-type:task-control";
const TOKEN: &str = "/oauth2/token";

/// A world past its first seconds, where no nonce is needed; the shop asks for bound tokens.
fn world() -> World {
    let world = World::of(&BUNDLE.replacen("binding     = \"bearer\"", "binding     = \"dpop\"", 1));
    world.pass_s(10);
    world
}

fn new_key() -> SigningKey {
    SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap()
}

fn jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

/// What a client with a key sends.
struct Client<'a> {
    world: &'a World,
    key: SigningKey,
}

impl<'a> Client<'a> {
    fn of(world: &'a World) -> Self {
        Self { world, key: new_key() }
    }

    fn proof(&self, method: &str, path: &str, token: Option<&str>) -> String {
        self.proof_with(method, &format!("{ISSUER}{path}"), token, None, &jti())
    }

    fn proof_with(&self, method: &str, url: &str, token: Option<&str>, nonce: Option<&str>, jti: &str) -> String {
        let rules = ProofRules { method, url, token };
        prove(&self.key, &rules, nonce, jti, self.world.now().as_s()).unwrap()
    }

    /// An exchange with a proof of this key.
    async fn exchange(&self, fields: &[(&str, &str)]) -> Answer {
        self.world.call(proving(exchange(fields), &self.proof("POST", TOKEN, None))).await
    }

    async fn open(&self, evidence: &str, template: &str) -> Value {
        let answer = self.exchange(&evidence_for(evidence, template)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    }

    /// With `Authorization: DPoP` and a proof for it.
    async fn shows(&self, request: Request<Body>, secret: &str) -> Answer {
        let proof = self.proof(request.method().as_str(), request.uri().path(), Some(secret));
        self.world.call(proving(with_scheme(request, "DPoP", secret), &proof)).await
    }
}

fn evidence_for<'a>(evidence: &'a str, template: &'a str) -> [(&'a str, &'a str); 3] {
    [("subject_token", evidence), ("subject_token_type", JWT), ("scope", template)]
}

fn handle_of(handle: &str) -> [(&str, &str); 2] {
    [("subject_token", handle), ("subject_token_type", CONTROL)]
}

fn exchange(fields: &[(&str, &str)]) -> Request<Body> {
    let fields: Vec<_> = [("grant_type", EXCHANGE)].into_iter().chain(fields.iter().copied()).collect();
    form(TOKEN, None, &fields)
}

fn proving(mut request: Request<Body>, proof: &str) -> Request<Body> {
    request.headers_mut().append("dpop", proof.parse().unwrap());
    request
}

fn with_scheme(mut request: Request<Body>, scheme: &str, secret: &str) -> Request<Body> {
    request.headers_mut().insert("authorization", format!("{scheme} {secret}").parse().unwrap());
    request
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("no text `{name}`: {answer}"))
}

fn payload(token: &str) -> Value {
    use base64::Engine;
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// Status and reason; a refusal never says what was sent.
fn refused(answer: &Answer) -> (u16, String) {
    assert!(!answer.text.contains("eyJ") && !answer.text.contains("dtc_"), "{}", answer.text);
    (answer.status, text(&answer.json(), "reason").to_owned())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_job_with_a_key_from_its_token_to_its_end() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop().run("1"));
    let client = Client::of(&world);
    let opened = client.open(&evidence, "deploy").await;
    assert_eq!(opened["token_type"], "DPoP");
    let (token, handle) = (text(&opened, "access_token"), text(&opened, "task_control"));
    assert_eq!(payload(token)["cnf"], json!({ "jkt": client.key.kid() }));
    let introspect = || local(form("/oauth2/introspect", None, &[("token", token)]));
    let shown = world.call(introspect()).await.json();
    assert_eq!((&shown["active"], &shown["cnf"]["jkt"]), (&json!(true), &json!(client.key.kid())));
    let path = format!("/v1/tasks/{}", text(&opened, "task_id"));
    let task = client.shows(get(&path, None), handle).await;
    assert_eq!((task.status, &task.json()["bound"]), (200, &json!("jkt")));
    let leases = client.shows(get("/v1/leases", None), handle).await.json();
    assert_eq!(leases["items"][0]["bound"], "jkt");
    let renewed = client.exchange(&handle_of(handle)).await.json();
    assert_eq!(payload(text(&renewed, "access_token"))["cnf"], json!({ "jkt": client.key.kid() }));
    let end = post_json(&format!("{path}/end"), None, &json!({}));
    assert_eq!(client.shows(end, handle).await.status, 200);
    assert_eq!(world.call(introspect()).await.text, "{\"active\":false}");
    assert_eq!(world.verify().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_bound_target_gives_nothing_without_a_proof_and_says_so() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let answer = world.call(exchange(&evidence_for(&evidence, "deploy"))).await;
    assert_eq!(refused(&answer), is(400, "E-DPOP"));
    assert_eq!(answer.json()["error"], "invalid_dpop_proof");
    Client::of(&world).open(&evidence, "deploy").await;
}

#[tokio::test]
async fn a_bearer_target_gives_a_bound_token_to_whoever_brings_a_proof() {
    let mut world = world();
    let [one, other] = [world.evidence(&Job::shop()), world.evidence(&Job::shop())];
    let resource = |evidence| {
        let stock = ("resource", "https://stock.example.org");
        evidence_for(evidence, "ship").into_iter().chain([stock]).collect::<Vec<_>>()
    };
    let client = Client::of(&world);
    let bound = client.exchange(&resource(&one)).await.json();
    assert_eq!(
        (&bound["token_type"], payload(text(&bound, "access_token")).get("cnf").is_some()),
        (&json!("DPoP"), true)
    );
    world.pass_s(1);
    let free = world.call(exchange(&resource(&other))).await.json();
    assert_eq!((&free["token_type"], payload(text(&free, "access_token")).get("cnf")), (&json!("Bearer"), None));
    let tasks = world.call(local(get("/v1/tasks", None))).await.json();
    let bounds: Vec<_> = tasks["items"].as_array().unwrap().iter().map(|task| text(task, "bound")).collect();
    assert_eq!(bounds, ["none", "jkt"]);
}

#[tokio::test]
async fn an_unbound_handle_stays_unbound_and_its_credential_is_the_keys() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let fields = [
        ("subject_token", &*evidence),
        ("subject_token_type", JWT),
        ("scope", "deploy"),
        ("requested_token_type", CONTROL),
    ];
    let opened = world.call(exchange(&fields)).await.json();
    let handle = text(&opened, "task_control");
    let (first, second) = (Client::of(&world), Client::of(&world));
    for client in [&first, &second] {
        let fed = client.exchange(&handle_of(handle)).await.json();
        assert_eq!(payload(text(&fed, "access_token"))["cnf"]["jkt"], client.key.kid());
    }
    let read = world.call(get("/v1/tasks", Some(handle))).await.json();
    assert_eq!(read["items"][0]["bound"], "none");
    let leases = world.call(get("/v1/leases", Some(handle))).await.json();
    assert_eq!((&leases["items"][0]["bound"], &leases["items"][1]["bound"]), (&json!("jkt"), &json!("jkt")));
    let shown = first.shows(get("/v1/tasks", None), handle).await;
    assert_eq!(refused(&shown), is(401, "E-CLIENT"), "an unbound handle with the scheme of a bound one");
}

#[tokio::test]
async fn t_094_a_handle_with_another_key_is_unknown() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let (client, thief) = (Client::of(&world), Client::of(&world));
    let opened = client.open(&evidence, "deploy").await;
    let handle = text(&opened, "task_control");
    let unknown = world.call(exchange(&handle_of(&format!("dtc_{}", "A".repeat(43))))).await;
    for answer in [world.call(exchange(&handle_of(handle))).await, thief.exchange(&handle_of(handle)).await] {
        assert_eq!(refused(&answer), is(400, "E-HANDLE"));
        assert_eq!(answer.json()["error_description"], unknown.json()["error_description"]);
    }
    let garbage = world.call(proving(exchange(&handle_of(handle)), "e30.e30.e30")).await;
    assert_eq!(refused(&garbage), is(400, "E-DPOP"));
    assert_eq!(client.exchange(&handle_of(handle)).await.status, 200, "and its own key goes on");
}

/// Every route that asks who is calling, as a request without credentials.
fn asking(id: &str) -> Vec<Request<Body>> {
    let asks = |who: Who| !matches!(who, Who::Public | Who::Evidence | Who::Possession | Who::Ops);
    let rows = ROUTES.iter().filter(|row| row.listener == Listener::Broker && asks(row.who));
    let of_kind = |path: &str| match path {
        path if path.starts_with("/v1/leases") => id.replace("tsk_", "lse_"),
        path if path.starts_with("/v1/ledger") => id.replace("tsk_", "evt_"),
        _ => id.to_owned(),
    };
    let requests = rows.map(|row| {
        match (
            row.verb,
            row.path.replace("{id}", &of_kind(row.path)).replace("{name}", "github").replace("{kid}", "k1"),
        ) {
            (Verb::Get, path) => get(&path, None),
            (Verb::Post, path) if path.starts_with("/oauth2/") => form(&path, None, &[("token", "a.b.c")]),
            (Verb::Post, path) if path == "/v1/end" => post_json(&path, None, &json!({ "filter": { "owner": "x" } })),
            (Verb::Post, path) => post_json(&path, None, &json!({})),
            (Verb::Delete, path) => delete(&path.replace("{block}", &id.replace("tsk_", "blk_")), None),
        }
    });
    requests.collect()
}

#[tokio::test]
async fn a_stolen_bound_token_or_handle_is_worth_nothing_at_any_route() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let (client, thief) = (Client::of(&world), Client::of(&world));
    let opened = client.open(&evidence, "watch").await;
    let task = text(&opened, "task_id");
    assert!(asking(task).len() >= 9);
    for secret in [text(&opened, "access_token"), text(&opened, "task_control")] {
        for index in 0..asking(task).len() {
            let request = || asking(task).remove(index);
            let path = request().uri().path().to_owned();
            let bearer = world.call(with_scheme(request(), "Bearer", secret)).await;
            assert_eq!(refused(&bearer), is(401, "E-CLIENT"), "{path}");
            let on_socket = world.call(local(with_scheme(request(), "Bearer", secret))).await;
            assert_eq!(refused(&on_socket), is(401, "E-CLIENT"), "{path}");
            assert_eq!(refused(&thief.shows(request(), secret).await), is(401, "E-CLIENT"), "{path}");
            let proof = thief.proof(request().method().as_str(), &path, Some(secret));
            let mixed = world.call(proving(with_scheme(request(), "Bearer", secret), &proof)).await;
            assert_eq!(refused(&mixed), is(401, "E-CLIENT"), "{path}");
            let alone = world.call(with_scheme(request(), "DPoP", secret)).await;
            assert_eq!(refused(&alone), is(400, "E-DPOP"), "{path}");
            let challenge = alone.head("www-authenticate");
            assert!(
                challenge.starts_with("DPoP error=\"invalid_dpop_proof\"") && challenge.contains("ES256"),
                "{path}"
            );
        }
    }
    let shown = client.shows(get(&format!("/v1/tasks/{task}"), None), text(&opened, "access_token")).await;
    assert_eq!((shown.status, &shown.json()["state"]), (200, &json!("active")), "and nothing of that ended it");
}

#[tokio::test]
async fn a_proof_without_anything_that_it_could_bind_is_refused() {
    let world = world();
    let client = Client::of(&world);
    let request = || proving(get("/v1/tasks", None), &client.proof("GET", "/v1/tasks", None));
    assert_eq!(refused(&world.call(local(request())).await), is(400, "E-DPOP"));
    assert_eq!(refused(&world.call(request()).await), is(400, "E-DPOP"));
    let without = world.call(get("/v1/tasks", None)).await;
    let schemes: Vec<_> =
        without.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect();
    assert!(
        matches!(schemes.as_slice(), [bearer, dpop] if bearer.starts_with("Bearer ") && dpop.starts_with("DPoP algs="))
    );
}

#[tokio::test]
async fn two_proofs_are_refused() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let client = Client::of(&world);
    let [one, other] = [client.proof("POST", TOKEN, None), client.proof("POST", TOKEN, None)];
    let request = || exchange(&evidence_for(&evidence, "deploy"));
    for sent in [proving(proving(request(), &one), &other), proving(proving(request(), &one), &one)] {
        assert_eq!(refused(&world.call(sent).await), is(400, "E-DPOP"));
    }
    assert_eq!(refused(&world.call(proving(request(), &format!("{one}, {other}"))).await), is(400, "E-DPOP"));
}

#[tokio::test]
async fn a_garbage_proof_does_not_use_up_the_evidence() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let (client, other) = (Client::of(&world), Client::of(&world));
    let good = client.proof("POST", TOKEN, None);
    let (message, _) = good.rsplit_once('.').unwrap();
    let foreign = other.proof("POST", TOKEN, None);
    let signature = foreign.rsplit_once('.').unwrap().1;
    for bad in ["", "x", "e30.e30.e30", &evidence, &format!("{message}.{signature}")] {
        let answer = world.call(proving(exchange(&evidence_for(&evidence, "deploy")), bad)).await;
        assert_eq!(refused(&answer), is(400, "E-DPOP"), "{bad}");
    }
    client.open(&evidence, "deploy").await;
    assert_eq!(refused(&client.exchange(&evidence_for(&evidence, "deploy")).await), is(400, "E-REPLAYED"));
}

#[tokio::test]
async fn a_used_proof_is_refused() {
    let mut world = world();
    let evidence = [world.evidence(&Job::shop()), world.evidence(&Job::shop())];
    let client = Client::of(&world);
    let proof = client.proof("POST", TOKEN, None);
    let send = |index: usize| world.call(proving(exchange(&evidence_for(&evidence[index], "deploy")), &proof));
    let opened = send(0).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    for later_s in [0, 1, 59] {
        world.pass_s(later_s);
        let again = send(1).await;
        assert_eq!(refused(&again), is(400, "E-DPOP"), "{later_s}");
    }
    let handle = text(&opened.json(), "task_control").to_owned();
    let path = "/v1/tasks";
    let proof = client.proof("GET", path, Some(&handle));
    let read = || world.call(proving(with_scheme(get(path, None), "DPoP", &handle), &proof));
    assert_eq!(read().await.status, 200);
    assert_eq!(refused(&read().await), is(400, "E-DPOP"));
}

#[tokio::test]
async fn a_proof_for_another_request_or_token_is_refused() {
    let mut world = world();
    let [evidence, other] = [world.evidence(&Job::shop()), world.evidence(&Job::shop())];
    let client = Client::of(&world);
    let (opened, second) = (client.open(&evidence, "watch").await, client.open(&other, "watch").await);
    let (token, path) = (text(&opened, "access_token"), "/v1/tasks");
    let proofs = [
        client.proof("POST", path, Some(token)),
        client.proof("GET", "/v1/leases", Some(token)),
        client.proof("GET", path, Some(text(&second, "access_token"))),
        client.proof("GET", path, None),
        client.proof("GET", "/v1/tasks/", Some(token)),
    ];
    for proof in proofs {
        let answer = world.call(proving(with_scheme(get(path, None), "DPoP", token), &proof)).await;
        assert_eq!(refused(&answer), is(400, "E-DPOP"));
    }
    assert_eq!(client.shows(get("/v1/tasks?limit=1", None), token).await.status, 200, "a query does not count");
}

#[tokio::test]
async fn a_proof_is_held_against_the_issuer_and_never_the_host() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let client = Client::of(&world);
    let sent = |url: &str, host: &str| {
        let proof = client.proof_with("POST", url, None, None, &jti());
        let mut request = proving(exchange(&evidence_for(&evidence, "deploy")), &proof);
        request.headers_mut().insert("host", host.parse().unwrap());
        request.headers_mut().insert("x-forwarded-host", host.parse().unwrap());
        world.call(request)
    };
    let evil = sent("https://evil.example.org/oauth2/token", "evil.example.org").await;
    assert_eq!(refused(&evil), is(400, "E-DPOP"));
    let behind_a_proxy = sent(&format!("{ISSUER}{TOKEN}"), "10.0.0.7:8443").await;
    assert_eq!(behind_a_proxy.status, 200, "{}", behind_a_proxy.text);
}

#[tokio::test]
async fn a_proof_too_far_from_now_is_refused() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let client = Client::of(&world);
    let proof = client.proof("POST", TOKEN, None);
    world.pass_s(61);
    let answer = world.call(proving(exchange(&evidence_for(&evidence, "deploy")), &proof)).await;
    assert_eq!(refused(&answer), is(400, "E-DPOP"));
}

#[tokio::test]
async fn a_proof_of_before_a_restart_needs_a_nonce_of_the_new_process() {
    let mut world = World::on_file();
    world.pass_s(10);
    let evidence = [world.evidence(&Job::shop()), world.evidence(&Job::shop())];
    let (key, used) = {
        let client = Client::of(&world);
        let proof = client.proof("POST", TOKEN, None);
        let sent = world.call(proving(exchange(&evidence_for(&evidence[0], "deploy")), &proof)).await;
        assert_eq!(sent.status, 200, "{}", sent.text);
        (client.key, proof)
    };
    world.restart().await;
    let send = |proof: &str| world.call(proving(exchange(&evidence_for(&evidence[1], "deploy")), proof));
    let replayed = send(&used).await;
    assert_eq!(refused(&replayed), is(400, "E-DPOP-NONCE"));
    assert_eq!(replayed.json()["error"], "use_dpop_nonce");
    let nonce = replayed.head("dpop-nonce").to_owned();
    assert_eq!(nonce.len(), 43);
    let client = Client { world: &world, key };
    let with = |nonce| client.proof_with("POST", &format!("{ISSUER}{TOKEN}"), None, Some(nonce), &jti());
    let small = nonce.to_lowercase();
    for wrong in ["x", &small] {
        let answer = send(&with(wrong)).await;
        assert_eq!(refused(&answer), is(400, "E-DPOP-NONCE"), "{wrong}");
        assert_eq!(answer.head("dpop-nonce"), nonce);
    }
    assert_eq!(send(&with(&nonce)).await.status, 200, "the evidence was not used up by all that");
}

#[tokio::test]
async fn a_caller_too_is_told_the_nonce() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let client = Client::of(&world);
    let opened = client.open(&evidence, "watch").await;
    let (token, url) = (text(&opened, "access_token"), format!("{ISSUER}/v1/tasks"));
    let proof = client.proof_with("GET", &url, Some(token), Some("old"), &jti());
    let answer = world.call(proving(with_scheme(get("/v1/tasks", None), "DPoP", token), &proof)).await;
    assert_eq!(refused(&answer), is(400, "E-DPOP-NONCE"));
    assert!(answer.head("www-authenticate").starts_with("DPoP error=\"use_dpop_nonce\""));
    let nonce = answer.head("dpop-nonce").to_owned();
    let proof = client.proof_with("GET", &url, Some(token), Some(&nonce), &jti());
    let again = world.call(proving(with_scheme(get("/v1/tasks", None), "DPoP", token), &proof)).await;
    assert_eq!(again.status, 200, "{}", again.text);
}

#[tokio::test]
async fn of_256_uses_of_one_proof_at_once_one_succeeds() {
    let mut world = world();
    let evidence: Vec<_> = (0..256).map(|run| world.evidence(&Job::shop().run(&run.to_string()))).collect();
    let client = Client::of(&world);
    let proof = client.proof("POST", TOKEN, None);
    let mut all = tokio::task::JoinSet::new();
    for evidence in &evidence {
        let request = proving(exchange(&evidence_for(evidence, "deploy")), &proof);
        let door = world.door();
        all.spawn(async move { tower::ServiceExt::oneshot(door, request).await.unwrap().status().as_u16() });
    }
    let statuses = all.join_all().await;
    let of = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((of(200), of(400)), (1, 255));
}

#[tokio::test]
async fn a_leaked_bound_token_is_ended_without_its_key() {
    let mut world = world();
    let evidence: Vec<_> = (0..3).map(|_| world.evidence(&Job::shop())).collect();
    let (client, finder) = (Client::of(&world), Client::of(&world));
    let revoke = |token: &str| form("/oauth2/revoke", None, &[("token", token)]);
    let active = async |token: &str| {
        let asked = world.call(local(form("/oauth2/introspect", None, &[("token", token)]))).await;
        asked.json()["active"] == json!(true)
    };
    let mut tokens = Vec::new();
    for evidence in &evidence {
        tokens.push(text(&client.open(evidence, "deploy").await, "access_token").to_owned());
    }
    let bad = world.call(proving(revoke(&tokens[0]), "e30.e30.e30")).await;
    assert_eq!(refused(&bad), is(400, "E-DPOP"), "a proof that is sent is not ignored");
    assert!(active(&tokens[0]).await);
    let proofs = [None, Some(&client), Some(&finder)];
    for (token, by) in tokens.iter().zip(proofs) {
        let request = match by {
            Some(client) => proving(revoke(token), &client.proof("POST", "/oauth2/revoke", None)),
            None => revoke(token),
        };
        assert_eq!(world.call(request).await.status, 200);
        assert!(!active(token).await);
    }
}

#[tokio::test]
async fn a_bearer_secret_with_a_good_proof_stays_what_it_is() {
    let mut world = world();
    let evidence = world.evidence(&Job::shop());
    let opened = world.call(exchange(&evidence_for(&evidence, "watch"))).await.json();
    let (token, client) = (text(&opened, "access_token"), Client::of(&world));
    let sent = |proof: &str| world.call(proving(get("/v1/tasks", Some(token)), proof));
    assert_eq!(sent(&client.proof("GET", "/v1/tasks", Some(token))).await.status, 200);
    assert_eq!(refused(&sent("e30.e30.e30").await), is(400, "E-DPOP"));
    assert_eq!(refused(&sent(&client.proof("GET", "/v1/tasks", None)).await), is(400, "E-DPOP"));
    assert_eq!(world.call(get("/v1/tasks", Some(token))).await.status, 200);
    assert_eq!(refused(&client.shows(get("/v1/tasks", None), token).await), is(401, "E-CLIENT"));
}

#[tokio::test]
async fn what_was_proven_is_on_the_record_and_survives_a_restart() {
    let mut world = World::on_file();
    world.pass_s(10);
    let evidence = world.evidence(&Job::shop());
    let (key, opened) = {
        let client = Client::of(&world);
        let opened = client.open(&evidence, "watch").await;
        (client.key, opened)
    };
    world.restart().await;
    world.pass_s(10);
    let client = Client { world: &world, key };
    let token = text(&opened, "access_token");
    assert_eq!(refused(&world.call(get("/v1/tasks", Some(token))).await), is(401, "E-CLIENT"));
    assert_eq!(client.shows(get("/v1/tasks", None), token).await.status, 200);
    let mut told = Vec::new();
    let each = |row: EventRow| {
        let body: Value = serde_json::from_slice(&row.body).unwrap();
        told.extend(body.get("jkt").map(|jkt| (body["type"].clone(), jkt.clone(), body["context"]["binding"].clone())));
        ControlFlow::Continue(())
    };
    world.reader.snapshot(|snapshot| snapshot.each_event(0, each)).unwrap().unwrap();
    let [jkt, dpop] = [json!(client.key.kid()), json!("dpop")];
    let expected = ["task_opened", "issued"].map(|kind| (json!(kind), jkt.clone(), dpop.clone()));
    assert_eq!(told, expected);
    assert_eq!(world.verify().problems, Vec::<String>::new());
    world.sql("UPDATE lease SET thumbprint = NULL");
    assert_eq!(world.verify().problems.len(), 1, "an unbound lease is not what was recorded");
}

#[tokio::test]
async fn the_metadata_promises_what_is_verified() {
    let world = world();
    let metadata = world.call(get("/.well-known/oauth-authorization-server", None)).await.json();
    let promised = json!(algorithms().collect::<Vec<_>>());
    assert_eq!(metadata["dpop_signing_alg_values_supported"], promised);
}
