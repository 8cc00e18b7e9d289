//! What may not be issued. Blocks on a label, which every end of a task may write, are looked up;
//! those on other selectors are few, and each is held against what is asked.

use std::sync::Arc;

use arc_swap::ArcSwap;
use dayfly_domain::{BlockId, LeaseWords, Matcher, Selector, TaskWords, UnixMs};

use super::{table::Label, time::Now};
use crate::{store::BlockRow, sys::sync::DashMap};

/// One block, whatever it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub id: BlockId,
    /// Absent: until it is lifted.
    pub until: Option<UnixMs>,
    /// The event that wrote it.
    pub seq: u64,
}

impl Block {
    fn holds(&self, now: Now) -> bool {
        self.until.is_none_or(|until| until > now.at)
    }
}

#[derive(Debug)]
struct Other {
    matcher: Matcher,
    block: Block,
}

#[derive(Debug, Default)]
pub(super) struct Blocks {
    by_label: DashMap<Label, Vec<Block>>,
    others: ArcSwap<Vec<Arc<Other>>>,
}

impl Blocks {
    pub fn add(&self, row: &BlockRow) {
        let block = Block { id: row.id, until: row.until, seq: row.seq };
        match label_of(&row.selector, row.until) {
            Some(label) => self.by_label.entry(label).or_default().push(block),
            None => {
                let other = Arc::new(Other { matcher: Matcher::new(row.selector.clone()), block });
                self.others.rcu(|others| others.iter().cloned().chain([other.clone()]).collect::<Vec<_>>());
            }
        }
    }

    pub fn lift(&self, id: BlockId) {
        self.keep(|block| block.id != id);
    }

    pub fn forget(&self, now: Now) {
        self.keep(|block| block.holds(now));
    }

    fn keep(&self, keep: impl Fn(&Block) -> bool) {
        self.by_label.retain(|_, blocks| {
            blocks.retain(&keep);
            !blocks.is_empty()
        });
        if self.others.load().iter().any(|other| !keep(&other.block)) {
            let kept = |others: &Arc<Vec<Arc<Other>>>| {
                others.iter().filter(|other| keep(&other.block)).cloned().collect::<Vec<_>>()
            };
            self.others.rcu(kept);
        }
    }

    pub fn on_label(&self, label: &Label, now: Now) -> bool {
        self.by_label.get(label).is_some_and(|blocks| blocks.iter().any(|block| block.holds(now)))
    }

    /// Whether others than those on labels stand.
    pub fn has_others(&self) -> bool {
        !self.others.load().is_empty()
    }

    /// Whether one of the others speaks of this task, or of the credential that is asked for it.
    pub fn on_words(&self, task: &TaskWords<'_>, lease: Option<&LeaseWords<'_>>, now: Now) -> bool {
        self.others.load().iter().any(|other| other.block.holds(now) && speaks_of(&other.matcher, task, lease))
    }

    /// The block on exactly this that stands until it is lifted.
    pub fn standing(&self, selector: &Selector) -> Option<Block> {
        let lasting = |block: &&Block| block.until.is_none();
        if let Some(label) = label_of(selector, None) {
            return self.by_label.get(&label)?.iter().find(lasting).copied();
        }
        let others = self.others.load();
        others.iter().find(|other| other.matcher.selector() == selector && lasting(&&other.block)).map(|it| it.block)
    }

    /// How many stand until they are lifted.
    pub fn count_standing(&self) -> usize {
        let lasting = |block: &&Block| block.until.is_none();
        let labels: usize = self.by_label.iter().map(|entry| entry.value().iter().filter(lasting).count()).sum();
        labels + self.others.load().len()
    }

    pub fn get(&self, id: BlockId, now: Now) -> Option<Block> {
        let wanted = |block: &&Block| block.id == id && block.holds(now);
        if let Some(other) = self.others.load().iter().find(|other| wanted(&&other.block)) {
            return Some(other.block);
        }
        self.by_label.iter().find_map(|entry| entry.value().iter().find(wanted).copied())
    }
}

/// The end of a task blocks a label. A selector of a workload that stands until it is lifted means its
/// jobs too, and a label does not.
// SECURITY: `a_block_on_a_workload_means_its_jobs_too`.
fn label_of(selector: &Selector, until: Option<UnixMs>) -> Option<Label> {
    Label::of_selector(selector).filter(|_| until.is_some() || selector.job.is_some())
}

pub(super) fn speaks_of(matcher: &Matcher, task: &TaskWords<'_>, lease: Option<&LeaseWords<'_>>) -> bool {
    matcher.task(task) || lease.is_some_and(|lease| matcher.lease(task, lease))
}
