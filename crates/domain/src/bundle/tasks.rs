//! Templates and their rows: what may be done, and who may do it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use time::{Date, Month};
use toml_datetime::Date as TomlDate;

use super::{
    Action, Issuer, IssuerKind, Leaf, Row, Target, Template,
    check::Owners,
    claim, leaves,
    problem::{Found, Place},
    tables::{ExplainWord, Placed, RowTable, Tables, TaskTable},
    targets::TTL_CAP,
};
use crate::{Name, Span};

pub(super) const PER_JOB: u32 = 16;
/// How often a client is to beat that holds a task.
pub const BEAT: Span = Span::seconds(5);
/// How long after the last beat the task ends, where its template says nothing.
pub const GRACE: Span = Span::seconds(15);
/// Two beats: one that comes late is no death.
pub const GRACE_LEAST: Span = Span::seconds(10);
pub const GRACE_MOST: Span = Span::seconds(3_600);
/// A task is one run of some work, not a standing permission.
const DEADLINE_CAP: Span = Span::seconds(30 * 86_400);

/// What the rows are checked against.
pub(super) struct Known<'a> {
    pub tables: &'a Tables,
    pub owners: &'a Owners<'a>,
    pub issuers: &'a BTreeMap<Name, Issuer>,
    pub targets: &'a BTreeMap<Name, Target>,
    pub leaves: &'a BTreeMap<Name, Arc<Leaf>>,
}

pub(super) fn all(known: &Known<'_>, found: &mut Found) -> BTreeMap<Name, Template> {
    let mut ids: BTreeMap<&Name, &Name> = BTreeMap::new();
    let mut templates = BTreeMap::new();
    for (name, Placed { path, table }) in &known.tables.tasks {
        let place = Place::new(path, format!("task.{name}"));
        for (index, row) in table.allow.iter().enumerate() {
            if let Some(first) = ids.insert(&row.id, name) {
                let what = format!("`{}` is the id of a row of `task.{first}` already", row.id);
                found.add(&row_place(&place, index), "id", what);
            }
        }
        if let Some(template) = template(name, table, known, &place, found) {
            templates.insert(name.clone(), template);
        }
    }
    templates
}

fn row_place<'a>(task: &Place<'a>, index: usize) -> Place<'a> {
    Place::new(task.path, format!("{}.allow[{index}]", task.table))
}

fn template(
    name: &Name,
    table: &TaskTable,
    known: &Known<'_>,
    place: &Place<'_>,
    found: &mut Found,
) -> Option<Template> {
    let disabled = known.owners.disabled(&table.owner, place, found) || table.disabled;
    check_task(table, place, found);
    let grants = grants(table, known.targets, place, found);
    let environment = environment(&grants, known.targets, place, found);
    let review_by = date(table.review_by, place, found);
    let serves = leaves::serves(table, place, found);
    let leaf = leaves::of(table, known.leaves, place, found);
    let rows = table.allow.iter().enumerate();
    let rows: Vec<_> =
        rows.filter_map(|(index, row)| self::row(row, table, known, &row_place(place, index), found)).collect();
    Some(Template {
        name: name.clone(),
        purpose: table.purpose.clone(),
        owner: table.owner.clone(),
        grants,
        environment: environment?,
        ttl: table.ttl,
        deadline: table.deadline.unwrap_or(table.ttl),
        review_by: review_by?,
        per_job: table.per_job.unwrap_or(PER_JOB),
        keys_per_job: table.keys_per_job,
        grace: table.grace.unwrap_or(GRACE),
        serves,
        leaf: leaf?,
        explains_to_caller: table.explain == Some(ExplainWord::Caller),
        rows,
        disabled,
    })
}

fn check_task(table: &TaskTable, place: &Place<'_>, found: &mut Found) {
    let zero = Span::seconds(0);
    found.require(!table.purpose.trim().is_empty(), place, "purpose", "is empty");
    found.require(table.purpose.chars().count() <= 256, place, "purpose", "is longer than 256 characters");
    found.require(!table.purpose.contains(char::is_control), place, "purpose", "has control characters");
    found.require(table.ttl > zero && table.ttl <= TTL_CAP, place, "ttl", "is not between 1s and 1d");
    let deadline_fits = table.deadline.is_none_or(|deadline| deadline > zero && deadline <= DEADLINE_CAP);
    found.require(deadline_fits, place, "deadline", "is not between 1s and 30d");
    found.require(table.per_job != Some(0), place, "per_job", "is 0: the template could never run in a job");
    let keys = table.keys_per_job;
    found.require(keys != Some(0), place, "keys_per_job", "is 0: no key could ever be bound in a job");
    if table.grace.is_some_and(|grace| grace < GRACE_LEAST || grace > GRACE_MOST) {
        let help = format!("a client beats every {BEAT}, and one beat may come late");
        found.add_with(place, "grace", format!("is not between {GRACE_LEAST} and {GRACE_MOST}"), help);
    }
}

