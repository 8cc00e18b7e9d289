//! Slices change nothing: over random bundles and workloads a decision is what Cedar says of all
//! policies, and what a plain reading of the rows says.

use std::collections::BTreeMap;

use dayfly_domain::{
    BindingKind, ClaimType, ClaimValue, Reason, Span, Workload,
    bundle::{Bundle, Row},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    Ask, Decision, Grant, Policy,
    fixture::{ask, bearer, bundle, with},
    row,
};

/// A profile with a claim of each type, another that turns strings and sets of the same names around,
/// three issuers, and a template whose rows tests put there.
const WORLD: &str = r#"
format = 1
trust_domain = "example.org"
[owner.team]
[profile.acme]
algs = ["ES256"]
principal = ["name"]
[profile.acme.claims]
name = { at = "/n", type = "string" }
branch = { at = "/b", type = "string" }
number = { at = "/i", type = "long" }
run = { at = "/r", type = "string_long" }
safe = { at = "/s", type = "bool" }
in = { at = "/p", type = "string_bool" }
teams = { at = "/t", type = "set" }
groups = { at = "/g", type = "set" }
[profile.turned]
algs = ["ES256"]
principal = ["number"]
[profile.turned.claims]
name = { at = "/n", type = "set" }
branch = { at = "/b", type = "set" }
number = { at = "/i", type = "long" }
run = { at = "/r", type = "string_long" }
safe = { at = "/s", type = "bool" }
in = { at = "/p", type = "string_bool" }
teams = { at = "/t", type = "string" }
groups = { at = "/g", type = "string" }
[issuer.one]
profile = "acme"
owner = "team"
url = "https://one.example"
keys = { discovery = true }
[issuer.two]
profile = "acme"
owner = "team"
url = "https://two.example"
keys = { discovery = true }
[issuer.turned]
profile = "turned"
owner = "team"
url = "https://turned.example"
keys = { discovery = true }
[target.shop]
uri = "https://shop.example"
environment = "staging"
owner = "team"
binding = "bearer"
verifies = "introspect"
tags = ["inside"]
actions = ["read", "write"]
[task.work]
purpose = "work"
owner = "team"
grants = { shop = ["read", "write"] }
ttl = "15m"
review_by = 2099-01-01
[[task.work.allow]]
id = "first"
issuer = "one"
claims = { name = "nobody" }
"#;

const FORBIDS: [&str; 5] = [
    "when { principal.untrusted && principal has acme && principal.acme has branch && principal.acme.branch == \"a\" }",
    "when { context.ttl > 600 }",
    "unless { principal has acme && principal.acme has safe }",
    "when { principal has acme && principal.acme has teams && principal.acme.teams.containsAll([\"a\", \"b\"]) }",
    "when { principal has acme && principal.acme has number && principal.acme.number * 4611686018427387904 > 5 }",
];

struct Dice(TestRunner);

impl Dice {
    fn new() -> Self {
        Self(TestRunner::default())
    }

