//! Strict JSON and base64url. Why: two parsers that read one text differently are how forged
//! claims pass, so what is ambiguous is refused before anybody reads it.
//!
//! In come bytes of a stranger; out goes one JSON object without duplicate member names at any
//! depth (RFC 8725 section 2.4), nested at most [`DEPTH_MAX`] deep, or nothing.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and arrays inside one another, the outermost included.
pub(crate) const DEPTH_MAX: u8 = 16;

/// `serde_json` gives names with this prefix a meaning of its own when a value is read again.
const RESERVED: &str = "$serde_json::private::";

/// The bytes as one JSON object and nothing after it.
// SECURITY: t_022_duplicate_members_are_refused
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match parse_strict(bytes, usize::MAX)? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// The bytes as one JSON value and nothing after it: no member name twice, nothing nested deeper
/// than 16, at most `members_max` members in one object or array. `None` never says why.
pub fn parse_strict(bytes: &[u8], members_max: usize) -> Option<Value> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth_left: DEPTH_MAX, members_max }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(value)
}

/// Unpadded base64url (RFC 7515 section 2) in its one spelling: unused bits are zero.
// SECURITY: t_020_only_canonical_base64url_is_read
pub(crate) fn base64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(crate) fn to_base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[derive(Clone, Copy)]
struct Strict {
    depth_left: u8,
    members_max: usize,
}

impl Strict {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { depth_left, ..self })
    }

    fn room<E: de::Error>(self, held: usize) -> Result<(), E> {
        if held < self.members_max { Ok(()) } else { Err(E::custom("too many members")) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate members")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            self.room(items.len())?;
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.room(members.len())?;
            let value = map.next_value_seed(inner)?;
            if name.starts_with(RESERVED) || members.insert(name, value).is_some() {
                return Err(de::Error::custom("a member name is there twice, or reserved"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_whole() {
        let read = object(br#" {"a":[1,-2,0.5,true,null,"x"],"b":{"a":{}}} "#).unwrap();
        assert_eq!(Value::Object(read), serde_json::json!({"a":[1,-2,0.5,true,null,"x"],"b":{"a":{}}}));
    }

    #[test]
    fn what_is_no_single_object_is_refused() {
        let bad = ["", "[]", "1", "null", "{} {}", "{},", "{\"a\":1,}", "{'a':1}", "\u{feff}{}", "{\"a\":1e999}"];
        for text in bad {
            assert!(object(text.as_bytes()).is_none(), "{text}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none());
    }

    #[test]
    fn depth_is_counted_from_the_outermost() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(object(nested(16).as_bytes()).is_some());
        assert!(object(nested(17).as_bytes()).is_none());
        assert!(object("{\"a\":".repeat(100_000).as_bytes()).is_none());
    }

    #[test]
    fn a_name_that_serde_json_reads_specially_is_refused() {
        assert!(object(br#"{"a":{"$serde_json::private::RawValue":"{\"exp\":1,\"exp\":2}"}}"#).is_none());
        assert!(object(br#"{"$serde_json::private::Number":"1"}"#).is_none());
    }
}
