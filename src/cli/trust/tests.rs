//! Rows added to a bundle in a folder: what is proposed, what is refused, and that nothing is written
//! without a yes.

use std::path::Path;

use clap::Parser;

use super::{facts::Facts, *};
use crate::{
    cli::{
        args::{Cli, TrustVerb, Verb},
        session::test_session,
    },
    flow::Folder,
    policy::BundleEnv,
};

const SHOP: &str = include_str!("../../../policies/shop.toml");
const WEB: &str = "github acme/web --owner-id 0004411 --repository-id 0088121";

fn folder() -> tempfile::TempDir {
    dayfly_verifier::crypto::init().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("shop.toml"), SHOP).unwrap();
    dir
}

fn args(line: &str, dir: &Path) -> TrustAddArgs {
    let words = format!("dayfly trust add {line} --policies {}", dir.display());
    match Cli::try_parse_from(words.split_whitespace()).unwrap().verb {
        Verb::Trust(TrustVerb::Add(args)) => *args,
        other => panic!("{other:?}"),
    }
}

async fn run(line: &str, dir: &Path) -> Result<String, Failure> {
    let done = add(&args(line, dir), &test_session()).await;
    let text = std::fs::read_to_string(dir.join("shop.toml")).unwrap();
    done.map(|()| text)
}

/// The failure, and that the file is as it was.
async fn refused(line: &str, dir: &Path) -> Failure {
    let before = std::fs::read_to_string(dir.join("shop.toml")).unwrap();
    let failure = run(line, dir).await.unwrap_err();
    assert_eq!(std::fs::read_to_string(dir.join("shop.toml")).unwrap(), before, "{line}");
    failure
}

fn proposed(line: &str, dir: &Path, facts: impl FnOnce(&mut Facts)) -> Result<Proposal, Failure> {
    let env =
        BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: dayfly_domain::BindingKind::Dpop };
    let bundled = Bundled::read(Folder { path: dir.to_owned(), env })?;
    let args = args(line, dir);
    let mut found = facts::from(&args, None)?;
    facts(&mut found);
    propose(&bundled, &found, &args)
}

#[tokio::test]
async fn a_row_and_its_tests_are_added_and_all_else_stays() {
    let dir = folder();
    let line = format!("{WEB} --task deploy-prod --ref refs/heads/main --environment production --yes");
    let text = run(&line, dir.path()).await.unwrap();
    let row = "\n# acme/web: repository_id 0088121, repository_owner_id 0004411. The name may change hands, the ids never do.\n\
               [[task.deploy-prod.allow]]\nid     = \"web-production\"\nissuer = \"github\"\n\
               claims = { repository_id = \"0088121\", ref = \"refs/heads/main\", environment = \"production\" }\n";
    let at = "environment = \"production\" }\n\n[task.deploy-staging]";
    let with_row = SHOP.replace(at, &format!("environment = \"production\" }}\n{row}\n[task.deploy-staging]"));
    assert!(text.starts_with(&with_row), "{text}");
    let tests = &text[with_row.len()..];
    assert_eq!((tests.matches("\"permit\"").count(), tests.matches("\"deny\"").count()), (2, 5), "{tests}");
}