    fn below(&mut self, end: usize) -> usize {
        (0..end).new_tree(&mut self.0).unwrap().current()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn word(&mut self) -> String {
        ["a", "b", "c", "d", "é\"\\", "x\" || true"][self.below(6)].to_owned()
    }

    fn text(&mut self) -> String {
        any::<String>().new_tree(&mut self.0).unwrap().current()
    }

    fn value(&mut self, kind: ClaimType) -> ClaimValue {
        match kind {
            ClaimType::Set => ClaimValue::Set((0..self.below(4)).map(|_| self.word()).collect()),
            other => self.wanted(other),
        }
    }

    /// What a row wants of a claim: one of its values, or one of a set's members.
    fn wanted(&mut self, kind: ClaimType) -> ClaimValue {
        match kind {
            ClaimType::Long | ClaimType::StringLong => ClaimValue::Long(self.below(4) as i64 - 1),
            ClaimType::Bool | ClaimType::StringBool => ClaimValue::Bool(self.one_in(2)),
            _ => ClaimValue::String(self.word()),
        }
    }

    fn row(&mut self, id: usize, like: &Row) -> Row {
        let mut claims = BTreeMap::new();
        let issuer = ["one", "two", "turned"][self.below(3)];
        for _ in 0..=self.below(3) {
            let claim = CLAIMS[self.below(8)];
            let kind = declared(issuer, claim);
            claims.insert(claim.to_owned(), (0..=self.below(3)).map(|_| self.wanted(kind)).collect());
        }
        Row {
            id: format!("r{id}").parse().unwrap(),
            issuer: issuer.parse().unwrap(),
            claims,
            ttl: Span::seconds([300, 600, 900][self.below(3)]),
            untrusted: self.one_in(2),
            disabled: self.one_in(9),
            ..like.clone()
        }
    }

    fn workload(&mut self) -> Workload {
        let issuer = ["one", "two", "turned", "unknown"][self.below(31) / 10];
        self.workload_of(issuer)
    }

    fn workload_of(&mut self, issuer: &str) -> Workload {
        let mut claims = BTreeMap::new();
        for claim in CLAIMS {
            if !self.one_in(4) {
                // Now and then of another type than declared.
                let like = if self.one_in(40) { CLAIMS[self.below(8)] } else { claim };
                claims.insert(claim.to_owned(), self.value(declared(issuer, like)));
            }
        }
        Workload {
            issuer: issuer.parse().unwrap(),
            profile: if issuer == "turned" { "turned" } else { "acme" }.parse().unwrap(),
            principal: "one/x".into(),
            untrusted: self.one_in(2),
            job: None,
            claims,
        }
    }
}

fn declared(issuer: &str, claim: &str) -> ClaimType {
    match (claim, issuer) {
        ("number", _) => ClaimType::Long,
        ("run", _) => ClaimType::StringLong,
        ("safe", _) => ClaimType::Bool,
        ("in", _) => ClaimType::StringBool,
        ("name" | "branch", "turned") => ClaimType::Set,
        (_, "turned") | ("name" | "branch", _) => ClaimType::String,
        _ => ClaimType::Set,
    }
}

const CLAIMS: [&str; 8] = ["name", "branch", "number", "run", "safe", "in", "teams", "groups"];

fn world(rows: impl FnOnce(&Row) -> Vec<Row>, forbids: &[&str]) -> Bundle {
    let forbids = forbids.iter().enumerate().map(|(at, condition)| {
        format!("@id(\"f{at}\") @purpose(\"p\") forbid (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", resource)\n{condition};\n")
    });
    let cedar: String = forbids.collect();
    let mut bundle = bundle(&[("world.toml", WORLD), ("f.cedar", &cedar)]).unwrap();
    let template = bundle.templates.get_mut("work").unwrap();
    template.rows = rows(&template.rows[0]);
    bundle
}

fn decided(policy: &Policy, workload: &Workload, ask: &Ask) -> Result<Grant, (Reason, Vec<String>)> {
    match policy.decide(workload, ask, with(BindingKind::Bearer)) {
        Decision::Permit(grant) => Ok(grant),
        Decision::Deny(denied) => Err((denied.reason, denied.policies)),
    }
}

/// What policies.md section 3 says of a row, in so many words.
fn matches(row: &Row, workload: &Workload) -> bool {
    !row.disabled
        && row.issuer == workload.issuer
        && (row.untrusted || !workload.untrusted)
        && row.claims.iter().all(|claim| claim_matches(claim, workload))
}

fn claim_matches((name, wanted): (&String, &Vec<ClaimValue>), workload: &Workload) -> bool {
    match workload.claims.get(name) {
        Some(ClaimValue::Set(members)) => {
            members.iter().any(|member| wanted.contains(&ClaimValue::String(member.clone())))
        }
        Some(value) => wanted.contains(value),
        None => false,
    }
}

/// The row that decides, of those that match: the longest, of equals the first by id.
fn deciding<'a>(rows: &'a [Row], workload: &Workload, ttl_s: u32) -> Option<&'a Row> {
    let given = |row: &Row| row.ttl.as_s().min(ttl_s);
    let matching = rows.iter().filter(|row| matches(row, workload));
    matching.min_by(|a, b| given(b).cmp(&given(a)).then_with(|| a.id.cmp(&b.id)))
}

