//! Bundles that were in force, kept as they were read, so that a decision can be replayed under the
//! fingerprint it was made with. In: what a swap puts in force. Out: a policy, compiled again.
//!
//! Nothing is dropped while events name it; events are all kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dayfly_domain::bundle::{BROKER, Bundle, BundleFile, Fingerprint, Problem};

use super::{Flow, commit::Writer, sha256};
use crate::{
    lease::Now,
    policy::{self, BundleEnv, Policy},
    store::{BundleRow, Change, StoreError},
    sys::offload::offload,
};

/// Of one bundle, files that are kept; a larger one decides as any other, and is not kept.
pub const KEPT_MAX_BYTES: usize = 16 << 20;
/// Compiled again and held ready.
pub const HELD_MAX: usize = 4;

/// Why a bundle that was kept is not there.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was good then; this version of the program asks for more, or reads it otherwise.
    #[error("the bundle of that time does not load any more: {}", first(.0))]
    Unreadable(Vec<Problem>),
    #[error("what is kept is not what was in force: its fingerprint is {0}")]
    Altered(Fingerprint),
    #[error("the read was not finished")]
    Unfinished,
}

fn first(problems: &[Problem]) -> String {
    problems.first().map(ToString::to_string).unwrap_or_default()
}

/// Bundles that were asked for lately, the last one first.
#[derive(Debug, Default)]
pub(super) struct Held(Mutex<Vec<Arc<Policy>>>);

impl Held {
    fn get(&self, fingerprint: &Fingerprint) -> Option<Arc<Policy>> {
        let mut held = self.lock();
        let at = held.iter().position(|policy| policy.bundle().fingerprint == *fingerprint)?;
        let policy = held.remove(at);
        held.insert(0, policy.clone());
        Some(policy)
    }

    fn put(&self, policy: &Arc<Policy>) {
        let mut held = self.lock();
        held.retain(|other| other.bundle().fingerprint != policy.bundle().fingerprint);
        held.insert(0, policy.clone());
        held.truncate(HELD_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Policy>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    /// The bundle with this fingerprint, ready to decide; `None`: it was never in force here, or is
    /// too large to be kept. It reads and compiles: not for a thread that answers requests, see
    /// [`Flow::policy_of`].
    pub fn policy_at(&self, fingerprint: &Fingerprint) -> Result<Option<Arc<Policy>>, ArchiveError> {
        let current = self.policy.load_full();
        if current.bundle().fingerprint == *fingerprint {
            return Ok(Some(current));
        }
        if let Some(held) = self.held.get(fingerprint) {
            return Ok(Some(held));
        }
        let Some(row) = self.reader.bundle(&fingerprint.0)? else { return Ok(None) };
        let policy = Arc::new(compiled(row, fingerprint)?);
        self.held.put(&policy);
        Ok(Some(policy))
    }

    /// The same, for whoever may wait for it.
    pub async fn policy_of(&self, fingerprint: Fingerprint) -> Result<Option<Arc<Policy>>, ArchiveError> {
        let flow = self.clone();
        offload(move || flow.policy_at(&fingerprint)).await.map_err(|_| ArchiveError::Unfinished)?
    }
}

// SECURITY: `a_bundle_that_was_altered_in_the_store_decides_nothing`.
fn compiled(row: BundleRow, wanted: &Fingerprint) -> Result<Policy, ArchiveError> {
    let BundleRow { issuer_url, broker_binding, files, .. } = row;
    let files: Vec<BundleFile> = files.into_iter().map(|(_, file)| file).collect();
    let env = BundleEnv { issuer_url, broker_binding };
    let (bundle, _) = policy::parse_kept(&files, &env).map_err(ArchiveError::Unreadable)?;
    if bundle.fingerprint != *wanted {
        return Err(ArchiveError::Altered(bundle.fingerprint));
    }
    Policy::compile(bundle).map_err(ArchiveError::Unreadable)
}

impl Writer {
    /// What is to be written so that this bundle is kept; nothing when it is, or is too large.
    pub(super) fn keep(&self, bundle: &Bundle, now: Now) -> Result<Option<Change>, StoreError> {
        let bytes: usize = bundle.files.iter().map(|file| file.bytes.len()).sum();
        if bytes > KEPT_MAX_BYTES {
            tracing::warn!(bytes, "the bundle is too large to be kept: its decisions cannot be replayed later");
            return Ok(None);
        }
        let fingerprint = bundle.fingerprint.0;
        // INVARIANT: every bundle has its built-in target.
        let Some(broker) = bundle.targets.get(BROKER) else { return Ok(None) };
        // The same files mean something else under other settings; the last ones are kept.
        if self.shared.reader.keeps_bundle(&fingerprint, &self.shared.issuer, broker.binding)? {
            return Ok(None);
        }
        Ok(Some(Change::KeepBundle(BundleRow {
            fingerprint,
            kept_at: now.at,
            issuer_url: self.shared.issuer.to_string(),
            broker_binding: broker.binding,
            files: bundle.files.iter().map(|file| (sha256(&file.bytes), file.clone())).collect(),
        })))
    }
}
