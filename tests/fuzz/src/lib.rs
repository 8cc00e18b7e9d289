//! What must hold of everything that is let through, whatever bytes come in: one function for each
//! reader of a stranger's text. In come bytes; a panic is a finding; out goes whether anything was
//! let through. Second readers here are plain and slow on purpose: they share no code with ours.
#![allow(clippy::unwrap_used, reason = "a panic here is a finding")]

use std::{collections::BTreeSet, fmt, sync::LazyLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly::{
    http::{
        bounds::FIELDS_MAX,
        reading::{Fields, details as read_details},
    },
    intake::{CSR_MAX_BYTES, prove_key},
    policy::{ACTIONS_MAX, TICKET_MAX_CHARS},
};
use dayfly_domain::may_hold_secret;
use dayfly_verifier::{
    Jws, KEY_SET_MAX_BYTES, KEYS_MAX, KeySet, Refusal, Rules, TOKEN_MAX_BYTES, UnixMs, algorithms,
    crypto::SigningKey,
    read_task_token,
    status::{LIST_TOKEN_TYP, ListToken, StatusBits, StatusList},
    verify,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, value::RawValue};
use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
};

/// Tokens and keys that others published; with [`Published::signed`] those that verify.
const CORPUS: [&str; 4] = [
    include_str!("../../corpus/jose/rfc.json"),
    include_str!("../../corpus/jose/wycheproof.json"),
    include_str!("../../corpus/jose/own.json"),
    include_str!("../../corpus/jose/ear.json"),
];

/// All that the corpus holds.
pub struct Published {
    pub tokens: Vec<String>,
    pub key_sets: Vec<Value>,
    /// What was really signed by one of `keys`.
    signed: BTreeSet<String>,
    /// One RSA key, two on P-256: sets of one, so that a token without `kid` finds its key.
    keys: Vec<KeySet>,
}

pub static PUBLISHED: LazyLock<Published> = LazyLock::new(|| {
    let corpora = CORPUS.map(|text| serde_json::from_str::<Value>(text).unwrap());
    let entries = || corpora.iter().flat_map(|corpus| corpus["entries"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let signed = entries().filter(|entry| entry["expect"] == "verifies").map(|entry| text(&entry["token"]));
    let sets = corpora.iter().flat_map(|corpus| corpus["keys"].as_object().unwrap());
    let ours = |name: &str| ["rfc7515-a2", "rfc7515-a3", "veraison-ear"].contains(&name);
    let keys = sets.clone().filter(|(name, _)| ours(name)).map(|(_, set)| KeySet::parse(set.to_string().as_bytes()));
    Published {
        tokens: entries().map(|entry| text(&entry["token"])).collect(),
        key_sets: sets.clone().map(|(_, set)| set.clone()).collect(),
        signed: signed.map(|token| token.rsplit_once('.').unwrap().0.to_owned()).collect(),
        keys: keys.map(Result::unwrap).collect(),
    }
});

/// A compact JWS: one spelling, an algorithm with a public key, every member once, and no signature
/// but over what its owner signed.
pub fn jws(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(jws) = Jws::parse(text) else { return false };
    assert!(text.len() <= TOKEN_MAX_BYTES);
    let [header, payload, signature] = <[&str; 3]>::try_from(text.split('.').collect::<Vec<_>>()).unwrap();
    assert_eq!(jws.signing_input(), format!("{header}.{payload}"));
    let [header, payload, signature] = [header, payload, signature].map(|part| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(&bytes), part, "one spelling");
        bytes
    });
    assert!(!signature.is_empty() && has_each_member_once(&header) && has_each_member_once(&payload));
    let header: Map<String, Value> = serde_json::from_slice(&header).unwrap();
    let text_of = |name: &str| header.get(name).map(|value| value.as_str().unwrap());
    assert_eq!(text_of("alg"), Some(jws.alg()));
    assert!(algorithms().any(|alg| alg == jws.alg()) && !jws.alg().starts_with("HS"));
    assert_eq!((text_of("kid"), text_of("typ")), (jws.kid(), jws.typ()));
    assert!(jws.kid().is_none_or(|kid| (1..=256).contains(&kid.len())));
    for forbidden in ["crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc", "epk", "p2c", "cty"] {
        assert!(!header.contains_key(forbidden));
    }
    assert_eq!(jws.unverified_claims(), &serde_json::from_slice::<Map<String, Value>>(&payload).unwrap());
    PUBLISHED.keys.iter().for_each(|keys| nothing_forged_verifies(&jws, keys));
    true
}

