//! What stories of certificates share: a bundle with servers that take them, requests for them, and the
//! real `openssl`.

use std::process::{Command, Stdio};

use axum::{body::Body, http::Request};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    flow::{Exchange, Issued, Refused, Subject},
    policy::{Ask, What},
};
use dayfly_domain::Kind;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SigningKey};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::world::{Job, World, ask, form, secret};

pub const X509: &str = "urn:dayfly:token-type:x509";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub const HANDLE: &str = "urn:dayfly:token-type:task-control";
pub const DB_URI: &str = "https://db.example.org";
pub const NAME: &str = "spiffe://example.org/migrate/ci/shop";

/// The test world with a database that takes certificates, and a service that has names.
pub const CERT_BUNDLE: &str = concat!(
    include_str!("world.toml"),
    r#"
[target.db]
uri         = "https://db.example.org"
environment = "staging"
owner       = "team-shop"
binding     = "mtls"
verifies    = "crl"
actions     = ["db:migrate", "db:read"]
reads       = ["db:read"]

[target.mesh]
uri         = "https://mesh.example.org"
environment = "staging"
owner       = "team-shop"
binding     = "mtls"
verifies    = "introspect"
actions     = ["mesh:call"]

[task.migrate]
purpose   = "change the tables"
owner     = "team-shop"
grants    = { db = ["db:migrate", "db:read"] }
ttl       = "15m"
deadline  = "1h"
review_by = 2099-01-01

[[task.migrate.allow]]
id     = "shop-migrates"
issuer = "ci"
claims = { sub = "shop" }

[task.peek]
purpose   = "look at the tables"
owner     = "team-shop"
grants    = { db = ["db:read"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.peek.allow]]
id        = "forks-peek"
issuer    = "ci"
claims    = { sub = "fork" }
untrusted = true

[task.serve]
purpose   = "answer the mesh"
owner     = "team-shop"
grants    = { mesh = ["mesh:call"] }
serves    = ["api.example.org", "api"]
ttl       = "15m"
review_by = 2099-01-01

[[task.serve.allow]]
id     = "shop-serves"
issuer = "ci"
claims = { sub = "shop" }

[task.oldkeys]
purpose   = "change the tables with other keys"
owner     = "team-shop"
grants    = { db = ["db:migrate"] }
leaf      = "any-key"
ttl       = "15m"
review_by = 2099-01-01

[[task.oldkeys.allow]]
id     = "shop-oldkeys"
issuer = "ci"
claims = { sub = "shop" }

[task.both]
purpose   = "two servers at once"
owner     = "team-shop"
grants    = { db = ["db:read"], mesh = ["mesh:call"] }
ttl       = "15m"
review_by = 2099-01-01

[[task.both.allow]]
id     = "shop-both"
issuer = "ci"
claims = { sub = "shop" }
"#
);

/// A fresh P-256 key.
pub fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// A request that asks for nothing.
pub fn csr(key: &KeyPair) -> String {
    csr_of(key, |_| ())
}

/// A request that asks for something.
pub fn csr_of(key: &KeyPair, with: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    with(&mut params);
    URL_SAFE_NO_PAD.encode(params.serialize_request(key).unwrap().der())
}

/// All that a template grants on its one target, as a certificate.
pub fn ask_x509(template: &str) -> Ask {
    let what = What::Credential { kind: Kind::X509, resource: None, actions: None };
    Ask { what, ..ask(template) }
}

/// Opens a task with fresh evidence, for a certificate.
pub async fn open(world: &mut World, job: &Job, template: &str, csr: &str) -> Result<Issued, Refused> {
    let subject = Subject::Evidence { token: secret(&world.evidence(job)), control_s256: None };
    let csr = Some(csr.to_owned());
    world.flow.exchange(Exchange { subject, ask: ask_x509(template), possession: None, csr }).await
}

/// A further certificate of the handle's task.
pub async fn feed(world: &World, handle: &str, supersede_s: Option<u8>, csr: &str) -> Result<Issued, Refused> {
    let subject = Subject::Handle { handle: secret(handle), supersede_s };
    let csr = Some(csr.to_owned());
    world.flow.exchange(Exchange { subject, ask: ask_x509(""), possession: None, csr }).await
}

/// The same over HTTP; `subject`: its type and itself.
pub fn asked(subject: (&str, &str), csr: &str, more: &[(&str, &str)]) -> Request<Body> {
    let mut fields = vec![("grant_type", EXCHANGE), ("subject_token_type", subject.0), ("subject_token", subject.1)];
    fields.extend([("requested_token_type", X509), ("csr", csr)]);
    fields.extend(more);
    form("/oauth2/token", None, &fields)
}

/// The certificates of a chain, the leaf first.
pub fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|read| read.unwrap()).collect()
}

pub fn pem(der: &[u8]) -> String {
    let lines = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

/// Runs the real `openssl`; what it says, and whether it was content.
pub fn openssl(arguments: &[&str]) -> (bool, String) {
    let run = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = [run.stdout, run.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (run.status.success(), text.concat())
}

/// One element of DER.
pub fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len();
    let head = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content].concat()
}

pub const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A request by hand, so that each part of it can be broken.
pub struct Hand {
    pub version: Vec<u8>,
    pub subject: Vec<u8>,
    pub spki: Vec<u8>,
    pub attributes: Vec<u8>,
    pub algorithm: Vec<u8>,
}

impl Hand {
    pub fn of(key: &KeyPair) -> Self {
        Self {
            version: der(0x02, &[&[0]]),
            subject: der(0x30, &[]),
            spki: key.subject_public_key_info(),
            attributes: der(0xa0, &[]),
            algorithm: ECDSA_SHA256.to_vec(),
        }
    }

    /// With extensions: identifier octets, and the value.
    pub fn asking(key: &KeyPair, extensions: &[(&[u8], Vec<u8>)]) -> Self {
        let one = |(id, value): &(&[u8], Vec<u8>)| der(0x30, &[&der(0x06, &[id]), &der(0x04, &[value])]);
        let all = der(0x30, &[&extensions.iter().flat_map(one).collect::<Vec<u8>>()]);
        Self { attributes: der(0xa0, &[&attribute(EXTENSION_REQUEST, &all)]), ..Self::of(key) }
    }

    pub fn info(&self) -> Vec<u8> {
        der(0x30, &[&self.version, &self.subject, &self.spki, &self.attributes])
    }

    /// Signed with this key.
    pub fn by(&self, key: &KeyPair) -> Vec<u8> {
        self.with(&SigningKey::sign(key, &self.info()).unwrap())
    }

    pub fn with(&self, signature: &[u8]) -> Vec<u8> {
        der(0x30, &[&self.info(), &self.algorithm, &der(0x03, &[&[0], signature])])
    }
}

pub const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

/// An attribute with one value.
pub fn attribute(id: &[u8], value: &[u8]) -> Vec<u8> {
    der(0x30, &[&der(0x06, &[id]), &der(0x31, &[value])])
}

/// As the form takes it.
pub fn text(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(der)
}
