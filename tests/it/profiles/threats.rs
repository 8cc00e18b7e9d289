//! Section D: trust in continuous integration confused, as requests to a running broker.

use dayfly_domain::Reason;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Change, PLATFORMS, Provider, story::load};
use crate::world::{BUNDLE, Job, World, ask, reason};

const OWNER: &str = "/repository_owner_id";
const REPOSITORY: &str = "/repository_id";
/// What someone may put before or after a value that a row or a pin names.
const AFFIXES: [&str; 16] =
    ["x", "0", "^", "$", "|", "|.*", ".*", "*", "?", "/", ":", "\n", " ", "%2f", "\u{200b}", "\u{0}"];

/// Who had the names before, or takes them next: the same words, other ids.
#[tokio::test]
async fn t_061_a_name_that_was_taken_again_is_someone_else() {
    let mut github = Provider::of("github");
    for (file, sub) in [
        ("environment.json", "repo:octo-org/octo-repo:environment:prod"),
        ("immutable.json", "repo:octo-org@65/octo-repo@74:environment:prod"),
    ] {
        assert_eq!(github.claims(file)["sub"], sub);
        let taken = Change::set(OWNER, "66").and(REPOSITORY, "75");
        github.refused(file, &taken, "E-STRANGER", "owner and repository recycled").await;
        github.refused(file, &Change::set(OWNER, "66"), "E-STRANGER", "owner recycled").await;
        github.refused(file, &Change::set(REPOSITORY, "75"), "E-NOMATCH", "repository recycled").await;
        // A name that is written like an owner with an id, and the other way round.
        for sub in [
            "repo:octo-org@65/octo-repo@74:environment:prod",
            "repo:octo-org@6/octo-repo@74:environment:prod",
            "repo:octo-org/octo-repo@74:environment:prod",
            "repo:octo-org/octo-repo:environment:prod",
        ] {
            let change = Change::set("/sub", sub).and(OWNER, "66").and("/repository", "octo-org@65/octo-repo@74");
            github.refused(file, &change, "E-STRANGER", sub).await;
            let change = Change::set("/sub", sub).and(REPOSITORY, "75");
            github.refused(file, &change, "E-NOMATCH", sub).await;
        }
        // A repository that was renamed is the one it was.
        let renamed = Change::set("/repository", "octo-inc/other").and("/repository_owner", "octo-inc");
        assert!(github.present(file, &renamed.and("/sub", "anything at all"), "deploy").await.is_ok());
    }
}

#[tokio::test]
async fn t_061_a_principal_of_names() {
    let profile = "[profile.x]\nalgs = [\"ES256\"]\nprincipal = [\"team\"]\n[profile.x.claims]\n\
        id = { at = \"/id\", type = \"string\" }\nteam = { at = \"/team\", type = \"string\", id = \"id\" }\n";
    let said = problems(&format!("{BUNDLE}\n{profile}"));
    assert!(said.contains("profile.x.principal: `team` can be taken by someone else"), "{said}");
}

