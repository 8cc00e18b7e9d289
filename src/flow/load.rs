//! A bundle is loaded again: by a signal or by an operator, through one door. Loads take turns; a
//! bad bundle never replaces a good one, and readiness, the log and the ledger say why.

use std::{fmt, sync::Arc, time::Duration};

use dayfly_domain::{EventId, Reason, bundle::Problem};
use tokio::sync::oneshot;

use super::{
    Flow, Shared,
    bundle::Loaded,
    group::Group,
    introspect::Authority,
    swap::{Swap, Swapped},
    words::{Caller, Refused},
};
use crate::{
    ledger::{self, Outcome, Stamp},
    mint::{KeyUse, KeyView, Keyring},
    policy::RowFacts,
    sys::offload::offload,
};

/// A load waits no longer for the one before it.
pub const TURN_WITHIN: Duration = Duration::from_secs(10);
/// A load takes no longer: its folder may lie on a disk that does not answer.
pub const LOAD_WITHIN: Duration = Duration::from_secs(60);
/// Problems told in one answer, event or log line; the rest is counted.
pub const PROBLEMS_MAX: usize = 100;
/// Of what is told of a refused load in readiness, log and ledger.
pub const FAULT_MAX_CHARS: usize = 2_000;

/// The right that operating the broker itself takes.
const OPERATE: &str = "broker:operate";

/// Why the old bundle stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSwapped {
    #[error("the bundle is not usable: {}", Listed(.0))]
    Bundle(Vec<Problem>),
    #[error("the bundle was active before and was replaced; `strict_rollback` refuses to go back to it")]
    Rollback,
    #[error(
        "the authority is that of `{0}`, and certificates would be named in `{1}`: the trust domain changes with another authority"
    )]
    TrustDomain(String, String),
    #[error("the swap cannot be recorded: {0}")]
    Store(String),
    #[error("the bundle was not read within {} s", LOAD_WITHIN.as_secs())]
    Slow,
    #[error("another load is under way")]
    Busy,
    #[error("the load was not finished")]
    Unfinished,
}

impl NotSwapped {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Bundle(_) | Self::TrustDomain(..) => Reason::Bundle,
            Self::Rollback => Reason::Rollback,
            Self::Store(_) => Reason::Store,
            Self::Slow | Self::Busy => Reason::Busy,
            Self::Unfinished => Reason::Internal,
        }
    }
}

/// A load that was refused, and the event that says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NotLoaded {
    pub why: NotSwapped,
    pub event: Option<EventId>,
}

impl Flow {
    /// Loads the bundle again, as an operator asks for it.
    pub async fn operate_load(&self, caller: &Caller) -> Result<Result<Swapped, NotLoaded>, Refused> {
        let actor = self.operator(caller).await?;
        Ok(self.load_bundle(&actor).await)
    }

    /// The keys that sign, as operators see them: never their private parts.
    pub async fn keys(&self, caller: &Caller) -> Result<Vec<(KeyUse, KeyView)>, Refused> {
        self.operator(caller).await?;
        let of = |ring: &Keyring, what| ring.view().into_iter().map(move |view| (what, view)).collect::<Vec<_>>();
        Ok([of(&self.keyring, KeyUse::Tokens), of(self.list_keys.ring(), KeyUse::Lists)].concat())
    }

    /// Who acts, if they may operate the broker.
    pub(super) async fn operator(&self, caller: &Caller) -> Result<String, Refused> {
        Ok(self.operating(caller).await?.actor())
    }

    // SECURITY: `only_who_may_operate_the_broker_loads_and_looks_at_keys`.
    pub(super) async fn operating(&self, caller: &Caller) -> Result<Authority, Refused> {
        let authority = self.authority(caller).await?;
        let may = authority.holds(OPERATE) && self.may(&authority, OPERATE, &RowFacts::BROKER);
        if may { Ok(authority) } else { Err(Reason::Scope.into()) }
    }

    /// Loads the bundle again. A bad one never replaces a good one; readiness then shows why.
    pub async fn load_bundle(&self, actor: &str) -> Result<Swapped, NotLoaded> {
        let why = match self.load(actor).await {
            Ok(swapped) => {
                let Swapped { to, ended, rollback, .. } = &swapped;
                tracing::info!(%to, ended, rollback, actor, "bundle loaded");
                return Ok(swapped);
            }
            Err(why) => why,
        };
        tracing::error!(fault = %why, "the bundle was not loaded; the old one stays");
        let event = match why {
            // Nothing was looked at: there is nothing to record.
            NotSwapped::Busy => None,
            _ => self.note_refused_load(actor, &why.to_string()).await,
        };
        Err(NotLoaded { why, event })
    }

