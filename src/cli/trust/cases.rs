//! The runs that a new row is tested with, as `[[test]]` tables: two that it lets in, and those that it
//! must not. A test that another row of the template already answers says nothing of this one.

use std::collections::BTreeMap;

use dayfly_domain::{Name, Reason, bundle::Template};

use super::{
    edit::{Entry, inline, quoted},
    facts::Facts,
    provider::{self, Case},
    row::{Claim, Rules, Source},
};

/// How many denials a row comes with.
pub const DENIALS: usize = 5;

/// A test of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    pub name: String,
    pub entry: Entry,
}

/// What all tests of one row share.
#[derive(Debug)]
pub struct Cases<'a> {
    pub id: &'a Name,
    pub source: &'a Source<'a>,
    pub claims: &'a [Claim],
    pub facts: &'a Facts,
    pub template: &'a Template,
    pub rules: Rules<'a>,
}

impl Cases<'_> {
    pub fn permits(&self) -> Vec<Test> {
        let expected = || vec![("expect", quoted("permit")), ("row", quoted(self.id))];
        self.facts.provider().permits.iter().map(|case| self.test(case, "", expected())).collect()
    }

    /// The same runs, where no row is expected to let them in.
    pub fn unwanted(&self) -> Vec<Test> {
        let expected = || vec![("expect", quoted("deny"))];
        self.facts.provider().permits.iter().map(|case| self.test(case, "", expected())).collect()
    }

    /// All that say something of this row, best first.
    pub fn denials(&self) -> Vec<Test> {
        let named = |claim: &str| self.claims.iter().any(|(name, _)| name == claim);
        let says = |case: &&Case| case.needs.is_none_or(named) && !(case.unreviewed && self.facts.untrusted);
        let expected = |case: &Case| vec![("expect", quoted("deny")), ("reason", quoted(self.reason(case).code()))];
        let denials = self.facts.provider().denials.iter().filter(says);
        denials.map(|case| self.test(case, " is refused", expected(case))).collect()
    }

    fn reason(&self, case: &Case) -> Reason {
        let pinned = |(claim, _): &provider::Claim| self.source.pins.iter().any(|(name, _)| name == claim);
        let stranger = case.change.iter().any(pinned);
        case.reason.unwrap_or(if stranger { Reason::Stranger } else { Reason::NoMatch })
    }

    fn test(&self, case: &Case, tail: &str, expected: Vec<(&'static str, String)>) -> Test {
        let name = format!("{}: {}{tail}", self.id, case.name);
        let claims: Vec<_> =
            self.run(case).into_iter().map(|(claim, value)| (claim.clone(), self.rules.raw(&claim, &value))).collect();
        let mut keys = vec![
            ("name", quoted(&name)),
            ("issuer", quoted(&self.source.name)),
            ("claims", inline(&claims)),
            ("task", quoted(&self.template.name)),
        ];
        // Of several targets one must be named, or the test asks for none.
        let mut targets = self.template.grants.keys();
        keys.extend(targets.next().filter(|_| targets.next().is_some()).map(|first| ("target", quoted(first))));
        // What only this row lets in: code that nobody reviewed.
        if tail.is_empty() {
            keys.extend(self.facts.untrusted.then(|| ("untrusted", "true".to_owned())));
        }
        keys.extend(expected);
        Test { name, entry: Entry { comment: None, keys } }
    }

    /// The claims of a run: the row's, then those without which no token is read.
    fn run(&self, case: &Case) -> Vec<Claim> {
        let mut order: Vec<String> = Vec::new();
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |name: &str, value: String| {
            if values.insert(name.to_owned(), value).is_none() {
                order.push(name.to_owned());
            }
        };
        self.claims.iter().chain(&self.source.pins).for_each(|(name, value)| put(name, value.clone()));
        self.facts.parts.iter().for_each(|(name, value)| put(name, value.clone()));
        let filled = |text: &str| {
            let own = self.claims.iter().chain(&self.source.pins);
            own.fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
        };
        let changes = self.facts.provider().run.iter().chain(case.change);
        let mut left_out: Vec<&str> = Vec::new();
        for (name, value) in changes {
            match value {
                Some(value) => put(name, filled(value)),
                None => left_out.push(name),
            }
        }
        for (name, value) in self.rules.required() {
            if !order.contains(&name) && !left_out.contains(&&*name) {
                order.push(name.clone());
                values.insert(name, value);
            }
        }
        order.retain(|name| !left_out.contains(&name.as_str()));
        order.into_iter().map(|name| (name.clone(), values.remove(&name).unwrap_or_default())).collect()
    }
}
