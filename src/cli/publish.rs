//! `dayfly publish`: what the broker says to everybody, as files that any web server or cache can serve, so
//! that its tokens can be checked while it is away.
//!
//! In come its metadata, its keys and its status lists; out go the same bytes at the same paths below a
//! folder. Nothing is written that a verifier would refuse.

use std::{collections::BTreeSet, path::Path, time::Duration};

use dayfly_domain::UnixMs;
use dayfly_verifier::{
    KeySet,
    status::{LIST_ENTRIES_MAX, ListToken, list_name, unverified_uri},
};
use serde::Serialize;

use super::{
    api::{Api, ApiError, Metadata},
    args::PublishArgs,
    door::Door,
    failure::{Exit, Failure},
    print::{self, Shown},
    session::Session,
};
use crate::sys::files;

const METADATA: [&str; 2] = [".well-known/oauth-authorization-server", ".well-known/openid-configuration"];
const KEYS: &str = "oauth2/jwks";
const LISTS: &str = "status";

/// They are public.
const FILE_MODE: u32 = 0o644;

/// How long a verifier uses a list before it looks again, as the broker says it, and what its own look takes.
const LOOK_S: u32 = 3;

/// One list that is on file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct OnFile {
    uri: String,
    entries: usize,
    ttl_s: u32,
    issued_at: String,
    expires_at: String,
    #[serde(skip)]
    expires: UnixMs,
}

/// What one round did.
#[derive(Debug, PartialEq, Eq)]
struct Round {
    issuer: String,
    lists: Vec<OnFile>,
    /// Files whose bytes are others now.
    written: usize,
    /// Lists that the broker has no more.
    removed: usize,
}

pub async fn run(args: &PublishArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let first = round(&api, &args.dir, session).await?;
    session.screen.say(&told(&first, &args.dir));
    if !args.watch {
        session.screen.say(&promise(&first));
        return session.screen.data(&print::list(&first.lists, session.output));
    }
    let every_s = args.every.as_s();
    session.screen.say(&bound(&first, every_s));
    watch(&api, args, session, first).await
}

/// Round after round, until the process is ended. A round that fails is told once, not each time.
async fn watch(api: &Api, args: &PublishArgs, session: &Session, mut last: Round) -> Result<(), Failure> {
    let mut trouble: Option<String> = None;
    loop {
        api.pause(Duration::from_secs(args.every.as_s().into())).await;
        match round(api, &args.dir, session).await {
            Ok(now) => {
                if trouble.take().is_some() || now.removed > 0 || now.lists.len() != last.lists.len() {
                    session.screen.say(&told(&now, &args.dir));
                }
                last = now;
            }
            Err(failure) => {
                let text = failure.text("warning");
                if trouble.as_ref() != Some(&text) {
                    session.screen.show(&text);
                    session.screen.say(&promise(&last));
                    trouble = Some(text);
                }
            }
        }
    }
}

/// Everything once: read all, then write. Keys come before the lists that they sign, and lists before
/// anything is taken away, so that a reader never finds a list without its key.
async fn round(api: &Api, dir: &Path, session: &Session) -> Result<Round, Failure> {
    let doing = |error: &ApiError| error.failure("nothing was published");
    let metadata = api.document(&format!("/{}", METADATA[0])).await.map_err(|error| doing(&error))?;
    let broker: Metadata = serde_json::from_slice(&metadata).map_err(|_| strange("its metadata name no issuer"))?;
    let jwks = api.document(&format!("/{KEYS}")).await.map_err(|error| doing(&error))?;
    let keys = KeySet::parse(&jwks).map_err(strange)?;
    let mut lists = Vec::new();
    let named = api.status_lists().await;
    for uri in named.map_err(|error| error.failure("nothing was published: the broker names no lists"))? {
        // SECURITY: a_list_cannot_name_a_file_elsewhere
        let name = list_name(&broker.issuer, &uri).ok_or_else(|| strange("a list is not below its own URL"))?;
        let bytes = match api.document(&format!("/{LISTS}/{name}")).await {
            // All that was on it has expired since it was named.
            Err(ApiError::Refused(refusal)) if refusal.status == 404 => continue,
            other => other.map_err(|error| doing(&error))?,
        };
        let token = checked(&bytes, &keys, &broker.issuer, &uri, session.clock.read().wall)?;
        lists.push((name.to_owned(), bytes, token));
    }
    write(dir, &broker.issuer, [&metadata, &jwks], &lists)
}

