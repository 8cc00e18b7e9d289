//! Where fetched keys come from: the issuer's discovery document and the key set that it names, or the
//! endpoint of a SPIFFE trust bundle.

use std::{fmt, sync::Arc};

use dayfly_domain::bundle::KeySource;
use dayfly_verifier::KeySet;
use serde::Deserialize;

use crate::sys::net::{Document, Fetch, Fetcher};

/// A key set. Of a trust domain it may be empty: its authority has taken back what it published before
/// (SPIFFE Trust Domain and Bundle, section 4.1.3).
pub(super) struct Fetched {
    pub keys: Arc<KeySet>,
    /// How long the issuer says that it stays good.
    pub max_age_s: Option<u32>,
}

/// OpenID Connect Discovery 1.0, section 3, as far as it is needed.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

// SECURITY: `t_060_a_discovery_document_of_another_issuer_is_refused`.
pub(super) async fn fetch(fetcher: &Fetcher, url: &str, source: &KeySource) -> Result<Fetched, Arc<str>> {
    match source {
        KeySource::Discovery { ca_pem, allow_private } => {
            let way = Way { fetcher, ca_pem: ca_pem.as_ref(), allow_private: *allow_private };
            let jwks_uri = way.discovery(url).await?;
            let Document { body, max_age_s } = way.get(KEYS, jwks_uri).await?;
            let keys = KeySet::parse(&body).map_err(|error| said(KEYS, error))?;
            // An empty set never replaces keys that work: OpenID Connect has no word for having none.
            if keys.is_empty() { Err(said(KEYS, "no key of it can be used")) } else { Ok(fetched(keys, max_age_s)) }
        }
        KeySource::BundleEndpoint { url, ca_pem, allow_private } => {
            let way = Way { fetcher, ca_pem: ca_pem.as_ref(), allow_private: *allow_private };
            let Document { body, max_age_s } = way.get(BUNDLE, url.to_string()).await?;
            Ok(fetched(KeySet::of_trust_bundle(&body).map_err(|error| said(BUNDLE, error))?, max_age_s))
        }
        KeySource::Pinned { .. } | KeySource::TrustBundle { .. } | KeySource::Roots { .. } => {
            Err("its keys are pinned".into())
        }
    }
}

/// How an issuer is asked.
struct Way<'a> {
    fetcher: &'a Fetcher,
    ca_pem: Option<&'a Arc<[u8]>>,
    allow_private: bool,
}

impl Way<'_> {
    async fn get(&self, what: &str, url: String) -> Result<Document, Arc<str>> {
        let fetch = Fetch { url, ca_pem: self.ca_pem.cloned(), allow_private: self.allow_private };
        self.fetcher.document(&fetch).await.map_err(|error| said(what, error.told()))
    }

    /// Where the issuer says that its keys are.
    async fn discovery(&self, issuer: &str) -> Result<String, Arc<str>> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = self.get(DISCOVERY, url).await?;
        let document: Discovery =
            serde_json::from_slice(&document.body).map_err(|_| said(DISCOVERY, "it is no discovery document"))?;
        if document.issuer == issuer { Ok(document.jwks_uri) } else { Err(said(DISCOVERY, "it names another issuer")) }
    }
}

fn fetched(keys: KeySet, max_age_s: Option<u32>) -> Fetched {
    // What a trust bundle wishes in its text counts like what its endpoint says: the sooner of both.
    let hint_s = keys.refresh_hint_s().map(|hint_s| u32::try_from(hint_s).unwrap_or(u32::MAX));
    Fetched { max_age_s: max_age_s.into_iter().chain(hint_s).min(), keys: Arc::new(keys) }
}

const DISCOVERY: &str = "discovery";
const KEYS: &str = "key set";
const BUNDLE: &str = "trust bundle";

/// In our own words: nothing that the other side said.
fn said(what: &str, why: impl fmt::Display) -> Arc<str> {
    format!("{what}: {why}").into()
}
