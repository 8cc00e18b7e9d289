//! `dayfly serve` as a company runs it, in a folder of its own: settings, TLS under an authority of
//! the test, a bundle made of text. Stories call it over HTTPS and over its socket.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
};

use dayfly::sys::net::{Answer, Client};
use http_body_util::Full;
use hyper::Request;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustix::process::Signal;
use serde_json::Value;

use super::dev::{self, wait_until};

/// An authority that exists only in this test, and a certificate for loopback under it.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        // OpenSSL takes a leaf of its authority's very name for a self-signed one.
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes `NAME.cert` and `NAME.key` for 127.0.0.1.
    pub fn write_leaf(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        self.write_leaf_with(dir, name, |_| {})
    }

    /// The same, changed before it is signed.
    pub fn write_leaf_with(
        &self,
        dir: &Path,
        name: &str,
        change: impl Fn(&mut CertificateParams),
    ) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        change(&mut params);
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let (cert, private) = (dir.join(format!("{name}.cert")), dir.join(format!("{name}.key")));
        fs::write(&cert, leaf.pem()).unwrap();
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&private).unwrap();
        std::io::Write::write_all(&mut file, key.serialize_pem().as_bytes()).unwrap();
        (cert, private)
    }
}

/// A running `dayfly serve`, ended with the test.
pub struct Served {
    child: Child,
    work: PathBuf,
    pub issuer: String,
    ops: std::net::SocketAddr,
    ca: String,
    env: Vec<(String, String)>,
}

impl Served {
    /// A broker that has never run, at an address of its own. `bundle` is given the issuer's URL.
    pub fn first(work: &Path, authority: &Authority, bundle: impl FnOnce(&str) -> String) -> Self {
        Self::first_in(&[], work, authority, bundle)
    }

    /// The same with these variables.
    pub fn first_in(
        env: &[(&str, &str)],
        work: &Path,
        authority: &Authority,
        bundle: impl FnOnce(&str) -> String,
    ) -> Self {
        Self::laid(env, work, authority, bundle, "", |_| ())
    }

    /// With more settings, and what is done once they are there and before the start.
    pub fn first_with(work: &Path, authority: &Authority, bundle: &str, more: &str, then: impl FnOnce(&Path)) -> Self {
        Self::laid(&[], work, authority, |_| bundle.to_owned(), more, then)
    }

    /// With all of that.
    pub fn laid(
        env: &[(&str, &str)],
        work: &Path,
        authority: &Authority,
        bundle: impl FnOnce(&str) -> String,
        more: &str,
        then: impl FnOnce(&Path),
    ) -> Self {
        let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // The issuer's URL has the port in it, so it is picked before the broker runs.
        let [listen, ops] = free_addresses();
        let issuer = format!("https://{listen}");
        let (cert, key) = authority.write_leaf(work, "broker");
        fs::create_dir(work.join("bundle")).unwrap();
        fs::write(work.join("bundle/bundle.toml"), bundle(&issuer)).unwrap();
        let settings = format!(
            "issuer = '{issuer}'\nlisten = '{listen}'\nmetrics_listen = '{ops}'\nstate_dir = '{}'\npolicies_dir = '{}'\n\
             [tls]\ncert_file = '{}'\nkey_file = '{}'\n{more}",
            work.join("state").display(),
            work.join("bundle").display(),
            cert.display(),
            key.display()
        );
        fs::write(work.join("dayfly.toml"), settings).unwrap();
        then(work);
        let child = Self::spawn(work, &env);
        Self { child, work: work.to_owned(), issuer, ops, ca: authority.pem(), env }
    }

    fn spawn(work: &Path, env: &[(String, String)]) -> Child {
        let said = work.join("broker.said");
        let mut command = dev::dayfly(&["serve", "--config", "dayfly.toml"]);
        command.envs(env.iter().cloned());
        command.current_dir(work).stdout(Stdio::null()).stderr(fs::File::create(&said).unwrap());
        let mut child = command.spawn().unwrap();
        wait_until("the broker", || {
            let text = fs::read_to_string(&said).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "{text}");
            text.contains(" is served at ")
        });
        child
    }

    /// What the broker said since its last start.
    pub fn said(&self) -> String {
        fs::read_to_string(self.work.join("broker.said")).unwrap()
    }

    /// Bundle and certificate again.
    pub fn reload(&self) {
        dev::signal(&self.child, Signal::HUP);
    }

    /// What health and metrics say at a path, status line and headers with it.
    pub fn ops(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.ops).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.ops);
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        answer
    }

    pub fn stop(&mut self) -> ExitStatus {
        dev::signal(&self.child, Signal::TERM);
        self.child.wait().unwrap()
    }

    /// Stops and starts on the same state: whatever it kept only in memory is gone.
    pub fn restart(&mut self) {
        assert!(self.stop().success(), "{}", self.said());
        self.restart_after_stop();
    }

    pub fn restart_after_stop(&mut self) {
        self.child = Self::spawn(&self.work, &self.env);
    }

    pub fn post(&self, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        told(&send(&Client::https(&self.issuer, Some(self.ca.clone().into())).unwrap(), form(path, fields)))
    }

    /// As the local operator, over the socket.
    pub fn post_local(&self, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
        told(&send(&Client::socket(self.work.join("state/dayfly.sock")), form(path, fields)))
    }

    /// Whether a token is active now.
    pub fn active(&self, token: &str) -> bool {
        let (status, answer) = self.post_local("/oauth2/introspect", &[("token", token)]);
        assert_eq!(status, 200, "{answer}");
        answer["active"].as_bool().unwrap()
    }

    /// Standard output of a verb of the operator on this machine, which must succeed.
    pub fn verb(&self, args: &[&str]) -> String {
        let output = dev::dayfly(args).current_dir(&self.work).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", dev::text(&output.stderr));
        dev::text(&output.stdout).to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends one request and waits for its answer, also where another runtime is at work.
pub fn send(client: &Client, request: Request<Full<hyper::body::Bytes>>) -> Answer {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sending = || runtime().block_on(client.send(request)).unwrap();
    std::thread::scope(|scope| scope.spawn(sending).join().unwrap())
}

pub fn form(path: &str, fields: &[(&str, &str)]) -> Request<Full<hyper::body::Bytes>> {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    let body = Full::from(pairs.join("&"));
    Request::post(path).header("content-type", "application/x-www-form-urlencoded").body(body).unwrap()
}

pub fn told(answer: &Answer) -> (u16, Value) {
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

fn percent(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// An address on loopback that nobody had a moment ago.
pub fn free_address() -> std::net::SocketAddr {
    free_addresses()[0]
}

/// Two addresses on loopback that nobody had a moment ago.
fn free_addresses() -> [std::net::SocketAddr; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap())
}
