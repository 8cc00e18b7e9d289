//! The issuers of the bundle and how their keys are: listed for operators, asked anew on an operator's
//! word, and fetched ahead so that no request waits for it. An issuer that is away keeps nothing else
//! from working.

use std::{collections::BTreeSet, sync::Arc};

use dayfly_domain::{
    Name, Reason,
    bundle::{Issuer, IssuerKind, KeySource},
};

use super::{
    Flow,
    group::Group,
    words::{Caller, Refused},
};
use crate::{
    intake::{KeysHealth, KeysState, NotRefreshed},
    ledger::{self, Outcome, Stamp},
};

/// An issuer, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerView {
    pub name: Name,
    pub profile: Name,
    pub kind: IssuerKind,
    pub url: Arc<str>,
    pub source: IssuerSource,
    pub health: KeysHealth,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuerSource {
    Discovery,
    /// Of a SPIFFE trust bundle.
    Endpoint,
    File,
}

impl Flow {
    /// Every issuer of the bundle in force, by name.
    pub async fn issuers(&self, caller: &Caller) -> Result<Vec<IssuerView>, Refused> {
        self.operator(caller).await?;
        Ok(self.issuers_now())
    }

    /// Fetches an issuer's keys at once. From the answer on, a key that was taken out opens nothing.
    pub async fn refresh_issuer(&self, caller: &Caller, name: &str) -> Result<IssuerView, Refused> {
        let actor = self.operator(caller).await?;
        let policy = self.policy.load_full();
        let found = policy.bundle().issuers.values().find(|issuer| issuer.name.as_str() == name);
        let issuer = found.ok_or(Reason::NotFound)?;
        if issuer.disabled {
            return Err(Refused { hint: Some("the issuer is disabled".to_owned()), ..Reason::NotActive.into() });
        }
        let refreshed = self.keys.refresh(issuer, self.time.now().at).await;
        let why = match &refreshed {
            Ok(()) => None,
            Err(NotRefreshed::TooSoon) => {
                return Err(Refused { hint: Some(NotRefreshed::TooSoon.to_string()), ..Reason::Busy.into() });
            }
            Err(failed @ NotRefreshed::Failed(_)) => Some(failed.to_string()),
        };
        let decision = self.note_refresh(&actor, issuer, why.as_deref()).await;
        match why {
            None => Ok(self.issuer_view(issuer)),
            Some(why) => Err(Refused { hint: Some(why), decision, ..Reason::IssuerDown.into() }),
        }
    }

    /// Begins to fetch the keys that will be needed soon; for whoever keeps time. Waits for nothing.
    pub fn fetch_issuers_ahead(&self) {
        let policy = self.policy.load();
        let enabled = policy.bundle().issuers.values().filter(|issuer| !issuer.disabled);
        self.keys.fetch_ahead(enabled, self.time.now().at);
    }

    /// Issuers whose keys could not be confirmed: no reason not to be ready, and worth a look.
    pub fn issuers_unwell(&self) -> Vec<IssuerView> {
        let unwell = |view: &IssuerView| matches!(view.health.state, KeysState::Down | KeysState::Stale);
        self.issuers_now().into_iter().filter(unwell).collect()
    }

    fn issuers_now(&self) -> Vec<IssuerView> {
        self.policy.load().bundle().issuers.values().map(|issuer| self.issuer_view(issuer)).collect()
    }

    fn issuer_view(&self, issuer: &Issuer) -> IssuerView {
        IssuerView {
            name: issuer.name.clone(),
            profile: issuer.profile.clone(),
            kind: issuer.kind,
            url: issuer.url.clone(),
            source: match issuer.keys {
                KeySource::Discovery { .. } => IssuerSource::Discovery,
                KeySource::BundleEndpoint { .. } => IssuerSource::Endpoint,
                KeySource::Pinned { .. } | KeySource::TrustBundle { .. } | KeySource::Roots { .. } => {
                    IssuerSource::File
                }
            },
            health: self.keys.health(issuer, self.time.now().at),
        }
    }

    async fn note_refresh(&self, actor: &str, issuer: &Issuer, why: Option<&str>) -> Option<dayfly_domain::EventId> {
        let stamp = Stamp::draw(self.time.now().at).ok()?;
        let id = stamp.id;
        let problem = why.map(|why| ("problem", why.to_owned()));
        let what = [("issuer", issuer.name.to_string())].into_iter().chain(problem).collect();
        let outcome = if why.is_some() { Outcome::Refused } else { Outcome::Success };
        let entry = ledger::operator(stamp, outcome, actor, "issuer_refresh", &what);
        let (ack, noted) = tokio::sync::oneshot::channel();
        match self.submit(Group::Note(entry, ack), noted).await {
            Ok(()) => Some(id),
            Err(_) => {
                tracing::warn!(issuer = %issuer.name, "a refresh of an issuer's keys is not on the record");
                None
            }
        }
    }

    /// Shows how old the keys are, and how many. `shown`: whose were shown before; of those that are gone
    /// nothing is left to alarm about.
    pub(super) fn gauge_issuers(&self, shown: &mut BTreeSet<Name>) {
        let now = self.time.now().at;
        let gone = std::mem::take(shown);
        for IssuerView { name, health, .. } in self.issuers_now() {
            let label = || name.to_string();
            metrics::gauge!("dayfly_issuer_keys", "issuer" => label()).set(health.keys as f64);
            if let Some(confirmed) = health.confirmed_at {
                let age_s = (now.as_ms() - confirmed.as_ms()) as f64 / 1000.0;
                metrics::gauge!("dayfly_issuer_keys_age_seconds", "issuer" => label()).set(age_s);
            }
            metrics::counter!("dayfly_jwks_fetch_failures_total", "issuer" => label()).absolute(health.failures);
            metrics::counter!("dayfly_review_failures_total", "issuer" => label()).absolute(health.review_failures);
            shown.insert(name);
        }
        for name in gone.difference(shown) {
            metrics::gauge!("dayfly_issuer_keys", "issuer" => name.to_string()).set(0.0);
            metrics::gauge!("dayfly_issuer_keys_age_seconds", "issuer" => name.to_string()).set(0.0);
        }
    }
}
