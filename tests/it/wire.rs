//! The wire: the same stories through the HTTP door, as clients see them.

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::world::{
    Answer, ISSUER, Job, SHOP_URI, START, World, client_handle, form, get, handle, lease, local, post_json, sha256,
    token,
};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const CONTROL: &str = "urn:dayfly:token-type:task-control";

/// A token exchange with these fields beside `grant_type`.
fn exchange(fields: &[(&str, &str)]) -> Request<Body> {
    let fields: Vec<_> = [("grant_type", EXCHANGE)].into_iter().chain(fields.iter().copied()).collect();
    form("/oauth2/token", None, &fields)
}

async fn opened(world: &mut World, job: &Job, template: &str) -> Value {
    let evidence = world.evidence(job);
    let fields = [("subject_token", &*evidence), ("subject_token_type", JWT), ("scope", template)];
    let answer = world.call(exchange(&fields)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.head("cache-control"), "no-store");
    answer.json()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// An OAuth refusal: status, error, reason; never the secret that was sent.
fn refused(answer: &Answer) -> (u16, String, String) {
    let body = answer.json();
    assert!(!text(&body["request_id"]).is_empty());
    assert!(!answer.text.contains("eyJ") && !answer.text.contains("dtc_"), "{}", answer.text);
    (answer.status, text(&body["error"]).to_owned(), text(&body["reason"]).to_owned())
}

fn as_texts(expected: (u16, &str, &str)) -> (u16, String, String) {
    (expected.0, expected.1.to_owned(), expected.2.to_owned())
}

#[tokio::test]
async fn a_job_from_its_token_to_its_end_over_http() {
    let mut world = World::new();
    let answer = opened(&mut world, &Job::shop().run("1"), "deploy").await;
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_eq!(answer["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(
        (&answer["expires_at"], &answer["task_deadline"]),
        (&json!("2027-01-15T08:15:00Z"), &json!("2027-01-15T09:00:00Z"))
    );
    assert_eq!(answer["revocation"], json!([{ "channel": "introspection", "usual_s": 10, "bound_s": 40 }]));
    let detail = json!([{ "type": "dayfly_task", "template": "deploy", "locations": [SHOP_URI],
        "actions": ["deploy:create", "deploy:status"], "purpose": "release the shop" }]);
    assert_eq!(answer["authorization_details"], detail);
    assert!(answer.get("refresh_token").is_none());
    let (access, control, task) =
        (text(&answer["access_token"]), text(&answer["task_control"]), text(&answer["task_id"]));
    let introspect = || local(form("/oauth2/introspect", None, &[("token", access)]));
    let introspected = world.call(introspect()).await.json();
    assert_eq!((&introspected["active"], &introspected["task_id"]), (&json!(true), &json!(task)));
    assert_eq!((&introspected["jti"], &introspected["aud"]), (&answer["lease_id"], &json!(SHOP_URI)));
    let path = format!("/v1/tasks/{task}");
    let read = world.call(get(&path, Some(control))).await;
    assert_eq!((read.status, &read.json()["leases"]), (200, &json!({ "active": 1, "ended": 0 })));
    let end = || post_json(&format!("{path}/end"), Some(control), &json!({ "reason": "done" }));
    let ended = world.call(end()).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    let expected = json!({ "id": task, "state": "ended", "cause": "completed", "ended_at": START, "leases_ended": 1,
        "revocation": [{ "channel": "introspection", "known": true, "worst_case_at": START.plus_s(40) }] });
    assert_eq!(ended.json(), expected);
    assert_eq!(world.call(end()).await.json(), expected, "twice");
    assert_eq!(world.call(introspect()).await.text, "{\"active\":false}");
    let shown = world.call(get(&path, Some(control))).await.json();
    assert_eq!(
        (&shown["state"], &shown["reason"], &shown["ended_by"]),
        (&json!("ended"), &json!("done"), &json!("handle"))
    );
}

#[tokio::test]
async fn renewal_over_http_with_a_handle_of_the_clients() {
    let mut world = World::new();
    let (mine, _) = client_handle(1);
    let hash = URL_SAFE_NO_PAD.encode(sha256(mine.as_bytes()));
    let evidence = world.evidence(&Job::shop());
    let open = [
        ("subject_token", &*evidence),
        ("subject_token_type", JWT),
        ("scope", "deploy"),
        ("task_control_s256", &*hash),
    ];
    let first = world.call(exchange(&open)).await.json();
    assert!(first.get("task_control").is_none());
    let feed = [("subject_token", &*mine), ("subject_token_type", CONTROL), ("supersede", "0")];
    let second = world.call(exchange(&feed)).await.json();
    assert_eq!(first["task_id"], second["task_id"]);
    for (token, active) in [(&first, false), (&second, true)] {
        let request = local(form("/oauth2/introspect", None, &[("token", text(&token["access_token"]))]));
        assert_eq!(world.call(request).await.json()["active"], active);
    }
    let replay = world.call(exchange(&open)).await;
    assert_eq!(refused(&replay), as_texts((400, "invalid_request", "E-REPLAYED")));
    assert!(text(&replay.json()["decision_id"]).starts_with("evt_"));
}

#[tokio::test]
async fn refusals_of_an_exchange_have_their_oauth_errors() {
    let mut world = World::new();
    let (evidence, used) = (world.evidence(&Job::shop()), world.evidence(&Job::shop()));
    let stranger = world.evidence(&Job::shop().with("org", "evil"));
    let (unknown, _) = client_handle(9);
    let control = handle(&world.present(&used, crate::world::ask("deploy")).await.unwrap());
    let details = r#"[{"type":"dayfly_task","template":"deploy","actions":["deploy:undo"]}]"#;
    let no_template = r#"[{"type":"dayfly_task","template":"nothing"}]"#;
    let ticket = r#"[{"type":"dayfly_task","template":"deploy","ticket":"OPS-1"}]"#;
    let jwt = ("subject_token_type", JWT);
    let own = ("subject_token_type", CONTROL);
    for (fields, expected) in [
        (vec![("subject_token", &*evidence), jwt], (400, "invalid_request", "E-REQUEST")),
        (vec![("subject_token", "x"), jwt, ("scope", "deploy")], (400, "invalid_request", "E-SIGNATURE")),
        (vec![("subject_token", &*stranger), jwt, ("scope", "deploy")], (400, "invalid_request", "E-STRANGER")),
        (vec![("subject_token", &*used), jwt, ("scope", "deploy")], (400, "invalid_request", "E-REPLAYED")),
        (vec![("subject_token", &*evidence), jwt, ("scope", "pay")], (400, "invalid_scope", "E-NOMATCH")),
        (vec![("subject_token", &*evidence), jwt, ("scope", "ship")], (400, "invalid_target", "E-TARGET")),
        (
            vec![("subject_token", &*evidence), jwt, ("authorization_details", details)],
            (400, "invalid_authorization_details", "E-DETAILS"),
        ),
        (
            vec![("subject_token", &*evidence), jwt, ("authorization_details", no_template)],
            (400, "invalid_authorization_details", "E-NOMATCH"),
        ),
        (vec![("subject_token", &*unknown), own], (400, "invalid_request", "E-HANDLE")),
        (vec![("subject_token", &*control), own, ("scope", "ship")], (400, "invalid_scope", "E-TEMPLATE")),
        (
            vec![("subject_token", &*control), own, ("authorization_details", ticket)],
            (400, "invalid_authorization_details", "E-TICKET"),
        ),
        (vec![("subject_token", &*control), own, ("supersede", "61")], (400, "invalid_request", "E-REQUEST")),
    ] {
        let answer = world.call(exchange(&fields)).await;
        assert_eq!(refused(&answer), as_texts(expected), "{fields:?}");
    }
    let other = form("/oauth2/token", None, &[("grant_type", "client_credentials")]);
    assert_eq!(refused(&world.call(other).await), as_texts((400, "unsupported_grant_type", "E-GRANT-TYPE")));
    let fields = [("subject_token", &*evidence), jwt, ("scope", "deploy")];
    assert_eq!(world.call(exchange(&fields)).await.status, 200, "nothing of that used the evidence up");
}

#[tokio::test]
async fn a_dpop_proof_is_refused_not_ignored() {
    let mut world = World::new();
    let evidence = world.evidence(&Job::shop());
    let fields = [("subject_token", &*evidence), ("subject_token_type", JWT), ("scope", "deploy")];
    let mut request = exchange(&fields);
    request.headers_mut().insert("dpop", "e30.e30.e30".parse().unwrap());
    assert_eq!(refused(&world.call(request).await), as_texts((400, "invalid_dpop_proof", "E-DPOP")));
    assert_eq!(world.call(exchange(&fields)).await.status, 200);
}

#[tokio::test]
async fn a_task_without_a_credential_over_http() {
    let mut world = World::new();
    let evidence = world.evidence(&Job::shop());
    let fields = [
        ("subject_token", &*evidence),
        ("subject_token_type", JWT),
        ("scope", "deploy"),
        ("requested_token_type", CONTROL),
    ];
    let answer = world.call(exchange(&fields)).await.json();
    assert_eq!((&answer["token_type"], &answer["access_token"]), (&json!("N_A"), &answer["task_id"]));
    assert_eq!(answer["issued_token_type"], CONTROL);
    assert!(answer.get("lease_id").is_none() && answer.get("expires_in").is_none());
    assert!(text(&answer["task_control"]).starts_with("dtc_"));
}

#[tokio::test]
async fn introspection_needs_the_right_to_it() {
    let mut world = World::new();
    let shop = opened(&mut world, &Job::shop().run("1"), "deploy").await;
    let pay = opened(&mut world, &Job::pay(), "pay").await;
    let (watch, glance) =
        (opened(&mut world, &Job::shop(), "watch").await, opened(&mut world, &Job::shop(), "glance").await);
    let asked = text(&shop["access_token"]).to_owned();
    let introspect = |bearer: Option<&str>, token: &str| form("/oauth2/introspect", bearer, &[("token", token)]);
    let nobody = world.call(introspect(None, &asked)).await;
    assert_eq!(refused(&nobody), as_texts((401, "invalid_client", "E-CLIENT")));
    assert!(!nobody.head("www-authenticate").is_empty());
    for (bearer, expected) in [
        (&shop["access_token"], (401, "invalid_client", "E-CLIENT")),
        (&glance["access_token"], (403, "insufficient_scope", "E-SCOPE")),
        (&shop["task_control"], (403, "insufficient_scope", "E-SCOPE")),
    ] {
        let answer = world.call(introspect(Some(text(bearer)), &asked)).await;
        assert_eq!(refused(&answer), as_texts(expected));
    }
    let watcher = Some(text(&watch["access_token"]));
    assert_eq!(world.call(introspect(watcher, &asked)).await.json()["active"], true);
    for hidden in [text(&pay["access_token"]), "garbage", text(&shop["task_control"])] {
        let answer = world.call(introspect(watcher, hidden)).await;
        assert_eq!((answer.status, &*answer.text), (200, "{\"active\":false}"));
    }
    let garbled = local(introspect(Some("garbled"), &asked));
    assert_eq!(world.call(garbled).await.status, 401, "a bad secret never falls back to the socket");
}

#[tokio::test]
async fn revocation_by_possession_over_http() {
    let mut world = World::new();
    let shop = opened(&mut world, &Job::shop(), "deploy").await;
    for token in [text(&shop["access_token"]), text(&shop["access_token"]), "unknown"] {
        let answer = world.call(form("/oauth2/revoke", None, &[("token", token)])).await;
        assert_eq!((answer.status, &*answer.text), (200, ""));
    }
    let view =
        world.call(get(&format!("/v1/leases/{}", text(&shop["lease_id"])), Some(text(&shop["task_control"])))).await;
    assert_eq!((&view.json()["state"], &view.json()["cause"]), (&json!("ended"), &json!("presented")));
}

#[tokio::test]
async fn v1_says_who_may_not_and_hides_what_is_not_theirs() {
    let mut world = World::new();
    let (mine, theirs) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    let glance = token(&world.open(&Job::shop(), "glance").await);
    let (task, other) = (format!("/v1/tasks/{}", mine.task), format!("/v1/tasks/{}", theirs.task));
    let unknown = "/v1/tasks/tsk_00000000000000000000000001".to_owned();
    let end = |path: &str| format!("{path}/end");
    let own = handle(&mine);
    for (request, status, code) in [
        (get(&task, None), 401, "E-CLIENT"),
        (get(&task, Some("nonsense")), 401, "E-CLIENT"),
        (get(&other, Some(&glance)), 404, "E-NOT-FOUND"),
        (get(&unknown, Some(&glance)), 404, "E-NOT-FOUND"),
        (get(&other, Some(&own)), 404, "E-NOT-FOUND"),
        (get(&format!("/v1/leases/{}", lease(&mine)), Some(&glance)), 403, "E-SCOPE"),
        (get("/v1/ledger", Some(&own)), 403, "E-SCOPE"),
        (post_json(&end(&task), Some(&glance), &json!({})), 403, "E-SCOPE"),
        (post_json(&end(&task), Some(&own), &json!({ "block": true })), 403, "E-SCOPE"),
        (post_json(&end(&other), Some(&own), &json!({})), 404, "E-NOT-FOUND"),
        (post_json(&end(&task), Some(&own), &json!({ "blok": true })), 422, "E-INVALID"),
        (get("/v1/tasks?cursor=AAAA", Some(&own)), 400, "E-REQUEST"),
        (get(&format!("/v1/tasks?cursor={}", "A".repeat(48)), Some(&own)), 410, "E-CURSOR"),
        (get("/v1/tasks?limit=0", Some(&own)), 422, "E-INVALID"),
    ] {
        let path = request.uri().to_string();
        let answer = world.call(request).await;
        let body = answer.json();
        assert_eq!((answer.status, text(&body["reason"])), (status, code), "{path}");
        assert_eq!(text(&body["type"]), format!("{ISSUER}/problems/{}", code.to_lowercase()));
        assert_eq!(
            (answer.head("content-type"), answer.head("cache-control")),
            ("application/problem+json", "no-store")
        );
        assert_eq!(answer.head("www-authenticate").is_empty(), ![401, 403].contains(&status), "{path}");
    }
    assert!(world.active(&token(&mine)).await && world.active(&token(&theirs)).await);
}

#[tokio::test]
async fn t_110_unknown_and_hidden_have_the_same_body() {
    let mut world = World::new();
    let (theirs, watch) = (world.open(&Job::pay(), "pay").await, world.open(&Job::shop(), "watch").await);
    let bearer = token(&watch);
    let mut bodies = Vec::new();
    for path in [
        format!("/v1/tasks/{}", theirs.task),
        "/v1/tasks/tsk_00000000000000000000000001".into(),
        "/v1/tasks/no-id".into(),
        format!("/v1/leases/{}", lease(&theirs)),
        "/v1/ledger/evt_00000000000000000000000001".into(),
    ] {
        let mut request = get(&path, Some(&bearer));
        request.headers_mut().insert("x-request-id", "same".parse().unwrap());
        let answer = world.call(request).await;
        bodies.push((answer.status, answer.text));
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
}

#[tokio::test]
async fn lists_page_and_filter_over_http() {
    let mut world = World::new();
    for run in ["1", "2", "3"] {
        world.open(&Job::shop().run(run), "deploy").await;
    }
    let list = async |path: &str| {
        let answer = world.call(local(get(path, None))).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json()
    };
    let page = list("/v1/tasks?limit=2&state=active").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    let rest = list(&format!("/v1/tasks?limit=2&state=active&cursor={}", text(&page["next_cursor"]))).await;
    assert_eq!((rest["items"].as_array().unwrap().len(), rest.get("next_cursor")), (1, None));
    let one = text(&rest["items"][0]["id"]).to_owned();
    assert_eq!(list(&format!("/v1/tasks?task={one}")).await["items"].as_array().unwrap().len(), 1);
    let leases = list(&format!("/v1/leases?task={one}&kind=jwt&target=shop")).await;
    let shown = &leases["items"][0];
    assert_eq!(
        (&shown["task"], &shown["state"], &shown["row"]),
        (&json!(one), &json!("active"), &json!("shop-deploys"))
    );
    let events = list(&format!("/v1/ledger?task={one}")).await;
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|event| text(&event["type"])).collect();
    assert_eq!(kinds, ["issued", "task_opened"]);
    let event = list(&format!("/v1/ledger/{}", text(&events["items"][1]["id"]))).await;
    assert_eq!(event["workload"], "ci/shop");
}

#[tokio::test]
async fn an_end_that_is_not_on_disk_says_that_it_is_in_force() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    world.sql("ALTER TABLE event RENAME TO event_gone");
    let path = format!("/v1/tasks/{}/end", issued.task);
    let answer = world.call(post_json(&path, Some(&handle(&issued)), &json!({}))).await;
    let body = answer.json();
    assert_eq!((answer.status, text(&body["reason"]), &body["effective"]), (503, "E-NOT-DURABLE", &json!(true)));
    assert!(!answer.head("retry-after").is_empty());
    let evidence = world.evidence(&Job::shop());
    let fields = [("subject_token", &*evidence), ("subject_token_type", JWT), ("scope", "deploy")];
    let refusal = world.call(exchange(&fields)).await;
    assert_eq!(refused(&refusal), as_texts((503, "temporarily_unavailable", "E-STORE")));
    assert!(!refusal.head("retry-after").is_empty());
}

#[tokio::test]
async fn the_public_documents_are_public() {
    let world = World::new();
    let keys = world.call(get("/oauth2/jwks", None)).await.json();
    for key in keys["keys"].as_array().unwrap() {
        assert_eq!((&key["use"], &key["alg"], key.get("d")), (&json!("sig"), &json!("ES256"), None));
    }
    let metadata = world.call(get("/.well-known/oauth-authorization-server", None)).await.json();
    assert_eq!(
        (&metadata["issuer"], &metadata["token_endpoint"]),
        (&json!(ISSUER), &json!(format!("{ISSUER}/oauth2/token")))
    );
}
