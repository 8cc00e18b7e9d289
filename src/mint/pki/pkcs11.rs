//! The area CA's key in a token of PKCS#11: it signs there, and only there. In: a token, and which key in it.
//! Out: signatures that were checked before anybody else sees them.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use super::{
    ca::CaId,
    der,
    sealed::random,
    signer::{CaSigner, PkiError},
};
use crate::sys::token::{Token, TokenError, TokenKey};

const PROOF: &[u8] = b"dayfly: this token signs";

/// The token that new area CAs have their keys in.
#[derive(Debug, Clone)]
pub struct AreaToken {
    pub token: Arc<Token>,
    /// What a new key is called there.
    pub label: String,
    /// `CKA_ID` of a key that is there already; `None`: a ceremony makes one.
    pub id: Option<Vec<u8>>,
}

/// What a folder keeps of a key in a token: nothing secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeptToken {
    /// The CA's, as of any other key.
    pub id: String,
    /// `CKA_ID`, hexadecimal.
    pkcs11_id: String,
    /// The public point, uncompressed, base64.
    public: String,
}

/// A key in a token.
#[derive(Debug)]
pub(super) struct Pkcs11Key {
    /// `None`: the settings name none any more.
    token: Option<Arc<Token>>,
    id: Vec<u8>,
    point: Vec<u8>,
}

impl AreaToken {
    /// A pair that no area CA has had: made, or found where the settings name one. It has signed.
    pub(super) fn key(&self) -> Result<(Pkcs11Key, KeptToken), PkiError> {
        let TokenKey { id, point } = match &self.id {
            Some(id) => self.token.find(id)?,
            None => self.token.make(&self.label, random::<20>()?.to_vec(), |point| CaId::of_point(point).octets())?,
        };
        let key = Pkcs11Key { token: Some(self.token.clone()), id, point };
        key.probe()?;
        let id = CaId::of_key(&key).as_str().to_owned();
        let pkcs11_id = CaId::of_octets(&key.id).as_str().to_owned();
        let kept = KeptToken { id, pkcs11_id, public: STANDARD.encode(&key.point) };
        Ok((key, kept))
    }
}

impl KeptToken {
    /// The token is not asked: it may be away, and what was signed with it lives on.
    pub fn opened(&self, token: Option<&AreaToken>) -> Result<Pkcs11Key, PkiError> {
        let unreadable = || PkiError::Read("what is kept of a key in a token is not usable".to_owned());
        let id = CaId::named(&self.pkcs11_id).ok_or_else(unreadable)?.octets();
        let point = STANDARD.decode(&self.public).ok().filter(|point| CaId::of_point(point).as_str() == self.id);
        let token = token.map(|own| own.token.clone());
        Ok(Pkcs11Key { token, id, point: point.ok_or_else(unreadable)? })
    }

    /// As a transcript names it.
    pub fn named(&self) -> &str {
        &self.pkcs11_id
    }
}

impl CaSigner for Pkcs11Key {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    // SECURITY: what another key or a faulty token signed never leaves;
    // `another_key_in_the_token_than_the_certificates_signs_nothing`.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, PkiError> {
        let token = self.token.as_ref().ok_or(PkiError::NoToken)?;
        let signature = token.sign(&self.id, digest::digest(&digest::SHA256, message).as_ref())?;
        let own = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        own.verify(message, &signature).map_err(|_| TokenError::OtherKey)?;
        let (r, s) = signature.split_at(signature.len() / 2);
        Ok(der::sequence(&[unsigned(r), unsigned(s)].concat()))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn probe(&self) -> Result<(), PkiError> {
        self.sign(PROOF).map(drop)
    }
}

/// INTEGER: as short as it can be, and never negative.
fn unsigned(octets: &[u8]) -> Vec<u8> {
    let zeros = octets.iter().take_while(|&&octet| octet == 0).count().min(octets.len() - 1);
    let short = &octets[zeros..];
    match short[0] & 0x80 {
        0 => der::element(der::INTEGER, short),
        _ => der::element(der::INTEGER, &[&[0], short].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_positive_and_short() {
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(unsigned(&[0, 0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[0, 0]), [2, 1, 0]);
        assert_eq!(unsigned(&[0x7f, 0xff]), [2, 2, 0x7f, 0xff]);
    }

    #[test]
    fn a_key_of_a_token_that_is_not_named_any_more_is_known_and_signs_nothing() {
        let point = [&[4][..], &[9; 64]].concat();
        let id = CaId::of_point(&point).as_str().to_owned();
        let kept = KeptToken { id: id.clone(), pkcs11_id: "01ff".to_owned(), public: STANDARD.encode(&point) };
        let key = kept.opened(None).unwrap();
        assert_eq!((key.public_key(), key.id.as_slice()), (&point[..], &[1, 255][..]));
        assert!(matches!(key.sign(b"m"), Err(PkiError::NoToken)));
        assert!(key.is_remote() && key.probe().is_err());
        for wrong in [
            KeptToken { id: "00".repeat(20), ..kept.clone() },
            KeptToken { pkcs11_id: "1".to_owned(), ..kept.clone() },
            KeptToken { public: "?".to_owned(), ..kept },
        ] {
            assert!(wrong.opened(None).is_err());
        }
    }
}
