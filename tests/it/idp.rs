//! A real identity provider: the certified `oidc-provider`, whose access tokens are the evidence of
//! a whole story with a real broker, and which rotates its keys during it.

use std::{fs, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    flow::{Exchange, Flow, Folder, Startup, Subject, start},
    policy::BundleEnv,
    store::Store,
    sys::{
        clock::{Clock, Stepped},
        net::Client,
    },
};
use dayfly_domain::{BindingKind, Reason};
use serde_json::Value;

use super::{
    dev,
    foreign::{Talker, node, skipped},
    served::{Authority, Served, form, send, told},
    world::{ask, secret},
};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const CONTROL: &str = "urn:dayfly:token-type:task-control";
const ORDERS: &str = "https://orders.staging.example.org";
const CLIENT: &str = "orders-service";
const SECRET: &str = "the-provider-and-its-client-know-this";

/// The provider, and what its client knows of it.
pub struct Provider {
    talker: Talker,
    pub url: String,
    ca: String,
}

impl Provider {
    pub fn start(work: &Path, authority: &Authority) -> Self {
        Self::start_at(work, authority, "0")
    }

    /// Back where it was, as after an outage; its keys are new ones.
    pub fn back(work: &Path, authority: &Authority, url: &str) -> Self {
        Self::start_at(work, authority, url.rsplit(':').next().unwrap())
    }

    fn start_at(work: &Path, authority: &Authority, port: &str) -> Self {
        authority.write_leaf(work, "idp");
        let mut command = node(work, "idp.mjs");
        command.args(["idp.cert", "idp.key", SECRET, port]).stderr(fs::File::create(work.join("idp.said")).unwrap());
        let mut talker = Talker::start(&mut command);
        let url = talker.hear()["issuer"].as_str().unwrap().to_owned();
        Self { talker, url, ca: authority.pem() }
    }

    /// A token of the one client, for `audience`; each has a `jti` of its own.
    pub fn token(&self, audience: &str) -> String {
        let client = Client::https(&self.url, Some(self.ca.clone().into())).unwrap();
        let ask = [
            ("grant_type", "client_credentials"),
            ("resource", audience),
            ("client_id", CLIENT),
            ("client_secret", SECRET),
        ];
        let (status, answer) = told(&send(&client, form("/token", &ask)));
        assert_eq!(status, 200, "{answer}");
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// How often its keys were fetched.
    fn fetches(&mut self) -> u64 {
        self.talker.ask("state")["fetches"].as_u64().unwrap()
    }
}

/// What a platform team writes for such a provider.
pub fn bundle(idp: &str) -> String {
    format!(
        r#"
format       = 1
trust_domain = "example.org"

[owner.team-orders]
contact = "orders@example.org"

[issuer.company]
profile = "oidc"
owner   = "team-orders"
url     = "{idp}"
keys    = {{ discovery = true, ca_file = "ca.pem", allow_private = true }}
typ     = ["at+jwt"]
algs    = ["RS256"]

[issuer.company.claims]
env  = {{ at = "/env", type = "string", required = true }}
team = {{ at = "/team", type = "string" }}

[target.orders]
uri         = "{ORDERS}"
environment = "staging"
owner       = "team-orders"
binding     = "bearer"
verifies    = "introspect"
actions     = ["orders:read"]

[task.sync]
purpose   = "copy the orders"
owner     = "team-orders"
grants    = {{ orders = ["orders:read"] }}
ttl       = "5m"
deadline  = "1h"
review_by = 2027-06-30

[[task.sync.allow]]
id     = "sync-staging"
issuer = "company"
claims = {{ env = "staging", team = "orders" }}
"#
    )
}

fn serve(work: &Path, authority: &Authority, idp: &str) -> Served {
    Served::first(work, authority, |_| {
        fs::write(work.join("bundle/ca.pem"), authority.pem()).unwrap();
        bundle(idp)
    })
}

fn open(broker: &Served, evidence: &str) -> (u16, Value) {
    let ask = [("grant_type", EXCHANGE), ("subject_token_type", JWT), ("subject_token", evidence), ("scope", "sync")];
    broker.post("/oauth2/token", &ask)
}

fn opened(broker: &Served, evidence: &str) -> Value {
    let (status, answer) = open(broker, evidence);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn refused(broker: &Served, evidence: &str) -> (u16, String) {
    let (status, answer) = open(broker, evidence);
    (status, answer["reason"].as_str().unwrap_or_default().to_owned())
}

fn renewed(broker: &Served, handle: &str) -> (u16, Value) {
    let ask =
        [("grant_type", EXCHANGE), ("subject_token_type", CONTROL), ("subject_token", handle), ("supersede", "0")];
    broker.post("/oauth2/token", &ask)
}

fn end(broker: &Served, task: &str) {
    broker.verb(&["task", "end", task, "--state", "state", "--reason", "the orders are copied"]);
}

fn text<'a>(answer: &'a Value, name: &str) -> &'a str {
    answer[name].as_str().unwrap_or_else(|| panic!("no `{name}`: {answer}"))
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn not_well_signed() -> (u16, String) {
    (400, "E-SIGNATURE".to_owned())
}

#[test]
fn a_service_with_a_token_of_a_certified_provider_from_exchange_to_the_end() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let idp = Provider::start(work, &authority);
    let mut broker = serve(work, &authority, &idp.url);