#[test]
fn what_is_said_of_a_row_is_true_of_its_template() {
    let dir = folder();
    let said = |task: &str| {
        let line = format!("{WEB} --task {task} --environment production --ref refs/heads/main");
        in_the_job(&proposed(&line, dir.path(), |_| ()).unwrap())
    };
    assert_eq!(said("deploy-prod"), "dayfly token --task deploy-prod --out token --dpop-key key.pem");
    assert_eq!(said("deploy-staging"), "dayfly token --task deploy-staging --out token");
    let ids = |line: &str| examples(&facts::from(&args(line, dir.path()), None).unwrap());
    assert_eq!(ids(&format!("{WEB} --task t")).len(), 2);
    assert_eq!(ids("github acme/web --owner-id 4411 --repository-id 88121 --task t"), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_written_without_a_yes() {
    let dir = folder();
    let line = format!("{WEB} --task deploy-prod --ref refs/heads/main --environment production");
    let failure = refused(&line, dir.path()).await;
    assert!(failure.exit() == 2 && failure.text("error").contains("--yes"), "{failure:?}");
    assert_eq!(run(&format!("{line} --dry-run"), dir.path()).await.unwrap(), SHOP);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn whoever_is_asked_has_seen_the_diff() {
    let dir = folder();
    let line = format!("{WEB} --task deploy-prod");
    for output in [Output::Json, Output::Jsonl, Output::Name] {
        let at_terminal = Session { output, no_input: false, ..test_session() };
        assert_eq!(diff_to(&args(&line, dir.path()), &at_terminal), Some(Stream::Stderr), "{output:?}");
        let silent = format!("{line} --yes");
        assert_eq!(diff_to(&args(&silent, dir.path()), &at_terminal), None, "{output:?}: nobody is asked");
    }
    assert_eq!(diff_to(&args(&line, dir.path()), &test_session()), Some(Stream::Stdout));
}

#[tokio::test]
async fn the_same_row_again_is_refused_with_what_is_there() {
    let dir = folder();
    let line = format!("{WEB} --task deploy-prod --environment production --yes");
    run(&line, dir.path()).await.unwrap();
    let again = refused(&line, dir.path()).await;
    assert!(again.parts().what.contains("`web-production` of `deploy-prod` says the same already"), "{again:?}");
    let narrower = refused(&format!("{line} --ref refs/heads/main"), dir.path()).await;
    assert!(narrower.parts().what.contains("`web-production` of `deploy-prod` lets this in already"), "{narrower:?}");
    let other = format!("{WEB} --task deploy-prod --environment eu --row shop-main --yes");
    let taken = refused(&other, dir.path()).await;
    assert!(taken.exit() == 2 && taken.parts().what.contains("`shop-main` is there already"), "{taken:?}");
}

#[tokio::test]
async fn nothing_is_bound_to_a_name() {
    let dir = folder();
    let failure = refused("github acme/web --task deploy-prod --yes", dir.path()).await;
    insta::assert_snapshot!(failure.text("error"), @r"
    error: a row binds to ids, and `--owner-id` of `acme/web` is not given
      cause: a name can be renamed away and taken by someone else
      help: gh api repos/acme/web --jq '[.owner.id,.id]'
            then: --owner-id … --repository-id …
            or let this ask the platform's public API: --lookup
    ");
    let failure = refused("gitlab acme/sub/web --task deploy-prod --namespace-id 1 --yes", dir.path()).await;
    assert!(failure.text("error").contains("glab api projects/acme%2Fsub%2Fweb"), "{failure:?}");
}

#[tokio::test]
async fn what_was_typed_wrongly_is_said_and_nothing_is_changed() {
    let dir = folder();
    for (line, said) in [
        ("github acme/web/x --task deploy-prod", "expected OWNER/REPO"),
        ("github acme/w\u{1b}[2Jeb --task deploy-prod", "expected OWNER/REPO"),
        ("github acme/.. --task deploy-prod", "expected OWNER/REPO"),
        ("github acme/web --task deploy-prod --owner-id x", "not a number"),
        ("github acme/web --task deploy-prod --uid x", "says nothing of github"),
        ("kubernetes a/b --task deploy-prod --uid 1-2 --ref refs/heads/main", "says nothing of kubernetes"),
        (&format!("{WEB} --task deploy-prod --ref main"), "--ref refs/heads/main"),
        (&format!("{WEB} --task deploy-prod --ref refs/heads/*"), "no wildcards"),
        (&format!("{WEB} --task deploy-prod --review-by soon"), "not a date"),
        (&format!("{WEB} --task deploy-prod --review-by 1969-12-31"), "which is past"),
        (&format!("{WEB} --task deploy-prd"), "near it are `deploy-prod`"),
        (
            "github acme/web --task deploy-prod --owner-id 77 --repository-id 5",
            "is pinned to `repository_owner_id` 0004411",
        ),
        (&format!("{WEB} --task deploy-prod --issuer shop-cluster"), "its profile is `oidc`"),
        (&format!("{WEB} --task deploy-prod --owner nobody --environment x"), "there is no owner `nobody`"),
    ] {
        let failure = refused(&format!("{line} --yes"), dir.path()).await;
        assert!(failure.text("error").contains(said), "{line}: {}", failure.text("error"));
    }
}

#[tokio::test]
async fn a_row_that_a_forbid_makes_useless_is_not_written() {
    let dir = folder();
    let forbid =
        "@id(\"none\") @purpose(\"nobody\") forbid (principal, action == Dayfly::Action::\"run\", resource);\n";
    std::fs::write(dir.path().join("none.cedar"), forbid).unwrap();
    let bare = SHOP.split("[[test]]").next().unwrap();
    std::fs::write(dir.path().join("shop.toml"), bare).unwrap();
    let failure = refused(&format!("{WEB} --task deploy-prod --environment production --yes"), dir.path()).await;
    let causes = failure.parts().causes.join("\n");
    assert!(causes.contains("`web-production: a push`: expected permit by `web-production`"), "{causes}");
}

#[tokio::test]
async fn a_bundle_that_does_not_load_is_put_right_first() {
    let dir = folder();
    std::fs::write(dir.path().join("more.toml"), "colour = 1\n").unwrap();
    let failure = refused(&format!("{WEB} --task deploy-prod --yes"), dir.path()).await;
    assert!(failure.text("error").contains("put it right first"), "{failure:?}");
}

#[test]
fn a_test_that_another_row_answers_is_left_out_and_named() {
    let dir = folder();
    let wide = "\n[[task.deploy-staging.allow]]\nid = \"wide\"\nissuer = \"github\"\n\
                claims = { repository_id = \"0088121\", ref = \"refs/heads/not-this-one\" }\n";
    std::fs::write(dir.path().join("shop.toml"), format!("{SHOP}{wide}")).unwrap();
    let line = format!("{WEB} --task deploy-staging --ref refs/heads/main --environment staging");
    let proposal = proposed(&line, dir.path(), |_| ()).unwrap();
    assert_eq!(proposal.left_out, ["web-staging: another ref is refused"]);
    assert_eq!(proposal.tests.len(), 7);
}

#[test]
fn a_row_for_unreviewed_code_is_tested_as_one() {
    let dir = folder();
    // What unreviewed code may do at all is to read.
    let reading = SHOP.replace(
        "actions     = [\"deploy:create\", \"deploy:status\"]",
        "actions     = [\"deploy:create\", \"deploy:status\"]\nreads       = [\"deploy:create\", \"deploy:status\"]",
    );
    std::fs::write(dir.path().join("shop.toml"), reading).unwrap();
    let line = format!("{WEB} --task deploy-staging --environment staging");
    let untrusted = || proposed(&line, dir.path(), |facts| facts.untrusted = true);
    let proposal = untrusted().unwrap();
    assert!(proposal.after.contains("untrusted = true\n") && proposal.tests.len() == 7, "{}", proposal.after);
    assert!(!proposal.tests.iter().any(|name| name.contains("a pull request is")), "{:?}", proposal.tests);

    std::fs::write(dir.path().join("shop.toml"), proposed(&line, dir.path(), |_| ()).unwrap().after).unwrap();
    let failure = untrusted().unwrap_err();
    assert!(failure.text("error").contains("permits all that this one does"), "{failure:?}");
}

#[test]
fn every_platform_gives_a_row_that_passes_its_own_tests() {
    for (line, issuer) in [
        ("github acme/web --owner-id 0004411 --repository-id 5 --ref refs/heads/main", "github"),
        ("github acme/web --owner-id 0004411 --repository-id 5 --ref refs/heads/main --unprotected", "github"),
        ("github acme/web --owner-id 0004411 --repository-id 5 --environment production", "github"),
        ("gitlab acme/sub/web --namespace-id 7 --project-id 8 --ref refs/heads/main", "gitlab"),
        ("gitlab acme/web --namespace-id 7 --project-id 8 --environment production", "gitlab"),
        ("gitlab acme/web --namespace-id 7 --project-id 8 --issuer-url https://git.acme.example --issuer own", "own"),
        (
            "kubernetes shop/deployer --uid 6d1b2f3c-1111-4000-8000-9a0000000000 --issuer-url https://k8s.acme.example",
            "kubernetes",
        ),
    ] {
        let dir = folder();
        let proposal = proposed(&format!("{line} --task deploy-staging"), dir.path(), |_| ()).unwrap();
        assert_eq!((proposal.tests.len(), proposal.issuer.as_str()), (7, issuer), "{line}: {:?}", proposal.tests);
        assert_eq!(proposal.issuer_is_new, issuer != "github");
        std::fs::write(dir.path().join("shop.toml"), &proposal.after).unwrap();
        assert!(proposed(&format!("{line} --task deploy-staging"), dir.path(), |_| ()).is_err(), "{line}: twice");
    }
}

/// The help names the options, as the lint names the claims.
#[tokio::test]
async fn a_row_for_production_that_every_branch_could_use_is_not_written() {
    let dir = folder();
    let failure = refused(&format!("{WEB} --task deploy-prod --yes"), dir.path()).await;
    let text = failure.text("error");
    assert!(text.contains("reaches production") && text.contains("--environment production"), "{text}");
    let unguarded = format!("{WEB} --task deploy-prod --ref refs/heads/main --unprotected --yes");
    assert!(refused(&unguarded, dir.path()).await.text("error").contains("ref_protected = true"));
}

#[test]
fn a_ref_alone_is_wanted_protected() {
    let dir = folder();
    let row = |more: &str| {
        let line = format!("{WEB} --task deploy-staging --ref refs/heads/main{more}");
        let after = proposed(&line, dir.path(), |_| ()).unwrap().after;
        after.contains("ref = \"refs/heads/main\", ref_protected = true }")
    };
    assert!(row(""));
    assert!(!row(" --unprotected") && !row(" --environment production"));
}

#[test]
fn a_diff_cannot_paint_the_terminal() {
    assert_eq!(shown("+# a\u{1b}[2J\u{202e}é\t\\\r\n"), "+# a\\u{1b}[2J\\u{202e}é\t\\\n");
}
