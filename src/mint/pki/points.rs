//! Where a certificate's end is read: its CRL distribution point follows from its CA and its serial number.

use dayfly_domain::LeaseId;

use super::{CaId, Pki};

/// One list for each CA: not every verifier looks at which of several is meant (GnuTLS keeps one for each name).
pub const CRL_SHARDS: u32 = 1;

impl Pki {
    /// How many CRLs what this CA signs is spread over: fixed for as long as the CA is known.
    pub fn crl_shards(&self, _ca: &CaId) -> u32 {
        CRL_SHARDS
    }

    /// The CRL that a certificate of this CA with this serial number is on.
    pub fn crl_of(&self, ca: &CaId, lease: LeaseId) -> String {
        // The last octets of an id are random.
        let shard = (lease.as_u128() as u32) % self.crl_shards(ca);
        self.places().crl(ca, shard)
    }
}
