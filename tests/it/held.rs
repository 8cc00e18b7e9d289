//! Combinations that a job may not hold: a `forbid` over what its live tasks hold, also for
//! exchanges at once.

use dayfly::flow::{EventFilter, Exchange, Issued, Refused, Subject};
use dayfly_domain::Reason;

use crate::world::{BUNDLE, Job, OPERATOR, SHOP_URI, World, ask, ask_on, handle, reason, secret};

const STOCK_URI: &str = "https://stock.example.org";

/// Nobody writes to the shop and reads the stock in one job.
const APART: &str = r#"@id("apart") @purpose("what is inside does not get out")
forbid (principal, action == Dayfly::Action::"run", resource)
when { context.ask_tags.contains("inside") && context.held_tags.contains("outside") ||
       context.ask_tags.contains("outside") && context.held_tags.contains("inside") };"#;

/// One deployment at a time in a job.
const ONE: &str = r#"@id("one") @purpose("one deployment at a time")
forbid (principal, action == Dayfly::Action::"run", resource)
when { context.ask.contains("shop#deploy:create") && context.held.contains("shop#deploy:create") };"#;

/// The world with tags, a template for the stock alone, and jobs that may have many tasks.
fn bundle() -> String {
    let tagged = |name: &str, tag: &str| (format!("[target.{name}]"), format!("[target.{name}]\ntags = [\"{tag}\"]"));
    let (shop, stock) = (tagged("shop", "inside"), tagged("stock", "outside"));
    let text = BUNDLE.replace(&shop.0, &shop.1).replace(&stock.0, &stock.1);
    let text = text.replace("[task.deploy]", "[task.deploy]\nper_job = 200");
    format!(
        "{text}\n[task.count]\npurpose = \"count\"\nowner = \"team-shop\"\ngrants = {{ stock = [\"stock:read\"] }}\nttl = \"15m\"\n\
         deadline = \"1h\"\nper_job = 200\nreview_by = 2099-01-01\n[[task.count.allow]]\nid = \"shop-counts\"\nissuer = \"ci\"\n\
         claims = {{ sub = \"shop\" }}\n"
    )
}

fn world(forbid: &str) -> World {
    World::with_cedar(&bundle(), forbid, &[])
}

async fn open(world: &mut World, run: &str, template: &str) -> Result<Issued, Refused> {
    world.try_open(&Job::shop().run(run), ask(template)).await
}

#[tokio::test]
async fn a_job_does_not_hold_what_a_forbid_keeps_apart() {
    let mut world = world(APART);
    let first = open(&mut world, "1", "deploy").await.unwrap();
    assert_eq!(reason(open(&mut world, "1", "count").await), Reason::Forbidden);
    assert!(open(&mut world, "2", "count").await.is_ok(), "another job");
    let events = world.flow.events(&OPERATOR, EventFilter::default(), 50, None).await.unwrap().items;
    let denied = events.iter().find(|event| event.body["type"] == "denied").unwrap();
    let held = &denied.body["context"]["held"];
    assert_eq!(held, &serde_json::json!(["shop#deploy:create", "shop#deploy:status"]), "on the record");
    assert!(open(&mut world, "1", "deploy").await.is_ok(), "more of the same");
    world.flow.end_task(&OPERATOR, first.task, None, Some(false)).await.unwrap();
    assert_eq!(reason(open(&mut world, "1", "count").await), Reason::Forbidden, "the second one is still alive");
}

#[tokio::test]
async fn what_ended_or_expired_holds_nothing() {
    let mut world = world(APART);
    let first = open(&mut world, "1", "deploy").await.unwrap();
    world.end(&handle(&first), first.task).await.unwrap();
    let second = open(&mut world, "1", "count").await.unwrap();
    assert_eq!(reason(open(&mut world, "1", "deploy").await), Reason::Forbidden);
    world.pass_s(3_601);
    assert_eq!(reason(world.feed(&handle(&second), None).await), Reason::Ended);
    assert!(open(&mut world, "1", "deploy").await.is_ok());
}

