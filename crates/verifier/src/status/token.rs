//! The status list token: a list, signed (draft-ietf-oauth-status-list-21 section 5.1).
//!
//! The broker signs [`ListClaims`] with `typ` [`LIST_TOKEN_TYP`]; [`ListToken`] is what a verifier
//! has after it checked one. A list token is no task token and the other way round: `typ` is
//! compared byte for byte by both, before any key is looked up.

use std::{fmt, sync::Arc};

use dayfly_domain::UnixMs;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{StatusBits, StatusList, StatusListError};
use crate::{Jws, KeySet, Refusal, Refused, Rules, StatusRef, gate};

/// `typ` of a status list token (section 5.1).
pub const LIST_TOKEN_TYP: &str = "statuslist+jwt";

/// Its media type (section 8.2).
pub const LIST_MEDIA_TYPE: &str = "application/statuslist+jwt";

/// Longest list token that is read, in bytes.
pub const LIST_TOKEN_MAX_BYTES: usize = 256 * 1024;

/// No list is good for longer; and how far this machine's clock may be behind the broker's.
const LIFE_MAX_S: u32 = 24 * 3600;
const LEEWAY_S: u32 = 30;

/// Longest name of a list, in characters.
const NAME_MAX_CHARS: usize = 64;

/// Claims of a status list token, as a broker signs them. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListClaims {
    /// The list's own URL: `uri` of the tokens that are on it.
    pub sub: String,
    pub iat: i64,
    pub exp: i64,
    /// For how many seconds a verifier may use it before it looks again; at least 1.
    pub ttl: u32,
    pub status_list: EncodedList,
}

/// A list in a token (section 4.2). Members that are not known are ignored.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedList {
    pub bits: StatusBits,
    /// As [`StatusList::encode`] gives it.
    pub lst: String,
}

impl EncodedList {
    pub fn of(list: &StatusList) -> Self {
        Self { bits: list.bits(), lst: list.encode() }
    }
}

impl fmt::Debug for EncodedList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedList").field("bits", &self.bits).finish_non_exhaustive()
    }
}

/// Why a status list is not believed. The token that is on it may be good; it is refused all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListRefusal {
    /// The list that the token names is none of those at hand.
    #[error("the status list of the token is not at hand")]
    Missing,
    /// The one at hand is past its `exp`. There is no leeway.
    #[error("the status list of the token is expired, and no newer one could be had")]
    Expired,
    /// Of another issuer, another kind, unsigned, or without what it must have. What is said of "the
    /// token" is said of the list's.
    #[error("the status list is not accepted: {0}")]
    Token(Refusal),
    /// `sub` is not the URL that was asked for: another list, or one that is not the broker's.
    #[error("the status list is another than the token names")]
    Subject,
    #[error("the status list is not accepted: {0}")]
    List(#[from] StatusListError),
}

impl From<Refusal> for ListRefusal {
    fn from(refusal: Refusal) -> Self {
        if refusal == Refusal::Expired { Self::Expired } else { Self::Token(refusal) }
    }
}

/// A status list whose signature, name and times were checked.
#[derive(Clone)]
pub struct ListToken {
    uri: Arc<str>,
    list: StatusList,
    issued_at_s: i64,
    expires_at_s: i64,
    ttl_s: u32,
}

impl ListToken {
    /// Accepts a list token of this issuer: `typ` `statuslist+jwt`, ES256, `sub` below
    /// `{issuer}/status/`, `iat` not ahead by more than 30 s, `exp` not reached and at most 24 h
    /// and 30 s ahead, `ttl` at least 1 s, and a list of at most `entries_max` entries ([`super::LIST_ENTRIES_MAX`]).
    /// `iss` may be absent, but not another's.
    pub fn read(token: &str, keys: &KeySet, issuer: &str, entries_max: u32, now: UnixMs) -> Result<Self, ListRefusal> {
        Self::of(&parse(token)?, keys, issuer, entries_max, now)
    }

