//! T-70: a token outlives its pod, and a name can be taken again. Against a listener that speaks the
//! documented TokenReview (`authentication.k8s.io/v1`).

use dayfly_verifier::crypto::SigningKey;
use serde_json::{Value, json};

use super::{
    platform::{Platform, Reply},
    stage::{DOWN, OPENED, Stage, is, key},
};
use crate::{
    served::Authority,
    threats::stand::{evidence, exchange},
    world::{ISSUER, OPERATOR},
};

const ACCOUNT: &str = "system:serviceaccount:shop:deploy";
const UID: &str = "b1f5c1f0-0000-4000-8000-000000000001";
const POD: &str = "c2a6d2e1-0000-4000-8000-000000000002";
/// Refusals of one kind that have an event each.
const TOLD_SINGLY: u32 = 3;
const OWN_TOKEN: &str = "the-brokers-own-token";

struct Cluster {
    stage: Stage,
    keys: Platform,
    api: Platform,
    key: SigningKey,
    folder: tempfile::TempDir,
}

impl Cluster {
    fn new() -> Self {
        let (authority, key, folder) = (Authority::new(), key(), tempfile::tempdir().unwrap());
        let (keys, api) = (Platform::start(&authority), Platform::start(&authority));
        keys.publishes(&[&key]);
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, format!("{OWN_TOKEN}\n")).unwrap();
        let tables = format!(
            r#"
[profile.cluster]
algs      = ["ES256"]
principal = ["service_account_uid"]

[profile.cluster.review]
"/uid" = "service_account_uid"
"/extra/authentication.kubernetes.io~1pod-uid/0" = "pod_uid"

[profile.cluster.claims]
service_account_uid = {{ at = "/kubernetes.io/serviceaccount/uid", type = "string", required = true }}
pod_uid             = {{ at = "/kubernetes.io/pod/uid", type = "string", required = true }}

[issuer.cluster]
profile = "cluster"
owner   = "team-shop"
url     = "{}"
keys    = {{ discovery = true, ca_file = "ca.pem", allow_private = true }}
review  = {{ url = "{}", token_file = "{}", ca_file = "ca.pem", allow_private = true }}

[[task.deploy.allow]]
id     = "cluster-deploys"
issuer = "cluster"
claims = {{ service_account_uid = "{UID}" }}
"#,
            keys.url(),
            api.url(),
            token_file.display()
        );
        Self { stage: Stage::of(&authority, &tables), keys, api, key, folder }
    }

    fn says(&self, status: Value) {
        let review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "status": status });
        self.api.answers(move |_| Reply::status("201 Created", "", &review.to_string()));
    }

    fn token(&mut self, jti: &str) -> String {
        let now = self.stage.world.now().as_s();
        let claims = json!({
            "iss": self.keys.url(), "sub": ACCOUNT, "aud": [ISSUER], "iat": now, "exp": now + 600, "jti": jti,
            "kubernetes.io": { "namespace": "shop", "serviceaccount": { "name": "deploy", "uid": UID },
                "pod": { "name": "deploy-0", "uid": POD } },
        });
        self.key.sign("JWT", &claims).unwrap()
    }
}

/// As the documented API answers for a live pod.
fn alive() -> Value {
    json!({
        "authenticated": true,
        "audiences": [ISSUER],
        "user": {
            "username": ACCOUNT,
            "uid": UID,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["deploy-0"],
                "authentication.kubernetes.io/pod-uid": [POD],
            },
        },
    })
}

fn but(pointer: &str, value: Value) -> Value {
    let mut status = alive();
    *status.pointer_mut(pointer).unwrap() = value;
    status
}

#[tokio::test]
async fn t_070_a_pod_that_is_there_opens_a_task_and_the_api_is_asked_as_documented() {
    let mut cluster = Cluster::new();
    cluster.says(alive());
    let token = cluster.token("one");
    is(cluster.stage.presents(&token).await, OPENED);
    let [asked] = &cluster.api.asked()[..] else { panic!("asked once") };
    assert!(asked.head.starts_with("POST /apis/authentication.k8s.io/v1/tokenreviews HTTP/1.1\r\n"), "{}", asked.head);
    assert!(asked.head.to_ascii_lowercase().contains(&format!("authorization: bearer {OWN_TOKEN}\r\n")));
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let wanted = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": { "token": token, "audiences": [ISSUER] },
    });
    assert_eq!(body, wanted);
    assert!(cluster.keys.asked().iter().all(|asked| !asked.head.contains(OWN_TOKEN) && asked.body.is_empty()));

    // Its own token is renewed under its feet.
    std::fs::write(cluster.folder.path().join("token"), "renewed").unwrap();
    let token = cluster.token("two");
    is(cluster.stage.presents(&token).await, OPENED);
    assert!(cluster.api.asked()[1].head.contains("Bearer renewed\r\n"));
}