fn write(
    dir: &Path,
    issuer: &str,
    [metadata, jwks]: [&Vec<u8>; 2],
    lists: &[(String, Vec<u8>, ListToken)],
) -> Result<Round, Failure> {
    let mut written = put(dir, KEYS, jwks)?;
    for (name, bytes, _) in lists {
        written += put(dir, &format!("{LISTS}/{name}"), bytes)?;
    }
    for path in METADATA {
        written += put(dir, path, metadata)?;
    }
    let named: BTreeSet<&str> = lists.iter().map(|(name, ..)| name.as_str()).collect();
    let removed = take_away(&dir.join(LISTS), issuer, &named)?;
    let lists = lists.iter().map(|(.., token)| OnFile::of(token)).collect();
    Ok(Round { issuer: issuer.to_owned(), lists, written, removed })
}

/// Writes the file whole, unless it holds these bytes already: 1 if it was written.
fn put(dir: &Path, path: &str, bytes: &[u8]) -> Result<usize, Failure> {
    let path = dir.join(path);
    if files::read_capped(&path).is_ok_and(|held| held == bytes) {
        return Ok(0);
    }
    let parent = path.parent().unwrap_or(dir);
    files::open_dir(parent)
        .and_then(|()| files::write_atomic(&path, bytes, FILE_MODE))
        .map_err(|e| broken(&path, e))?;
    Ok(1)
}

