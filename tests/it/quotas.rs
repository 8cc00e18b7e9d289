//! Who may take how much: rates of workloads, storms of jobs, quotas of live leases. What was proven
//! is charged, never what is stated, and a refusal uses up nothing.

use dayfly::{
    config::Caps,
    flow::{Exchange, Issued, Refused, Subject},
};
use dayfly_domain::Reason;

use crate::world::{BUNDLE, Job, OPERATOR, PLENTY, SHOP_URI, World, ask, form, handle, lease, reason, secret, token};

fn world(caps: Caps) -> World {
    World::with_caps(BUNDLE, caps, false)
}

/// The shipped rates.
fn rated() -> Caps {
    let usual = Caps::default();
    Caps { workload_rate_per_s: usual.workload_rate_per_s, workload_burst: usual.workload_burst, ..PLENTY }
}

/// The same bundle, with payments in production under the shop's owner.
fn with_production() -> String {
    let pay = "uri         = \"https://pay.example.org\"\nenvironment = \"staging\"";
    assert!(BUNDLE.contains(pay));
    let bundle = BUNDLE.replace(pay, "uri         = \"https://pay.example.org\"\nenvironment = \"production\"");
    // Targets are another's, as they may be; templates are the shop's.
    bundle.replace("owner     = \"team-pay\"", "owner     = \"team-shop\"")
}

/// All at once, each with evidence of its own; what became of each.
async fn at_once(world: &mut World, job: &Job, template: &str, count: usize) -> Vec<Result<Issued, Refused>> {
    let mut asking = Vec::new();
    for _ in 0..count {
        let (flow, evidence) = (world.flow.clone(), world.evidence(job));
        let subject = Subject::Evidence { token: secret(&evidence), control_s256: None };
        let exchange = Exchange { subject, ask: ask(template), possession: None, csr: None };
        asking.push(tokio::spawn(async move { flow.exchange(exchange).await }));
    }
    let mut became = Vec::new();
    for asked in asking {
        became.push(asked.await.unwrap());
    }
    became
}

fn issued(became: Vec<Result<Issued, Refused>>, otherwise: Reason) -> Vec<Issued> {
    let (issued, refused): (Vec<_>, Vec<_>) = became.into_iter().partition(Result::is_ok);
    assert!(refused.into_iter().all(|refused| reason(refused) == otherwise));
    issued.into_iter().map(Result::unwrap).collect()
}

#[tokio::test]
async fn garbage_in_a_victims_name_does_not_lock_it_out() {
    let mut world = world(rated());
    for number in 0..1_000 {
        let forged = world.sign_as_other(Job::shop().with("jti", format!("forged-{number}")));
        assert_eq!(reason(world.present(&forged, ask("deploy")).await), Reason::Signature);
    }
    let stranger = Job::shop().with("org", "evil");
    for _ in 0..300 {
        assert_eq!(reason(world.try_open(&stranger, ask("deploy")).await), Reason::Stranger);
    }
    world.open(&Job::shop(), "deploy").await;
}

#[tokio::test]
async fn an_old_token_or_handle_is_no_means_to_keep_its_workload_out() {
    let mut world = world(rated());
    let evidence = world.evidence(&Job::shop());
    let opened = world.present(&evidence, ask("deploy")).await.unwrap();
    world.end(&handle(&opened), opened.task).await.unwrap();
    for _ in 0..300 {
        assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Replayed);
        assert_eq!(reason(world.feed(&handle(&opened), None).await), Reason::Ended);
    }
    world.open(&Job::shop(), "pair").await;
}