/// Nobody here knows a private key, so what gets as far as its claims was signed by its owner.
fn nothing_forged_verifies(jws: &Jws, keys: &KeySet) {
    let all = algorithms().map(str::to_owned).collect();
    let typ = jws.typ().unwrap_or_default().to_owned();
    let rules = Rules { algs: all, typ: vec![typ], ..Rules::new("https://fuzz.example", "https://dayfly.example") };
    match verify(jws, keys, &rules, UnixMs::from_s(1)).unwrap_err() {
        Refusal::Malformed
        | Refusal::Header
        | Refusal::Algorithm
        | Refusal::Type
        | Refusal::UnknownKey
        | Refusal::Signature => {}
        late => assert!(PUBLISHED.signed.contains(jws.signing_input()), "a forged token was refused only by: {late}"),
    }
}

/// Always the same; nobody else's.
pub static REQUESTER: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap());

/// A request for a certificate, of which `data` is what is signed: what is let through is read alike by
/// another reader, is for the key that signed, and asks for nothing that only a CA grants.
pub fn csr(data: &[u8]) -> bool {
    let signature = REQUESTER.sign(data);
    let signature = [&[0x03, 0x41, 0][..], signature.as_ref()].concat();
    let content = [data, &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70], &signature].concat();
    let Ok(length) = u16::try_from(content.len()) else { return false };
    let head = match length {
        0..=0x7f => vec![0x30, length as u8],
        0x80..=0xff => vec![0x30, 0x81, length as u8],
        _ => [&[0x30, 0x82][..], &length.to_be_bytes()].concat(),
    };
    let der = [head, content].concat();
    let Ok(proven) = prove_key(&URL_SAFE_NO_PAD.encode(&der)) else { return false };
    let (rest, read) = X509CertificationRequest::from_der(&der).unwrap();
    assert!(rest.is_empty() && read.verify_signature().is_ok() && der.len() <= CSR_MAX_BYTES);
    let info = &read.certification_request_info;
    assert_eq!((info.raw, info.subject_pki.raw), (data, proven.spki()));
    assert_eq!(proven.key(), REQUESTER.public_key().as_ref());
    assert!(info.attributes().len() <= 1);
    let mut names = Vec::new();
    for extension in read.requested_extensions().into_iter().flatten() {
        match extension {
            ParsedExtension::BasicConstraints(limits) => assert!(!limits.ca && limits.path_len_constraint.is_none()),
            ParsedExtension::KeyUsage(usage) => assert_eq!(usage.flags, 1, "to sign, and nothing else"),
            ParsedExtension::ExtendedKeyUsage(purposes) => {
                assert!(!purposes.any && !purposes.ocsp_signing && !purposes.code_signing && purposes.other.is_empty());
                assert!(!purposes.server_auth || proven.wishes().server);
            }
            ParsedExtension::SubjectAlternativeName(asked) => {
                names.extend(asked.general_names.iter().map(|name| match name {
                    GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
                    other => panic!("a name that is neither: {other}"),
                }))
            }
            other => panic!("an extension that is not to be asked: {other:?}"),
        }
    }
    let mut wished: Vec<String> = [&proven.wishes().uris[..], &proven.wishes().dns].concat();
    wished.sort_unstable();
    names.sort_unstable();
    assert_eq!(names, wished);
    true
}

