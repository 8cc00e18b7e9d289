//! Every route of the table against every kind of caller. What is expected follows from the
//! row's `who`; a route that this test cannot call fails it.

use axum::{body::Body, http::Request};
use dayfly::{
    flow::{EndBySelector, EndedBySelector, EventFilter, EventView, Issued},
    http::{Door, Listener, Ops, ROUTES, Route, RouteRow, Verb, Who, ops_router},
};
use dayfly_verifier::{
    crypto::SigningKey,
    dpop::{ProofRules, prove},
};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::world::{
    Answer, BUNDLE, ISSUER, Job, OPERATOR, World, client_handle, delete, form, get, handle, lease, local, post_json,
    token,
};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Beside the world: an operator's token, an auditor whom a permit lets see everything, and a
/// server that may introspect for the shop.
const MORE: &str = include_str!("rights.toml");

const CEDAR: &str = r#"
@id("auditor-sees") @purpose("an auditor reaches every owner's rows")
permit (principal is Dayfly::Workload, action in [Dayfly::Action::"introspect", Dayfly::Action::"leases:end",
    Dayfly::Action::"leases:read", Dayfly::Action::"ledger:read", Dayfly::Action::"tasks:end",
    Dayfly::Action::"tasks:read"], resource)
when { principal has ci && principal.ci has sub && principal.ci.sub == "auditor" };
@id("ops-operates-it") @purpose("operators operate")
permit (principal is Dayfly::Workload, action == Dayfly::Action::"broker:operate", resource == Dayfly::Target::"broker")
when { principal has ci && principal.ci has sub && principal.ci.sub == "ops" };
"#;

/// Kinds of caller, seen from a task of the shop's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nobody,
    Garbage,
    /// Evidence is for the exchange, and nobody's anywhere else.
    Evidence,
    UnknownHandle,
    StrangersHandle,
    OwnHandle,
    /// Of a task that has ended; its own row is that task.
    OwnEndedHandle,
    /// For the shop, not for the broker.
    TargetToken,
    /// For the broker, with another action than is asked.
    OtherAction,
    /// With every action on rows, of another owner.
    OtherOwner,
    /// With every action on rows, of the row's owner.
    Owner,
    /// Of another owner, with a Cedar permit.
    Permitted,
    /// With `broker:operate` alone.
    Operate,
    /// As [`By::Owner`], with a token that is bound to a key, sent as if it were not.
    BoundWithoutProof,
    /// The same token with a proof of its key.
    BoundWithProof,
    /// A server that may introspect for the shop.
    Verifier,
    /// On the local socket.
    Local,
}

const CALLERS: [By; 17] = [
    By::Nobody,
    By::Garbage,
    By::Evidence,
    By::UnknownHandle,
    By::StrangersHandle,
    By::OwnHandle,
    By::OwnEndedHandle,
    By::TargetToken,
    By::OtherAction,
    By::OtherOwner,
    By::Owner,
    By::Permitted,
    By::Operate,
    By::BoundWithoutProof,
    By::BoundWithProof,
    By::Verifier,
    By::Local,
];

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is done or shown.
    Done,
    /// 200, but this row is not in it: an empty list, `{"active": false}`.
    Without,
    /// 401 `E-CLIENT`.
    Unknown,
    /// 403 `E-SCOPE`.
    Lacks,
    /// 404, as if the row were not there.
    Hidden,
    /// 409 `E-NOT-ACTIVE`.
    Over,
}

