//! Lists: states at a moment, filters, pages.

use dayfly_domain::State;

use super::*;
use crate::store::{EventFilter, LeaseFilter, TaskFilter};

suite!(
    task_states_are_those_of_the_moment,
    lease_states_are_those_of_the_moment,
    a_lease_that_ran_out_before_its_task_ended_is_expired,
    tasks_are_filtered_by_each_word,
    leases_are_filtered_by_each_word,
    pages_go_back_in_time_without_gaps,
    events_are_filtered_and_come_newest_first,
);

fn tasks_at(home: &Home, state: State, now_s: i64) -> Vec<TaskId> {
    let filter = TaskFilter { state: Some(state), ..TaskFilter::default() };
    home.store.reader().tasks(&filter, at(now_s), page(9)).unwrap().iter().map(|task| task.id).collect()
}

fn leases_at(home: &Home, state: State, now_s: i64) -> Vec<LeaseId> {
    let filter = LeaseFilter { state: Some(state), ..LeaseFilter::default() };
    home.store.reader().leases(&filter, at(now_s), page(9)).unwrap().iter().map(|(lease, _)| lease.id).collect()
}

fn task_states_are_those_of_the_moment(mut home: Home) {
    home.write([Change::OpenTask(task(1)), Change::OpenTask(task(2))]);
    home.write([Change::EndTask(task_id(2), end(300, Cause::Completed))]);
    assert_eq!(tasks_at(&home, State::Active, 299), [task_id(2), task_id(1)]);
    assert_eq!(tasks_at(&home, State::Active, 300), [task_id(1)]);
    assert_eq!(tasks_at(&home, State::Ended, 300), [task_id(2)]);
    assert_eq!(tasks_at(&home, State::Expired, 999), []);
    assert_eq!(tasks_at(&home, State::Active, 1000), []);
    assert_eq!(tasks_at(&home, State::Expired, 1000), [task_id(1)]);
    assert_eq!(tasks_at(&home, State::Ended, 1000), [task_id(2)]);
}

fn lease_states_are_those_of_the_moment(mut home: Home) {
    home.write([Change::OpenTask(task(1)), Change::OpenTask(task(2))]);
    home.write([Change::AddLease(lease(3, 1)), Change::AddLease(lease(4, 1)), Change::AddLease(lease(5, 2))]);
    home.write([
        Change::EndLease(lease_id(4), end(300, Cause::Superseded)),
        Change::EndTask(task_id(2), end(400, Cause::Revoked)),
    ]);
    assert_eq!(leases_at(&home, State::Active, 299), [lease_id(5), lease_id(4), lease_id(3)]);
    assert_eq!(leases_at(&home, State::Ended, 300), [lease_id(4)]);
    assert_eq!(leases_at(&home, State::Ended, 400), [lease_id(5), lease_id(4)]);
    assert_eq!(leases_at(&home, State::Active, 699), [lease_id(3)]);
    assert_eq!(leases_at(&home, State::Expired, 700), [lease_id(3)]);
    let counts = |task, now_s| home.store.reader().lease_counts(task_id(task), at(now_s)).unwrap();
    assert_eq!([counts(1, 299), counts(1, 300), counts(1, 700)], [(2, 0), (1, 1), (0, 1)]);
    assert_eq!([counts(2, 399), counts(2, 400), counts(9, 400)], [(1, 0), (0, 1), (0, 0)]);
}

fn a_lease_that_ran_out_before_its_task_ended_is_expired(mut home: Home) {
    home.write([Change::OpenTask(task(1)), Change::AddLease(lease(2, 1))]);
    home.write([Change::EndTask(task_id(1), end(700, Cause::Completed))]);
    assert_eq!(leases_at(&home, State::Expired, 800), [lease_id(2)]);
    assert_eq!(home.store.reader().lease_counts(task_id(1), at(800)).unwrap(), (0, 0));
}

fn tasks_are_filtered_by_each_word(mut home: Home) {
    let other = TaskRow {
        template: "test".into(),
        owner: "team-core".into(),
        issuer: "gitlab".into(),
        workload: "gitlab/acme/core".into(),
        grants: r#"{"mirror":["registry"]}"#.into(),
        deadline: at(2000),
        ..task(2)
    };
    home.write([Change::OpenTask(task(1)), Change::OpenTask(other)]);
    let none = TaskFilter::default;
    let filters = [
        TaskFilter { job: Some("job-1".into()), ..none() },
        TaskFilter { template: Some("deploy".into()), ..none() },
        TaskFilter { owner: Some("team-web".into()), ..none() },
        TaskFilter { issuer: Some("github".into()), ..none() },
        TaskFilter { workload: Some("github/acme/site".into()), ..none() },
        TaskFilter { target: Some("registry".into()), ..none() },
        TaskFilter { expires_before: Some(at(1000)), ..none() },
    ];
    let reader = home.store.reader();
    for filter in filters {
        assert_eq!(reader.tasks(&filter, at(200), page(9)).unwrap(), [task(1)], "{filter:?}");
    }
    assert_eq!(reader.tasks(&none(), at(200), page(9)).unwrap().len(), 2);
    let hostile = TaskFilter { owner: Some("' OR 1=1 --".into()), ..none() };
    assert_eq!(reader.tasks(&hostile, at(200), page(9)).unwrap(), []);
}

