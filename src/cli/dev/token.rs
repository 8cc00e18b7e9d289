//! `dayfly dev token`: an identity token of the stand-in. In: claims of any kind. Out: the token
//! alone. Nothing that was given is changed, however wrong it is: refusals are what people try.

use std::{fmt, io::Read, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::UnixMs;
use dayfly_verifier::crypto::{KeyError, SigningKey};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

use super::home::{Home, Played};
use crate::{
    cli::{args::DevTokenArgs, failure::Failure, session::Session},
    sys::{
        entropy::{self, NoEntropy},
        files,
    },
};

/// How long a token is good for, unless its claims say otherwise.
const LIFE_S: i64 = 300;
const CLAIMS_MAX_BYTES: u64 = 1 << 20;

/// Prints the token alone. Reads the stand-in's key; no broker, no lock, no `DAYFLY_*`.
pub fn run(args: &DevTokenArgs, session: &Session) -> Result<(), Failure> {
    let home = Home::at(&args.state)?;
    let (Some(played), Some(keys)) = (home.played()?, home.keys()?) else { return Err(no_home(&home)) };
    if let Some(name) = args.as_name.as_ref().filter(|name| **name != played.name) {
        let what = format!("the stand-in does not play `{name}`");
        return Err(Failure::usage(what).help(format!("it plays `{}`", played.name)));
    }
    let given = args.claims.as_deref().map_or_else(|| Ok(Given::default()), read)?;
    let token = evidence(given, &played, &keys.stand_in, session.clock.wall(), &args.without);
    let token = token.map_err(|error| Failure::failed("no token can be made").because(error))?;
    session.screen.data(&format!("{token}\n"))
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    Entropy(#[from] NoEntropy),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Claims as they were given: text, in order, also where a name stands twice.
#[derive(Debug)]
pub enum Given {
    Members(Vec<(String, Box<RawValue>)>),
    /// Any other JSON value: signed as it is.
    Other(Box<RawValue>),
}

/// Fills in what is absent, and signs.
pub fn evidence(
    given: Given,
    played: &Played,
    key: &SigningKey,
    now: UnixMs,
    without: &[String],
) -> Result<String, TokenError> {
    let filled = match given {
        Given::Members(members) => Given::Members(fill(members, played, now, without)?),
        other => other,
    };
    Ok(key.sign(&played.typ, &filled)?)
}

fn fill(
    mut members: Vec<(String, Box<RawValue>)>,
    played: &Played,
    now: UnixMs,
    without: &[String],
) -> Result<Vec<(String, Box<RawValue>)>, NoEntropy> {
    let random: [u8; 16] = entropy::bytes()?;
    let now_s = now.as_s();
    let usual: [(&str, Value); 6] = [
        ("iss", played.url.as_str().into()),
        ("aud", played.audience.as_str().into()),
        ("iat", now_s.into()),
        ("nbf", now_s.into()),
        ("exp", (now_s + LIFE_S).into()),
        ("jti", URL_SAFE_NO_PAD.encode(random).into()),
    ];
    for (name, value) in usual {
        if members.iter().all(|(given, _)| given != name) {
            members.push((name.to_owned(), raw(&value)));
        }
    }
    members.retain(|(name, _)| !without.contains(name));
    Ok(members)
}

fn raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).expect("a value's text is JSON")
}

fn read(path: &Path) -> Result<Given, Failure> {
    let unread = |error| Failure::usage(format!("the claims `{}` cannot be read", path.display())).because(error);
    let bytes = if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(CLAIMS_MAX_BYTES).read_to_end(&mut bytes).map(|_| bytes)
    } else {
        files::read_capped(path)
    };
    Given::parse(&bytes.map_err(unread)?).map_err(|error| {
        Failure::usage(format!("the claims `{}` are not JSON", path.display())).because(format!(
            "line {} column {}",
            error.line(),
            error.column()
        ))
    })
}

fn no_home(home: &Home) -> Failure {
    let dir = home.dir().display();
    Failure::usage(format!("`dayfly dev` was never started on `{dir}`")).help(format!("dayfly dev --state {dir}"))
}

impl Given {
    pub fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let whole: Box<RawValue> = serde_json::from_slice(bytes)?;
        if whole.get().starts_with('{') {
            let Members(members) = serde_json::from_str(whole.get())?;
            return Ok(Self::Members(members));
        }
        Ok(Self::Other(whole))
    }

    /// The members of an object.
    pub fn of(claims: &serde_json::Map<String, Value>) -> Self {
        Self::Members(claims.iter().map(|(name, value)| (name.clone(), raw(value))).collect())
    }

    /// One claim, `sub`.
    pub fn subject(name: &str) -> Self {
        Self::Members(vec![("sub".to_owned(), raw(&json!(name)))])
    }
}

impl Default for Given {
    fn default() -> Self {
        Self::Members(Vec::new())
    }
}

impl Serialize for Given {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Members(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
            Self::Other(value) => value.serialize(serializer),
        }
    }
}

/// The members of an object, in order, none lost.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played() -> Played {
        Played {
            name: "github".parse().unwrap(),
            url: "https://127.0.0.1:2".to_owned(),
            audience: "https://127.0.0.1:1".to_owned(),
            typ: "JWT".to_owned(),
        }
    }

    fn decoded(claims: &str, without: &[&str]) -> (String, String) {
        let key = SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap();
        let without: Vec<_> = without.iter().map(ToString::to_string).collect();
        let given = Given::parse(claims.as_bytes()).unwrap();
        let token = evidence(given, &played(), &key, UnixMs::from_s(1_000), &without).unwrap();
        let part = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let mut parts = token.split('.').map(str::to_owned);
        (part(&parts.next().unwrap()), part(&parts.next().unwrap()))
    }

    fn payload(claims: &str, without: &[&str]) -> Value {
        serde_json::from_str(&decoded(claims, without).1).unwrap()
    }

    #[test]
    fn what_is_absent_is_filled_in() {
        let mut token = payload("{\"sub\": \"x\"}", &[]);
        let jti = token.as_object_mut().unwrap().remove("jti").unwrap();
        assert_eq!(jti.as_str().unwrap().len(), 22);
        let wanted = json!({"sub": "x", "iss": "https://127.0.0.1:2", "aud": "https://127.0.0.1:1",
            "iat": 1000, "nbf": 1000, "exp": 1300});
        assert_eq!(token, wanted);
        assert_ne!(payload("{}", &[])["jti"], payload("{}", &[])["jti"]);
    }

    #[test]
    fn the_header_is_that_of_an_identity_token() {
        let header: Value = serde_json::from_str(&decoded("{}", &[]).0).unwrap();
        assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!("ES256")));
        assert!(header["kid"].is_string() && header.as_object().unwrap().len() == 3);
    }

    #[test]
    fn nothing_given_is_changed_however_wrong() {
        let given =
            r#"{"iss":null,"aud":["a",1],"iat":"soon","nbf":1.50,"exp":99999999999999999999999,"jti":{},"x":1,"x":2}"#;
        assert_eq!(decoded(given, &[]).1, given);
    }

    #[test]
    fn a_claim_can_be_left_out() {
        let token = payload("{\"sub\": \"x\"}", &["jti", "exp", "sub"]);
        let mut names: Vec<_> = token.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["aud", "iat", "iss", "nbf"]);
    }

    #[test]
    fn claims_that_are_no_object_are_signed_as_they_are() {
        for given in ["[]", "null", "\"x\"", "7"] {
            assert_eq!(decoded(given, &[]).1, given);
        }
        assert!(Given::parse(b"{").is_err() && Given::parse(b"").is_err());
    }
}