fn grants(
    table: &TaskTable,
    targets: &BTreeMap<Name, Target>,
    place: &Place<'_>,
    found: &mut Found,
) -> BTreeMap<Name, BTreeSet<Action>> {
    let place = place.below("grants");
    found.require(!table.grants.is_empty(), &place, "", "names no target");
    let mut grants = BTreeMap::new();
    for (name, actions) in &table.grants {
        let Some(target) = targets.get(name) else {
            found.add(&place, name, format!("there is no target `{name}`"));
            continue;
        };
        found.require(!actions.is_empty(), &place, name, "names no action");
        for action in actions.iter().filter(|action| !target.actions.contains(action.as_str())) {
            let known: Vec<_> = target.actions.iter().map(|action| &**action).collect();
            let help = format!("its actions are `{}`", known.join("`, `"));
            found.add_with(&place, name, format!("`{action}` is not an action of the target"), help);
        }
        grants.insert(name.clone(), actions.iter().map(|action| Action::from(action.as_str())).collect());
    }
    grants
}

fn environment(
    grants: &BTreeMap<Name, BTreeSet<Action>>,
    targets: &BTreeMap<Name, Target>,
    place: &Place<'_>,
    found: &mut Found,
) -> Option<Name> {
    let of = |name| targets.get(name).map(|target: &Target| target.environment.clone());
    let environments: BTreeSet<Name> = grants.keys().filter_map(of).collect();
    if environments.len() > 1 {
        let names: Vec<_> = environments.iter().map(Name::as_str).collect();
        let what = format!("reaches into the environments `{}`", names.join("`, `"));
        found.add_with(place, "grants", what, "all grants are in one environment: make one template for each");
    }
    environments.into_iter().next()
}

fn row(table: &RowTable, task: &TaskTable, known: &Known<'_>, place: &Place<'_>, found: &mut Found) -> Option<Row> {
    let owner = table.owner.as_ref().unwrap_or(&task.owner);
    let disabled = match &table.owner {
        Some(owner) => known.owners.disabled(owner, place, found),
        None => known.owners.is_disabled(owner),
    };
    let ttl = table.ttl.unwrap_or(task.ttl);
    found.require(table.ttl != Some(Span::seconds(0)), place, "ttl", "is 0");
    found.require(ttl <= task.ttl, place, "ttl", "is longer than the template's");
    if table.claims.is_empty() {
        found.add(place, "claims", "names no claim, so it would match every workload of the issuer");
    }
    let review_by = date(table.review_by.unwrap_or(task.review_by), place, found);
    let claims = match known.issuers.get(&table.issuer) {
        Some(issuer) if issuer.kind == IssuerKind::Workload => {
            claim::matches(&table.claims, &issuer.claims, &place.below("claims"), found)
        }
        Some(_) => {
            found.add(place, "issuer", format!("`{}` can only authenticate introspection", table.issuer));
            return None;
        }
        // With problems of its own.
        None if known.tables.issuers.contains_key(&table.issuer) => return None,
        None => {
            found.add(place, "issuer", format!("there is no issuer `{}`", table.issuer));
            return None;
        }
    };
    Some(Row {
        id: table.id.clone(),
        issuer: table.issuer.clone(),
        claims,
        ttl,
        owner: owner.clone(),
        review_by: review_by?,
        untrusted: table.untrusted,
        disabled: disabled || table.disabled,
    })
}

fn date(written: TomlDate, place: &Place<'_>, found: &mut Found) -> Option<Date> {
    let month = Month::try_from(written.month).ok();
    let date = month.and_then(|month| Date::from_calendar_date(i32::from(written.year), month, written.day).ok());
    if date.is_none() {
        found.add(place, "review_by", format!("`{written}` is not a date"));
    }
    date
}