fn leases_are_filtered_by_each_word(mut home: Home) {
    let other = TaskRow {
        template: "test".into(),
        owner: "team-core".into(),
        issuer: "gitlab".into(),
        workload: "gitlab/acme/core".into(),
        ..task(2)
    };
    let far = LeaseRow { target: "mirror".into(), kind: Kind::X509, expires: at(900), ..lease(4, 2) };
    home.write([Change::OpenTask(task(1)), Change::OpenTask(other)]);
    home.write([Change::AddLease(lease(3, 1)), Change::AddLease(far)]);
    let none = LeaseFilter::default;
    let filters = [
        LeaseFilter { task: Some(task_id(1)), ..none() },
        LeaseFilter { job: Some("job-1".into()), ..none() },
        LeaseFilter { template: Some("deploy".into()), ..none() },
        LeaseFilter { owner: Some("team-web".into()), ..none() },
        LeaseFilter { issuer: Some("github".into()), ..none() },
        LeaseFilter { workload: Some("github/acme/site".into()), ..none() },
        LeaseFilter { target: Some("registry".into()), ..none() },
        LeaseFilter { kind: Some(Kind::Jwt), ..none() },
        LeaseFilter { expires_before: Some(at(700)), ..none() },
    ];
    let reader = home.store.reader();
    for filter in filters {
        let found = reader.leases(&filter, at(200), page(9)).unwrap();
        assert_eq!(found, [(lease(3, 1), task(1))], "{filter:?}");
    }
    assert_eq!(reader.leases(&none(), at(200), page(9)).unwrap().len(), 2);
}

fn pages_go_back_in_time_without_gaps(mut home: Home) {
    home.write((1..=5).flat_map(|n| [Change::OpenTask(task(n)), Change::AddLease(lease(n, n))]));
    home.write((0..5).map(|seq| Change::Event(event(seq))));
    let reader = home.store.reader();
    let tasks = |before: Option<u64>| {
        let page = Page { before: before.map(task_id), limit: 2 };
        let found = reader.tasks(&TaskFilter::default(), at(200), page).unwrap();
        found.iter().map(|task| task.id).collect::<Vec<_>>()
    };
    assert_eq!([tasks(None), tasks(Some(4))], [[task_id(5), task_id(4)], [task_id(3), task_id(2)]]);
    assert_eq!((tasks(Some(2)), tasks(Some(1))), (vec![task_id(1)], vec![]));
    let before_three = Page { before: Some(lease_id(3)), limit: 9 };
    let leases = reader.leases(&LeaseFilter::default(), at(200), before_three).unwrap();
    assert_eq!(leases.iter().map(|(lease, _)| lease.id).collect::<Vec<_>>(), [lease_id(2), lease_id(1)]);
    let events = reader.events(&EventFilter::default(), Page { before: Some(4), limit: 2 }).unwrap();
    assert_eq!(events, [event(3), event(2)]);
}

fn events_are_filtered_and_come_newest_first(mut home: Home) {
    let of = |seq, task: u64, lease: Option<u64>| {
        Change::Event(EventRow { task: Some(task_id(task)), lease: lease.map(lease_id), ..event(seq) })
    };
    home.write([of(0, 1, None), of(1, 1, Some(5)), of(2, 2, Some(6)), Change::Event(event(3)), of(4, 1, Some(5))]);
    let reader = home.store.reader();
    let seqs = |filter: EventFilter| {
        reader.events(&filter, page(9)).unwrap().iter().map(|event| event.seq).collect::<Vec<_>>()
    };
    let none = EventFilter::default;
    assert_eq!(seqs(none()), [4, 3, 2, 1, 0]);
    assert_eq!(seqs(EventFilter { task: Some(task_id(1)), ..none() }), [4, 1, 0]);
    assert_eq!(seqs(EventFilter { lease: Some(lease_id(6)), ..none() }), [2]);
    assert_eq!(seqs(EventFilter { since: Some(at(101)), until: Some(at(103)), ..none() }), [2, 1]);
    assert_eq!(seqs(EventFilter { task: Some(task_id(1)), since: Some(at(101)), ..none() }), [4, 1]);
}
