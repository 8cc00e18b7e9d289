//! The task token, as signed by a broker and read by a resource server.

use dayfly_verifier::{Detail, LeaseId, Refusal, Status, StatusRef, TaskClaims, TaskId, read_task_token};
use serde_json::json;

use crate::support::*;

const TARGET: &str = "https://db-0.example";

pub fn task_claims() -> TaskClaims {
    let sub = "spiffe://dayfly.example/shop/ci".to_owned();
    TaskClaims {
        iss: ISSUER.to_owned(),
        iat: NOW_S,
        nbf: NOW_S,
        exp: NOW_S + 300,
        jti: LeaseId::from_parts(1, [1; 10]),
        client_id: sub.clone(),
        sub,
        aud: TARGET.to_owned(),
        authorization_details: vec![Detail {
            kind: "dayfly_task".to_owned(),
            template: "migrate".to_owned(),
            locations: vec![TARGET.to_owned()],
            actions: vec!["db:migrate".to_owned()],
            purpose: "move the schema".to_owned(),
            ticket: None,
        }],
        txn: TaskId::from_parts(1, [2; 10]),
        owner: "shop".to_owned(),
        cnf: None,
        status: None,
    }
}

fn read(issuer: &Es256, token: &str) -> Result<TaskClaims, Refusal> {
    read_task_token(token, &issuer.keys(), ISSUER, TARGET, now()).map(|read| read.into_claims())
}

#[test]
fn a_task_token_survives_its_text() {
    let issuer = Es256::new();
    let token = issuer.signing.sign("at+jwt", &task_claims()).unwrap();
    assert_eq!(read(&issuer, &token), Ok(task_claims()));
    let verified = read_task_token(&token, &issuer.keys(), ISSUER, TARGET, now()).unwrap();
    assert_eq!((verified.issued_at_s(), verified.expires_at_s()), (NOW_S, NOW_S + 300));
    assert!(token.len() < 1536, "{}", token.len());
}

#[test]
fn the_header_has_three_members() {
    let issuer = Es256::new();
    let token = issuer.signing.sign("at+jwt", &task_claims()).unwrap();
    let header = token.split('.').next().unwrap();
    assert_eq!(header, b64(format!(r#"{{"typ":"at+jwt","alg":"ES256","kid":"{}"}}"#, issuer.signing.kid())));
}

#[test]
fn unknown_members_are_ignored() {
    let issuer = Es256::new();
    let claims = with(serde_json::to_value(task_claims()).unwrap(), json!({"session": {"status_list": {"idx": 1}}}));
    assert_eq!(read(&issuer, &issuer.signing.sign("at+jwt", &claims).unwrap()), Ok(task_claims()));
}

#[test]
fn t_025_only_at_jwt_and_es256_are_task_tokens() {
    let issuer = Es256::new();
    for typ in ["JWT", "dpop+jwt", "application/at+jwt", "logout+jwt"] {
        assert_eq!(read(&issuer, &issuer.signing.sign(typ, &task_claims()).unwrap()), Err(Refusal::Type), "{typ}");
    }
    let keys = set(&[rsa_jwk("r")]);
    let refused = read_task_token(&rsa_token("RS256", "r"), &keys, ISSUER, AUDIENCE, now());
    assert_eq!(refused.unwrap_err(), Refusal::Algorithm);
}

#[test]
fn a_bound_token_without_its_proof_is_refused() {
    let issuer = Es256::new();
    let jkt = issuer.signing.kid();
    for cnf in [json!({"jkt": jkt}), json!({"jkt": "abc"}), json!({"jkt": jkt, "x5t#S256": jkt}), json!({}), json!("x")]
    {
        let claims = with(serde_json::to_value(task_claims()).unwrap(), json!({"cnf": cnf}));
        assert_eq!(
            read(&issuer, &issuer.signing.sign("at+jwt", &claims).unwrap()),
            Err(Refusal::Claim("cnf")),
            "{cnf}"
        );
    }
    let mut claims = serde_json::to_value(task_claims()).unwrap();
    claims["cnf"] = json!(null);
    assert_eq!(read(&issuer, &issuer.signing.sign("at+jwt", &claims).unwrap()), Err(Refusal::Claim("cnf")));
}

#[test]
fn every_claim_of_a_task_token_is_required_and_typed() {
    let issuer = Es256::new();
    let names = ["nbf", "jti", "sub", "client_id", "authorization_details", "txn", "owner"];
    for name in names {
        for value in [json!(null), json!([]), json!(true)] {
            let claims = with(serde_json::to_value(task_claims()).unwrap(), json!({ name: value }));
            let refused = read(&issuer, &issuer.signing.sign("at+jwt", &claims).unwrap());
            assert_eq!(refused, Err(Refusal::Claim(name)), "{value}");
        }
    }
    let upper = with(serde_json::to_value(task_claims()).unwrap(), json!({"jti": "LSE_00"}));
    assert_eq!(read(&issuer, &issuer.signing.sign("at+jwt", &upper).unwrap()), Err(Refusal::Claim("jti")));
}

#[test]
fn a_status_is_an_entry_of_a_list_or_absent() {
    let issuer = Es256::new();
    let base = || serde_json::to_value(task_claims()).unwrap();
    assert!(base().get("status").is_none(), "absent, not null");
    let mut listed = task_claims();
    listed.status = Some(Status { status_list: StatusRef { idx: 7, uri: format!("{ISSUER}/status/a") } });
    let text = serde_json::to_value(&listed).unwrap();
    assert_eq!(text["status"], json!({"status_list": {"idx": 7, "uri": format!("{ISSUER}/status/a")}}));
    assert_eq!(read(&issuer, &issuer.signing.sign("at+jwt", &text).unwrap()), Ok(listed));
    for bad in [
        json!(null),
        json!({}),
        json!({"status_list": null}),
        json!({"status_list": {"idx": -1, "uri": "u"}}),
        json!({"status_list": {"idx": 1.0, "uri": "u"}}),
        json!({"status_list": {"idx": "1", "uri": "u"}}),
        json!({"status_list": {"idx": 4_294_967_296_u64, "uri": "u"}}),
        json!({"status_list": {"idx": 1}}),
        json!({"status_list": {"uri": "u"}}),
        json!({"status_list": {"idx": 1, "uri": ["u"]}}),
    ] {
        let mut claims = base();
        claims["status"] = bad.clone();
        let refused = read(&issuer, &issuer.signing.sign("at+jwt", &claims).unwrap());
        assert_eq!(refused, Err(Refusal::Claim("status")), "{bad}");
    }
}

#[test]
fn a_task_token_allows_what_was_granted_on_its_own_target() {
    let claims = task_claims();
    assert!(claims.allows("db:migrate"));
    assert!(!claims.allows("db:drop") && !claims.allows("") && !claims.allows("DB:migrate"));
    let mut elsewhere = task_claims();
    elsewhere.authorization_details[0].locations = vec!["https://db-1.example".to_owned()];
    assert!(!elsewhere.allows("db:migrate"));
    let mut foreign = task_claims();
    foreign.authorization_details[0].kind = "other".to_owned();
    assert!(!foreign.allows("db:migrate"));
}