    let evidence = idp.token(&broker.issuer);
    let first = opened(&broker, &evidence);
    assert_eq!(refused(&broker, &evidence), (400, "E-REPLAYED".to_owned()));
    let (token, handle) = (text(&first, "access_token"), text(&first, "task_control"));
    let said = claims(token);
    assert_eq!((&said["iss"], &said["aud"]), (&Value::from(broker.issuer.as_str()), &Value::from(ORDERS)));
    assert!(text(&said, "sub").starts_with("spiffe://example.org/sync/company/"), "{said}");
    assert!(broker.active(token));

    let feed =
        [("grant_type", EXCHANGE), ("subject_token_type", CONTROL), ("subject_token", handle), ("supersede", "0")];
    let (status, second) = broker.post("/oauth2/token", &feed);
    assert_eq!((status, text(&second, "task_id")), (200, text(&first, "task_id")), "{second}");
    let newer = text(&second, "access_token");
    assert!(broker.active(newer) && !broker.active(token), "superseded at once");

    end(&broker, text(&first, "task_id"));
    assert!(!broker.active(newer));
    assert!(broker.verb(&["ledger", "verify", "--state", "state"]).contains("verified"));
    assert!(broker.stop().success(), "{}", broker.said());
    assert!(broker.verb(&["ledger", "verify", "--state", "state"]).contains("verified"));

    let kept = fs::read(work.join("state/dayfly.db")).unwrap();
    for secret in [evidence.rsplit('.').next().unwrap(), SECRET, handle] {
        assert!(!broker.said().contains(secret), "logged");
        assert!(!kept.windows(secret.len()).any(|window| window == secret.as_bytes()), "kept");
    }
}

#[test]
fn what_the_provider_did_not_mean_for_us_opens_nothing() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let idp = Provider::start(work, &authority);
    let broker = serve(work, &authority, &idp.url);
    assert_eq!(refused(&broker, &idp.token("https://other.example.org")), (400, "E-AUDIENCE".to_owned()));
    assert_eq!(refused(&broker, &idp.token(&format!("{}/v1", broker.issuer))), (400, "E-AUDIENCE".to_owned()));
    let good = idp.token(&broker.issuer);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = idp.token(&broker.issuer);
    let foreign = other.rsplit('.').next().unwrap();
    assert_eq!(refused(&broker, &format!("{signed}.{foreign}")), not_well_signed());
    assert_eq!(refused(&broker, &format!("{signed}.{}", &signature[4..])), not_well_signed());
    opened(&broker, &good);
}

