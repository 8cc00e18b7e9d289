//! Rows come back as they went in.

use std::ops::ControlFlow;

use dayfly_domain::{BindingKind, BundlePart, ListId, bundle::BundleFile};

use super::*;
use crate::store::{BundleRow, ListRow, Reader, Snapshot, StatusSlot, StoreError, TombRow};

suite!(
    full_rows_come_back_as_they_went_in,
    ends_are_written_and_claims_erased,
    a_later_end_that_lies_ahead_gives_way_to_an_earlier_one,
    start_loads_what_lives_in_order,
    tombs_lists_and_blocks_that_stand_are_loaded_at_start,
    words_are_remembered_but_not_the_stores_own,
    a_bundle_kept_again_under_other_settings_is_kept_with_those,
    events_stream_in_order_until_broken_off,
    a_snapshot_gives_all_rows,
);

fn full_rows_come_back_as_they_went_in(mut home: Home) {
    let full_task = TaskRow {
        parent: Some(task_id(7)),
        ticket: Some("OPS-1".into()),
        job: None,
        untrusted: true,
        claims: None,
        bound: Bound::Jkt,
        thumbprint: Some("abc".into()),
        seq: 40,
        held: true,
        end: Some(end(500, Cause::Policy)),
        ..task(8)
    };
    let full_lease = LeaseRow {
        kind: Kind::X509,
        thumbprint: Some("def".into()),
        kid: Some("k1".into()),
        status: Some(StatusSlot { list: ListId::from_u128(5), index: 77 }),
        end: Some(EndRow { at: at(300), cause: Cause::Superseded, seq: 41 }),
        ..lease(9, 8)
    };
    let full_event = EventRow { task: Some(task_id(8)), lease: Some(lease_id(9)), ..event(0) };
    let bare_event = EventRow { detail: None, ..event(1) };
    home.write([
        Change::Event(full_event.clone()),
        Change::Event(bare_event.clone()),
        Change::OpenTask(task(7)),
        Change::OpenTask(full_task.clone()),
        Change::AddLease(full_lease.clone()),
    ]);
    let reader = home.store.reader();
    assert_eq!(reader.task(task_id(7)).unwrap(), Some(task(7)));
    assert_eq!(reader.task(task_id(8)).unwrap().as_ref(), Some(&full_task));
    assert_eq!(reader.task_by_handle(&full_task.handle_hash).unwrap().as_ref(), Some(&full_task));
    assert_eq!(reader.lease(lease_id(9)).unwrap(), Some((full_lease, full_task)));
    assert_eq!(reader.event(event_id(0)).unwrap(), Some(full_event));
    assert_eq!(reader.event_at(1).unwrap(), Some(bare_event));
    assert_absent(&reader);
}

fn assert_absent(reader: &Reader) {
    assert_eq!(reader.task(task_id(99)).unwrap(), None);
    assert_eq!(reader.task_by_handle(&[0; 32]).unwrap(), None);
    assert_eq!(reader.lease(lease_id(99)).unwrap(), None);
    assert_eq!(reader.event(event_id(99)).unwrap(), None);
    assert_eq!(reader.event_at(99).unwrap(), None);
}

fn ends_are_written_and_claims_erased(mut home: Home) {
    home.write([Change::OpenTask(task(1)), Change::OpenTask(task(2)), Change::AddLease(lease(3, 1))]);
    let (task_end, lease_end) = (end(200, Cause::Completed), end(150, Cause::Presented));
    home.write([Change::EndLease(lease_id(3), lease_end), Change::EndTask(task_id(1), task_end)]);
    let reader = home.store.reader();
    let ended = TaskRow { end: Some(task_end), claims: None, ..task(1) };
    let lost = LeaseRow { end: Some(lease_end), ..lease(3, 1) };
    assert_eq!(reader.lease(lease_id(3)).unwrap(), Some((lost, ended)));
    assert_eq!(reader.task(task_id(2)).unwrap(), Some(task(2)));
}

fn a_later_end_that_lies_ahead_gives_way_to_an_earlier_one(mut home: Home) {
    home.write([Change::OpenTask(task(1)), Change::AddLease(lease(2, 1))]);
    home.write([Change::EndLease(lease_id(2), end(600, Cause::Superseded))]);
    home.write([Change::EndLease(lease_id(2), end(200, Cause::Revoked))]);
    let (row, _) = home.store.reader().lease(lease_id(2)).unwrap().unwrap();
    assert_eq!(row.end, Some(end(200, Cause::Revoked)));
}

fn start_loads_what_lives_in_order(mut home: Home) {
    let early = LeaseRow { expires: at(500), ..lease(4, 1) };
    home.write([
        Change::OpenTask(task(2)),
        Change::OpenTask(task(1)),
        Change::AddLease(lease(6, 2)),
        Change::AddLease(early),
        Change::AddLease(lease(5, 1)),
        Change::AddBlock(block("gone", at(500))),
        Change::AddBlock(block("kept", at(501))),
    ]);
    home.write([Change::EndTask(task_id(1), end(200, Cause::Revoked))]);
    let (tasks, leases, blocks) = home.loaded(500);
    assert_eq!(tasks.iter().map(|task| task.id).collect::<Vec<_>>(), [task_id(1), task_id(2)]);
    assert_eq!(leases, [lease(5, 1), lease(6, 2)]);
    assert_eq!(blocks, [block("kept", at(501))]);
}

