//! Which policies a decision sees: of one template, and of its rows only those whose exact claims
//! could match the workload. What is left out cannot match; Cedar judges what remains.
//!
//! In: rows and their permits, once per bundle. Out: small sets of policies that decisions share.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, OnceLock},
};

use cedar_policy::{Entities, Policy as Cedar, PolicySet, PolicySetError};
use dayfly_domain::{ClaimValue, Name, Span, Workload, bundle::Row};

use super::mention::Mentioned;

/// Entries of the index that one row may take, where it lists several values of several claims.
/// One claim is always looked up, however many values it lists.
const ENTRIES_MAX: usize = 256;

/// What a decision on one template sees.
#[derive(Debug)]
pub(super) struct RunSlice {
    /// Forbids, and permits written by hand.
    pub written: PolicySet,
    /// Of those the permits alone: who is entitled at all, whatever a forbid says of this ask.
    pub entitling: PolicySet,
    pub rows: Rows,
    pub entities: Entities,
    /// What of a workload the policies can look at.
    pub mentioned: Mentioned,
    /// A policy looks at what the job holds.
    pub reads_held: bool,
    /// The longest life that each permit gives, by id.
    pub permits: HashMap<Arc<str>, Span>,
}

/// What a row-level right is judged by.
#[derive(Debug)]
pub(super) struct RightsSlice {
    pub policies: PolicySet,
    pub entities: Entities,
    pub mentioned: Mentioned,
}

/// Permits of rows, found by the values of claims that a workload must have to match.
#[derive(Debug, Default)]
pub(super) struct Rows {
    permits: Vec<Cedar>,
    /// By issuer: which claims are sets, and so what may be looked up together, is its profile's word.
    by_issuer: BTreeMap<Name, Shapes>,
}

/// By the claims that are looked up; rows of a template mostly name the same ones.
type Shapes = BTreeMap<Vec<String>, HashMap<u64, Bucket>>;

/// Rows whose looked-up claims want the same values, or whose hash is the same.
#[derive(Debug, Default)]
struct Bucket {
    rows: Vec<usize>,
    /// Made when it is first asked for, and shared from then on.
    set: OnceLock<Result<PolicySet, Box<PolicySetError>>>,
}

impl Rows {
    /// The rows of one template, each with its permit. `is_set`: whether a claim of a row is one.
    pub fn of<'a>(rows: impl Iterator<Item = (&'a Row, Cedar)>, is_set: impl Fn(&Row, &str) -> bool) -> Self {
        let (rows, permits): (Vec<_>, Vec<_>) = rows.unzip();
        let order = by_selectivity(&rows);
        let mut by_issuer: BTreeMap<Name, Shapes> = BTreeMap::new();
        for (at, row) in rows.iter().enumerate() {
            let claims = looked_up(row, &order, |name| is_set(row, name));
            let keys = keys(claims.iter().map(|name| row.claims[*name].iter().collect()).collect());
            let shapes = by_issuer.entry(row.issuer.clone()).or_default();
            let buckets = shapes.entry(claims.into_iter().map(str::to_owned).collect()).or_default();
            for key in keys {
                buckets.entry(key).or_default().rows.push(at);
            }
        }
        Self { permits, by_issuer }
    }

    /// Sets of permits that together hold every row that can match.
    // SECURITY: `a_slice_never_changes_a_decision`, `sets_of_one_profile_are_not_looked_up_by_the_rows_of_another`.
    pub fn candidates<'a>(&'a self, workload: &Workload) -> Vec<&'a Result<PolicySet, Box<PolicySetError>>> {
        let mut found = Vec::new();
        for (claims, buckets) in self.shapes(&workload.issuer) {
            let keys: BTreeSet<u64> = keys_of(workload, claims).into_iter().collect();
            let hit = keys.into_iter().filter_map(|key| buckets.get(&key));
            found.extend(hit.map(|bucket| bucket.set.get_or_init(|| self.set(&bucket.rows))));
        }
        found
    }

    fn shapes(&self, issuer: &str) -> impl Iterator<Item = (&Vec<String>, &HashMap<u64, Bucket>)> {
        self.by_issuer.get(issuer).into_iter().flatten()
    }

    fn set(&self, rows: &[usize]) -> Result<PolicySet, Box<PolicySetError>> {
        let distinct: BTreeSet<_> = rows.iter().collect();
        PolicySet::from_policies(distinct.into_iter().map(|at| self.permits[*at].clone())).map_err(Box::new)
    }

    #[cfg(test)]
    pub fn permits(&self) -> &[Cedar] {
        &self.permits
    }

    /// Ids of the rows that Cedar is shown.
    #[cfg(test)]
    pub fn seen(&self, workload: &Workload) -> Vec<String> {
        let sets = self.candidates(workload).into_iter().flat_map(|set| set.as_ref().unwrap().policies());
        sets.map(|permit| permit.id().to_string()).collect()
    }

    #[cfg(test)]
    pub fn keys_tried(&self, workload: &Workload) -> usize {
        self.shapes(&workload.issuer).map(|(claims, _)| keys_of(workload, claims).len()).sum()
    }
}

/// Claims, the one first that tells most rows apart.
fn by_selectivity<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut seen: BTreeMap<&str, BTreeSet<&ClaimValue>> = BTreeMap::new();
    for (name, values) in rows.iter().flat_map(|row| &row.claims) {
        seen.entry(name).or_default().extend(values);
    }
    let mut names: Vec<_> = seen.into_iter().map(|(name, values)| (usize::MAX - values.len(), name)).collect();
    names.sort_unstable();
    names.into_iter().map(|(_, name)| name).collect()
}

/// The claims of a row that it is found by: as many as its entries allow.
fn looked_up<'a>(row: &'a Row, order: &[&str], is_set: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let mut taken: Vec<&str> = Vec::new();
    let mut entries = 1;
    for (name, values) in order.iter().filter_map(|name| row.claims.get_key_value(*name)) {
        // Of a workload's sets every member is looked up: of one set, not of all pairs of two.
        let second_set = is_set(name) && taken.iter().any(|taken| is_set(taken));
        if taken.is_empty() || !second_set && entries * values.len() <= ENTRIES_MAX {
            taken.push(name);
            entries *= values.len();
        }
    }
    taken.sort_unstable();
    taken
}

/// One of a set's members is enough to match.
fn members(value: &ClaimValue) -> Vec<ClaimValue> {
    match value {
        ClaimValue::Set(members) => members.iter().cloned().map(ClaimValue::String).collect(),
        other => vec![other.clone()],
    }
}

/// What a workload may be found by in rows that these claims of theirs are looked up by.
fn keys_of(workload: &Workload, claims: &[String]) -> Vec<u64> {
    let values: Option<Vec<Vec<ClaimValue>>> =
        claims.iter().map(|name| workload.claims.get(name).map(members)).collect();
    values.map_or_else(Vec::new, |values| keys(values.iter().map(|values| values.iter().collect()).collect()))
}

/// A key for each choice of one value of each claim. Two choices may share a key: that only shows
/// Cedar more rows.
fn keys(claims: Vec<Vec<&ClaimValue>>) -> Vec<u64> {
    let mut hashers = vec![DefaultHasher::new()];
    for values in claims {
        let with = |hasher: &DefaultHasher, value: &&ClaimValue| {
            let mut hasher = hasher.clone();
            value.hash(&mut hasher);
            hasher
        };
        hashers = hashers.iter().flat_map(|hasher| values.iter().map(|value| with(hasher, value))).collect();
    }
    hashers.into_iter().map(|hasher| hasher.finish()).collect()
}
