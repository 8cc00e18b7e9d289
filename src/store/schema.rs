//! The shape of the rows, and how an older shape is brought forward.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::StoreError;
use crate::sys::entropy;

/// What `file` and `PRAGMA application_id` show: `DyFl`.
const APPLICATION_ID: i32 = 0x4479_466c;

/// Step n makes schema n + 1 from schema n; nothing is ever taken out of this list.
pub(super) const STEPS: &[&str] =
    &[include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

pub(super) const STREAM: &str = "stream";
pub(super) const HIGH_WATER: &str = "high_water_ms";
const VERSION: &str = "schema_version";

/// Keys of `meta` that only the store itself writes.
pub(super) fn is_own(key: &str) -> bool {
    [STREAM, HIGH_WATER, VERSION].contains(&key)
}

/// The number of steps that made this file; 0 for an empty one.
pub(super) fn version(connection: &Connection) -> Result<u32, StoreError> {
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, tables) {
        (0, 0) => Ok(0),
        (APPLICATION_ID, _) => meta(connection, VERSION)?.and_then(|text| text.parse().ok()).ok_or(StoreError::Corrupt),
        _ => Err(StoreError::Stranger),
    }
}

/// Refuses a store that is not exactly of the schema known here.
pub(super) fn require_current(connection: &Connection) -> Result<(), StoreError> {
    let known = known(STEPS);
    match version(connection)? {
        found if found > known => Err(StoreError::Newer { found, known }),
        found if found < known => Err(StoreError::Older { found, known }),
        _ => Ok(()),
    }
}

/// Refuses a store that is newer than `steps`; changes nothing.
pub(super) fn require_known(connection: &Connection, steps: &[&str]) -> Result<u32, StoreError> {
    let (found, known) = (version(connection)?, known(steps));
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(found) }
}

/// Takes all missing steps in one transaction.
pub(super) fn bring_forward(connection: &mut Connection, steps: &[&str]) -> Result<(), StoreError> {
    let found = require_known(connection, steps)?;
    if found == known(steps) {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in steps.iter().skip(found as usize) {
        transaction.execute_batch(step)?;
    }
    if found == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        put_meta(&transaction, STREAM, &format!("{:032x}", u128::from_be_bytes(entropy::bytes()?)))?;
    }
    put_meta(&transaction, VERSION, &known(steps).to_string())?;
    Ok(transaction.commit()?)
}

pub(super) fn meta(connection: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
    Ok(statement.query_row([key], |row| row.get(0)).optional()?)
}

pub(super) fn meta_of(connection: &Connection, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
    let sql = "SELECT key, value FROM meta WHERE substr(key, 1, length(?1)) = ?1 ORDER BY key";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([prefix], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn put_meta(connection: &Connection, key: &str, value: &str) -> Result<(), StoreError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(sql)?.execute(params![key, value])?;
    Ok(())
}

fn known(steps: &[&str]) -> u32 {
    u32::try_from(steps.len()).expect("the steps are few")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(steps: &[&str]) -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        bring_forward(&mut connection, steps).unwrap();
        connection
    }

    #[test]
    fn an_older_store_is_brought_forward_and_keeps_its_stream() {
        let mut connection = made(&STEPS[..1]);
        let stream = meta(&connection, STREAM).unwrap();
        let steps = [STEPS[0], "CREATE TABLE grave (id BLOB)", "ALTER TABLE grave ADD COLUMN until INTEGER"];
        bring_forward(&mut connection, &steps).unwrap();
        assert_eq!(version(&connection).unwrap(), 3);
        assert_eq!(meta(&connection, STREAM).unwrap(), stream);
        assert_eq!(connection.execute("INSERT INTO grave VALUES (x'00', 1)", []).unwrap(), 1);
    }

    #[test]
    fn blocks_by_label_become_blocks_by_selector() {
        let mut connection = made(&STEPS[..2]);
        let old = "INSERT INTO block (template, job, workload, until, seq) VALUES \
             ('deploy', 'github/7/1', NULL, 900, 3), ('deploy', NULL, 'ci/a\"b\\', 901, 4)";
        connection.execute(old, []).unwrap();
        bring_forward(&mut connection, &STEPS[..3]).unwrap();
        let mut blocks = Vec::new();
        crate::store::read::live_blocks(&connection, dayfly_domain::UnixMs::new(0), |row| blocks.push(row)).unwrap();
        let texts: Vec<_> = blocks.iter().map(|row| (row.selector.to_string(), row.seq)).collect();
        let labelled = r#"job == "7/1" && issuer == "github" && template == "deploy""#.to_owned();
        let bare = r#"workload == "ci/a\"b\\" && template == "deploy""#.to_owned();
        assert_eq!(texts, [(labelled, 3), (bare, 4)]);
        assert_ne!(blocks[0].id, blocks[1].id);
    }

    #[test]
    fn a_failing_step_takes_back_the_steps_before_it() {
        let mut connection = made(&STEPS[..1]);
        let steps = [STEPS[0], "CREATE TABLE grave (id BLOB)", "CREATE TABLE task (id BLOB)"];
        assert!(bring_forward(&mut connection, &steps).is_err());
        assert_eq!(version(&connection).unwrap(), 1);
        assert!(connection.execute("INSERT INTO grave VALUES (x'00')", []).is_err());
    }

    #[test]
    fn a_newer_schema_is_refused() {
        let steps: Vec<&str> = STEPS.iter().copied().chain([""]).collect();
        let mut connection = made(&steps);
        let newer = |error| matches!(error, Err(StoreError::Newer { found, known }) if found == known + 1);
        assert!(newer(bring_forward(&mut connection, STEPS)) && newer(require_current(&connection)));
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE meta (key TEXT, value TEXT)").unwrap();
        assert!(matches!(bring_forward(&mut connection, STEPS), Err(StoreError::Stranger)));
    }
}
