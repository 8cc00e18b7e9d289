//! Law L7: an id is never a capability, and what one may not see does not exist.

use dayfly::{
    flow::{Caller, EventFilter},
    store::{LeaseFilter, TaskFilter},
};
use dayfly_domain::{EventId, LeaseId, Reason, State, TaskId};

use crate::world::{Job, OPERATOR, World, client_handle, handle, lease, reason, secret, token};

#[tokio::test]
async fn a_handle_reads_its_own_and_nothing_else() {
    let mut world = World::new();
    let (mine, theirs) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::shop(), "deploy").await);
    let caller = world.caller(&handle(&mine)).await;
    assert_eq!(world.flow.task(&caller, mine.task).await.unwrap().row.id, mine.task);
    assert_eq!(world.flow.lease(&caller, lease(&mine)).await.unwrap().row.id, lease(&mine));
    assert_eq!(reason(world.flow.task(&caller, theirs.task).await), Reason::NotFound);
    assert_eq!(reason(world.flow.lease(&caller, lease(&theirs)).await), Reason::NotFound);
    let tasks = world.flow.tasks(&caller, TaskFilter::default(), 50, None).await.unwrap().items;
    let leases = world.flow.leases(&caller, LeaseFilter::default(), 50, None).await.unwrap().items;
    assert_eq!((tasks.len(), tasks[0].row.id), (1, mine.task));
    assert_eq!((leases.len(), leases[0].row.id), (1, lease(&mine)));
    let of_theirs = LeaseFilter { task: Some(theirs.task), ..LeaseFilter::default() };
    assert!(world.flow.leases(&caller, of_theirs, 50, None).await.unwrap().items.is_empty());
    assert_eq!(reason(world.flow.events(&caller, EventFilter::default(), 50, None).await), Reason::Scope);
}

#[tokio::test]
async fn a_handles_list_keeps_to_its_filters() {
    let mut world = World::new();
    let mine = world.open(&Job::shop(), "deploy").await;
    let caller = world.caller(&handle(&mine)).await;
    for filter in [
        TaskFilter { state: Some(State::Ended), ..TaskFilter::default() },
        TaskFilter { template: Some("ship".into()), ..TaskFilter::default() },
        TaskFilter { owner: Some("team-pay".into()), ..TaskFilter::default() },
    ] {
        assert!(world.flow.tasks(&caller, filter, 50, None).await.unwrap().items.is_empty());
    }
    let fitting = TaskFilter { state: Some(State::Active), template: Some("deploy".into()), ..TaskFilter::default() };
    assert_eq!(world.flow.tasks(&caller, fitting, 50, None).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn t_110_a_leaked_id_is_worth_nothing_to_another_owner() {
    let mut world = World::new();
    let (shop, pay) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::pay(), "pay").await);
    let watch = world.open(&Job::pay(), "pay-watch").await;
    let caller = world.caller(&token(&watch)).await;
    assert!(matches!(&caller, Caller::Token { owner, .. } if &**owner == "team-pay"));
    assert!(world.flow.task(&caller, pay.task).await.is_ok() && world.flow.lease(&caller, lease(&pay)).await.is_ok());
    let flow = &world.flow;
    assert_eq!(
        [
            reason(flow.task(&caller, shop.task).await),
            reason(flow.lease(&caller, lease(&shop)).await),
            reason(flow.end_task(&caller, shop.task, None, None).await),
            reason(flow.end_lease(&caller, lease(&shop), None).await),
            reason(flow.task(&caller, TaskId::from_u128(1)).await),
            reason(flow.lease(&caller, LeaseId::from_u128(1)).await),
        ],
        [Reason::NotFound; 6]
    );
    let known = flow.task(&caller, shop.task).await.unwrap_err();
    assert_eq!(known, flow.task(&caller, TaskId::from_u128(1)).await.unwrap_err(), "unknown and hidden look the same");
    assert!(flow.introspect(&caller, &secret(&token(&shop))).await.unwrap().is_none());
    assert!(flow.introspect(&caller, &secret(&token(&pay))).await.unwrap().is_some());
    assert!(world.active(&token(&shop)).await);
}

