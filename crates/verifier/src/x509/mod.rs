//! Who is at the other end of a TLS connection: the certificates that Dayfly gives for one task
//! (X.509-SVIDs), checked by a resource server. In: roots, rules, revocation lists and what the peer
//! presented. Out: whose certificate it is, or the reason why it is nobody's.
//!
//! A certificate is believed when its chain ends at one of the [`Anchors`] (RFC 5280 section 6), every
//! certificate of it is within its dates and on no list of the [`CrlSet`] (each level must have a list that is
//! not past its `nextUpdate`), and the leaf names exactly one SPIFFE ID of the trust domain. Its common name
//! says nothing. Whatever cannot be checked is refused.
//!
//! **Worst case after an end**: while the server holds the list from before it, so fetch
//! `{issuer}/pki/bundle.crl` often (the broker rebuilds it within a second) and hand it to
//! [`Peers::put_crls`]; without that, until the list's `nextUpdate`. A connection that was let in stays: check
//! its peer again with [`Peers::check`] where it may live longer than that.
//!
//! ```
//! use dayfly_verifier::x509::{Anchors, CrlSet, PeerRules, check_peer};
//! use dayfly_verifier::{Clock, SystemClock};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (root_pem, bundle_crl, chain) = (b"", b"", []);
//! let rules = PeerRules::new("example.org")?.admit("orders-mtls".parse()?);
//! if let (Ok(anchors), Ok(crls)) = (Anchors::from_pem(root_pem), CrlSet::parse(bundle_crl)) {
//!     match check_peer(&chain, &anchors, &rules, Some(&crls), SystemClock.now()) {
//!         Ok(peer) => println!("{} by lease {}", peer.spiffe_id, peer.lease),
//!         Err(refusal) => println!("{refusal}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod anchors;
mod chain;
mod crls;
mod identity;
mod peers;
mod refusal;
mod shelf;

pub use anchors::{Anchors, AnchorsError};
pub use chain::{CERTIFICATE_MAX_BYTES, CHAIN_MAX, check_peer};
pub use crls::{CRL_BUNDLE_MAX_BYTES, CRLS_MAX, CrlError, CrlSet};
pub use identity::{PeerIdentity, PeerRules, Revocation, RulesError};
pub use peers::Peers;
pub use refusal::PeerRefusal;
