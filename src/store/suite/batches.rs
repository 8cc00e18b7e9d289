//! A batch is written whole or not at all.

use super::*;
use crate::store::StoreError;

suite!(
    a_large_batch_is_one_write,
    a_batch_that_fails_at_its_end_leaves_nothing,
    gaps_and_repeats_in_the_sequence_are_refused,
    evidence_opens_one_task_once,
    a_handle_belongs_to_one_task,
    an_end_of_nothing_is_refused,
    high_water_never_goes_back,
    a_full_disk_writes_nothing_and_is_survived,
);

fn a_large_batch_is_one_write(mut home: Home) {
    let rows = |n: u64| [Change::Event(event(n)), Change::OpenTask(task(n)), Change::AddLease(lease(n, n))];
    home.write((0..256).flat_map(rows));
    assert_eq!(home.store.next_seq(), 256);
    let (tasks, leases, _) = home.loaded(0);
    assert_eq!((tasks.len(), leases.len()), (256, 256));
}

fn a_batch_that_fails_at_its_end_leaves_nothing(mut home: Home) {
    home.write([Change::Event(event(0)), Change::OpenTask(task(1))]);
    let changes = [
        Change::Event(event(1)),
        Change::OpenTask(task(2)),
        Change::AddLease(lease(3, 2)),
        Change::AddBlock(block("deploy", at(900))),
        Change::Meta("bundle".into(), "a".into()),
        Change::EndTask(task_id(1), end(200, Cause::Revoked)),
        Change::OpenTask(task(1)),
    ];
    assert!(matches!(home.store.write(&changes, at(500)), Err(StoreError::Conflict)));
    assert_eq!((home.store.next_seq(), home.store.high_water()), (1, at(0)));
    assert_eq!(home.loaded(0), (vec![task(1)], vec![], vec![]));
    let reader = home.store.reader();
    assert_eq!((reader.event_at(1).unwrap(), reader.meta("bundle").unwrap()), (None, None));
    home.write(changes[..6].to_vec());
    assert_eq!(home.store.next_seq(), 2);
}

fn gaps_and_repeats_in_the_sequence_are_refused(mut home: Home) {
    home.write([Change::Event(event(0))]);
    for (batch, expected, found) in [(vec![0], 1, 0), (vec![2], 1, 2), (vec![1, 3], 2, 3), (vec![1, 1], 2, 1)] {
        let changes: Vec<_> = batch.iter().map(|&seq| Change::Event(event(seq))).collect();
        let refused = home.store.write(&changes, at(1)).unwrap_err();
        let StoreError::Sequence { expected: next, found: other } = refused else { panic!("{refused:?}") };
        assert_eq!((next, other), (expected, found));
    }
    assert_eq!(home.store.next_seq(), 1);
    assert_eq!(home.store.reader().event_at(1).unwrap(), None);
}

fn evidence_opens_one_task_once(mut home: Home) {
    home.write([Change::OpenTask(task(1))]);
    let replay = TaskRow { evidence_key: task(1).evidence_key, ..task(2) };
    assert!(matches!(home.store.write(&[Change::OpenTask(replay)], at(1)), Err(StoreError::Conflict)));
    assert_eq!(home.store.reader().task(task_id(2)).unwrap(), None);
}

fn a_handle_belongs_to_one_task(mut home: Home) {
    home.write([Change::OpenTask(task(1))]);
    let reuse = TaskRow { handle_hash: task(1).handle_hash, ..task(2) };
    assert!(matches!(home.store.write(&[Change::OpenTask(reuse)], at(1)), Err(StoreError::Conflict)));
    assert_eq!(home.store.reader().task(task_id(2)).unwrap(), None);
}

fn an_end_of_nothing_is_refused(mut home: Home) {
    home.write([Change::OpenTask(task(1))]);
    let missing_task = [Change::EndTask(task_id(2), end(200, Cause::Revoked))];
    let missing_lease = [Change::EndLease(lease_id(2), end(200, Cause::Revoked))];
    assert!(matches!(home.store.write(&missing_task, at(1)), Err(StoreError::Missing)));
    assert!(matches!(home.store.write(&missing_lease, at(1)), Err(StoreError::Missing)));
}

fn high_water_never_goes_back(mut home: Home) {
    home.store.write(&[], at(500)).unwrap();
    home.store.write(&[], at(400)).unwrap();
    assert_eq!(home.store.high_water(), at(500));
    let kept = home.store.reader().meta("high_water_ms").unwrap();
    assert_eq!(kept.as_deref(), Some("500000"));
}

fn a_full_disk_writes_nothing_and_is_survived(mut home: Home) {
    let pages: i64 = home.store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    let limit_pages = |home: &Home, limit: i64| {
        home.store.connection.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(())).unwrap();
    };
    limit_pages(&home, pages);
    let heavy = |seq| {
        let detail = DetailRow { salt: [0; 32], bytes: vec![7; 1 << 20] };
        [Change::OpenTask(task(seq)), Change::Event(EventRow { detail: Some(detail), ..event(seq) })]
    };
    // What is free in the file is used up first.
    let failed = (0..64).find_map(|seq| home.store.write(&heavy(seq), at(5000)).err().map(|error| (seq, error)));
    let (seq, error) = failed.unwrap();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    assert_eq!(home.store.next_seq(), seq);
    assert_eq!(home.store.reader().task(task_id(seq)).unwrap(), None);
    // A row fits where a batch does not.
    home.store.write(&[Change::Meta("probe".into(), "1".into())], at(5000)).unwrap();
    assert!(matches!(home.store.try_room(1 << 20), Err(StoreError::Full)));
    limit_pages(&home, 1 << 30);
    home.write(heavy(seq));
    home.store.try_room(1 << 20).unwrap();
    assert_eq!(home.store.next_seq(), seq + 1);
    assert_eq!(home.store.reader().task(task_id(seq)).unwrap(), Some(task(seq)));
}
