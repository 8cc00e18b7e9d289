//! The door of a server that speaks TLS: rustls asks here whether a client may enter. In: anchors, rules, and
//! revocation lists that may be swapped at any time. Out: yes or no for a handshake, and for a connection
//! later on who is at its other end.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use dayfly_domain::UnixMs;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    Anchors, CHAIN_MAX, CrlError, CrlSet, PeerIdentity, PeerRefusal, PeerRules, anchors::Authority, chain, check_peer,
    shelf::Shelf,
};

/// Lets in peers with a live certificate; one for a whole server.
pub struct Peers {
    anchors: Anchors,
    rules: PeerRules,
    crls: RwLock<Lists>,
    hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug, Default)]
struct Lists {
    shelf: Shelf,
    /// What is proven of them.
    set: Option<Arc<CrlSet>>,
}

impl Peers {
    /// Where the rules demand lists, nobody enters before [`Peers::put_crls`].
    pub fn new(anchors: Anchors, rules: PeerRules) -> Arc<Self> {
        let hints = anchors.subjects().map(DistinguishedName::in_sequence).collect();
        let algorithms = ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { anchors, rules, crls: RwLock::default(), hints, algorithms })
    }

    /// From the next handshake on these lists count, each once its signature held under a CA of a chain that
    /// holds: over plain http anybody could serve whatever he likes. A set that goes back behind what counts is
    /// refused, and a list that is left out stays.
    pub fn put_crls(&self, crls: CrlSet) -> Result<(), CrlError> {
        self.crls.write().unwrap_or_else(PoisonError::into_inner).shelf.put(crls)
    }

    /// Who this is now. `chain`: as presented, the leaf first
    /// ([`rustls::CommonState::peer_certificates`]). Ask again for each request of a connection that lives on.
    pub fn check(&self, chain: &[CertificateDer<'_>], now: UnixMs) -> Result<PeerIdentity, PeerRefusal> {
        if self.has_news_for(chain) {
            let authorities = chain::authorities(chain, &self.anchors, now);
            let mut lists = self.crls.write().unwrap_or_else(PoisonError::into_inner);
            lists.shelf.prove(&authorities, now.as_s());
            lists.set = lists.shelf.set().map(Arc::new);
        }
        let crls = self.crls.read().unwrap_or_else(PoisonError::into_inner).set.clone();
        check_peer(chain, &self.anchors, &self.rules, crls.as_deref(), now)
    }

    /// Whether a list waits for a CA that this chain names: seldom, so that most chains are looked at once.
    fn has_news_for(&self, chain: &[CertificateDer<'_>]) -> bool {
        let lists = self.crls.read().unwrap_or_else(PoisonError::into_inner);
        if !lists.shelf.waits() {
            return false;
        }
        let above = chain.iter().take(CHAIN_MAX).skip(1).filter_map(|der| Authority::read(der));
        let mut names: Vec<_> = above.map(|ca| ca.subject).collect();
        names.extend(self.anchors.names());
        lists.shelf.waits_for(|issuer| names.iter().any(|name| name == issuer))
    }

    /// TLS 1.2 and 1.3 with these peers only. `chain` and `key`: the server's own. Nothing is resumed.
    // SECURITY: `t_138_no_session_is_resumed`; a ticket would enter without a check.
    pub fn server_config(
        self: &Arc<Self>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(self.clone())
            .with_single_cert(chain, key)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ClientCertVerifier for Peers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).cloned().collect();
        let now = UnixMs::from_s(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        match self.check(&chain, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refusal) => Err(alert(refusal)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What TLS tells the peer of it (RFC 8446 section 6.2).
fn alert(refusal: PeerRefusal) -> rustls::Error {
    let error = match refusal {
        PeerRefusal::Size | PeerRefusal::Malformed => CertificateError::BadEncoding,
        PeerRefusal::Chain => CertificateError::UnknownIssuer,
        PeerRefusal::Expired => CertificateError::Expired,
        PeerRefusal::NotYetValid => CertificateError::NotValidYet,
        PeerRefusal::Revoked => CertificateError::Revoked,
        PeerRefusal::NoCrl => CertificateError::UnknownRevocationStatus,
        PeerRefusal::Purpose => CertificateError::InvalidPurpose,
        PeerRefusal::StaleCrl
        | PeerRefusal::BadCrl
        | PeerRefusal::Name
        | PeerRefusal::TrustDomain
        | PeerRefusal::Template
        | PeerRefusal::Untrusted
        | PeerRefusal::Serial => CertificateError::Other(OtherError(Arc::new(refusal))),
    };
    error.into()
}

impl fmt::Debug for Peers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Peers").field("rules", &self.rules).finish_non_exhaustive()
    }
}