/// Removes lists of this broker that it has no more, and nothing that is not one of them.
// SECURITY: what_is_no_list_of_this_broker_is_not_removed
fn take_away(dir: &Path, issuer: &str, named: &BTreeSet<&str>) -> Result<usize, Failure> {
    let mut removed = 0;
    if !dir.is_dir() {
        return Ok(0);
    }
    for name in files::names(dir).map_err(|error| broken(dir, error))? {
        let path = dir.join(&name);
        if !named.contains(name.as_str()) && is_list(&path, issuer, &name) {
            files::remove(&path).map_err(|error| broken(&path, error))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_list(path: &Path, issuer: &str, name: &str) -> bool {
    let bytes = files::read_capped(path).unwrap_or_default();
    let uri = std::str::from_utf8(&bytes).ok().and_then(unverified_uri);
    uri.is_some_and(|uri| list_name(issuer, &uri) == Some(name))
}

/// As a verifier will read it.
fn checked(bytes: &[u8], keys: &KeySet, issuer: &str, uri: &str, now: UnixMs) -> Result<ListToken, Failure> {
    let text = std::str::from_utf8(bytes).map_err(strange)?;
    let token = ListToken::read(text.trim_ascii_end(), keys, issuer, LIST_ENTRIES_MAX, now).map_err(strange)?;
    if token.uri() == uri { Ok(token) } else { Err(strange("a list came under another one's URL")) }
}

fn strange(why: impl ToString) -> Failure {
    Failure::new(Exit::Unavailable, "nothing was published: no verifier would take what the broker answers")
        .because(why)
        .help("check that this machine's clock is right, and what stands between it and the broker")
}

fn broken(path: &Path, error: std::io::Error) -> Failure {
    Failure::failed(format!("`{}` cannot be written", path.display())).because(error)
}

fn told(round: &Round, dir: &Path) -> String {
    let Round { issuer, lists, written, removed } = round;
    let lists = counted(lists.len(), "status list");
    let files = counted(*written, "file");
    format!(
        "published: {lists}, keys and metadata of {issuer} in {} ({files} written, {removed} removed)",
        dir.display()
    )
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// How long what is on file is good for.
fn promise(round: &Round) -> String {
    match round.lists.iter().map(|list| list.expires).min() {
        Some(first) => format!(
            "what is on file says nothing of an end that comes after it; from {first} on the first list is \
             expired, and its tokens are refused by who verifies by list"
        ),
        None => "there are no status lists: no target of the bundle verifies by list".to_owned(),
    }
}

/// The worst case that the watching adds, and all of it.
fn bound(round: &Round, every_s: u32) -> String {
    let ttl_s = round.lists.iter().map(|list| list.ttl_s).max();
    let all = match ttl_s {
        Some(ttl_s) => format!(": {} s at most, while the broker answers", every_s + ttl_s + LOOK_S),
        None => String::new(),
    };
    format!(
        "looking every {every_s} s; who verifies by these files hears of an end {every_s} s later than from the broker{all}"
    )
}

impl OnFile {
    fn of(token: &ListToken) -> Self {
        let expires = UnixMs::from_s(token.expires_at_s());
        Self {
            uri: token.uri().to_owned(),
            entries: token.list().len(),
            ttl_s: token.ttl_s(),
            issued_at: UnixMs::from_s(token.issued_at_s()).to_string(),
            expires_at: expires.to_string(),
            expires,
        }
    }
}

impl Shown for OnFile {
    const HEAD: &'static [&'static str] = &["list", "entries", "issued", "expires"];

    fn id(&self) -> String {
        self.uri.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.id(), self.entries.to_string(), self.issued_at.clone(), self.expires_at.clone()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEAD.iter().copied().zip(self.cells()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use dayfly_verifier::{
        crypto::SigningKey,
        status::{EncodedList, LIST_TOKEN_TYP, ListClaims, StatusBits, StatusList},
    };
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::cli::{api::script::Script, args::Output, session::session_at};

    const ISSUER: &str = "https://b.example";
    const NOW: &str = "2026-11-22T05:00:00Z";

    /// A broker's documents, and the folder they go to.
    struct Place {
        key: SigningKey,
        dir: TempDir,
        session: Session,
    }

    impl Place {
        fn new() -> Self {
            let der = SigningKey::generate_pkcs8().unwrap();
            let key = SigningKey::from_pkcs8(der.expose()).unwrap();
            Self { key, dir: tempfile::tempdir().unwrap(), session: session_at(NOW) }
        }

        fn list(&self, name: &str, ended: u32) -> String {
            let mut list = StatusList::new(StatusBits::One, 64);
            assert!(list.set(ended, 1));
            let iat = UnixMs::parse(NOW).unwrap().as_s();
            let status_list = EncodedList::of(&list);
            let sub = format!("{ISSUER}/status/{name}");
            self.key.sign(LIST_TOKEN_TYP, &ListClaims { sub, iat, exp: iat + 300, ttl: 15, status_list }).unwrap()
        }

        fn documents(&self, names: &[&str]) -> Script {
            let lists: Vec<_> = names
                .iter()
                .map(|name| json!({"uri": format!("{ISSUER}/status/{name}"), "target": "t", "expires_at": NOW}))
                .collect();
            Script::default()
                .ok(&json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/oauth2/jwks")}).to_string())
                .ok(&json!({"keys": [self.key.jwk()]}).to_string())
                .ok(&json!({ "lists": lists }).to_string())
        }

        async fn round(&self, script: Script) -> Result<Round, Failure> {
            round(&script.api(Some("op")), &self.dir.path().join("www"), &self.session).await
        }

        fn file(&self, path: &str) -> Option<String> {
            std::fs::read_to_string(self.dir.path().join("www").join(path)).ok()
        }
    }

    #[tokio::test]
    async fn documents_come_out_as_they_went_in() {
        let place = Place::new();
        let (a, b) = (place.list("a", 3), place.list("b", 4));
        let script = place.documents(&["a", "b"]).ok(&a).ok(&b);
        let done = place.round(script.clone()).await.unwrap();
        assert_eq!((done.lists.len(), done.written, done.removed), (2, 5, 0));
        assert_eq!((place.file("status/a"), place.file("status/b")), (Some(a), Some(b)));
        let metadata = place.file(METADATA[0]).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&metadata).unwrap()["issuer"], ISSUER);
        assert_eq!(place.file(METADATA[1]), Some(metadata));
        assert!(place.file(KEYS).unwrap().contains(place.key.kid()));
        let mode = std::fs::metadata(place.dir.path().join("www/status/a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "a web server reads it");
        let asked = script.seen();
        assert_eq!(asked[2], "GET /status Bearer op");
        assert!(asked.iter().enumerate().all(|(at, line)| at == 2 || !line.contains("op")), "{asked:?}");
    }

    #[tokio::test]
    async fn what_has_not_changed_is_not_written_and_what_is_gone_is_removed() {
        let place = Place::new();
        let (a, b) = (place.list("a", 3), place.list("b", 4));
        place.round(place.documents(&["a", "b"]).ok(&a).ok(&b)).await.unwrap();
        let newer = place.list("a", 5);
        let done = place.round(place.documents(&["a"]).ok(&newer)).await.unwrap();
        assert_eq!((done.lists.len(), done.written, done.removed), (1, 1, 1));
        assert_eq!((place.file("status/a"), place.file("status/b")), (Some(newer), None));
        let done = place.round(place.documents(&["a"]).refuse(404, "E-NOT-FOUND")).await.unwrap();
        assert_eq!((done.lists.len(), done.removed), (0, 1), "gone between the two questions");
    }

    #[tokio::test]
    async fn what_is_no_list_of_this_broker_is_not_removed() {
        let place = Place::new();
        place.round(place.documents(&[])).await.unwrap();
        let www = place.dir.path().join("www");
        std::fs::create_dir_all(www.join("status/folder")).unwrap();
        let foreign = place.list("moved", 1);
        let kept = ["index.html", "readme", "x", "other"];
        for (name, text) in kept.iter().zip(["<html>", "", "a.b.c", &foreign]) {
            std::fs::write(www.join("status").join(name), text).unwrap();
        }
        symlink(www.join(KEYS), www.join("status/link")).unwrap();
        assert_eq!(place.round(place.documents(&[])).await.unwrap().removed, 0);
        assert!(kept.iter().all(|name| place.file(&format!("status/{name}")).is_some()));
        assert!(place.file("status/link").is_some());
    }

    #[tokio::test]
    async fn a_list_cannot_name_a_file_elsewhere() {
        for name in ["../jwks", "..", ".", "", "a/b", "a%2fb", "a b", "/etc/x", "a?b"] {
            let place = Place::new();
            let failure = place.round(place.documents(&[name]).ok(&place.list(name, 1))).await.unwrap_err();
            assert_eq!(failure.exit(), 69, "{name}");
            assert!(place.file(KEYS).is_none(), "nothing was written");
        }
    }

    #[tokio::test]
    async fn nothing_is_published_that_a_verifier_would_refuse() {
        let place = Place::new();
        let old = place.list("a", 3);
        place.round(place.documents(&["a"]).ok(&old)).await.unwrap();
        let other = Place::new();
        let iat = UnixMs::parse(NOW).unwrap().as_s() - 300;
        let status_list = EncodedList::of(&StatusList::new(StatusBits::One, 64));
        let expired = ListClaims { sub: format!("{ISSUER}/status/a"), iat, exp: iat + 300, ttl: 15, status_list };
        let expired = place.key.sign(LIST_TOKEN_TYP, &expired).unwrap();
        for bad in ["<html>", "", &other.list("a", 1), &place.list("b", 1), &expired] {
            let failure = place.round(place.documents(&["a"]).ok(bad)).await.unwrap_err();
            assert_eq!(failure.exit(), 69);
            assert_eq!(place.file("status/a").as_ref(), Some(&old), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_broker_that_refuses_or_is_away_leaves_what_is_there() {
        let place = Place::new();
        let old = place.list("a", 3);
        place.round(place.documents(&["a"]).ok(&old)).await.unwrap();
        let begun = || Script::default().ok(&json!({ "issuer": ISSUER }).to_string()).ok(r#"{"keys":[]}"#);
        for (script, exit) in [
            (Script::default().unreachable(), 69),
            (Script::default().ok("{}"), 69),
            (begun().refuse(403, "E-FORBIDDEN"), 77),
            (begun().refuse(404, "E-NOT-FOUND"), 3),
            (begun().ok("{}"), 1),
            (place.documents(&["a"]).lose(), 69),
        ] {
            assert_eq!(place.round(script).await.unwrap_err().exit(), exit);
            assert_eq!(place.file("status/a").as_ref(), Some(&old));
        }
    }

    #[tokio::test]
    async fn it_says_how_late_it_makes_everything() {
        let place = Place::new();
        let done = place.round(place.documents(&["a"]).ok(&place.list("a", 3))).await.unwrap();
        insta::assert_snapshot!(bound(&done, 5), @"looking every 5 s; who verifies by these files hears of an end 5 s later than from the broker: 23 s at most, while the broker answers");
        insta::assert_snapshot!(promise(&done), @"what is on file says nothing of an end that comes after it; from 2026-11-22T05:05:00Z on the first list is expired, and its tokens are refused by who verifies by list");
        insta::assert_snapshot!(told(&done, Path::new("D")), @"published: 1 status list, keys and metadata of https://b.example in D (4 files written, 0 removed)");
        insta::assert_snapshot!(print::list(&done.lists, Output::Table), @r"
        LIST                        ENTRIES  ISSUED                EXPIRES
        https://b.example/status/a  64       2026-11-22T05:00:00Z  2026-11-22T05:05:00Z
        ");
    }
}
