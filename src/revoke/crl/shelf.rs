//! The lists as they are fetched: one at a time, or all of them in one file, because OpenSSL and what is
//! built on it want a list for every CA of a chain.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use dayfly_domain::UnixMs;
use ring::digest;

use super::CRL_AT_LEAST_S;

/// One list: whose, and which of the CA's shards.
pub type CrlPlace = (Arc<str>, u32);

/// A list as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedCrl {
    /// DER, or PEM where it is all of them.
    pub bytes: Arc<[u8]>,
    /// Names this state of it, quoted.
    pub etag: String,
    pub this_update: UnixMs,
    pub made_at: UnixMs,
}

/// Everything that may be fetched.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    lists: BTreeMap<CrlPlace, PublishedCrl>,
    bundle: Option<PublishedCrl>,
}

impl PublishedCrl {
    pub fn new(bytes: Vec<u8>, this_update: UnixMs, made_at: UnixMs) -> Self {
        let hash = digest::digest(&digest::SHA256, &bytes);
        let etag: String = hash.as_ref()[..8].iter().map(|octet| format!("{octet:02x}")).collect();
        Self { bytes: bytes.into(), etag: format!("\"{etag}\""), this_update, made_at }
    }

    /// Whether it is to be made anew whatever it says; also when the clock went back.
    pub(super) fn is_old(&self, now: UnixMs) -> bool {
        !(self.made_at..self.made_at.plus_s(CRL_AT_LEAST_S)).contains(&now)
    }
}

impl Shelf {
    pub fn get(&self, place: &CrlPlace) -> Option<&PublishedCrl> {
        self.lists.get(place)
    }

    /// All lists of every level, PEM.
    pub fn all(&self) -> Option<&PublishedCrl> {
        self.bundle.as_ref()
    }

    pub(super) fn put(&mut self, place: CrlPlace, list: PublishedCrl) {
        self.lists.insert(place, list);
    }

    /// Lists of these CAs alone, and those of the CAs above. Says whether anything is different.
    pub(super) fn keep(&mut self, cas: &[(Arc<str>, u32)], upper: Vec<(Arc<str>, Arc<[u8]>)>) -> bool {
        let before = self.lists.len();
        let own = |(name, shard): &CrlPlace| cas.iter().any(|(ca, shards)| ca == name && shard < shards);
        let above = |(name, shard): &CrlPlace| *shard == 0 && upper.iter().any(|(ca, _)| ca == name);
        self.lists.retain(|place, _| own(place) || above(place));
        let mut changed = self.lists.len() != before;
        for (name, der) in upper {
            let place = (name, 0);
            if self.lists.get(&place).is_none_or(|list| list.bytes != der) {
                self.lists.insert(place, PublishedCrl::new(der.to_vec(), UnixMs::default(), UnixMs::default()));
                changed = true;
            }
        }
        changed
    }

    pub(super) fn bundle(&mut self) {
        let text: String = self.lists.values().map(|list| pem(&list.bytes)).collect();
        let latest = |of: fn(&PublishedCrl) -> UnixMs| self.lists.values().map(of).max().unwrap_or_default();
        let (this_update, made_at) = (latest(|list| list.this_update), latest(|list| list.made_at));
        self.bundle = Some(PublishedCrl::new(text.into_bytes(), this_update, made_at));
    }
}

/// RFC 7468 section 6.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() + text.len() / 64 + 64);
    out.push_str("-----BEGIN X509 CRL-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.extend([line, "\n"]);
        rest = after;
    }
    out.push_str("-----END X509 CRL-----\n");
    out
}
