//! Keys at rest. Those that `serve` needs are sealed under a key of 32 octets that lies elsewhere (a file, a
//! credential of systemd, a variable); that of the root under a passphrase. In: a secret, what it is for and
//! whose it is. Out: text for a file, which opens for the same purpose and the same CA alone.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    pbkdf2,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{ca::CaId, signer::PkiError};
use crate::sys::entropy;

const NONCE_BYTES: usize = 12;
const SALT_BYTES: usize = 16;
/// Rounds of PBKDF2-HMAC-SHA256 for the passphrase of a root: about a second of one core. OWASP asks for
/// 600,000 where a login waits; here a person does, four times in a year.
pub const PASSPHRASE_ROUNDS: u32 = 2_000_000;
/// What a file may ask for: not so few that a passphrase is guessed, not so many that reading it never ends.
const ROUNDS_MIN: u32 = 600_000;
const ROUNDS_MAX: u32 = 20_000_000;
/// Characters of a passphrase at least.
pub const PASSPHRASE_MIN_CHARS: usize = 12;

/// What a sealed key is for. Bound to it: a file cannot be passed off as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Root,
    RootRecord,
    Area,
    Issuing,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::RootRecord => "root record",
            Self::Area => "area",
            Self::Issuing => "issuing",
        }
    }
}

/// Nonce, ciphertext and tag, base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    pub(super) fn nothing() -> Self {
        Self(String::new())
    }
}

/// The same under a passphrase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassphraseSealed {
    kdf: String,
    rounds: u32,
    salt: String,
    sealed: Sealed,
}

/// What seals the keys of the area and issuing CAs.
pub struct SealKey(LessSafeKey);

impl fmt::Debug for SealKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SealKey([redacted])")
    }
}

impl SealKey {
    /// 32 octets: as they are, as 64 hexadecimal digits, or as base64. White space around text is no part
    /// of it.
    pub fn parse(bytes: &[u8]) -> Result<Self, PkiError> {
        let octets = octets(bytes).ok_or(PkiError::SealKey)?;
        // A key that nobody drew.
        if octets.iter().all(|&octet| octet == octets[0]) {
            return Err(PkiError::SealKey);
        }
        Ok(Self::of(&octets))
    }

    /// A new one, as text for a file.
    pub fn generate() -> Result<Zeroizing<String>, PkiError> {
        let drawn = Zeroizing::new(random::<32>()?);
        Ok(Zeroizing::new(format!("{}\n", STANDARD.encode(*drawn))))
    }

    fn of(octets: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, octets).expect("a key of 32 octets is one of AES-256")))
    }

    pub fn seal(&self, purpose: Purpose, id: &CaId, secret: &[u8]) -> Result<Sealed, PkiError> {
        self.seal_under(&bound(purpose, id, ""), secret)
    }

    // SECURITY: `a_seal_opens_for_its_own_purpose_and_its_own_ca_alone`.
    pub fn open(&self, purpose: Purpose, id: &CaId, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        self.open_under(&bound(purpose, id, ""), sealed)
    }

    /// Text that stays readable, and that only this key's holder writes.
    pub(super) fn attest(&self, purpose: Purpose, id: &CaId, text: &str) -> Result<Sealed, PkiError> {
        self.seal_under(&bound(purpose, id, text), &[])
    }

    pub(super) fn attested(&self, purpose: Purpose, id: &CaId, text: &str, sealed: &Sealed) -> Result<(), PkiError> {
        self.open_under(&bound(purpose, id, text), sealed).map(drop)
    }

    fn seal_under(&self, bound: &str, secret: &[u8]) -> Result<Sealed, PkiError> {
        let nonce = random::<NONCE_BYTES>()?;
        let mut text = Zeroizing::new(secret.to_vec());
        let tag = self.0.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound.as_bytes()),
            &mut text,
        );
        let tag = tag.map_err(|_| PkiError::Key("it cannot be sealed".to_owned()))?;
        Ok(Sealed(STANDARD.encode([&nonce[..], &text, tag.as_ref()].concat())))
    }

    fn open_under(&self, bound: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let mut all = Zeroizing::new(STANDARD.decode(&sealed.0).map_err(|_| PkiError::Sealed)?);
        if all.len() <= NONCE_BYTES {
            return Err(PkiError::Sealed);
        }
        let nonce = Nonce::try_assume_unique_for_key(&all[..NONCE_BYTES]).map_err(|_| PkiError::Sealed)?;
        let aad = Aad::from(bound.as_bytes());
        let opened = self.0.open_in_place(nonce, aad, &mut all[NONCE_BYTES..]).map_err(|_| PkiError::Sealed)?;
        Ok(Zeroizing::new(opened.to_vec()))
    }
}

impl PassphraseSealed {
    /// And the key that came of the passphrase, for what belongs to the same secret.
    pub fn seal(passphrase: &str, id: &CaId, secret: &[u8]) -> Result<(Self, SealKey), PkiError> {
        Self::seal_with(passphrase, id, secret, PASSPHRASE_ROUNDS)
    }

    fn seal_with(passphrase: &str, id: &CaId, secret: &[u8], rounds: u32) -> Result<(Self, SealKey), PkiError> {
        let (kdf, salt) = (KDF.to_owned(), STANDARD.encode(random::<SALT_BYTES>()?));
        let key = derived(passphrase, &salt, rounds)?;
        let sealed = key.seal_under(&stated(id, rounds, &salt), secret)?;
        Ok((Self { kdf, rounds, salt, sealed }, key))
    }

