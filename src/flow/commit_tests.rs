//! Who waits for which batch.

use dayfly_domain::{Bound, Span};

use super::*;
use crate::{
    flow::{Allowance, Folder, Rate, Startup, Upkeep, start},
    lease::{Asks, Holding, Job, Limits, Quotas, Seen},
    policy::BundleEnv,
    store::TaskRow,
    sys::clock::{Clock, Stepped},
};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);

fn task_row(number: u8, template: &str) -> TaskRow {
    TaskRow {
        id: TaskId::from_parts(1, [number; 10]),
        parent: None,
        template: template.into(),
        purpose: String::new(),
        ticket: None,
        job: None,
        row: String::new(),
        owner: String::new(),
        environment: String::new(),
        issuer: "ci".into(),
        profile: "oidc".into(),
        workload: "ci/shop".into(),
        untrusted: false,
        grants: "{}".into(),
        evidence_key: [number; 32],
        evidence_iat_s: 990,
        evidence_exp_s: 1_600,
        claims: None,
        handle_hash: [number; 32],
        bound: Bound::None,
        thumbprint: None,
        opened_at: AT,
        deadline: AT.plus_s(900),
        seq: 0,
        held: false,
        end: None,
    }
}

/// An opening that was decided while the job held tasks of these templates.
fn opening(row: TaskRow, held: &[&str]) -> Group {
    let holding = |template: &&str| Holding { template: (*template).into(), grants: "{}".into() };
    let job = Job::of_row(&row);
    Group::Issue(Box::new(IssueGroup {
        decided_under: dayfly_domain::bundle::Fingerprint([0; 32]),
        seen: Some(Seen { job, but: None, holdings: held.iter().map(holding).collect() }),
        task: Subject::Open { row: Box::new(row), limits: LIMITS },
        lease: None,
        events: Vec::new(),
        supersede_s: None,
        ack: oneshot::channel().0,
    }))
}

const QUOTAS: Quotas = Quotas { owner: 1, production: 0, workload: 1 };
const LIMITS: Limits = Limits { per_job: 9, keys_per_job: None };

#[test]
fn more_of_what_a_job_holds_waits_for_no_batch_and_anything_else_does() {
    let table = Table::default();
    let mut fence = Fence::new(&table, QUOTAS, Now::exactly(AT));
    fence.open(&task_row(1, "deploy"), LIMITS, Asks::Nothing).unwrap();
    assert!(!follows(&opening(task_row(2, "deploy"), &["deploy"]), &fence), "the job holds it already");
    assert!(follows(&opening(task_row(2, "deploy"), &[]), &fence), "it was decided as if nothing was held");
    fence.open(&task_row(2, "count"), LIMITS, Asks::Nothing).unwrap();
    assert!(follows(&opening(task_row(3, "deploy"), &["deploy"]), &fence), "now the job holds more");
    let other = TaskRow { workload: "ci/pay".into(), ..task_row(4, "deploy") };
    assert!(!follows(&opening(other, &[]), &fence), "another job");
}

/// A broker on a bundle that believes nobody.
fn writer(dir: &std::path::Path) -> (Upkeep, Writer) {
    dayfly_verifier::crypto::init().unwrap();
    std::fs::write(dir.join("a.toml"), "format = 1\ntrust_domain = \"example.org\"\n[owner.o]\n").unwrap();
    let env = BundleEnv { issuer_url: "https://b.example".into(), broker_binding: dayfly_domain::BindingKind::Dpop };
    let startup = Startup {
        issuer: "https://b.example".into(),
        clock: Clock::Stepped(Stepped::at(AT)),
        store: Store::memory().unwrap(),
        keys_dir: None,
        source: Arc::new(Folder { path: dir.to_owned(), env }),
        strict_rollback: false,
        review_grace: Span::seconds(1),
        allowance: Allowance { workload: Rate::new(1, 1), storm_per_minute: 1, quotas: QUOTAS },
    };
    let (_, writer, upkeep) = start(startup).unwrap_or_else(|error| panic!("{error:?}"));
    (upkeep, writer)
}

#[test]
fn what_is_carried_takes_no_room_from_what_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (_upkeep, mut writer) = writer(dir.path());
    writer.carried.extend((0..2 * BATCH_MAX).map(|_| Group::Wake));
    writer.shared.queue.try_send(opening(task_row(1, "deploy"), &[])).unwrap();
    let gathered = writer.gather().unwrap();
    assert_eq!(gathered.len(), 2 * BATCH_MAX + 1);
    assert!(matches!(gathered.last(), Some(Group::Issue(_))), "who comes last is looked at with the rest");
    (0..2 * BATCH_MAX).for_each(|_| writer.shared.queue.try_send(Group::Wake).unwrap());
    assert_eq!(writer.gather().unwrap().len(), BATCH_MAX, "and no more than a batch of them");
}
