//! Where fetched keys come from: the issuer's discovery document, then the key set that it names.

use std::{fmt, sync::Arc};

use dayfly_domain::bundle::KeySource;
use dayfly_verifier::KeySet;
use serde::Deserialize;

use crate::sys::net::{Document, Fetch, FetchError, Fetcher};

/// A key set that can be used.
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
    let KeySource::Discovery { ca_pem, allow_private } = source else {
        return Err("its keys are pinned".into());
    };
    let get = async |what: &str, url: String| -> Result<Document, Arc<str>> {
        let fetch = Fetch { url, ca_pem: ca_pem.clone(), allow_private: *allow_private };
        fetcher.document(&fetch).await.map_err(|error: FetchError| said(what, error.told()))
    };
    let discovery = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
    let document = get(DISCOVERY, discovery).await?;
    let document: Discovery =
        serde_json::from_slice(&document.body).map_err(|_| said(DISCOVERY, "it is no discovery document"))?;
    if document.issuer != url {
        return Err(said(DISCOVERY, "it names another issuer"));
    }
    let Document { body, max_age_s } = get(KEYS, document.jwks_uri).await?;
    let keys = KeySet::parse(&body).map_err(|error| said(KEYS, error))?;
    if keys.is_empty() {
        Err(said(KEYS, "no key of it can be used"))
    } else {
        Ok(Fetched { keys: Arc::new(keys), max_age_s })
    }
}

const DISCOVERY: &str = "discovery";
const KEYS: &str = "key set";

/// In our own words: nothing that the other side said.
fn said(what: &str, why: impl fmt::Display) -> Arc<str> {
    format!("{what}: {why}").into()
}