    // SECURITY: `a_wrong_passphrase_opens_nothing`.
    pub fn open(&self, passphrase: &str, id: &CaId) -> Result<(Zeroizing<Vec<u8>>, SealKey), PkiError> {
        if self.kdf != KDF || !(ROUNDS_MIN..=ROUNDS_MAX).contains(&self.rounds) {
            return Err(PkiError::Sealed);
        }
        let key = derived(passphrase, &self.salt, self.rounds)?;
        let secret = key.open_under(&stated(id, self.rounds, &self.salt), &self.sealed)?;
        Ok((secret, key))
    }
}

const KDF: &str = "pbkdf2-hmac-sha256";

fn derived(passphrase: &str, salt: &str, rounds: u32) -> Result<SealKey, PkiError> {
    let salt = STANDARD.decode(salt).map_err(|_| PkiError::Sealed)?;
    let rounds = rounds.try_into().map_err(|_| PkiError::Sealed)?;
    let mut octets = Zeroizing::new([0; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, passphrase.as_bytes(), &mut *octets);
    Ok(SealKey::of(&octets))
}

fn bound(purpose: Purpose, id: &CaId, more: &str) -> String {
    format!("dayfly pki 1\0{}\0{id}\0{more}", purpose.as_str())
}

fn stated(id: &CaId, rounds: u32, salt: &str) -> String {
    bound(Purpose::Root, id, &format!("{KDF}\0{rounds}\0{salt}"))
}

fn octets(bytes: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let exact = |octets: &[u8]| <[u8; 32]>::try_from(octets).ok().map(Zeroizing::new);
    if let Some(raw) = exact(bytes) {
        return Some(raw);
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.len() == 64 {
        let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let plain = text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let octets = (0..64).step_by(2).map(pair).collect::<Option<Vec<u8>>>().map(Zeroizing::new)?;
        return exact(&octets).filter(|_| plain);
    }
    let octets = Zeroizing::new(STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?);
    exact(&octets)
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], PkiError> {
    entropy::bytes().map_err(|_| PkiError::Key("there is no randomness".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::pki::FileKey;

    fn id() -> CaId {
        CaId::of_key(&FileKey::generate().unwrap())
    }

    #[test]
    fn a_seal_opens_for_its_own_purpose_and_its_own_ca_alone() {
        let (key, own) = (SealKey::parse(&SealKey::generate().unwrap().as_bytes()[..44]).unwrap(), id());
        let sealed = key.seal(Purpose::Area, &own, b"secret").unwrap();
        assert_eq!(&**key.open(Purpose::Area, &own, &sealed).unwrap(), b"secret");
        assert!(matches!(key.open(Purpose::Issuing, &own, &sealed), Err(PkiError::Sealed)));
        assert!(matches!(key.open(Purpose::Area, &id(), &sealed), Err(PkiError::Sealed)));
        let other = SealKey::parse(SealKey::generate().unwrap().as_bytes()).unwrap();
        assert!(matches!(other.open(Purpose::Area, &own, &sealed), Err(PkiError::Sealed)));
        let bytes = STANDARD.decode(&sealed.0).unwrap();
        for cut in 0..bytes.len() {
            let cut = Sealed(STANDARD.encode(&bytes[..cut]));
            assert!(matches!(key.open(Purpose::Area, &own, &cut), Err(PkiError::Sealed)));
        }
        for at in 0..bytes.len() {
            let mut turned = bytes.clone();
            turned[at] ^= 1;
            assert!(key.open(Purpose::Area, &own, &Sealed(STANDARD.encode(turned))).is_err(), "octet {at}");
        }
    }

    #[test]
    fn two_seals_of_one_secret_share_nothing() {
        let (key, own) = (SealKey::parse(SealKey::generate().unwrap().as_bytes()).unwrap(), id());
        let seal = || key.seal(Purpose::Area, &own, b"secret").unwrap().0;
        assert_ne!(seal()[..16], seal()[..16]);
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn a_seal_key_is_32_octets_and_no_passphrase() {
        let raw: [u8; 32] = random().unwrap();
        let hex: String = raw.iter().map(|octet| format!("{octet:02x}")).collect();
        let own = id();
        let sealed = SealKey::parse(&raw).unwrap().seal(Purpose::Area, &own, b"s").unwrap();
        for same in [hex.clone(), format!(" {hex}\n"), STANDARD.encode(raw), STANDARD_NO_PAD.encode(raw)] {
            assert!(SealKey::parse(same.as_bytes()).unwrap().open(Purpose::Area, &own, &sealed).is_ok());
        }
        for bad in ["", "hunter2", &hex[1..], &format!("+{}", &hex[1..]), &"0".repeat(64), &STANDARD.encode([7; 32])] {
            assert!(matches!(SealKey::parse(bad.as_bytes()), Err(PkiError::SealKey)), "{bad}");
        }
    }

    #[test]
    fn a_wrong_passphrase_opens_nothing() {
        let own = id();
        let (sealed, _) = PassphraseSealed::seal_with("correct horse battery", &own, b"root", ROUNDS_MIN).unwrap();
        assert_eq!(&**sealed.open("correct horse battery", &own).unwrap().0, b"root");
        assert!(matches!(sealed.open("correct horse batter", &own), Err(PkiError::Sealed)));
        assert!(matches!(sealed.open("correct horse battery", &id()), Err(PkiError::Sealed)));
        for rounds in [0, 1, ROUNDS_MIN - 1, ROUNDS_MAX + 1] {
            let weak = PassphraseSealed { rounds, ..sealed.clone() };
            assert!(matches!(weak.open("correct horse battery", &own), Err(PkiError::Sealed)), "{rounds}");
        }
    }
}