/// Everything that is wrong with a bundle.
fn problems(text: &str) -> String {
    let problems = load(text).expect_err("this bundle must not load");
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Behind these URLs anyone can be a customer.
#[test]
fn t_062_a_platform_that_many_share_must_be_pinned() {
    for (platform, url, pin) in [
        ("github", "", "repository_owner_id"),
        ("github", "https://token.actions.githubusercontent.com/octocat-inc", "enterprise_id"),
        ("gitlab", "", "namespace_id"),
        ("buildkite", "", "organization_id"),
        ("circleci", "", "org_id"),
        ("terraform", "", "organization_id"),
        ("terraform", "https://app.eu.terraform.io", "organization_id"),
        ("google", "", "project_number"),
        ("bitbucket", "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc", "workspace_uuid"),
    ] {
        let url = if url.is_empty() { String::new() } else { format!("url = \"{url}\"\n") };
        let issuer = format!("\n[issuer.shared]\nprofile = \"{platform}\"\nowner = \"team-shop\"\n{url}");
        let said = problems(&format!("{BUNDLE}{issuer}"));
        assert!(said.contains("issuer.shared.pin") && said.contains(pin), "{platform}: {said}");
        // A pin of a name is no pin.
        let bundle = Provider::of(platform).bundle();
        for name in bundle.profiles[platform].claims.iter().filter(|(_, rule)| rule.mutable).map(|(name, _)| name) {
            let said = problems(&format!("{BUNDLE}{issuer}pin = {{ {name} = \"acme\" }}\n"));
            assert!(said.contains("issuer.shared.pin"), "{platform}.{name}: {said}");
        }
    }
}

/// Another profile reads the same tokens, without the platform's pin and without what it refuses.
#[test]
fn t_062_a_shared_platform_under_another_profile() {
    const OWN: &str = "\n[profile.mine]\nalgs = [\"RS256\"]\nprincipal = [\"sub\"]\n\
        claims.sub = { at = \"/sub\", type = \"string\" }\n";
    for (platform, url) in [
        ("github", "https://token.actions.githubusercontent.com"),
        ("github", "https://token.actions.githubusercontent.com/octocat-inc"),
        ("gitlab", "https://gitlab.com"),
        ("buildkite", "https://agent.buildkite.com"),
        ("circleci", "https://oidc.circleci.com"),
        ("terraform", "https://app.eu.terraform.io"),
        ("google", "https://accounts.google.com"),
        ("bitbucket", "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc"),
    ] {
        for (other, rest) in [("oidc", ""), ("mine", ""), ("gitlab", ""), ("oidc", "kind = \"verifier\"\n")] {
            if other == platform {
                continue;
            }
            let issuer =
                format!("[issuer.shared]\nprofile = \"{other}\"\nowner = \"team-shop\"\nurl = \"{url}\"\n{rest}");
            let said = problems(&format!("{BUNDLE}{OWN}{issuer}"));
            let line = said.lines().find(|line| line.contains(&format!("where profile `{platform}` has issuers")));
            assert!(line.is_some_and(|line| line.contains("issuer.shared.url")), "{platform} as {other}: {said}");
            assert!(said.contains(&format!("use profile `{platform}`")), "{said}");
        }
    }
    // A place of one's own is nobody else's.
    let own = "[issuer.own]\nprofile = \"oidc\"\nowner = \"team-shop\"\n\
        url = \"https://oidc.circleci.com/org/6bfbe4d0-1f4c-4b1a-9a3e-2f7f2f0e9c11\"\n";
    load(&format!("{BUNDLE}\n{own}")).unwrap();
}

#[tokio::test]
async fn t_062_a_genuine_token_of_a_stranger_opens_nothing() {
    for (platform, file, tenant) in [
        ("github", "immutable.json", OWNER),
        ("gitlab", "main.json", "/namespace_id"),
        ("buildkite", "requested.json", "/organization_id"),
        ("circleci", "root.json", "/oidc.circleci.com~1org-id"),
        ("terraform", "apply.json", "/terraform_organization_id"),
        ("bitbucket", "deployment.json", "/workspaceUuid"),
        ("google", "machine.json", "/sub"),
    ] {
        let mut provider = Provider::of(platform);
        for stranger in ["0", "1", "*", "99999999999", "{0}"] {
            provider.refused(file, &Change::set(tenant, stranger), "E-STRANGER", stranger).await;
        }
        provider.refused(file, &Change::without(tenant), "E-STRANGER", "says not whose it is").await;
    }
}

/// There are no patterns to get wrong: a value is equal or it is another.
#[tokio::test]
async fn t_063_nothing_matches_with_something_before_or_after_it() {
    for platform in PLATFORMS {
        let mut provider = Provider::of(platform);
        let bundle = provider.bundle();
        let permit = provider.story.permit.iter().find(|permit| permit.is_plain()).unwrap();
        let file = permit.file.clone();
        let url = provider.claims(&file)["iss"].as_str().unwrap().to_owned();
        let issuer = bundle.issuers.values().find(|issuer| *issuer.url == *url).unwrap();
        let row = bundle.templates["deploy"].rows.iter().find(|row| row.issuer == issuer.name).unwrap();
        for name in row.claims.keys() {
            let at = &issuer.claims[name].at;
            let payload = Value::Object(provider.claims(&file).clone());
            let Some(Value::String(value)) = payload.pointer(at) else { continue };
            for affix in AFFIXES {
                for other in [format!("{affix}{value}"), format!("{value}{affix}")] {
                    let answer = provider.present(&file, &Change::set(at, other.clone()), "deploy").await;
                    let said = answer.map(|_| "permitted").map_err(|refused| refused.reason);
                    let refused = [Reason::NoMatch, Reason::Claim, Reason::Stranger, Reason::Event].map(Err);
                    assert!(refused.contains(&said), "{platform}.{name} = {other:?}: {said:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn t_063_what_looks_like_a_pattern_is_a_value() {
    for pattern in ["^push|evil$", "pu.*", "pu?h", "*", "%", "push|tag", "(?i)PUSH", "push\\z"] {
        let text = BUNDLE.replacen(
            "claims = { sub = \"shop\"",
            &format!("claims = {{ sub = \"shop\", event = '{pattern}'"),
            1,
        );
        assert_ne!(text, BUNDLE);
        let mut world = World::of(&text);
        for event in ["push", "evil", "PUSH", "push-evil"] {
            let answer = world.try_open(&Job::shop().with("event", event), ask("deploy")).await;
            assert_eq!(reason(answer), Reason::NoMatch, "{pattern} against {event}");
        }
        let itself = world.try_open(&Job::shop().with("event", pattern), ask("deploy")).await;
        assert!(itself.is_ok(), "`{pattern}` is a value like any other");
    }
    // Of what names the workload, such a value can never be: the row does not load.
    let text = BUNDLE.replacen("claims = { sub = \"shop\"", "claims = { sub = 'sh.*'", 1);
    assert!(
        load(&text).is_err_and(|problems| problems.iter().any(|problem| problem.to_string().contains("never-matches")))
    );
}

#[test]
fn t_063_and_t_046_an_issuers_url_has_nothing_before_or_after_it() {
    let bundle = load(BUNDLE).unwrap();
    proptest!(|(before in "\\PC{1,12}", after in "\\PC{1,12}")| {
        for (profile, url) in [
            ("buildkite", "https://agent.buildkite.com"),
            ("google", "https://accounts.google.com"),
            ("aws", "https://abc123-def456.tokens.sts.global.api.aws"),
            ("azure", "https://sts.windows.net/0e3e2e88-8caf-41ca-b4da-e3b33b6c52ec/"),
            ("bitbucket", "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc"),
        ] {
            let profile = &bundle.profiles[profile];
            prop_assert!(profile.is_at(url));
            let put_before = format!("{before}{url}");
            prop_assert!(!profile.is_at(&put_before));
            let put_after = format!("{url}{after}");
            prop_assert!(!profile.is_at(&put_after));
            let put_inside = url.replacen("https://", &format!("https://{before}/"), 1);
            prop_assert!(!profile.is_at(&put_inside));
        }
    });
}

/// Whose code runs is decided by the event: code that nobody reviewed needs a row of its own, and
/// code of a stranger with the target's rights is refused whatever the row.
#[tokio::test]
async fn t_064_events_that_run_a_strangers_code() {
    let mut github = Provider::of("github");
    let at = |event: &str| Change::set("/event_name", event);
    for event in ["pull_request_target", "workflow_run"] {
        for template in ["deploy", "look"] {
            let answer = github.present("immutable.json", &at(event), template).await;
            assert_eq!(reason(answer), Reason::Event, "{event} on {template}");
        }
    }
    for event in ["pull_request", "pull_request_review", "pull_request_review_comment"] {
        github.refused("immutable.json", &at(event), "E-NOMATCH", event).await;
        let seen = github.present("immutable.json", &at(event), "look").await;
        assert!(seen.is_ok(), "{event} on a row for unreviewed code: {seen:?}");
    }
    for event in ["push", "schedule", "workflow_dispatch", "release", "deployment", "merge_group"] {
        let answer = github.present("immutable.json", &at(event), "deploy").await;
        assert!(answer.is_ok(), "{event}: {answer:?}");
    }
    for event in ["", " ", "PULL_REQUEST\u{0}"] {
        let said = github.present("immutable.json", &at(event), "deploy").await.map(|_| ()).map_err(|no| no.reason);
        assert!(event.trim().len() > 1 || said == Err(Reason::Claim), "{event:?}: {said:?}");
    }
    github.refused("immutable.json", &Change::without("/event_name"), "E-CLAIM", "no event").await;
}

/// A value made of two claims is never cut in two again.
#[tokio::test]
async fn t_066_a_subject_is_never_taken_apart() {
    let mut github = Provider::of("github");
    for environment in [
        "prod:ref:refs/heads/main",
        "prod/x",
        "x:environment:prod",
        "prod%3Ax",
        "Prod",
        "prod ",
        "pro*",
        "environment:prod",
    ] {
        let sub = format!("repo:octo-org/octo-repo:environment:{environment}");
        let change = Change::set("/environment", environment).and("/sub", sub);
        github.refused("environment.json", &change, "E-NOMATCH", environment).await;
    }
    // The subject says all that the row wants, the claims do not.
    let said = Change::set("/sub", "repo:octo-org/octo-repo:ref:refs/heads/main:environment:prod");
    for (place, value) in [("/ref", "refs/heads/x"), ("/environment", "test")] {
        github.refused("environment.json", &said.clone().and(place, value), "E-NOMATCH", place).await;
    }
    let without = Change { without: vec!["/environment".into()], ..said };
    github.refused("environment.json", &without, "E-NOMATCH", "no environment").await;
    // And the other way round: what the subject says is not asked for.
    for sub in ["x", "repo:evil/evil:pull_request"] {
        assert!(github.present("environment.json", &Change::set("/sub", sub), "deploy").await.is_ok(), "{sub}");
    }
}

/// A row may name the workflow that runs and its very content; neither speaks for the caller.
#[tokio::test]
async fn t_067_a_workflow_that_others_may_call_is_not_the_caller() {
    const OURS: &str = "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main";
    const CONTENT: &str = "6f2a0c9d1b7e4f5a8c3d2e1f0a9b8c7d6e5f4a3b";
    let row = |claims: &str| ("ref           = \"refs/heads/main\"\nenvironment   = \"prod\"", claims.to_owned());
    let (from, to) = row(&format!("job_workflow_ref = \"{OURS}\"\njob_workflow_sha = \"{CONTENT}\""));
    let mut github = Provider::edited("github", from, &to);
    let genuine = Change::set("/job_workflow_ref", OURS).and("/job_workflow_sha", CONTENT);
    assert!(github.present("immutable.json", &genuine, "deploy").await.is_ok());
    let stranger = genuine.clone().and(OWNER, "66").and(REPOSITORY, "75");
    github.refused("immutable.json", &stranger, "E-STRANGER", "a stranger calls our workflow").await;
    let neighbour = genuine.clone().and(REPOSITORY, "75");
    github.refused("immutable.json", &neighbour, "E-NOMATCH", "another repository of ours calls it").await;
    let moved = genuine.clone().and("/job_workflow_sha", "0000000000000000000000000000000000000000");
    github.refused("immutable.json", &moved, "E-NOMATCH", "its branch has moved").await;
    for other in ["refs/heads/x", "refs/tags/v1", "refs/pull/7/merge"] {
        let change = genuine.clone().and("/job_workflow_ref", OURS.replace("refs/heads/main", other));
        github.refused("immutable.json", &change, "E-NOMATCH", other).await;
    }
    let confused = genuine.and("/workflow_ref", OURS).and("/job_workflow_ref", "octo-org/octo-repo/.github/x.yml@x");
    github.refused("immutable.json", &confused, "E-NOMATCH", "the caller's file in place of the called").await;
}

#[tokio::test]
async fn t_068_a_project_is_its_id_and_a_fork_is_not_the_project() {
    let protected = "project_id = \"20\"\nref_protected = true\nref_path = \"refs/heads/main\"";
    let mut gitlab = Provider::edited("gitlab", "project_id = \"20\"", protected);
    assert!(gitlab.present("main.json", &Change::default(), "deploy").await.is_ok());
    gitlab.refused("fork.json", &Change::default(), "E-STRANGER", "a fork's merge request").await;
    let inside = Change::set("/namespace_id", "72").and("/project_id", "913");
    gitlab.refused("fork.json", &inside, "E-EVENT", "a fork within the group").await;
    let open = Change::set("/ref_protected", "false");
    gitlab.refused("main.json", &open, "E-NOMATCH", "the branch is not protected any more").await;
    let tag = Change::set("/ref_path", "refs/tags/main").and("/ref_type", "tag");
    gitlab.refused("main.json", &tag, "E-NOMATCH", "a tag named like the branch").await;
    let moved = Change::set("/project_id", "21").and("/job_project_id", "21");
    gitlab.refused("main.json", &moved, "E-NOMATCH", "another project took the path").await;
    for claim in ["user_login", "user_email", "sub", "ci_config_ref_uri"] {
        let issuer =
            "\n[issuer.gitlab]\nprofile = \"gitlab\"\nowner = \"team-shop\"\npin = { namespace_id = \"72\" }\n";
        let row = "\n[[task.deploy.allow]]\nid = \"x\"\nissuer = \"gitlab\"\n";
        let said = problems(&format!("{BUNDLE}{issuer}{row}claims = {{ project_id = \"20\", {claim} = \"x\" }}\n"));
        assert!(said.contains(claim) && said.contains("is not a declared claim"), "{said}");
    }
}

/// A plan runs the code of whoever proposes a change.
#[tokio::test]
async fn t_069_a_plan_does_not_get_what_an_apply_gets() {
    let mut terraform = Provider::edited("terraform", "= \"apply\"", "= [\"plan\", \"apply\"]");
    assert!(terraform.present("apply.json", &Change::default(), "deploy").await.is_ok());
    terraform.refused("plan.json", &Change::default(), "E-NOMATCH", "named by the row, and still a plan").await;
    let dressed = Change::set("/sub", "organization:my-org:project:p:workspace:w:run_phase:apply");
    terraform.refused("plan.json", &dressed, "E-NOMATCH", "`sub` says apply").await;
    assert!(terraform.present("plan.json", &Change::default(), "look").await.is_ok());
    for phase in ["Apply", "APPLY", "plan:apply", "apply ", "*", "run_phase:*"] {
        let change = Change::set("/terraform_run_phase", phase);
        terraform.refused("apply.json", &change, "E-EVENT", phase).await;
    }
    let nameless = Change::without("/terraform_run_phase");
    terraform.refused("apply.json", &nameless, "E-CLAIM", "no phase").await;
}

#[tokio::test]
async fn t_070_the_same_service_account_made_again_is_another() {
    let mut cluster = Provider::of("kubernetes");
    let uid = "/kubernetes.io/serviceaccount/uid";
    assert!(cluster.present("pod.json", &Change::default(), "deploy").await.is_ok());
    let again = Change::set(uid, "0ecb5560-7d43-4883-ae85-d07cf635d2d2");
    cluster.refused("pod.json", &again, "E-NOMATCH", "the same names, a new uid").await;
    cluster.refused("pod.json", &Change::without(uid), "E-CLAIM", "names only").await;
    for pod in ["/kubernetes.io/pod", "/kubernetes.io/pod/uid"] {
        cluster.refused("pod.json", &Change::without(pod), "E-CLAIM", "bound to no pod").await;
    }
    // The same account in another pod is the same workload, and another job.
    let pod = Change::set("/kubernetes.io/pod/uid", "90451169-29cb-4e2d-8ee8-4c1e2c293a3c");
    let issued = cluster.present("pod.json", &pod, "deploy").await.unwrap();
    let task = cluster.world.flow.task(&crate::world::OPERATOR, issued.task).await.unwrap().row;
    assert_eq!(task.job.unwrap().to_string(), "90451169-29cb-4e2d-8ee8-4c1e2c293a3c");
}

#[tokio::test]
async fn t_046_an_issuer_that_only_looks_like_ours() {
    let mut cluster = Provider::of("kubernetes");
    let ours = "https://oidc.eks.us-west-2.amazonaws.com/id/EXAMPLED539D4633E53DE1B716D3041E";
    for other in [
        format!("https://evil.example/?x={ours}"),
        format!("https://evil.example/{ours}"),
        format!("https://evil.example#{ours}"),
        format!("{ours}/"),
        format!("{ours}?"),
        format!("{ours}/.."),
        ours.replace("us-west-2", "us-west-1"),
        ours.replace("us-west-2", "us-west-2.evil.example"),
        ours.replace("amazonaws.com", "amazonaws.com.evil.example"),
        ours.replace("EXAMPLE", "example"),
        ours.replace("https", "http"),
    ] {
        let reason = cluster.present("eks.json", &Change::set("/iss", other.clone()), "deploy").await;
        assert_eq!(reason.map(|_| ()).map_err(|refused| refused.reason), Err(Reason::Issuer), "{other}");
    }
    for (platform, pin, url) in [
        ("github", "repository_owner_id = \"65\"", "https://token.actions.githubusercontent.com.evil.example"),
        ("github", "repository_owner_id = \"65\"", "https://evil.example/?x=/_services/token"),
        ("github", "repository_owner_id = \"65\"", "https://token.actions.evil.example/.ghe.com"),
        ("circleci", "org_id = \"x\"", "https://oidc.circleci.com/org/x"),
        ("buildkite", "organization_id = \"x\"", "https://agent.buildkite.com/"),
        ("google", "sub = \"1\"", "accounts.google.com"),
        ("azure", "oid = \"x\"", "https://sts.windows.net/common/"),
        ("azure", "oid = \"x\"", "https://login.microsoftonline.com/organizations/v2.0"),
        ("aws", "sub = \"x\"", "https://a.b.tokens.sts.global.api.aws"),
        ("kubernetes", "namespace = \"x\"", "https://oidc.eks.a/.amazonaws.com/id/A"),
    ] {
        let issuer =
            format!("[issuer.x]\nprofile = \"{platform}\"\nowner = \"team-shop\"\nurl = \"{url}\"\npin = {{ {pin} }}");
        let said = problems(&format!("{BUNDLE}\n{issuer}\n"));
        assert!(said.contains("issuer.x.url"), "{platform} at {url}: {said}");
    }
}

/// Two names that look alike, or that one system takes for one and the next for two.
#[test]
fn t_036_a_host_has_one_spelling() {
    for host in ["xn--example-.org", "XN--mller-kva.de", "xn--a.org", "xn--mller-KVA.de", "xn--.org", "m\u{fc}ller.de"]
    {
        let issuer = format!("[issuer.x]\nprofile = \"oidc\"\nowner = \"team-shop\"\nurl = \"https://{host}\"\n");
        let said = problems(&format!("{BUNDLE}\n{issuer}"));
        assert!(said.contains("issuer.x.url"), "{host}: {said}");
        let target = format!(
            "[target.x]\nuri = \"https://{host}\"\nenvironment = \"staging\"\nowner = \"team-shop\"\nbinding = \"bearer\"\n\
             verifies = \"exp_only\"\nactions = [\"a\"]\n"
        );
        let said = problems(&format!("{BUNDLE}\n{target}"));
        assert!(said.contains("target.x.uri"), "{host}: {said}");
    }
}

/// An address is a value like any other: equal, or another.
#[tokio::test]
async fn t_041_an_address_is_compared_and_never_parsed() {
    let ours = "837509470220-compute@developer.gserviceaccount.com";
    let from = "[row]\nsub = \"100368210816668891989\"";
    let mut google = Provider::edited("google", from, &format!("{from}\nemail = \"{ours}\""));
    assert!(google.present("account.json", &Change::default(), "deploy").await.is_ok());
    for other in [
        format!("{ours}@evil.example"),
        format!("x@evil.example,{ours}"),
        format!("\"{ours}\"@evil.example"),
        ours.replace('.', "\u{3002}"),
        ours.replace('e', "\u{435}"),
        ours.replace('@', "\u{ff20}"),
        ours.to_uppercase(),
        format!("{ours} "),
        format!("{ours}."),
        format!("<{ours}>"),
    ] {
        google.refused("account.json", &Change::set("/email", other.clone()), "E-NOMATCH", &other).await;
    }
}

/// Case is folded where a profile says so, in ASCII only: a letter that Unicode folds into ASCII is
/// another name.
#[tokio::test]
async fn t_041_a_folded_claim_is_ascii() {
    let mut azure = Provider::of("azure");
    let path = azure.claims("v1.json")["xms_mirid"].as_str().unwrap().to_owned();
    for same in [path.to_uppercase(), path.to_lowercase(), path.replace("resourcegroups", "ResourceGroups")] {
        assert!(azure.present("v1.json", &Change::set("/xms_mirid", same.clone()), "deploy").await.is_ok(), "{same}");
    }
    for other in
        [path.replace('s', "\u{17f}"), path.replace('k', "\u{212a}") + "\u{212a}", path.replace('i', "\u{131}")]
    {
        azure.refused("v1.json", &Change::set("/xms_mirid", other.clone()), "E-CLAIM", &other).await;
    }
    let issuer = "[issuer.x]\nprofile = \"azure\"\nowner = \"team-shop\"\n\
        url = \"https://sts.windows.net/0e3e2e88-8caf-41ca-b4da-e3b33b6c52ec/\"\npin = { xms_mirid = \"/\u{212a}\" }\n";
    let said = problems(&format!("{BUNDLE}\n{issuer}"));
    assert!(said.contains("issuer.x.pin.xms_mirid") && said.contains("ASCII"), "{said}");
}

/// A name has one spelling, so that none folds or composes into another.
#[tokio::test]
async fn t_042_names_that_would_fold_into_another() {
    let names = [
        "Root",
        "ROOT",
        "r\u{ff4f}\u{ff4f}t",
        "\u{ff52}oot",
        "root ",
        " root",
        "root.",
        "ro\u{f6}t",
        "roo\u{301}t",
        "r\u{43e}ot",
    ];
    for name in names {
        for table in ["owner", "issuer", "target", "task", "profile"] {
            let said = toml::from_str::<dayfly_domain::bundle::tables::File>(&format!("[{table}.'{name}']\n"));
            let said = said.expect_err("no name").to_string();
            assert!(said.contains("is not a name"), "{table}.{name}: {said}");
        }
    }
    let mut world = World::new();
    for template in
        ["Deploy", "DEPLOY", "deploy ", " deploy", "deploy.", "d\u{435}ploy", "\u{ff44}eploy", "deplo\u{79}\u{301}"]
    {
        let answer = world.try_open(&Job::shop(), ask(template)).await;
        assert_eq!(reason(answer), Reason::NoMatch, "{template}");
    }
    let shouting = world.sign(Job::shop().with("sub", "SHOP").with("jti", json!("1")));
    assert_eq!(reason(world.present(&shouting, ask("deploy")).await), Reason::NoMatch);
}
