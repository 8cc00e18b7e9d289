//! What must hold when everything is asked at once.

use dayfly::flow::{Exchange, Subject};
use dayfly_domain::Reason;

use crate::world::{Job, OPERATOR, World, ask, handle, lease, secret, token};

fn feeding(handle: &str, supersede_s: Option<u8>) -> Exchange {
    Exchange {
        subject: Subject::Handle { handle: secret(handle), supersede_s },
        ask: ask(""),
        possession: None,
        csr: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_end_leaves_nothing_alive() {
    for file in [false, true] {
        let mut world = if file { World::on_file() } else { World::new() };
        let issued = world.open(&Job::shop(), "deploy").await;
        let feeding = (0..40).map(|number| {
            let (flow, exchange) = (world.flow.clone(), feeding(&handle(&issued), (number % 3 == 0).then_some(30)));
            tokio::spawn(async move { flow.exchange(exchange).await.map(|fed| token(&fed)) })
        });
        let feeding: Vec<_> = feeding.collect();
        let ended = world.end(&handle(&issued), issued.task).await.unwrap();
        assert!(ended.leases_ended >= 1);
        for fed in feeding {
            match fed.await.unwrap() {
                Ok(token) => assert!(!world.active(&token).await),
                Err(refused) => assert_eq!(refused.reason, Reason::Ended),
            }
        }
        assert!(!world.active(&token(&issued)).await);
        let report = world.verify();
        assert!(report.problems.is_empty(), "{report:?}");
    }
}

/// A renewal that puts the end of a lease ahead, and an end of that lease at once: the end wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_end_beside_a_renewal_is_not_put_off() {
    let mut world = World::on_file();
    for number in 0..20 {
        let issued = world.open(&Job::shop().run(&number.to_string()), "deploy").await;
        let (flow, exchange) = (world.flow.clone(), feeding(&handle(&issued), Some(60)));
        let renewal = tokio::spawn(async move { flow.exchange(exchange).await.is_ok() });
        let ended = world.flow.end_lease(&OPERATOR, lease(&issued), None).await.unwrap();
        assert_eq!(ended.ended_at, Some(world.now()));
        assert!(renewal.await.unwrap());
        assert!(!world.active(&token(&issued)).await, "{number}");
    }
    assert!(world.verify().problems.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn per_job_holds_when_all_come_at_once() {
    let mut world = World::on_file();
    let mut asking = Vec::new();
    for _ in 0..24 {
        let (flow, evidence) = (world.flow.clone(), world.evidence(&Job::shop().run("1")));
        let exchange = Exchange {
            subject: Subject::Evidence { token: secret(&evidence), control_s256: None },
            ask: ask("pair"),
            possession: None,
            csr: None,
        };
        asking.push(tokio::spawn(async move { flow.exchange(exchange).await.map_err(|refused| refused.reason) }));
    }
    let mut opened = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(_) => opened += 1,
            Err(reason) => assert_eq!(reason, Reason::PerJob),
        }
    }
    assert_eq!(opened, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_handle_for_many_tasks_opens_one() {
    let mut world = World::on_file();
    let (_, hash) = crate::world::client_handle(3);
    let mut asking = Vec::new();
    for _ in 0..16 {
        let (flow, token) = (world.flow.clone(), secret(&world.evidence(&Job::shop())));
        let exchange = Exchange {
            subject: Subject::Evidence { token, control_s256: Some(hash) },
            ask: ask("deploy"),
            possession: None,
            csr: None,
        };
        asking.push(tokio::spawn(async move { flow.exchange(exchange).await.map_err(|refused| refused.reason) }));
    }
    let mut opened = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(_) => opened += 1,
            Err(reason) => assert_eq!(reason, Reason::HandleUsed),
        }
    }
    assert_eq!((opened, world.verify().tasks), (1, 1));
}

/// Everybody ends everything at once: each gets the same answer, and there is one end.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_ends_are_one_end() {
    let mut world = World::on_file();
    let issued = world.open(&Job::shop(), "deploy").await;
    let ending = (0..16).map(|_| {
        let (flow, task) = (world.flow.clone(), issued.task);
        tokio::spawn(async move { flow.end_task(&OPERATOR, task, None, None).await.unwrap() })
    });
    let ending: Vec<_> = ending.collect();
    let presented = secret(&token(&issued));
    world.flow.revoke_presented(&presented).await.unwrap();
    let mut answers = Vec::new();
    for ended in ending {
        answers.push(ended.await.unwrap());
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let report = world.verify();
    assert!(report.problems.is_empty(), "{report:?}");
}
