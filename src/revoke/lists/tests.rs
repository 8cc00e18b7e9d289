use std::collections::HashSet;

use dayfly_domain::{Kind, TaskId};

use super::*;

const AT: UnixMs = UnixMs::from_s(1_800_000_000);

/// 56 bytes that no two calls share.
fn random(number: u64) -> [u8; 56] {
    let mut bytes = [0; 56];
    for (at, eight) in bytes.chunks_mut(8).enumerate() {
        let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(at as u32 * 7);
        eight.copy_from_slice(&mixed.to_be_bytes());
    }
    bytes
}

fn wish(target: &'static str, minutes: i64) -> Wish<'static> {
    Wish { target, environment: "staging", expires: AT.plus_s(minutes * 60) }
}

fn lease_row(number: u64, target: &str, slot: StatusSlot) -> LeaseRow {
    LeaseRow {
        id: LeaseId::from_u128(u128::from(number)),
        task: TaskId::from_u128(1),
        seq: 1,
        target: target.into(),
        kind: Kind::Jwt,
        row: String::new(),
        actions: "[]".into(),
        issued_at: AT,
        expires: AT.plus_s(900),
        credential_hash: [9; 32],
        thumbprint: None,
        kid: None,
        status: Some(slot),
        end: None,
    }
}

/// Reserves and commits.
fn issue(lists: &Lists, number: u64, target: &'static str) -> StatusSlot {
    let slot = lists.reserve(wish(target, 15), AT, &random(number));
    if let Some(row) = lists.unwritten(slot.list) {
        lists.apply(&Change::AddList(row));
    }
    lists.apply(&Change::AddLease(lease_row(number, target, slot)));
    slot
}

fn text(lists: &Lists, list: ListId, now: UnixMs) -> (Arc<Published>, bool) {
    let mut signed = false;
    let published = lists.publish(list, 300, now, |proof| {
        signed = true;
        let token = proof.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok::<_, ()>(Published { token, etag: "\"1\"".into() })
    });
    (published.unwrap().unwrap(), signed)
}

#[test]
fn the_hour_of_a_list_is_the_one_in_which_its_leases_expire() {
    assert_eq!(hour_of(UnixMs::from_s(7_200)), 7_200);
    assert_eq!(hour_of(UnixMs::new(7_200_001)), 10_800);
    assert_eq!(hour_of(UnixMs::from_s(3_601)), 7_200);
}

#[test]
fn small_targets_share_a_list_and_a_large_one_gets_its_own() {
    let lists = Lists::with_sizes(Sizes { shared: 4_096, small: 3, own: 64, most: 128 });
    let slots: Vec<_> = (0..60).map(|number| issue(&lists, number, "edge")).collect();
    let other = issue(&lists, 100, "cdn");
    assert_eq!(other.list, slots[0].list, "one list for the small ones of an environment");
    assert!(slots[..3].iter().all(|slot| slot.list == slots[0].list) && slots[3].list != slots[0].list);
    let full = slots[3..].iter().take_while(|slot| slot.list == slots[3].list).count();
    assert!((32..=48).contains(&full), "at most 48 of 64, and as many as decoys leave: {full}");
    let (own, further) = slots[3..].split_at(full);
    assert!(further.iter().all(|slot| slot.list != own[0].list && slot.list == further[0].list));
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), 60, "no place twice");
    assert_eq!(lists.counts(), ListCounts { lists: 3, slots: 4_096 + 64 + 128, given: 61 });
    let elsewhere = lists.reserve(Wish { environment: "shops", ..wish("till", 15) }, AT, &random(200));
    assert_ne!(elsewhere.list, other.list, "another environment");
    let later = lists.reserve(wish("edge", 15 + 60), AT, &random(201));
    assert_ne!(later.list, other.list, "another hour");
    assert!(lists.views().iter().any(|view| view.scope == Scope::Target("edge".into())));
}