    async fn load(&self, actor: &str) -> Result<Swapped, NotSwapped> {
        let turn = self.loading.clone().lock_owned();
        let turn = tokio::time::timeout(TURN_WITHIN, turn).await.map_err(|_| NotSwapped::Busy)?;
        let flow = self.clone();
        // The turn goes with the work: a caller who leaves does not let the next one in early.
        let work = offload(move || (flow.read_source(), turn));
        let (place, read, _turn) = match tokio::time::timeout(LOAD_WITHIN, work).await {
            Ok(Ok(((place, read), turn))) => (place, read.map_err(NotSwapped::Bundle), turn),
            Ok(Err(_)) => return self.not_read(NotSwapped::Unfinished),
            Err(_) => return self.not_read(NotSwapped::Slow),
        };
        let swapped = match read {
            Ok(loaded) => self.swap(loaded, actor).await,
            Err(why) => self.not_read(why),
        };
        if judged(&swapped) {
            self.followed.store(Arc::new(place));
        }
        swapped
    }

    fn not_read<T>(&self, why: NotSwapped) -> Result<T, NotSwapped> {
        self.note_load(Some(&why));
        Err(why)
    }

    /// Where it lay before it was read: whatever changes from there on is news.
    fn read_source(&self) -> (Option<String>, Result<Loaded, Vec<Problem>>) {
        (self.source.place(), self.source.load())
    }

    async fn swap(&self, loaded: Loaded, actor: &str) -> Result<Swapped, NotSwapped> {
        let Loaded { policy, lints } = loaded;
        // SECURITY: `a_load_changes_no_trust_domain_under_the_authority`.
        if let Some(pki) = self.pki() {
            let (own, named) = (pki.authority().trust_domain.clone(), &policy.bundle().trust_domain);
            if own != *named {
                return self.not_read(NotSwapped::TrustDomain(own, named.to_string()));
            }
        }
        for lint in lints.iter().take(PROBLEMS_MAX) {
            tracing::warn!(%lint, "the bundle loads, but look at this");
        }
        let (ack, swapped) = oneshot::channel();
        let swap = Swap { policy: Arc::new(policy), actor: actor.to_owned(), ack };
        let gone = |_| NotSwapped::Store("the writer has stopped".to_owned());
        self.queue.send(Group::Swap(Box::new(swap))).await.map_err(|_| gone(()))?;
        let swapped = swapped.await.map_err(|_| gone(()))??;
        Ok(Swapped { lints, ..swapped })
    }

    async fn note_refused_load(&self, actor: &str, fault: &str) -> Option<EventId> {
        let stamp = Stamp::draw(self.time.now().at).ok()?;
        let id = stamp.id;
        let what = [("problem", fault.chars().take(FAULT_MAX_CHARS).collect())].into();
        let entry = ledger::operator(stamp, Outcome::Refused, actor, "bundle_load", &what);
        let (ack, noted) = oneshot::channel();
        match self.submit(Group::Note(entry, ack), noted).await {
            Ok(()) => Some(id),
            Err(_) => {
                tracing::warn!("a refused load is not on the record");
                None
            }
        }
    }
}

impl Shared {
    /// Remembers why the last load was refused, for readiness.
    pub(super) fn note_load(&self, fault: Option<&NotSwapped>) {
        let fault = fault.map(|fault| fault.to_string().chars().take(FAULT_MAX_CHARS).collect());
        self.bundle_fault.store(Arc::new(fault));
    }
}

/// Whether the bundle itself was accepted or refused; what merely failed is tried again.
// SECURITY: `a_checkout_whose_load_failed_in_passing_is_loaded_at_the_next_look`.
fn judged(swapped: &Result<Swapped, NotSwapped>) -> bool {
    match swapped {
        Ok(_) | Err(NotSwapped::Bundle(_) | NotSwapped::TrustDomain(..) | NotSwapped::Rollback) => true,
        Err(NotSwapped::Store(_) | NotSwapped::Slow | NotSwapped::Busy | NotSwapped::Unfinished) => false,
    }
}

/// Problems on one line, as many as fit.
struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().take(PROBLEMS_MAX).enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "; " })?;
        }
        match self.0.len().saturating_sub(PROBLEMS_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}
