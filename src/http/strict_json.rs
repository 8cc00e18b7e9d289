//! JSON, strictly: what two readers could read differently, or what makes one work hard, is
//! refused. The reading itself is the verifier's, so that one rule stands in one place.

use dayfly_verifier::parse_strict;
use serde_json::Value;

/// Members and entries of one JSON text, all together.
pub const MEMBERS_MAX: usize = 200;

/// The text is not JSON as we take it. Never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON, a member name twice, or nested too deeply")]
pub(super) struct NotJson;

/// One whole JSON text and nothing after it.
pub(super) fn parse(text: &[u8]) -> Result<Value, NotJson> {
    parse_strict(text, MEMBERS_MAX).ok_or(NotJson)
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
