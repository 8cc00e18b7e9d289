use super::*;
use crate::cli::{
    args::{Cli, Output, Verb},
    session::{Vars, session_at, test_session},
};

fn given(line: &str) -> ExplainArgs {
    use clap::Parser;
    match Cli::try_parse_from(format!("dayfly explain {line}").split_whitespace()).unwrap().verb {
        Verb::Explain(args) => *args,
        other => panic!("{other:?}"),
    }
}

const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies");

fn job(rest: &[(&str, &str)]) -> Map<String, Value> {
    let mut claims = json!({
        "iss": "https://token.actions.githubusercontent.com", "repository_id": "0088120",
        "repository_owner_id": "0004411", "event_name": "push", "ref": "refs/heads/main", "environment": "production",
    });
    rest.iter().for_each(|(name, value)| claims[*name] = json!(value));
    claims.as_object().unwrap().clone()
}

async fn explained(claims: Map<String, Value>, line: &str) -> Result<Explanation, Failure> {
    let args = given(&format!("--claims x --policies {SHIPPED} {line}"));
    of_claims(claims, &args, &test_session()).await
}

#[tokio::test]
async fn claims_are_explained_by_a_bundle_alone() {
    let told = explained(job(&[]), "--task deploy-prod").await.unwrap();
    assert_eq!((told.outcome.as_str(), told.grant.unwrap().by.as_str()), ("permit", "shop-main"));
    let told = explained(job(&[("ref", "refs/heads/x")]), "--task deploy-prod").await.unwrap();
    assert_eq!(told.reason.as_deref(), Some("E-NOMATCH"));
    let told = explained(job(&[]), "--task deploy-prod --binding bearer").await.unwrap();
    assert!(told.obstacles[0].contains("`bearer` was proven"), "{told:?}");
    let told = explained(job(&[("repository_owner_id", "666")]), "--task deploy-prod").await.unwrap();
    assert_eq!(told.reason.as_deref(), Some("E-STRANGER"));
    assert!(told.checks.iter().any(|check| !check.ok && check.what == "pin repository_owner_id"));
    let told = explained(job(&[("event_name", "pull_request_target")]), "--task deploy-prod").await.unwrap();
    assert_eq!(told.reason.as_deref(), Some("E-EVENT"));
    assert!(told.obstacles[0].contains("`event_name` `pull_request_target`"), "{told:?}");
    let told = explained(job(&[("iss", "https://evil.example")]), "--task deploy-prod").await.unwrap();
    assert!(told.obstacles[0].contains("no issuer has the URL `https://evil.example`"), "{told:?}");
    let told = explained(job(&[("iss", "x")]), "--task deploy-prod --issuer github").await.unwrap();
    assert_eq!(told.outcome, "permit");
}

#[tokio::test]
async fn a_row_whose_review_is_long_overdue_permits_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shop = std::fs::read_to_string(format!("{SHIPPED}/shop.toml")).unwrap();
    std::fs::write(dir.path().join("shop.toml"), shop.replace("review_by = 2027-06-30", "review_by = 2019-06-30"))
        .unwrap();
    let line = format!("--claims x --policies {} --task deploy-prod", dir.path().display());
    let told = of_claims(job(&[]), &given(&line), &session_at("2026-11-22T06:00:00Z")).await.unwrap();
    assert_eq!(told.reason.as_deref(), Some("E-NOMATCH"), "{told:?}");
}

#[tokio::test]
async fn a_refusal_on_the_screen() {
    let told = explained(job(&[("ref", "refs/heads/\u{1b}[2Jx")]), "--task deploy-prod").await.unwrap();
    let shown = show::explanation(&told, Output::Table, false).replace(&told.bundle[..12], "FINGERPRINT");
    insta::assert_snapshot!(shown, @r"
    outcome   deny E-NOMATCH: no row of this template matches this workload
    task      deploy-prod
    workload  github/0004411/0088120
    bundle    FINGERPRINT

      claim          this job has      nearest row `shop-main` wants
      environment    production        production       ok
      ref            refs/heads/�[2Jx  refs/heads/main  ✗
      repository_id  0088120           0088120          ok

    would permit
      row `shop-main` with `ref` `refs/heads/main`
    ");
    let json: Value = serde_json::from_str(&show::explanation(&told, Output::Json, false)).unwrap();
    assert_eq!((&json["schema_version"], &json["outcome"]), (&json!(1), &json!("deny")));
    assert_eq!(show::explanation(&told, Output::Name, false), "shop-main\n");
}

#[tokio::test]
async fn a_token_without_a_broker_is_said_to_be_unchecked() {
    let args = given(&format!("--evidence-file x --task deploy-prod --policies {SHIPPED} --addr https://b.example"));
    let payload = json!(job(&[("aud", "https://b.example")]));
    let part =
        |value: &Value| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, value.to_string());
    let token = Secret::new(format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(&payload)));
    let told = of_token(&token, &args, &test_session()).await.unwrap();
    assert!(told.notes.iter().any(|note| note.contains("signature was NOT checked")), "{told:?}");
    let missing: Vec<_> = told.checks.iter().filter(|check| !check.ok).map(|check| check.what.as_str()).collect();
    assert_eq!(missing, ["exp", "iat"]);
    assert_eq!(told.reason.as_deref(), Some("E-EXPIRED"));
    assert!(!format!("{told:?}").contains("eyJ"));
}

#[test]
fn a_platform_without_a_token_is_told_what_to_paste() {
    let vars = Vars::given(&[("GITHUB_ACTIONS", "true")]);
    let machine = Machine::this();
    let around = Surroundings { vars: &vars, machine: &machine, audience: None };
    let (probed, found) = (identity::probes(None, &around), identity::find(None, &around));
    let said = next(&probed, false, found.as_ref().err()).unwrap();
    assert!(said.contains("id-token: write") && !said.contains("--task"), "{said}");
    assert!(next(&probed, false, None).unwrap().contains("--task NAME"));
}

#[test]
fn a_task_is_named_by_option_or_variable() {
    let session = Session { vars: Vars::given(&[("DAYFLY_TASK", "from-var")]), ..test_session() };
    assert_eq!(task(&given("--task from-arg"), &session).unwrap().unwrap().as_str(), "from-arg");
    assert_eq!(task(&given(""), &session).unwrap().unwrap().as_str(), "from-var");
    assert_eq!(trial(&given(""), &test_session()).unwrap_err().exit(), 2);
}

#[test]
fn a_file_that_holds_no_claims_is_not_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.json");
    for text in ["eyJsecret", "[]", "{\"a\":", ""] {
        std::fs::write(&file, text).unwrap();
        let failure = claims(&file).unwrap_err();
        assert_eq!(failure.exit(), 2);
        assert!(!failure.text("error").contains("eyJ"));
    }
}