#[test]
fn a_rotation_of_the_providers_keys_in_the_middle_of_a_story() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let mut idp = Provider::start(work, &authority);
    let mut broker = serve(work, &authority, &idp.url);
    let [early, later] = [idp.token(&broker.issuer), idp.token(&broker.issuer)];
    let task = opened(&broker, &early);
    assert_eq!(idp.fetches(), 1);

    // A key that the broker has not seen: no fetch for it until 30 s after the last one, however
    // often it is presented (T-53). What it knows goes on.
    idp.talker.ask("rotate");
    let newer = idp.token(&broker.issuer);
    for _ in 0..5 {
        assert_eq!(refused(&broker, &newer), not_well_signed());
    }
    assert_eq!(idp.fetches(), 1, "a token makes no broker fetch at will");
    opened(&broker, &later);

    // A start knows no keys and fetches: both are good while both are published.
    broker.restart();
    let second = opened(&broker, &newer);
    assert_eq!(idp.fetches(), 2);

    // Taken out, and seen to be.
    idp.talker.ask("rotate");
    let retired = idp.token(&broker.issuer);
    idp.talker.ask("rotate");
    idp.talker.ask("retire");
    broker.restart();
    opened(&broker, &idp.token(&broker.issuer));
    for _ in 0..5 {
        assert_eq!(refused(&broker, &retired), not_well_signed());
    }
    assert_eq!(idp.fetches(), 3);

    // What was opened under keys that are gone lives on by its handle, and ends by it.
    let (status, renewed) = renewed(&broker, text(&task, "task_control"));
    assert_eq!(status, 200, "{renewed}");
    let [renewed, second] = [&renewed, &second].map(|answer| text(answer, "access_token"));
    assert!(broker.active(renewed) && broker.active(second));
    end(&broker, text(&task, "task_id"));
    assert!(!broker.active(renewed) && broker.active(second));
    assert!(broker.verb(&["ledger", "verify", "--state", "state"]).contains("verified"));
}

#[test]
fn while_the_provider_is_away_known_keys_open_tasks_and_without_any_the_answer_is_later() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let mut idp = Provider::start(work, &authority);
    let mut broker = serve(work, &authority, &idp.url);
    let [first, second, third] = [(); 3].map(|()| idp.token(&broker.issuer));
    opened(&broker, &first);
    idp.talker.ask("rotate");
    let unseen = idp.token(&broker.issuer);
    drop(idp);

    opened(&broker, &second);
    assert_eq!(refused(&broker, &unseen), not_well_signed());

    // Without any keys nothing can be said of a token: it is not refused for good.
    broker.restart();
    let (status, answer) = open(&broker, &third);
    assert_eq!((status, text(&answer, "reason")), (503, "E-ISSUER-DOWN"), "{answer}");
    assert_eq!(text(&answer, "error"), "temporarily_unavailable");
}

/// Killed and started again at its address: what is known goes on meanwhile, and an operator's word is
/// enough afterwards.
#[test]
fn the_provider_goes_away_and_comes_back_with_other_keys() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let work = work.path();
    let idp = Provider::start(work, &authority);
    let url = idp.url.clone();
    let broker = serve(work, &authority, &url);
    let [first, second, third] = [(); 3].map(|()| idp.token(&broker.issuer));
    opened(&broker, &first);
    assert_eq!(listed(&broker)["state"], "fresh");
    drop(idp);

    let failed = dev::dayfly(&["issuer", "refresh", "company", "--state", "state"]).current_dir(work).output().unwrap();
    let said = dev::text(&failed.stderr);
    assert!(failed.status.code() == Some(75) && said.contains("its host refuses the connection"), "{said}");
    opened(&broker, &second);
    let seen = listed(&broker);
    assert_eq!((&seen["keys"], &seen["why"]), (&1.into(), &"discovery: its host refuses the connection".into()));
    assert!(seen["failures"].as_u64() >= Some(1), "{seen}");

    let mut idp = Provider::back(work, &authority, &url);
    let newer = idp.token(&broker.issuer);
    assert_eq!(refused(&broker, &newer), not_well_signed());
    // An operator is heard once a second.
    dev::wait_until("the refresh", || {
        let verb =
            dev::dayfly(&["issuer", "refresh", "company", "--state", "state"]).current_dir(work).output().unwrap();
        verb.status.success()
    });
    opened(&broker, &newer);
    assert_eq!(refused(&broker, &third), not_well_signed(), "its key is not published any more");
    assert_eq!(idp.fetches(), 1);
    let seen = listed(&broker);
    assert_eq!((&seen["state"], seen.get("why")), (&"fresh".into(), None), "{seen}");
    let events = broker.verb(&["ledger", "show", "--state", "state", "--output", "jsonl"]);
    assert_eq!(events.lines().filter(|line| line.contains("issuer_refresh")).count(), 2);
    assert!(broker.verb(&["ledger", "verify", "--state", "state"]).contains("verified"));
}

