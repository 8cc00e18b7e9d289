//! The folder that `dev` works in: what lies where, and what is kept from one start to the next.
//!
//! Addresses have a file of their own; everything secret of the stand-in is in one file that is
//! written whole, once.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_domain::{Name, UnixMs};
use dayfly_verifier::crypto::SigningKey;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::authority::Authority;
use crate::{cli::failure::Failure, sys::files};

/// The files below the folder; the store's own are named by `run` and `mint`.
const ADDRESSES: &str = "dev-addresses.json";
const KEYS: &str = "dev-keys.json";
const ISSUER: &str = "dev-issuer.json";

/// A folder of `dev`, by its absolute path.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

/// Where everything listens. Kept: a restart is at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    pub broker: SocketAddr,
    pub stand_in: SocketAddr,
    pub metrics: SocketAddr,
    /// What is public of the authority; absent where an older `dev` wrote the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki: Option<SocketAddr>,
}

/// The issuer that is played, as `dev token` needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Played {
    pub name: Name,
    /// The stand-in's URL.
    pub url: String,
    /// What the issuer's table wants as `aud`.
    pub audience: String,
    /// The `typ` header that the issuer takes.
    pub typ: String,
}

/// The keys of `dev`: its certificate authority, the stand-in, the issuer of the operator.
#[derive(Debug)]
pub struct Keys {
    pub authority: Authority,
    pub stand_in: SigningKey,
    pub operator: SigningKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptKeys {
    ca_cert: String,
    ca_key: Zeroizing<String>,
    stand_in: Zeroizing<String>,
    operator: Zeroizing<String>,
}

impl Addresses {
    /// The broker's own name.
    pub fn issuer_url(&self) -> String {
        format!("https://{}", self.broker)
    }

    pub fn stand_in_url(&self) -> String {
        format!("https://{}", self.stand_in)
    }

    /// Plain http: it stands in certificates.
    pub fn pki_url(&self) -> Option<String> {
        self.pki.map(|address| format!("http://{address}"))
    }

    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.metrics)
    }
}

impl Home {
    /// The folder may not exist yet.
    pub fn at(dir: &Path) -> Result<Self, Failure> {
        let absolute = std::path::absolute(dir);
        absolute.map(Self).map_err(|error| unusable(dir, &error))
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn ca_file(&self) -> PathBuf {
        self.0.join("dev-ca.pem")
    }

    pub fn claims_file(&self) -> PathBuf {
        self.0.join("dev-claims.json")
    }

    pub fn operator_token_file(&self) -> PathBuf {
        self.0.join("dev-operator.token")
    }

    pub fn env_file(&self) -> PathBuf {
        self.0.join("dev.env")
    }

    pub fn addresses(&self) -> Result<Option<Addresses>, Failure> {
        self.read(ADDRESSES)
    }

    pub fn keep_addresses(&self, addresses: &Addresses) -> Result<(), Failure> {
        self.write(ADDRESSES, addresses)
    }

    pub fn played(&self) -> Result<Option<Played>, Failure> {
        self.read(ISSUER)
    }

    pub fn keep_played(&self, played: &Played) -> Result<(), Failure> {
        self.write(ISSUER, played)
    }

    /// The keys of an earlier start.
    pub fn keys(&self) -> Result<Option<Keys>, Failure> {
        let path = self.0.join(KEYS);
        if path.exists() {
            files::require_private(&path).map_err(|error| unusable(&path, &error))?;
        }
        let kept: Option<KeptKeys> = self.read(KEYS)?;
        kept.map(|kept| kept.read().ok_or_else(|| broken(&path))).transpose()
    }

    /// The keys of an earlier start, or new ones, which are kept.
    pub fn keys_or_new(&self, now: UnixMs) -> Result<Keys, Failure> {
        if let Some(keys) = self.keys()? {
            return Ok(keys);
        }
        let kept = KeptKeys::generate(now)?;
        self.write(KEYS, &kept)?;
        kept.read().ok_or_else(|| broken(&self.0.join(KEYS)))
    }

    /// Writes a file of the folder whole, readable by its owner alone.
    pub fn put(&self, path: &Path, text: &str) -> Result<(), Failure> {
        files::write_atomic(path, text.as_bytes(), 0o600).map_err(|error| unusable(path, &error))
    }

    /// Nobody may think that what an earlier start wrote is ready.
    pub fn forget_env(&self) -> Result<(), Failure> {
        match fs::remove_file(self.env_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(&self.env_file(), &error)),
            _ => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let path = self.0.join(name);
        let bytes = match files::read_capped(&path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error)),
        };
        // The parser's own words may quote what it read.
        serde_json::from_slice(&bytes).map(Some).map_err(|_| broken(&path))
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Failure> {
        let text = Zeroizing::new(serde_json::to_string_pretty(value).expect("plain members become JSON"));
        self.put(&self.0.join(name), &format!("{}\n", *text))
    }
}