fn well_typed(workload: &Workload) -> bool {
    workload.claims.iter().all(|(name, value)| {
        matches!(
            (declared(&workload.issuer, name), value),
            (ClaimType::String, ClaimValue::String(_))
                | (ClaimType::Long | ClaimType::StringLong, ClaimValue::Long(_))
                | (ClaimType::Bool | ClaimType::StringBool, ClaimValue::Bool(_))
                | (ClaimType::Set, ClaimValue::Set(_))
        )
    })
}

/// Whether what Cedar is shown could matter: a row of the workload's issuer that agrees in a claim.
fn is_near(row: &Row, workload: &Workload) -> bool {
    row.issuer == workload.issuer && row.claims.iter().any(|claim| claim_matches(claim, workload))
}

#[test]
fn a_prefiltered_decision_is_the_decision_of_all_rows() {
    let mut dice = Dice::new();
    let (mut permitted, mut forbidden, mut erred) = (0, 0, 0);
    for _ in 0..12 {
        let forbids: Vec<_> = FORBIDS.into_iter().filter(|_| dice.one_in(3)).collect();
        let count = dice.below(40);
        let bundle = world(|like| (0..count).map(|id| dice.row(id, like)).collect(), &forbids);
        let rows: BTreeMap<_, _> =
            bundle.templates["work"].rows.iter().map(|row| (row.id.to_string(), row.clone())).collect();
        let (sliced, mut whole) = (Policy::compile(bundle.clone()).unwrap(), Policy::compile(bundle).unwrap());
        whole.unslice();
        for _ in 0..150 {
            let job = dice.workload();
            let asked = Ask { ttl_s: [None, Some(60), Some(600)][dice.below(3)], ..ask("work") };
            let found = decided(&sliced, &job, &asked);
            assert_eq!(found, decided(&whole, &job, &asked), "{job:?}");
            let seen = sliced.run["work"].rows.seen(&job);
            assert!(seen.iter().all(|id| is_near(&rows[id], &job)), "{job:?} {seen:?}");
            match found {
                Ok(_) => permitted += 1,
                Err((Reason::Forbidden, _)) => forbidden += 1,
                Err((Reason::Policy, _)) => erred += 1,
                Err(_) => {}
            }
        }
    }
    assert!(permitted > 50 && forbidden > 50 && erred > 50, "{permitted} {forbidden} {erred}");
}

#[test]
fn a_row_and_its_permit_agree_with_a_plain_reading() {
    let mut dice = Dice::new();
    let mut permitted = 0;
    for _ in 0..8 {
        let bundle = world(|like| (0..30).map(|id| dice.row(id, like)).collect(), &[]);
        let rows = bundle.templates["work"].rows.clone();
        let policy = Policy::compile(bundle).unwrap();
        for _ in 0..200 {
            let issuer = ["one", "two", "turned"][dice.below(3)];
            let job = dice.workload_of(issuer);
            let found = decided(&policy, &job, &ask("work"));
            if !well_typed(&job) {
                assert_eq!(found.map(drop), Err((Reason::Policy, Vec::new())));
                continue;
            }
            let wanted = deciding(&rows, &job, 900).map(|row| row.id.as_str());
            assert_eq!(found.as_ref().ok().map(|grant| &**grant.row()), wanted, "{job:?}");
            permitted += usize::from(found.is_ok());
        }
    }
    assert!(permitted > 200, "{permitted}");
}

