//! The running broker, if one runs: does its socket answer, is it ready, is it this version, do its keys
//! turn. Read only, with short waits.

use std::path::Path;

use dayfly_domain::UnixMs;
use http_body_util::Full;
use hyper::Request;
use serde_json::Value;

use super::{finding::Finding, place::AS_BROKER};
use crate::{
    cli::api::{Api, ApiError, Transport, WireError},
    config::{SOCKET_NAME, Settings},
    http::shapes::{Key, KeyState},
    sys::net::Client,
};

/// The broker on this machine.
#[derive(Debug)]
pub struct Near {
    pub api: Api,
}

/// A way in, if a broker answers there.
pub async fn socket(state: &Path, settings: Option<&Settings>) -> (Vec<Finding>, Option<Near>) {
    let path = state.join(SOCKET_NAME);
    if settings.is_some_and(|settings| !settings.socket) {
        return (vec![Finding::ok("broker", "the settings have no socket; nothing is asked there")], None);
    }
    if !path.exists() {
        return (vec![silent(&format!("there is no socket `{}`", path.display()))], None);
    }
    let api = Api::new(Transport::socket(path.clone()), None);
    match api.metadata().await {
        Ok(metadata) => (vec![answered(&metadata.issuer, settings)], Some(Near { api })),
        Err(error) => (vec![unanswered(&path, &error)], None),
    }
}

fn silent(why: &str) -> Finding {
    Finding::warning(
        "broker",
        format!("none runs: {why}"),
        "systemctl start dayfly   # why it does not: dayfly serve --check",
    )
}

fn answered(issuer: &str, settings: Option<&Settings>) -> Finding {
    match settings.filter(|settings| settings.issuer != issuer) {
        Some(settings) => {
            let what = format!("the broker is `{issuer}`, the settings say `{}`", settings.issuer);
            Finding::wrong(
                "broker",
                what,
                "systemctl restart dayfly, if the settings are right; a new issuer URL makes old tokens strangers",
            )
        }
        None => Finding::ok("broker", format!("`{issuer}` answers on its socket")),
    }
}

fn unanswered(path: &Path, error: &ApiError) -> Finding {
    match error {
        ApiError::Wire(WireError::Unreachable(why)) if why.contains("ermission denied") => {
            let what = format!("`{}` may not be opened by this user", path.display());
            Finding::wrong("broker", what, AS_BROKER)
        }
        ApiError::Wire(WireError::Unreachable(_)) => silent(&format!("nobody answers at `{}`", path.display())),
        other => {
            let mend = "journalctl -u dayfly --since -15min   # then: systemctl restart dayfly";
            Finding::wrong("broker", format!("the broker does not answer as one: {other}"), mend)
        }
    }
}

/// Readiness and version, by the listener of health and metrics.
pub async fn ops(settings: &Settings) -> Vec<Finding> {
    let address = settings.metrics_listen;
    let (ready, metrics) = (get(settings, "/readyz").await, get(settings, "/metrics").await);
    match (ready, metrics) {
        (Ok(ready), Ok(metrics)) => readiness(&ready).into_iter().chain([version(&metrics)]).collect(),
        (Err(why), _) | (_, Err(why)) => {
            let mend = format!(
                "ss -ltnp | grep {}   # who listens there, and `metrics_listen` in the settings",
                address.port()
            );
            vec![Finding::wrong("broker", format!("health and metrics do not answer: {why}"), mend)]
        }
    }
}

async fn get(settings: &Settings, path: &str) -> Result<String, String> {
    let request = Request::get(path).body(Full::default()).map_err(|error| error.to_string())?;
    let answer = Client::plain(settings.metrics_listen).send(request).await.map_err(|error| error.to_string())?;
    String::from_utf8(answer.body).map_err(|_| "the answer is no text".to_owned())
}

/// A line of JSON for each thing that is missing; what mends it is a chapter of the runbook. Lines of
/// issuers that are away say nothing of readiness: issuers are looked at by themselves.
fn readiness(answer: &str) -> Vec<Finding> {
    let warnings = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let warnings = warnings.filter_map(|said| said.get("warning")?.as_str().map(str::to_owned));
    let warnings: Vec<_> = warnings.map(|line| Finding::warning("broker", line.clone(), chapter(&line))).collect();
    if answer.lines().next().is_some_and(|first| first.trim() == "ready") {
        return [Finding::ok("broker", "it is ready")].into_iter().chain(warnings).collect();
    }
    let missing = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(said) => said.get("missing")?.as_str().map(str::to_owned),
        Err(_) => Some(line.to_owned()),
    };
    let missing = answer.lines().filter_map(missing);
    missing.map(|line| Finding::wrong("broker", format!("not ready: {line}"), chapter(&line))).collect()
}