#[tokio::test]
async fn without_a_label_the_workload_is_the_job() {
    let mut world = world(APART);
    world.open(&Job::shop(), "deploy").await;
    assert_eq!(reason(world.try_open(&Job::shop(), ask("count")).await), Reason::Forbidden);
    assert!(open(&mut world, "7", "count").await.is_ok(), "a job with a label is its own");
}

#[tokio::test]
async fn a_renewal_is_not_in_its_own_way() {
    let mut world = world(ONE);
    let issued = open(&mut world, "1", "deploy").await.unwrap();
    assert!(world.feed(&handle(&issued), Some(30)).await.is_ok());
    assert_eq!(reason(open(&mut world, "1", "deploy").await), Reason::Forbidden);
    assert!(world.feed(&handle(&issued), None).await.is_ok(), "a refused second one changes nothing");
}

#[tokio::test]
async fn a_handle_does_not_get_piece_by_piece_what_is_kept_apart() {
    let mut world = world(APART);
    let ship = |uri| ask_on("ship", Some(uri), None);
    let issued = world.try_open(&Job::shop().run("1"), ship(SHOP_URI)).await.unwrap();
    assert_eq!(reason(world.feed_ask(&handle(&issued), None, ship(STOCK_URI)).await), Reason::Forbidden);
}

#[tokio::test]
async fn what_a_job_holds_survives_a_restart() {
    let mut world = World::on_file_with(&bundle(), APART);
    let ended = open(&mut world, "2", "deploy").await.unwrap();
    open(&mut world, "1", "deploy").await.unwrap();
    world.end(&handle(&ended), ended.task).await.unwrap();
    world.restart().await;
    assert_eq!(reason(open(&mut world, "1", "count").await), Reason::Forbidden);
    assert!(open(&mut world, "2", "count").await.is_ok());
}

/// Both kinds at once, in either order and in crowds: whatever comes first keeps the other out.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_exchanges_at_once_do_not_both_pass_a_forbid_on_what_is_held() {
    let mut world = World::on_file_with(&bundle(), APART);
    let crowd = |first: &'static str, second: &'static str, size: usize| {
        (0..size).map(move |at| if at % 2 == 0 { first } else { second }).collect::<Vec<_>>()
    };
    let crowds = [crowd("deploy", "count", 2), crowd("count", "deploy", 2)];
    let crowds =
        crowds.into_iter().cycle().take(20).chain([crowd("deploy", "count", 64), crowd("count", "deploy", 64)]);
    for (run, templates) in crowds.enumerate() {
        let mut asking = Vec::new();
        for template in templates {
            let (flow, token) = (world.flow.clone(), secret(&world.evidence(&Job::shop().run(&run.to_string()))));
            let subject = Subject::Evidence { token, control_s256: None };
            let exchange = Exchange { subject, ask: ask(template), possession: None, csr: None };
            asking.push(tokio::spawn(async move { (template, flow.exchange(exchange).await) }));
        }
        let mut passed = std::collections::BTreeSet::new();
        for asked in asking {
            match asked.await.unwrap() {
                (template, Ok(_)) => drop(passed.insert(template)),
                (_, Err(refused)) => {
                    assert!(matches!(refused.reason, Reason::Forbidden | Reason::Overtaken), "{refused:?}");
                }
            }
        }
        assert_eq!(passed.len(), 1, "run {run}: {passed:?}");
    }
    assert!(world.verify().problems.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_at_once_one_is_the_only_one() {
    let mut world = World::on_file_with(&bundle(), ONE);
    let mut asking = Vec::new();
    for _ in 0..64 {
        let (flow, token) = (world.flow.clone(), secret(&world.evidence(&Job::shop().run("1"))));
        let subject = Subject::Evidence { token, control_s256: None };
        let exchange = Exchange { subject, ask: ask("deploy"), possession: None, csr: None };
        asking.push(tokio::spawn(async move { flow.exchange(exchange).await.map_err(|refused| refused.reason) }));
    }
    let mut passed = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(_) => passed += 1,
            Err(reason) => assert_eq!(reason, Reason::Forbidden),
        }
    }
    assert_eq!(passed, 1);
}
