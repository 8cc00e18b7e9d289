//! Every provider is data: a profile, claim sets as its platform documents them, and a story of what
//! must come of them (`tests/corpus/claims`). One runner takes them all through a running broker.

mod derived;
mod page;
mod story;
mod threats;

pub use story::{Change, Provider, load, providers};

use std::{collections::BTreeSet, fs, path::Path};

use dayfly_domain::bundle::{Bundle, example_ids};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The stories of a provider, one test each, so that a failure names its platform.
macro_rules! platforms {
    ($($name:ident)+) => {
        const PLATFORMS: &[&str] = &[$(stringify!($name)),+];

        $(
            mod $name {
                use super::{Provider, derived};

                #[tokio::test]
                async fn genuine_evidence_is_permitted_and_the_rest_refused() {
                    Provider::of(stringify!($name)).tells_its_story().await;
                }

                #[tokio::test]
                async fn every_claim_of_the_profile_is_needed_as_it_is_declared() {
                    derived::refusals(&mut Provider::of(stringify!($name))).await;
                }
            }
        )+
    };
}

platforms! { aws azure bitbucket buildkite circleci github gitlab google kubernetes terraform }

#[test]
fn every_folder_of_claim_sets_is_run() {
    assert_eq!(providers(), PLATFORMS);
}

/// A profile that nobody tells a story of is a claim that nobody checked. Generic OIDC has the
/// stories of the identity provider; profiles of verified attestations have their own samples.
#[test]
fn every_built_in_profile_has_a_story() {
    let files = fs::read_dir(Path::new(ROOT).join("policies/profiles")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap().replace(".toml", ""));
    let told: BTreeSet<String> = PLATFORMS.iter().map(|name| (*name).to_owned()).collect();
    let elsewhere = ["oidc", "spiffe", "eat", "ear"];
    let untold: Vec<String> = names.filter(|name| !told.contains(name) && !elsewhere.contains(&&**name)).collect();
    assert_eq!(untold, Vec::<String>::new());
}

/// A name that changes hands says which id stays, or that none does: lints go by it.
#[test]
fn names_are_marked_as_names() {
    let bundle: Bundle = Provider::of("github").bundle();
    for (profile, claim, id) in [
        ("github", "repository", Some("repository_id")),
        ("github", "repository_owner", Some("repository_owner_id")),
        ("github", "workflow", None),
        ("gitlab", "project_path", Some("project_id")),
        ("gitlab", "namespace_path", Some("namespace_id")),
        ("buildkite", "pipeline_slug", Some("pipeline_id")),
        ("terraform", "workspace_name", Some("workspace_id")),
        ("google", "email", Some("sub")),
        ("kubernetes", "service_account", Some("service_account_uid")),
        ("kubernetes", "namespace", None),
        ("azure", "xms_mirid", Some("oid")),
    ] {
        let rule = &bundle.profiles[profile].claims[claim];
        assert_eq!((rule.mutable, rule.id.as_deref()), (true, id), "{profile}.{claim}");
    }
    for profile in bundle.profiles.values() {
        for name in profile.principal.iter().chain(&profile.pin) {
            assert!(!profile.claims[name].mutable, "{}: `{name}` is what it goes by", profile.name);
        }
    }
}

/// Shipped examples have ids that begin with 0, and so have account numbers that AWS really gives.
#[test]
fn an_account_number_is_no_example() {
    let row = "aws_account = \"012345678901\"\nlambda_source_function_arn";
    let bundle = Provider::edited("aws", "lambda_source_function_arn", row).bundle();
    assert_eq!(bundle.templates["deploy"].rows[0].claims["aws_account"][0].to_string(), "012345678901");
    assert_eq!(example_ids(&bundle), Vec::<String>::new());
}

/// Nothing of a platform's own is written into the program.
#[test]
fn no_platform_is_named_in_the_code() {
    let words = ["repository_id", "namespace_id", "terraform_", "circleci", "xms_mirid", "kubernetes.io/"];
    for file in ["src/intake/claims.rs", "src/intake/mod.rs", "crates/domain/src/bundle/profiles.rs"] {
        let text = fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        let live = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for word in words {
            assert!(!live.contains(word), "{file} speaks of `{word}`");
        }
    }
}
