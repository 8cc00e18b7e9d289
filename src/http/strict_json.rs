//! JSON, strictly: a member name twice, nesting deeper than 16 or more than 200 members in one
//! place is refused, so that no two readers of one text can disagree and none is made to work
//! hard. Out comes an ordinary `serde_json::Value`.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

const DEPTH_MAX: usize = 16;
const MEMBERS_MAX: usize = 200;

/// The text is not JSON as we take it. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, a member name twice, or nested too deeply")]
pub(super) struct NotJson;

/// One whole JSON text and nothing after it.
pub(super) fn parse(text: &[u8]) -> Result<Value, NotJson> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Nested(DEPTH_MAX).deserialize(&mut reader).map_err(|_| NotJson)?;
    reader.end().map_err(|_| NotJson)?;
    Ok(value)
}

/// Reads one value; holds how many levels may still open.
#[derive(Clone, Copy)]
struct Nested(usize);

impl Nested {
    fn below<E: Error>(self) -> Result<Self, E> {
        self.0.checked_sub(1).map(Self).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> DeserializeSeed<'de> for Nested {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(below)? {
            if items.len() >= MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() >= MEMBERS_MAX || members.contains_key(&name) {
                return Err(A::Error::custom("a member name twice, or too many members"));
            }
            members.insert(name, map.next_value_seed(below)?);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_read_as_it_is() {
        let text = br#" {"a": [1, -2, 1.5, true, null, "\u00e9"], "b": {}} "#;
        assert_eq!(parse(text), Ok(json!({"a": [1, -2, 1.5, true, null, "é"], "b": {}})));
    }

    #[test]
    fn t_159_a_member_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"b":1,"b":2}}]"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(parse(text.as_bytes()), Err(NotJson), "{text}");
        }
        assert!(parse(br#"[{"a":1},{"a":1}]"#).is_ok());
    }

    #[test]
    fn t_159_depth_and_breadth_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(16).as_bytes()).is_ok());
        assert_eq!(parse(nested(17).as_bytes()), Err(NotJson));
        assert_eq!(parse(nested(30_000).as_bytes()), Err(NotJson));
        assert!(parse(format!("[{}0]", "0,".repeat(199)).as_bytes()).is_ok());
        assert_eq!(parse(format!("[{}0]", "0,".repeat(200)).as_bytes()), Err(NotJson));
    }

    #[test]
    fn what_is_not_one_json_text_is_refused() {
        for text in ["", "{", "{} {}", "{}x", "{'a':1}", "NaN", "01", "\u{feff}{}", r#"{"a":1e999}"#] {
            assert_eq!(parse(text.as_bytes()), Err(NotJson), "{text}");
        }
        assert_eq!(parse(b"\"\xff\""), Err(NotJson));
    }
}