#[tokio::test]
async fn refused_asks_cost_the_asker() {
    let mut world = world(rated());
    let evidence = world.evidence(&Job::shop());
    for _ in 0..256 {
        assert_eq!(reason(world.present(&evidence, ask("pay")).await), Reason::NoMatch);
    }
    let refused = world.present(&evidence, ask("deploy")).await.unwrap_err();
    assert_eq!((refused.reason, refused.retry_after_s), (Reason::Rate, Some(1)));
    assert!(refused.decision.is_none(), "it costs less than what it refuses");
    world.open(&Job::pay(), "pay").await;
    world.pass_s(1);
    for _ in 0..20 {
        assert_eq!(reason(world.try_open(&Job::shop(), ask("pay")).await), Reason::NoMatch);
    }
    assert_eq!(reason(world.try_open(&Job::shop(), ask("pay")).await), Reason::Rate);
    world.pass_s(1);
    world.present(&evidence, ask("deploy")).await.expect("the evidence is as it was");
}

#[tokio::test]
async fn unreviewed_code_does_not_use_up_the_rate_of_reviewed_code() {
    let mut world = world(rated());
    let fork = Job::shop().with("event", "fork");
    for _ in 0..256 {
        world.try_open(&fork, ask("deploy")).await.unwrap_err();
    }
    assert_eq!(reason(world.try_open(&fork, ask("deploy")).await), Reason::Rate);
    world.open(&Job::shop(), "deploy").await;
}

#[tokio::test]
async fn a_run_that_the_profile_refuses_is_charged_too() {
    let mut world = world(Caps { workload_burst: 3, workload_rate_per_s: 1, ..PLENTY });
    let target = Job::shop().with("event", "target");
    for _ in 0..3 {
        assert_eq!(reason(world.try_open(&target, ask("deploy")).await), Reason::Event);
    }
    assert_eq!(reason(world.try_open(&target, ask("deploy")).await), Reason::Rate);
}

#[tokio::test]
async fn a_storm_of_one_job_is_broken_and_opens_by_itself() {
    let mut world = world(Caps { storm_per_minute: 6, ..PLENTY });
    let job = Job::shop().run("7");
    let first = world.open(&job, "deploy").await;
    for _ in 0..5 {
        world.feed(&handle(&first), Some(0)).await.unwrap();
    }
    world.pass_s(20);
    let evidence = world.evidence(&job);
    let refused = world.present(&evidence, ask("deploy")).await.unwrap_err();
    assert_eq!((refused.reason, refused.retry_after_s), (Reason::Storm, Some(40)));
    assert_eq!(reason(world.feed(&handle(&first), None).await), Reason::Storm, "with a handle as without");
    world.open(&job, "pair").await;
    world.open(&Job::shop().run("8"), "deploy").await;
    world.pass_s(40);
    world.present(&evidence, ask("deploy")).await.expect("it opens by itself, and the evidence is as it was");
}