/// The table of expectations: what `who` says about each kind of caller.
fn expected(row: &RouteRow, by: By) -> Outcome {
    let (action, handles, verifiers) = match row.who {
        Who::Public | Who::Evidence | Who::Possession => return Outcome::Done,
        Who::Ops => return Outcome::Hidden,
        Who::Handle => return expected_of_handle(by),
        Who::Action(action) => (action, false, false),
        Who::ActionOrHandle(action) => (action, true, false),
        Who::ActionOrVerifier(action) => (action, false, true),
    };
    let operates = action == "broker:operate";
    // A list or an introspection leaves out what a single row hides.
    let absent = if row.path.contains("{id}") { Outcome::Hidden } else { Outcome::Without };
    match by {
        By::Nobody | By::Garbage | By::Evidence | By::UnknownHandle | By::TargetToken | By::BoundWithoutProof => {
            Outcome::Unknown
        }
        By::Verifier => {
            if verifiers {
                Outcome::Done
            } else {
                Outcome::Unknown
            }
        }
        By::StrangersHandle => {
            if handles {
                absent
            } else {
                Outcome::Lacks
            }
        }
        By::OwnHandle => {
            if handles {
                Outcome::Done
            } else {
                Outcome::Lacks
            }
        }
        // An ended task's own handle still reads and ends that task, and nothing else.
        By::OwnEndedHandle => {
            if handles {
                Outcome::Done
            } else {
                Outcome::Lacks
            }
        }
        By::OtherAction => Outcome::Lacks,
        By::OtherOwner => {
            // What is meant is named, and nothing of it is reached: that is said.
            if operates || row.route == Route::End { Outcome::Lacks } else { absent }
        }
        By::Owner | By::Permitted | By::BoundWithProof => {
            if operates {
                Outcome::Lacks
            } else {
                Outcome::Done
            }
        }
        By::Operate => {
            if operates {
                Outcome::Done
            } else {
                Outcome::Lacks
            }
        }
        By::Local => Outcome::Done,
    }
}

/// What only the task's own handle may do, while the task lives.
fn expected_of_handle(by: By) -> Outcome {
    match by {
        By::OwnHandle => Outcome::Done,
        By::OwnEndedHandle => Outcome::Over,
        By::StrangersHandle => Outcome::Hidden,
        By::Nobody
        | By::Garbage
        | By::Evidence
        | By::UnknownHandle
        | By::TargetToken
        | By::BoundWithoutProof
        | By::Verifier => Outcome::Unknown,
        By::OtherAction | By::OtherOwner | By::Owner | By::Permitted | By::Operate | By::BoundWithProof | By::Local => {
            Outcome::Lacks
        }
    }
}

/// A world with one of each kind of caller.
struct Stage {
    world: World,
    strangers: String,
    target_token: String,
    glance: String,
    operate: String,
    owner: String,
    other_owner: String,
    auditor: String,
    /// A watcher's token, bound to this key.
    bound: String,
    /// Path of a status list.
    list: String,
    /// Path of a CA's certificate.
    ca: String,
    key: SigningKey,
    count: u32,
}

/// One cell: a fresh row, and what its caller shows.
struct Cell {
    task: Issued,
    event: String,
    bearer: Option<String>,
    assertion: Option<String>,
    by: By,
    number: u32,
    /// A block that stands.
    block: String,
}

impl Stage {
    async fn new() -> Self {
        let mut world = World::with_cedar(&format!("{BUNDLE}{MORE}"), CEDAR, &[]);
        let open = async |world: &mut World, job: Job, template: &str| world.open(&job, template).await;
        let strangers = handle(&open(&mut world, Job::pay(), "pay").await);
        let target_token = token(&open(&mut world, Job::shop(), "deploy").await);
        let glance = token(&open(&mut world, Job::shop(), "glance").await);
        let operate = token(&open(&mut world, Job::shop().with("sub", "ops"), "operate").await);
        let owner = token(&open(&mut world, Job::shop(), "watch").await);
        let other_owner = token(&open(&mut world, Job::pay(), "pay-watch").await);
        let flush = token(&open(&mut world, Job::shop(), "flush").await);
        let list = crate::lists::place(&flush).0;
        let auditor = token(&open(&mut world, Job::shop().with("sub", "auditor"), "audit").await);
        let ca = format!("/pki/{}.cer", world.flow.pki().unwrap().area().id());
        // Past the first seconds a proof needs no nonce.
        world.pass_s(10);
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let bound = String::new();
        let mut stage = Self {
            world,
            strangers,
            target_token,
            glance,
            operate,
            owner,
            other_owner,
            auditor,
            bound,
            list,
            ca,
            key,
            count: 0,
        };
        stage.bound = stage.open_bound().await;
        stage
    }

