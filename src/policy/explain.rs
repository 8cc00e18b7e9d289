//! Why a decision came out as it did, and what would change it: the same question as `decide`, with
//! the nearest rows taken apart claim by claim.
//!
//! The outcome is `decide`'s own. What stands around it is text for people: printable, cut, and
//! without anything that looks like a secret.

use std::sync::Arc;

use dayfly_domain::{
    BindingKind, Name, Reason, Workload,
    bundle::{Row, Template},
    told,
};

use super::{
    Ask, Circumstances, Decision, Denied, Grant, Policy,
    nearest::{ClaimSeen, RowSeen, nearest},
    resolve::{Failed, resolve},
    written::Role,
};

/// Rows that are taken apart.
pub const NEAREST_MAX: usize = 3;
/// Values that a row wants of one claim, as told.
pub const WANTED_MAX: usize = 8;

/// A decision, explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub outcome: Outcome,
    /// The row that decided; of a denial those that come nearest, the workload's own issuer's first,
    /// by fewest claims that differ, then by fewest obstacles, ties by id.
    pub rows: Vec<RowSeen>,
    /// Rows of the template that are not told.
    pub rows_omitted: usize,
    /// The forbids that spoke.
    pub forbids: Vec<ByHand>,
    /// Permits of this template that are written by hand: they cannot be taken apart.
    pub opaque: Vec<ByHand>,
    /// What stands in the way beside rows and forbids.
    pub obstacles: Vec<String>,
    pub would_permit: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Permit(Permitted),
    Deny(Reason),
}

/// What would be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    /// A row, or a permit written by hand.
    pub by: Arc<str>,
    pub opaque: bool,
    /// Name of the target; none where no credential is asked.
    pub target: Option<Name>,
    pub actions: Vec<String>,
    /// Seconds that the credential lives at most; the task's deadline may come sooner.
    pub ttl_max_s: u32,
}

/// A policy written by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    pub id: String,
    pub purpose: String,
}

/// What a refused caller may see where its template says `explain = "caller"`: its own claims beside
/// the nearest row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    pub row: Name,
    pub claims: Vec<ClaimSeen>,
    /// What no claim of the row says.
    pub obstacles: Vec<String>,
}

impl Policy {
    /// Pure: nothing is recorded or counted.
    pub fn explain(&self, workload: &Workload, ask: &Ask, circumstances: Circumstances<'_>) -> Explanation {
        let template = self.bundle.templates.get(ask.template.as_str());
        let decision = self.decide(workload, ask, circumstances);
        let opaque = template.map_or_else(Vec::new, |template| self.by_hand_for(template));
        match decision {
            Decision::Permit(grant) => self.permitted_by(workload, template, &grant, opaque),
            Decision::Deny(denied) => {
                let obstacles = self.obstacles(workload, template, ask, circumstances.proven, &denied);
                self.denied_to(workload, template, denied, obstacles, opaque)
            }
        }
    }

    /// The nearest row for the caller's own eyes, where its template allows that.
    // SECURITY: only rows of this template and of the caller's own issuer, and only the claims that the
    // row names; `t_118_a_comparison_tells_of_no_other_template`, `a_comparison_needs_the_owners_leave`.
    pub fn comparison(&self, workload: &Workload, template: &str) -> Option<Comparison> {
        let template = self.bundle.templates.get(template).filter(|template| !template.disabled)?;
        self.issuer_of(workload).filter(|_| template.explains_to_caller)?;
        let own = template.rows.iter().filter(|row| row.issuer == workload.issuer && !row.disabled);
        let row = nearest(self, workload, own, 1).into_iter().next()?;
        let obstacles = row.obstacles.iter().map(|obstacle| obstacle.fact()).collect();
        Some(Comparison { row: row.id, claims: row.claims, obstacles })
    }

