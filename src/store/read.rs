//! The readers' side: what is committed, to any thread, beside the writer.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use dayfly_domain::{BindingKind, BlockId, EventId, LeaseId, TaskId, UnixMs};
use rusqlite::{Connection, OptionalExtension, Params, params, params_from_iter};

use super::{
    BlockRow, BundleRow, EventFilter, EventRow, LeaseFilter, LeaseRow, ListRow, Page, Snapshot, StoreError, TaskFilter,
    TaskRow, TombRow, UsedRow, archive,
    columns::{self, BLOCK, Columns, EVENT, LEASE, LIST, TASK, TOMB, id_bytes, seq_in},
    filter::{self, LEASE_STATE},
    place::Place,
    pool::Pool,
    schema, write,
};

const FROM_TASK: &str = "FROM task t";
const FROM_LEASE: &str = "FROM lease l JOIN task t ON t.id = l.task";
const FROM_EVENT: &str = "FROM event e LEFT JOIN detail d ON d.seq = e.seq";

/// Reads what is committed. Cheap to clone; at most four reads run at once, the others wait. A
/// callback must not read or write the store it is called from.
#[derive(Debug, Clone)]
pub struct Reader {
    pool: Arc<Pool>,
}

impl Reader {
    /// Reads the file of a broker that runs, was stopped or was killed; writes nothing into it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // SECURITY: SQLite drops the write-ahead log of an empty file, which may be the only copy;
        // an_empty_file_is_not_opened_and_its_log_is_kept
        if std::fs::metadata(path).map_err(StoreError::File)?.len() == 0 {
            return Err(StoreError::Emptied);
        }
        let reader = Self::of(Place::file(path)?);
        reader.pool.with(schema::require_current)?;
        Ok(reader)
    }

    pub(super) fn of(place: Place) -> Self {
        Self { pool: Arc::new(Pool::of(place)) }
    }

    pub fn task(&self, id: TaskId) -> Result<Option<TaskRow>, StoreError> {
        let sql = format!("SELECT {TASK} {FROM_TASK} WHERE t.id = ?1");
        self.one(&sql, [id_bytes(id.as_u128())], columns::task)
    }

    /// By the SHA-256 of its handle.
    pub fn task_by_handle(&self, handle_hash: &[u8; 32]) -> Result<Option<TaskRow>, StoreError> {
        let sql = format!("SELECT {TASK} {FROM_TASK} WHERE t.handle_hash = ?1");
        self.one(&sql, [handle_hash], columns::task)
    }

    pub fn lease(&self, id: LeaseId) -> Result<Option<(LeaseRow, TaskRow)>, StoreError> {
        let sql = format!("SELECT {LEASE}, {TASK} {FROM_LEASE} WHERE l.id = ?1");
        self.one(&sql, [id_bytes(id.as_u128())], lease_and_task)
    }

    /// Newest first; the state is that at `now`.
    pub fn tasks(&self, filter: &TaskFilter, now: UnixMs, page: Page<TaskId>) -> Result<Vec<TaskRow>, StoreError> {
        let mut conditions = filter::tasks(filter, now, page.before.map(TaskId::as_u128));
        let sql = format!("SELECT {TASK} {FROM_TASK}{}", conditions.page("t.id", page.limit));
        self.all(&sql, params_from_iter(conditions.values), columns::task)
    }

    /// Newest first, each with its task; the state is that at `now`.
    pub fn leases(
        &self,
        filter: &LeaseFilter,
        now: UnixMs,
        page: Page<LeaseId>,
    ) -> Result<Vec<(LeaseRow, TaskRow)>, StoreError> {
        let mut conditions = filter::leases(filter, now, page.before.map(LeaseId::as_u128));
        let sql = format!("SELECT {LEASE}, {TASK} {FROM_LEASE}{}", conditions.page("l.id", page.limit));
        self.all(&sql, params_from_iter(conditions.values), lease_and_task)
    }

    /// How many leases of a task are active at `now`, and how many have ended; those that merely
    /// ran out are neither.
    pub fn lease_counts(&self, task: TaskId, now: UnixMs) -> Result<(u64, u64), StoreError> {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE state = 'active'), count(*) FILTER (WHERE state = 'ended') \
             FROM (SELECT {LEASE_STATE} AS state {FROM_LEASE} WHERE l.task = ?2)"
        );
        self.pool.with(|connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let counts: (i64, i64) = statement
                .query_row(params![now.as_ms(), id_bytes(task.as_u128())], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((counts.0.cast_unsigned(), counts.1.cast_unsigned()))
        })
    }

    /// How many refusals for this reason were recorded with a task.
    pub fn denials(&self, task: TaskId, reason: &str) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(coalesce(json_extract(CAST(body AS TEXT), '$.count'), 1)), 0) FROM event \
                   WHERE task = ?1 AND json_extract(CAST(body AS TEXT), '$.reason') = ?2";
        self.pool.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let count: i64 = statement.query_row(params![id_bytes(task.as_u128()), reason], |row| row.get(0))?;
            Ok(count.cast_unsigned())
        })
    }

    /// Blocks that stand at `now`, newest first.
    pub fn blocks(&self, now: UnixMs, page: Page<BlockId>) -> Result<Vec<BlockRow>, StoreError> {
        let sql = format!(
            "SELECT {BLOCK} FROM block b WHERE (b.until IS NULL OR b.until > ?1) AND (?2 IS NULL OR b.id < ?2) \
             ORDER BY b.id DESC LIMIT ?3"
        );
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        self.all(&sql, params![now.as_ms(), page.before.map(|id| id_bytes(id.as_u128())), limit], columns::block)
    }

    pub fn event(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        let sql = format!("SELECT {EVENT} {FROM_EVENT} WHERE e.id = ?1");
        self.one(&sql, [id_bytes(id.as_u128())], columns::event)
    }

    pub fn event_at(&self, seq: u64) -> Result<Option<EventRow>, StoreError> {
        let sql = format!("SELECT {EVENT} {FROM_EVENT} WHERE e.seq = ?1");
        self.one(&sql, [seq_in(seq)], columns::event)
    }

    /// Newest first, with their details.
    pub fn events(&self, filter: &EventFilter, page: Page<u64>) -> Result<Vec<EventRow>, StoreError> {
        let mut conditions = filter::events(filter, page.before);
        let sql = format!("SELECT {EVENT} {FROM_EVENT}{}", conditions.page("e.seq", page.limit));
        self.all(&sql, params_from_iter(conditions.values), columns::event)
    }

    /// In order, from `from_seq` on, until `each` breaks off.
    pub fn each_event(&self, from_seq: u64, each: impl FnMut(EventRow) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.pool.with(|connection| every_event(connection, from_seq, each))
    }

    /// A bundle that was kept.
    pub fn bundle(&self, fingerprint: &[u8; 32]) -> Result<Option<BundleRow>, StoreError> {
        self.pool.with(|connection| archive::bundle(connection, fingerprint))
    }

    /// Whether it is kept with these settings, on which its meaning depends beside its files.
    pub fn keeps_bundle(
        &self,
        fingerprint: &[u8; 32],
        issuer_url: &str,
        broker_binding: BindingKind,
    ) -> Result<bool, StoreError> {
        self.pool.with(|connection| archive::keeps(connection, fingerprint, issuer_url, broker_binding))
    }

    /// All that was counted.
    pub fn used(&self, each: impl FnMut(UsedRow)) -> Result<(), StoreError> {
        self.pool.with(|connection| archive::every_used(connection, each))
    }

    /// A word that was remembered with `Change::Meta`.
    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.pool.with(|connection| schema::meta(connection, key))
    }

    /// Words whose names begin so, with their names.
    pub fn meta_of(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        self.pool.with(|connection| schema::meta_of(connection, prefix))
    }

    /// The latest moment that any batch knew of.
    pub fn high_water(&self) -> Result<UnixMs, StoreError> {
        self.pool.with(write::high_water)
    }

    /// Gives `look` the store as it is now: what is committed meanwhile does not show.
    pub fn snapshot<T>(&self, look: impl FnOnce(&Snapshot<'_>) -> T) -> Result<T, StoreError> {
        self.pool.with(|connection| Ok(look(&Snapshot::of(connection)?)))
    }

    fn one<T>(&self, sql: &str, values: impl Params, decode: Decode<T>) -> Result<Option<T>, StoreError> {
        self.pool.with(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row(values, |row| decode(&mut Columns::of(row))).optional()?)
        })
    }

    fn all<T>(&self, sql: &str, values: impl Params, decode: Decode<T>) -> Result<Vec<T>, StoreError> {
        self.pool.with(|connection| {
            let mut rows = Vec::new();
            every(connection, sql, values, decode, |row| rows.push(row))?;
            Ok(rows)
        })
    }
}

