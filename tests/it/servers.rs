//! The servers of docs/how-to against `dayfly dev`: the pages' own commands make the key, the pages'
//! own tables name it, and the pages' own files are what is run.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_verifier::{Credential, Online, OnlineSettings, Outage, Refused};
use rustix::process::Signal;

use super::dev::{self, Dev, dayfly, text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const AUDIENCE: &str = "https://deploy.staging.shop.example.org";
const PAGES: [(&str, &str, &str); 3] = [
    ("verify-in-python.md", "python", "tests/interop/resource_server.py"),
    ("verify-in-node.md", "js", "tests/interop/node/resource_server.mjs"),
    ("verify-in-rust.md", "rust", "crates/verifier/examples/axum_server.rs"),
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The first block of this language on a page of docs/how-to.
fn block(page: &str, language: &str) -> String {
    let page = read(&format!("docs/how-to/{page}"));
    let (_, rest) = page.split_once(&format!("\n```{language}\n")).expect("the page has such a block");
    format!("{}\n", rest.split_once("\n```\n").expect("the block ends").0)
}

#[test]
fn a_page_shows_the_very_file_that_is_run() {
    for (page, language, file) in PAGES {
        assert_eq!(block(page, language), read(file), "{page}: paste {file} anew");
    }
    for language in ["sh", "toml"] {
        let blocks: BTreeSet<String> = PAGES.iter().map(|(page, ..)| block(page, language)).collect();
        assert_eq!(blocks.len(), 1, "one key and one row, whatever the server is written in");
    }
}

/// A broker of `dayfly dev` that knows a server by its key.
struct Place {
    work: tempfile::TempDir,
    dev: Dev,
}

impl Place {
    fn of(page: &str) -> Self {
        let work = dev::work();
        let made = Command::new("sh").arg("-ec").arg(block(page, "sh")).current_dir(work.path()).output();
        let made = made.expect("this test needs `sh` and `openssl`");
        assert!(made.status.success(), "{}", text(&made.stderr));
        let mine = work.path().join("mine");
        fs::create_dir(&mine).unwrap();
        let tables = format!("{}\n{}", read("policies/shop.toml"), block(page, "toml"));
        fs::write(mine.join("shop.toml"), tables).unwrap();
        fs::rename(work.path().join("shop-server.jwks.json"), mine.join("shop-server.jwks.json")).unwrap();
        let check = dayfly(&["policy", "check", "--policies", "mine"]).current_dir(work.path()).output().unwrap();
        let said = text(&check.stderr);
        assert!(check.status.success() && !said.contains("introspect"), "{said}");
        let dev = Dev::start(work.path(), &["--policies", "mine"]);
        Self { work, dev }
    }

    fn path(&self) -> &Path {
        self.work.path()
    }

    fn var(&self, name: &str) -> String {
        dev::env(self.path())[name].clone()
    }

    /// A task token, in a file of this name beside its handle.
    fn token(&self, name: &str) -> String {
        let issued = dev::job(self.path(), name);
        assert!(issued.status.success(), "{}", text(&issued.stderr));
        fs::read_to_string(self.path().join(name)).unwrap().trim().to_owned()
    }

    fn end(&self, name: &str) {
        let mut end = dayfly(&["task", "end"]);
        end.envs(dev::env(self.path())).env("DAYFLY_TASK_FILE", format!("{name}.task"));
        let ended = end.current_dir(self.path()).output().unwrap();
        assert!(ended.status.success(), "{}", text(&ended.stderr));
    }
}

/// A server under test, ended with it.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect("it says where it listens").to_owned();
        Self { child, address }
    }

    /// Status and challenge.
    pub fn get(&self, authorization: &[&str]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let sent: String = authorization.iter().map(|value| format!("Authorization: {value}\r\n")).collect();
        write!(stream, "GET /rows HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{sent}\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let is_challenge = |line: &&str| line.to_ascii_lowercase().starts_with("www-authenticate: ");
        let challenge = answer.lines().find(is_challenge).map(|line| line["www-authenticate: ".len()..].to_owned());
        (status, challenge.unwrap_or_default())
    }

    pub fn bearer(&self, token: &str) -> u16 {
        self.get(&[&format!("Bearer {token}")]).0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What every server of ours must do, whoever wrote its library.
fn story(page: &str, command: impl Fn(&Place) -> Command) {
    let place = Place::of(page);
    let (first, second, third) = (place.token("first"), place.token("second"), place.token("third"));
    let operator = fs::read_to_string(place.var("DAYFLY_OPERATOR_TOKEN_FILE")).unwrap();
    let server = Server::start(&mut command(&place));
    assert_eq!(server.bearer(&first), 200);
    assert_eq!(server.get(&[]), (401, "Bearer".to_owned()));
    assert_eq!(server.get(&["Basic eDp5"]).0, 401);
    let whole = format!("Bearer {first}");
    assert_eq!(server.get(&[&whole, &whole]).0, 401, "two tokens are none");
    let (head, signature) = first.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    for bad in ["x", "a.b.c", operator.trim(), &format!("{head}.{flipped}{}", &signature[1..]), &format!("{head}.")] {
        let (status, challenge) = server.get(&[&format!("Bearer {bad}")]);
        assert_eq!((status, challenge.contains("invalid_token")), (401, true), "{bad}: {challenge}");
    }
    place.end("first");
    place.end("second");
    assert_eq!((server.bearer(&first), server.bearer(&second)), (401, 401), "an end is heard by the next request");
    assert_eq!(server.bearer(&third), 200);
    let Place { work, dev } = place;
    dev.end(Signal::KILL);
    assert_eq!(server.bearer(&third), 503, "without the broker nobody gets in");
    drop(work);
}

fn skipped(tool: &str) -> bool {
    env::var("DAYFLY_TEST_SKIP").is_ok_and(|skip| skip.split(',').any(|skipped| skipped == tool))
}

/// What `tests/run` prepared, or where it usually lies.
fn prepared(variable: &str, usual: &str) -> PathBuf {
    let path = env::var_os(variable).map_or_else(|| Path::new(ROOT).join(usual), PathBuf::from);
    assert!(path.exists(), "`{}` is not there: run tests/run", path.display());
    path
}

#[test]
fn the_python_server_lets_in_only_active_tokens() {
    if skipped("python") {
        return;
    }
    let python = prepared("DAYFLY_TEST_PYTHON", "target/interop/venv/bin/python");
    story("verify-in-python.md", |place| {
        let mut command = Command::new(&python);
        command.arg(Path::new(ROOT).join("tests/interop/resource_server.py")).current_dir(place.path());
        let (issuer, ca) = (place.var("DAYFLY_ADDR"), place.var("DAYFLY_CA"));
        command.args([&*issuer, AUDIENCE, &ca, "shop-server", "verifier.pem", "deploy:status"]);
        command
    });
}

#[test]
fn the_node_server_lets_in_only_active_tokens() {
    if skipped("node") {
        return;
    }
    let modules = prepared("DAYFLY_TEST_NODE_MODULES", "target/interop/node/node_modules");
    let node = env::var_os("DAYFLY_TEST_NODE").unwrap_or_else(|| "node".into());
    story("verify-in-node.md", |place| {
        // Node looks for modules beside the file.
        let file = place.path().join("resource_server.mjs");
        fs::write(&file, read("tests/interop/node/resource_server.mjs")).unwrap();
        std::os::unix::fs::symlink(&modules, place.path().join("node_modules")).unwrap();
        let mut command = Command::new(&node);
        command.arg(file).current_dir(place.path()).env("NODE_EXTRA_CA_CERTS", place.var("DAYFLY_CA"));
        command.args([&*place.var("DAYFLY_ADDR"), AUDIENCE, "shop-server", "verifier.pem", "deploy:status"]);
        command
    });
}

/// A platform that vouches for jobs and for servers, by audience; its keys are found by discovery.
#[tokio::test]
async fn online_asks_with_its_platforms_token() {
    let place = Place::of("verify-in-rust.md");
    let mine = place.path().join("mine");
    fs::copy(place.var("DAYFLY_CA"), mine.join("platform-ca.pem")).unwrap();
    let file = mine.join("shop.toml");
    let keys = "keys     = { discovery = true, ca_file = \"platform-ca.pem\", allow_private = true }";
    let platform = format!("url      = \"{}\"\n{keys}", place.var("DAYFLY_DEV_ISSUER"));
    let tables = fs::read_to_string(&file).unwrap();
    let moved = tables.replace("url      = \"https://cluster.shop.example.org\"", &platform);
    assert_ne!(moved, tables);
    fs::write(&file, moved).unwrap();
    dev::signal(place.dev.child(), Signal::HUP);
    dev::wait_until("the new bundle", || place.dev.said().contains("bundle loaded"));
    let shown = place.path().join("server.token");
    let platforms = |aud: &str| {
        let claims = format!(r#"{{"sub":"system:serviceaccount:shop-staging:deploy","aud":"{aud}"}}"#);
        fs::write(place.path().join("server.json"), claims).unwrap();
        let made = dev::good(place.path(), &["dev", "token", "--state", "state", "--claims", "server.json"]);
        fs::write(&shown, made).unwrap();
    };
    let settings = OnlineSettings {
        issuer: place.var("DAYFLY_ADDR"),
        audience: AUDIENCE.to_owned(),
        ca_pem: Some(fs::read(place.var("DAYFLY_CA")).unwrap()),
        credential: Credential::AssertionFile(shown.clone()),
        max_stale: Duration::ZERO,
    };
    let (online, token) = (Online::new(settings).await.unwrap(), place.token("first"));
    platforms("dayfly-introspection");
    assert!(online.check(&token).await.is_ok(), "{:?}", online.last_outage());
    platforms(&place.var("DAYFLY_ADDR"));
    assert_eq!(online.check(&token).await.unwrap_err(), Refused::Unavailable, "a job's token is no server's");
    assert_eq!(online.last_outage(), Some(Outage::Status(401)));
}

#[tokio::test]
async fn online_asks_with_a_key_of_its_own() {
    let place = Place::of("verify-in-rust.md");
    let settings = |client_id: &str| OnlineSettings {
        issuer: place.var("DAYFLY_ADDR"),
        audience: AUDIENCE.to_owned(),
        ca_pem: Some(fs::read(place.var("DAYFLY_CA")).unwrap()),
        credential: Credential::OwnKey { client_id: client_id.to_owned(), key_file: place.path().join("verifier.pem") },
        max_stale: Duration::ZERO,
    };
    let (first, second) = (place.token("first"), place.token("second"));
    let online = Online::new(settings("shop-server")).await.unwrap();
    assert!(online.check(&first).await.unwrap().claims().allows("deploy:status"));
    let stranger = Online::new(settings("another-server")).await.unwrap();
    assert_eq!(stranger.check(&first).await.unwrap_err(), Refused::Unavailable);
    assert_eq!(stranger.last_outage(), Some(Outage::Status(401)));
    place.end("first");
    assert_eq!(online.check(&first).await.unwrap_err(), Refused::Inactive);
    assert!(online.check(&second).await.is_ok());
    let Place { work, dev } = place;
    dev.end(Signal::KILL);
    assert_eq!(online.check(&second).await.unwrap_err(), Refused::Unavailable);
    drop(work);
}
