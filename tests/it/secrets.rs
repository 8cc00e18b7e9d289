//! Law L8: tokens, handles and keys are in no `Debug` and in no file but where they belong.

use dayfly::flow::{Exchange, Subject};

use crate::world::{Job, OPERATOR, World, ask, client_handle, handle, secret, token};

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

#[tokio::test]
async fn the_store_keeps_neither_tokens_nor_handles() {
    let mut world = World::on_file();
    let (mine, hash) = client_handle(200);
    let evidence = world.evidence(&Job::shop().run("1"));
    let issued = world.present_with(&evidence, Some(hash), ask("deploy")).await.unwrap();
    let made = world.open(&Job::shop().run("2"), "deploy").await;
    let denied = world.evidence(&Job::shop());
    world.present(&denied, ask("pay")).await.unwrap_err();
    world.feed(&mine, Some(0)).await.unwrap();
    world.end(&mine, issued.task).await.unwrap();
    world.flow.revoke_presented(&secret(&token(&made))).await.unwrap();
    world.stop().await;
    let folder = world.file().parent().unwrap().to_owned();
    let mut looked_at = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        looked_at += bytes.len();
        for secret in [&token(&issued), &token(&made), &evidence, &denied, &mine, &handle(&made)] {
            assert!(!holds(&bytes, secret), "{}", path.display());
            let signature = secret.rsplit('.').next().unwrap().trim_start_matches("dtc_");
            assert!(signature.len() >= 43);
            assert!(!holds(&bytes, signature), "{}", path.display());
        }
    }
    assert!(looked_at > 10_000, "there was something to look at");
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let mut world = World::new();
    let (mine, hash) = client_handle(201);
    let evidence = world.evidence(&Job::shop());
    let by_evidence = Exchange {
        subject: Subject::Evidence { token: secret(&evidence), control_s256: Some(hash) },
        ask: ask("deploy"),
        possession: None,
        csr: None,
    };
    let by_handle = Exchange {
        subject: Subject::Handle { handle: secret(&mine), supersede_s: None },
        ask: ask(""),
        possession: None,
        csr: None,
    };
    let mut shown = format!("{by_evidence:?} {by_handle:?}");
    let issued = world.flow.exchange(by_evidence).await.unwrap();
    let made = world.open(&Job::shop(), "deploy").await;
    let refused = world.present(&evidence, ask("deploy")).await.unwrap_err();
    let introspected = world.introspect(&token(&issued)).await.unwrap();
    let task = world.flow.task(&OPERATOR, issued.task).await.unwrap();
    let ended = world.end(&mine, issued.task).await.unwrap();
    let caller = world.caller(&mine).await;
    shown += &format!("{issued:?} {made:?} {refused:?} {introspected:?} {task:?} {ended:?} {caller:?}");
    shown += &format!("{:?} {:?} {:?}", world.flow, world.upkeep, world.verify());
    for secret in [&evidence, &mine, &token(&issued), &token(&made), &handle(&made)] {
        assert!(!shown.contains(secret.as_str()));
    }
    assert!(shown.contains("[redacted]"));
}

#[tokio::test]
async fn a_refusal_never_echoes_what_was_presented() {
    let mut world = World::new();
    let evidence = world.evidence(&Job::shop().with("run", " "));
    let (unknown, _) = client_handle(202);
    let refused = [
        world.present(&evidence, ask("deploy")).await.unwrap_err(),
        world.present(&evidence, ask(&evidence)).await.unwrap_err(),
        world.feed(&unknown, None).await.unwrap_err(),
        world.feed_ask(&unknown, None, ask(&unknown)).await.unwrap_err(),
    ];
    for refused in refused {
        let text = format!("{refused:?}");
        assert!(!text.contains(&evidence) && !text.contains(&unknown), "{text}");
    }
}
