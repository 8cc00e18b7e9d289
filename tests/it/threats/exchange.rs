//! Section E: an exchange gives what was asked, granted and permitted, to whom it belongs.

use serde_json::{Value, json};

use super::{
    forge::{b64, claims},
    stand::{
        CANARY, CONTROL, EXCHANGE, ID_TOKEN, JWT, REQUEST, SIGNATURE, Said, Stand, bundle, evidence, exchange, refusal,
    },
};
use crate::world::{
    CI, ISSUER, Job, SHOP_URI, STOCK_URI, client_handle, form, get, local, post_json, raw_form, sha256,
};

const NO_MATCH: Said = (400, "invalid_scope", "E-NOMATCH");
const TARGET: Said = (400, "invalid_target", "E-TARGET");
const DETAILS: Said = (400, "invalid_authorization_details", "E-DETAILS");
const OWN: Said = (400, "invalid_request", "E-OWN");
const HANDLE: Said = (400, "invalid_request", "E-HANDLE");
const ENDED: Said = (400, "invalid_request", "E-ENDED");
const REPLAYED: Said = (400, "invalid_request", "E-REPLAYED");

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {value}"))
}

/// Opens a task over HTTP.
async fn opened(stand: &mut Stand, job: &Job, template: &str) -> Value {
    let token = stand.evidence(job);
    let answer = stand.exchange(&evidence(&token, template)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

async fn fed(stand: &Stand, handle: &str) -> crate::world::Answer {
    stand.exchange(&[("subject_token", handle), ("subject_token_type", CONTROL)]).await
}

async fn active(stand: &Stand, token: &str) -> bool {
    let answer = stand.world.call(local(form("/oauth2/introspect", None, &[("token", token)]))).await;
    answer.json()["active"] == true
}

/// What a token of ours says.
fn said(token: &str) -> Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test]
async fn t_074_without_one_subject_token_nobody_else_is_meant() {
    let mut stand = Stand::new();
    let watch = opened(&mut stand, &Job::shop(), "watch").await;
    let caller = text(&watch, "access_token").to_owned();
    let token = stand.evidence(&Job::shop());
    let before = stand.tally().await;
    let rest = format!("grant_type={EXCHANGE}&subject_token_type={JWT}&scope=deploy");
    for (query, body) in [
        ("", rest.clone()),
        ("", format!("{rest}&subject_token=")),
        ("", format!("{rest}&subject_token")),
        ("", format!("{rest}&subject_token=%20%09")),
        ("", format!("{rest}&subject_token=+")),
        ("", format!("{rest}&subject_token={token}&subject_token={token}")),
        ("", format!("{rest}&subject_token={token}&subject_token=")),
        ("", format!("{rest}&subject_token=&subject_token={token}")),
        ("", format!("{rest}&subject_token={token}&subject%5Ftoken={token}")),
        ("", format!("{rest}&Subject_Token={token}")),
        ("", format!("{rest}&subject_token[]={token}")),
        ("", format!("{rest}&access_token={caller}")),
        (&*format!("?subject_token={token}"), rest.clone()),
        (&*format!("?{rest}&subject_token={token}"), String::new()),
        ("?scope=deploy", format!("{rest}&subject_token={token}")),
    ] {
        for bearer in [None, Some(&*caller)] {
            let path = format!("/oauth2/token{query}");
            refusal(&stand.world.call(raw_form(&path, bearer, &body)).await, REQUEST, &body);
            refusal(&stand.world.call(local(raw_form(&path, bearer, &body))).await, REQUEST, &body);
        }
    }
    assert_eq!(stand.tally().await, before, "neither the caller's rights nor the socket's stood in");
    stand.opens(&token).await;
}

#[tokio::test]
async fn t_076_a_target_is_the_one_asked_or_none() {
    let mut stand = Stand::new();
    let token = stand.evidence(&Job::shop());
    let asked = |name, uri| {
        let fields = [("subject_token", &*token), ("subject_token_type", JWT), ("scope", "ship"), (name, uri)];
        exchange(&fields)
    };
    let foreign = [
        "https://pay.example.org",
        "https://nowhere.example.org",
        "https://shop.example.org/",
        "https://SHOP.example.org",
        "https://shop.example.org:443",
        "shop",
        "*",
        "https://broker.example.org/v1",
        ISSUER,
    ];
    for uri in foreign {
        stand.denied(TARGET, ["resource", "audience"].map(|name| asked(name, uri))).await;
    }
    stand.denied(TARGET, [exchange(&evidence(&token, "ship"))]).await;
    let both = [
        ("subject_token", &*token),
        ("subject_token_type", JWT),
        ("scope", "ship"),
        ("resource", SHOP_URI),
        ("audience", STOCK_URI),
    ];
    refusal(&stand.exchange(&both).await, REQUEST, "two audiences");
    for uri in [SHOP_URI, STOCK_URI] {
        let token = stand.evidence(&Job::shop());
        let fields = [("subject_token", &*token), ("subject_token_type", JWT), ("scope", "ship"), ("audience", uri)];
        let answer = stand.exchange(&fields).await.json();
        assert_eq!(said(text(&answer, "access_token"))["aud"], uri);
        assert_eq!(answer["authorization_details"][0]["locations"], json!([uri]));
    }
}

#[tokio::test]
async fn t_077_what_was_issued_to_another_is_no_evidence() {
    let mut stand = Stand::new();
    let audiences = [SHOP_URI, "https://broker.example.org/v1", "https://other.example.org", CI];
    let tokens = audiences.map(|aud| (aud.to_owned(), stand.forge.claims(json!({ "aud": aud }))));
    stand.all_refused(super::stand::AUDIENCE, tokens).await;
    let (deploy, watch) =
        (opened(&mut stand, &Job::shop(), "deploy").await, opened(&mut stand, &Job::shop(), "watch").await);
    let before = stand.tally().await;
    for ours in [text(&deploy, "access_token"), text(&watch, "access_token")] {
        for (kind, said) in [
            (JWT, OWN),
            (ID_TOKEN, OWN),
            (CONTROL, HANDLE),
            ("urn:ietf:params:oauth:token-type:access_token", REQUEST),
            ("urn:ietf:params:oauth:token-type:refresh_token", REQUEST),
            ("urn:ietf:params:oauth:token-type:saml2", REQUEST),
        ] {
            let fields = [("subject_token", ours), ("subject_token_type", kind), ("scope", "deploy")];
            refusal(&stand.exchange(&fields).await, said, kind);
        }
    }
    let forged = claims_as_ours();
    for token in [
        stand.forge.claims(forged.clone()),
        stand.forge.signed("ES256", r#"{"alg":"ES256","typ":"at+jwt","kid":"e"}"#, forged.to_string()),
    ] {
        refusal(&stand.present(&token).await, OWN, "our own name in a stranger's mouth");
    }
    assert_eq!(stand.tally().await, before);
}

fn claims_as_ours() -> Value {
    super::forge::with(claims(), json!({ "iss": ISSUER }))
}

#[tokio::test]
async fn t_078_a_workload_of_one_owner_is_none_of_another() {
    let mut stand = Stand::new();
    let (shop, pay) = (stand.evidence(&Job::shop()), stand.evidence(&Job::pay()));
    let asks = [(&shop, "pay"), (&shop, "pay-watch"), (&pay, "deploy"), (&pay, "watch"), (&pay, "glance")];
    stand.denied(NO_MATCH, asks.map(|(token, template)| exchange(&evidence(token, template)))).await;
}

#[tokio::test]
async fn t_079_a_revoked_parent_gives_nothing() {
    let mut stand = Stand::new();
    let task = opened(&mut stand, &Job::shop(), "deploy").await;
    let handle = text(&task, "task_control");
    let second = fed(&stand, handle).await.json();
    let end = post_json(&format!("/v1/tasks/{}/end", text(&task, "task_id")), None, &json!({}));
    assert_eq!(stand.world.call(local(end)).await.status, 200);
    let before = stand.tally().await;
    refusal(&fed(&stand, handle).await, ENDED, "by its handle");
    for token in [text(&task, "access_token"), text(&second, "access_token")] {
        assert!(!active(&stand, token).await);
        let fields = [("subject_token", token), ("subject_token_type", JWT), ("scope", "deploy")];
        refusal(&stand.exchange(&fields).await, OWN, "by its token");
    }
    assert_eq!(stand.tally().await, before);
}

/// Whatever disables the way by which a task came, at the swap, for every use of it.
#[tokio::test]
async fn t_080_disabled_is_disabled_everywhere() {
    let rows: [(&str, Said, Said); 5] = [
        ("[owner.team-shop]", super::stand::ISSUER_UNKNOWN, ENDED),
        ("[issuer.ci]", super::stand::ISSUER_UNKNOWN, ENDED),
        ("[task.deploy]", NO_MATCH, ENDED),
        ("[[task.deploy.allow]]\nid     = \"shop-deploys\"", NO_MATCH, ENDED),
        ("[target.shop]", TARGET, TARGET),
    ];
    for (head, by_evidence, by_handle) in rows {
        let mut stand = Stand::new();
        let task = opened(&mut stand, &Job::shop().run("1"), "deploy").await;
        let watch = opened(&mut stand, &Job::shop(), "watch").await;
        let token = stand.evidence(&Job::shop().run("2"));
        stand.world.bundle.edit(head, &format!("{head}\ndisabled = true"));
        stand.world.flow.load_bundle("test").await.unwrap();
        let before = stand.tally().await;
        refusal(&stand.present(&token).await, by_evidence, head);
        refusal(&fed(&stand, text(&task, "task_control")).await, by_handle, head);
        assert!(!active(&stand, text(&task, "access_token")).await, "{head}");
        let path = format!("/v1/tasks/{}", text(&task, "task_id"));
        let own = stand.world.call(get(&path, Some(text(&task, "task_control")))).await.json();
        let lease = format!("/v1/leases/{}", text(&task, "lease_id"));
        let leased = stand.world.call(get(&lease, Some(text(&task, "task_control")))).await.json();
        assert_eq!((&leased["state"], &leased["cause"]), (&json!("ended"), &json!("policy")), "{head}");
        let alive = head == "[target.shop]";
        assert_eq!(own["state"], if alive { "active" } else { "ended" }, "{head}");
        let watched = stand.world.call(get(&path, Some(text(&watch, "access_token")))).await.status;
        let gone = head.starts_with("[owner") || head.starts_with("[issuer");
        assert_eq!(watched, if gone { 401 } else { 200 }, "{head}: a token of the same owner");
        let introspect = form("/oauth2/introspect", Some(text(&watch, "access_token")), &[("token", "x")]);
        assert_eq!(stand.world.call(introspect).await.status, if gone { 401 } else { 200 }, "{head}");
        let after = stand.tally().await;
        assert_eq!((after.tasks, after.leases), (before.tasks, before.leases), "{head}");
    }
}

#[tokio::test]
async fn t_081_of_64_requests_at_once_exactly_one_opens() {
    let mut stand = Stand::new();
    let token = stand.evidence(&Job::shop());
    let before = stand.tally().await;
    let door = stand.world.door();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (door, request) = (door.clone(), exchange(&evidence(&token, "deploy")));
        asking.spawn(async move { tower::ServiceExt::oneshot(door, request).await.unwrap().status().as_u16() });
    }
    let mut statuses = asking.join_all().await;
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, &[400; 63][..]));
    let after = stand.tally().await;
    assert_eq!((after.tasks, after.leases), (before.tasks + 1, before.leases + 1));
    refusal(&stand.present(&token).await, REPLAYED, "and serially");
}

