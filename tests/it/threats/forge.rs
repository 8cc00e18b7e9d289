//! Tokens with any header and payload, really signed by keys of every kind: those of `multi`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
        Ed25519KeyPair, KeyPair, RsaEncoding,
    },
};
use serde_json::{Value, json};

use super::stand::{CANARY, MULTI};
use crate::world::{ISSUER, START};

/// The key that RFC 7515 publishes in appendix A.2: ring makes no RSA keys.
const RSA: &str = include_str!("../../corpus/jose/rfc_keys.json");

pub struct Forge {
    rsa: rsa::KeyPair,
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Forge {
    pub fn new() -> Self {
        let rng = SystemRandom::new();
        let ec = |curve: &'static EcdsaSigningAlgorithm| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &rng).unwrap();
            EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &rng).unwrap()
        };
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&rng).unwrap();
        Self {
            rsa: published_rsa(),
            p256: ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
        }
    }

    /// Public halves: `r`, `e`, `p` and `d`.
    pub fn jwks(&self) -> Value {
        let keys = ["r", "e", "p", "d"].map(|kid| self.jwk(kid));
        json!({ "keys": keys })
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let ec = |crv: &str, pair: &EcdsaKeyPair| {
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            json!({ "kty": "EC", "crv": crv, "kid": kid, "x": b64(x), "y": b64(y) })
        };
        match kid {
            "r" => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
                json!({ "kty": "RSA", "kid": "r", "n": b64(public.n), "e": b64(public.e) })
            }
            "e" => ec("P-256", &self.p256),
            "p" => ec("P-384", &self.p384),
            _ => json!({ "kty": "OKP", "crv": "Ed25519", "kid": "d", "x": b64(self.ed25519.public_key()) }),
        }
    }

    /// What everybody knows of a key, in every form that was ever mistaken for a secret.
    pub fn public_forms(&self, kid: &str) -> Vec<Vec<u8>> {
        let jwk = self.jwk(kid);
        let (head, raw): (Vec<u8>, Vec<u8>) = match kid {
            "r" => (Vec::new(), self.rsa.public().as_ref().to_vec()),
            "e" => (hex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), bytes(self.p256.public_key())),
            "p" => (hex("3076301006072a8648ce3d020106052b81040022036200"), bytes(self.p384.public_key())),
            _ => (hex("302a300506032b6570032100"), bytes(self.ed25519.public_key())),
        };
        let der = if kid == "r" { spki_of_rsa(&raw) } else { [&head[..], &raw[..]].concat() };
        let pem = |label: &str, der: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
        };
        let (spki, bare) = (pem("PUBLIC KEY", &der), pem("RSA PUBLIC KEY", &raw));
        let mut forms: Vec<Vec<u8>> =
            [spki.trim_end(), &spki, &bare, &jwk.to_string(), &format!("ssh-{kid} {}", b64(&raw))]
                .map(|text| text.as_bytes().to_vec())
                .to_vec();
        forms.extend([der, raw, Vec::new()]);
        for member in ["n", "x", "y"] {
            if let Some(text) = jwk[member].as_str() {
                forms.extend([text.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(text).unwrap()]);
            }
        }
        forms
    }

    /// The `kid` of the key that signs this algorithm.
    pub fn kid(alg: &str) -> &'static str {
        match alg {
            "ES256" => "e",
            "ES384" => "p",
            "EdDSA" => "d",
            _ => "r",
        }
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        let rsa = |encoding: &'static dyn RsaEncoding| {
            let mut out = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(encoding, &rng, message, &mut out).unwrap();
            out
        };
        match alg {
            "ES256" => self.p256.sign(&rng, message).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&rng, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            _ => rsa(&signature::RSA_PKCS1_SHA256),
        }
    }

    /// Really signed with `alg`, whatever header and payload say.
    pub fn signed(&self, alg: &str, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        compact(header, payload, |message| self.sign(alg, message))
    }

    /// A good token but for these members of its header; `null` takes one away.
    pub fn header(&self, alg: &str, changes: Value) -> String {
        let header = with(json!({ "alg": alg, "typ": "JWT", "kid": Self::kid(alg) }), changes);
        self.signed(alg, header.to_string(), claims().to_string())
    }

    /// A good token but for these claims.
    pub fn claims(&self, changes: Value) -> String {
        self.raw_claims(&with(claims(), changes).to_string())
    }

    /// An ES256 token over these very bytes.
    pub fn raw_claims(&self, payload: &str) -> String {
        self.signed("ES256", r#"{"alg":"ES256","typ":"JWT","kid":"e"}"#, payload)
    }

    /// A good token but for one claim, whose JSON is written as it stands.
    pub fn raw_claim(&self, name: &str, raw: &str) -> String {
        let rest = with(claims(), json!({ name: null })).to_string();
        self.raw_claims(&format!("{},\"{name}\":{raw}}}", &rest[..rest.len() - 1]))
    }

    /// MACed instead of signed.
    pub fn maced(&self, alg: &str, kid: &str, key: &[u8]) -> String {
        let algorithm = match alg {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            _ => hmac::HMAC_SHA512,
        };
        let key = hmac::Key::new(algorithm, key);
        let header = json!({ "alg": alg, "typ": "JWT", "kid": kid }).to_string();
        compact(header, claims().to_string(), |message| hmac::sign(&key, message).as_ref().to_vec())
    }
}

/// What opens `deploy`: without `jti`, so that its bytes count.
pub fn claims() -> Value {
    let at = START.as_s();
    json!({ "iss": MULTI, "aud": ISSUER, "sub": "shop", "org": "acme", "note": CANARY, "iat": at, "exp": at + 600 })
}

/// `changes` laid over `base`; `null` removes.
pub fn with(mut base: Value, changes: Value) -> Value {
    let members = base.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    base
}

pub fn compact(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", b64(header), b64(payload));
    let signature = b64(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
}

fn bytes(key: &impl AsRef<[u8]>) -> Vec<u8> {
    key.as_ref().to_vec()
}

/// SubjectPublicKeyInfo (RFC 3279 section 2.3.1) around an RSAPublicKey of 2048 bits.
fn spki_of_rsa(key: &[u8]) -> Vec<u8> {
    let length = |inside: usize| u16::try_from(inside).unwrap().to_be_bytes();
    let bits = [&[0x03, 0x82], &length(key.len() + 1)[..], &[0], key].concat();
    let head = hex("300d06092a864886f70d0101010500");
    [&[0x30, 0x82], &length(head.len() + bits.len())[..], &head, &bits].concat()
}

fn published_rsa() -> rsa::KeyPair {
    let keys: Value = serde_json::from_str(RSA).unwrap();
    let part = |name: &str| URL_SAFE_NO_PAD.decode(keys["rsa"][name].as_str().unwrap()).unwrap();
    let public_key = rsa::PublicKeyComponents { n: part("n"), e: part("e") };
    let private = rsa::KeyPairComponents {
        public_key,
        d: part("d"),
        p: part("p"),
        q: part("q"),
        dP: part("dp"),
        dQ: part("dq"),
        qInv: part("qi"),
    };
    rsa::KeyPair::from_components(&private).unwrap()
}