#[tokio::test]
async fn lists_hold_only_what_the_caller_may_see() {
    let mut world = World::new();
    for run in ["1", "2", "3"] {
        world.open(&Job::shop().run(run), "deploy").await;
        world.open(&Job::pay().run(run), "pay").await;
    }
    let watch = world.open(&Job::pay(), "pay-watch").await;
    let caller = world.caller(&token(&watch)).await;
    let all = TaskFilter::default;
    let tasks = world.flow.tasks(&caller, all(), 50, None).await.unwrap().items;
    assert!(tasks.len() == 4 && tasks.iter().all(|task| task.row.owner == "team-pay"));
    let leases = world.flow.leases(&caller, LeaseFilter::default(), 50, None).await.unwrap().items;
    assert!(leases.len() == 4 && leases.iter().all(|lease| lease.owner == "team-pay"));
    let theirs = TaskFilter { owner: Some("team-shop".into()), ..all() };
    assert!(world.flow.tasks(&caller, theirs, 50, None).await.unwrap().items.is_empty());
    assert_eq!(world.flow.tasks(&OPERATOR, all(), 50, None).await.unwrap().items.len(), 7);
    let events = world.flow.events(&caller, EventFilter::default(), 50, None).await.unwrap().items;
    assert!(events.len() == 8 && events.iter().all(|event| event.body["owner"] == "team-pay"), "{events:?}");
    let everything = world.flow.events(&OPERATOR, EventFilter::default(), 50, None).await.unwrap().items;
    assert!(everything.iter().any(|event| event.body["type"] == "start"));
}

#[tokio::test]
async fn pages_hold_everything_once_and_end() {
    let mut world = World::new();
    for _ in 0..7 {
        world.open(&Job::pay(), "pay").await;
        world.open(&Job::shop(), "deploy").await;
    }
    let watch = world.open(&Job::pay(), "pay-watch").await;
    let caller = world.caller(&token(&watch)).await;
    let (mut seen, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = world.flow.tasks(&caller, TaskFilter::default(), 3, cursor.as_deref()).await.unwrap();
        assert!(page.items.len() <= 3);
        seen.extend(page.items.iter().map(|task| task.row.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let newest_first = seen.windows(2).all(|pair| pair[0] > pair[1]);
    assert!(seen.len() == 8 && newest_first, "{seen:?}");
}

#[tokio::test]
async fn t_120_a_cursor_belongs_to_its_caller_list_and_filter() {
    let mut world = World::new();
    for _ in 0..4 {
        world.open(&Job::shop(), "deploy").await;
    }
    let watch = world.open(&Job::shop(), "watch").await;
    let caller = world.caller(&token(&watch)).await;
    let all = TaskFilter::default;
    let cursor = world.flow.tasks(&OPERATOR, all(), 2, None).await.unwrap().next_cursor.unwrap();
    assert!(world.flow.tasks(&OPERATOR, all(), 2, Some(&cursor)).await.is_ok());
    let flow = &world.flow;
    assert_eq!(reason(flow.tasks(&caller, all(), 2, Some(&cursor)).await), Reason::Request, "another caller's");
    let other = Caller::Operator { uid: 1 };
    assert_eq!(reason(flow.tasks(&other, all(), 2, Some(&cursor)).await), Reason::Request);
    let narrower = TaskFilter { template: Some("deploy".into()), ..all() };
    assert_eq!(reason(flow.tasks(&OPERATOR, narrower, 2, Some(&cursor)).await), Reason::Request, "another filter's");
    let leases = flow.leases(&OPERATOR, LeaseFilter::default(), 2, Some(&cursor)).await;
    assert_eq!(reason(leases), Reason::Request, "another list's");
    for at in 0..cursor.len() {
        let mut bytes = cursor.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        // The first four bytes name the process that made it.
        let found = reason(flow.tasks(&OPERATOR, all(), 2, Some(&bad)).await);
        assert!(matches!(found, Reason::Request | Reason::Cursor), "{at}: {found}");
    }
    for bad in ["", "x", &cursor[1..], &format!("{cursor}A")] {
        let found = reason(flow.tasks(&OPERATOR, all(), 2, Some(bad)).await);
        assert!(matches!(found, Reason::Request | Reason::Cursor), "{bad}: {found}");
    }
}

#[tokio::test]
async fn nobody_reads_nothing() {
    let mut world = World::new();
    let issued = world.open(&Job::shop(), "deploy").await;
    let (unknown, _) = client_handle(8);
    let evidence = world.evidence(&Job::shop());
    for bearer in ["", "x", &unknown, &token(&issued), &evidence] {
        let caller = world.caller(bearer).await;
        assert!(matches!(caller, Caller::Nobody), "{bearer}");
        assert_eq!(reason(world.flow.task(&caller, issued.task).await), Reason::Client);
        assert_eq!(reason(world.flow.introspect(&caller, &secret(&token(&issued))).await), Reason::Client);
        assert_eq!(reason(world.flow.event(&caller, EventId::from_u128(1)).await), Reason::Client);
        assert_eq!(reason(world.flow.end_task(&caller, issued.task, None, None).await), Reason::Client);
    }
}

#[tokio::test]
async fn a_broker_token_whose_task_ended_is_nobody() {
    let mut world = World::new();
    let watch = world.open(&Job::shop(), "watch").await;
    let before = world.caller(&token(&watch)).await;
    world.end(&handle(&watch), watch.task).await.unwrap();
    assert!(matches!(world.caller(&token(&watch)).await, Caller::Nobody));
    let task = world.flow.task(&before, watch.task).await;
    assert_eq!(reason(task), Reason::Client, "nor for a request that is already under way");
}
