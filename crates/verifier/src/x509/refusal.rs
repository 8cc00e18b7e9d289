//! Why a peer was refused: what it may know, never a piece of its certificate.

use dayfly_domain::Reason;

/// Which check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// No certificate, too many, or one that is too large.
    #[error("the peer presented no certificate, too many, or one that is too large")]
    Size,
    /// No strict DER, no version 3, or an extension that cannot be read (RFC 5280 section 4).
    #[error("a certificate of the peer is malformed")]
    Malformed,
    /// It does not lead to one of our roots, or a certificate on the way may not stand there.
    #[error("the peer's certificate was not issued under a root that is trusted here")]
    Chain,
    /// A certificate of the chain is past its `notAfter`, which is still valid (RFC 5280 section 4.1.2.5).
    #[error("a certificate of the peer is expired")]
    Expired,
    #[error("a certificate of the peer is not valid yet")]
    NotYetValid,
    /// A certificate of the chain is on its issuer's list.
    #[error("a certificate of the peer is revoked")]
    Revoked,
    /// No list is at hand for one of the levels.
    #[error("no revocation list says whether the peer's certificates still hold")]
    NoCrl,
    /// The list for one of the levels is past its `nextUpdate`.
    #[error("the revocation list is too old to say whether the peer's certificates still hold")]
    StaleCrl,
    /// The list for one of the levels is not signed by its CA.
    #[error("the revocation list is not its issuer's")]
    BadCrl,
    /// Not for the authentication of clients (RFC 5280 section 4.2.1.12), or not for signatures.
    #[error("the peer's certificate is not for this use")]
    Purpose,
    /// Not exactly one URI among its alternative names, or that is no SPIFFE ID as the broker makes them.
    #[error("the peer's certificate does not name exactly one workload")]
    Name,
    #[error("the peer is of another trust domain")]
    TrustDomain,
    #[error("the peer's template may not enter here")]
    Template,
    /// Its name ends in `/untrusted`.
    #[error("the peer speaks for code that nobody reviewed")]
    Untrusted,
    /// Not positive, or longer than the 16 octets of a lease.
    #[error("the serial number of the peer's certificate is no lease")]
    Serial,
}

impl PeerRefusal {
    /// The row of the table of reasons.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Size | Self::Malformed | Self::Chain | Self::Serial => Reason::Signature,
            Self::Expired | Self::NotYetValid => Reason::Expired,
            Self::Revoked => Reason::Ended,
            Self::NoCrl | Self::StaleCrl | Self::BadCrl => Reason::IssuerDown,
            Self::Purpose | Self::Name => Reason::Claim,
            Self::TrustDomain => Reason::Stranger,
            Self::Template | Self::Untrusted => Reason::NoMatch,
        }
    }

    pub(super) fn of(error: &webpki::Error) -> Self {
        use webpki::Error;
        match error {
            Error::CertExpired { .. } => Self::Expired,
            Error::CertNotValidYet { .. } => Self::NotYetValid,
            Error::CertRevoked => Self::Revoked,
            Error::UnknownRevocationStatus => Self::NoCrl,
            Error::CrlExpired { .. } => Self::StaleCrl,
            Error::InvalidCrlSignatureForPublicKey
            | Error::IssuerNotCrlSigner
            | Error::UnsupportedCrlSignatureAlgorithmContext(_)
            | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => Self::BadCrl,
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Self::Purpose,
            Error::BadDer
            | Error::BadDerTime
            | Error::ExtensionValueInvalid
            | Error::InvalidCertValidity
            | Error::InvalidSerialNumber
            | Error::MalformedExtensions
            | Error::TrailingData(_)
            | Error::UnsupportedCertVersion
            | Error::UnsupportedCriticalExtension => Self::Malformed,
            // The library may learn further ways to say no.
            _ => Self::Chain,
        }
    }
}
