//! An issuer in a test's hand: keys of every kind, and tokens with any header and payload.

use std::{process::Command, sync::OnceLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_verifier::{Jws, KeySet, Refusal, Rules, UnixMs, crypto::SigningKey, verify};
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{self, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RsaEncoding},
};
use serde_json::{Map, Value, json};

pub const ISSUER: &str = "https://idp.example";
pub const AUDIENCE: &str = "https://dayfly.example";
pub const NOW_S: i64 = 1_800_000_000;

pub fn now() -> UnixMs {
    UnixMs::from_s(NOW_S)
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A P-256 issuer.
pub struct Es256 {
    pub pair: EcdsaKeyPair,
    pub signing: SigningKey,
}

impl Es256 {
    pub fn new() -> Self {
        let pkcs8 = SigningKey::generate_pkcs8().unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.expose(), &SystemRandom::new());
        Self { pair: pair.unwrap(), signing: SigningKey::from_pkcs8(pkcs8.expose()).unwrap() }
    }

    pub fn jwk_with(&self, changes: Value) -> Value {
        with(self.signing.jwk(), changes)
    }

    pub fn keys(&self) -> KeySet {
        set(&[self.signing.jwk()])
    }

    pub fn header(&self) -> Value {
        json!({"alg": "ES256", "typ": "JWT", "kid": self.signing.kid()})
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    /// Really signed, whatever header and payload are.
    pub fn token(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        compact(header, payload, |message| self.sign(message))
    }

    /// A token with this header, otherwise good.
    pub fn with_header(&self, changes: Value) -> String {
        self.token(with(self.header(), changes).to_string(), good_claims().to_string())
    }

    /// A token with these claims changed; a `null` at the top level takes a claim away.
    pub fn with_claims(&self, changes: Value) -> String {
        self.token(self.header().to_string(), with(good_claims(), changes).to_string())
    }

    /// What the gate says to a token under the usual rules.
    pub fn gate(&self, token: &str) -> Result<Map<String, Value>, Refusal> {
        check(token, &self.keys(), &rules())
    }
}

pub fn check(token: &str, keys: &KeySet, rules: &Rules) -> Result<Map<String, Value>, Refusal> {
    verify(&Jws::parse(token)?, keys, rules, now()).map(|verified| verified.into_claims())
}

pub fn rules() -> Rules {
    Rules { algs: all_algs(), ..Rules::new(ISSUER, AUDIENCE) }
}

pub fn all_algs() -> Vec<String> {
    let names = ["none", "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];
    names.map(str::to_owned).to_vec()
}

pub fn good_claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "repo:acme/shop", "jti": "j-1",
           "iat": NOW_S - 10, "nbf": NOW_S - 10, "exp": NOW_S + 300})
}

/// `changes` laid over `base`; `null` removes.
pub fn with(mut base: Value, changes: Value) -> Value {
    let members = base.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            members.remove(name)
        } else {
            members.insert(name.clone(), value.clone())
        };
    }
    base
}

pub fn compact(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = b64(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

pub fn set(jwks: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap()
}

/// An RSA key of 2048 bits, made once by `openssl`, because ring makes none.
pub fn rsa_pair() -> &'static rsa::KeyPair {
    static PAIR: OnceLock<rsa::KeyPair> = OnceLock::new();
    PAIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let der = dir.path().join("key.der");
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-outform", "DER", "-out"])
            .arg(&der)
            .output()
            .expect("these tests need the program `openssl` to make RSA keys");
        assert!(made.status.success(), "openssl genpkey: {}", String::from_utf8_lossy(&made.stderr));
        // Depending on its version, openssl writes PKCS#8 or PKCS#1 here.
        let bytes = std::fs::read(&der).unwrap();
        rsa::KeyPair::from_pkcs8(&bytes).or_else(|_| rsa::KeyPair::from_der(&bytes)).unwrap()
    })
}

pub fn rsa_jwk(kid: &str) -> Value {
    let public = rsa::PublicKeyComponents::<Vec<u8>>::from(rsa_pair().public());
    json!({"kty": "RSA", "kid": kid, "n": b64(public.n), "e": b64(public.e)})
}

pub fn rsa_token(alg: &str, kid: &str) -> String {
    let encoding: &'static dyn RsaEncoding = match alg {
        "RS256" => &signature::RSA_PKCS1_SHA256,
        "RS384" => &signature::RSA_PKCS1_SHA384,
        "RS512" => &signature::RSA_PKCS1_SHA512,
        "PS256" => &signature::RSA_PSS_SHA256,
        other => panic!("no {other} here"),
    };
    let header = json!({"alg": alg, "kid": kid, "typ": "JWT"}).to_string();
    compact(header, good_claims().to_string(), |message| {
        let mut out = vec![0; rsa_pair().public().modulus_len()];
        rsa_pair().sign(encoding, &SystemRandom::new(), message, &mut out).unwrap();
        out
    })
}

pub fn rsa_modulus() -> Vec<u8> {
    rsa::PublicKeyComponents::<Vec<u8>>::from(rsa_pair().public()).n
}

pub fn rsa_pair_public_der() -> Vec<u8> {
    rsa_pair().public().as_ref().to_vec()
}
