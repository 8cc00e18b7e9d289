//! `[pki]`: where what is public of the authority is fetched, where its folder is, and what its keys are
//! sealed under. The seal key itself never stands in the settings.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer};

use super::{Pkcs11Uri, issuer};

/// Of the authority that `dayfly ca init` made; without this table no certificates are issued.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pki {
    /// `http://pki.example.org`: before `/pki/...` in every certificate, for ever. No slash at the end.
    pub url: String,
    /// The authority's folder. Default `state_dir/pki`.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// What the keys of area and issuing CAs are sealed under.
    pub seal: SealSource,
    /// The token that new area CAs have their keys in. Default: sealed, in the folder.
    #[serde(default)]
    pub area_key: Option<Pkcs11Uri>,
    /// Where what is public of the authority is served without TLS. Default: on the API's listener alone.
    #[serde(default)]
    pub listen: Option<SocketAddr>,
}

/// Where a secret is: the seal key, the PIN of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SealSource {
    /// Mode 0600.
    File(PathBuf),
    /// A credential of systemd (`LoadCredential=`, `SetCredentialEncrypted=`).
    Credential(String),
    /// A variable of the environment.
    Env(String),
}

/// Why a text names no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected `file:PATH`, `credential:NAME` or `env:NAME`")]
pub struct NoSealSource;

impl FromStr for SealSource {
    type Err = NoSealSource;

    fn from_str(text: &str) -> Result<Self, NoSealSource> {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let name = |text: &str| match text.bytes().all(letter) && !text.starts_with('.') {
            true => Ok(text.to_owned()),
            false => Err(NoSealSource),
        };
        match text.split_once(':') {
            Some((_, "")) | None => Err(NoSealSource),
            Some(("file", path)) => Ok(Self::File(path.into())),
            Some(("credential", text)) => name(text).map(Self::Credential),
            Some(("env", text)) => name(text).map(Self::Env),
            Some(_) => Err(NoSealSource),
        }
    }
}

impl fmt::Display for SealSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Credential(name) => write!(out, "credential:{name}"),
            Self::Env(name) => write!(out, "env:{name}"),
        }
    }
}

impl<'de> Deserialize<'de> for SealSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // What is wrong is not shown: it may be the secret itself.
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A plain http URL with one spelling. Not https: whoever fetches a CRL to check a chain would have to check
/// another chain for it (RFC 5280 section 8).
pub(super) fn is_url(url: &str) -> bool {
    url.strip_prefix("http://").is_some_and(|rest| issuer::check(&format!("https://{rest}")).is_ok())
        && url.len() <= 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_named_and_never_written_down() {
        for good in ["file:/etc/dayfly/seal", "credential:dayfly-seal", "env:DAYFLY_SEAL"] {
            assert_eq!(good.parse::<SealSource>().unwrap().to_string(), good);
        }
        for bad in ["", "file:", "env:", "env:A B", "credential:../seal", "credential:.x", "hunter2", "inline:hunter2"]
        {
            let error = bad.parse::<SealSource>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_url_is_plain_http_with_one_spelling() {
        for good in ["http://pki.example.org", "http://127.0.0.1:8080", "http://h.example/dayfly"] {
            assert!(is_url(good), "{good}");
        }
        for bad in ["https://pki.example.org", "http://pki.example.org/", "http://a@h.example", "pki", "http://h/?q"] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
