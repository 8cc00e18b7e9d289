//! Lints against decisions: what a lint says can never match is never permitted, and what it calls
//! useless permits nothing that its neighbour does not; over random profiles, rows and evidence.

use dayfly_domain::{
    Reason,
    bundle::{Bundle, Problem, Reach},
};
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};
use serde_json::{Map, Value, json};

use super::{
    Policy,
    fixture::{ask, bearer, env, no_extras, source},
    parse,
};
use crate::intake;

const BUNDLES: usize = 150;
const EVIDENCE: usize = 60;
const NAMES: [&str; 4] = ["a", "b", "c", "groups"];
const VALUES: [&str; 3] = ["x", "y", "z"];

/// Some claims, each with some of the values.
type Picked = Vec<(usize, Vec<usize>)>;

fn picked(most: usize) -> impl Strategy<Value = Picked> {
    vec((0..NAMES.len(), vec(0..VALUES.len(), 1..3)), 1..=most)
}

fn listed(values: &[usize]) -> String {
    values.iter().map(|value| format!("\"{}\"", VALUES[*value])).collect::<Vec<_>>().join(", ")
}

/// `a = ["x"], b = [...]`: each name once.
fn table(picked: &Picked) -> String {
    let once = picked.iter().enumerate().filter(|(at, (name, _))| picked[..*at].iter().all(|(other, _)| other != name));
    let one = once.map(|(_, (name, values))| format!("{} = [{}]", NAMES[*name], listed(values)));
    one.collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Clone)]
struct World {
    refuse: Vec<Picked>,
    untrusted: Vec<Picked>,
    require: Vec<Picked>,
    same: bool,
    pin: Option<usize>,
    one_of: Vec<usize>,
    rows: Vec<(Picked, bool)>,
}

fn world() -> impl Strategy<Value = World> {
    let profile = (vec(picked(2), 0..3), vec(picked(2), 0..2), vec(picked(1), 0..2), any::<bool>());
    let rest = (proptest::option::of(0..VALUES.len()), vec(0..VALUES.len(), 0..3), vec((picked(3), any::<bool>()), 2));
    (profile, rest).prop_map(|((refuse, untrusted, require, same), (pin, one_of, rows))| World {
        refuse,
        untrusted,
        require,
        same,
        pin,
        one_of,
        rows,
    })
}

impl World {
    /// Only these rows are in force.
    fn text(&self, live: &[usize]) -> String {
        let tables = |all: &[Picked], code: &str| {
            let one = all.iter().map(|when| format!("{{ {}{code} }}", table(when)));
            one.collect::<Vec<_>>().join(", ")
        };
        // What says `untrusted` cannot be left out.
        let required = |name: &str| {
            let named = self.untrusted.iter().flatten().any(|(at, _)| NAMES[*at] == name);
            if named { ", required = true" } else { "" }
        };
        let mut text = format!(
            "format = 1\ntrust_domain = \"example.org\"\n[owner.o]\n[profile.p]\nalgs = [\"ES256\"]\nprincipal = [\"sub\"]\n\
             refuse = [{}]\nuntrusted = [{}]\nrequire = [{}]\nsame = [{}]\n[profile.p.claims]\n\
             sub = {{ at = \"/sub\", type = \"string\" }}\nb = {{ at = \"/b\", type = \"string\"{} }}\nc = {{ at = \"/c\", type = \"string\"{} }}\n\
             a = {{ at = \"/a\", type = \"string\", one_of = [{}]{} }}\ngroups = {{ at = \"/groups\", type = \"set\"{} }}\n\
             [issuer.i]\nprofile = \"p\"\nowner = \"o\"\nurl = \"https://ci.example\"\n{}\n\
             [target.t]\nuri = \"https://t.example\"\nenvironment = \"e\"\nowner = \"o\"\nbinding = \"bearer\"\nverifies = \"introspect\"\n\
             actions = [\"look\"]\nreads = [\"look\"]\n\
             [task.t]\npurpose = \"p\"\nowner = \"o\"\ngrants = {{ t = [\"look\"] }}\nttl = \"5m\"\nreview_by = 2099-01-01\n",
            tables(&self.refuse, ", code = \"E-EVENT\""),
            tables(&self.untrusted, ""),
            tables(&self.require, ", code = \"E-EVENT\""),
            if self.same { "[\"b\", \"c\"]" } else { "" },
            required("b"),
            required("c"),
            listed(&self.one_of),
            required("a"),
            required("groups"),
            self.pin.map(|value| format!("pin = {{ b = \"{}\" }}", VALUES[value])).unwrap_or_default(),
        );
        for (index, (claims, untrusted)) in self.rows.iter().enumerate() {
            let disabled = !live.contains(&index);
            text.push_str(&format!(
                "[[task.t.allow]]\nid = \"r{index}\"\nissuer = \"i\"\nuntrusted = {untrusted}\ndisabled = {disabled}\nclaims = {{ {} }}\n",
                table(claims)
            ));
        }
        text
    }

    fn parsed(&self, live: &[usize]) -> Result<Bundle, Vec<Problem>> {
        parse(&[source("t.toml", &self.text(live))], &env(), &mut no_extras).map(|(bundle, _)| bundle)
    }

