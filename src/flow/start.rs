//! From a store and a bundle to a running broker: what was committed is folded into memory before
//! anything is answered, and the start itself is on the record.

use std::{
    path::Path,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use dayfly_domain::{Span, UnixMs, bundle::Problem};
use ring::hmac;
use tokio::sync::mpsc;

use super::{
    Flow, Shared, Upkeep,
    afar::Afar,
    allowance::{Allowance, Taken},
    archive,
    bundle::{BundleSource, Loaded},
    commit::{Writer, numbered},
    crls::last_crl_number,
    group,
    load::NotSwapped,
    pki::Signers,
    refuse::Refusals,
    rings::Ring,
    taint::{self, Taints},
    upkeep::SLICE,
    verifier::Outcomes,
};
use crate::{
    intake::{IssuerKeys, ProofDesk},
    lease::{Now, Revocable, Table, Time},
    ledger::{self, KeyRotation, Stamp, Start},
    mint::{
        Keyring, KeyringError, ListKeyring, NotTainted,
        pki::{CaRotation, Pki},
    },
    revoke::{Crls, Lists, OcspSigners, SERVED_AFTER_S, Sizes},
    store::{Change, Store, StoreError},
    sys::{
        clock::Clock,
        entropy::{self, NoEntropy},
        net::{Fetcher, ProxyError},
    },
};

/// Why the broker does not start. Each is for an operator's eyes.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the bundle is not usable")]
    Bundle(Vec<Problem>),
    #[error("the store is not usable: {0}")]
    Store(#[from] StoreError),
    #[error("the keys are not usable: {0}")]
    Keyring(#[from] KeyringError),
    #[error("a key that the ledger says is tainted is still in use: {0}")]
    Tainted(#[from] NotTainted),
    #[error(transparent)]
    Swap(#[from] NotSwapped),
    #[error("{0}")]
    Entropy(#[from] NoEntropy),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

/// What a broker is made of. The caller already holds the lock of the state folder.
pub struct Startup {
    /// `https`, no trailing slash.
    pub issuer: String,
    pub clock: Clock,
    pub store: Store,
    /// Where the keys are kept; absent: in memory.
    pub keys_dir: Option<std::path::PathBuf>,
    pub source: Arc<dyn BundleSource>,
    pub strict_rollback: bool,
    /// How long past its review date a row goes on.
    pub review_grace: Span,
    /// How large status lists are.
    pub list_sizes: Sizes,
    pub allowance: Allowance,
    /// Who signs certificates; absent: none are issued.
    pub pki: Option<Arc<Pki>>,
}

/// Starts on what the store holds. The writer wants a thread of its own.
pub fn start(startup: Startup) -> Result<(Flow, Writer, Upkeep), StartError> {
    let Startup { issuer, clock, store, keys_dir, source, strict_rollback, review_grace, list_sizes, allowance, pki } =
        startup;
    let place = source.place();
    let Loaded { policy, lints } = source.load().map_err(StartError::Bundle)?;
    lints.iter().for_each(|lint| tracing::warn!(%lint, "the bundle loads, but look at this"));
    let policy = Arc::new(policy);
    let time = Time::start(clock, store.high_water());
    let now = time.now();
    let keyring = keyring(keys_dir.as_deref(), now.at)?;
    let list_keys = list_keyring(keys_dir.as_deref(), now.at)?;
    let lists = Lists::with_sizes(list_sizes);
    let crls = Crls::default();
    let (table, last_exp) = fold(&store, &lists, &crls, pki.as_deref(), policy.revocable(), now)?;
    keyring.note_exp(last_exp);
    let rings = [Ring::Keys(&keyring), Ring::Keys(list_keys.ring())];
    for ring in rings.into_iter().chain(pki.as_deref().map(Ring::Cas)) {
        taint::honour(&store.reader(), ring, now.at)?;
    }
    let checkpointer = store.checkpointer()?;
    let (queue, waiting) = mpsc::channel(group::QUEUE_MAX);
    let shared = Arc::new(Shared {
        issuer: issuer.into(),
        stream: store.stream(),
        time,
        table,
        reader: store.reader(),
        keyring,
        list_keys,
        pki,
        lists,
        crls,
        pressing: Arc::default(),
        afar: Afar::default(),
        ocsp: OcspSigners::default(),
        settling: Mutex::default(),
        keys: IssuerKeys::new(Fetcher::by_environment()?),
        proofs: ProofDesk::new(&entropy::bytes::<32>()?, now.at),
        policy: ArcSwap::new(policy.clone()),
        held: archive::Held::default(),
        source,
        followed: ArcSwap::from_pointee(place),
        strict_rollback,
        review_grace,
        loading: Arc::default(),
        queue,
        records: Mutex::default(),
        ends: Mutex::default(),
        mass: super::mass::Mass::default(),
        refusals: Refusals::default(),
        taints: Taints::default(),
        allowance: Taken::of(allowance),
        outcomes: Outcomes::default(),
        store_fault: ArcSwap::default(),
        bundle_fault: ArcSwap::default(),
        tls_fault: ArcSwap::default(),
        cursor_key: hmac::Key::new(hmac::HMAC_SHA256, &entropy::bytes::<32>()?),
        forged_or_lost: AtomicU64::new(0),
        turned_away: AtomicU64::new(0),
    });
    let mut writer = Writer::new(shared.clone(), store, waiting);
    writer.catch_up()?;
    writer.swap_to(policy, "start")?;
    writer.record_start()?;
    if let Some(pki) = shared.pki.as_ref().filter(|_| now.safe) {
        writer.begin_cas(pki)?;
    }
    let flow = Flow(shared);
    Ok((flow.clone(), writer, Upkeep::new(flow, checkpointer)))
}

fn keyring(dir: Option<&Path>, now: UnixMs) -> Result<Keyring, KeyringError> {
    match dir {
        Some(dir) => Keyring::open(dir, now),
        None => Keyring::in_memory(now),
    }
}

fn list_keyring(dir: Option<&Path>, now: UnixMs) -> Result<ListKeyring, KeyringError> {
    match dir {
        Some(dir) => ListKeyring::open(dir, now),
        None => ListKeyring::in_memory(now),
    }
}

/// The lease table and the lists as the fold of what was committed, and the latest `exp` in it. A list
/// shows what ended for as long as a server's leeway after its hour.
fn fold(
    store: &Store,
    lists: &Lists,
    crls: &Crls,
    pki: Option<&Pki>,
    revocable: Revocable,
    now: Now,
) -> Result<(Table, UnixMs), StoreError> {
    crls.go_on_from(last_crl_number(&store.reader())?);
    let mut signers = Signers::default();
    let table = Table::default();
    table.know(revocable);
    let mut last_exp = UnixMs::default();
    store.load(now.at.plus_s(-SERVED_AFTER_S), |change| {
        if let Change::AddLease(row) = &change {
            last_exp = last_exp.max(row.expires);
            if now.latest < row.expires {
                signers.note(pki, row);
            }
        }
        lists.apply(&change);
        crls.apply(&change);
        table.apply(&change);
    })?;
    signers.tell();
    // What expired was needed for its list or CRL alone.
    while now.safe && table.forget_leases(now, SLICE) >= SLICE {}
    Ok((table, last_exp))
}

impl Writer {
    fn record_start(&mut self) -> Result<(), StartError> {
        let now = self.shared.time.now();
        let kid = self.shared.keyring.active_kid();
        let facts = Start {
            clocks: self.shared.time.started(),
            bundle: self.shared.policy.load().bundle().fingerprint,
            kid: &kid,
            version: env!("CARGO_PKG_VERSION"),
        };
        let mut seq = self.store.next_seq();
        let changes = numbered(vec![ledger::start(Stamp::draw(now.at)?, &facts)], &mut seq);
        Ok(self.store.write(&changes, now.at)?)
    }

    /// The first request finds a CA that signs. Where none can be made, readiness says so, and tokens are
    /// issued all the same.
    fn begin_cas(&mut self, pki: &Pki) -> Result<(), StartError> {
        let now = self.shared.time.now();
        let rotated = pki.rotate(now.at);
        let rotated = rotated.inspect_err(|error| tracing::error!(%error, "issuing CAs did not take turns")).ok();
        let Some(CaRotation { from, to }) = rotated.flatten() else { return Ok(()) };
        let from = from.as_ref().map_or("", |id| id.as_str());
        let facts = KeyRotation { from, to: to.as_str(), usage: Some("ca") };
        let mut seq = self.store.next_seq();
        let changes = numbered(vec![ledger::key_rotated(Stamp::draw(now.at)?, &facts)], &mut seq);
        Ok(self.store.write(&changes, now.at)?)
    }
}
