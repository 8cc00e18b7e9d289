//! What is known of the moment of an ask, beside who asks and for what: what was proven, how old the
//! evidence is, and what the job holds. In: the asking, the lease table. Out: what policy decides
//! on, and what the record says of it.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_domain::{BindingKind, Reason, TaskId, UnixMs, Workload};

use super::{Shared, words::Refused};
use crate::{
    lease::{Holding, Job, Now, Seen},
    ledger::Context,
    policy::{Ask, Circumstances, Policy},
    store::TaskRow,
};

/// One moment, under one bundle.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    proven: BindingKind,
    age_s: i64,
    held: Vec<String>,
    asked: (i64, Vec<String>),
    seen: Seen,
    ends_asked: u64,
}

impl Moment {
    pub fn circumstances(&self) -> Circumstances<'_> {
        Circumstances { proven: self.proven, evidence_age_s: self.age_s, held: &self.held }
    }

    /// What the decision was made on, as recorded.
    pub fn context(&self, ask: &Ask) -> Context {
        let (ttl, pairs) = self.asked.clone();
        let held = self.held.clone();
        Context {
            ttl,
            kind: Context::kind_of(&ask.what).to_owned(),
            binding: self.proven.to_string(),
            age_s: self.age_s,
            ask: pairs,
            held,
        }
    }

    /// Ends by selector so far.
    pub fn ends_asked(&self) -> u64 {
        self.ends_asked
    }

    /// For the fence, where a policy of the template looks at what is held.
    pub fn watched(self, policy: &Policy, template: &str) -> Option<Seen> {
        policy.reads_held(template).then_some(self.seen)
    }
}

impl Shared {
    /// `task`: the one that is fed.
    pub(super) fn moment(
        &self,
        policy: &Policy,
        (workload, ask): (&Workload, &Ask),
        task: Option<&TaskRow>,
        (proven, issued_at): (BindingKind, UnixMs),
        now: Now,
    ) -> Result<Moment, Refused> {
        // First: what is asked from here on is asked after this decision.
        let ends_asked = self.table.ends_asked();
        let job = Job::of_parts(&workload.issuer, workload.job.as_deref(), &workload.principal);
        let but: Option<TaskId> = task.map(|row| row.id);
        let seen = Seen { holdings: self.table.holdings(&job, but, now), job, but };
        let asked = policy.asked(ask);
        let mut held = BTreeSet::new();
        for Holding { template, grants } in &seen.holdings {
            held.extend(may_do(policy, template, grants)?);
        }
        if let Some(row) = task {
            let own = may_do(policy, &row.template, &row.grants)?;
            held.extend(own.difference(&asked.1.iter().cloned().collect()).cloned());
        }
        let age_s = (now.at.as_ms() - issued_at.as_ms()) / 1000;
        Ok(Moment { proven, age_s, held: held.into_iter().collect(), asked, seen, ends_asked })
    }
}

/// What a task's handle can ask for, `target#action`: what its template grants now, and what it
/// granted at the opening, of which credentials may be out.
fn may_do(policy: &Policy, template: &str, recorded: &str) -> Result<BTreeSet<String>, Refused> {
    let recorded: BTreeMap<String, Vec<String>> = serde_json::from_str(recorded).map_err(|_| Reason::Internal)?;
    let recorded = recorded.iter().flat_map(|(target, actions)| actions.iter().map(move |a| format!("{target}#{a}")));
    let now = policy.bundle().templates.get(template).map(|template| &template.grants);
    let now = now.into_iter().flatten();
    let now = now.flat_map(|(target, actions)| actions.iter().map(move |action| format!("{target}#{action}")));
    Ok(recorded.chain(now).collect())
}
