//! The bundle's folder was changed as a whole: a link leads to another checkout. Then, and only then,
//! it is loaded without being asked for. A file that is edited in place moves nothing.

use super::Flow;
use crate::sys::offload::offload;

/// As the ledger names who swapped the bundle.
const ACTOR: &str = "directory";

impl Flow {
    /// Loads the bundle again if its source lies elsewhere than when it was last judged, good or bad:
    /// what was refused is not tried again before the next change, what could not be read or recorded
    /// is.
    // SECURITY: `a_file_that_is_edited_in_place_is_not_loaded`.
    pub async fn follow(&self) {
        let source = self.source.clone();
        let Ok(place) = offload(move || source.place()).await else { return };
        if place.is_some() && place != **self.followed.load() {
            // It says itself what came of it, in log, ledger and readiness.
            let _ = self.load_bundle(ACTOR).await;
        }
    }
}