/// The provider, as `dayfly issuer ls` shows it.
fn listed(broker: &Served) -> Value {
    let listed = broker.verb(&["issuer", "ls", "--state", "state", "--output", "json"]);
    serde_json::from_str::<Value>(&listed).unwrap()["items"][0].clone()
}

/// The same broker in the test's hand, so that its clock can be stepped over the waits.
struct Stepping {
    flow: Flow,
    clock: Arc<Stepped>,
}

impl Stepping {
    fn start(work: &Path, authority: &Authority, idp: &str) -> Self {
        dayfly_verifier::crypto::init().unwrap();
        let folder = work.join("stepping");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        fs::write(folder.join("bundle.toml"), bundle(idp)).unwrap();
        let env = BundleEnv { issuer_url: ISSUER.to_owned(), broker_binding: BindingKind::Bearer };
        let clock = Stepped::at(Clock::Machine.wall());
        let startup = Startup {
            issuer: ISSUER.to_owned(),
            clock: Clock::Stepped(clock.clone()),
            store: Store::memory().unwrap(),
            keys_dir: None,
            source: Arc::new(Folder { path: folder, env }),
            strict_rollback: false,
            review_grace: dayfly_domain::Span::seconds(30 * 86_400),
            list_sizes: Default::default(),
            allowance: dayfly::run::limits::allowance(crate::world::PLENTY),
            pki: None,
        };
        let (flow, writer, _) = start(startup).unwrap();
        std::thread::spawn(move || writer.run());
        Self { flow, clock }
    }

    async fn open(&self, evidence: &str) -> Result<(), Reason> {
        let subject = Subject::Evidence { token: secret(evidence), control_s256: None };
        let exchange = Exchange { subject, ask: ask("sync"), possession: None, csr: None };
        self.flow.exchange(exchange).await.map(drop).map_err(|refused| refused.reason)
    }

    fn pass_s(&self, seconds: i64) {
        self.clock.advance_ms(seconds * 1000);
    }
}

const ISSUER: &str = "https://broker.example.org";

#[tokio::test]
async fn t_053_a_new_key_is_found_after_the_cooldown_and_t_056_an_old_one_is_lost_when_keys_are_looked_at_again() {
    if skipped("node") {
        return;
    }
    let (work, authority) = (dev::work(), Authority::new());
    let mut idp = Provider::start(work.path(), &authority);
    let broker = Stepping::start(work.path(), &authority, &idp.url);
    let [first, still, gone] = [(); 3].map(|()| idp.token(ISSUER));
    assert_eq!(broker.open(&first).await, Ok(()));
    idp.talker.ask("rotate");
    let [newer, known, away] = [(); 3].map(|()| idp.token(ISSUER));
    broker.pass_s(29);
    assert_eq!(broker.open(&newer).await, Err(Reason::Signature));
    assert_eq!(idp.fetches(), 1);
    broker.pass_s(1);
    assert_eq!(broker.open(&newer).await, Ok(()));
    assert_eq!(idp.fetches(), 2);

    idp.talker.ask("retire");
    broker.pass_s(299);
    assert_eq!(broker.open(&still).await, Ok(()), "within the bound of 300 s the broker may not know");
    broker.pass_s(1);
    assert_eq!(broker.open(&gone).await, Err(Reason::Signature));
    assert_eq!(idp.fetches(), 3);

    // Away for longer than its keys are fresh: they are believed on, and looked for again.
    assert_eq!(broker.open(&known).await, Ok(()));
    idp.talker.ask("rotate");
    let unseen = idp.token(ISSUER);
    drop(idp);
    broker.pass_s(200);
    assert_eq!(broker.open(&unseen).await, Err(Reason::Signature));
    broker.pass_s(20);
    assert_eq!(broker.open(&away).await, Ok(()));
}
