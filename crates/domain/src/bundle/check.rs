//! Tables in, bundle out, or everything that is wrong with them at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use super::{
    BROKER, Bundle, CedarFile, Fingerprint, Owner, Problem, bundle_tests, issuers,
    problem::{Found, Place},
    profiles,
    tables::{Placed, Tables},
    targets,
    tasks::{self, Known},
};
use crate::{BindingKind, Name};

/// What the tables do not say themselves.
#[derive(Debug, Clone)]
pub struct Surroundings<'a> {
    /// The broker's issuer URL, without `/` at the end.
    pub issuer_url: &'a str,
    /// Binding of the built-in target `broker`.
    pub broker_binding: BindingKind,
    pub fingerprint: Fingerprint,
    /// Contents of the files that issuers name, by the path as written.
    pub extra: &'a BTreeMap<String, Arc<[u8]>>,
    pub cedar: Vec<CedarFile>,
}

/// The one format there is.
const FORMAT: u32 = 1;

/// Everything named exists, everything typed is of its type; otherwise all problems, in order.
pub fn check(tables: &Tables, given: Surroundings<'_>) -> Result<Bundle, Vec<Problem>> {
    let mut found = Found(tables.problems.clone());
    check_format(tables, &mut found);
    let trust_domain = trust_domain(tables, &mut found);
    let owners = Owners::new(tables, &mut found);
    let profiles = profiles::all(tables, &mut found);
    let issuers = issuers::all(tables, &profiles, &owners, &given, &mut found);
    let targets = targets::all(tables, &issuers, &owners, &given, &mut found);
    let known = Known { tables, owners: &owners, issuers: &issuers, targets: &targets };
    let templates = tasks::all(&known, &mut found);
    let tests = bundle_tests::all(&known, &mut found);
    if !found.0.is_empty() {
        found.0.sort();
        found.0.dedup();
        return Err(found.0);
    }
    let owners = owners.into_all();
    let Surroundings { fingerprint, cedar, .. } = given;
    Ok(Bundle { trust_domain, fingerprint, owners, profiles, issuers, targets, templates, tests, cedar })
}

fn check_format(tables: &Tables, found: &mut Found) {
    match &tables.format {
        None => {
            found.0.push(Problem::new("bundle", "format", "is missing").help("write `format = 1` once, in any file"))
        }
        Some(Placed { path, table }) if *table != FORMAT => {
            found.0.push(
                Problem::new(path, "format", format!("`{table}` is not a known format")).help("write `format = 1`"),
            );
        }
        Some(_) => {}
    }
}

fn trust_domain(tables: &Tables, found: &mut Found) -> String {
    let Some(Placed { path, table }) = &tables.trust_domain else {
        let help = "write `trust_domain = \"example.org\"` once, in any file";
        found.0.push(Problem::new("bundle", "trust_domain", "is missing").help(help));
        return String::new();
    };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    // A name we sign has at most 127 bytes; half of them are for who it names.
    if !(1..=63).contains(&table.len()) || !table.bytes().all(letter) {
        let what = format!("`{table}` is not a trust domain: lower-case letters, digits, `.`, `-` and `_`, at most 63");
        found.0.push(Problem::new(path, "trust_domain", what));
    }
    table.clone()
}

/// The name of the built-in target, environment and owner.
pub(super) fn broker_name() -> Name {
    static NAME: LazyLock<Name> = LazyLock::new(|| BROKER.parse().expect("`broker` is a name"));
    NAME.clone()
}

/// The owners, and who of them is disabled: all that names such a one counts as disabled.
pub(super) struct Owners<'a> {
    tables: &'a Tables,
}

impl<'a> Owners<'a> {
    fn new(tables: &'a Tables, found: &mut Found) -> Self {
        if let Some(placed) = tables.owners.get(BROKER) {
            found.add(&Place::new(&placed.path, "owner.broker"), "", "is the owner of the built-in target");
        }
        Self { tables }
    }

    /// Whether the owner is disabled; a problem when there is no such owner.
    pub fn disabled(&self, owner: &Name, place: &Place<'_>, found: &mut Found) -> bool {
        if !self.tables.owners.contains_key(owner) {
            found.add_with(place, "owner", format!("there is no owner `{owner}`"), format!("add `[owner.{owner}]`"));
        }
        self.is_disabled(owner)
    }

    pub fn is_disabled(&self, owner: &Name) -> bool {
        self.tables.owners.get(owner).is_some_and(|placed| placed.table.disabled)
    }

    fn into_all(self) -> BTreeMap<Name, Owner> {
        let broker = Owner { contact: None, escalation: None, disabled: false };
        let owner = |(name, placed): (&Name, &Placed<super::tables::OwnerTable>)| {
            let super::tables::OwnerTable { contact, escalation, disabled } = placed.table.clone();
            (name.clone(), Owner { contact, escalation, disabled })
        };
        let all = self.tables.owners.iter().map(owner);
        all.chain([(broker_name(), broker)]).collect()
    }
}