/// A JWK Set, and the same as a trust bundle: no key is lost count of, none is a secret, none is
/// there twice, and each verifies only what its JWK says.
pub fn key_set(data: &[u8]) -> bool {
    let (set, bundle) = (KeySet::parse(data), KeySet::of_trust_bundle(data));
    let Ok(value) = serde_json::from_slice::<Value>(data) else {
        assert!(set.is_err() && bundle.is_err(), "what is no JSON is no key set");
        return false;
    };
    let keys = value["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    let for_svids: Vec<Value> = keys.iter().filter(|key| key["use"] == "jwt-svid").cloned().collect();
    for (read, of) in [(&set, keys), (&bundle, for_svids.as_slice())] {
        let Ok(read) = read else { continue };
        assert!(data.len() <= KEY_SET_MAX_BYTES && keys.len() <= KEYS_MAX && has_each_member_once(data));
        assert_eq!(read.len() + read.dropped(), of.len());
        let kids: Vec<&str> = of.iter().filter_map(|key| key["kid"].as_str()).collect();
        assert_eq!(kids.iter().collect::<BTreeSet<_>>().len(), kids.len(), "a `kid` twice");
        assert!(read.len() <= of.iter().filter(|key| may_be_used(key)).count());
        kids.iter().for_each(|kid| verifies_only_what_it_says(read, of, kid));
        assert!(["HS256", "none", "", "ES512"].iter().all(|alg| !read.contains(None, alg)));
    }
    set.is_ok_and(|set| !set.is_empty()) || bundle.is_ok_and(|set| !set.is_empty())
}

fn may_be_used(key: &Value) -> bool {
    let public = ["RSA", "EC", "OKP"].iter().any(|kty| key["kty"] == *kty) && key.get("d").is_none();
    let to_verify = key.get("use").is_none_or(|purpose| purpose == "sig" || purpose == "jwt-svid");
    public && to_verify && key.get("kid").is_none_or(|kid| kid.as_str().is_some_and(|kid| !kid.is_empty()))
}

fn verifies_only_what_it_says(read: &KeySet, of: &[Value], kid: &str) {
    let key = of.iter().find(|key| key["kid"] == kid).unwrap();
    for alg in algorithms().chain(["HS256", "HS384", "HS512", "none"]) {
        let fits = match alg {
            "ES256" => key["kty"] == "EC" && key["crv"] == "P-256",
            "ES384" => key["kty"] == "EC" && key["crv"] == "P-384",
            "EdDSA" => key["kty"] == "OKP" && key["crv"] == "Ed25519",
            alg => key["kty"] == "RSA" && (alg.starts_with("RS") || alg.starts_with("PS")),
        };
        let said = key.get("alg").is_none_or(|own| own == alg);
        assert!(!read.contains(Some(kid), alg) || (fits && said && may_be_used(key)), "{alg}");
    }
}

/// A form body: every parameter once, decoded as a slow second reader decodes it.
pub fn form(data: &[u8]) -> bool {
    let pairs: Vec<&[u8]> = data.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).collect();
    let mut expected = Vec::new();
    for pair in &pairs {
        let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let value = pair.get(end + 1..).unwrap_or_default();
        expected.push(decoded(&pair[..end]).zip(decoded(value)));
    }
    let names: BTreeSet<&String> = expected.iter().flatten().map(|(name, _)| name).collect();
    let good = expected.iter().all(Option::is_some) && names.len() == pairs.len() && pairs.len() <= FIELDS_MAX;
    let read = Fields::parse(data);
    assert_eq!(read.is_ok(), good);
    let Ok(mut fields) = read else { return false };
    for (name, value) in expected.iter().flatten() {
        assert_eq!(fields.is_blank(name), value.trim().is_empty());
        assert!(fields.has(name));
        assert_eq!(fields.take(name).as_ref(), Some(value));
    }
    assert!(fields.is_empty(), "a parameter that nobody sent");
    !pairs.is_empty()
}

fn decoded(text: &[u8]) -> Option<String> {
    let text: Vec<char> = text.iter().map(|byte| char::from(*byte)).collect();
    let (mut bytes, mut at) = (Vec::new(), 0);
    while let Some(letter) = text.get(at) {
        let step = if *letter == '%' { 3 } else { 1 };
        bytes.push(match letter {
            '+' => b' ',
            '%' => {
                let hex: String = text.get(at + 1..at + 3)?.iter().collect();
                hex.chars().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
                u8::from_str_radix(&hex, 16).ok()?
            }
            plain => u8::try_from(u32::from(*plain)).unwrap(),
        });
        at += step;
    }
    String::from_utf8(bytes).ok()
}

/// Authorization details: one object of ours, within bounds, nothing in it that is not said back.
pub fn details(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(read) = read_details(text) else { return false };
    assert!(has_each_member_once(data));
    let value: Value = serde_json::from_str(text).unwrap();
    let [object] = value.as_array().unwrap().as_slice() else { panic!("not one object") };
    let object = object.as_object().unwrap();
    let known = ["type", "template", "actions", "ttl", "ticket"];
    assert!(object.keys().all(|name| known.contains(&name.as_str())), "a field that is not ours was let through");
    assert_eq!((&object["type"], &object["template"]), (&"dayfly_task".into(), &read.template.clone().into()));
    assert!(!read.template.trim().is_empty());
    let actions = read.actions.clone().map(Value::from);
    assert_eq!(object.get("actions"), actions.as_ref());
    assert!(read.actions.is_none_or(|actions| {
        (1..=ACTIONS_MAX).contains(&actions.len()) && actions.iter().all(|action| !action.trim().is_empty())
    }));
    let asked = object.get("ttl").map(|ttl| ttl.as_u64().unwrap());
    assert_eq!(asked.map(|ttl| ttl.min(u32::MAX.into())), read.ttl_s.map(u64::from));
    assert_ne!(read.ttl_s, Some(0));
    assert_eq!(object.get("ticket").map(|ticket| ticket.as_str().unwrap()), read.ticket.as_deref());
    assert!(read.ticket.is_none_or(|ticket| {
        (1..=TICKET_MAX_CHARS).contains(&ticket.chars().count())
            && !ticket.trim().is_empty()
            && !may_hold_secret(&ticket)
    }));
    true
}