    // SECURITY: a_task_token_is_no_list_and_a_list_no_task_token, a_list_of_another_place_is_refused
    pub(crate) fn of(
        jws: &Jws,
        keys: &KeySet,
        issuer: &str,
        entries_max: u32,
        now: UnixMs,
    ) -> Result<Self, ListRefusal> {
        let verified = gate::verify_for_all(jws, keys, &rules(issuer), now)?;
        let sub = verified.claims().get("sub").and_then(Value::as_str).ok_or(Refusal::Claim("sub"))?;
        if list_name(issuer, sub).is_none() {
            return Err(ListRefusal::Subject);
        }
        let encoded = encoded(verified.claims())?;
        Ok(Self {
            uri: sub.into(),
            list: StatusList::decode(encoded.bits, &encoded.lst, entries_max)?,
            issued_at_s: verified.issued_at_s(),
            expires_at_s: verified.expires_at_s(),
            ttl_s: ttl_s(verified.claims())?,
        })
    }

    /// Its own URL (`sub`).
    pub fn uri(&self) -> &str {
        &self.uri
    }

    pub fn list(&self) -> &StatusList {
        &self.list
    }

    /// `iat`, in Unix seconds.
    pub fn issued_at_s(&self) -> i64 {
        self.issued_at_s
    }

    /// `exp`, in Unix seconds: from this second on it says nothing.
    pub fn expires_at_s(&self) -> i64 {
        self.expires_at_s
    }

    /// For how many seconds to use it before looking for a newer one.
    pub fn ttl_s(&self) -> u32 {
        self.ttl_s
    }

    /// Whether the entry says that its token is valid (section 8.3, steps 4 to 7).
    ///
    /// [`Refused::Inactive`] for every value but 0; [`Refusal::Claim`] of `status` where the list has no such entry.
    // SECURITY: an_index_past_the_end_is_refused, an_expired_list_says_nothing
    pub fn check(&self, entry: &StatusRef, now: UnixMs) -> Result<(), Refused> {
        if *entry.uri != *self.uri {
            return Err(ListRefusal::Missing.into());
        }
        if now.as_s() >= self.expires_at_s {
            return Err(ListRefusal::Expired.into());
        }
        match self.list.get(entry.idx) {
            Some(0) => Ok(()),
            Some(_) => Err(Refused::Inactive),
            None => Err(Refusal::Claim("status").into()),
        }
    }
}

impl fmt::Debug for ListToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListToken")
            .field("uri", &self.uri)
            .field("expires_at_s", &self.expires_at_s)
            .finish_non_exhaustive()
    }
}

/// Which list a text says it is, if it is a list token by its form. Anybody can have written it; for
/// finding a file again.
pub fn unverified_uri(list_token: &str) -> Option<String> {
    let jws = parse(list_token.trim_ascii_end()).ok().filter(|jws| jws.typ() == Some(LIST_TOKEN_TYP))?;
    Some(jws.unverified_claims().get("sub")?.as_str()?.to_owned())
}

/// The form only; longer than a task token may be.
pub(crate) fn parse(token: &str) -> Result<Jws, ListRefusal> {
    Ok(Jws::parse_within(token, LIST_TOKEN_MAX_BYTES)?)
}

/// The name of a list in its URL, if that is one of this issuer: `{issuer}/status/` and one plain word.
/// Nothing that a server, a proxy or a file system could read as another place.
// SECURITY: a_list_of_another_place_is_refused
pub fn list_name<'a>(issuer: &str, uri: &'a str) -> Option<&'a str> {
    let name = uri.strip_prefix(issuer)?.strip_prefix("/status/")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    ((1..=NAME_MAX_CHARS).contains(&name.len()) && name.bytes().all(plain)).then_some(name)
}

fn rules(issuer: &str) -> Rules {
    Rules {
        algs: vec!["ES256".to_owned()],
        // SECURITY: a_task_token_is_no_list_and_a_list_no_task_token
        typ: vec![LIST_TOKEN_TYP.to_owned()],
        max_ahead_s: LIFE_MAX_S + LEEWAY_S,
        leeway_s: LEEWAY_S,
        ..Rules::new(issuer, "")
    }
}

fn encoded(claims: &Map<String, Value>) -> Result<EncodedList, Refusal> {
    let list = claims.get("status_list").ok_or(Refusal::Claim("status_list"))?;
    EncodedList::deserialize(list).map_err(|_| Refusal::Claim("status_list"))
}

fn ttl_s(claims: &Map<String, Value>) -> Result<u32, Refusal> {
    let ttl_s = claims.get("ttl").and_then(Value::as_u64).filter(|&ttl_s| ttl_s > 0);
    // Longer than any list lives is as good as that.
    ttl_s.map(|ttl_s| u32::try_from(ttl_s).unwrap_or(u32::MAX)).ok_or(Refusal::Claim("ttl"))
}
