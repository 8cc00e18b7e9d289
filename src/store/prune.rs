//! Dropping rows that nobody asks for any more, in slices, off the request path. Events stay.

use dayfly_domain::UnixMs;
use rusqlite::{Connection, Params, TransactionBehavior, params};

use super::{Store, StoreError};

/// What is old enough to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PruneBefore {
    /// Tasks whose deadline lies before this.
    pub tasks: UnixMs,
    /// Leases whose expiry lies before this.
    pub leases: UnixMs,
    pub now: UnixMs,
}

const LEASES: &str =
    "DELETE FROM lease WHERE id IN (SELECT id FROM lease WHERE expires < ?1 ORDER BY expires LIMIT ?2)";

/// As long as the evidence of a task could be presented again, with 30 s for other clocks, its row
/// is what refuses it. A parent stays as long as a child: it says how that one ended.
// SECURITY: `prune_keeps_what_must_be_kept`.
const TASKS: &str = "DELETE FROM task WHERE id IN (SELECT t.id FROM task t WHERE t.deadline < ?1 \
     AND t.evidence_exp_s * 1000 + 30000 < ?2 AND NOT EXISTS (SELECT 1 FROM lease l WHERE l.task = t.id) \
     AND NOT EXISTS (SELECT 1 FROM task c WHERE c.parent = t.id) \
     ORDER BY t.deadline LIMIT ?3)";

const BLOCKS: &str = "DELETE FROM block WHERE id IN (SELECT id FROM block WHERE until < ?1 ORDER BY until LIMIT ?2)";
const LISTS: &str = "DELETE FROM list WHERE id IN (SELECT id FROM list WHERE hour_s < ?1 ORDER BY hour_s LIMIT ?2)";

impl Store {
    /// Drops at most `limit` rows and says how many; fewer than `limit` means that none is left.
    pub fn prune(&mut self, before: PruneBefore, limit: usize) -> Result<usize, StoreError> {
        let _turn = self.place.writing();
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (tasks, leases, now) = (before.tasks.as_ms(), before.leases.as_ms(), before.now.as_ms());
        let mut room = limit;
        room -= drop_rows(&transaction, LEASES, params![leases, room])?;
        room -= drop_rows(&transaction, TASKS, params![tasks, now, room])?;
        room -= drop_rows(&transaction, BLOCKS, params![now, room])?;
        room -= drop_rows(&transaction, LISTS, params![before.leases.as_s(), room])?;
        transaction.commit()?;
        Ok(usize::try_from(limit - room).unwrap_or_default())
    }
}

fn drop_rows(connection: &Connection, sql: &str, values: impl Params) -> Result<i64, StoreError> {
    let dropped = connection.prepare_cached(sql)?.execute(values)?;
    Ok(i64::try_from(dropped).unwrap_or(i64::MAX))
}
