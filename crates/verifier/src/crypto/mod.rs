//! All cryptography of tokens, on ring alone. `jsonwebtoken` 11 brings none of its own: this is
//! its provider, so that one library verifies and signs whatever door a token came through.
//!
//! The provider slot of `jsonwebtoken` is process-wide and its first use before an installation
//! caches one that panics; hence [`init`], which everything here calls first.

mod signing;

use std::sync::OnceLock;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result as JwtResult, new_error},
    signature::{Error as SignatureError, Verifier},
};
use ring::signature as ring_signature;

pub use signing::{KeyError, SigningKey};

/// Another provider was installed in this process before ours. It will verify; a [`SigningKey`]
/// needs ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another crypto provider for jsonwebtoken was installed or used before this one")]
pub struct ForeignProvider;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signing::signer,
    verifier_factory: verifier,
    // Only the JWK conversions of `jsonwebtoken` use these, and we have our own.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Installs the ring provider, once; later calls repeat the first outcome.
pub fn init() -> Result<(), ForeignProvider> {
    static OUTCOME: OnceLock<Result<(), ForeignProvider>> = OnceLock::new();
    *OUTCOME.get_or_init(|| PROVIDER.install_default().map_err(|_| ForeignProvider))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    if key.family() != algorithm.family() {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        let checked = match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let parameters = rsa_parameters(self.algorithm).ok_or_else(SignatureError::new)?;
                ring_signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            DecodingKeyKind::SecretOrDer(point) => {
                let curve = curve(self.algorithm).ok_or_else(SignatureError::new)?;
                ring_signature::UnparsedPublicKey::new(curve, point).verify(message, signature)
            }
        };
        checked.map_err(|_| SignatureError::new())
    }
}

/// `None` for all but RSA: what is not listed verifies nothing.
fn rsa_parameters(algorithm: Algorithm) -> Option<&'static ring_signature::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&ring_signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&ring_signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&ring_signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

fn curve(algorithm: Algorithm) -> Option<&'static dyn ring_signature::VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&ring_signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&ring_signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&ring_signature::ED25519),
        _ => None,
    }
}
