//! How often each entitlement was used: what is never used is found.
//!
//! In: `issued` events, counted by the writer as they are committed, in memory; every ten seconds and
//! at a stop the sums are written, together with how far the ledger is counted. A start counts what
//! came after that, so that nothing is lost by a kill, and nothing counts twice. Out: every row of
//! the bundle in force with each target and action that it gives, used or not.

use std::{
    collections::{BTreeMap, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use dayfly_domain::{Reason, UnixMs, bundle::Template};

use super::{
    Flow,
    commit::Writer,
    introspect::Authority,
    words::{Caller, Listing, Refused},
};
use crate::{
    ledger::Body,
    policy::{Policy, RowFacts, RowKind},
    store::{Change, LeaseRow, StoreError, UsedRow},
    sys::offload::offload,
};

/// In `meta`: events before this one are counted.
const COUNTED_TO: &str = "used_to";
/// Events that count for nothing are passed over again at a start, up to so many.
const PASSED_OVER_MAX: u64 = 10_000;

/// What one credential used: template, permit, target, and its actions as JSON.
type Use = (Arc<str>, String, String, String);

/// What was committed and is not yet in the store's sums.
#[derive(Debug, Default)]
pub(super) struct Counted {
    uses: HashMap<Use, (u64, UnixMs)>,
    written_to: u64,
}

/// An action on a target that a row of the bundle in force gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntitlementView {
    pub template: String,
    /// A row, or a permit that is written by hand.
    pub row: String,
    pub owner: String,
    pub target: String,
    pub action: String,
    /// Credentials that were issued with it.
    pub count: u64,
    pub last_used: Option<UnixMs>,
    /// The ledger is counted from then on.
    pub counted_since: UnixMs,
}

/// Entitlements to list: all that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntitlementFilter {
    pub template: Option<String>,
    /// Not used from then on, or never.
    pub unused_since: Option<UnixMs>,
}

impl Counted {
    fn add(&mut self, used: Use, count: u64, at: UnixMs) {
        let (sum, last) = self.uses.entry(used).or_insert((0, at));
        *sum += count;
        *last = (*last).max(at);
    }

    /// A row for each action, and how far they count.
    fn changes(&self, counted_to: u64) -> Vec<Change> {
        let rows = self.uses.iter().flat_map(|((template, row, target, actions), (count, last_at))| {
            let actions: Vec<String> = serde_json::from_str(actions).unwrap_or_default();
            actions.into_iter().map(move |action| {
                let (template, row, target) = (template.to_string(), row.clone(), target.clone());
                Change::Count(UsedRow { template, row, target, action, count: *count, last_at: *last_at })
            })
        });
        rows.chain([Change::Meta(COUNTED_TO.to_owned(), counted_to.to_string())]).collect()
    }
}

impl Writer {
    /// Counts what was committed.
    pub(super) fn count(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::AddLease(LeaseRow { task, row, target, actions, issued_at, .. }) = change else { continue };
            let Some(task) = self.shared.table.task(*task) else { continue };
            let used = (task.template, row.clone(), target.clone(), actions.clone());
            self.counted.add(used, 1, *issued_at);
        }
    }

    /// Writes the sums in one commit with how far they count. What cannot be written is kept for the
    /// next time.
    pub(super) fn save_counts(&mut self) {
        let next = self.store.next_seq();
        if self.counted.uses.is_empty() && next.saturating_sub(self.counted.written_to) < PASSED_OVER_MAX {
            return;
        }
        let changes = self.counted.changes(next);
        match self.store.write(&changes, self.shared.time.now().at) {
            Ok(()) => self.counted = Counted { uses: HashMap::new(), written_to: next },
            Err(error) => tracing::warn!(%error, "uses of entitlements are counted, but not yet written"),
        }
    }

    /// Counts what the ledger has and the sums have not: after a kill, the last seconds; of a store
    /// from before uses were counted, all of it, once.
    pub(super) fn catch_up(&mut self) -> Result<(), StoreError> {
        let reader = self.shared.reader.clone();
        let from = reader.meta(COUNTED_TO)?.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.counted.written_to = from;
        let passed = self.store.next_seq().saturating_sub(from);
        if passed >= PASSED_OVER_MAX {
            tracing::info!(events = passed, "uses of entitlements are counted from the ledger");
        }
        reader.each_event(from, |event| {
            if event.lease.is_some()
                && let Ok(body) = serde_json::from_slice::<Body>(&event.body)
                && let Some(used) = use_of(body)
            {
                self.counted.add(used, 1, event.at);
            }
            ControlFlow::Continue(())
        })?;
        self.save_counts();
        Ok(())
    }
}

