//! What is asked, and what policy says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dayfly_domain::{
    BindingKind, Kind, Name, Reason, Span,
    bundle::{Action, Leaf},
};

/// A request as its caller means it; nothing in it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub template: String,
    pub what: What,
    /// Seconds asked; absent: the template's.
    pub ttl_s: Option<u32>,
    pub ticket: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A credential for one target.
    Credential {
        kind: Kind,
        /// The target's URI; may be absent when the template has one target.
        resource: Option<String>,
        /// Absent: all that the template grants on the target.
        actions: Option<Vec<String>>,
    },
    /// The task alone, without a credential.
    TaskOnly,
}

/// What is known of the moment of the ask, beside the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circumstances<'a> {
    /// What was proven: `Dpop` when a checked proof came.
    pub proven: BindingKind,
    /// Seconds since the evidence's `iat`.
    pub evidence_age_s: i64,
    /// What the job holds beside this ask: `target#action`, sorted, each once. Of the other live
    /// tasks of the job all that their handles can ask for, and of the task that asks what it does
    /// not ask now.
    pub held: &'a [String],
}

/// Default deny; any evaluation error is a deny (law L4).
#[derive(Debug)]
pub enum Decision {
    Permit(Grant),
    Deny(Denied),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub reason: Reason,
    /// Ids of the policies that decided (a forbid), sorted.
    pub policies: Vec<String>,
    /// For the caller's eyes: never a secret, never another owner's rows.
    pub hint: Option<String>,
    /// For operators only: Cedar's error.
    pub inside: Option<String>,
}

/// What policy permits: a subset of asked, granted by the template, and permitted (law L5).
/// Made only in `policy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub(in crate::policy) template: Name,
    pub(in crate::policy) purpose: Arc<str>,
    /// The task's owner: the template's.
    pub(in crate::policy) owner: Name,
    pub(in crate::policy) environment: Name,
    /// All the template grants, for the task's record.
    pub(in crate::policy) grants: BTreeMap<Name, BTreeSet<Action>>,
    /// What the credential is for; `None` when none was asked.
    pub(in crate::policy) target: Option<GrantedTarget>,
    /// The deciding permit: a row or a hand-written one.
    pub(in crate::policy) row: Arc<str>,
    /// min(the deciding row's TTL, the template's).
    pub(in crate::policy) row_ttl: Span,
    /// Seconds asked, uncapped (mint caps); absent: as long as may be.
    pub(in crate::policy) asked_ttl_s: Option<u32>,
    pub(in crate::policy) deadline: Span,
    pub(in crate::policy) per_job: u32,
    pub(in crate::policy) keys_per_job: Option<u32>,
    pub(in crate::policy) ticket: Option<String>,
    /// DNS names of a certificate.
    pub(in crate::policy) serves: Vec<String>,
    pub(in crate::policy) leaf: Arc<Leaf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedTarget {
    pub name: Name,
    pub uri: Arc<str>,
    pub kind: Kind,
    pub binding: BindingKind,
    pub actions: BTreeSet<Action>,
    /// Longest life that the target takes, with the cap of `exp_only` already in it.
    pub max_ttl: Span,
    pub verifies: dayfly_domain::Verifies,
    pub cache: Span,
    pub leeway: Span,
    pub list_life: Span,
}

impl Grant {
    pub fn template(&self) -> &Name {
        &self.template
    }

    pub fn purpose(&self) -> &Arc<str> {
        &self.purpose
    }

    pub fn owner(&self) -> &Name {
        &self.owner
    }

    pub fn environment(&self) -> &Name {
        &self.environment
    }

    pub fn grants(&self) -> &BTreeMap<Name, BTreeSet<Action>> {
        &self.grants
    }

    pub fn target(&self) -> Option<&GrantedTarget> {
        self.target.as_ref()
    }

    pub fn row(&self) -> &Arc<str> {
        &self.row
    }

    pub fn row_ttl(&self) -> Span {
        self.row_ttl
    }

    pub fn asked_ttl_s(&self) -> Option<u32> {
        self.asked_ttl_s
    }

    pub fn deadline(&self) -> Span {
        self.deadline
    }

    pub fn per_job(&self) -> u32 {
        self.per_job
    }

    pub fn keys_per_job(&self) -> Option<u32> {
        self.keys_per_job
    }

    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    pub fn serves(&self) -> &[String] {
        &self.serves
    }

    pub fn ticket(&self) -> Option<&str> {
        self.ticket.as_deref()
    }
}
