//! An issuer's public keys (RFC 7517), each bound to what it may verify.
//!
//! Why not the JWK reader of `jsonwebtoken`: it drops a key's `alg`, `use` and `key_ops`, and
//! turns an `oct` key into an HMAC secret. In comes a JWK Set; out go only the keys that can
//! verify, and the number of those that were dropped.

use std::collections::BTreeSet;

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use ring::agreement;
use serde_json::{Map, Value};

use crate::{json, jws, sys};

/// Longest JWK Set that is read, in bytes.
pub const KEY_SET_MAX_BYTES: usize = 256 * 1024;

/// Most keys in a set, the dropped included.
pub const KEYS_MAX: usize = 100;

const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Enough of them to tell a key of the broken library from any other: chance is below 2^-27.
const ROCA_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Why a key set as a whole is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    #[error("the key set is larger than 256 KiB")]
    TooLarge,
    #[error("the key set has more than 100 keys")]
    TooMany,
    #[error("the key set is not a JSON object with an array `keys`")]
    Malformed,
    /// Which of two keys is meant cannot be known.
    #[error("two keys of the set have one `kid`")]
    DuplicateKid,
}

/// The keys of one issuer. Keep one set per issuer: a key must never verify for another.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    dropped: usize,
    refresh_hint_s: Option<u64>,
}

#[derive(Debug, Clone)]
struct Key {
    kid: Option<String>,
    /// All that it may verify; one only when the JWK has `alg`.
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
    /// It signs status lists, and nothing that lets somebody in.
    of_lists: bool,
}

/// A member of our own in a JWK (RFC 7517 section 4 lets there be others): what a key is for, where it is
/// not for tokens.
pub const USE_MEMBER: &str = "dayfly_use";
/// The key signs status lists, and nothing that lets somebody in.
pub const USE_LISTS: &str = "status_list";

impl KeySet {
    /// Reads a JWK Set. Keys that cannot verify, or are weak or ambiguous, are dropped and counted.
    pub fn parse(jwks: &[u8]) -> Result<Self, KeySetError> {
        let (_, jwks) = read_set(jwks)?;
        Self::of(&jwks, None)
    }

    /// Reads a SPIFFE trust bundle (SPIFFE Trust Domain and Bundle, section 4): a JWK Set of which
    /// the keys for JWT-SVIDs count. Those for X.509-SVIDs and those that do not say what they are
    /// for are passed over; `spiffe_sequence` says nothing that counts here.
    // SECURITY: a_key_of_another_use_signs_no_svid
    pub fn of_trust_bundle(bundle: &[u8]) -> Result<Self, KeySetError> {
        let (set, mut jwks) = read_set(bundle)?;
        let whole = |name: &str| set.get(name).is_none_or(Value::is_u64);
        if !(whole("spiffe_sequence") && whole("spiffe_refresh_hint")) {
            return Err(KeySetError::Malformed);
        }
        jwks.retain(|jwk| jwk.get("use").is_some_and(|value| value == "jwt-svid"));
        // A key without `kid` stays in the count and is dropped: the standard demands one.
        let stripped = jwks.iter_mut().filter(|jwk| jwk.get("kid").is_some()).filter_map(Value::as_object_mut);
        stripped.for_each(|jwk| drop(jwk.remove("use")));
        Self::of(&jwks, set.get("spiffe_refresh_hint").and_then(Value::as_u64))
    }

    fn of(jwks: &[Value], refresh_hint_s: Option<u64>) -> Result<Self, KeySetError> {
        if has_duplicate_kid(jwks) {
            return Err(KeySetError::DuplicateKid);
        }
        let keys: Vec<Key> = jwks.iter().filter_map(|jwk| Key::read(jwk.as_object()?)).collect();
        Ok(Self { dropped: jwks.len() - keys.len(), keys, refresh_hint_s })
    }

    /// How soon its publisher wants a trust bundle to be looked at again: a wish, to be bounded.
    pub fn refresh_hint_s(&self) -> Option<u64> {
        self.refresh_hint_s
    }

    /// How many keys of the set are not used.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// How many keys can verify.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no token can pass.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a token with this header has its key here.
    pub fn contains(&self, kid: Option<&str>, alg: &str) -> bool {
        jws::algorithm(alg).is_some_and(|(_, alg)| self.find(kid, alg, For::Anything).is_some())
    }