    /// A token of the row's owner, bound to the stage's key.
    async fn open_bound(&mut self) -> String {
        let evidence = self.world.evidence(&Job::shop());
        let fields =
            [("grant_type", EXCHANGE), ("subject_token", &*evidence), ("subject_token_type", JWT), ("scope", "watch")];
        let mut request = form("/oauth2/token", None, &fields);
        self.prove(&mut request, None);
        let answer = self.world.call(request).await;
        assert_eq!((answer.status, &answer.json()["token_type"]), (200, &json!("DPoP")), "{}", answer.text);
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Adds a proof for this very request (RFC 9449).
    fn prove(&mut self, request: &mut Request<Body>, token: Option<&str>) {
        self.count += 1;
        let url = format!("{ISSUER}{}", request.uri().path());
        let rules = ProofRules { method: request.method().as_str(), url: &url, token };
        let proof = prove(&self.key, &rules, None, &format!("jti-{}", self.count), self.world.now().as_s()).unwrap();
        request.headers_mut().insert("dpop", proof.parse().unwrap());
    }

    async fn cell(&mut self, row: &RouteRow, by: By) -> Cell {
        self.count += 1;
        let number = self.count;
        let run = format!("cell-{number}");
        let task = self.world.open(&Job::shop().run(&run), "deploy").await;
        if by == By::OwnEndedHandle {
            self.world.end(&handle(&task), task.task).await.unwrap();
        }
        let filter = EventFilter { task: Some(task.task), ..EventFilter::default() };
        let events = self.world.flow.events(&OPERATOR, filter, 10, None).await.unwrap().items;
        let event = events[0].body["id"].as_str().unwrap().to_owned();
        let reads_tasks = row.who == Who::ActionOrHandle("tasks:read");
        let bearer = match by {
            By::Nobody | By::Local => None,
            By::Garbage => Some("garbage".to_owned()),
            By::Evidence => Some(self.world.evidence(&Job::shop())),
            By::UnknownHandle => Some(client_handle(77).0),
            By::StrangersHandle => Some(self.strangers.clone()),
            By::OwnHandle | By::OwnEndedHandle => Some(handle(&task)),
            By::TargetToken => Some(self.target_token.clone()),
            By::OtherAction => Some(if reads_tasks { self.operate.clone() } else { self.glance.clone() }),
            By::OtherOwner => Some(self.other_owner.clone()),
            By::Owner => Some(self.owner.clone()),
            By::Permitted => Some(self.auditor.clone()),
            By::Operate => Some(self.operate.clone()),
            By::BoundWithoutProof | By::BoundWithProof => Some(self.bound.clone()),
            // Where no form is taken it can only be shown like this.
            By::Verifier if row.route == Route::Introspect => None,
            By::Verifier => Some(self.assertion()),
        };
        let assertion = (by == By::Verifier && row.route == Route::Introspect).then(|| self.assertion());
        let block = if row.route == Route::LiftBlock { self.block().await } else { String::new() };
        Cell { task, event, bearer, assertion, by, number, block }
    }

    async fn block(&self) -> String {
        let selector = format!(r#"job == "elsewhere-{}""#, self.count).parse().unwrap();
        let ask = EndBySelector { selector, reason: None, dry_run: false, expected: None, block: true };
        match self.world.flow.end_by_selector(&OPERATOR, ask).await.unwrap() {
            EndedBySelector::Ended(ended) => ended.block.unwrap().to_string(),
            EndedBySelector::NotEnded(why) => panic!("{why}"),
        }
    }

    fn assertion(&self) -> String {
        self.world.sign_as_other(Job(json!({ "iss": "shop-0", "sub": "shop-0" })))
    }

    /// The request of this route about the cell's row, or about one that does not exist.
    fn request(&mut self, row: &RouteRow, cell: &Cell, known: bool) -> Request<Body> {
        let id =
            |known_id: String, none: &str| if known { known_id } else { format!("{none}00000000000000000000000001") };
        let (task, lease) = (id(cell.task.task.to_string(), "tsk_"), id(lease(&cell.task).to_string(), "lse_"));
        let event = id(cell.event.clone(), "evt_");
        let bearer = cell.bearer.as_deref();
        let plain = || match row.verb {
            Verb::Get => get(row.path, bearer),
            Verb::Post => post_json(row.path, bearer, &json!({})),
            Verb::Delete => delete(row.path, bearer),
        };
        let operating = self.of_operators(row, cell, known);
        let request = match row.route {
            _ if operating.is_some() => operating.unwrap(),
            Route::OAuthMetadata | Route::OpenIdMetadata | Route::Jwks => plain(),
            Route::Healthz | Route::Readyz | Route::Metrics | Route::OpsIndex => plain(),
            Route::StatusLists | Route::SpiffeBundle => plain(),
            Route::CaCertificate => get(&self.ca, bearer),
            Route::CrlBundle => plain(),
            Route::Crl => get(&self.ca.replace(".cer", "/0.crl"), bearer),
            Route::OcspGet => get("/pki/ocsp/MAA=", bearer),
            Route::OcspPost => {
                let mut request = post_json(row.path, bearer, &json!({}));
                request.headers_mut().insert("content-type", "application/ocsp-request".parse().unwrap());
                request
            }
            Route::StatusList => get(&self.list, bearer),
            Route::Token => {
                let evidence = self.world.evidence(&Job::shop());
                let fields = [
                    ("grant_type", EXCHANGE),
                    ("subject_token", &*evidence),
                    ("subject_token_type", JWT),
                    ("scope", "deploy"),
                ];
                form(row.path, bearer, &fields)
            }
            Route::Introspect => {
                let asked = if known { token(&cell.task) } else { "unknown".to_owned() };
                let mut fields = vec![("token", &*asked)];
                if let Some(assertion) = &cell.assertion {
                    fields.extend([("client_assertion_type", ASSERTION), ("client_assertion", assertion)]);
                }
                form(row.path, bearer, &fields)
            }
            Route::Revoke => form(row.path, bearer, &[("token", &*token(&cell.task))]),
            Route::Tasks | Route::Leases | Route::Events => get(&format!("{}?limit=500&task={task}", row.path), bearer),
            Route::Entitlements => {
                // Another owner's template, and one that does not exist, look alike.
                get(&format!("{}?limit=500&template={}", row.path, if known { "deploy" } else { "no-such" }), bearer)
            }
            Route::Task => get(&row.path.replace("{id}", &task), bearer),
            Route::Lease => get(&row.path.replace("{id}", &lease), bearer),
            Route::Event => get(&row.path.replace("{id}", &event), bearer),
            Route::EndTask | Route::Beat => post_json(&row.path.replace("{id}", &task), bearer, &json!({})),
            Route::EndLease => post_json(&row.path.replace("{id}", &lease), bearer, &json!({})),
            #[allow(unreachable_patterns, reason = "a route that comes later fails here, not in the build")]
            other => panic!("tell this test how to call {other:?}"),
        };
        let mut request = if cell.by == By::Local { local(request) } else { request };
        request.headers_mut().insert("x-request-id", "same".parse().unwrap());
        if cell.by == By::BoundWithProof && about_a_row(row) {
            let bound = self.bound.clone();
            request.headers_mut().insert("authorization", format!("DPoP {bound}").parse().unwrap());
            self.prove(&mut request, Some(&bound));
        }
        request
    }

    /// The routes of whoever operates the broker, or ends much at once.
    fn of_operators(&mut self, row: &RouteRow, cell: &Cell, known: bool) -> Option<Request<Body>> {
        let bearer = cell.bearer.as_deref();
        let plain =
            || if row.verb == Verb::Get { get(row.path, bearer) } else { post_json(row.path, bearer, &json!({})) };
        Some(match row.route {
            Route::Keys | Route::Issuers => plain(),
            Route::TaintKey => {
                // The next one, so that tokens of the stage live on.
                let keys = self.world.flow.jwks();
                post_json(&row.path.replace("{kid}", keys["keys"][1]["kid"].as_str().unwrap()), bearer, &json!({}))
            }
            Route::RefreshIssuer => {
                // An operator is heard once a second.
                self.world.pass_s(1);
                post_json(&row.path.replace("{name}", "ci"), bearer, &json!({}))
            }
            Route::LoadBundle => {
                // Another text, or there would be nothing to record.
                self.world.bundle.set(&format!("{BUNDLE}{MORE}\n# {}\n", self.count));
                plain()
            }
            Route::Simulate => {
                let claims = json!({ "sub": "shop", "org": "acme", "event": "push" });
                post_json(row.path, bearer, &json!({ "issuer": "ci", "claims": claims, "template": "deploy" }))
            }
            Route::Blocks | Route::Cas | Route::RotateCa => plain(),
            // Of the cell's own job, or the callers of the other cells would end with it.
            Route::End => {
                let run = if known { format!("shop/cell-{}", cell.number) } else { "no-such".to_owned() };
                post_json(row.path, bearer, &json!({ "filter": { "owner": "team-shop", "job": run } }))
            }
            Route::LiftBlock => {
                let block = if known { &*cell.block } else { "blk_00000000000000000000000001" };
                delete(&row.path.replace("{block}", block), bearer)
            }
            _ => return None,
        })
    }

    async fn newest(&self) -> Vec<EventView> {
        self.world.flow.events(&OPERATOR, EventFilter::default(), 10, None).await.unwrap().items
    }

    /// Types of the events that came after `seq`.
    async fn since(&self, seq: u64) -> Vec<String> {
        let new = self.newest().await.into_iter().filter(|event| event.seq > seq);
        new.map(|event| event.body["type"].as_str().unwrap().to_owned()).collect()
    }
}

/// Whether the answer tells of the cell's row.
fn tells(answer: &Answer, cell: &Cell) -> bool {
    let of_row = [cell.task.task.to_string(), lease(&cell.task).to_string(), cell.event.clone()];
    of_row.iter().any(|id| answer.text.contains(id.as_str()))
}

fn reason(answer: &Answer) -> Value {
    answer.json()["reason"].clone()
}

/// An end is a row's own news; everything else of a public route is the same for all.
fn about_a_row(row: &RouteRow) -> bool {
    !matches!(row.who, Who::Public | Who::Evidence | Who::Possession | Who::Ops)
}

#[tokio::test]
async fn every_route_against_every_caller() {
    let mut stage = Stage::new().await;
    let mut cells = 0;
    for row in ROUTES {
        for by in CALLERS {
            let cell = stage.cell(row, by).await;
            let outcome = expected(row, by);
            let request = stage.request(row, &cell, true);
            let unknown = stage.request(row, &cell, false);
            let seq = stage.newest().await[0].seq;
            let answer = stage.world.call(request).await;
            let recorded = stage.since(seq).await;
            check(row, by, outcome, &answer, &cell);
            if outcome == Outcome::Hidden && row.listener == Listener::Broker || outcome == Outcome::Without {
                let other = stage.world.call(unknown).await;
                assert_eq!((answer.status, &answer.text), (other.status, &other.text), "{} {by:?}: unknown", row.path);
            }
            records(row, by, outcome, &recorded);
            cells += 1;
        }
    }
    assert_eq!(cells, ROUTES.len() * CALLERS.len());
    assert!(stage.world.verify().problems.is_empty());
}

fn check(row: &RouteRow, by: By, outcome: Outcome, answer: &Answer, cell: &Cell) {
    let what = format!("{} {} by {by:?}: {} {}", row.verb.as_str(), row.path, answer.status, answer.text);
    match outcome {
        Outcome::Done => {
            assert_eq!(answer.status, if row.verb == Verb::Delete { 204 } else { 200 }, "{what}");
            // Of an ended task nothing is active, and revoking by possession says nothing at all.
            let silent = row.route == Route::Revoke || !about_a_row(row) || row.who == Who::Action("broker:operate");
            // It tells of a row of the bundle, not of the cell's.
            let silent = silent || row.route == Route::Beat;
            let silent = silent || row.route == Route::Entitlements && answer.text.contains("shop-deploys");
            // And this of lists.
            let silent = silent || row.route == Route::StatusLists && answer.text.contains("/status/lst_");
            assert!(silent || tells(answer, cell), "{what}");
        }
        Outcome::Without => {
            assert_eq!((answer.status, tells(answer, cell)), (200, false), "{what}");
            assert!(["{\"items\":[]}", "{\"active\":false}", "{\"lists\":[]}"].contains(&&*answer.text), "{what}");
        }
        Outcome::Unknown => {
            assert_eq!((answer.status, reason(answer)), (401, json!("E-CLIENT")), "{what}");
            assert!(!answer.head("www-authenticate").is_empty() && !tells(answer, cell), "{what}");
        }
        Outcome::Lacks => {
            assert_eq!((answer.status, reason(answer)), (403, json!("E-SCOPE")), "{what}");
            assert!(!tells(answer, cell), "{what}");
        }
        Outcome::Over => {
            assert_eq!((answer.status, reason(answer)), (409, json!("E-NOT-ACTIVE")), "{what}");
        }
        Outcome::Hidden => {
            assert_eq!((answer.status, reason(answer)), (404, json!("E-NOT-FOUND")), "{what}");
            assert!(!tells(answer, cell), "{what}");
        }
    }
    if row.path.starts_with("/v1") || row.path.starts_with("/oauth2") && row.route != Route::Jwks {
        assert_eq!(answer.head("cache-control"), "no-store", "{what}");
    }
}

/// T-172: what a call leaves in the ledger is what the table says; a refusal leaves nothing.
fn records(row: &RouteRow, by: By, outcome: Outcome, recorded: &[String]) {
    let what = format!("{} by {by:?}: {recorded:?}", row.path);
    // What has ended already ends without another event.
    let again = by == By::OwnEndedHandle && row.route != Route::Token;
    if outcome == Outcome::Done && !row.records.is_empty() && !again {
        assert!(!recorded.is_empty(), "{what}");
    }
    let allowed = |kind: &String| outcome == Outcome::Done && row.records.contains(&kind.as_str());
    assert!(recorded.iter().all(allowed), "{what}");
}

/// T-172: a route that changes something or hands out a secret says what it records.
#[test]
fn t_172_what_changes_something_records() {
    // Asked by POST because a token does not belong into a URL; they change nothing.
    // A beat says that nothing has changed.
    let asks = [Route::Introspect, Route::Simulate, Route::Beat, Route::OcspPost];
    for row in ROUTES {
        let changes = row.verb != Verb::Get && !asks.contains(&row.route);
        assert_eq!(changes, !row.records.is_empty(), "{}", row.path);
    }
}

/// T-116: every route about one row is one of those above, and takes its id from the path.
#[test]
fn t_116_every_route_with_an_id_asks_who_is_calling() {
    let with_id: Vec<_> = ROUTES.iter().filter(|row| row.path.contains("{id}")).collect();
    assert!(with_id.len() >= 5);
    for row in with_id {
        assert!(about_a_row(row), "{} is for everybody", row.path);
        let strangers = if row.who == Who::Handle { By::StrangersHandle } else { By::OtherOwner };
        assert_eq!(expected(row, strangers), Outcome::Hidden, "{}", row.path);
    }
}

#[tokio::test]
async fn the_listener_of_health_and_metrics_has_its_routes_and_no_others() {
    let mut stage = Stage::new().await;
    let (flow, door) = (stage.world.flow.clone(), Door::new(ISSUER, "ops"));
    let ops = ops_router(Ops { flow, door, metrics: std::sync::Arc::new(String::new) });
    for row in ROUTES {
        for by in [By::Nobody, By::Garbage, By::Owner, By::Local] {
            let cell = stage.cell(row, by).await;
            let status = ops.clone().oneshot(stage.request(row, &cell, true)).await.unwrap().status().as_u16();
            let wanted = if row.listener == Listener::Ops { 200 } else { 404 };
            assert_eq!(status, wanted, "{} by {by:?}", row.path);
        }
    }
}
