//! The enumerations of the design, each with its one spelling.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    let words: Vec<_> = Self::ALL.iter().map(|word| word.as_str()).collect();
                    format!("expected one of `{}`", words.join("`, `"))
                })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

words!(
    /// Of a task or a lease, at a moment. `Expired` is a pure function of time (law L11).
    State { Active = "active", Ended = "ended", Expired = "expired" }
);

words!(
    /// Why something ended before its time.
    Cause {
        /// Ended by its handle.
        Completed = "completed",
        HoldLost = "hold_lost",
        ParentEnded = "parent_ended",
        Superseded = "superseded",
        /// Revoked by whoever holds the token.
        Presented = "presented",
        /// Revoked by an operator.
        Revoked = "revoked",
        Policy = "policy",
        KeyTainted = "key_tainted",
        Conflict = "conflict",
    }
);

words!(
    /// What form a credential has.
    Kind { Jwt = "jwt", X509 = "x509" }
);

words!(
    /// What a key is that a certificate is for.
    KeyKind { P256 = "p256", Ed25519 = "ed25519", Rsa = "rsa" }
);

words!(
    /// What stands in a certificate's subject: the template, as its common name, or nothing.
    SubjectKind { Template = "template", None = "none" }
);

words!(
    /// How a file came to be part of a bundle.
    BundlePart {
        /// A profile that came with the program.
        Builtin = "builtin",
        /// Tables or policies.
        Text = "text",
        /// Keys or certificates that a table names.
        Named = "named",
    }
);

words!(
    /// How a target binds credentials to their holder.
    BindingKind { Bearer = "bearer", Dpop = "dpop", Mtls = "mtls" }
);

words!(
    /// How a target's server really checks revocation.
    Verifies { Introspect = "introspect", ExpOnly = "exp_only", List = "list", Crl = "crl" }
);

words!(
    /// What a task or lease is bound to: nothing, a DPoP key, a certificate.
    Bound { None = "none", Jkt = "jkt", X5t = "x5t" }
);

words!(
    /// A way in which a verifier learns of an end.
    Channel { Introspection = "introspection", Expiry = "expiry", StatusList = "status_list", Crl = "crl", Jwks = "jwks" }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_one_spelling() {
        assert_eq!("exp_only".parse(), Ok(Verifies::ExpOnly));
        assert!("Exp_only".parse::<Verifies>().unwrap_err().contains("`introspect`"));
        assert!(Cause::ALL.iter().all(|cause| cause.as_str().parse() == Ok(*cause)));
    }
}
