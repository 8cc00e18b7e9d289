//! Filters as SQL: the one place that says what a state is at a moment.

use dayfly_domain::UnixMs;
use rusqlite::types::Value;

use super::{EventFilter, LeaseFilter, TaskFilter, columns::id_bytes};

/// When the first of the ancestors of a task `t` ended, or NULL: an end reaches everything below, and
/// nothing is written there. Trees are few levels deep.
macro_rules! above {
    () => {
        "CASE WHEN t.parent IS NOT NULL THEN (WITH RECURSIVE up (parent, end_at) AS ( \
           SELECT p.parent, p.end_at FROM task p WHERE p.id = t.parent \
           UNION ALL SELECT p.parent, p.end_at FROM task p JOIN up ON p.id = up.parent) \
         SELECT min(end_at) FROM up) END"
    };
}

/// The state of a task `t` at the moment `?1`.
const TASK_STATE: &str = concat!(
    "CASE WHEN t.end_at <= ?1 THEN 'ended' WHEN ",
    above!(),
    " < min(?1 + 1, t.deadline) THEN 'ended' WHEN t.deadline <= ?1 THEN 'expired' ELSE 'active' END"
);

/// The state of a lease `l` of a task `t` at the moment `?1`. A task that ended after a lease had
/// run out did not end that lease.
pub(super) const LEASE_STATE: &str = concat!(
    "CASE WHEN l.end_at <= ?1 OR (t.end_at <= ?1 AND t.end_at < l.expires) OR ",
    above!(),
    " < min(?1 + 1, l.expires) THEN 'ended' WHEN l.expires <= ?1 OR t.deadline <= ?1 THEN 'expired' ELSE 'active' END"
);

const NAMES_TARGET: &str = "EXISTS (SELECT 1 FROM json_each(t.grants) g WHERE g.key = $)";

/// A `WHERE` that grows, and its values.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    sql: String,
    pub values: Vec<Value>,
}

impl Conditions {
    /// `?1` is the moment by which states are judged.
    fn at(now: UnixMs) -> Self {
        Self { sql: String::new(), values: vec![Value::Integer(now.as_ms())] }
    }

    /// The value comes where `test` has its `$`.
    fn and<V: Into<Value>>(mut self, test: &str, value: Option<V>) -> Self {
        if let Some(value) = value {
            let word = if self.sql.is_empty() { " WHERE " } else { " AND " };
            let slot = self.slot(value);
            self.sql.push_str(word);
            self.sql.push_str(&test.replace('$', &slot));
        }
        self
    }

    /// The name of a new parameter.
    fn slot(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("?{}", self.values.len())
    }

    /// The whole clause, newest first and not longer than a page.
    pub fn page(&mut self, order: &str, limit: usize) -> String {
        let slot = self.slot(i64::try_from(limit).unwrap_or(i64::MAX));
        format!("{} ORDER BY {order} DESC LIMIT {slot}", self.sql)
    }
}

pub(super) fn tasks(filter: &TaskFilter, now: UnixMs, before: Option<u128>) -> Conditions {
    Conditions::at(now)
        .and("t.id < $", before.map(id_value))
        .and(&format!("{TASK_STATE} = $"), filter.state.map(|state| text(state.as_str())))
        .and("t.id = $", filter.task.map(|id| id_value(id.as_u128())))
        .and("t.job = $", filter.job.clone())
        .and("t.workload = $", filter.workload.clone())
        .and("t.owner = $", filter.owner.clone())
        .and("t.issuer = $", filter.issuer.clone())
        .and("t.template = $", filter.template.clone())
        .and(NAMES_TARGET, filter.target.clone())
        .and("t.deadline <= $", filter.expires_before.map(UnixMs::as_ms))
}

pub(super) fn leases(filter: &LeaseFilter, now: UnixMs, before: Option<u128>) -> Conditions {
    Conditions::at(now)
        .and("l.id < $", before.map(id_value))
        .and("l.task = $", filter.task.map(|id| id_value(id.as_u128())))
        .and(&format!("{LEASE_STATE} = $"), filter.state.map(|state| text(state.as_str())))
        .and("t.job = $", filter.job.clone())
        .and("t.workload = $", filter.workload.clone())
        .and("t.owner = $", filter.owner.clone())
        .and("t.issuer = $", filter.issuer.clone())
        .and("t.template = $", filter.template.clone())
        .and("l.target = $", filter.target.clone())
        .and("l.kind = $", filter.kind.map(|kind| text(kind.as_str())))
        .and("l.expires <= $", filter.expires_before.map(UnixMs::as_ms))
}

pub(super) fn events(filter: &EventFilter, before: Option<u64>) -> Conditions {
    Conditions::default()
        .and("e.seq < $", before.map(|seq| i64::try_from(seq).unwrap_or(i64::MAX)))
        .and("e.task = $", filter.task.map(|id| id_value(id.as_u128())))
        .and("e.lease = $", filter.lease.map(|id| id_value(id.as_u128())))
        .and("e.at >= $", filter.since.map(UnixMs::as_ms))
        .and("e.at < $", filter.until.map(UnixMs::as_ms))
}

fn id_value(id: u128) -> Value {
    Value::Blob(id_bytes(id).to_vec())
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}
