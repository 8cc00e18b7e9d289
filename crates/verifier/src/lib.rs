//! What a resource server links to accept Dayfly's task tokens.

pub mod crypto;
mod gate;
mod json;
mod jws;
mod keys;
mod refusal;
pub mod sys;
mod task;

pub use dayfly_domain::{LeaseId, Reason, Secret, TaskId, UnixMs};
pub use gate::{Rules, Verified, verify};
pub use jws::{Jws, TOKEN_MAX_BYTES};
pub use keys::{KEY_SET_MAX_BYTES, KEYS_MAX, KeySet, KeySetError};
pub use refusal::Refusal;
pub use sys::{Clock, SystemClock};
pub use task::{DETAIL_TYPE, Detail, TASK_TOKEN_TYP, TaskClaims, read_task_token};
