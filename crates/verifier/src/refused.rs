//! What a resource server tells its caller: the outcome of [`crate::Offline`], `Online` and `Listed`.

use dayfly_domain::Reason;

use crate::{Refusal, dpop, dpop::ProofRefusal, status::ListRefusal};

/// Why a request is not let in. Whatever could not be checked is refused (fail closed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token itself does not hold.
    #[error(transparent)]
    Token(#[from] Refusal),
    /// The proof that came with the token does not hold, or is not for it (RFC 9449).
    #[error(transparent)]
    Proof(#[from] ProofRefusal),
    /// The token is bound to a client certificate that was not presented, or to none (RFC 8705).
    #[error(transparent)]
    Certificate(#[from] CertificateRefusal),
    /// The broker says the token is not active: its lease or task has ended, or it is not for us.
    #[error("the token is not active any more")]
    Inactive,
    /// The token holds, but the status list it is on does not, or cannot be had.
    #[error(transparent)]
    List(#[from] ListRefusal),
    /// The token holds, but keys or an answer that are fresh enough could not be had.
    #[error("whether the token is still active cannot be checked now")]
    Unavailable,
}

/// Why a client's certificate does not open a token. Each is an `invalid_token` (RFC 8705 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRefusal {
    #[error("the token is bound to a client certificate, and none was presented")]
    Missing,
    #[error("the token is bound to another client certificate")]
    Other,
    #[error("the token is not bound to a client certificate")]
    Unbound,
}

impl Refused {
    /// The row of the table of reasons.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Token(refusal) => refusal.reason(),
            Self::Proof(refusal) => refusal.reason(),
            Self::Certificate(_) => Reason::Certificate,
            Self::Inactive => Reason::Ended,
            Self::List(_) | Self::Unavailable => Reason::IssuerDown,
        }
    }

    /// HTTP status: 401, or 503 where the caller's token is not at fault.
    pub fn status(&self) -> u16 {
        match self {
            Self::Token(_) | Self::Certificate(_) | Self::Inactive => 401,
            Self::Proof(ProofRefusal::Full) | Self::List(_) | Self::Unavailable => 503,
            Self::Proof(_) => 401,
        }
    }

    /// `WWW-Authenticate` of a 401 (RFC 6750 section 3, RFC 9449 section 7.1); `None` with a 503.
    pub fn challenge(&self) -> Option<String> {
        let text = self.to_string();
        match self {
            // A bound token that came alone: the scheme to come again with.
            Self::Token(Refusal::Claim("cnf")) => Some(dpop::challenge(Some(("invalid_token", &text)))),
            Self::Token(_) | Self::Certificate(_) | Self::Inactive | Self::Proof(ProofRefusal::Unbound) => {
                let description = text.replace('`', "'");
                Some(format!(r#"Bearer error="invalid_token", error_description="{description}""#))
            }
            Self::Proof(ProofRefusal::OtherKey) => Some(dpop::challenge(Some(("invalid_token", &text)))),
            Self::Proof(ProofRefusal::Full) | Self::List(_) | Self::Unavailable => None,
            Self::Proof(_) => Some(dpop::challenge(Some(("invalid_dpop_proof", &text)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_a_quoted_string() {
        let challenge = Refused::Token(Refusal::Claim("exp")).challenge().unwrap();
        assert_eq!(challenge.matches('"').count(), 4);
        assert!(challenge.contains("'exp'") && challenge.is_ascii());
        assert_eq!(Refused::Inactive.reason(), Reason::Ended);
        assert_eq!((Refused::Unavailable.challenge(), Refused::Unavailable.status()), (None, 503));
    }

    #[test]
    fn a_bound_token_is_asked_for_with_the_scheme_that_it_needs() {
        let challenge = |refused: Refused| refused.challenge().unwrap();
        let alone = challenge(Refusal::Claim("cnf").into());
        assert!(alone.starts_with(r#"DPoP error="invalid_token""#) && alone.contains(r#"algs="RS256 "#), "{alone}");
        assert!(challenge(ProofRefusal::Used.into()).starts_with(r#"DPoP error="invalid_dpop_proof""#));
        assert!(challenge(ProofRefusal::Unbound.into()).starts_with("Bearer "));
        let certificate = challenge(CertificateRefusal::Missing.into());
        assert!(certificate.starts_with(r#"Bearer error="invalid_token""#), "{certificate}");
        let full = Refused::from(ProofRefusal::Full);
        assert_eq!((full.challenge(), full.status(), full.reason()), (None, 503, Reason::Busy));
    }
}
