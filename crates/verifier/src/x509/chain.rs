//! From what a peer presented to whose it is.

use std::time::Duration;

use dayfly_domain::UnixMs;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    ring as algorithms,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Anchors, CrlSet, PeerIdentity, PeerRefusal, PeerRules, Revocation, anchors::Authority, identity};

/// Certificates that a peer may present: its leaf, and what leads to a root.
pub const CHAIN_MAX: usize = 6;
/// One certificate, DER.
pub const CERTIFICATE_MAX_BYTES: usize = 16 * 1024;
/// A public key with its header: RSA of 4096 bits needs 550.
const KEY_MAX_BYTES: usize = 600;

const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// Whose certificate this is, at this moment. `chain`: as TLS hands it over, the leaf first, the rest in any
/// order. That the peer holds the leaf's key is TLS's to show.
pub fn check_peer(
    chain: &[CertificateDer<'_>],
    anchors: &Anchors,
    rules: &PeerRules,
    crls: Option<&CrlSet>,
    now: UnixMs,
) -> Result<PeerIdentity, PeerRefusal> {
    let [leaf, intermediates @ ..] = chain else { return Err(PeerRefusal::Size) };
    bounded(chain)?;
    path(ALGORITHMS, leaf, intermediates, anchors, lists(rules, crls)?, now)?;
    identity::read(leaf, rules)
}

/// The CAs of a chain that holds, lists aside, and the anchors: those whose word on lists counts.
pub(super) fn authorities(chain: &[CertificateDer<'_>], anchors: &Anchors, now: UnixMs) -> Vec<Authority> {
    let [leaf, intermediates @ ..] = chain else { return Vec::new() };
    let path = bounded(chain).and_then(|()| path(ALGORITHMS, leaf, intermediates, anchors, None, now));
    path.map(|between| [between, anchors.authorities(now)].concat()).unwrap_or_default()
}

// SECURITY: `t_133_a_huge_key_is_refused_before_it_costs_anything`
fn bounded(chain: &[CertificateDer<'_>]) -> Result<(), PeerRefusal> {
    if chain.len() > CHAIN_MAX || chain.iter().any(|der| der.len() > CERTIFICATE_MAX_BYTES) {
        return Err(PeerRefusal::Size);
    }
    for der in chain {
        let (rest, read) = X509Certificate::from_der(der).map_err(|_| PeerRefusal::Malformed)?;
        if !rest.is_empty() {
            return Err(PeerRefusal::Malformed);
        }
        if read.public_key().raw.len() > KEY_MAX_BYTES {
            return Err(PeerRefusal::Size);
        }
    }
    Ok(())
}

/// The lists to ask. Where there are some they count, even where none is demanded.
fn lists<'a>(rules: &PeerRules, crls: Option<&'a CrlSet>) -> Result<Option<&'a CrlSet>, PeerRefusal> {
    match (rules.revocation(), crls) {
        (Revocation::Crls, None) => Err(PeerRefusal::NoCrl),
        (Revocation::Crls | Revocation::Elsewhere, crls) => Ok(crls),
    }
}

/// The CAs between the leaf and an anchor.
// SECURITY: `t_139_a_level_without_a_list_is_refused`; unknown is no, and each level counts.
// SECURITY: `t_142_a_mesh_of_cas_costs_a_hundred_signatures_at_most`
fn path(
    algorithms: &[&dyn SignatureVerificationAlgorithm],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    anchors: &Anchors,
    crls: Option<&CrlSet>,
    now: UnixMs,
) -> Result<Vec<Authority>, PeerRefusal> {
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| PeerRefusal::of(&error))?;
    let anchors = anchors.at(now);
    let lists = crls.map(CrlSet::lists).unwrap_or_default();
    let revocation = crls.map(|_| {
        let options = RevocationOptionsBuilder::new(&lists).map_err(|_| PeerRefusal::NoCrl)?;
        Ok(options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build())
    });
    // CAs need not say what theirs are for; the leaf must, and is looked at where its name is read.
    let usage = KeyUsage::client_auth();
    leaf.verify_for_usage(algorithms, &anchors, intermediates, unix(now), usage, revocation.transpose()?, None)
        .map(|path| path.intermediate_certificates().filter_map(|ca| Authority::read(&ca.der())).collect())
        .map_err(|error| PeerRefusal::of(&error))
}

/// A clock before 1970 reads as far in the future, so that everything is expired (law L4).
fn unix(now: UnixMs) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_s()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
    use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature};

    use super::*;

    /// Says how often it was asked.
    #[derive(Debug)]
    struct Counting(AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.0.fetch_add(1, Ordering::Relaxed);
            algorithms::ECDSA_P256_SHA256.verify_signature(key, message, signature)
        }

        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            algorithms::ECDSA_P256_SHA256.public_key_alg_id()
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            algorithms::ECDSA_P256_SHA256.signature_alg_id()
        }
    }

    fn ca() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "same");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    #[test]
    fn t_142_a_mesh_of_cas_costs_a_hundred_signatures_at_most() {
        let keys: Vec<_> = (0..CHAIN_MAX).map(|_| KeyPair::generate().unwrap()).collect();
        let root = ca().self_signed(&keys[0]).unwrap();
        let anchors = Anchors::from_der(std::slice::from_ref(root.der())).unwrap();
        // Of one name, so that each looks as if it had signed each.
        let signed = |params: CertificateParams, key: &KeyPair| {
            params.signed_by(key, &Issuer::from_params(&ca(), &keys[1])).unwrap().der().clone()
        };
        let leaf = signed(CertificateParams::default(), &KeyPair::generate().unwrap());
        let mesh: Vec<_> = keys[1..].iter().map(|key| signed(ca(), key)).collect();
        assert_eq!(mesh.len() + 1, CHAIN_MAX);
        let counting = Counting(AtomicUsize::new(0));
        let now = UnixMs::from_s(1_800_000_000);
        assert_eq!(path(&[&counting], &leaf, &mesh, &anchors, None, now).err(), Some(PeerRefusal::Chain));
        let count = counting.0.into_inner();
        assert!((CHAIN_MAX..=100).contains(&count), "{count} signatures");
    }
}
