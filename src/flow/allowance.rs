//! What a workload may take of the broker: asks a second, asks of one job a minute, live leases. In:
//! who was proven. Out: whether it may go on.
//!
//! Charged is what was proven (issuer and principal, whether it speaks for unreviewed code, its job),
//! never what is stated, and an ask that is refused costs as much as one that is granted. Whoever
//! proves nothing is charged by address alone (`run::accept`). Nobody pays for evidence that has been
//! used: an old token in a log is no means to keep its workload out.
//!
//! A refusal here is no event: it must cost less than what it refuses, and the ledger is kept for ever.
//! A quota is judged at the fence, after a decision, and recorded like any other.

use std::{collections::BTreeSet, sync::Arc};

use dayfly_domain::{Reason, Workload};

use super::{
    Shared,
    meter::{Broken, Payer, Rate, Rates, Spent, Storms},
    refuse::Refusal,
    words::Refused,
};
use crate::{
    lease::{Now, OwnerUse, PRODUCTION, Quota, Quotas},
    policy::Policy,
    store::TaskRow,
};

/// How much each may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Asks of one workload; trusted and untrusted are two.
    pub workload: Rate,
    /// Asks of one job, or of a workload without one, for one template.
    pub storm_per_minute: u32,
    pub quotas: Quotas,
}

/// The same, with what has been taken.
#[derive(Debug)]
pub(super) struct Taken {
    rates: Rates,
    storms: Storms,
    quotas: Quotas,
}

/// Who is charged: all of it was proven.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    issuer: &'a str,
    name: &'a str,
    untrusted: bool,
    job: Option<&'a str>,
}

impl<'a> From<&'a Workload> for Asker<'a> {
    fn from(workload: &'a Workload) -> Self {
        let Workload { issuer, principal, untrusted, job, profile: _, claims: _ } = workload;
        Self { issuer, name: principal, untrusted: *untrusted, job: job.as_deref() }
    }
}

impl<'a> From<&'a TaskRow> for Asker<'a> {
    fn from(row: &'a TaskRow) -> Self {
        Self { issuer: &row.issuer, name: &row.workload, untrusted: row.untrusted, job: row.job.as_deref() }
    }
}

/// When a lease may have ended meanwhile, for all that is known.
const QUOTA_RETRY_S: u32 = 10;

impl Taken {
    pub fn of(Allowance { workload, storm_per_minute, quotas }: Allowance) -> Self {
        Self { rates: Rates::new(workload), storms: Storms::new(storm_per_minute), quotas }
    }

    pub fn quotas(&self) -> Quotas {
        self.quotas
    }

    /// What the caller hears of a quota that is used up.
    fn spent(&self, quota: Quota, owner: &str) -> String {
        let Quotas { owner: all, production, workload } = self.quotas;
        match quota {
            Quota::Owner => format!("owner `{owner}` has {all} live leases, as many as an owner may have"),
            Quota::OwnerOutside => {
                let most = all.saturating_sub(production);
                format!("owner `{owner}` has {most} live leases outside of production; the rest is kept for production")
            }
            Quota::Workload => format!("this workload has {workload} live leases, as many as one may have"),
        }
    }
}

impl Shared {
    /// Charges whoever was proven. A template that is not there is one, however many are stated.
    // SECURITY: `refused_asks_cost_the_asker`, `a_storm_of_one_job_is_broken_and_opens_by_itself`.
    pub(super) fn charge(&self, policy: &Policy, asker: Asker<'_>, template: &str) -> Result<(), Refused> {
        let Asker { issuer, name, untrusted, job } = asker;
        let trust = if untrusted { "untrusted" } else { "trusted" };
        let boot_ms = self.time.boot_ms();
        let known = policy.bundle().templates.contains_key(template);
        let template = if known { template } else { "" };
        let payer = match job {
            Some(job) => Payer::named(&["job", issuer, job, template]),
            None => Payer::named(&["workload", name, trust, template]),
        };
        // Counted first: what the rate refuses is an ask too.
        let storm = self.allowance.storms.count(payer, boot_ms);
        if let Err(Spent { retry_after_s }) = self.allowance.rates.charge(Payer::named(&[name, trust]), boot_ms) {
            return Err(limited(Reason::Rate, Limit::Workload, retry_after_s));
        }
        let Err(Broken { retry_after_s, first }) = storm else { return Ok(()) };
        if first {
            metrics::counter!("dayfly_storms_total").increment(1);
            tracing::warn!(
                workload = name,
                job,
                template,
                "more asks in a minute than one job may make: it is refused until the minute is over"
            );
        }
        Err(limited(Reason::Storm, Limit::Storm, retry_after_s))
    }
}

