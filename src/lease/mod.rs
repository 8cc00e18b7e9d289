//! Stage 5: what is live. The table is the fold of what was committed, plus the marks of ends
//! that were asked and are not yet durable.

mod blocks;
mod calendar;
mod certified;
mod counts;
mod fence;
mod hold;
mod jobs;
mod matching;
#[cfg(test)]
mod model_tests;
mod records;
#[cfg(test)]
mod soak_tests;
mod table;
mod time;
mod tomb;
mod touched;
mod tree;

pub use blocks::Block;
pub use counts::{Asks, OwnerUse, PRODUCTION, Quota, Quotas};
pub use fence::{Fence, Limits, Overtaken};
pub use hold::{AWAY_MS, ENDED_EACH_MAX, Held, Holds, Look, STORM_LEAST, STORM_PERCENT, STORM_S, Storm};
pub use jobs::{Holding, Job, Seen};
pub use matching::Revocable;
pub use table::{Counts, End, Label, Lease, Table, Task, bound_to};
pub use time::{Now, TOLERANCE_MS, Time};
pub use tomb::{BehindRow, Origins, SAMPLE_MAX, Survey, Tomb};
pub use touched::Touched;
pub use tree::{CHILDREN_MAX, LEVELS_MAX, Standing};
