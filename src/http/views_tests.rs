//! What the outside sees, and what it never sees.

use dayfly_domain::{Bound, Channel, EventId, LeaseId, Secret, State, TaskId, UnixMs};
use serde_json::json;

use super::*;

const AT: UnixMs = UnixMs::from_s(1_795_322_096);

fn task_id() -> TaskId {
    TaskId::from_parts(1, [1; 10])
}

fn lease_id() -> LeaseId {
    LeaseId::from_parts(1, [2; 10])
}

fn issued_with(credential: Option<IssuedCredential>) -> Value {
    let issued = issued(Issued {
        task: task_id(),
        template: "deploy-prod".into(),
        issuer: "github".into(),
        deadline: AT,
        handle: Some(Secret::new("dtc_x".into())),
        point: Point { stream: "ab".into(), seq: 7 },
        credential,
    });
    serde_json::to_value(issued).unwrap()
}

fn credential(kind: Kind, binding: BindingKind) -> IssuedCredential {
    IssuedCredential {
        lease: lease_id(),
        token: Secret::new("h.p.s".into()),
        kind,
        binding,
        target_uri: "https://t.example".into(),
        actions: vec!["a".into()],
        purpose: "p".into(),
        ticket: None,
        ttl_s: 900,
        expires: AT,
        revocation: vec![RevocationBound { channel: Channel::Introspection, usual_s: 10, bound_s: 40 }],
    }
}

fn task_row() -> TaskRow {
    TaskRow {
        id: task_id(),
        parent: None,
        template: "deploy-prod".into(),
        purpose: "p".into(),
        ticket: None,
        job: None,
        row: "shop-main".into(),
        owner: "team-shop".into(),
        environment: "production".into(),
        issuer: "github".into(),
        profile: "github".into(),
        workload: "github/1/2".into(),
        untrusted: false,
        grants: r#"{"shop":["a","b"]}"#.into(),
        evidence_key: [0x5e; 32],
        evidence_iat_s: 1,
        evidence_exp_s: 2,
        claims: Some(r#"{"secretish":"claim"}"#.into()),
        handle_hash: [0x5e; 32],
        bound: Bound::None,
        thumbprint: Some("thumb".into()),
        opened_at: AT,
        deadline: AT,
        seq: 0,
        held: false,
        end: None,
    }
}

fn task_view(row: TaskRow) -> TaskView {
    TaskView {
        row,
        state: State::Active,
        cause: None,
        ended_at: None,
        ended_by: None,
        reason: None,
        leases_active: 2,
        leases_ended: 1,
        conflicts: None,
        hold: None,
    }
}

fn body() -> Map<String, Value> {
    let id = EventId::from_parts(1, [3; 10]);
    let Value::Object(body) = json!({"v": 1, "id": id, "at": AT.as_ms(), "type": "issued", "outcome": "ok", "task": task_id(), "ttl": 5, "details": "ff"})
    else {
        unreachable!()
    };
    body
}

#[test]
fn a_credential_is_answered_as_rfc_8693_says() {
    let answer = issued_with(Some(credential(Kind::Jwt, BindingKind::Bearer)));
    let expected = json!({
        "access_token": "h.p.s", "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 900,
        "authorization_details": [{"type": "dayfly_task", "template": "deploy-prod", "locations": ["https://t.example"],
            "actions": ["a"], "purpose": "p"}],
        "task_id": task_id(), "lease_id": lease_id(), "expires_at": AT, "task_deadline": AT, "task_control": "dtc_x",
        "ledger": {"stream": "ab", "seq": 7},
        "revocation": [{"channel": "introspection", "usual_s": 10, "bound_s": 40}],
    });
    assert_eq!(answer, expected);
}

#[test]
fn a_bound_credential_is_not_called_bearer() {
    assert_eq!(issued_with(Some(credential(Kind::Jwt, BindingKind::Dpop)))["token_type"], "DPoP");
}

#[test]
fn a_task_alone_has_no_secret_as_its_token() {
    let answer = issued_with(None);
    assert_eq!(answer["access_token"], json!(task_id()));
    assert_eq!((&answer["token_type"], &answer["issued_token_type"]), (&json!("N_A"), &json!(TASK_CONTROL)));
    for absent in ["expires_in", "lease_id", "authorization_details", "revocation"] {
        assert!(answer.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_token_cannot_say_of_itself_that_it_is_active() {
    assert_eq!(Value::Object(introspected(None)), json!({"active": false}));
    let claims =
        Map::from_iter([("active".into(), json!(false)), ("task_id".into(), json!("x")), ("sub".into(), json!("s"))]);
    let answer = introspected(Some(Introspected { claims, task: task_id() }));
    assert_eq!(Value::Object(answer), json!({"active": true, "task_id": task_id(), "sub": "s"}));
}

#[test]
fn a_task_shows_no_hash_and_no_claim() {
    let shown = serde_json::to_string(&task(task_view(task_row())).unwrap()).unwrap();
    for hidden in ["5e5e", "94,94", "secretish", "thumb", "evidence", "handle"] {
        assert!(!shown.contains(hidden), "{hidden}");
    }
    assert!(shown.contains(r#""grants":{"shop":["a","b"]}"#) && shown.contains(r#""leases":{"active":2,"ended":1}"#));
}

#[test]
fn a_broken_row_is_our_defect() {
    let row = TaskRow { grants: "{".into(), ..task_row() };
    assert_eq!(task(task_view(row)).unwrap_err().reason, Reason::Internal);
    let no_id = EventView { seq: 0, body: Map::new(), details: None };
    assert_eq!(event(no_id).unwrap_err().reason, Reason::Internal);
}

#[test]
fn an_event_has_its_names_beside_its_details() {
    let details = Map::from_iter([("owner".into(), json!("team-shop")), ("claims".into(), json!({"ref": "main"}))]);
    let event = event(EventView { seq: 9, body: body(), details: Some(details) }).unwrap();
    assert_eq!((event.seq, event.at, event.owner.as_deref()), (9, AT, Some("team-shop")));
    assert_eq!(event.details, Some(Details::Open(Map::from_iter([("claims".into(), json!({"ref": "main"}))]))));
}

#[test]
fn an_erased_detail_reads_erased_and_an_absent_one_is_absent() {
    let erased = event(EventView { seq: 9, body: body(), details: None }).unwrap();
    assert_eq!(erased.details, Some(Details::Erased("erased".into())));
    let mut bare = body();
    bare.remove("details");
    assert_eq!(event(EventView { seq: 9, body: bare, details: None }).unwrap().details, None);
}

#[test]
fn details_cannot_outrank_the_body() {
    let details =
        Map::from_iter([("outcome".into(), json!("denied")), ("id".into(), json!("x")), ("seq".into(), json!(1))]);
    let event = event(EventView { seq: 9, body: body(), details: Some(details) }).unwrap();
    assert_eq!((event.seq, event.outcome.as_deref()), (9, Some("ok")));
}

#[test]
fn an_end_says_what_each_channel_knows() {
    let channels = vec![ChannelState { channel: Channel::Introspection, known: true, worst_case_at: AT }];
    let answer =
        EndAnswer { id: "tsk_x".into(), state: State::Ended, cause: None, ended_at: None, leases_ended: 3, channels };
    let expected = json!({"id": "tsk_x", "state": "ended", "leases_ended": 3,
        "revocation": [{"channel": "introspection", "known": true, "worst_case_at": AT}]});
    assert_eq!(serde_json::to_value(ended(answer)).unwrap(), expected);
}
