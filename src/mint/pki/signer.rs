//! A key of a CA, wherever it is held: in a file, or in a token that only signs.

use std::{fmt, io, path::PathBuf, sync::Arc};

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use zeroize::Zeroizing;

use crate::sys::{entropy, token::TokenError};

/// What went wrong with the authority. Never quotes a key.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("the key cannot be used: {0}")]
    Key(String),
    #[error("the certificate cannot be built: {0}")]
    Build(String),
    #[error("the certificate cannot be read: {0}")]
    Read(String),
    #[error("no CA is in force that lives long enough")]
    NoCa,
    #[error("`{path}` cannot be used: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("there is no authority yet: `{0}` is missing")]
    Missing(PathBuf),
    /// Its text is not told: secrets may be in it.
    #[error("`{0}` is not what the ceremony or the broker writes")]
    Form(PathBuf),
    #[error("the seal does not open: another key sealed it, or it was changed")]
    Sealed,
    #[error("a seal key is 32 octets: raw, 64 hexadecimal digits, or base64")]
    SealKey,
    #[error("{0}")]
    Refused(String),
    #[error("the CA that is to sign could not be written to its file yet")]
    Unsaved,
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("its key is in a token, and the settings name none (`pki.area_key`)")]
    NoToken,
}

/// A P-256 key that signs with ECDSA and SHA-256.
pub trait CaSigner: fmt::Debug + Send + Sync {
    /// The public point, uncompressed: 65 octets.
    fn public_key(&self) -> &[u8];

    /// Over `message`; the signature is DER (RFC 3279 section 2.2.3).
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError>;

    /// A signature takes as long as a device somewhere takes, or fails with it: never where a request waits.
    fn is_remote(&self) -> bool {
        false
    }

    /// Whether it would sign now.
    fn probe(&self) -> Result<(), PkiError> {
        Ok(())
    }
}

/// A key that was read from a file, or made to be written to one.
pub struct FileKey {
    pair: EcdsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for FileKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("FileKey([redacted])")
    }
}

impl FileKey {
    pub fn generate() -> Result<Self, PkiError> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &entropy::source());
        Self::from_pkcs8(made.map_err(|_| PkiError::Key("none can be made".to_owned()))?.as_ref())
    }

    /// `pkcs8`: DER.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, PkiError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &entropy::source());
        let pair = pair.map_err(|_| PkiError::Key("it is no P-256 key in PKCS#8".to_owned()))?;
        Ok(Self { pair, pkcs8: Zeroizing::new(pkcs8.to_vec()) })
    }

    /// To be sealed and kept, never shown.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl CaSigner for FileKey {
    fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let signature = self.pair.sign(&entropy::source(), message);
        Ok(signature.map_err(|_| PkiError::Key("it does not sign".to_owned()))?.as_ref().to_vec())
    }
}

/// The key for a builder of what is only to be drafted: it gets no signature from it.
#[derive(Debug, Clone)]
pub(super) struct Unsigned(pub Arc<dyn CaSigner>);

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

/// The same key, as the builder of certificates takes it.
#[derive(Debug, Clone, Copy)]
pub struct CaKey<'a>(pub &'a dyn CaSigner);

impl CaKey<'_> {
    /// Why nothing was built: the builder does not say what was wrong with a key.
    pub fn unbuilt(self, error: &rcgen::Error) -> PkiError {
        let of_key = match error {
            rcgen::Error::RemoteKeyError => self.0.probe().err(),
            _ => None,
        };
        of_key.unwrap_or_else(|| PkiError::Build(error.to_string()))
    }
}

impl PublicKeyData for CaKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for CaKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}
