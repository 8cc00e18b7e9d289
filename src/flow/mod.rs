//! The verbs: the only place that calls the stages. Each file is one story with one short parent
//! function on top; doors call [`Flow`] and hold no rules.

mod afar;
mod allowance;
mod archive;
mod beat;
mod blocks;
mod bundle;
mod certificates;
mod certify;
mod client;
mod commit;
mod conflict;
mod crls;
mod end;
mod ending;
pub mod explain;
mod follow;
mod group;
mod introspect;
mod issue;
mod issuers;
mod known;
mod lists;
mod load;
mod mass;
mod meter;
mod moment;
mod ocsp;
mod pki;
mod possession;
mod prove;
mod read;
mod recorded;
mod refuse;
mod replay;
mod rings;
mod select;
mod signed;
mod simulate;
mod start;
mod swap;
mod taint;
mod tombs;
mod upkeep;
mod usage;
mod verifier;
mod words;

use std::{
    ops::Deref,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use dayfly_domain::Span;
use tokio::sync::mpsc;

/// What the doors show of an issuer's keys.
pub use crate::intake::{KeysHealth, KeysState};
pub use crate::lease::Quotas;
/// What the doors show of a revocation: how soon a channel learns, and what it knows.
pub use crate::revoke::{
    CRL_MAX_AGE_S, Known as ChannelState, LIST_TTL_S, NotAnswered, OCSP_MAX_AGE_S, OCSP_MAX_BYTES, OcspAnswer,
    Published, PublishedCrl, Reach as RevocationBound,
};
pub use crate::store::EventFilter;
/// What a client showed in its handshake.
pub use crate::sys::net::PresentedChain;
use crate::{
    intake::{IssuerKeys, ProofDesk},
    lease::{Table, Time},
    ledger::Entry,
    mint::{Keyring, ListKeyring, pki::Pki},
    policy::Policy,
    revoke::{Crls, Lists, OcspSigners},
    store::Reader,
};
pub use allowance::{Allowance, Limit};
pub use archive::ArchiveError;
pub use beat::Beat;
pub use blocks::BlockView;
pub use bundle::{BundleSource, Folder, Loaded, TestFailure, run_tests};
pub use commit::Writer;
pub use explain::Explained;
pub use issuers::{IssuerSource, IssuerView};
pub use lists::StatusListView;
pub use load::{NotLoaded, NotSwapped};
pub use meter::{Payer, Rate, Rates, Spent, block};
pub use pki::CaTurn;
pub use recorded::Recorded;
pub use replay::{Unjudged, Verdict, replay, was_judged};
pub use select::{EndBySelector, EndedBySelector, MassEnd, NotEnded};
pub use simulate::{DryRun, Simulate, Under, fingerprint};
pub use start::{StartError, Startup, start};
pub use swap::{Carries, Swapped, goes_back, recorded};
pub use taint::{TaintAnswer, TargetKnown};
pub use upkeep::Upkeep;
pub use usage::{EntitlementFilter, EntitlementView};
pub use words::{
    Caller, EndAnswer, EventView, Exchange, HoldView, Introspected, Issued, IssuedCredential, LeaseView, Listing,
    Point, Possession, Presented, Refused, Shown, Subject, TaskView,
};

/// Of garbage and strangers, one in so many is logged.
const SAMPLE: u64 = 64;

/// The broker, as its doors see it. Cheap to clone.
#[derive(Clone)]
pub struct Flow(Arc<Shared>);

/// What all verbs share. No lock in it is held across an await, but the turn of a load.
pub struct Shared {
    issuer: Arc<str>,
    stream: Arc<str>,
    time: Time,
    table: Table,
    reader: Reader,
    keyring: Keyring,
    list_keys: ListKeyring,
    /// Who signs certificates.
    pki: Option<Arc<Pki>>,
    lists: Lists,
    /// Which certificates have ended.
    crls: Crls,
    /// CRLs are made one at a time.
    pressing: Arc<tokio::sync::Mutex<()>>,
    /// What a token has to sign.
    afar: afar::Afar,
    /// Who signs OCSP answers.
    ocsp: OcspSigners,
    /// Held while lists are brought up to the lease table.
    settling: Mutex<()>,
    keys: IssuerKeys,
    proofs: ProofDesk,
    policy: ArcSwap<Policy>,
    /// Bundles of earlier that were asked for.
    held: archive::Held,
    source: Arc<dyn BundleSource>,
    /// Where the source lay when what it held was last accepted or refused.
    followed: ArcSwap<Option<String>>,
    strict_rollback: bool,
    review_grace: Span,
    /// Loads of the bundle take turns.
    loading: Arc<tokio::sync::Mutex<()>>,
    queue: mpsc::Sender<group::Group>,
    records: Mutex<Vec<Entry>>,
    /// Ends that are in force and wait for the writer.
    ends: Mutex<group::Ends>,
    /// Ends by selector.
    mass: mass::Mass,
    refusals: refuse::Refusals,
    /// Keys that are tainted and not yet so on the record.
    taints: taint::Taints,
    allowance: allowance::Taken,
    /// Of verifiers that proved themselves.
    outcomes: verifier::Outcomes,
    /// Why the last commit failed, while it is so.
    store_fault: ArcSwap<Option<group::StoreFault>>,
    /// Why the last load of the bundle was refused, while it is so.
    bundle_fault: ArcSwap<Option<String>>,
    /// Why the listener's certificate is not as it should be, while it is so.
    tls_fault: ArcSwap<Option<String>>,
    /// Authenticates cursors; lives as long as the process.
    cursor_key: ring::hmac::Key,
    forged_or_lost: AtomicU64,
    /// Garbage and strangers so far.
    turned_away: AtomicU64,
}

impl Deref for Flow {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Flow {
    /// The issuer URL: `https`, no trailing slash.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Who signs certificates, where there is an authority.
    pub fn pki(&self) -> Option<&Arc<Pki>> {
        self.0.pki.as_ref()
    }

    /// The public JWK Set, ready to send.
    pub fn jwks(&self) -> serde_json::Value {
        let (mut tokens, mut lists) = (self.keyring.jwks(), self.list_keys.jwks());
        if let (Some(all), Some(lists)) = (tokens["keys"].as_array_mut(), lists["keys"].as_array_mut()) {
            all.append(lists);
        }
        tokens
    }

    /// `Ok` when everything that issuing needs is there; otherwise what is missing, one line each.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let mut missing = Vec::new();
        if !self.time.now().safe {
            missing.push("clock_unsafe: the clocks disagree, or the store is ahead of the wall clock".to_owned());
        }
        if let Some(fault) = &**self.store_fault.load() {
            missing.push(format!("store: {}", fault.why));
        }
        if let Some(fault) = &**self.bundle_fault.load() {
            missing.push(format!("bundle: {fault}"));
        }
        if let Some(fault) = &**self.tls_fault.load() {
            missing.push(format!("tls: {fault}"));
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Remembers for readiness what is wrong with the listener's certificate, or that nothing is.
    pub fn note_tls(&self, fault: Option<String>) {
        self.tls_fault.store(Arc::new(fault));
    }
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("issuer", &self.0.issuer).finish_non_exhaustive()
    }
}

/// How much room the verbs take, for the reference.
pub mod bounds {
    pub use crate::{
        intake::FETCHES_AHEAD_MAX,
        lease::{CHILDREN_MAX, ENDED_EACH_MAX, LEVELS_MAX},
    };

    pub use super::{
        allowance::OWNERS_SHOWN_MAX,
        archive::{HELD_MAX, KEPT_MAX_BYTES},
        commit::BATCH_MAX,
        group::{COMMIT_WITHIN, QUEUE_MAX},
        known::TOLD_NAMES_MAX,
        load::{FAULT_MAX_CHARS, LOAD_WITHIN, PROBLEMS_MAX, TURN_WITHIN},
        mass::SLICE_ROWS,
        mass::WAITING_MAX,
        meter::METERED_MAX,
        read::LOOKED_AT_MAX,
        refuse::{ASKED_TEXT_MAX_CHARS, KINDS_MAX, RECORDS_MAX},
        select::{MASS_LEASES, STANDING_BLOCKS_MAX, TOMBS_MAX},
        upkeep::{ROOM_MAX_BYTES, SLICE},
        verifier::{OUTCOMES_EACH, OUTCOMES_MAX},
    };
}

/// SHA-256.
fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    out
}
