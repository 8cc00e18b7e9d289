//! A task among its ancestors: what ended above has ended below.

use std::sync::Arc;

use dayfly_domain::{State, TaskId, UnixMs};

use super::{
    table::{End, Table},
    time::Now,
};

/// How a task stands, without its record: asked with every beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    /// What ended it, whoever's end it was.
    pub end: Option<End>,
    pub deadline: UnixMs,
    pub template: Arc<str>,
}

impl Table {
    pub fn standing(&self, id: TaskId, now: Now) -> Option<Standing> {
        let state = self.task_state(id, now)?;
        let (deadline, template) = self.tasks.get(&id).map(|task| (task.deadline, task.template.clone()))?;
        let end = self.end_of_tree(id, now).filter(|end| end.at < deadline);
        Some(Standing { state, end, deadline, template })
    }
}