/// `ship` has rows for `ci` only.
fn asks_for_ship(token: &str) -> Vec<axum::http::Request<axum::body::Body>> {
    let details = r#"[{"type":"dayfly_task","template":"ship"}]"#;
    let mut asks = Vec::new();
    for kind in [JWT, ID_TOKEN] {
        let subject = [("subject_token", token), ("subject_token_type", kind)];
        for ask in [
            &[("scope", "ship"), ("resource", SHOP_URI)][..],
            &[("scope", "ship"), ("requested_token_type", CONTROL)],
            &[("scope", "ship")],
            &[("authorization_details", details), ("resource", STOCK_URI)],
            &[("scope", "ship"), ("resource", "https://nowhere.example.org")],
        ] {
            asks.push(exchange(&[&subject[..], ask].concat()));
        }
    }
    asks
}

#[tokio::test]
async fn t_082_a_row_of_one_issuer_is_none_of_another_whatever_is_asked() {
    let stand = Stand::new();
    let token = stand.forge.claims(json!({}));
    let before = stand.tally().await;
    for request in asks_for_ship(&token) {
        let answer = stand.world.call(request).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["reason"]), (400, &json!("E-NOMATCH")), "{body}");
        assert!(["invalid_scope", "invalid_authorization_details"].contains(&text(&body, "error")));
        assert!(!answer.text.contains(SHOP_URI), "whoever may not run it learns nothing of its targets");
    }
    let after = stand.tally().await;
    assert_eq!((after.tasks, after.leases, after.denied > 0), (before.tasks, before.leases, true));
    stand.opens(&token).await;
}

