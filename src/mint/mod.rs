//! Stage 3: what exactly. A `Grant` becomes a [`Plan`], the plan becomes a signed token.
//!
//! The window is capped in [`window`] and nowhere else. A plan is spent once: it moves. What was
//! signed is parsed again by the verifier's gate and compared with the plan field by field.

mod keyring;
mod lists;
mod name;
pub mod pki;
mod plan;

pub use keyring::{
    JWKS_MAX_AGE_S, KEYS_FILE, KeyState, KeyView, Keyring, KeyringError, NotTainted, Rotation, Tainting,
};
pub use lists::{KeyUse, LIST_KEYS_FILE, ListKeyring};
pub use name::subject;
pub use plan::{MintError, Plan, Signed, Terms, Window, window};
