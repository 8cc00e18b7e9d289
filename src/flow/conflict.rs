//! Evidence, or a job, that shows a second key: one of the two who hold a key is a thief, and the
//! broker cannot tell which. Refused, alarmed, and shown on the task that was there first.

use dayfly_domain::{Reason, TaskId};
use dayfly_verifier::Thumbprint;

use super::{Shared, refuse::Refusal, words::Refused};
use crate::lease::{Now, Overtaken};

impl Shared {
    /// The task that this evidence opened under another key, or with one where none is shown now.
    pub(super) fn conflict(&self, evidence_key: &[u8; 32], shown: Option<Thumbprint>) -> Option<TaskId> {
        self.table.opened_by(evidence_key).filter(|(_, first)| *first != shown).map(|(task, _)| task)
    }

    /// Refuses what was overtaken; a conflict is an alarm besides.
    // SECURITY: `t_065_used_evidence_under_another_key_is_a_conflict`.
    pub(super) fn overtaken(&self, overtaken: Overtaken, mut refusal: Refusal, now: Now) -> Refused {
        refusal.reason = reason_of(overtaken);
        match overtaken {
            Overtaken::Conflict(task) => {
                metrics::counter!("dayfly_evidence_conflict_total").increment(1);
                refusal.task = Some(task);
            }
            Overtaken::KeyOfAnother => {
                refusal.hint = Some("the key is another workload's: make a fresh one".to_owned())
            }
            Overtaken::Quota(quota) => return self.over_quota(quota, refusal, now),
            _ => {}
        }
        self.refuse(refusal, now.at)
    }
}

fn reason_of(overtaken: Overtaken) -> Reason {
    match overtaken {
        Overtaken::Replayed => Reason::Replayed,
        Overtaken::Conflict(_) => Reason::Conflict,
        // No verb opens children yet: these will say more when one does.
        Overtaken::Ended | Overtaken::ParentEnded | Overtaken::OutlivesParent => Reason::Ended,
        Overtaken::HandleUsed => Reason::HandleUsed,
        Overtaken::Blocked => Reason::Blocked,
        Overtaken::PerJob | Overtaken::TooDeep | Overtaken::TooManyChildren => Reason::PerJob,
        Overtaken::KeyOfAnother => Reason::Csr,
        Overtaken::Quota(_) => Reason::Quota,
    }
}
