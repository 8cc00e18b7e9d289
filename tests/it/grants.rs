//! Laws L3, L4 and L5: never more than asked, granted and permitted; never longer than any cap.

use std::collections::BTreeSet;

use dayfly::policy::{Ask, What};
use dayfly_domain::{Kind, Reason};
use proptest::prelude::*;

use crate::world::{BUNDLE, Job, SHOP_URI, STOCK_URI, World, ask, ask_on, handle, reason};

#[tokio::test]
async fn a_narrowed_ask_narrows_its_credential_and_not_the_task() {
    let mut world = World::new();
    let narrow = ask_on("deploy", None, Some(&["deploy:status"]));
    let issued = world.try_open(&Job::shop(), narrow).await.unwrap();
    assert_eq!(issued.credential.as_ref().unwrap().actions, ["deploy:status"]);
    let whole = world.feed(&handle(&issued), None).await.unwrap();
    assert_eq!(whole.credential.unwrap().actions, ["deploy:create", "deploy:status"]);
}

#[tokio::test]
async fn more_than_the_template_grants_is_refused_whole() {
    let mut world = World::new();
    for actions in [
        &["deploy:create", "deploy:undo"][..],
        &["deploy:*"],
        &[],
        &["deploy:status", "deploy:status"],
        &["Deploy:status"],
        &[""],
    ] {
        let refused = world.try_open(&Job::shop(), ask_on("deploy", None, Some(actions))).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Details, "{actions:?}");
        assert!(!format!("{refused:?}").contains("undo"), "what the template does not grant is not told");
    }
}

#[tokio::test]
async fn targets_are_listed_only_to_who_may_run_the_template() {
    let mut world = World::new();
    for uri in
        [None, Some("https://nowhere.example.org"), Some("https://pay.example.org"), Some("https://shop.example.org/")]
    {
        let refused = world.try_open(&Job::shop(), ask_on("ship", uri, None)).await.unwrap_err();
        assert_eq!(refused.reason, Reason::Target);
        let hint = refused.hint.unwrap();
        assert!(hint.contains(SHOP_URI) && hint.contains(STOCK_URI) && !hint.contains("pay"), "{hint}");
        let stranger = world.try_open(&Job::pay(), ask_on("ship", uri, None)).await.unwrap_err();
        assert_eq!((stranger.reason, stranger.hint), (Reason::NoMatch, None));
    }
    let issued = world.try_open(&Job::shop(), ask_on("ship", Some(STOCK_URI), None)).await.unwrap();
    assert_eq!(issued.credential.unwrap().actions, ["stock:read"]);
}

#[tokio::test]
async fn unreviewed_code_is_not_trusted_code() {
    let mut world = World::new();
    assert_eq!(reason(world.try_open(&Job::shop().with("event", "fork"), ask("deploy")).await), Reason::NoMatch);
    let refused = world.try_open(&Job::shop().with("event", "target"), ask("deploy")).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Event);
    assert!(refused.decision.is_some());
}

#[tokio::test]
async fn a_bound_target_gets_no_bearer_token() {
    let text = BUNDLE.replacen("binding     = \"bearer\"", "binding     = \"dpop\"", 1);
    let mut world = World::of(&text);
    assert_eq!(reason(world.try_open(&Job::shop(), ask("deploy")).await), Reason::Dpop);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn t_088_no_cap_is_exceeded(asked in prop::option::of(1u32..4000), target in 1i64..3000, row in 1i64..3000,
                                template in 1i64..3000, deadline in 1i64..3000, waited in 0i64..3000) {
        let row = row.min(template);
        let text = BUNDLE
            .replacen("[target.shop]", &format!("[target.shop]\nmax_ttl = \"{target}s\""), 1)
            .replacen("ttl       = \"15m\"\ndeadline  = \"1h\"", &format!("ttl = \"{template}s\"\ndeadline = \"{deadline}s\""), 1)
            .replacen("id     = \"shop-deploys\"", &format!("id = \"shop-deploys\"\nttl = \"{row}s\""), 1);
        runtime().block_on(async {
            let mut world = World::of(&text);
            let asked = Ask { ttl_s: asked, ..ask("deploy") };
            let issued = world.try_open(&Job::shop(), asked.clone()).await.unwrap();
            let longest = [asked.ttl_s.map_or(i64::MAX, i64::from), target, row, template].into_iter().min().unwrap();
            let first = issued.credential.as_ref().unwrap();
            prop_assert_eq!(i64::try_from(first.ttl_s).unwrap(), longest.min(deadline));
            prop_assert!(first.expires <= issued.deadline);
            world.pass_s(waited);
            let fed = world.feed_ask(&handle(&issued), None, asked).await;
            if waited >= deadline {
                prop_assert_eq!(reason(fed), Reason::Ended);
            } else {
                let further = fed.unwrap().credential.unwrap();
                prop_assert_eq!(i64::try_from(further.ttl_s).unwrap(), longest.min(deadline - waited));
                prop_assert!(further.expires <= issued.deadline);
            }
            Ok(())
        })?;
    }

    #[test]
    fn granted_is_a_subset_of_what_was_asked(picked in prop::collection::vec(0usize..5, 0..5)) {
        let all = ["deploy:create", "deploy:status", "deploy:undo", "pay:read", "tasks:end"];
        let granted: BTreeSet<&str> = ["deploy:create", "deploy:status"].into();
        let actions: Vec<String> = picked.iter().map(|at| all[*at].to_owned()).collect();
        let set: BTreeSet<&str> = picked.iter().map(|at| all[*at]).collect();
        runtime().block_on(async {
            let mut world = World::new();
            let what = What::Credential { kind: Kind::Jwt, resource: None, actions: Some(actions.clone()) };
            let outcome = world.try_open(&Job::shop(), Ask { what, ..ask("deploy") }).await;
            let good = !set.is_empty() && set.len() == actions.len() && set.is_subset(&granted);
            match outcome {
                Ok(issued) => {
                    prop_assert!(good);
                    let given = issued.credential.unwrap().actions;
                    prop_assert!(given.iter().map(String::as_str).eq(set));
                }
                Err(refused) => prop_assert_eq!((good, refused.reason), (false, Reason::Details)),
            }
            Ok(())
        })?;
    }
}
