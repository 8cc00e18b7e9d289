//! What is well formed and so surely a mistake, or so surely dangerous, that it does not load. In:
//! a bundle whose tables passed every check. Out: problems, each with how to mend it.
//!
//! What is disabled is not looked at: a bundle must not be kept from loading by what was taken out
//! of force in a hurry.

use std::collections::BTreeMap;

use super::super::{Bundle, ClaimMatch, Issuer, Problem, Profile, Row, Target, Template, tables::Tables};
use super::{
    at_row,
    reach::{Reach, Why, pinned},
    rules::Rule,
    useless::useless,
};
use crate::{ClaimType, ClaimValue, Name};

/// The environment whose templates want more than an id.
pub const PRODUCTION: &str = "production";

/// All reasons not to load, in order.
pub fn refusals(bundle: &Bundle, tables: &Tables) -> Vec<Problem> {
    let mut problems = Vec::new();
    for issuer in bundle.issuers.values().filter(|issuer| !issuer.disabled) {
        let path = tables.issuers.get(&issuer.name).map_or("bundle", |placed| placed.path.as_str());
        problems.extend(of_pins(issuer, path));
    }
    for template in bundle.templates.values().filter(|template| !template.disabled) {
        let path = path(tables, &template.name);
        for row in live(template) {
            let Some(seen) = Seen::of(bundle, template, row, path) else { continue };
            let found = [seen.name_not_id(), seen.never(), seen.open_production(), seen.unreviewed(bundle)];
            problems.extend(found.into_iter().flatten());
        }
        problems.extend(useless(bundle, template, path));
    }
    problems.extend(shared_accounts(bundle, tables));
    problems.sort();
    problems
}

/// A live row with all that it refers to.
struct Seen<'a> {
    template: &'a Template,
    row: &'a Row,
    issuer: &'a Issuer,
    profile: &'a Profile,
    path: &'a str,
}

impl<'a> Seen<'a> {
    fn of(bundle: &'a Bundle, template: &'a Template, row: &'a Row, path: &'a str) -> Option<Self> {
        let issuer = bundle.issuers.get(&row.issuer)?;
        Some(Self { template, row, issuer, profile: bundle.profiles.get(&issuer.profile)?, path })
    }

    fn refuse(&self, rule: Rule, what: impl AsRef<str>, help: impl Into<String>) -> Option<Problem> {
        Some(rule.refuses(self.path, at_row(self.template, self.row), what, help))
    }

    fn name_not_id(&self) -> Option<Problem> {
        let (name, id) = name_not_id(&pinned(self.row, self.issuer), self.issuer)?;
        let help = format!("name `{id}`, which stays; `{name}` may stand beside it");
        self.refuse(Rule::NameNotId, renamed(name), help)
    }

    fn never(&self) -> Option<Problem> {
        let reach = Reach::of(self.row, self.issuer, self.profile);
        let (claim, why) = reach.never()?;
        let help = match why {
            Why::Untrusted => {
                "evidence of unreviewed code needs `untrusted = true`, or correct the row's claims".into()
            }
            Why::Nameless => match self.issuer.trust_domain() {
                Some(domain) => format!("write the whole ID, such as `spiffe://{domain}/ns/pay/sa/api`"),
                None => "write the id as the platform does: letters, digits, `.`, `_` and `-`".to_owned(),
            },
            Why::Impossible => match self.issuer.claims.get(claim) {
                Some(rule) => format!("it is one of `{}`", rule.one_of.join("`, `")),
                None => "correct the row's claims, or remove it".to_owned(),
            },
            _ => "correct the row's claims, or remove it".to_owned(),
        };
        self.refuse(Rule::NeverMatches, format!("can never match: {}", why.text(claim)), help)
    }

    /// A platform that has neither environments nor protected refs can say neither.
    fn open_production(&self) -> Option<Problem> {
        let roles = &self.profile.lint;
        if self.template.environment != PRODUCTION || (roles.environment.is_empty() && roles.protected.is_empty()) {
            return None;
        }
        let certain = pinned(self.row, self.issuer);
        let environment = roles.environment.iter().any(|name| certain.contains_key(name));
        let is_true = |values: &Vec<ClaimValue>| values.iter().all(|value| *value == ClaimValue::Bool(true));
        let protected = roles.protected.iter().any(|name| certain.get(name).is_some_and(is_true));
        if environment || protected {
            return None;
        }
        let environments = roles.environment.iter().map(|name| format!("`{name} = \"…\"`"));
        let protected = roles.protected.iter().map(|name| format!("`{name} = true`"));
        let all: Vec<_> = environments.chain(protected).collect();
        let what = "reaches production, and anyone who can push a branch can run it";
        self.refuse(Rule::OpenProduction, what, format!("add {}", all.join(" or ")))
    }

    fn unreviewed(&self, bundle: &Bundle) -> Option<Problem> {
        let (target, action) = written(bundle, self.template)?;
        let phases = &self.profile.lint.phase;
        let certain = pinned(self.row, self.issuer);
        let what = if self.row.untrusted {
            format!("unreviewed code would get `{action}` on `target.{target}`, which changes something")
        } else if let Some(phase) = phases.iter().find(|name| !certain.contains_key(*name)) {
            format!("every `{phase}` of a run would get `{action}` on `target.{target}`, which changes something")
        } else {
            return None;
        };
        let help = match self.row.untrusted {
            true => format!(
                "give such jobs a template of their own with actions that only read, and say in `target.{target}` which these are: `reads = [...]`"
            ),
            false => format!("name `{}`", phases.join("` and `")),
        };
        self.refuse(Rule::UnreviewedWrites, what, help)
    }
}