#[tokio::test]
async fn a_storm_of_refused_asks_is_one_whatever_they_name() {
    let mut world = world(Caps { storm_per_minute: 6, ..PLENTY });
    let evidence = world.evidence(&Job::shop());
    for number in 0..6 {
        assert_eq!(reason(world.present(&evidence, ask(&format!("made-up-{number}"))).await), Reason::NoMatch);
    }
    assert_eq!(reason(world.present(&evidence, ask("made-up-7")).await), Reason::Storm);
    world.present(&evidence, ask("deploy")).await.expect("another template, and nothing was used up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t_098_a_workload_cannot_pass_its_quota_however_it_asks() {
    let mut world = world(Caps { workload_leases: 10, ..PLENTY });
    let became = at_once(&mut world, &Job::shop(), "deploy", 64).await;
    let mine = issued(became, Reason::Quota);
    assert_eq!(mine.len(), 10);
    let evidence = world.evidence(&Job::shop());
    let refused = world.present(&evidence, ask("deploy")).await.unwrap_err();
    assert_eq!((refused.reason, refused.retry_after_s), (Reason::Quota, Some(10)));
    assert!(refused.hint.unwrap().contains("10 live leases") && refused.decision.is_some());
    assert_eq!(reason(world.feed(&handle(&mine[0]), None).await), Reason::Quota, "nor with a handle");
    world.open(&Job::pay(), "pay").await;
    // An end frees its place at once, however it comes.
    world.flow.end_lease(&OPERATOR, lease(&mine[0]), None).await.unwrap();
    world.present(&evidence, ask("deploy")).await.expect("the evidence is as it was");
    world.end(&handle(&mine[1]), mine[1].task).await.unwrap();
    world.flow.revoke_presented(&secret(&token(&mine[2]))).await.unwrap();
    let became = at_once(&mut world, &Job::shop(), "deploy", 8).await;
    assert_eq!(issued(became, Reason::Quota).len(), 2);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn what_expires_frees_its_place() {
    let mut world = world(Caps { workload_leases: 2, ..PLENTY });
    for _ in 0..2 {
        world.open(&Job::shop(), "deploy").await;
    }
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Quota);
    world.pass_s(15 * 60);
    world.upkeep.each_second();
    world.open(&Job::shop(), "deploy").await;
}

#[tokio::test]
async fn a_renewal_at_the_quota_goes_on() {
    let mut world = world(Caps { workload_leases: 2, ..PLENTY });
    let (first, second) = (world.open(&Job::shop(), "deploy").await, world.open(&Job::shop(), "deploy").await);
    for _ in 0..2 {
        world.feed(&handle(&first), Some(0)).await.unwrap();
        world.feed(&handle(&second), Some(30)).await.unwrap();
        world.pass_s(31);
    }
    assert_eq!(reason(world.feed(&handle(&first), None).await), Reason::Quota, "one more is one too many");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_flood_in_staging_leaves_production_its_share() {
    let caps = Caps { owner_leases: 16, production_reserve_percent: 25, ..PLENTY };
    let mut world = World::with_caps(&with_production(), caps, false);
    let flood = at_once(&mut world, &Job::shop(), "deploy", 32).await;
    assert_eq!(issued(flood, Reason::Quota).len(), 12);
    let refused = world.try_open(&Job::shop(), ask("deploy")).await.unwrap_err();
    assert!(refused.hint.unwrap().contains("owner `team-shop` has 12 live leases outside of production"));
    let production = at_once(&mut world, &Job::pay(), "pay", 8).await;
    assert_eq!(issued(production, Reason::Quota).len(), 4, "its share was kept");
}

#[tokio::test]
async fn a_restart_counts_what_lives() {
    let mut world = World::with_caps(BUNDLE, Caps { workload_leases: 3, ..PLENTY }, true);
    let first = world.open(&Job::shop(), "deploy").await;
    world.open(&Job::shop(), "deploy").await;
    let third = world.open(&Job::shop(), "deploy").await;
    world.end(&handle(&third), third.task).await.unwrap();
    world.restart().await;
    world.open(&Job::shop(), "deploy").await;
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Quota);
    world.end(&handle(&first), first.task).await.unwrap();
    world.open(&Job::shop(), "deploy").await;
}

#[tokio::test]
async fn a_refusal_for_too_much_says_when_to_come_again() {
    let mut world = world(Caps { workload_leases: 1, workload_burst: 2, workload_rate_per_s: 1, ..PLENTY });
    world.open(&Job::shop(), "deploy").await;
    let evidence = world.evidence(&Job::shop());
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ("subject_token", evidence.as_str()),
        ("scope", "deploy"),
        ("resource", SHOP_URI),
    ];
    for (code, again, decided) in [("E-QUOTA", "10", true), ("E-RATE", "1", false)] {
        let answer = world.call(form("/oauth2/token", None, &fields)).await;
        let told = answer.json();
        assert_eq!((answer.status, answer.head("retry-after")), (429, again), "{told}");
        assert_eq!((&told["error"], &told["reason"]), (&"temporarily_unavailable".into(), &code.into()));
        assert_eq!(told["decision_id"].is_string(), decided, "{told}");
        assert_eq!(answer.head("cache-control"), "no-store");
    }
}
