//! Issue, renewal, ends of every kind, catching up, expiry and forgetting at once, under random
//! schedules: nothing waits for ever, nothing that ended lives again, evidence opens one task, counts
//! agree with what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod world;

use dayfly_domain::{Cause, Selector, State};
use dayfly_races::lease::Overtaken;
use shuttle::thread;
use world::{World, lease_id, task_id};

/// So many schedules of each: some seconds. `DAYFLY_SCHEDULES` asks for more.
const SCHEDULES: usize = 5_000;

#[allow(clippy::disallowed_methods, reason = "how long a test runs is asked of whoever runs it")]
fn under_schedules(scenario: impl Fn() + Send + Sync + 'static) {
    let asked = std::env::var("DAYFLY_SCHEDULES").ok().and_then(|text| text.parse().ok());
    shuttle::check_random(scenario, asked.unwrap_or(SCHEDULES));
}

fn all(threads: Vec<thread::JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn t_091_evidence_that_is_shown_at_once_opens_one_task() {
    under_schedules(|| {
        let world = World::new();
        let openings = (1..=3).map(|number| {
            let world = world.clone();
            thread::spawn(move || {
                let opened = world.open(number, 1, "shop");
                assert!(matches!(opened, Ok(()) | Err(Overtaken::Replayed)), "{opened:?}");
            })
        });
        all(openings.collect());
        let opened = (1..=3).filter(|number| world.table.task(task_id(*number)).is_some()).count();
        assert_eq!((opened, world.counted()), (1, 1));
    });
}

#[test]
fn t_092_nothing_lives_after_the_end_of_its_task_was_acknowledged() {
    under_schedules(|| {
        let world = World::new();
        world.open(1, 1, "shop").unwrap();
        let renewing = world.spawn(|world| {
            for number in 2..4 {
                // Refused, or dead with its task.
                let fed = world.feed(1, number, Some(0));
                assert!(matches!(fed, Ok(()) | Err(Overtaken::Ended)), "{fed:?}");
            }
        });
        let ending = world.spawn(|world| {
            world.end_task(1, Cause::Completed);
            assert_eq!(world.state_of_task(1), State::Ended);
            (1..4).for_each(|number| assert!(!world.lives(number), "lease {number} outlives its task"));
        });
        let (looking, expiring) = (world.spawn(World::look), world.spawn(World::pass_and_forget));
        all(vec![renewing, ending, looking, expiring]);
        (1..4).for_each(|number| assert!(!world.lives(number)));
        assert_eq!(world.recount(), 0);
    });
}

#[test]
fn ends_of_one_lease_meet_and_one_of_them_stays() {
    under_schedules(|| {
        let world = World::new();
        world.open(1, 1, "shop").unwrap();
        let superseding = world.spawn(|world| world.feed(1, 2, Some(30)).unwrap());
        let presented = world.spawn(|world| {
            world.end_lease(1, Cause::Presented);
            assert!(!world.lives(1), "an acknowledged end is put off by a supersede");
        });
        let revoked = world.spawn(|world| {
            world.end_lease(1, Cause::Revoked);
            assert!(!world.lives(1));
        });
        all(vec![superseding, presented, revoked, world.spawn(World::look)]);
        let end = world.table.lease(lease_id(1)).unwrap().end.unwrap();
        assert!(end.seq.is_some() && matches!(end.cause, Cause::Presented | Cause::Revoked | Cause::Superseded));
        assert_eq!(world.recount(), 1, "the renewed one");
    });
}

#[test]
fn an_end_by_selector_is_not_missed_while_it_is_caught_up() {
    for selector in ["owner == \"shop\"", "target == \"shop\""] {
        under_schedules(move || {
            let world = World::new();
            world.open(1, 1, "shop").unwrap();
            world.open(2, 2, "pay").unwrap();
            let selector: Selector = selector.parse().unwrap();
            let single = selector.target.is_some();
            let ending = world.spawn(move |world| {
                world.end_by(&selector, Cause::Revoked);
                assert!(!world.lives(1), "an acknowledged end lets a lease live");
            });
            let opening = world.spawn(|world| {
                let opened = world.open(3, 3, "shop");
                assert!(matches!(opened, Ok(()) | Err(Overtaken::Blocked)), "{opened:?}");
            });
            all(vec![ending, opening, world.spawn(World::look), world.spawn(World::look)]);
            assert!(!world.lives(1) && world.lives(2) != single, "who is meant, and nobody else");
            world.recount();
        });
    }
}

/// A swap of the bundle is an end by selector of what it takes away.
#[test]
fn t_106_everything_at_once() {
    under_schedules(|| {
        let world = World::new();
        world.open(1, 1, "shop").unwrap();
        let swap = world.spawn(|world| world.end_by(&"template == \"deploy-shop\"".parse().unwrap(), Cause::Policy));
        let ending = world.spawn(|world| world.end_task(1, Cause::Revoked));
        let feeding = world.spawn(|world| {
            let _ = world.feed(1, 2, Some(0));
        });
        let opening = world.spawn(|world| {
            let _ = world.open(3, 3, "shop");
        });
        let (looking, expiring) = (world.spawn(World::look), world.spawn(World::pass_and_forget));
        all(vec![swap, ending, feeding, opening, looking, expiring]);
        assert!((1..3).all(|number| !world.lives(number)));
        world.recount();
    });
}

#[test]
fn a_job_that_gets_its_second_task_is_never_without_the_first() {
    under_schedules(|| {
        let world = World::new();
        world.open(1, 1, "shop").unwrap();
        let looking = world.spawn(|world| {
            for _ in 0..3 {
                assert!(!world.holdings("shop").is_empty(), "the job is seen to hold nothing");
            }
        });
        let opening = world.spawn(|world| world.open(2, 2, "shop").unwrap());
        all(vec![looking, opening]);
        assert_eq!(world.holdings("shop").len(), 1, "two tasks of one template with the same grants");
    });
}
