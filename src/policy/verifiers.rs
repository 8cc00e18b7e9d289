//! Who may introspect for what: the verifier rows of the targets.

use std::sync::Arc;

use dayfly_domain::{Workload, bundle::VerifierRow};

use super::Policy;

impl Policy {
    /// Names of the enabled targets that have a row for this verifier: its issuer, and every claim
    /// that the row names. What speaks for unreviewed code matches none, as no row says otherwise.
    // SECURITY: `a_verifier_for_unreviewed_code_matches_no_row`, `a_disabled_target_gives_nothing`.
    pub fn targets_of(&self, verifier: &Workload) -> Arc<[Arc<str>]> {
        let targets = self.bundle().targets.values().filter(|target| !target.disabled && !verifier.untrusted);
        let named = targets.filter(|target| target.verifiers.iter().any(|row| fits(row, verifier)));
        named.map(|target| Arc::from(target.name.as_str())).collect()
    }
}

fn fits(row: &VerifierRow, verifier: &Workload) -> bool {
    let claim = |name: &String| verifier.claims.get(name);
    row.issuer == verifier.issuer
        && row.claims.iter().all(|(name, wanted)| claim(name).is_some_and(|seen| seen.is_one_of(wanted)))
}