/// A status list, behind a byte that says how wide its entries are and one that says how many are read
/// at most: never more than that, with a right checksum, and the same when it is written again.
pub fn status_list(data: &[u8]) -> bool {
    let [width, most, text @ ..] = data else { return false };
    let (Some(bits), Ok(text)) = (StatusBits::new(*width), std::str::from_utf8(text)) else { return false };
    let most = u32::from(*most) * 64;
    let Ok(list) = StatusList::decode(bits, text, most) else { return false };
    assert!(list.len() <= most as usize && list.len() * usize::from(*width) == list.as_bytes().len() * 8);
    let packed = URL_SAFE_NO_PAD.decode(text).unwrap();
    assert!(packed.ends_with(&adler32(list.as_bytes()).to_be_bytes()), "the checksum of what was read");
    let end = u32::try_from(list.len()).unwrap();
    let entries: Vec<u8> = (0..end).map(|index| list.get(index).unwrap()).collect();
    assert!(list.get(end).is_none() && entries.iter().all(|entry| u32::from(*entry) < 1 << width));
    assert_eq!(StatusList::decode(bits, &list.encode(), end), Ok(list.clone()));
    let mut again = StatusList::new(bits, end);
    assert!((0..end).zip(entries).all(|(index, entry)| again.set(index, entry)));
    again == list
}

/// RFC 1950 section 8.2, as it is written there.
fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65521;
        high = (high + low) % 65521;
    }
    high << 16 | low
}

/// When the lists of [`list_claims`] are read, in Unix seconds, and who signs them.
pub const LISTED_AT_S: i64 = 1_800_000_000;
pub const LISTED_BY: &str = "https://fuzz.example";

static LIST_KEY: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_pkcs8(SigningKey::generate_pkcs8().unwrap().expose()).unwrap());

/// Claims of a status list token, really signed: of this issuer's own place, within their times, and
/// never a task token.
pub fn list_claims(data: &[u8]) -> bool {
    let Ok(raw) = serde_json::from_slice::<&RawValue>(data) else { return false };
    let keys = KeySet::parse(serde_json::json!({"keys": [LIST_KEY.jwk()]}).to_string().as_bytes()).unwrap();
    let token = LIST_KEY.sign(LIST_TOKEN_TYP, &raw).unwrap();
    let now = UnixMs::from_s(LISTED_AT_S);
    assert!(read_task_token(&token, &keys, LISTED_BY, "https://db.example", now).is_err());
    let as_access_token = LIST_KEY.sign("at+jwt", &raw).unwrap();
    assert!(ListToken::read(&as_access_token, &keys, LISTED_BY, 4096, now).is_err());
    let Ok(list) = ListToken::read(&token, &keys, LISTED_BY, 4096, now) else { return false };
    assert!(has_each_member_once(data));
    let claims: Value = serde_json::from_slice(data).unwrap();
    let name = list.uri().strip_prefix("https://fuzz.example/status/").unwrap();
    assert!(!name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter)));
    assert_eq!(claims["sub"].as_str(), Some(list.uri()));
    assert!(claims.get("iss").is_none_or(|iss| iss == LISTED_BY));
    assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(list.issued_at_s()), Some(list.expires_at_s())));
    assert!(list.issued_at_s() <= LISTED_AT_S + 30 && list.ttl_s() >= 1);
    assert!((LISTED_AT_S + 1..=LISTED_AT_S + 86_430).contains(&list.expires_at_s()));
    assert_eq!(claims["status_list"]["bits"].as_u64(), Some(list.list().bits() as u64));
    assert!(list.list().len() <= 4096);
    true
}

/// A second reader of JSON that only looks for a name that is there twice.
fn has_each_member_once(json: &[u8]) -> bool {
    serde_json::from_slice::<Once>(json).is_ok_and(|once| once.0)
}

struct Once(bool);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Once(true))
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let (mut names, mut good) = (BTreeSet::new(), true);
        while let Some((name, value)) = map.next_entry::<String, Self>()? {
            good &= names.insert(name) && value.0;
        }
        Ok(Self(good))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        let mut good = true;
        while let Some(value) = seq.next_element::<Self>()? {
            good &= value.0;
        }
        Ok(Self(good))
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}