    /// The key named by `kid`; without `kid`, the only key that fits the algorithm.
    // SECURITY: a_list_key_signs_no_token
    pub(crate) fn find(&self, kid: Option<&str>, alg: Algorithm, what: For) -> Option<&DecodingKey> {
        let named = |key: &&Key| kid.is_none() || key.kid.as_deref() == kid;
        let meant = |key: &&Key| key.algorithms.contains(&alg) && (what == For::Anything || !key.of_lists);
        let mut fitting = self.keys.iter().filter(meant).filter(named);
        let key = fitting.next()?;
        fitting.next().is_none().then_some(&key.decoding)
    }
}

/// What a signature is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// A token that lets somebody in.
    Tokens,
    Anything,
}

/// The members of the set, and its keys taken out of them.
fn read_set(jwks: &[u8]) -> Result<(Map<String, Value>, Vec<Value>), KeySetError> {
    if jwks.len() > KEY_SET_MAX_BYTES {
        return Err(KeySetError::TooLarge);
    }
    let mut set = json::object(jwks).ok_or(KeySetError::Malformed)?;
    match set.remove("keys") {
        Some(Value::Array(keys)) if keys.len() > KEYS_MAX => Err(KeySetError::TooMany),
        Some(Value::Array(keys)) => Ok((set, keys)),
        _ => Err(KeySetError::Malformed),
    }
}

/// Dropped keys count too: the publisher does not know which we drop.
fn has_duplicate_kid(jwks: &[Value]) -> bool {
    let mut seen = BTreeSet::new();
    jwks.iter().filter_map(|jwk| jwk.get("kid")?.as_str()).any(|kid| !seen.insert(kid))
}

/// The key that a proof brings along, if it may verify this algorithm. Its point is not held against
/// its curve: the one signature that it is for does that, and asking twice would cost as much again.
pub(crate) fn proof_key(jwk: &Map<String, Value>, algorithm: Algorithm) -> Option<DecodingKey> {
    let key = Key::read_with(jwk, |_, _| true)?;
    key.algorithms.contains(&algorithm).then_some(key.decoding)
}

