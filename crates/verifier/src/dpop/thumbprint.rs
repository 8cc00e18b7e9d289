//! The name of a public key (RFC 7638), or of a certificate (RFC 8705), by its content: what a bound token
//! holds in `cnf`.

use std::{fmt, str::FromStr};

use ring::digest;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::json;

/// SHA-256 thumbprint of a key or a certificate; its text is base64url without padding, 43 characters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// RFC 7638 section 3: the required members, in this order, without blanks. `None` for what is no
    /// public key of a kind that we verify with. The values are letters that JSON needs not escape.
    pub(crate) fn of_jwk(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name)?.as_str();
        let bits = |name: &str| text(name).filter(|value| json::base64url(value).is_some());
        let canonical = match (text("kty")?, text("crv")) {
            ("EC", Some(crv @ ("P-256" | "P-384"))) => {
                format!(r#"{{"crv":"{crv}","kty":"EC","x":"{}","y":"{}"}}"#, bits("x")?, bits("y")?)
            }
            ("OKP", Some("Ed25519")) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, bits("x")?),
            ("RSA", _) => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, bits("e")?, bits("n")?),
            _ => return None,
        };
        let mut print = [0; 32];
        print.copy_from_slice(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        Some(Self(print))
    }

    /// Of a certificate: SHA-256 of its DER (RFC 8705 section 3.1, `x5t#S256`).
    pub fn of_certificate(der: &[u8]) -> Self {
        let mut print = [0; 32];
        print.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(print)
    }

    /// From the SHA-256 itself.
    pub const fn of_hash(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// Whether the two are the same, in a time that does not tell where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let differing = self.0.iter().zip(&other.0).fold(0, |bits, (one, other)| bits | (one ^ other));
        std::hint::black_box(differing) == 0
    }

    /// Of no key: what a record holds whose thumbprint cannot be read.
    pub const NOBODY: Self = Self([0; 32]);

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&json::to_base64url(&self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

impl FromStr for Thumbprint {
    type Err = &'static str;

    /// Only its one spelling.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = json::base64url(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("not the base64url of a SHA-256 thumbprint")
    }
}

impl Serialize for Thumbprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Thumbprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(jwk: Value) -> Option<String> {
        Thumbprint::of_jwk(jwk.as_object().unwrap()).map(|print| print.to_string())
    }

    /// RFC 7638 section 3.1, the RSA key, whose `alg` and `kid` do not count.
    #[test]
    fn the_example_of_rfc_7638() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                 tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n\
                 91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});
        assert_eq!(of(jwk).as_deref(), Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"));
    }

    /// RFC 8037 appendix A.3, the Ed25519 key.
    #[test]
    fn the_example_of_rfc_8037() {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(of(jwk).as_deref(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    }

    /// RFC 9449: the key of section 4.1, and `jkt` of section 6.1.
    #[test]
    fn the_example_of_rfc_9449() {
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
                         "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"});
        assert_eq!(of(jwk).as_deref(), Some("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"));
    }

    #[test]
    fn what_could_break_out_of_the_canonical_text_has_no_thumbprint() {
        assert_eq!(of(json!({"kty": "RSA", "e": "AQAB", "n": "AQ\",\"x\":\""})), None);
        assert_eq!(of(json!({"kty": "EC", "crv": "P-256\"", "x": "AQ", "y": "AQ"})), None);
        assert_eq!(of(json!({"kty": "oct", "k": "AQ"})), None);
    }

    /// RFC 8705 section 3.1 and appendix A: the certificate of the one is the thumbprint of the other.
    #[test]
    fn the_example_of_rfc_8705() {
        let der = "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAxODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzEN\
                   MAsGA1UEAwwEbXRsczBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ_Au08_co\
                   ZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwIDSQAwRgIhAP0RC1E-vwJD_D1AGHGzuri-hlV_PpQEKTWU\
                   VeORWz83AiEA5x2eXZOVbUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L-SY";
        let der = json::base64url(der).unwrap();
        assert_eq!(Thumbprint::of_certificate(&der).to_string(), "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0");
    }

    #[test]
    fn two_thumbprints_that_differ_in_one_bit_do_not_match() {
        let one = Thumbprint([7; 32]);
        for (byte, bit) in [(0, 1), (31, 128), (15, 16)] {
            let mut other = [7; 32];
            other[byte] ^= bit;
            assert!(!one.matches(&Thumbprint(other)));
        }
        assert!(one.matches(&one.clone()));
    }

    #[test]
    fn its_text_has_one_spelling() {
        let text = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
        assert_eq!(text.parse::<Thumbprint>().unwrap().to_string(), text);
        for bad in ["", "abc", &format!("{text}="), &text.replace("4I", "4J"), &format!("{text}A")] {
            assert!(bad.parse::<Thumbprint>().is_err(), "{bad}");
        }
    }
}