#[test]
fn one_more_forbid_never_grants_more() {
    let mut dice = Dice::new();
    let mut fewer = 0;
    for _ in 0..10 {
        let mut forbids: Vec<_> = FORBIDS.into_iter().filter(|_| dice.one_in(4)).collect();
        let first = world(|like| (0..20).map(|id| dice.row(id, like)).collect(), &forbids);
        forbids.push(FORBIDS[dice.below(FORBIDS.len())]);
        let rows = first.templates["work"].rows.clone();
        let more = world(|_| rows, &forbids);
        let (first, more) = (Policy::compile(first).unwrap(), Policy::compile(more).unwrap());
        for _ in 0..100 {
            let (job, asked) = (dice.workload(), Ask { ttl_s: [None, Some(60)][dice.below(2)], ..ask("work") });
            match (decided(&first, &job, &asked), decided(&more, &job, &asked)) {
                (Ok(before), Ok(after)) => assert_eq!(before, after, "the same, or nothing"),
                (Err(_), Ok(after)) => panic!("a forbid granted {after:?} to {job:?}"),
                (Ok(_), Err(_)) => fewer += 1,
                (Err(_), Err(_)) => {}
            }
        }
    }
    assert!(fewer > 20, "{fewer}");
}

#[test]
fn t_176_a_row_with_any_value_matches_exactly_that_value() {
    let mut dice = Dice::new();
    let bundle = world(|like| vec![like.clone()], &[]);
    let (template, issuer) = (&bundle.templates["work"], &bundle.issuers["one"]);
    let job = |name: &str| Workload {
        issuer: "one".parse().unwrap(),
        profile: "acme".parse().unwrap(),
        principal: "one/x".into(),
        untrusted: false,
        job: None,
        claims: BTreeMap::from([("name".to_owned(), ClaimValue::String(name.to_owned()))]),
    };
    let mut values: Vec<String> =
        ["", "\"", "\\", "\\\"", "\\u{0}", "\0", "\n", "*", "\u{202e}", "a\" } || true when { \"", "${x}", "{{", "🦀"]
            .map(str::to_owned)
            .into();
    values.extend((0..300).map(|_| dice.text()));
    for (at, value) in values.iter().enumerate() {
        let claims = BTreeMap::from([("name".to_owned(), vec![ClaimValue::String(value.clone())])]);
        let row = Row { claims, ..template.rows[0].clone() };
        let permit = row::permit(template, &row, issuer).unwrap();
        let shown = cedar_policy::Policy::parse(Some(permit.id().clone()), row::text(template, &row, issuer)).unwrap();
        assert_eq!(permit, shown, "what is shown is what decides: {value:?}");
        if at % 20 != 0 && at > 12 {
            continue;
        }
        let mut world = bundle.clone();
        world.templates.get_mut("work").unwrap().rows = vec![row];
        let Ok(policy) = Policy::compile(world) else {
            assert!(!value.is_ascii(), "only letters that turn a text around are refused: {value:?}");
            continue;
        };
        assert!(bearer(&policy, &job(value), &ask("work")).is_ok(), "{value:?}");
        let others = [format!("{value} "), format!(" {value}"), format!("{value}\\"), "nobody".to_owned()];
        for other in others.iter().chain(values.iter().filter(|other| *other != value).take(20)) {
            assert!(bearer(&policy, &job(other), &ask("work")).is_err(), "{value:?} is not {other:?}");
        }
    }
}

#[test]
fn t_177_what_two_identities_may_do_does_not_add_up() {
    let row = |id: &str, issuer: &str, claim: &str, like: &Row| Row {
        id: id.parse().unwrap(),
        issuer: issuer.parse().unwrap(),
        claims: BTreeMap::from([(claim.to_owned(), vec![ClaimValue::String("a".to_owned())])]),
        ..like.clone()
    };
    let both = |like: &Row| vec![row("by-name", "one", "name", like), row("by-branch", "two", "branch", like)];
    let policy = Policy::compile(world(both, &[])).unwrap();
    let decides = |issuer: &str, claim: &str| {
        let job = Workload {
            issuer: issuer.parse().unwrap(),
            profile: "acme".parse().unwrap(),
            // One workload, whichever platform vouches for it.
            principal: "x".into(),
            untrusted: false,
            job: None,
            claims: BTreeMap::from([(claim.to_owned(), ClaimValue::String("a".to_owned()))]),
        };
        bearer(&policy, &job, &ask("work")).is_ok()
    };
    assert!(decides("one", "name") && decides("two", "branch"));
    assert!(!decides("one", "branch") && !decides("two", "name"), "only the identity that was proven now counts");
}