fn use_of(body: Body) -> Option<Use> {
    let Body { kind, template, row, target, actions, .. } = body;
    if kind != "issued" {
        return None;
    }
    let actions = serde_json::to_string(&actions?).ok()?;
    Some((template?.into(), row?, target?, actions))
}

impl Flow {
    /// What the bundle in force gives, with its use, in the order of the names. Uses of the last ten
    /// seconds may not be in it yet.
    pub async fn entitlements(
        &self,
        caller: &Caller,
        filter: EntitlementFilter,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Listing<EntitlementView>, Refused> {
        let authority = self.authority(caller).await?;
        if !authority.holds("ledger:read") {
            return Err(Reason::Scope.into());
        }
        let bundle = self.policy.load().bundle().fingerprint;
        let scope = format!("entitlements {bundle} {} {filter:?}", authority.actor());
        let from = self.cursor(&scope, cursor)?.and_then(|key| usize::try_from(key).ok()).unwrap_or(0);
        let flow = self.clone();
        let page = offload(move || flow.entitlements_page(&authority, &filter, from, limit));
        let (items, next) = page.await.map_err(|_| Reason::Internal)?.map_err(|error| error.reason())?;
        Ok(Listing { items, next_cursor: next.map(|next| self.make_cursor(&scope, next as u128)) })
    }

    /// From a place on, and the place where the next page begins: places are counted before what was
    /// used is sifted out, so that a use between two pages moves nothing.
    // SECURITY: `a_use_between_two_pages_hides_no_entitlement`.
    fn entitlements_page(
        &self,
        authority: &Authority,
        filter: &EntitlementFilter,
        from: usize,
        limit: usize,
    ) -> Result<(Vec<EntitlementView>, Option<usize>), StoreError> {
        let policy = self.policy.load_full();
        let mut used = BTreeMap::new();
        self.reader.used(|UsedRow { template, row, target, action, count, last_at }| {
            used.insert((template, row, target, action), (count, last_at));
        })?;
        let counted_since = self.reader.event_at(0)?.map_or(self.time.now().at, |event| event.at);
        let wanted = |name: &str| filter.template.as_deref().is_none_or(|template| template == name);
        let templates = policy.bundle().templates.values().filter(|template| wanted(&template.name));
        // SECURITY: `every_route_against_every_caller`: who may not read its events learns nothing of it.
        let templates = templates.filter(|template| self.may(authority, "ledger:read", &facts(template)));
        let mut items = Vec::new();
        for (at, given) in templates.flat_map(|template| given(&policy, template)).enumerate().skip(from) {
            let Given { template, row, owner, target, action } = given;
            let name = (template.to_owned(), row.to_owned(), target.to_owned(), action.to_owned());
            let (count, last_used) = used.get(&name).map_or((0, None), |(count, last)| (*count, Some(*last)));
            if filter.unused_since.is_some_and(|since| last_used.is_some_and(|last| last >= since)) {
                continue;
            }
            if items.len() == limit {
                return Ok((items, Some(at)));
            }
            let ((template, row, target, action), owner) = (name, owner.to_owned());
            items.push(EntitlementView { template, row, owner, target, action, count, last_used, counted_since });
        }
        Ok((items, None))
    }
}

/// An action on a target that a permit of a template gives.
struct Given<'a> {
    template: &'a str,
    row: &'a str,
    owner: &'a str,
    target: &'a str,
    action: &'a str,
}

fn given<'a>(policy: &'a Policy, template: &'a Template) -> impl Iterator<Item = Given<'a>> {
    let owners: HashMap<&str, &str> = template.rows.iter().map(|row| (&*row.id, &*row.owner)).collect();
    let owned = move |row: &'a Arc<str>| (&**row, owners.get(&**row).copied().unwrap_or(&template.owner));
    policy.permits(&template.name).into_iter().map(owned).flat_map(move |(row, owner)| {
        let name = &*template.name;
        granted(template).map(move |(target, action)| Given { template: name, row, owner, target, action })
    })
}

fn granted(template: &Template) -> impl Iterator<Item = (&str, &str)> {
    let of_target = |(target, actions)| {
        let actions: &std::collections::BTreeSet<dayfly_domain::bundle::Action> = actions;
        let target: &dayfly_domain::Name = target;
        actions.iter().map(move |action| (target.as_str(), &**action))
    };
    template.grants.iter().flat_map(of_target)
}

/// A template as the tasks that it would open.
fn facts(template: &Template) -> RowFacts<'_> {
    RowFacts {
        kind: RowKind::Task,
        id: "",
        owner: &template.owner,
        template: &template.name,
        workload: "",
        environment: &template.environment,
        target: "",
    }
}
