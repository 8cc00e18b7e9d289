//! The listener's certificate while the broker runs: loaded with the start, again with each reload,
//! and watched, because one that expires shuts everybody out.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Settings,
    flow::Flow,
    sys::{
        clock::Clock,
        net::{Certified, Life, NetError, TlsFiles},
    },
};

/// A certificate that soon expires is told about so often.
const TOLD_EACH: Duration = Duration::from_secs(24 * 3600);
const LOOKED_AT_EACH: Duration = Duration::from_secs(60);

/// What is served, and the files it came from.
pub(super) struct Tls {
    files: TlsFiles,
    config: Arc<ArcSwap<ServerConfig>>,
    life: Mutex<Life>,
}

/// The files that the settings name.
pub(super) fn files(settings: &Settings) -> TlsFiles {
    TlsFiles { cert_file: settings.tls.cert_file.clone(), key_file: settings.tls.key_file.clone() }
}

impl Tls {
    pub fn load(files: TlsFiles) -> Result<Self, NetError> {
        let Certified { config, life, is_authority } = files.load(wall())?;
        note(life);
        note_authority(is_authority);
        Ok(Self { files, config: Arc::new(ArcSwap::new(config)), life: Mutex::new(life) })
    }

    /// For the listener; it shows what was loaded last.
    pub fn config(&self) -> Arc<ArcSwap<ServerConfig>> {
        self.config.clone()
    }

    /// What is bad leaves the old pair in place, and readiness and the log say so until a good load.
    // SECURITY: `a_bad_certificate_never_replaces_a_good_one`
    pub fn load_again(&self, flow: &Flow) {
        match self.files.load(wall()) {
            Ok(Certified { config, life, is_authority }) => {
                self.config.store(config);
                *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life;
                tracing::info!(not_after = %life.until, "the TLS certificate was loaded");
                note(life);
                note_authority(is_authority);
                flow.note_tls(None);
            }
            Err(error) => {
                tracing::error!(%error, "the TLS files were not loaded; the old ones stay");
                flow.note_tls(Some(format!("the files were not loaded, the old ones stay: {error}")));
            }
        }
    }

    /// Tells once a day of a certificate that soon expires, and makes readiness say that it did.
    pub async fn watch(self: Arc<Self>, flow: Flow, stop: CancellationToken) {
        let mut minutes = interval(LOOKED_AT_EACH);
        minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = Instant::now();
        let mut held = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = minutes.tick() => {}
            }
            let life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
            let fault = life.holds(wall()).err();
            match &fault {
                Some(fault) if held => {
                    tracing::error!(%fault, "put a new certificate in place and reload");
                    flow.note_tls(Some(fault.to_string()));
                }
                // It was the clock.
                None if !held => flow.note_tls(None),
                _ => {}
            }
            held = fault.is_none();
            if told.elapsed() >= TOLD_EACH {
                told = Instant::now();
                note(life);
            }
        }
    }
}

fn note(life: Life) {
    metrics::gauge!("dayfly_tls_certificate_expiry_timestamp_seconds").set(life.until.as_s() as f64);
    if life.is_short(wall()) {
        tracing::warn!(until = %life.until, "the TLS certificate soon expires: put a new one in place and reload");
    }
}

fn note_authority(is_authority: bool) {
    if is_authority {
        tracing::warn!("the TLS certificate {AUTHORITY_AS_LEAF}: {AUTHORITY_AS_LEAF_HELP}");
    }
}

/// What is wrong with a leaf that is a CA's own certificate (`openssl req -x509` makes one by default).
pub(super) const AUTHORITY_AS_LEAF: &str = "is a CA's own: some clients refuse it as a server's (`CaUsedAsEndEntity`)";
pub(super) const AUTHORITY_AS_LEAF_HELP: &str =
    "have a certificate with `basicConstraints = CA:FALSE` issued for the broker";

fn wall() -> dayfly_domain::UnixMs {
    Clock::Machine.wall()
}
