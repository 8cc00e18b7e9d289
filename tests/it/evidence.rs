//! Law L9: evidence opens one task, once; used up by the commit that opens it and by nothing else.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    flow::{Exchange, Subject},
    policy::What,
};
use dayfly_domain::Reason;

use crate::world::{Job, World, ask, ask_on, client_handle, handle, reason, secret, token};

#[tokio::test]
async fn t_081_evidence_is_used_once() {
    let mut world = World::new();
    let evidence = world.evidence(&Job::shop());
    let first = world.present(&evidence, ask("deploy")).await.unwrap();
    let refused = world.present(&evidence, ask("deploy")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Replayed);
    assert!(refused.decision.is_some(), "a known workload's refusal can be looked up");
    assert_eq!(reason(world.present(&evidence, ask("pair")).await), Reason::Replayed, "whatever is asked");
    assert!(world.active(&token(&first)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn t_081_of_64_at_once_exactly_one_opens() {
    let mut world = World::on_file();
    let evidence = world.evidence(&Job::shop());
    let asking = (0..64).map(|_| {
        let (flow, token_text) = (world.flow.clone(), secret(&evidence));
        let exchange = Exchange {
            subject: Subject::Evidence { token: token_text, control_s256: None },
            ask: ask("deploy"),
            possession: None,
            csr: None,
        };
        tokio::spawn(async move { flow.exchange(exchange).await.map(|issued| token(&issued)) })
    });
    let asking: Vec<_> = asking.collect();
    let mut tokens = Vec::new();
    for asked in asking {
        match asked.await.unwrap() {
            Ok(token) => tokens.push(token),
            Err(refused) => assert_eq!(refused.reason, Reason::Replayed),
        }
    }
    assert_eq!(tokens.len(), 1);
    assert!(world.active(&tokens[0]).await);
    assert_eq!(world.verify().tasks, 1);
    assert!(world.verify().problems.is_empty());
}

#[tokio::test]
async fn t_081_a_restart_does_not_forget_what_was_used() {
    let mut world = World::on_file();
    let evidence = world.evidence(&Job::shop());
    let issued = world.present(&evidence, ask("deploy")).await.unwrap();
    world.end(&handle(&issued), issued.task).await.unwrap();
    world.restart().await;
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Replayed);
}

#[tokio::test]
async fn used_evidence_stays_used_after_its_task_and_after_memory_forgot_it() {
    let mut world = World::of(&crate::world::BUNDLE.replace("deadline  = \"1h\"", "deadline  = \"5s\""));
    let job = Job::shop();
    let evidence = world.evidence(&job);
    world.present(&evidence, ask("deploy")).await.unwrap();
    for passed in [6, 500, 93] {
        world.pass_s(passed);
        world.upkeep.each_second();
        assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Replayed);
    }
    world.pass_s(2);
    world.upkeep.each_second();
    assert_eq!(reason(world.present(&evidence, ask("deploy")).await), Reason::Expired);
}

#[tokio::test]
async fn a_denied_ask_does_not_use_evidence_up() {
    let mut world = World::new();
    let evidence = world.evidence(&Job::shop());
    let task_only = dayfly::policy::Ask { what: What::TaskOnly, ..ask("nothing") };
    for (bad, why) in [
        (ask("pay"), Reason::NoMatch),
        (ask("nothing"), Reason::NoMatch),
        (ask("ship"), Reason::Target),
        (ask_on("deploy", None, Some(&["deploy:undo"])), Reason::Details),
        (task_only, Reason::NoMatch),
    ] {
        assert_eq!(reason(world.present(&evidence, bad).await), why);
    }
    let (_, hash) = client_handle(1);
    world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    let second = world.evidence(&Job::shop());
    assert_eq!(reason(world.present_with(&second, Some(hash), ask("deploy")).await), Reason::HandleUsed);
    assert!(world.present(&second, ask("deploy")).await.is_ok(), "a refused commit uses nothing up either");
}

#[tokio::test]
async fn t_043_a_signature_twin_is_the_same_evidence() {
    let world = World::new();
    let evidence = world.sign(Job::shop());
    let twin = twin(&evidence);
    assert_ne!(evidence, twin);
    world.present(&evidence, ask("deploy")).await.unwrap();
    assert_eq!(reason(world.present(&twin, ask("deploy")).await), Reason::Replayed, "no `jti`: the signed bytes count");
    let again = world.sign(Job::shop().run("2"));
    assert!(world.present(&again, ask("deploy")).await.is_ok(), "other signed bytes are other evidence");
}

#[tokio::test]
async fn t_043_the_same_jti_in_another_token_is_the_same_evidence() {
    let world = World::new();
    let job = Job::shop().with("jti", "one");
    world.present(&world.sign(job.clone()), ask("deploy")).await.unwrap();
    world.pass_s(1);
    assert_eq!(reason(world.present(&world.sign(job.run("9")), ask("deploy")).await), Reason::Replayed);
}

/// The other valid ES256 signature over the same bytes: (r, n - s).
pub fn twin(token: &str) -> String {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad,
        0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = 0;
    for at in (0..32).rev() {
        let difference = i32::from(ORDER[at]) - i32::from(signature[32 + at]) - borrow;
        borrow = i32::from(difference < 0);
        signature[32 + at] = u8::try_from(difference + 256 * borrow).unwrap();
    }
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}