    fn permitted_by(
        &self,
        workload: &Workload,
        template: Option<&Template>,
        grant: &Grant,
        opaque: Vec<ByHand>,
    ) -> Explanation {
        let all = template.map_or(&[][..], |template| &template.rows);
        let deciding = all.iter().filter(|row| *row.id == **grant.row());
        let rows = nearest(self, workload, deciding, 1);
        Explanation {
            outcome: Outcome::Permit(permitted(grant, rows.is_empty())),
            rows_omitted: all.len() - rows.len(),
            rows,
            forbids: Vec::new(),
            opaque,
            obstacles: Vec::new(),
            would_permit: Vec::new(),
        }
    }

    fn denied_to(
        &self,
        workload: &Workload,
        template: Option<&Template>,
        denied: Denied,
        obstacles: Vec<String>,
        opaque: Vec<ByHand>,
    ) -> Explanation {
        let all: &[Row] = template.map_or(&[], |template| &template.rows);
        let rows = nearest(self, workload, all.iter(), NEAREST_MAX);
        // Of a lapsed row it is the rows that are named.
        let spoke = if denied.reason == Reason::Forbidden { denied.policies.as_slice() } else { &[] };
        let forbids: Vec<_> = spoke.iter().map(|id| self.by_hand(id)).collect();
        let would_permit = rows.first().and_then(RowSeen::wish).into_iter();
        let lifted = |forbid: &ByHand| format!("`{}` no longer applying: {}", forbid.id, forbid.purpose);
        Explanation {
            outcome: Outcome::Deny(denied.reason),
            rows_omitted: all.len() - rows.len(),
            would_permit: would_permit.chain(forbids.iter().map(lifted)).collect(),
            rows,
            forbids,
            opaque,
            obstacles,
        }
    }

    /// Beside rows and forbids.
    fn obstacles(
        &self,
        workload: &Workload,
        template: Option<&Template>,
        ask: &Ask,
        proven: BindingKind,
        denied: &Denied,
    ) -> Vec<String> {
        let mut found = Vec::new();
        if self.issuer_of(workload).is_none() {
            let what = "is not in the bundle, is disabled, or vouches under another profile now";
            found.push(format!("the issuer `{}` {what}", workload.issuer));
        }
        match template {
            None => found.push(format!("there is no template `{}`", told(&ask.template))),
            Some(template) if template.disabled => {
                found.push(format!("the template `{}`, or its owner, is disabled", template.name));
            }
            Some(template) => {
                found.extend(
                    resolve(&self.bundle, template, ask, proven).err().map(|failed| wrong_ask(&failed, proven)),
                );
            }
        }
        found.extend(denied.inside.as_ref().map(|inside| format!("policy could not be evaluated: {}", told(inside))));
        found
    }

    fn by_hand_for(&self, template: &Template) -> Vec<ByHand> {
        let own = self.written.iter().filter(|written| written.role == Role::Run(template.name.clone()));
        own.map(|written| self.by_hand(written.id())).collect()
    }

    fn by_hand(&self, id: &str) -> ByHand {
        let written = self.written.iter().find(|written| written.id() == id);
        let purpose = written.and_then(|written| written.policy.annotation("purpose")).unwrap_or_default();
        ByHand { id: id.to_owned(), purpose: told(purpose) }
    }
}

fn permitted(grant: &Grant, opaque: bool) -> Permitted {
    let target = grant.target();
    let caps = [Some(grant.row_ttl().as_s()), grant.asked_ttl_s(), target.map(|target| target.max_ttl.as_s())];
    Permitted {
        by: grant.row().clone(),
        opaque,
        target: target.map(|target| target.name.clone()),
        actions: target.map_or_else(Vec::new, |target| target.actions.iter().map(ToString::to_string).collect()),
        ttl_max_s: caps.into_iter().flatten().min().unwrap_or_default(),
    }
}

/// Why the ask could not be put to policy at all.
fn wrong_ask(failed: &Failed, proven: BindingKind) -> String {
    let Denied { reason, hint, .. } = &failed.denied;
    match reason {
        Reason::Dpop | Reason::Certificate => {
            format!("the target wants its credentials bound (`{}`), and `{proven}` was proven", failed.binding)
        }
        _ => format!("the ask is not one of this template: {}", hint.as_deref().unwrap_or(reason.row().help)),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
