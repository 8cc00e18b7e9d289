//! Rows that another row of the same template makes useless.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Bundle, Problem, Row, Template};
use super::{at_row, reach::pinned, rules::Rule};
use crate::{ClaimValue, Name};

/// A row, with all that is certain of evidence that matches it.
struct Wide<'a> {
    row: &'a Row,
    claims: BTreeMap<String, Vec<ClaimValue>>,
}

pub fn useless(bundle: &Bundle, template: &Template, path: &str) -> Vec<Problem> {
    let live = template.rows.iter().filter(|row| !row.disabled);
    let rows: Vec<_> =
        live.filter_map(|row| Some(Wide { row, claims: pinned(row, bundle.issuers.get(&row.issuer)?) })).collect();
    let index = Index::of(&rows);
    let problem = |row: &Wide<'_>| {
        let wider = index.candidates(row).map(|at| &rows[at]).find(|other| other.beats(row))?;
        let what = format!("row `{}` permits all that this one does, for {}", wider.row.id, wider.row.ttl);
        let help = format!("remove this row, or add to `{}` what it is meant to be limited to", wider.row.id);
        Some(Rule::Useless.refuses(path, at_row(template, row.row), what, help))
    };
    rows.iter().filter_map(problem).collect()
}

impl Wide<'_> {
    /// Whether `other` is useless beside this one. Of two that are equal, the one whose id comes
    /// later is.
    fn beats(&self, other: &Self) -> bool {
        self.row.id != other.row.id && self.covers(other) && (!other.covers(self) || self.row.id < other.row.id)
    }

    fn covers(&self, other: &Self) -> bool {
        self.row.issuer == other.row.issuer
            && self.row.ttl >= other.row.ttl
            && self.row.review_by >= other.row.review_by
            && self.row.untrusted >= other.row.untrusted
            && self.row.claims.iter().all(|(name, wide)| {
                other.claims.get(name).is_some_and(|values| values.iter().all(|value| wide.contains(value)))
            })
    }
}

/// Rows by a value that they name and few others do: a row is compared with few of a thousand.
struct Index<'a> {
    by_value: BTreeMap<(&'a Name, &'a str, &'a ClaimValue), Vec<usize>>,
}

impl<'a> Index<'a> {
    fn of(rows: &'a [Wide<'a>]) -> Self {
        let mut counts: BTreeMap<(&str, &ClaimValue), usize> = BTreeMap::new();
        for (name, value) in rows.iter().flat_map(Wide::values) {
            *counts.entry((name, value)).or_default() += 1;
        }
        let count = |name: &str, values: &[ClaimValue]| -> usize {
            values.iter().map(|value| counts.get(&(name, value)).copied().unwrap_or_default()).sum()
        };
        let mut by_value: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, wide) in rows.iter().enumerate() {
            let rarest = wide.row.claims.iter().min_by_key(|(name, values)| count(name, values));
            for (name, value) in rarest.into_iter().flat_map(|(name, values)| values.iter().map(move |one| (name, one)))
            {
                by_value.entry((&wide.row.issuer, name.as_str(), value)).or_default().push(at);
            }
        }
        Self { by_value }
    }

    /// Rows that may cover this one: each names a value that this one names first of some claim.
    fn candidates(&self, of: &'a Wide<'a>) -> impl Iterator<Item = usize> {
        let firsts =
            of.claims.iter().filter_map(|(name, values)| Some((&of.row.issuer, name.as_str(), values.first()?)));
        let found: BTreeSet<usize> = firsts.filter_map(|key| self.by_value.get(&key)).flatten().copied().collect();
        found.into_iter()
    }
}

impl Wide<'_> {
    fn values(&self) -> impl Iterator<Item = (&str, &ClaimValue)> {
        self.row.claims.iter().flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value)))
    }
}