type Decode<T> = fn(&mut Columns) -> rusqlite::Result<T>;

pub(super) fn every_task(connection: &Connection, each: impl FnMut(TaskRow)) -> Result<(), StoreError> {
    every(connection, &format!("SELECT {TASK} {FROM_TASK} ORDER BY t.id"), [], columns::task, each)
}

pub(super) fn every_lease(connection: &Connection, each: impl FnMut(LeaseRow)) -> Result<(), StoreError> {
    every(connection, &format!("SELECT {LEASE} FROM lease l ORDER BY l.id"), [], columns::lease, each)
}

pub(super) fn live_leases(connection: &Connection, now: UnixMs, each: impl FnMut(LeaseRow)) -> Result<(), StoreError> {
    // The index gives the few that live; sorted are their ids alone, not their rows. A list shows what ended
    // until its hour is over, and a CRL once more after it expired.
    let live = "SELECT id FROM lease WHERE expires > ?1 \
         UNION ALL SELECT id FROM lease WHERE expires <= ?1 AND expires > ?2 AND (list IS NOT NULL OR kind = 'x509')";
    let sql = format!("SELECT {LEASE} FROM lease l WHERE l.id IN ({live}) ORDER BY l.id");
    let hour_ago = now.plus_s(-3_600).as_ms();
    every(connection, &sql, [now.as_ms(), hour_ago], columns::lease, each)
}

