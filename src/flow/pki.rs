//! What the doors show of the authority.

use serde_json::Value;

use super::Flow;
use crate::mint::pki::spiffe_bundle;

impl Flow {
    /// The certificate of a CA of ours, DER.
    pub fn ca_certificate(&self, id: &str) -> Option<Vec<u8>> {
        self.pki()?.certificate(id).map(|der| der.to_vec())
    }

    /// The SPIFFE trust bundle; absent where there is no authority.
    pub fn spiffe_bundle(&self) -> Option<Value> {
        let pki = self.pki()?;
        spiffe_bundle(&pki.roots(), pki.sequence()).inspect_err(|error| tracing::error!(%error, "no trust bundle")).ok()
    }
}