    /// These rows in force, whatever a lint says of them.
    fn forced(&self, live: &[usize]) -> Policy {
        let mut bundle = self.parsed(&[]).unwrap_or_else(|problems| panic!("{problems:?}\n{}", self.text(&[])));
        for template in bundle.templates.values_mut() {
            live.iter().for_each(|index| template.rows[*index].disabled = false);
        }
        Policy::compile(bundle).unwrap()
    }
}

/// What a platform may send: of a claim that is listed, what is in the list.
fn evidence(world: &World) -> impl Strategy<Value = Map<String, Value>> + use<> {
    let a = if world.one_of.is_empty() { vec![0, 1, 2] } else { world.one_of.clone() };
    let one = || proptest::option::weighted(0.9, 0..VALUES.len());
    let a = proptest::option::weighted(0.9, proptest::sample::select(a));
    (a, one(), one(), vec(0..VALUES.len(), 0..3)).prop_map(|(a, b, c, groups)| {
        let mut payload = Map::from_iter([("sub".to_owned(), json!("s"))]);
        for (name, value) in [("a", a), ("b", b), ("c", c)] {
            payload.extend(value.map(|value| (name.to_owned(), json!(VALUES[value]))));
        }
        payload.insert("groups".to_owned(), groups.into_iter().map(|value| json!(VALUES[value])).collect());
        payload
    })
}

/// The row that permits, if the evidence is believed at all.
fn permitted(policy: &Policy, payload: &Map<String, Value>) -> Option<String> {
    let bundle = policy.bundle();
    let workload = intake::read(&bundle.issuers["i"], &bundle.profiles["p"], payload).ok()?;
    match bearer(policy, &workload, &ask("t")) {
        Ok(grant) => Some(grant.row().to_string()),
        Err(denied) => {
            assert_eq!(denied.reason, Reason::NoMatch);
            None
        }
    }
}

fn drawn<T>(runner: &mut TestRunner, strategy: impl Strategy<Value = T>) -> T {
    strategy.new_tree(runner).unwrap().current()
}

fn runner() -> TestRunner {
    TestRunner::new(Config { failure_persistence: None, ..Config::default() })
}

#[test]
fn what_is_said_never_to_match_never_does() {
    let (mut runner, mut never, mut cut, mut matched) = (runner(), 0, 0, 0);
    for _ in 0..BUNDLES {
        let world = drawn(&mut runner, world());
        let policy = world.forced(&[0]);
        let bundle = policy.bundle();
        let reach = Reach::of(&bundle.templates["t"].rows[0], &bundle.issuers["i"], &bundle.profiles["p"]);
        let said = world.parsed(&[0]).is_err_and(|problems| problems[0].what.contains("[never-matches]"));
        assert_eq!(said, reach.never().is_some(), "{}", world.text(&[0]));
        never += usize::from(said);
        for _ in 0..EVIDENCE {
            let payload = drawn(&mut runner, evidence(&world));
            if permitted(&policy, &payload).is_none() {
                continue;
            }
            matched += 1;
            assert!(!said, "{payload:?}\n{}", world.text(&[0]));
            for gone in reach.cut.iter().filter(|gone| gone.claim != "groups") {
                cut += 1;
                assert_ne!(payload[&gone.claim], json!(gone.value), "{:?}\n{}", gone.why, world.text(&[0]));
            }
        }
    }
    assert!(never > 10 && cut > 10 && matched > 100, "{never} never, {cut} cut, {matched} matched");
}

#[test]
fn what_is_useless_permits_nothing_that_its_neighbour_does_not() {
    let (mut runner, mut useless, mut matched) = (runner(), 0, 0);
    for _ in 0..BUNDLES {
        let mut world = drawn(&mut runner, world());
        // Half of them are made of one row and a narrower one.
        if world.pin.is_some() {
            let (wide, untrusted) = world.rows[0].clone();
            world.rows[1] = (wide.into_iter().chain(world.rows[1].0.clone()).collect(), untrusted);
        }
        let problems = world.parsed(&[0, 1]).err().unwrap_or_default();
        let Some(problem) = problems.iter().find(|problem| problem.what.contains("[useless]")) else { continue };
        let (gone, kept) = if problem.at.ends_with("r0") { (0, 1) } else { (1, 0) };
        let (alone, neighbour) = (world.forced(&[gone]), world.forced(&[kept]));
        useless += 1;
        for _ in 0..EVIDENCE {
            let payload = drawn(&mut runner, evidence(&world));
            if permitted(&alone, &payload).is_some() {
                matched += 1;
                assert!(permitted(&neighbour, &payload).is_some(), "{payload:?}\n{}", world.text(&[0, 1]));
            }
        }
    }
    assert!(useless > 10 && matched > 20, "{useless} useless, {matched} matched");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]
    /// A bundle loads or does not, and says where.
    #[test]
    fn no_bundle_makes_a_lint_panic(world in world(), live in vec(0..2usize, 0..3)) {
        for problem in world.parsed(&live).err().unwrap_or_default() {
            prop_assert!(problem.at.starts_with("task.t.allow.r") && problem.what.ends_with(']'), "{problem}");
            prop_assert!(problem.help.is_some() && problem.path == "t.toml", "{problem}");
        }
    }
}
