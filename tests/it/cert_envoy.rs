//! The Envoy of docs/how-to/certificates-envoy.md, with the settings that stand there: it goes by files alone, and
//! knows nothing of the broker. In: services' certificates. Out: in, or not.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{
    cert_files::{Stage, openssl},
    dev::{good, text, wait_until},
    foreign::{self, skipped},
};

const PAGE: &str = include_str!("../../docs/how-to/certificates-envoy.md");

/// Around what the page has: a listener, and an answer for whoever is let in.
const BOOTSTRAP: &str = r#"
node: { id: orders, cluster: orders }
static_resources:
  listeners:
  - address: { pipe: { path: /run/orders/door } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: orders
          http_filters:
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            virtual_hosts:
            - name: orders
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                direct_response: { status: 200, body: { inline_string: "let in" } }
"#;

/// The page's settings under this name, for the folder of a test.
fn page(name: &str, run: &Path) -> String {
    let mut blocks = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    let named = blocks.find(|(block, _)| block.starts_with(&format!("# /etc/envoy/{name}")));
    let (block, _) = named.unwrap_or_else(|| panic!("the page has no {name}"));
    moved(block, run)
}

fn moved(settings: &str, run: &Path) -> String {
    let run = run.to_str().unwrap();
    settings.replace("/run/orders", run).replace("/etc/envoy", run)
}

struct Envoy(Child);

impl Envoy {
    fn start(run: &Path) -> Self {
        for name in ["own.yaml", "peers.yaml"] {
            fs::write(run.join(name), page(name, run)).unwrap();
        }
        let socket: String = page("envoy.yaml", run).lines().map(|line| format!("      {line}\n")).collect();
        fs::write(run.join("envoy.yaml"), format!("{}{socket}", moved(BOOTSTRAP, run))).unwrap();
        let mut command = foreign::envoy();
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning", "-c", "envoy.yaml"]);
        command.current_dir(run).stdin(Stdio::null()).stdout(Stdio::null());
        let log = fs::File::create(run.join("envoy.log")).unwrap();
        let mut started = Self(command.stderr(log).spawn().unwrap());
        wait_until("envoy", || {
            let over = started.0.try_wait().unwrap();
            assert!(over.is_none(), "{}", fs::read_to_string(run.join("envoy.log")).unwrap());
            UnixStream::connect(run.join("door")).is_ok()
        });
        started
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the server says to whoever shows these, and what its own certificate is checked for.
fn called(work: &Path, shown: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "10", "--unix-socket", "run/door", "--cacert", "run/gate.ca"]);
    let output = curl.args(shown).arg("https://localhost/").current_dir(work).output().unwrap();
    text(&output.stdout).to_owned() + text(&output.stderr)
}

fn fetch_lists(stage: &Stage) {
    fs::write(stage.at("run/bundle.crl.new"), stage.public("/pki/bundle.crl")).unwrap();
    fs::rename(stage.at("run/bundle.crl.new"), stage.at("run/bundle.crl")).unwrap();
}

/// The serial number of the first certificate in what is printed, or in a file.
fn serial(work: &Path, of: &[&str]) -> Option<String> {
    let (_, printed) = openssl(of, work);
    fs::write(work.join("seen.pem"), printed).unwrap();
    let (read, serial) = openssl(&["x509", "-noout", "-serial", "-in", "seen.pem"], work);
    read.then_some(serial)
}

#[test]
fn envoy_takes_renewed_files_and_lets_in_who_has_a_live_certificate_until_its_end_is_listed() {
    if ["python", "curl", "openssl"].into_iter().any(skipped) {
        return;
    }
    let stage = Stage::new();
    let work = stage.work();
    fs::create_dir(stage.at("run")).unwrap();
    let own = |task: &str| {
        let files = ["--out", "run/gate", "--layout", "split", "--task-file", task];
        let output = stage.cert("orders-gate", &files).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    own("first.task");
    stage.issued(&["--out", "tls", "--layout", "split"]);
    stage.issued(&["--out", "other", "--layout", "split"]);
    fetch_lists(&stage);
    let _envoy = Envoy::start(&stage.at("run"));
    let (shown, other) = (["--cert", "tls.crt", "--key", "tls.key"], ["--cert", "other.crt", "--key", "other.key"]);
    assert_eq!(called(work, &shown), "let in");
    // Why, is not always read before the connection is gone.
    assert_ne!(called(work, &[]), "let in", "nobody");
    let gate = ["--cert", "run/gate.crt", "--key", "run/gate.key"];
    assert_ne!(called(work, &gate), "let in", "of another template");

    own("second.task");
    let renewed = serial(work, &["x509", "-in", "run/gate.crt"]).unwrap();
    let hello = ["s_client", "-unix", "run/door", "-cert", "tls.crt", "-key", "tls.key"];
    wait_until("the renewed certificate", || serial(work, &hello).as_ref() == Some(&renewed));

    good(work, &["task", "end", "--task-file", "tls.task"]);
    wait_until("the refusal", || {
        fetch_lists(&stage);
        called(work, &shown).contains("certificate revoked")
    });
    assert_eq!(called(work, &other), "let in", "of another task");
}