pub(super) fn live_blocks(connection: &Connection, now: UnixMs, each: impl FnMut(BlockRow)) -> Result<(), StoreError> {
    let sql = format!("SELECT {BLOCK} FROM block b WHERE b.until IS NULL OR b.until > ?1 ORDER BY b.seq");
    every(connection, &sql, [now.as_ms()], columns::block, each)
}

/// Those that rows are behind of.
pub(super) fn tombs(connection: &Connection, each: impl FnMut(TombRow)) -> Result<(), StoreError> {
    every(connection, &format!("SELECT {TOMB} FROM tomb m WHERE NOT m.done ORDER BY m.seq"), [], columns::tomb, each)
}

pub(super) fn every_tomb(connection: &Connection, each: impl FnMut(TombRow)) -> Result<(), StoreError> {
    every(connection, &format!("SELECT {TOMB} FROM tomb m ORDER BY m.seq"), [], columns::tomb, each)
}

/// Those on which a lease may stand that has not expired.
pub(super) fn live_lists(connection: &Connection, now: UnixMs, each: impl FnMut(ListRow)) -> Result<(), StoreError> {
    let sql = format!("SELECT {LIST} FROM list s WHERE s.hour_s > ?1 ORDER BY s.id");
    every(connection, &sql, [now.as_s()], columns::list, each)
}

pub(super) fn every_event(
    connection: &Connection,
    from_seq: u64,
    mut each: impl FnMut(EventRow) -> ControlFlow<()>,
) -> Result<(), StoreError> {
    let sql = format!("SELECT {EVENT} {FROM_EVENT} WHERE e.seq >= ?1 ORDER BY e.seq");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([seq_in(from_seq)])?;
    while let Some(row) = rows.next()? {
        if each(columns::event(&mut Columns::of(row))?).is_break() {
            break;
        }
    }
    Ok(())
}

fn every<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    decode: Decode<T>,
    mut each: impl FnMut(T),
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    while let Some(row) = rows.next()? {
        each(decode(&mut Columns::of(row))?);
    }
    Ok(())
}

fn lease_and_task(from: &mut Columns) -> rusqlite::Result<(LeaseRow, TaskRow)> {
    Ok((columns::lease(from)?, columns::task(from)?))
}
