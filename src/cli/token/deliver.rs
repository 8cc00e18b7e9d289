//! Handing a credential over: a file of mode 0600 or stdout, one line about it on stderr.
//!
//! Tokens are read here only to tell people whose they are; nothing is believed.

use std::path::Path;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::Span;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::kept::require_plain;
use crate::{
    cli::{args::Output, failure::Failure, identity::Evidence, print, session::Session},
    http::shapes::TokenAnswer,
    sys::files,
};

/// Whether a credential can be handed over at all: asked before anything is, since one that is lost lives on.
pub fn check(out: Option<&Path>, noun: &str) -> Result<(), Failure> {
    let Some(file) = out else { return check_stdout() };
    require_plain(file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As the token will be written: beside its place.
    let probe = tempfile::Builder::new().prefix(".dayfly-").tempfile_in(folder);
    probe.map(drop).map_err(|error| {
        Failure::failed(format!("the {noun} cannot be written to `{}`, so none is asked for", file.display()))
            .because(error)
    })
}

/// A closed stdout was opened by the runtime as the null device, for reading too: that takes
/// everything, and a shell's `>/dev/null` is for writing only.
fn check_stdout() -> Result<(), Failure> {
    let stdout = std::io::stdout();
    let both_ways = rustix::fs::fcntl_getfl(&stdout).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR));
    let null = rustix::fs::makedev(1, 3);
    if both_ways && rustix::fs::fstat(&stdout).is_ok_and(|found| found.st_rdev == null) {
        return Err(Failure::failed("stdout is closed, so the token would be lost").help("add --out FILE"));
    }
    Ok(())
}

/// Where a token and its handle go.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Otherwise stdout.
    pub out: Option<&'a Path>,
    pub handle: Option<&'a Path>,
    /// This process stays with the handle.
    pub held: bool,
}

/// Writes the token where it was asked for, and says what it is.
pub fn deliver(answer: &TokenAnswer, template: &str, places: &Places<'_>, session: &Session) -> Result<(), Failure> {
    let Places { out, handle, held } = *places;
    if let Some(file) = out {
        write(file, answer)?;
    }
    session.screen.say(&summary(answer, template));
    if handle.is_none() && !held {
        session.screen.warn(
            "no handle was kept, so this task cannot be renewed or ended by you: use --out FILE or DAYFLY_TASK_FILE",
        );
    }
    session.screen.data(&data(answer, template, out, handle, session.output))
}

/// The token in a file of its owner's alone, whole or not at all.
pub fn write(file: &Path, answer: &TokenAnswer) -> Result<(), Failure> {
    let line = Zeroizing::new(format!("{}\n", answer.access_token));
    files::write_atomic(file, line.as_bytes(), 0o600)
        .map_err(|error| Failure::failed(format!("the token cannot be written to `{}`", file.display())).because(error))
}

/// Whose evidence it is, as far as it says so itself.
pub fn identity(evidence: &Evidence) -> String {
    let Some(claims) = payload(evidence.token.expose()) else {
        return format!("identity   {}  no JWT: the broker will say so", evidence.origin);
    };
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let Some(repository) = text("repository") else {
        const WHOSE: [&str; 6] = ["iss", "sub", "project_path", "ref", "pipeline_id", "jti"];
        // A platform says at least one of them; two are enough to know it by.
        let parts: Vec<&str> = WHOSE.into_iter().filter_map(text).take(2).collect();
        return format!("identity   {}  {}", evidence.origin, parts.join(" · "));
    };
    let workflow = text("workflow_ref").and_then(|path| path.split('@').next()?.rsplit('/').next());
    let run = text("run_id").map(|run| format!("run {run}"));
    let parts: Vec<&str> = [Some(repository), text("ref"), workflow, run.as_deref()].into_iter().flatten().collect();
    let ids = text("repository_owner_id").zip(text("repository_id"));
    let ids = ids.map(|(owner, repository)| format!(" (ids {owner}/{repository})")).unwrap_or_default();
    format!("identity   {}  {}{ids}", evidence.origin, parts.join(" · "))
}

/// `lease lse_… task deploy-prod · owner team-shop · "release the shop" · 15m`
pub fn summary(answer: &TokenAnswer, template: &str) -> String {
    let lease = answer.lease_id.map(|id| id.to_string()).unwrap_or_default();
    let detail = answer.authorization_details.as_ref().and_then(|details| details.first());
    let owner = owner(answer).map(|owner| format!("owner {owner}"));
    let purpose = detail.map(|detail| format!("\"{}\"", detail.purpose));
    let lives = answer.expires_in.and_then(|s| u32::try_from(s).ok()).map(|s| Span::seconds(s).to_string());
    let parts: Vec<String> = [Some(format!("task {template}")), owner, purpose, lives].into_iter().flatten().collect();
    format!("lease      {lease}   {}", parts.join(" · "))
}

fn data(
    answer: &TokenAnswer,
    template: &str,
    out: Option<&Path>,
    handle_file: Option<&Path>,
    output: Output,
) -> String {
    match (output, out) {
        (Output::Table, Some(_)) => String::new(),
        (Output::Table, None) => format!("{}\n", answer.access_token),
        (Output::Name, _) => answer.lease_id.map(|id| format!("{id}\n")).unwrap_or_default(),
        (Output::Json | Output::Jsonl, _) => print::document(document(answer, template, out, handle_file)),
    }
}