#[tokio::test]
async fn t_083_without_a_row_everything_is_denied() {
    let bare = "\n[task.bare]\npurpose = \"nobody's\"\nowner = \"team-shop\"\ngrants = { shop = [\"deploy:status\"] }\n\
                ttl = \"15m\"\nreview_by = 2099-01-01\n";
    let mut stand = Stand::of(&format!("{}{bare}", bundle()));
    let token = stand.evidence(&Job::shop());
    for template in ["bare", "nothing", "Deploy", "deploy ", "deploy\u{0}", "../deploy", "*"] {
        stand.denied(NO_MATCH, [exchange(&evidence(&token, template))]).await;
    }
    stand.opens(&token).await;
}

#[tokio::test]
async fn t_084_every_kind_of_subject_passes_the_same_rules() {
    let mut stand = Stand::new();
    let at = stand.world.now().as_s();
    let tokens = [
        ("bad signature", format!("{}AA", stand.forge.claims(json!({})))),
        ("expired", stand.forge.claims(json!({ "exp": at - 1 }))),
        ("too old", stand.forge.claims(json!({ "iat": at - 601 }))),
        ("stranger", stand.forge.claims(json!({ "org": "evil" }))),
        ("audience", stand.forge.claims(json!({ "aud": "x" }))),
        ("blank", stand.forge.claims(json!({ "sub": " " }))),
        ("issuer", stand.forge.claims(json!({ "iss": "https://evil.example.org" }))),
        ("no row", stand.forge.claims(json!({ "sub": "pay" }))),
        ("fork", stand.evidence(&Job::shop().with("event", "fork"))),
        ("refused event", stand.evidence(&Job::shop().with("event", "target"))),
    ];
    for (what, token) in &tokens {
        let mut told = Vec::new();
        for kind in [JWT, ID_TOKEN] {
            for extra in [None, Some(("requested_token_type", CONTROL)), Some(("resource", SHOP_URI))] {
                let mut fields = vec![("subject_token", &**token), ("subject_token_type", kind), ("scope", "deploy")];
                fields.extend(extra);
                let answer = stand.exchange(&fields).await;
                told.push((answer.status, answer.json()["reason"].clone()));
            }
        }
        assert!(told[0].0 == 400 && told.iter().all(|one| *one == told[0]), "{what}: {told:?}");
    }
    assert_eq!(stand.tally().await.tasks, 0);
}

