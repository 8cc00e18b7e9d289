//! What is dropped, and what must not be.

use super::*;
use crate::store::PruneBefore;

suite!(prune_keeps_what_must_be_kept, prune_goes_in_slices, prune_leaves_the_events);

/// Everything whose time has passed at this second.
fn all_before(now_s: i64) -> PruneBefore {
    PruneBefore { tasks: at(now_s), leases: at(now_s), now: at(now_s) }
}

fn prune_keeps_what_must_be_kept(mut home: Home) {
    let with_lease = TaskRow { deadline: at(600), ..task(1) };
    let replayable = TaskRow { deadline: at(600), evidence_exp_s: 671, ..task(2) };
    let running = TaskRow { deadline: at(701), ..task(3) };
    let ended = TaskRow { end: Some(end(200, Cause::Revoked)), claims: None, ..running.clone() };
    let ended = TaskRow { id: task_id(4), evidence_key: hash(0xe0, 4), handle_hash: hash(0x40, 4), ..ended };
    let over = TaskRow { deadline: at(600), evidence_exp_s: 669, ..task(5) };
    let tasks = [with_lease, replayable, running, ended, over];
    home.write(tasks.clone().map(Change::OpenTask));
    let short = LeaseRow { expires: at(699), ..lease(2, 5) };
    home.write([Change::AddLease(lease(1, 1)), Change::AddLease(short)]);
    home.write([Change::AddBlock(block("kept", at(700))), Change::AddBlock(block("gone", at(699)))]);
    let dropped = home.store.prune(all_before(700), 100).unwrap();
    assert_eq!(dropped, 3, "the short lease, its task, one block");
    let (kept, leases, blocks) = home.loaded(0);
    assert_eq!(kept, tasks[..4]);
    assert_eq!((leases, blocks), (vec![lease(1, 1)], vec![block("kept", at(700))]));
    let narrow = PruneBefore { tasks: at(9000), leases: at(700), now: at(9000) };
    assert_eq!(home.store.prune(narrow, 100).unwrap(), 4, "three tasks and the block");
    assert_eq!(home.loaded(0).0, tasks[..1], "a task is kept while it has a lease");
}

fn prune_goes_in_slices(mut home: Home) {
    home.write((1..=4).flat_map(|n| [Change::OpenTask(task(n)), Change::AddLease(lease(n, n))]));
    let dropped = [(); 4].map(|()| home.store.prune(all_before(5000), 3).unwrap());
    assert_eq!(dropped, [3, 3, 2, 0]);
    assert_eq!(home.loaded(0), (vec![], vec![], vec![]));
}

fn prune_leaves_the_events(mut home: Home) {
    home.write([Change::Event(event(0)), Change::OpenTask(task(1))]);
    assert_eq!(home.store.prune(all_before(9000), 9).unwrap(), 1);
    assert_eq!(home.store.reader().event_at(0).unwrap(), Some(event(0)));
    assert_eq!(home.store.next_seq(), 1);
}