/// The token itself only where it goes nowhere else.
fn document(answer: &TokenAnswer, template: &str, out: Option<&Path>, handle_file: Option<&Path>) -> Value {
    let credential = match out {
        Some(file) => ("token_file", json!(file.display().to_string())),
        None => ("token", json!(answer.access_token)),
    };
    described(answer, template, handle_file, [credential])
}

/// What was issued; `credential`: where it is.
pub fn described<'a>(
    answer: &TokenAnswer,
    template: &str,
    handle_file: Option<&Path>,
    credential: impl IntoIterator<Item = (&'a str, Value)>,
) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            members.insert(name.to_owned(), value);
        }
    };
    put("task_id", json!(answer.task_id));
    put("lease_id", json!(answer.lease_id));
    put("template", json!(template));
    put("owner", json!(owner(answer)));
    put("expires_at", json!(answer.expires_at));
    put("task_deadline", json!(answer.task_deadline));
    put("token_type", json!(answer.token_type));
    put("authorization_details", json!(answer.authorization_details));
    put("revocation", json!(answer.revocation));
    put("task_file", json!(handle_file.map(|file| file.display().to_string())));
    credential.into_iter().for_each(|(name, value)| put(name, value));
    print::versioned(Value::Object(members))
}

fn owner(answer: &TokenAnswer) -> Option<String> {
    payload(&answer.access_token)?.get("owner")?.as_str().map(str::to_owned)
}

/// The claims of a JWT, unchecked: for people's eyes only.
fn payload(token: &str) -> Option<Map<String, Value>> {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use dayfly_domain::Secret;

    use super::*;
    use crate::cli::{samples, session::test_session};

    fn answer() -> TokenAnswer {
        serde_json::from_value(samples::issued(1)).unwrap()
    }

    #[test]
    fn a_token_in_a_file_is_private_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (file, kept) = (dir.path().join("t"), dir.path().join("t.task"));
        let places = Places { out: Some(&file), handle: Some(&kept), held: false };
        deliver(&answer(), "deploy-prod", &places, &test_session()).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end(), answer().access_token);
        for output in [Output::Table, Output::Json, Output::Jsonl, Output::Name] {
            assert!(!data(&answer(), "deploy-prod", Some(&file), Some(&kept), output).contains("eyJ"), "{output:?}");
        }
    }

    #[test]
    fn where_no_token_can_be_written_none_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("t");
        check(Some(&there), "token").unwrap();
        std::fs::write(&there, "old").unwrap();
        check(Some(&there), "token").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing stays");
        assert_eq!(check(Some(Path::new("/dev/full")), "token").unwrap_err().exit(), 2);
        assert_eq!(check(Some(&dir.path().join("none/t")), "token").unwrap_err().exit(), 1);
        assert!(check(Some(&there.join("t")), "token").is_err(), "its folder is a file");
    }

    #[test]
    fn a_token_on_stdout_is_all_there_is() {
        assert_eq!(data(&answer(), "deploy-prod", None, None, Output::Table), format!("{}\n", answer().access_token));
    }

    #[test]
    fn json_is_a_contract() {
        let shown = data(&answer(), "deploy-prod", Some(Path::new("F")), Some(Path::new("F.task")), Output::Json);
        insta::assert_snapshot!(shown, @r#"
        {"schema_version":1,"task_id":"tsk_00000000010000000000000000","lease_id":"lse_00000000010000000000000000","template":"deploy-prod","owner":"team-shop","expires_at":"2026-11-22T05:15:00Z","task_deadline":"2026-11-22T05:15:00Z","token_type":"Bearer","authorization_details":[{"type":"dayfly_task","template":"deploy-prod","locations":["https://shop.example"],"actions":["deploy:create"],"purpose":"release the shop"}],"revocation":[{"channel":"introspection","usual_s":30,"bound_s":30}],"task_file":"F.task","token_file":"F"}
        "#);
    }

    #[test]
    fn people_read_one_line() {
        insta::assert_snapshot!(summary(&answer(), "deploy-prod"), @r#"
        lease      lse_00000000010000000000000000   task deploy-prod · owner team-shop · "release the shop" · 15m
        "#);
    }

    #[test]
    fn the_identity_line_says_whose_job_it_is() {
        let evidence = |claims: Value| {
            let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims.to_string()));
            Evidence { token: Secret::new(token), origin: "github" }
        };
        let job = json!({
            "repository": "acme/shop", "ref": "refs/heads/main", "run_id": "9421", "repository_id": "88120",
            "repository_owner_id": "4411", "workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
        });
        insta::assert_snapshot!(identity(&evidence(job)), @r"
        identity   github  acme/shop · refs/heads/main · deploy.yml · run 9421 (ids 4411/88120)
        ");
        assert_eq!(identity(&evidence(json!({ "iss": "i", "sub": "s" }))), "identity   github  i · s");
        assert_eq!(identity(&evidence(json!({ "sub": "spiffe://a/b" }))), "identity   github  spiffe://a/b");
        let nonsense = Evidence { token: Secret::new("nonsense".to_owned()), origin: "file" };
        assert_eq!(identity(&nonsense), "identity   file  no JWT: the broker will say so");
    }
}
