//! Dayfly's words.
//!
//! Value types, the tables of a trust bundle and the rules over them. Nothing here does I/O,
//! reads a clock or draws randomness: what a rule needs to know is an argument.

pub mod bundle;
mod claims;
mod id;
mod matching;
mod name;
mod reason;
mod secret;
mod selector;
mod span;
pub mod spiffe;
mod time;
mod told;
mod words;

pub use claims::{ClaimType, ClaimValue, Claims, Workload};
pub use id::{BlockId, EventId, IdError, LeaseId, ListId, TaskId};
pub use matching::{LeaseWords, Matcher, TaskWords, claim_text};
pub use name::{Name, NameError};
pub use reason::{REASONS, Reason, ReasonRow};
pub use secret::{HANDLE_PREFIX, Secret, may_hold_secret};
pub use selector::{SELECTOR_MAX_BYTES, Selector, SelectorError};
pub use span::{Span, SpanError};
pub use time::UnixMs;
pub use told::{TOLD_MAX_CHARS, told};
pub use words::{BindingKind, Bound, BundlePart, Cause, Channel, KeyKind, Kind, State, SubjectKind, Verifies};