type OnCurve = fn(&'static agreement::Algorithm, &[u8]) -> bool;

impl Key {
    fn read(jwk: &Map<String, Value>) -> Option<Self> {
        Self::read_with(jwk, on_curve)
    }

    fn read_with(jwk: &Map<String, Value>, on_curve: OnCurve) -> Option<Self> {
        if !may_verify(jwk) || jwk.contains_key("d") {
            return None;
        }
        let decoding = match text(jwk, "kty")? {
            "RSA" => rsa(jwk)?,
            "EC" => ec(jwk, on_curve)?,
            "OKP" => okp(jwk)?,
            _ => return None,
        };
        let of_lists = text(jwk, USE_MEMBER) == Some(USE_LISTS);
        Some(Self { kid: kid(jwk)?, algorithms: algorithms(jwk, &decoding)?, decoding, of_lists })
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    json::base64url(text(jwk, name)?)
}

/// The outer `None` drops the key.
fn kid(jwk: &Map<String, Value>) -> Option<Option<String>> {
    match jwk.get("kid") {
        None => Some(None),
        Some(Value::String(kid)) if (1..=jws::KID_MAX_BYTES).contains(&kid.len()) => Some(Some(kid.clone())),
        Some(_) => None,
    }
}

// SECURITY: t_017_a_key_not_meant_to_verify_is_dropped
fn may_verify(jwk: &Map<String, Value>) -> bool {
    let by_use = jwk.get("use").is_none_or(|value| value == "sig");
    let by_ops = match jwk.get("key_ops") {
        None => true,
        Some(Value::Array(ops)) => ops.iter().any(|op| op == "verify"),
        Some(_) => false,
    };
    by_use && by_ops
}

/// What the key may verify: its own `alg`, if it has one and fits, otherwise all that fit.
// SECURITY: t_016_a_key_is_bound_to_its_alg, t_028_a_key_is_bound_to_its_curve
fn algorithms(jwk: &Map<String, Value>, key: &DecodingKey) -> Option<Vec<Algorithm>> {
    let fitting: Vec<Algorithm> = match (key.family(), text(jwk, "crv")) {
        (AlgorithmFamily::Rsa, _) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        (AlgorithmFamily::Ec, Some("P-256")) => vec![Algorithm::ES256],
        (AlgorithmFamily::Ec, Some("P-384")) => vec![Algorithm::ES384],
        (AlgorithmFamily::Ed, Some("Ed25519")) => vec![Algorithm::EdDSA],
        _ => return None,
    };
    match jwk.get("alg") {
        None => Some(fitting),
        Some(alg) => {
            let (_, alg) = jws::algorithm(alg.as_str()?)?;
            fitting.contains(&alg).then(|| vec![alg])
        }
    }
}

/// Leading zero octets are refused, as RFC 7518 section 2 has it.
// SECURITY: t_018_weak_and_ambiguous_keys_are_dropped
fn rsa(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    let big_enough = e.len() > 1 || e.first().is_some_and(|&byte| byte >= 3);
    let good = RSA_BITS.contains(&bits(&n)?) && odd(&n) && bits(&e)? <= 33 && odd(&e) && big_enough;
    (good && !is_roca(&n)).then(|| DecodingKey::from_rsa_raw_components(&n, &e))
}

/// CVE-2017-15361: modulo every small prime, the moduli of one library are powers of 65537, and
/// such a key can be factored.
// SECURITY: t_018_a_key_of_the_roca_library_is_dropped
pub fn is_roca(n: &[u8]) -> bool {
    ROCA_PRIMES.iter().all(|&prime| {
        let rest = n.iter().fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % prime);
        let powers = std::iter::successors(Some(1), |power| Some(power * 65537 % prime));
        powers.take(prime as usize).any(|power| power == rest)
    })
}

/// Bits of a big-endian number in its shortest form.
fn bits(number: &[u8]) -> Option<usize> {
    let first = *number.first()?;
    (first != 0).then(|| number.len() * 8 - first.leading_zeros() as usize)
}

fn ec(jwk: &Map<String, Value>, on_curve: OnCurve) -> Option<DecodingKey> {
    let (size, curve) = match text(jwk, "crv")? {
        "P-256" => (32, &agreement::ECDH_P256),
        "P-384" => (48, &agreement::ECDH_P384),
        _ => return None,
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    // SEC 1 section 2.3.3: an uncompressed point.
    let point = [&[4], &x[..], &y[..]].concat();
    let good = x.len() == size && y.len() == size && on_curve(curve, &point);
    good.then(|| DecodingKey::from_ec_der(&point))
}

/// ring checks a point when it is used; an agreement that leads nowhere uses it.
fn on_curve(curve: &'static agreement::Algorithm, point: &[u8]) -> bool {
    let ours = agreement::EphemeralPrivateKey::generate(curve, &sys::random());
    let theirs = agreement::UnparsedPublicKey::new(curve, point);
    ours.is_ok_and(|ours| agreement::agree_ephemeral(ours, &theirs, |_| ()).is_ok())
}

fn okp(jwk: &Map<String, Value>) -> Option<DecodingKey> {
    let x = bytes(jwk, "x")?;
    let good = text(jwk, "crv")? == "Ed25519" && <[u8; 32]>::try_from(&*x).is_ok_and(|x| !is_anyones(x));
    good.then(|| DecodingKey::from_ed_der(&x))
}

/// Ed25519 points under which anyone can sign: those of small order (order 8 and below) and every
/// encoding that RFC 8032 section 5.1.3 does not allow (`y` of 2^255 - 19 and above).
// SECURITY: t_128_a_key_under_which_anyone_can_sign_is_dropped
pub fn is_anyones(mut x: [u8; 32]) -> bool {
    x[31] &= 0x7f;
    let large = x[31] == 0x7f && x[1..31].iter().all(|&byte| byte == 0xff);
    // `y` = 0, 1; with -1 (0xec, in its one canonical form) all of small order but the two of order 8.
    let small = x[0] <= 1 && x[1..].iter().all(|&byte| byte == 0);
    small || (large && x[0] >= 0xec) || ORDER_8.contains(&x)
}

/// The `y` of the points of order 8, little-endian.
const ORDER_8: [[u8; 32]; 2] = [
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];