fn chapter(missing: &str) -> String {
    let known: [(&str, &str); 5] = [
        ("pki", "dayfly ca ls; dayfly ca init --root-key FILE   # docs/RUNBOOK.md, The authority"),
        ("bundle", "dayfly policy check; systemctl reload dayfly   # docs/RUNBOOK.md, A bad bundle"),
        ("store", "df -h on the state folder   # docs/RUNBOOK.md, Disk full"),
        ("clock", "timedatectl; chronyc tracking   # docs/RUNBOOK.md, Clock wrong"),
        ("tls", "put a good certificate in place; systemctl reload dayfly   # docs/RUNBOOK.md, Rotate"),
    ];
    let found = known.iter().find(|(word, _)| missing.starts_with(word));
    found.map_or("journalctl -u dayfly --since -15min", |(_, mend)| mend).to_owned()
}

/// Whether the process is the program that is installed.
fn version(metrics: &str) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let line = metrics.lines().find_map(|line| line.strip_prefix("dayfly_build_info{version=\""));
    match line.and_then(|line| line.split('"').next()) {
        Some(theirs) if theirs == ours => Finding::ok("broker", format!("version {ours}")),
        Some(theirs) => {
            let what = format!("version {theirs} runs, {ours} is installed");
            Finding::warning("broker", what, "dayfly serve --check && systemctl restart dayfly")
        }
        None => Finding::warning("broker", "it does not tell its version", "systemctl restart dayfly"),
    }
}

/// The keys that sign tokens: one signs now, and the next is published before it is used.
pub fn keys(keys: &[Key], now: UnixMs) -> Vec<Finding> {
    let of = |state| keys.iter().find(|key| key.state == state);
    let restart = "journalctl -u dayfly | grep -i key   # then: systemctl restart dayfly";
    let Some(active) = of(KeyState::Active) else {
        return vec![Finding::wrong("keys", "no key signs", restart)];
    };
    if let Some(until) = active.until.filter(|until| *until < now) {
        return vec![Finding::wrong("keys", format!("`{}` was to be replaced at {until}", active.kid), restart)];
    }
    if of(KeyState::Next).is_none() {
        return vec![Finding::warning(
            "keys",
            "no next key is published: servers will not know it when it signs",
            restart,
        )];
    }
    let until = active.until.map(|until| format!(" until {until}")).unwrap_or_default();
    vec![Finding::ok("keys", format!("`{}` signs{until}, the next is published", active.kid))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    fn key(state: KeyState, until: Option<i64>) -> Key {
        let (kid, usage, alg) = ("k".to_owned(), "sig".to_owned(), "ES256".to_owned());
        Key { kid, usage, alg, state, since: NOW, until: until.map(|s| NOW.plus_s(s)) }
    }

    #[test]
    fn keys_that_do_not_turn_are_found() {
        let look = |held: &[Key]| keys(held, NOW)[0].verdict;
        assert_eq!(look(&[]), Verdict::Wrong);
        assert_eq!(look(&[key(KeyState::Active, Some(-1)), key(KeyState::Next, None)]), Verdict::Wrong);
        assert_eq!(look(&[key(KeyState::Active, Some(60))]), Verdict::Warning);
        assert_eq!(look(&[key(KeyState::Active, Some(60)), key(KeyState::Next, None)]), Verdict::Ok);
    }

    #[test]
    fn what_is_not_ready_is_named_with_its_chapter() {
        assert_eq!(readiness("ready\n")[0].verdict, Verdict::Ok);
        let found = readiness("{\"missing\":\"clock_unsafe: x\"}\n{\"missing\":\"store: full\"}\n");
        assert!(found.iter().all(|finding| finding.verdict == Verdict::Wrong) && found.len() == 2, "{found:?}");
        assert!(found[0].mend.as_ref().unwrap().contains("Clock wrong"), "{found:?}");
    }

    #[test]
    fn an_issuer_that_is_away_does_not_make_a_ready_broker_a_broken_one() {
        let away = "{\"issuer\":\"ci\",\"state\":\"down\",\"why\":\"discovery: its host does not answer\"}\n";
        let found = readiness(&format!("ready\n{away}"));
        assert!(found.len() == 1 && found[0].verdict == Verdict::Ok, "{found:?}");
        let found = readiness(&format!("{{\"missing\":\"store: full\"}}\n{away}"));
        assert!(found.len() == 1 && found[0].what == "not ready: store: full", "{found:?}");
    }

    #[test]
    fn another_version_than_the_one_installed() {
        let said = |version: &str| format!("# HELP\ndayfly_build_info{{version=\"{version}\"}} 1\n");
        let look = |version: &str| super::version(&said(version)).verdict;
        assert_eq!((look(env!("CARGO_PKG_VERSION")), look("0.0.0-old")), (Verdict::Ok, Verdict::Warning));
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let look = async || socket(dir.path(), None).await.0.remove(0);
        assert!(look().await.what.contains("there is no socket"));
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap());
        let found = look().await;
        assert!(found.verdict == Verdict::Warning && found.what.contains("nobody answers"), "{found:?}");
    }
}