fn a_bundle_kept_again_under_other_settings_is_kept_with_those(mut home: Home) {
    let kept = |issuer: &str, broker_binding, ms| BundleRow {
        fingerprint: [7; 32],
        kept_at: at(ms),
        issuer_url: issuer.into(),
        broker_binding,
        files: vec![(
            [8; 32],
            BundleFile { part: BundlePart::Text, path: "a.toml".into(), bytes: b"x".as_slice().into() },
        )],
    };
    let reader = home.store.reader();
    home.write([Change::KeepBundle(kept("https://a.example", BindingKind::Dpop, 1))]);
    assert!(reader.keeps_bundle(&[7; 32], "https://a.example", BindingKind::Dpop).unwrap());
    for (issuer, binding) in [("https://b.example", BindingKind::Dpop), ("https://a.example", BindingKind::Bearer)] {
        assert!(!reader.keeps_bundle(&[7; 32], issuer, binding).unwrap(), "it means something else there");
        home.write([Change::KeepBundle(kept(issuer, binding, 2))]);
        assert_eq!(reader.bundle(&[7; 32]).unwrap(), Some(kept(issuer, binding, 1)));
    }
}

fn words_are_remembered_but_not_the_stores_own(mut home: Home) {
    home.write([Change::Meta("bundle".into(), "a".into())]);
    home.write([Change::Meta("bundle".into(), "b".into())]);
    let stream = home.store.stream();
    for own in ["stream", "schema_version", "high_water_ms"] {
        assert!(home.store.write(&[Change::Meta(own.into(), "9".into())], at(1)).is_err(), "{own}");
    }
    let reader = home.store.reader();
    assert_eq!(reader.meta("bundle").unwrap().as_deref(), Some("b"));
    assert_eq!(reader.meta("stream").unwrap().as_deref(), Some(&*stream));
    assert_eq!(reader.meta("nothing").unwrap(), None);
}

fn events_stream_in_order_until_broken_off(mut home: Home) {
    home.write((0..6).map(|seq| Change::Event(event(seq))));
    let mut seen = Vec::new();
    let until_four = |row: EventRow| {
        seen.push(row.seq);
        if row.seq == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    home.store.reader().each_event(2, until_four).unwrap();
    assert_eq!(seen, [2, 3, 4]);
}

fn a_snapshot_gives_all_rows(mut home: Home) {
    home.write([Change::Event(event(0)), Change::OpenTask(task(1)), Change::AddLease(lease(2, 1))]);
    let stream = home.store.stream();
    let look = |snap: &Snapshot| {
        let (mut events, mut tasks, mut leases) = (Vec::new(), Vec::new(), Vec::new());
        let keep = |row| {
            events.push(row);
            ControlFlow::Continue(())
        };
        snap.each_event(0, keep).unwrap();
        snap.each_task(|row| tasks.push(row)).unwrap();
        snap.each_lease(|row| leases.push(row)).unwrap();
        assert_eq!(snap.stream(), &*stream);
        (events, tasks, leases)
    };
    let seen = home.store.reader().snapshot(look).unwrap();
    assert_eq!(seen, (vec![event(0)], vec![task(1)], vec![lease(2, 1)]));
}

fn tombs_lists_and_blocks_that_stand_are_loaded_at_start(mut home: Home) {
    let selector: Selector = r#"owner == "team-web" && repository_id == "0\"8""#.parse().unwrap();
    let tomb =
        |seq| TombRow { seq, at: at(300), cause: Cause::Revoked, selector: selector.clone(), count: 2, done: false };
    let list = |n: u128, hour_s| ListRow {
        id: ListId::from_u128(n),
        scope: "target:a".into(),
        hour_s,
        slots: 4_096,
        seed: [n as u8; 32],
    };
    let standing = BlockRow { selector: selector.clone(), until: None, ..block("x", at(1)) };
    let lifted = BlockRow { id: BlockId::from_parts(9, [9; 10]), ..standing.clone() };
    home.write([
        Change::OpenTask(task(1)),
        Change::Hold(task_id(1)),
        Change::AddTomb(tomb(3)),
        Change::AddTomb(tomb(4)),
        Change::TombDone(3),
        Change::AddList(list(1, 500)),
        Change::AddList(list(2, 501)),
        Change::AddList(ListRow { slots: 1, ..list(2, 501) }),
        Change::AddBlock(standing.clone()),
        Change::AddBlock(lifted.clone()),
        Change::LiftBlock(lifted.id),
    ]);
    let mut found = Vec::new();
    home.store.load(at(500), |change| found.push(change)).unwrap();
    let held = TaskRow { held: true, ..task(1) };
    let tasks = Change::OpenTask(held);
    assert_eq!(found, [Change::AddBlock(standing), Change::AddTomb(tomb(4)), Change::AddList(list(2, 501)), tasks]);
    assert!(matches!(home.store.write(&[Change::LiftBlock(lifted.id)], at(1)), Err(StoreError::Missing)));
}