#[test]
fn what_is_shown_of_any_row_is_what_decides() {
    let mut dice = Dice::new();
    let bundle = world(|like| (0..200).map(|id| dice.row(id, like)).collect(), &[]);
    let template = &bundle.templates["work"];
    for row in &template.rows {
        let issuer = &bundle.issuers[&row.issuer];
        let permit = row::permit(template, row, issuer).unwrap();
        let shown = cedar_policy::Policy::parse(Some(permit.id().clone()), row::text(template, row, issuer)).unwrap();
        assert_eq!(permit, shown);
    }
}

#[test]
fn rows_of_one_form_are_all_valid_when_one_is() {
    let mut dice = Dice::new();
    let bundle = world(|like| (0..150).map(|id| dice.row(id, like)).collect(), &[]);
    let template = &bundle.templates["work"];
    let permits = template.rows.iter().map(|row| row::permit(template, row, &bundle.issuers[&row.issuer]).unwrap());
    let all = cedar_policy::PolicySet::from_policies(permits).unwrap();
    let (schema, _) = cedar_policy::Schema::from_cedarschema_str(&super::schema::text(&bundle)).unwrap();
    let result = cedar_policy::Validator::new(schema).validate(&all, cedar_policy::ValidationMode::Strict);
    assert!(result.validation_passed(), "{result}");
    Policy::compile(bundle).unwrap();
}

#[test]
fn ten_thousand_rows_load_and_a_decision_sees_few_of_them() {
    let rows = |like: &Row| {
        let claims = |at: usize| {
            let text = |text: String| vec![ClaimValue::String(text)];
            BTreeMap::from([
                ("name".to_owned(), text(format!("repo-{}", at / 4))),
                ("branch".to_owned(), text(format!("branch-{}", at % 4))),
                ("number".to_owned(), vec![ClaimValue::Long((at % 2) as i64), ClaimValue::Long(7)]),
            ])
        };
        let row = |at: usize| Row { id: format!("r{at}").parse().unwrap(), claims: claims(at), ..like.clone() };
        (0..10_000).map(row).collect()
    };
    let policy = Policy::compile(world(rows, &[])).unwrap();
    let job = |number| Workload {
        issuer: "one".parse().unwrap(),
        profile: "acme".parse().unwrap(),
        principal: "one/x".into(),
        untrusted: false,
        job: None,
        claims: BTreeMap::from([
            ("name".to_owned(), ClaimValue::String("repo-2499".to_owned())),
            ("branch".to_owned(), ClaimValue::String("branch-3".to_owned())),
            ("number".to_owned(), ClaimValue::Long(number)),
        ]),
    };
    assert_eq!(&**bearer(&policy, &job(7), &ask("work")).unwrap().row(), "r9999");
    assert!(bearer(&policy, &job(0), &ask("work")).is_err());
    assert_eq!(policy.run["work"].rows.seen(&job(7)), ["r9999"]);
    assert!(policy.run["work"].rows.seen(&job(0)).is_empty());
}

#[test]
fn sets_of_one_profile_are_not_looked_up_by_the_rows_of_another() {
    let text = |text: &str| vec![ClaimValue::String(text.to_owned())];
    let both = |like: &Row| Row {
        claims: BTreeMap::from([("name".to_owned(), text("a")), ("branch".to_owned(), text("b"))]),
        ..like.clone()
    };
    let of_turned = |like: &Row| Row { id: "r2".parse().unwrap(), issuer: "turned".parse().unwrap(), ..both(like) };
    let policy = Policy::compile(world(|like| vec![both(like), of_turned(like)], &[])).unwrap();
    let members = || ClaimValue::Set((0..600).map(|member| format!("m{member}")).collect());
    let job = Workload {
        issuer: "turned".parse().unwrap(),
        profile: "turned".parse().unwrap(),
        principal: "turned/x".into(),
        untrusted: false,
        job: None,
        claims: BTreeMap::from([("name".to_owned(), members()), ("branch".to_owned(), members())]),
    };
    assert_eq!(policy.run["work"].rows.keys_tried(&job), 600, "of one of its sets, not of all pairs of two");
}
