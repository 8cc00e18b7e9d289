//! What only a file can show: reopening, killing, modes, a reader beside the writer.

use std::{
    fs,
    ops::ControlFlow,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use super::*;
use crate::store::{Reader, StoreError};

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    (folder, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn some_rows() -> [Change; 4] {
    [
        Change::Event(event(0)),
        Change::OpenTask(task(1)),
        Change::AddLease(lease(2, 1)),
        Change::AddBlock(block("deploy", at(900))),
    ]
}

#[test]
fn an_empty_file_is_not_opened_and_its_log_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dayfly.db");
    drop(Store::open(&path).unwrap());
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let log = dir.path().join("dayfly.db-wal");
    let before = fs::metadata(&log).unwrap().len();
    assert!(matches!(Reader::open(&path), Err(StoreError::Emptied)));
    assert!(before > 0 && fs::metadata(&log).unwrap().len() == before);
}

#[test]
fn the_writer_may_go_to_its_thread_and_readers_to_all() {
    fn sent<T: Send>() {}
    fn shared<T: Clone + Send + Sync>() {}
    sent::<Store>();
    sent::<crate::store::Checkpointer>();
    shared::<Reader>();
}

#[test]
fn reopening_keeps_everything() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    store.write(&some_rows(), at(555)).unwrap();
    let (stream, rows) = (store.stream(), loaded(&store, 0));
    drop(store);
    let store = Store::open(&path).unwrap();
    assert_eq!((store.stream(), store.high_water(), store.next_seq()), (stream, at(555), 1));
    assert_eq!(loaded(&store, 0), rows);
}

#[test]
fn each_store_has_its_own_stream() {
    let streams = [Store::memory().unwrap().stream(), Store::memory().unwrap().stream()];
    assert_ne!(streams[0], streams[1]);
    assert!(streams.iter().all(|stream| stream.len() == 32 && stream.bytes().all(|b| b.is_ascii_hexdigit())));
}

#[test]
fn the_log_of_a_killed_writer_is_read() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    store.write(&some_rows(), at(1)).unwrap();
    let copy = path.with_file_name("copy.db");
    // As a kill leaves them: whatever lies in the files at this moment.
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    let reader = Reader::open(&copy).unwrap();
    assert_eq!(reader.task(task_id(1)).unwrap(), Some(task(1)));
    drop(reader);
    assert_eq!(Store::open(&copy).unwrap().next_seq(), 1);
}

#[test]
fn a_stopped_store_is_read_and_not_written() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    store.write(&some_rows(), at(1)).unwrap();
    drop(store);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.event_at(0).unwrap(), Some(event(0)));
    drop(reader);
    assert_eq!(Store::open(&path).unwrap().next_seq(), 1);
}

#[test]
fn a_reader_beside_the_writer_sees_what_is_committed_only() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    store.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.connection.execute("INSERT INTO meta VALUES ('half', 'done')", []).unwrap();
    assert_eq!(reader.meta("half").unwrap(), None);
    store.connection.execute_batch("ROLLBACK").unwrap();
    store.write(&some_rows(), at(1)).unwrap();
    assert_eq!(reader.task(task_id(1)).unwrap(), Some(task(1)));
}

#[test]
fn a_snapshot_does_not_see_later_commits() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    store.write(&[Change::Event(event(0))], at(1)).unwrap();
    let reader = store.reader();
    let seen = reader.snapshot(|snap| {
        store.write(&[Change::Event(event(1)), Change::OpenTask(task(1))], at(1)).unwrap();
        let (mut events, mut tasks) = (0, 0);
        let count = |_| {
            events += 1;
            ControlFlow::Continue(())
        };
        snap.each_event(0, count).unwrap();
        snap.each_task(|_| tasks += 1).unwrap();
        (events, tasks)
    });
    assert_eq!(seen.unwrap(), (1, 0));
    assert_eq!(reader.event_at(1).unwrap(), Some(event(1)));
}

#[test]
fn many_readers_share_few_connections() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    store.write(&some_rows(), at(1)).unwrap();
    let reader = store.reader();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            let reader = reader.clone();
            scope.spawn(move || assert_eq!(reader.task(task_id(1)).unwrap(), Some(task(1))));
        }
    });
}

#[test]
fn a_store_that_others_may_read_is_refused() {
    let (_folder, path) = folder();
    drop(Store::open(&path).unwrap());
    for file in [path.clone(), beside(&path, "-wal"), beside(&path, "-shm")] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::File(_))), "{}", file.display());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert!(Store::open(&path).is_ok());
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let (_folder, path) = folder();
    drop(Store::open(&path).unwrap());
    let raw = Connection::open(&path).unwrap();
    raw.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'", []).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99, known: 3 })));
    assert!(matches!(Reader::open(&path), Err(StoreError::Newer { found: 99, known: 3 })));
    let kept: String = raw.query_row("SELECT value FROM meta WHERE key = 'schema_version'", [], |r| r.get(0)).unwrap();
    assert_eq!(kept, "99");
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let (_folder, path) = folder();
    fs::write(&path, vec![b'x'; 8192]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Stranger)));
    assert!(matches!(Reader::open(&path), Err(StoreError::Stranger)));
    assert_eq!(fs::read(&path).unwrap(), vec![b'x'; 8192]);
}

#[test]
fn a_reader_makes_no_file() {
    let (_folder, path) = folder();
    assert!(Reader::open(&path).is_err());
    assert!(!path.exists());
}

#[test]
fn a_damaged_row_is_an_error_not_a_guess() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    store.write(&some_rows(), at(1)).unwrap();
    store.connection.execute("UPDATE lease SET kind = 'ssh'", []).unwrap();
    assert!(matches!(store.reader().lease(lease_id(2)), Err(StoreError::Corrupt)));
    store.connection.execute("UPDATE task SET evidence_key = x'00'", []).unwrap();
    assert!(matches!(store.reader().task(task_id(1)), Err(StoreError::Corrupt)));
}

#[test]
fn the_log_has_its_space_from_the_start_and_keeps_it() {
    let (_folder, path) = folder();
    let mut store = Store::open(&path).unwrap();
    let wal_bytes = || fs::metadata(beside(&path, "-wal")).unwrap().len();
    let start = wal_bytes();
    assert!(start >= 8 << 20);
    let checkpointer = store.checkpointer().unwrap();
    for seq in 0..32 {
        let detail = DetailRow { salt: [0; 32], bytes: vec![7; 1 << 20] };
        store.write(&[Change::Event(EventRow { detail: Some(detail), ..event(seq) })], at(1)).unwrap();
        checkpointer.checkpoint().unwrap();
    }
    assert_eq!(wal_bytes(), start);
    drop((store, checkpointer));
    assert_eq!(wal_bytes(), start);
    assert_eq!(Store::open(&path).unwrap().next_seq(), 32);
}

#[test]
fn nothing_is_to_be_moved_in_memory() {
    let mut store = Store::memory().unwrap();
    store.write(&some_rows(), at(1)).unwrap();
    store.checkpointer().unwrap().checkpoint().unwrap();
    assert_eq!(store.reader().task(task_id(1)).unwrap(), Some(task(1)));
}
