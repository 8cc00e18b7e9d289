//! What a resource server links to accept Dayfly's task tokens and certificates. The broker uses the
//! same gate on the tokens that it is shown. Certificates are the matter of `x509` (feature `x509`).
//!
//! Four ways, by what they cost and how soon they hear of an end:
//!
//! | | asks | worst case after a task or lease was ended |
//! |---|---|---|
//! | [`Offline`] | nobody (keys may be fetched) | honoured until its `exp`, plus the server's own leeway: how far its clock is behind. It never hears of an end |
//! | `Online` (feature `online`) | the broker, at most every `max_stale` per token | `max_stale` + 2 s |
//! | `Listed` (feature `online`) | the broker, or any cache, for a list each `ttl` (15 s by default) | `ttl` + 3 s; while no list can be had, until the `exp` of the last one (300 s by default) |
//! | [`read_task_token`] | nobody | as [`Offline`]; keys and time are arguments |
//!
//! A token is refused at its `exp` by all of them. Whatever cannot be checked is refused; nothing
//! here falls back to less.
//!
//! ```
//! use dayfly_verifier::{KeySet, Offline, Refused, Refusal};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What the broker publishes under `/oauth2/jwks`.
//! let keys = KeySet::parse(br#"{"keys": []}"#)?;
//! let offline = Offline::new(keys, "https://dayfly.example", "https://db-0.example");
//!
//! match offline.check("not a token") {
//!     Ok(caller) => assert!(caller.claims().allows("db:migrate")),
//!     Err(refused) => {
//!         assert_eq!(refused, Refused::Token(Refusal::Malformed));
//!         assert_eq!(refused.status(), 401);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A token that is bound to a key ([`TaskClaims::cnf`]) comes as `Authorization: DPoP` with a proof in the
//! header `DPoP` (RFC 9449): `check` refuses it, [`Offline::check_bound`] and `Online::check_bound` take
//! both. Each proof is good once; [`dpop`] has the parts. One that is bound to a client certificate (RFC 8705)
//! comes as `Authorization: Bearer` over a connection with that certificate: [`Offline::check_certified`] and
//! `Online::check_certified` take its DER from the TLS stack.
//!
//! Underneath stand [`Jws`] (reads the form), [`KeySet`] (which key may verify what), [`verify`]
//! (signature first, then claims, by [`Rules`]) and [`Verified`], which only `verify` can make.
//! All cryptography is ring's; see [`crypto`].

#[cfg(test)]
mod corpus_tests;
pub mod crypto;
pub mod dpop;
mod gate;
mod json;
mod jws;
mod keys;
mod offline;
#[cfg(feature = "online")]
mod online;
mod refusal;
mod refused;
pub mod status;
pub mod sys;
mod task;
#[cfg(feature = "x509")]
pub mod x509;

pub use dayfly_domain::{LeaseId, Name, Reason, Secret, TaskId, UnixMs};
pub use dpop::{Binding, ProofOf, ProofRefusal, Thumbprint};
pub use gate::{Rules, Signer, Verified, issued_at_s, signed_by, verify};
pub use json::parse_strict;
pub use jws::{Jws, TOKEN_MAX_BYTES, algorithms};
pub use keys::{
    KEY_SET_MAX_BYTES, KEYS_MAX, KeySet, KeySetError, USE_LISTS, USE_MEMBER, is_anyones as is_anyones_ed25519,
    is_roca as is_roca_modulus,
};
pub use offline::Offline;
#[cfg(feature = "online")]
pub use online::{Credential, ListSettings, Listed, Online, OnlineSettings, Outage, SetupError};
pub use refusal::Refusal;
pub use refused::{CertificateRefusal, Refused};
pub use sys::{Clock, SystemClock};
pub use task::{
    Confirmation, DETAIL_TYPE, Detail, Status, StatusRef, TASK_TOKEN_TYP, TaskClaims, inspect_task_token,
    read_task_token,
};
