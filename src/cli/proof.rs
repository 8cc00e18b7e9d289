//! The key that this client's tokens and handles are bound to, and its proofs (RFC 9449).
//!
//! In come a PEM file and the requests that go out; out goes the value of their `DPoP` header.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use dayfly_domain::HANDLE_PREFIX;
use dayfly_verifier::{
    crypto::SigningKey,
    dpop::{ProofRules, prove},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{args::DoorArgs, failure::Failure, session::Vars};
use crate::sys::{clock::Clock, entropy, files};

/// Makes the proofs of one client for one broker.
#[derive(Debug)]
pub struct Prover {
    key: SigningKey,
    clock: Clock,
    /// What the broker last gave.
    nonce: Mutex<Option<String>>,
}

/// `--dpop-key`, otherwise `DAYFLY_DPOP_KEY`.
pub fn place(args: &DoorArgs, vars: &Vars) -> Option<PathBuf> {
    args.dpop_key.clone().or_else(|| vars.get("DAYFLY_DPOP_KEY").map(PathBuf::from))
}

/// Makes the key where there is none: mode 0600, PKCS#8 PEM, P-256.
pub fn make_if_absent(file: &Path) -> Result<(), Failure> {
    // A dangling link counts as there, so that it is told and not written over.
    if file.symlink_metadata().is_ok() {
        return Ok(());
    }
    let unmade = |error: &dyn std::fmt::Display| {
        Failure::failed(format!("the key `{}` cannot be made, so nothing is asked", file.display())).because(error)
    };
    let der = SigningKey::generate_pkcs8().map_err(|error| unmade(&error))?;
    files::write_atomic(file, pem(PRIVATE_KEY, der.expose()).as_bytes(), 0o600).map_err(|error| unmade(&error))
}

impl Prover {
    /// With the key of a file that must be there, and its owner's alone.
    pub fn load(file: &Path) -> Result<Self, Failure> {
        let shown = file.display();
        let unreadable = |error: io::Error| {
            Failure::usage(format!("the key `{shown}` cannot be read"))
                .because(error)
                .help("name the key that `dayfly token --dpop-key FILE` made for this task")
        };
        let bytes = files::read_capped(file).map_err(unreadable)?;
        files::require_private(file).map_err(unreadable)?;
        let no_key = || {
            Failure::usage(format!("`{shown}` holds no P-256 private key in PKCS#8 PEM"))
                .help("openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out FILE makes one")
        };
        let pem = Zeroizing::new(bytes);
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| no_key())?;
        let key = SigningKey::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| no_key())?;
        Ok(Self::new(key, Clock::Machine))
    }

    pub fn new(key: SigningKey, clock: Clock) -> Self {
        Self { key, clock, nonce: Mutex::default() }
    }

    /// A proof for one request, each time another. `token`: what goes with it.
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>) -> Result<String, Failure> {
        let unmade = |error: &dyn std::fmt::Display| Failure::failed("no proof can be made").because(error);
        let jti = URL_SAFE_NO_PAD.encode(entropy::bytes::<16>().map_err(|error| unmade(&error))?);
        let nonce = self.nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rules = ProofRules { method, url, token };
        prove(&self.key, &rules, nonce.as_deref(), &jti, self.clock.wall().as_s()).map_err(|error| unmade(&error))
    }

    /// Goes into every proof from now on.
    pub fn keep(&self, nonce: String) {
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(nonce);
    }
}

/// Whether a secret may be bound to a key: a token says so itself, of a handle only the broker knows.
/// Decides which scheme is tried, and nothing else.
pub fn may_be_bound(secret: &str) -> bool {
    secret.starts_with(HANDLE_PREFIX) || is_bound(secret)
}

/// Whether a token says that it is bound.
pub fn is_bound(token: &str) -> bool {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = payload.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    claims.is_some_and(|claims| claims.get("cnf").is_some())
}

/// RFC 7468.
/// PKCS#8.
pub const PRIVATE_KEY: &str = concat!("PRIVATE ", "KEY");

/// RFC 7468.
pub fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 65 / 64 + 2 * label.len() + 40));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("job.key");
        make_if_absent(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let made = std::fs::read(&file).unwrap();
        make_if_absent(&file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), made, "what is there stays");
        let prover = Prover::load(&file).unwrap();
        assert!(!format!("{prover:?}").contains("PRIVATE"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(Prover::load(&file).unwrap_err().exit(), 2);
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("job.key");
        assert!(Prover::load(&file).unwrap_err().text("error").contains("--dpop-key"), "it must be there");
        let no_key = pem(PRIVATE_KEY, b"secretsecret");
        for bad in ["", "secret", &no_key] {
            files::write_atomic(&file, bad.as_bytes(), 0o600).unwrap();
            let told = Prover::load(&file).unwrap_err().text("error");
            assert!(!told.contains("secret") && !told.contains("c2VjcmV0"), "{told}");
        }
    }

    #[test]
    fn the_option_beats_the_variable() {
        let vars = Vars::given(&[("DAYFLY_DPOP_KEY", "/v")]);
        let args = DoorArgs { dpop_key: Some("/o".into()), ..DoorArgs::default() };
        assert_eq!(place(&args, &vars), Some("/o".into()));
        assert_eq!(place(&DoorArgs::default(), &vars), Some("/v".into()));
        assert_eq!(place(&DoorArgs::default(), &Vars::given(&[])), None);
    }

    #[test]
    fn what_may_be_bound_is_known_by_its_form() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        assert!(is_bound(&token(r#"{"cnf":{"jkt":"x"}}"#)) && may_be_bound("dtc_x"));
        assert!(!is_bound(&token("{}")) && !is_bound("dtc_x") && !may_be_bound("a.b.c"));
    }
}
