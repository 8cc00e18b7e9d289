//! All that a broker of our own starts with, in a folder that is gone afterwards: an authority and
//! a certificate, a bundle with its key sets, the settings; where it issues certificates, what its ceremony needs.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The broker's own name, in its tokens and in its certificate.
pub(crate) const HOST: &str = "dayfly.bench.test";
pub(crate) const ISSUER: &str = "https://dayfly.bench.test";
/// Of the evidence: the profile's own.
pub(crate) const GITHUB: &str = "https://token.actions.githubusercontent.com";
/// The resource server that introspects: its `client_id`.
pub(crate) const VERIFIER: &str = "shop-api";
pub(crate) const TEMPLATE: &str = "deploy";
/// The same for a certificate.
pub(crate) const CERTIFIED_TEMPLATE: &str = "migrate";
/// Who has all of it.
pub(crate) const OWNER: &str = "team-shop";
pub(crate) const OWNER_ID: &str = "4411";
pub(crate) const REPOSITORY_ID: &str = "88120";

/// A template with the longest life there is, on a target that takes bearer tokens.
const BUNDLE: &str = r#"format       = 1
trust_domain = "bench.test"

[owner.team-shop]

[issuer.github]
profile = "github"
owner   = "team-shop"
keys    = { jwks_file = "github.json" }
pin     = { repository_owner_id = "4411" }

[issuer.shop-api]
profile = "oidc"
owner   = "team-shop"
kind    = "verifier"
url     = "shop-api"
algs    = ["ES256"]
keys    = { jwks_file = "shop-api.json" }

[target.shop]
uri         = "https://deploy.shop.bench.test"
environment = "staging"
owner       = "team-shop"
binding     = "bearer"
verifies    = "introspect"
actions     = ["deploy:create", "deploy:status"]
max_ttl     = "1d"

[[target.shop.verifier]]
issuer = "shop-api"

[task.deploy]
purpose   = "release the shop"
owner     = "team-shop"
grants    = { shop = ["deploy:create", "deploy:status"] }
ttl       = "1d"
per_job   = 1000
review_by = 2099-12-31

[[task.deploy.allow]]
id     = "shop-main"
issuer = "github"
claims = { repository_id = "88120", ref = "refs/heads/main", environment = "staging" }
"#;

/// A server that asks for certificates.
const CERTIFIED: &str = r#"
[target.db]
uri         = "https://db.shop.bench.test"
environment = "staging"
owner       = "team-shop"
binding     = "mtls"
verifies    = "crl"
actions     = ["db:migrate", "db:read"]
max_ttl     = "1d"

[task.migrate]
purpose   = "change the tables of the shop"
owner     = "team-shop"
grants    = { db = ["db:migrate", "db:read"] }
ttl       = "1d"
per_job   = 1000
review_by = 2099-12-31

[[task.migrate.allow]]
id     = "shop-main-migrates"
issuer = "github"
claims = { repository_id = "88120", ref = "refs/heads/main", environment = "staging" }
"#;

const PINNED: &str = r#"{ jwks_file = "github.json" }"#;
const DISCOVERED: &str = r#"{ discovery = true, ca_file = "github-ca.pem" }"#;

/// What a broker is to be beside one that issues tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Extras<'a> {
    /// The platform's keys are found by discovery, under this authority.
    pub ca_pem: Option<&'a str>,
    /// It issues certificates, and what is public of its authority is served here without TLS.
    pub public: Option<SocketAddr>,
}

/// The folder, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: TempDir,
    pub ca_pem: String,
}

impl Folder {
    /// `github` and `verifier` are the public halves of the keys that sign.
    pub fn make(github: &Value, verifier: &Value, Extras { ca_pem, public }: Extras<'_>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("dayfly-bench-").tempdir()?;
        let top = dir.path();
        let policies = top.join("policies");
        fs::DirBuilder::new().mode(0o700).create(&policies)?;
        let mut bundle = match ca_pem {
            None => BUNDLE.to_owned(),
            Some(_) => BUNDLE.replace(PINNED, DISCOVERED),
        };
        if public.is_some() {
            bundle.push_str(CERTIFIED);
        }
        fs::write(policies.join("bench.toml"), bundle)?;
        fs::write(policies.join("github-ca.pem"), ca_pem.unwrap_or_default())?;
        fs::write(policies.join("github.json"), json!({ "keys": [github] }).to_string())?;
        fs::write(policies.join("shop-api.json"), json!({ "keys": [verifier] }).to_string())?;
        let ca_pem = certify(top).map_err(io::Error::other)??;
        let mut settings = settings(top);
        if let Some(public) = public {
            settings.push_str(&authority(top, public)?);
        }
        fs::write(top.join("dayfly.toml"), settings)?;
        Ok(Self { dir, ca_pem })
    }

    /// What `dayfly ca init` is told, beside its settings.
    pub fn ceremony(&self) -> [PathBuf; 2] {
        ["vault/root.key", PASSPHRASE].map(|name| self.dir.path().join(name))
    }

    pub fn settings(&self) -> PathBuf {
        self.dir.path().join("dayfly.toml")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("state/dayfly.sock")
    }
}

fn settings(top: &Path) -> String {
    let top = top.display();
    format!(
        "issuer = \"{ISSUER}\"\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\n\
         state_dir = \"{top}/state\"\npolicies_dir = \"{top}/policies\"\n\
         [tls]\ncert_file = \"{top}/tls.pem\"\nkey_file = \"{top}/tls.key\"\n\
         # A load generator is one address and few workloads: what it measures is not the limits.\n\
         [limits]\naddress_rate_per_s = 1000000\naddress_burst = 1000000\nworkload_rate_per_s = 1000000\n\
         workload_burst = 1000000\nstorm_per_minute = 1000000000\nowner_leases = 100000000\n\
         workload_leases = 100000000\n"
    )
}

const PASSPHRASE: &str = "passphrase";

/// Of the broker that issues certificates: its settings, and the secrets of its ceremony.
fn authority(top: &Path, public: SocketAddr) -> io::Result<String> {
    fs::DirBuilder::new().mode(0o700).create(top.join("vault"))?;
    write_private(&top.join("seal.key"), "5ea1".repeat(16).as_bytes())?;
    write_private(&top.join(PASSPHRASE), b"correct horse battery staple\n")?;
    let seal = top.join("seal.key");
    let seal = seal.display();
    Ok(format!("[pki]\nurl = \"http://{public}\"\nlisten = \"{public}\"\nseal = \"file:{seal}\"\n"))
}

/// An authority, and the listener's certificate from it.
fn certify(top: &Path) -> Result<io::Result<String>, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca_key = KeyPair::generate()?;
    let ca_pem = params.self_signed(&ca_key)?.pem();
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![HOST.to_owned()])?.signed_by(&key, &Issuer::new(params, ca_key))?;
    let written = fs::write(top.join("tls.pem"), leaf.pem());
    let written = written.and_then(|()| write_private(&top.join("tls.key"), key.serialize_pem().as_bytes()));
    Ok(written.map(|()| ca_pem))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}