#[test]
fn a_list_of_a_store_goes_on_as_it_was() {
    let sizes = Sizes { shared: 4_096, small: 3, own: 64, most: 128 };
    let lists = Lists::with_sizes(sizes);
    let slots: Vec<_> = (0..5).map(|number| issue(&lists, number, "edge")).collect();
    lists.end(LeaseId::from_u128(1), AT);
    let again = Lists::with_sizes(sizes);
    let mut rows: Vec<_> = lists.inner().lists.values().map(|list| list.row.clone()).collect();
    rows.sort_by_key(|row| row.id);
    rows.into_iter().for_each(|row| again.apply(&Change::AddList(row)));
    for (number, slot) in slots.iter().enumerate() {
        again.apply(&Change::AddLease(lease_row(number as u64, "edge", *slot)));
    }
    again.end(LeaseId::from_u128(1), AT);
    for slot in &slots {
        assert_eq!(text(&lists, slot.list, AT).0, text(&again, slot.list, AT).0);
    }
    assert_eq!(lists.counts(), again.counts());
    let next = issue(&again, 50, "edge");
    assert!(next.list == slots[4].list && !slots.contains(&next), "it is still a large target: {next:?}");
}

#[test]
fn a_list_is_signed_once_a_second_and_only_when_it_reads_differently() {
    let lists = Lists::default();
    let slot = issue(&lists, 1, "edge");
    assert!(text(&lists, slot.list, AT).1 && !text(&lists, slot.list, AT.plus_ms(999)).1);
    let lease = LeaseId::from_u128(1);
    assert_eq!(lists.would_show(lease, AT), Some(false));
    lists.end(lease, AT);
    assert!(!text(&lists, slot.list, AT.plus_ms(999)).1, "not within the second");
    assert_eq!(lists.would_show(lease, AT.plus_ms(999)), Some(false), "and that is said");
    assert_eq!(lists.would_show(lease, AT.plus_s(1)), Some(true));
    let (before, after) = (text(&lists, slot.list, AT).0, text(&lists, slot.list, AT.plus_s(1)));
    assert!(after.1 && after.0.token != before.token);
    assert_eq!(lists.would_show(lease, AT.plus_s(1)), Some(true));
    assert_eq!(lists.would_show(LeaseId::from_u128(7), AT), None);
}

#[test]
fn a_list_that_is_not_written_is_written_with_the_next_lease() {
    let lists = Lists::default();
    let slot = lists.reserve(wish("edge", 15), AT, &random(1));
    let row = lists.unwritten(slot.list).unwrap();
    lists.give_back(slot);
    let next = lists.reserve(wish("edge", 15), AT, &random(2));
    assert_eq!((next.list, lists.unwritten(next.list)), (slot.list, Some(row.clone())));
    assert_ne!(next.index, slot.index);
    lists.apply(&Change::AddList(row));
    assert_eq!(lists.unwritten(slot.list), None);
}

#[test]
fn a_list_vanishes_when_no_server_takes_its_leases_any_more() {
    let lists = Lists::default();
    let slot = issue(&lists, 1, "edge");
    let hour = UnixMs::from_s(hour_of(AT.plus_s(900)));
    lists.over(LeaseId::from_u128(1), true);
    assert!(lists.leases().is_empty());
    lists.forget(hour.plus_s(SERVED_AFTER_S - 1));
    assert_eq!(lists.ready(slot.list, hour).map(|ready| ready.is_some()), Some(false));
    lists.forget(hour.plus_s(SERVED_AFTER_S));
    assert_eq!(lists.ready(slot.list, hour), None);
    assert!(lists.is_empty() && lists.inner().open.is_empty() && lists.inner().shared.is_empty());
}

/// What whoever fetches a list each minute sees: how many places turned. With three leases ended in one
/// of the minutes it is a number like the others.
#[test]
fn t_108_a_watcher_of_a_list_reads_off_neither_the_number_nor_the_time_of_ends() {
    let lists = Lists::default();
    let slot = issue(&lists, 0, "edge");
    for number in 1..200 {
        issue(&lists, number, "edge");
    }
    let mut turned = Vec::new();
    let mut before = 0;
    for minute in 0..15 {
        if minute == 7 {
            (0..3).for_each(|number| lists.end(LeaseId::from_u128(number), AT));
        }
        let now = AT.plus_s(minute * 60);
        let hex = text(&lists, slot.list, now).0;
        let set: u32 = hex.token.chars().filter_map(|digit| digit.to_digit(16)).map(u32::count_ones).sum();
        turned.push(set - before);
        before = set;
    }
    let quiet = || turned[1..].iter().enumerate().filter(|(at, _)| *at != 6).map(|(_, count)| *count);
    assert!(quiet().all(|count| count > 0), "there is no quiet minute: {turned:?}");
    assert!((quiet().min().unwrap()..=quiet().max().unwrap() + 3).contains(&turned[7]), "{turned:?}");
    assert!(before > 400, "most of what is set was never a lease: {before}");
}
