//! Trees of tasks: a task opens tasks below it, an end reaches everything below, and both cost the
//! same however large the tree is.
//!
//! Nothing is written below an end: whoever asks about a task or a lease asks its ancestors too. What is
//! kept of a parent is only which of its children are open, for as long as one of them is remembered.

use std::sync::Arc;

use dayfly_domain::{State, TaskId, UnixMs};

use super::{
    fence::Overtaken,
    jobs::Job,
    records::Place,
    table::{End, Table},
    time::Now,
};
use crate::store::TaskRow;

/// A tree is so deep at most, its root counted.
pub const LEVELS_MAX: usize = 4;
/// Open children of one task.
pub const CHILDREN_MAX: usize = 64;

/// How a task stands, without its record: asked with every beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    /// What ended it, whoever's end it was.
    pub end: Option<End>,
    pub deadline: UnixMs,
    pub template: Arc<str>,
}

/// What a parent's record keeps of its children.
#[derive(Debug, Default)]
pub(super) struct Brood {
    /// Not ended; some may have expired.
    open: Vec<TaskId>,
    /// Of those that are remembered, ended or not.
    remembered: usize,
    /// Of the parent's record once it is over: it is forgotten with the last of them.
    parent: Option<Place>,
}

impl Table {
    pub fn standing(&self, id: TaskId, now: Now) -> Option<Standing> {
        let (own, deadline, template) =
            self.tasks.get(&id).map(|task| (task.state(now), task.deadline, task.template.clone()))?;
        let end = self.end_of_tree(id, now).filter(|end| own == State::Ended || end.at < deadline);
        let state = if end.is_some() { State::Ended } else { own };
        Some(Standing { state, end, deadline, template })
    }

    /// May a task open below its parent? `beside`: how many the batch opens there before it.
    // SECURITY: `a_tree_grows_neither_too_deep_nor_too_broad`, `below_an_end_nothing_opens`.
    pub(super) fn takes_child(&self, child: &TaskRow, beside: usize, now: Now) -> Result<(), Overtaken> {
        let Some(parent) = child.parent else { return Ok(()) };
        let standing = self.standing(parent, now).filter(|standing| standing.state == State::Active);
        let standing = standing.ok_or(Overtaken::ParentEnded)?;
        // A child that outlived its parent would be forgotten by no end of it (law L3).
        if child.deadline > standing.deadline {
            return Err(Overtaken::OutlivesParent);
        }
        if self.level(parent) >= LEVELS_MAX {
            return Err(Overtaken::TooDeep);
        }
        if self.open_children(parent, now) + beside >= CHILDREN_MAX {
            return Err(Overtaken::TooManyChildren);
        }
        Ok(())
    }

    /// Of a root 1. Counts no further than needed.
    fn level(&self, id: TaskId) -> usize {
        let above = |id: &TaskId| self.tasks.ends_of(id).and_then(|(_, parent)| parent);
        std::iter::successors(Some(id), above).take(LEVELS_MAX).count()
    }

    /// At most as many are looked at as may be open; those that have expired are let go here.
    fn open_children(&self, parent: TaskId, now: Now) -> usize {
        let Some(mut brood) = self.broods.get_mut(&parent) else { return 0 };
        // INVARIANT: nobody waits for a brood while holding a task, so one may be asked below the other.
        brood.open.retain(|id| self.task_state(*id, now) == Some(State::Active));
        brood.open.len()
    }

    pub(super) fn add_child(&self, parent: Option<TaskId>, id: TaskId, open: bool) {
        let Some(parent) = parent else { return };
        let mut brood = self.broods.entry(parent).or_default();
        brood.remembered += 1;
        if open {
            brood.open.push(id);
        }
    }

    pub(super) fn end_child(&self, parent: Option<TaskId>, id: TaskId) {
        if let Some(mut brood) = parent.and_then(|parent| self.broods.get_mut(&parent)) {
            brood.open.retain(|child| *child != id);
        }
    }

    /// What an ended task no longer counts in.
    pub(super) fn let_go(&self, id: TaskId, parent: Option<TaskId>, job: &Job) {
        self.end_in_job(id, job);
        self.end_child(parent, id);
        self.touches.push_task(id);
        self.release_task(id);
        self.holds.release(id);
    }

    /// Whether a task that is over may be forgotten now; otherwise it is when its last child is.
    // SECURITY: `a_parent_is_not_forgotten_before_its_children`: they ask it whether they live.
    pub(super) fn is_childless(&self, id: TaskId, place: Place) -> bool {
        self.broods.get_mut(&id).is_none_or(|mut brood| {
            brood.parent = Some(place);
            false
        })
    }

    /// A child is forgotten; gives back its parent, if it only waited for that.
    pub(super) fn forget_child(&self, parent: Option<TaskId>, id: TaskId) -> Option<Place> {
        let parent = parent?;
        {
            let mut brood = self.broods.get_mut(&parent)?;
            brood.remembered = brood.remembered.saturating_sub(1);
            brood.open.retain(|child| *child != id);
        }
        let (_, last) = self.broods.remove_if(&parent, |_, brood| brood.remembered == 0)?;
        last.parent
    }
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