impl Shared {
    /// How full the quotas are. Owners are names of bundles; those beyond the first few share a label.
    // SECURITY: `t_161_owners_beyond_the_first_few_share_a_label`.
    pub(super) fn gauge_quotas(&self, shown: &mut BTreeSet<Arc<str>>) {
        let uses = self.table.owner_uses();
        for (owner, used) in labelled(&uses, shown) {
            let gauge = |environment: &'static str, count: u32| {
                metrics::gauge!("dayfly_owner_leases", "owner" => owner.to_string(), "environment" => environment)
                    .set(f64::from(count));
            };
            gauge(PRODUCTION, used.production);
            gauge("others", used.outside);
        }
        let Quotas { owner, production, workload } = self.allowance.quotas;
        let most = |of: fn(OwnerUse) -> u32| uses.iter().map(|(_, used)| of(*used)).max().unwrap_or_default();
        let ratio = |limit: Limit, used: u32, most: u32| {
            metrics::gauge!("dayfly_quota_used_ratio", "limit" => limit.as_str())
                .set(f64::from(used) / f64::from(most.max(1)));
        };
        ratio(Limit::Owner, most(OwnerUse::all), owner);
        ratio(Limit::OwnerOutside, most(|used| used.outside), owner.saturating_sub(production));
        ratio(Limit::WorkloadLeases, self.table.fullest_workload(), workload);
    }

    /// A quota that is used up is a decision like any other; the evidence goes on working.
    pub(super) fn over_quota(&self, quota: Quota, refusal: Refusal, now: Now) -> Refused {
        Limit::from(quota).count();
        let owner = self.policy.load().bundle().templates.get(&*refusal.ask.template).map(|it| it.owner.to_string());
        let hint = self.allowance.spent(quota, &owner.unwrap_or_default());
        let refused = self.refuse(Refusal { reason: Reason::Quota, hint: Some(hint), ..refusal }, now.at);
        Refused { retry_after_s: Some(QUOTA_RETRY_S), ..refused }
    }
}

/// What was too much; labels of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Address,
    Workload,
    Storm,
    Owner,
    OwnerOutside,
    WorkloadLeases,
}

impl Limit {
    pub const ALL: [Self; 6] =
        [Self::Address, Self::Workload, Self::Storm, Self::Owner, Self::OwnerOutside, Self::WorkloadLeases];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Workload => "workload",
            Self::Storm => "storm",
            Self::Owner => "owner_leases",
            Self::OwnerOutside => "owner_leases_outside_production",
            Self::WorkloadLeases => "workload_leases",
        }
    }

    /// One more request that was too much.
    pub fn count(self) {
        metrics::counter!("dayfly_limited_total", "limit" => self.as_str()).increment(1);
    }
}

impl From<Quota> for Limit {
    fn from(quota: Quota) -> Self {
        match quota {
            Quota::Owner => Self::Owner,
            Quota::OwnerOutside => Self::OwnerOutside,
            Quota::Workload => Self::WorkloadLeases,
        }
    }
}

/// What each label stands for: whoever had one keeps it, so that a series never stops; then the fullest.
fn labelled(uses: &[(Arc<str>, OwnerUse)], shown: &mut BTreeSet<Arc<str>>) -> Vec<(Arc<str>, OwnerUse)> {
    let mut uses = uses.to_vec();
    uses.sort_by_key(|(_, used)| std::cmp::Reverse(used.all()));
    for (owner, _) in uses.iter().filter(|(_, used)| used.all() > 0) {
        if shown.len() < OWNERS_SHOWN_MAX {
            shown.insert(owner.clone());
        }
    }
    let (mine, others): (Vec<_>, Vec<_>) = uses.into_iter().partition(|(owner, _)| shown.contains(owner));
    let rest = others.into_iter().fold(OwnerUse::default(), |sum, (_, used)| sum.and(used));
    let gone = shown.iter().filter(|owner| !mine.iter().any(|(name, _)| name == *owner));
    let gone: Vec<_> = gone.map(|owner| (owner.clone(), OwnerUse::default())).collect();
    mine.into_iter().chain(gone).chain([(OTHERS.into(), rest)]).collect()
}

/// Owners with a label of their own.
pub const OWNERS_SHOWN_MAX: usize = 50;
/// No owner has such a name.
const OTHERS: &str = "(others)";

fn limited(reason: Reason, limit: Limit, retry_after_s: u32) -> Refused {
    limit.count();
    Refused { retry_after_s: Some(retry_after_s), ..reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(production: u32, outside: u32) -> OwnerUse {
        OwnerUse { production, outside }
    }

    #[test]
    fn t_161_owners_beyond_the_first_few_share_a_label() {
        let uses: Vec<_> = (0..400u32).map(|n| (Arc::from(format!("o-{n}")), used(n, 1))).collect();
        let mut shown = BTreeSet::new();
        let first = labelled(&uses, &mut shown);
        assert_eq!(first.len(), OWNERS_SHOWN_MAX + 1);
        assert!(first.iter().any(|(owner, _)| &**owner == "o-399"), "the fullest have their own");
        let all: u32 = first.iter().map(|(_, used)| used.all()).sum();
        assert_eq!(all, uses.iter().map(|(_, used)| used.all()).sum::<u32>(), "and nothing is left out");
        let later: Vec<_> = (400..800u32).map(|n| (Arc::from(format!("o-{n}")), used(n, 0))).collect();
        let second = labelled(&later, &mut shown);
        let names = |of: &[(Arc<str>, OwnerUse)]| of.iter().map(|(owner, _)| owner.clone()).collect::<BTreeSet<_>>();
        assert_eq!(names(&second), names(&first), "no series is made but the first, and none stops");
        assert!(second.iter().all(|(owner, used)| &**owner == OTHERS || used.all() == 0));
    }
}