fn of_pins(issuer: &Issuer, path: &str) -> Option<Problem> {
    let pins: ClaimMatch = issuer.pin.iter().map(|(name, value)| (name.clone(), vec![value.clone()])).collect();
    let (name, id) = name_not_id(&pins, issuer)?;
    let help = format!("pin `{id}`, which stays; `{name}` may stand beside it");
    Some(Rule::NameNotId.refuses(path, format!("issuer.{}.pin", issuer.name), renamed(name), help))
}

/// A claim that is only a name, where its id is not named too.
fn name_not_id<'a>(claims: &ClaimMatch, issuer: &'a Issuer) -> Option<(&'a str, &'a str)> {
    let rules = issuer.claims.iter().filter(|(name, _)| claims.contains_key(*name));
    let names = rules.filter_map(|(name, rule)| Some((name.as_str(), rule.id.as_deref()?)));
    names.into_iter().find(|(_, id)| !claims.contains_key(*id))
}

fn renamed(name: &str) -> String {
    format!("goes by `{name}`, which can be renamed and taken by someone else")
}

/// The first action that the template grants and that is not said to only read.
pub fn written<'a>(bundle: &Bundle, template: &'a Template) -> Option<(&'a Name, &'a str)> {
    let writes = |target: &Target, action: &str| !target.reads.contains(action);
    template.grants.iter().find_map(|(name, actions)| {
        let target = bundle.targets.get(name)?;
        actions.iter().find(|action| writes(target, action)).map(|action| (name, &**action))
    })
}

/// Rows that one workload could match, and whose templates answer to several owners. Rows that pin
/// different values of any claim are apart.
// SECURITY: `rows_that_one_job_could_match_for_two_owners`, `a_wide_row_beside_another_owners`.
fn shared_accounts(bundle: &Bundle, tables: &Tables) -> Vec<Problem> {
    let mut accounts: BTreeMap<&Name, Accounts<'_>> = BTreeMap::new();
    for template in bundle.templates.values().filter(|template| !template.disabled) {
        for row in live(template) {
            let seen = Seen::of(bundle, template, row, path(tables, &template.name));
            if let Some(seen) = seen.filter(|seen| !seen.issuer.disabled) {
                accounts.entry(&row.issuer).or_default().add(seen);
            }
        }
    }
    accounts.into_values().flat_map(|accounts| accounts.shared).collect()
}

/// The rows of one issuer so far, by the last part of the principal where a row says it: most rows are
/// only ever held against the few of the same workload.
#[derive(Default)]
struct Accounts<'a> {
    rows: Vec<(Seen<'a>, ClaimMatch)>,
    narrow: BTreeMap<ClaimValue, Vec<usize>>,
    wide: Vec<usize>,
    /// One problem a row, however many others share its account.
    shared: Vec<Problem>,
}

impl<'a> Accounts<'a> {
    fn add(&mut self, row: Seen<'a>) {
        let certain = pinned(row.row, row.issuer);
        let last = row.profile.principal.last().filter(|name| !is_set(&row, name));
        let whom = last.and_then(|name| certain.get(name)).cloned();
        let meets = |index: &usize| {
            let (other, there) = &self.rows[*index];
            other.template.owner != row.template.owner && may_meet(&row, &certain, there)
        };
        let other = match &whom {
            Some(whom) => {
                let narrow = whom.iter().filter_map(|value| self.narrow.get(value)).flatten();
                narrow.chain(&self.wide).copied().filter(meets).min()
            }
            None => (0..self.rows.len()).find(meets),
        };
        self.shared.extend(other.and_then(|index| split(&row, &self.rows[index].0)));
        let index = self.rows.len();
        match whom {
            Some(whom) => whom.into_iter().for_each(|value| self.narrow.entry(value).or_default().push(index)),
            None => self.wide.push(index),
        }
        self.rows.push((row, certain));
    }
}

/// Whether one workload could have what both name. A set may hold the values of both.
fn may_meet(row: &Seen<'_>, here: &ClaimMatch, there: &ClaimMatch) -> bool {
    here.iter().all(|(name, values)| {
        is_set(row, name) || there.get(name).is_none_or(|others| values.iter().any(|value| others.contains(value)))
    })
}

fn is_set(row: &Seen<'_>, name: &str) -> bool {
    row.issuer.claims.get(name).is_some_and(|rule| rule.kind == ClaimType::Set)
}

fn split(row: &Seen<'_>, other: &Seen<'_>) -> Option<Problem> {
    let what = format!(
        "one job may run this for `{}` and `task.{}` (row `{}`) for `{}`",
        row.template.owner, other.template.name, other.row.id, other.template.owner
    );
    let help = "give each owner a workload of its own, or pin in both rows what tells their jobs apart, such as the environment or the workflow";
    row.refuse(Rule::SharedAccount, what, help)
}

fn live(template: &Template) -> impl Iterator<Item = &Row> {
    template.rows.iter().filter(|row| !row.disabled)
}

fn path<'a>(tables: &'a Tables, template: &Name) -> &'a str {
    tables.tasks.get(template).map_or("bundle", |placed| placed.path.as_str())
}
