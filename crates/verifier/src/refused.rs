//! What a resource server tells its caller: the outcome of [`crate::Offline`] and `Online`.

use dayfly_domain::Reason;

use crate::Refusal;

/// Why a request is not let in. Whatever could not be checked is refused (fail closed).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token itself does not hold.
    #[error(transparent)]
    Token(#[from] Refusal),
    /// The broker says the token is not active: its lease or task has ended, or it is not for us.
    #[error("the token is not active any more")]
    Inactive,
    /// The token holds, but keys or an answer that are fresh enough could not be had.
    #[error("whether the token is still active cannot be checked now")]
    Unavailable,
}

impl Refused {
    /// The row of the table of reasons.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Token(refusal) => refusal.reason(),
            Self::Inactive => Reason::Ended,
            Self::Unavailable => Reason::IssuerDown,
        }
    }

    /// HTTP status: 401, or 503 where the caller's token is not at fault.
    pub fn status(&self) -> u16 {
        match self {
            Self::Token(_) | Self::Inactive => 401,
            Self::Unavailable => 503,
        }
    }

    /// `WWW-Authenticate` of a 401 (RFC 6750 section 3); `None` with a 503.
    pub fn challenge(&self) -> Option<String> {
        match self {
            Self::Token(_) | Self::Inactive => {
                let description = self.to_string().replace('`', "'");
                Some(format!(r#"Bearer error="invalid_token", error_description="{description}""#))
            }
            Self::Unavailable => None,
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
}