impl KeptKeys {
    fn generate(now: UnixMs) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed("no keys can be made").because(error);
        let authority = Authority::generate(now).map_err(|error| failed(&error))?;
        let key = || {
            let der = SigningKey::generate_pkcs8().map_err(|error| failed(&error))?;
            Ok::<_, Failure>(Zeroizing::new(STANDARD.encode(der.expose())))
        };
        Ok(Self { ca_cert: authority.cert_pem, ca_key: authority.key_pem, stand_in: key()?, operator: key()? })
    }

    fn read(self) -> Option<Keys> {
        let key = |text: &str| SigningKey::from_pkcs8(&Zeroizing::new(STANDARD.decode(text).ok()?)).ok();
        let (stand_in, operator) = (key(&self.stand_in)?, key(&self.operator)?);
        let authority = Authority { cert_pem: self.ca_cert, key_pem: self.ca_key };
        Some(Keys { authority, stand_in, operator })
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("`{}` is not usable", path.display())).because(error)
}

fn broken(path: &Path) -> Failure {
    Failure::failed(format!("`{}` is not what `dayfly dev` writes", path.display()))
        .help("start with another --state folder, or remove this one")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        (dir, home)
    }

    #[test]
    fn addresses_come_back_as_they_were_kept() {
        let (_dir, home) = home();
        assert_eq!(home.addresses().unwrap(), None);
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let addresses = Addresses { broker: at(1), stand_in: at(2), metrics: at(3), pki: Some(at(5)) };
        home.keep_addresses(&addresses).unwrap();
        assert_eq!(home.addresses().unwrap(), Some(addresses));
        assert_eq!(addresses.issuer_url(), "https://127.0.0.1:1");
        let six = Addresses { broker: "[::1]:4".parse().unwrap(), ..addresses };
        assert_eq!(six.issuer_url(), "https://[::1]:4");
    }

    #[test]
    fn keys_are_made_once_and_private() {
        let (_dir, home) = home();
        assert!(home.keys().unwrap().is_none());
        let now = UnixMs::from_s(1_800_000_000);
        let (first, again) = (home.keys_or_new(now).unwrap(), home.keys_or_new(now).unwrap());
        assert_eq!((first.stand_in.kid(), first.operator.kid()), (again.stand_in.kid(), again.operator.kid()));
        assert_eq!(first.authority.cert_pem, again.authority.cert_pem);
        assert_ne!(first.stand_in.kid(), first.operator.kid());
        let mode = fs::metadata(home.dir().join(KEYS)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn keys_that_others_may_read_are_refused() {
        let (_dir, home) = home();
        home.keys_or_new(UnixMs::from_s(1_800_000_000)).unwrap();
        files::set_mode(&home.dir().join(KEYS), 0o644).unwrap();
        assert!(home.keys().unwrap_err().text("error").contains("chmod 0600"));
    }

    #[test]
    fn a_broken_key_file_is_not_quoted() {
        let (_dir, home) = home();
        home.put(&home.dir().join(KEYS), "{\"ca_cert\": 1, \"secret\": \"canary\"}").unwrap();
        let said = home.keys().unwrap_err().text("error");
        assert!(said.contains("dev-keys.json") && !said.contains("canary"), "{said}");
    }
}
