//! The broker's own authority for certificates: an offline root, an area CA, and issuing CAs that live
//! days. In: keys and moments. Out: CA certificates, and whoever signs leaves, CRLs and OCSP answers now.

mod ca;
mod der;
mod leaf;
mod lint;
mod signer;
mod turns;

pub use ca::{CA_TIERS, Ca, CaId, CaTerms, Tier};
pub use leaf::{LeafPlan, Since};
pub use signer::{CaKey, CaSigner, FileKey, PkiError};
pub use turns::{Pki, Places};