#[tokio::test]
async fn t_070_what_the_platform_does_not_confirm_opens_nothing() {
    let mut cluster = Cluster::new();
    let (mut refused, mut told) = (0, 0);
    let gone = (400, "E-NOT-ALIVE");
    let other = "d3b7e3f2-0000-4000-8000-000000000003";
    for (status, wanted) in [
        (json!({ "authenticated": false, "error": "canary-6f1d2c" }), gone),
        (json!({}), gone),
        (but("/user/uid", json!(other)), gone),
        (but("/user/extra/authentication.kubernetes.io~1pod-uid", json!([other])), gone),
        (but("/user/extra/authentication.kubernetes.io~1pod-uid", json!([])), gone),
        (but("/user/extra", json!({})), gone),
        (but("/user/username", json!("system:serviceaccount:shop:other")), gone),
        (but("/user", Value::Null), gone),
        (but("/audiences", json!([])), (400, "E-AUDIENCE")),
        (but("/audiences", json!(["https://kubernetes.default.svc"])), (400, "E-AUDIENCE")),
    ] {
        cluster.says(status.clone());
        let token = cluster.token("same");
        let answer = cluster.stage.world.call(exchange(&evidence(&token, "deploy"))).await;
        is(super::stage::told(&answer), wanted);
        assert!(!answer.text.contains("canary-6f1d2c"));
        // A known workload: on the record.
        if wanted == gone {
            let id = answer.json()["decision_id"].as_str().expect("a decision").parse().unwrap();
            stage_written(&cluster).await;
            refused += 1;
            if let Ok(event) = cluster.stage.world.flow.event(&OPERATOR, id).await {
                assert_eq!((&event.body["type"], &event.body["reason"]), (&json!("denied"), &json!("E-NOT-ALIVE")));
                told += 1;
            }
            // What comes after the first ones shares an event, written later.
            assert_eq!(told, refused.min(TOLD_SINGLY));
        }
    }
    // The evidence is not used up by any of it.
    cluster.says(alive());
    let token = cluster.token("same");
    is(cluster.stage.presents(&token).await, OPENED);
    is(cluster.stage.presents(&token).await, (400, "E-REPLAYED"));
}

#[tokio::test]
async fn t_070_used_evidence_has_nobody_asked_again() {
    let mut cluster = Cluster::new();
    cluster.says(alive());
    let token = cluster.token("one");
    is(cluster.stage.presents(&token).await, OPENED);
    assert_eq!(cluster.api.asked().len(), 1);
    for _ in 0..3 {
        is(cluster.stage.presents(&token).await, (400, "E-REPLAYED"));
    }
    cluster.api.answers(|_| Reply::status("500 No", "", ""));
    is(cluster.stage.presents(&token).await, (400, "E-REPLAYED"));
    assert_eq!(cluster.api.asked().len(), 1);
}

/// Loading the same bundle goes through the writer, behind everything that waits.
async fn stage_written(cluster: &Cluster) {
    cluster.stage.world.flow.load_bundle("test").await.unwrap();
}

#[tokio::test]
async fn t_070_an_api_that_cannot_be_asked_confirms_nobody() {
    let mut cluster = Cluster::new();
    let token = cluster.token("one");
    let review = |change: Value| {
        let mut review = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": alive() });
        for (name, value) in change.as_object().unwrap() {
            review[name] = value.clone();
        }
        Reply::json(&review)
    };
    for reply in [
        Reply::status("401 Unauthorized", "", ""),
        Reply::status("403 Forbidden", "", "{}"),
        Reply::status("500 No", "", ""),
        Reply::status("302 Found", &format!("Location: {}/\r\n", cluster.keys.url()), ""),
        Reply::status("200 OK", "", "authenticated"),
        Reply::json(&json!({ "status": alive() })),
        review(json!({ "kind": "SubjectAccessReview" })),
        review(json!({ "apiVersion": "authentication.k8s.io/v1beta1" })),
        review(json!({ "status": null })),
        review(json!({ "padding": "x".repeat(256 << 10) })),
        Reply::Close(Vec::new()),
    ] {
        cluster.api.answers(move |_| reply.clone());
        is(cluster.stage.presents(&token).await, DOWN);
    }
    let asked = cluster.api.asked().len();
    for text in ["", "\n", "two words", "k\u{e9}y"] {
        std::fs::write(cluster.folder.path().join("token"), text).unwrap();
        is(cluster.stage.presents(&token).await, DOWN);
    }
    std::fs::remove_file(cluster.folder.path().join("token")).unwrap();
    is(cluster.stage.presents(&token).await, DOWN);
    assert_eq!(cluster.api.asked().len(), asked, "without a token of its own it does not ask");
    // What is not well signed, or nobody's, is never shown to the API.
    is(cluster.stage.opens(&cluster.keys.url(), &key()).await, (400, "E-SIGNATURE"));
    assert_eq!(cluster.api.asked().len(), asked);
}

#[tokio::test]
async fn a_review_belongs_to_a_profile_that_says_what_its_answer_means() {
    let cluster = Cluster::new();
    let refused = async |from: &str, to: &str, wanted: &str| {
        let world = &cluster.stage.world;
        world.bundle.edit(from, to);
        let problems = world.flow.load_bundle("test").await.unwrap_err().to_string();
        assert!(problems.contains(wanted), "{problems}");
        world.bundle.edit(to, from);
    };
    refused("profile = \"cluster\"\nowner", "profile = \"oidc\"\nowner", "has no review").await;
    refused("review  = { url = \"https:", "review  = { url = \"http:", "is not `https://host[:port]`").await;
    refused("token_file = \"/", "token_file = \"", "is not an absolute path").await;
    refused("\"/uid\" = \"service_account_uid\"", "\"/uid\" = \"nobody\"", "is not a declared claim").await;
    refused("\"/uid\" =", "\"uid\" =", "is not a JSON pointer").await;
}
