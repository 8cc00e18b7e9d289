//! What every store must do, over a constructor; held against memory and a file.

mod batches;
mod files;
mod listings;
mod pruning;
mod rows;

use dayfly_domain::{BlockId, Bound, Cause, EventId, Kind, LeaseId, Selector, TaskId, UnixMs};
use tempfile::TempDir;

use super::{BlockRow, Change, DetailRow, EndRow, EventRow, LeaseRow, Page, Store, TaskRow};

/// A store and, for a file, the folder that goes with it.
struct Home {
    store: Store,
    _folder: Option<TempDir>,
}

fn in_memory() -> Home {
    Home { store: Store::memory().unwrap(), _folder: None }
}

fn in_a_file() -> Home {
    let folder = tempfile::tempdir().unwrap();
    Home { store: Store::open(&folder.path().join("state.db")).unwrap(), _folder: Some(folder) }
}

/// Each test once for every kind of store.
macro_rules! suite {
    ($($name:ident),+ $(,)?) => {
        mod memory {
            $(#[test] fn $name() { super::$name(super::super::in_memory()) })+
        }
        mod file {
            $(#[test] fn $name() { super::$name(super::super::in_a_file()) })+
        }
    };
}
use suite;

fn at(seconds: i64) -> UnixMs {
    UnixMs::from_s(seconds)
}

fn hash(kind: u8, n: u64) -> [u8; 32] {
    let mut hash = [kind; 32];
    hash[24..].copy_from_slice(&n.to_be_bytes());
    hash
}

fn task_id(n: u64) -> TaskId {
    TaskId::from_parts(n, [1; 10])
}

fn lease_id(n: u64) -> LeaseId {
    LeaseId::from_parts(n, [2; 10])
}

fn event_id(n: u64) -> EventId {
    EventId::from_parts(n, [3; 10])
}

/// Opened at 100 s, deadline at 1000 s, evidence until 400 s.
fn task(n: u64) -> TaskRow {
    TaskRow {
        id: task_id(n),
        parent: None,
        template: "deploy".into(),
        purpose: "deploy the site".into(),
        ticket: None,
        job: Some(format!("job-{n}")),
        row: "deploy/main".into(),
        owner: "team-web".into(),
        environment: "production".into(),
        issuer: "github".into(),
        profile: "github".into(),
        workload: "github/acme/site".into(),
        untrusted: false,
        grants: r#"{"registry":["push"],"vault":["read"]}"#.into(),
        evidence_key: hash(0xe0, n),
        evidence_iat_s: 90,
        evidence_exp_s: 400,
        claims: Some(r#"{"ref":"refs/heads/main"}"#.into()),
        handle_hash: hash(0x40, n),
        bound: Bound::None,
        thumbprint: None,
        opened_at: at(100),
        deadline: at(1000),
        seq: 0,
        held: false,
        end: None,
    }
}

/// Issued at 100 s, expires at 700 s.
fn lease(n: u64, task: u64) -> LeaseRow {
    LeaseRow {
        id: lease_id(n),
        task: task_id(task),
        seq: n,
        target: "registry".into(),
        kind: Kind::Jwt,
        row: "deploy/main".into(),
        actions: r#"["push"]"#.into(),
        issued_at: at(100),
        expires: at(700),
        credential_hash: hash(0xc0, n),
        thumbprint: None,
        kid: None,
        status: None,
        end: None,
    }
}

/// At 100 s and as many seconds as its number.
fn event(seq: u64) -> EventRow {
    EventRow {
        seq,
        id: event_id(seq),
        at: at(100 + seq.cast_signed()),
        task: None,
        lease: None,
        body: format!(r#"{{"v":1,"n":{seq}}}"#).into_bytes(),
        leaf: hash(0x1e, seq),
        detail: Some(DetailRow { salt: hash(0x5a, seq), bytes: b"{}".to_vec() }),
    }
}

fn block(template: &str, until: UnixMs) -> BlockRow {
    let (template, job, issuer) = (Some(template.into()), Some("job-1".into()), Some("github".into()));
    let selector = Selector { template, job, issuer, ..Selector::default() };
    BlockRow { id: BlockId::from_parts(until.as_ms().cast_unsigned(), [7; 10]), selector, until: Some(until), seq: 0 }
}

fn end(at_s: i64, cause: Cause) -> EndRow {
    EndRow { at: at(at_s), cause, seq: 0 }
}

fn page<K>(limit: usize) -> Page<K> {
    Page { before: None, limit }
}

impl Home {
    fn write(&mut self, changes: impl IntoIterator<Item = Change>) {
        let changes: Vec<_> = changes.into_iter().collect();
        self.store.write(&changes, UnixMs::default()).unwrap();
    }

    fn loaded(&self, now_s: i64) -> (Vec<TaskRow>, Vec<LeaseRow>, Vec<BlockRow>) {
        loaded(&self.store, now_s)
    }
}

fn loaded(store: &Store, now_s: i64) -> (Vec<TaskRow>, Vec<LeaseRow>, Vec<BlockRow>) {
    let (mut tasks, mut leases, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
    let fold = |change| match change {
        Change::OpenTask(row) => tasks.push(row),
        Change::AddLease(row) => leases.push(row),
        Change::AddBlock(row) => blocks.push(row),
        _ => {}
    };
    store.load(at(now_s), fold).unwrap();
    (tasks, leases, blocks)
}
