//! Who signs what a broker is shown: an RSA key as platforms have one, made when the bench runs,
//! and the key of a verifier. Evidence is signed before the clock starts.

use std::{
    io,
    process::{Command, Stdio},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::PublicKeyData;
use ring::{
    rsa::{KeyPair, PublicKeyComponents},
    signature::RSA_PKCS1_SHA256,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    folder::{GITHUB, ISSUER, OWNER_ID, REPOSITORY_ID, VERIFIER},
    sys,
};

const KID: &str = "38826b17-6a30-5f9b-b169-8beb8202f723";

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("`openssl` makes the RSA key that signs evidence, and it cannot be run: {0}")]
    NoOpenssl(io::Error),
    #[error("`openssl genpkey` made no RSA key")]
    Openssl,
    #[error("the key cannot be used")]
    Key,
    #[error("nothing could be signed")]
    Sign,
}

/// Stands in for the platform that signs the evidence of its jobs.
#[derive(Debug, Clone)]
pub(crate) struct Platform(Arc<KeyPair>);

impl Platform {
    /// 2048 bits, as GitHub has. The library that signs cannot make such a key.
    pub fn make() -> Result<Self, EvidenceError> {
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        let made = openssl.stdin(Stdio::null()).stderr(Stdio::null()).output().map_err(EvidenceError::NoOpenssl)?;
        if !made.status.success() {
            return Err(EvidenceError::Openssl);
        }
        // As PEM: of DER, versions of the program disagree on which of two forms it is.
        let der = PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).map_err(|_| EvidenceError::Openssl)?;
        let pair = KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| EvidenceError::Key)?;
        Ok(Self(Arc::new(pair)))
    }

    pub fn jwk(&self) -> Value {
        let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(self.0.public());
        json!({ "kty": "RSA", "n": encoded(&n), "e": encoded(&e), "kid": KID, "use": "sig", "alg": "RS256" })
    }

    /// Evidence of job `number`, two kilobytes like GitHub's.
    pub fn sign(&self, number: usize, now_s: i64) -> Result<String, EvidenceError> {
        let header = json!({ "alg": "RS256", "kid": KID, "typ": "JWT", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE" });
        let mut token = joined(&header, &claims(number, now_s));
        let mut signature = vec![0; self.0.public().modulus_len()];
        let signed = self.0.sign(&RSA_PKCS1_SHA256, &sys::random(), token.as_bytes(), &mut signature);
        signed.map_err(|_| EvidenceError::Sign)?;
        token.push('.');
        token.push_str(&encoded(&signature));
        Ok(token)
    }
}

/// The members that GitHub writes.
fn claims(number: usize, now_s: i64) -> Value {
    let run = (9_000_000_000_u64 + number as u64).to_string();
    let sha = "0f2d8c9f6cf1a3d5b8f5d2d5a1f0c2b1a9d8e7f6";
    let workflow = "shop-bench/storefront/.github/workflows/release.yml@refs/heads/main";
    json!({
        "jti": format!("6f4ec5d0-2a91-4b6e-9df1-{number:012x}"),
        "sub": "repo:shop-bench/storefront:environment:staging",
        "aud": ISSUER,
        "ref": "refs/heads/main",
        "sha": sha,
        "repository": "shop-bench/storefront",
        "repository_owner": "shop-bench",
        "repository_owner_id": OWNER_ID,
        "run_id": run,
        "run_number": number.to_string(),
        "run_attempt": "1",
        "check_run_id": (40_000_000_000_u64 + number as u64).to_string(),
        "repository_visibility": "private",
        "repository_id": REPOSITORY_ID,
        "actor_id": "583231",
        "actor": "octo-deployer",
        "workflow": "Release the storefront",
        "head_ref": "",
        "base_ref": "",
        "event_name": "push",
        "enterprise": "shop-bench-enterprise",
        "enterprise_id": "2317",
        "ref_protected": "true",
        "ref_type": "branch",
        "workflow_ref": workflow,
        "workflow_sha": sha,
        "job_workflow_ref": workflow,
        "job_workflow_sha": sha,
        "runner_environment": "github-hosted",
        "environment": "staging",
        "environment_node_id": "EN_kwDOABCDEF4AAAABCDEFGH",
        "issuer_scope": "enterprise",
        "iss": GITHUB,
        "nbf": now_s - 300,
        "exp": now_s + 3_600,
        "iat": now_s,
    })
}

/// A resource server with a key of its own.
pub(crate) struct Verifier(rcgen::KeyPair);

impl Verifier {
    pub fn make() -> Result<Self, EvidenceError> {
        rcgen::KeyPair::generate().map(Self).map_err(|_| EvidenceError::Key)
    }

    pub fn jwk(&self) -> Value {
        let point = self.0.der_bytes();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": VERIFIER, "use": "sig", "alg": "ES256" })
    }

    /// The `client_assertion` of its introspections (RFC 7523).
    pub fn assertion(&self, now_s: i64) -> Result<String, EvidenceError> {
        let header = json!({ "alg": "ES256", "kid": VERIFIER, "typ": "JWT" });
        let claims = json!({
            "iss": VERIFIER, "sub": VERIFIER, "aud": ISSUER, "jti": format!("bench-{now_s}"),
            "iat": now_s, "exp": now_s + 3_600,
        });
        let token = joined(&header, &claims);
        let pair = ring::signature::EcdsaKeyPair::from_pkcs8(
            &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            self.0.serialized_der(),
            &sys::random(),
        );
        let signature = pair.ok().and_then(|pair| pair.sign(&sys::random(), token.as_bytes()).ok());
        let signature = signature.ok_or(EvidenceError::Sign)?;
        Ok(format!("{token}.{}", encoded(signature.as_ref())))
    }
}

fn joined(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()))
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