#[tokio::test]
async fn t_085_an_actor_is_refused_not_ignored() {
    let mut stand = Stand::new();
    let (token, actor) = (stand.evidence(&Job::shop()), stand.evidence(&Job::pay()));
    let before = stand.tally().await;
    for extra in [("actor_token", &*actor), ("actor_token_type", JWT), ("actor_token", "")] {
        let fields = [&evidence(&token, "deploy")[..], &[extra]].concat();
        refusal(&stand.exchange(&fields).await, REQUEST, extra.0);
    }
    assert_eq!(stand.tally().await, before);
}

#[tokio::test]
async fn t_086_an_actor_in_foreign_evidence_is_never_copied() {
    let stand = Stand::new();
    let nested =
        |depth: usize| (0..depth).fold(json!({ "sub": CANARY }), |act, _| json!({ "sub": CANARY, "act": act }));
    let shallow = stand.opens(&stand.forge.claims(json!({ "act": nested(3), "may_act": nested(1) }))).await;
    let ours = said(text(&shallow, "access_token"));
    assert!(ours.get("act").is_none() && ours.get("may_act").is_none() && !ours.to_string().contains(CANARY));
    assert!(text(&shallow, "access_token").len() < 4096);
    let deep = [15, 16, 100].map(|depth| (depth.to_string(), stand.forge.claims(json!({ "act": nested(depth) }))));
    stand.all_refused(SIGNATURE, deep).await;
    let forged = format!("{}{}", r#"{"act":"#.repeat(10_000), "}".repeat(10_000));
    let token = stand.forge.raw_claims(&forged);
    let answer = stand.present(&token).await;
    assert!([400, 413].contains(&answer.status) && !answer.text.contains("eyJ"), "{}", answer.text);
}

#[tokio::test]
async fn t_087_claims_of_evidence_never_become_ours() {
    let stand = Stand::new();
    let foreign = json!({ "cnf": { "jkt": CANARY }, "act": { "sub": CANARY }, "scope": CANARY, "client_id": CANARY,
        "txn": CANARY, "owner": CANARY, "lease_id": CANARY, "task_id": CANARY, "active": CANARY, "status": CANARY,
        "authorization_details": [{ "type": "dayfly_task", "actions": [CANARY] }], "jti": CANARY });
    let opened = stand.opens(&stand.forge.claims(foreign)).await;
    let ours = said(text(&opened, "access_token"));
    assert!(!ours.to_string().contains(CANARY) && !opened.to_string().contains(CANARY), "{ours}");
    assert_eq!(
        (&ours["jti"], &ours["txn"], &ours["owner"]),
        (&opened["lease_id"], &opened["task_id"], &json!("team-shop"))
    );
    let names: std::collections::BTreeSet<_> = ours.as_object().unwrap().keys().map(String::as_str).collect();
    let known = ["iss", "iat", "nbf", "exp", "jti", "sub", "client_id", "aud", "authorization_details", "txn", "owner"];
    assert_eq!(names, known.into());
}

#[test]
fn t_087_a_profile_cannot_declare_a_claim_with_our_names() {
    let mut refused = 0;
    for name in ["cnf", "act", "scope", "lease_id", "exp", "iss", "aud", "jti", "nbf", "iat"] {
        let text = bundle().replacen(
            "[issuer.multi]",
            &format!("[issuer.multi]\nclaims.{name} = {{ at = \"/x\", type = \"string\" }}"),
            1,
        );
        let told = super::jose::problems(&text);
        refused += usize::from(told.iter().any(|problem| problem.to_string().contains("meaning of its own")));
    }
    assert_eq!(refused, 10);
}

#[tokio::test]
async fn t_088_what_is_issued_never_outlives_its_task() {
    let mut stand = Stand::new();
    for (ttl, granted) in [(json!(1), 1), (json!(899), 899), (json!(901), 900), (json!(u64::MAX), 900)] {
        let token = stand.evidence(&Job::shop());
        let details = json!([{ "type": "dayfly_task", "template": "deploy", "ttl": ttl }]).to_string();
        let fields = [("subject_token", &*token), ("subject_token_type", JWT), ("authorization_details", &*details)];
        let task = stand.exchange(&fields).await.json();
        let ours = said(text(&task, "access_token"));
        assert_eq!(ours["exp"].as_i64().unwrap() - ours["iat"].as_i64().unwrap(), granted, "{ttl}");
        assert!(text(&task, "expires_at") <= text(&task, "task_deadline"));
    }
    let token = stand.evidence(&Job::shop());
    for ttl in ["0", "-1", "1.5", "\"1h\"", "null", "1e3", "NaN", "true", "[1]", "-9223372036854775808"] {
        let details = format!(r#"[{{"type":"dayfly_task","template":"deploy","ttl":{ttl}}}]"#);
        let fields = [("subject_token", &*token), ("subject_token_type", JWT), ("authorization_details", &*details)];
        let said = if ttl == "NaN" { REQUEST } else { DETAILS };
        refusal(&stand.exchange(&fields).await, said, ttl);
    }
    let task = opened(&mut stand, &Job::shop(), "deploy").await;
    for passed in [2700, 600, 298, 1] {
        stand.world.pass_s(passed);
        let further = fed(&stand, text(&task, "task_control")).await.json();
        assert!(text(&further, "expires_at") <= text(&task, "task_deadline"), "{further}");
    }
    stand.world.pass_s(1);
    refusal(&fed(&stand, text(&task, "task_control")).await, ENDED, "at its deadline");
}

#[tokio::test]
async fn t_089_whose_it_is_comes_from_signed_claims_and_from_no_parameter() {
    let mut stand = Stand::new();
    let token = stand.evidence(&Job::shop());
    for member in ["owner", "workload", "purpose", "tenant", "external_id", "sub", "locations", "privileges", "row"] {
        let details = json!([{ "type": "dayfly_task", "template": "deploy", member: "team-pay" }]).to_string();
        let fields = [("subject_token", &*token), ("subject_token_type", JWT), ("authorization_details", &*details)];
        refusal(&stand.exchange(&fields).await, DETAILS, member);
    }
    // Unknown parameters are ignored (RFC 6749 section 3.2), and so change nothing.
    let claimed = ["owner", "workload", "external_id", "client_id", "sub", "act"].map(|name| (name, "team-pay"));
    let answer = stand.exchange(&[&evidence(&token, "deploy")[..], &claimed].concat()).await.json();
    let ours = said(text(&answer, "access_token"));
    assert_eq!((&ours["owner"], ours.to_string().contains("team-pay")), (&json!("team-shop"), false));
}

#[tokio::test]
async fn t_090_a_handle_is_of_one_task_and_no_other() {
    let mut stand = Stand::new();
    let (mine, hash) = client_handle(90);
    let control = b64(hash);
    let first = stand.evidence(&Job::shop());
    let open = [&evidence(&first, "deploy")[..], &[("task_control_s256", &*control)]].concat();
    assert_eq!(stand.exchange(&open).await.status, 200);
    let theirs = stand.evidence(&Job::pay());
    let steal = [&evidence(&theirs, "pay")[..], &[("task_control_s256", &*control)]].concat();
    stand.denied((400, "invalid_request", "E-HANDLE-USED"), [exchange(&steal)]).await;
    let other = opened(&mut stand, &Job::pay(), "pay").await;
    let before = stand.tally().await;
    let end = post_json(&format!("/v1/tasks/{}/end", text(&other, "task_id")), Some(&mine), &json!({}));
    assert_eq!(stand.world.call(end).await.status, 404);
    for scope in ["pay", "ship", "Deploy"] {
        let fields = [("subject_token", &*mine), ("subject_token_type", CONTROL), ("scope", scope)];
        refusal(&stand.exchange(&fields).await, (400, "invalid_scope", "E-TEMPLATE"), scope);
    }
    assert_eq!(stand.tally().await, before);
    assert!(active(&stand, text(&other, "access_token")).await, "and the other lives on");
    assert_eq!(hash, sha256(mine.as_bytes()));
}
