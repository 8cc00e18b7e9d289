//! Bundles by their fingerprint, and how often what they grant was used.

use dayfly_domain::{BindingKind, UnixMs, bundle::BundleFile};
use rusqlite::{Connection, OptionalExtension, Row, params, types::Type};

use super::{BundleRow, StoreError, UsedRow};

pub(super) fn put_bundle(connection: &Connection, bundle: &BundleRow) -> Result<(), StoreError> {
    let BundleRow { fingerprint, kept_at, issuer_url, broker_binding, files } = bundle;
    let sql = "INSERT INTO bundle (fingerprint, kept_at, issuer_url, broker_binding) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT DO UPDATE SET issuer_url = excluded.issuer_url, broker_binding = excluded.broker_binding";
    let row = params![fingerprint, kept_at.as_ms(), issuer_url, broker_binding.as_str()];
    connection.prepare_cached(sql)?.execute(row)?;
    let part = "INSERT OR IGNORE INTO bundle_part (fingerprint, part, path, hash) VALUES (?1, ?2, ?3, ?4)";
    let file = "INSERT OR IGNORE INTO bundle_file (hash, bytes) VALUES (?1, ?2)";
    for (hash, BundleFile { part: kind, path, bytes }) in files {
        connection.prepare_cached(part)?.execute(params![fingerprint, kind.as_str(), path, hash])?;
        connection.prepare_cached(file)?.execute(params![hash, &**bytes])?;
    }
    Ok(())
}

/// Whether these files are kept with these settings.
pub(super) fn keeps(
    connection: &Connection,
    fingerprint: &[u8; 32],
    issuer_url: &str,
    broker_binding: BindingKind,
) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM bundle WHERE fingerprint = ?1 AND issuer_url = ?2 AND broker_binding = ?3";
    let row = params![fingerprint, issuer_url, broker_binding.as_str()];
    Ok(connection.prepare_cached(sql)?.exists(row)?)
}

pub(super) fn bundle(connection: &Connection, fingerprint: &[u8; 32]) -> Result<Option<BundleRow>, StoreError> {
    let sql = "SELECT kept_at, issuer_url, broker_binding FROM bundle WHERE fingerprint = ?1";
    let row = |row: &Row<'_>| Ok((UnixMs::new(row.get(0)?), row.get(1)?, word(row, 2)?));
    let Some((kept_at, issuer_url, broker_binding)) =
        connection.prepare_cached(sql)?.query_row([fingerprint], row).optional()?
    else {
        return Ok(None);
    };
    let sql = "SELECT p.part, p.path, p.hash, f.bytes FROM bundle_part p JOIN bundle_file f ON f.hash = p.hash \
         WHERE p.fingerprint = ?1 ORDER BY p.part, p.path";
    let file = |row: &Row<'_>| {
        let bytes: Vec<u8> = row.get(3)?;
        Ok((row.get(2)?, BundleFile { part: word(row, 0)?, path: row.get(1)?, bytes: bytes.into() }))
    };
    let files = connection.prepare_cached(sql)?.query_map([fingerprint], file)?.collect::<Result<_, _>>()?;
    Ok(Some(BundleRow { fingerprint: *fingerprint, kept_at, issuer_url, broker_binding, files }))
}

pub(super) fn count(connection: &Connection, used: &UsedRow) -> Result<(), StoreError> {
    let UsedRow { template, row, target, action, count, last_at } = used;
    let sql = "INSERT INTO used (template, permit, target, action, count, last_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT DO UPDATE SET count = count + excluded.count, last_at = max(last_at, excluded.last_at)";
    let row = params![template, row, target, action, count.cast_signed(), last_at.as_ms()];
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(super) fn every_used(connection: &Connection, mut each: impl FnMut(UsedRow)) -> Result<(), StoreError> {
    let sql = "SELECT template, permit, target, action, count, last_at FROM used";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(UsedRow {
            template: row.get(0)?,
            row: row.get(1)?,
            target: row.get(2)?,
            action: row.get(3)?,
            count: row.get::<_, i64>(4)?.cast_unsigned(),
            last_at: UnixMs::new(row.get(5)?),
        });
    }
    Ok(())
}

fn word<T: std::str::FromStr>(row: &Row<'_>, at: usize) -> rusqlite::Result<T> {
    let text: String = row.get(at)?;
    text.parse().map_err(|_| rusqlite::Error::InvalidColumnType(at, String::new(), Type::Text))
}
