//! Why a token was refused: what its holder may know, never a piece of the token.

use dayfly_domain::Reason;

/// Why a token is not accepted. Says which check failed; never quotes the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too long, not three canonical base64url parts, or not JSON objects (RFC 7515 section 7.1).
    #[error("the token is not a compact JWS")]
    Malformed,
    /// A header member that changes how a token is read, or one of the wrong type.
    #[error("the token's header has a member that is not accepted")]
    Header,
    /// Unsigned, symmetric, unknown, or not one that these rules or this key allow.
    #[error("the token's `alg` is not accepted")]
    Algorithm,
    /// Another kind of token (RFC 8725 section 3.11).
    #[error("the token's `typ` is not accepted")]
    Type,
    /// The issuer's set has no key of this `kid` for this `alg`, or without `kid` not exactly one.
    #[error("no key of the issuer fits the token")]
    UnknownKey,
    /// Not signed by that key; or by a key that is none.
    #[error("the token's signature is wrong")]
    Signature,
    /// Not this issuer byte for byte, or no string.
    #[error("the token's `iss` is another")]
    Issuer,
    /// `aud` is a string, or an array of exactly one.
    #[error("the token's `aud` is not exactly the expected one")]
    Audience,
    /// `exp` is reached (RFC 7519 section 4.1.4). No leeway.
    #[error("the token is expired")]
    Expired,
    /// `nbf` or `iat` lies further ahead than the leeway.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Issued longer ago than these rules allow, whatever its `exp`.
    #[error("the token was issued too long ago")]
    TooOld,
    /// Missing, empty, of the wrong type, out of range; or (`cnf`) a demand that cannot be met.
    #[error("the token's `{0}` is missing, wrong, or cannot be honoured here")]
    Claim(&'static str),
}

impl Refusal {
    /// The row of the table of reasons that the outside sees.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed | Self::Header | Self::Algorithm | Self::Type | Self::UnknownKey | Self::Signature => {
                Reason::Signature
            }
            Self::Issuer => Reason::Issuer,
            Self::Audience => Reason::Audience,
            Self::Expired | Self::NotYetValid | Self::TooOld => Reason::Expired,
            Self::Claim(_) => Reason::Claim,
        }
    }
}
