//! The broker's own authority for certificates: an offline root, an area CA, and issuing CAs that live
//! days. In: keys and moments. Out: CA certificates, and whoever signs leaves, CRLs and OCSP answers now.

mod admit;
mod bundle;
mod ca;
mod ceremony;
mod der;
mod gone;
mod health;
mod kept;
mod leaf;
mod lint;
mod names;
mod pkcs11;
mod points;
mod probe;
mod root;
mod sealed;
mod signer;
mod taint;
mod transcript;
mod turns;

pub use bundle::spiffe_bundle;
pub use ca::{Above, CA_TIERS, Ca, CaId, CaTerms, Tier};
pub use ceremony::{Ceremony, ROOT_CRL_DAYS, may_hold_root};
pub use gone::RevokedCa;
pub use health::{AREA_ALARM_DAYS, PkiHealth, ROOT_CRL_ALARM_DAYS};
pub use kept::{AUTHORITY_FILE, Area, Authority, Folder, ISSUING_FILE, UpperCrl, pem};
pub use leaf::{LeafPlan, Since};
pub use pkcs11::AreaToken;
pub use points::CRL_SHARDS;
pub use root::RootKey;
pub use sealed::{PASSPHRASE_MIN_CHARS, PASSPHRASE_ROUNDS, SealKey};
pub use signer::{CaKey, CaSigner, FileKey, PkiError};
pub use taint::CaView;
pub use transcript::{Transcript, fingerprint};
pub use turns::{CRL_SLACK_S, CaRotation, Pki, Places};
