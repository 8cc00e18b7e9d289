//! Where a claim stands in a payload: under its name or one it had before, once or in every member
//! of an object. In come a payload and a rule; out comes what stands there, whole or not at all.

use dayfly_domain::bundle::ClaimRule;
use serde_json::{Map, Value};

/// What a rule finds.
#[derive(Debug, PartialEq)]
pub enum Seen<'a> {
    Nothing,
    One(&'a Value),
    /// One value of every member that the `*` stands for; never empty.
    Each(Vec<&'a Value>),
    /// Two names of one claim, or only some of the members have it.
    Ambiguous,
}

/// A claim that has two names is there under one of them; which is meant is never guessed.
// SECURITY: `a_claim_under_two_names_is_refused`, `a_part_that_says_nothing_is_refused`.
pub fn find<'a>(payload: &'a Map<String, Value>, rule: &ClaimRule) -> Seen<'a> {
    let Some((members, _)) = ClaimRule::each(&rule.at) else {
        return one(rule.pointers().filter_map(|pointer| at(payload, pointer)));
    };
    let members = match at(payload, members) {
        None => return Seen::Nothing,
        Some(Value::Object(members)) => members,
        Some(_) => return Seen::Ambiguous,
    };
    let of = |member: &'a Value| {
        let names = rule.pointers().filter_map(ClaimRule::each);
        one(names.filter_map(|(_, below)| member.pointer(below)))
    };
    let seen: Vec<Seen<'a>> = members.values().map(of).collect();
    if seen.iter().all(|seen| *seen == Seen::Nothing) {
        return Seen::Nothing;
    }
    let each = seen.into_iter().map(|seen| if let Seen::One(value) = seen { Some(value) } else { None });
    each.collect::<Option<Vec<_>>>().map_or(Seen::Ambiguous, Seen::Each)
}

fn one<'a>(mut found: impl Iterator<Item = &'a Value>) -> Seen<'a> {
    match (found.next(), found.next()) {
        (None, _) => Seen::Nothing,
        (Some(value), None) => Seen::One(value),
        (Some(_), Some(_)) => Seen::Ambiguous,
    }
}

/// `Value::pointer` (RFC 6901) into an object that is no `Value`: a copy of the whole payload would
/// cost more than the reading.
fn at<'a>(payload: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('/')?;
    let (first, below) = path.find('/').map_or((path, ""), |end| path.split_at(end));
    let member = match first.contains('~') {
        true => payload.get(&first.replace("~1", "/").replace("~0", "~")),
        false => payload.get(first),
    };
    member?.pointer(below)
}

#[cfg(test)]
mod tests {
    use dayfly_domain::ClaimType;
    use serde_json::json;

    use super::*;

    fn rule(at: &str, formerly: &[&str]) -> ClaimRule {
        let formerly = formerly.iter().map(|pointer| (*pointer).to_owned()).collect();
        ClaimRule { at: at.to_owned(), formerly, ..ClaimRule::of(ClaimType::Set) }
    }

    #[test]
    fn a_pointer_into_the_payload_is_rfc_6901() {
        let whole = json!({
            "a": { "b": [1, { "c": 2 }], "": 3 }, "m~n": 4, "x/y": { "~1": 5 }, "": { "": 6 }, "plain": 7,
        });
        let map = whole.as_object().unwrap();
        for pointer in [
            "/a",
            "/a/b",
            "/a/b/1/c",
            "/a/b/7",
            "/a/",
            "/m~0n",
            "/x~1y/~01",
            "/",
            "//",
            "/plain",
            "/plain/x",
            "/none",
            "plain",
            "/~01",
            "",
        ] {
            let same = if pointer.is_empty() { None } else { whole.pointer(pointer) };
            assert_eq!(at(map, pointer), same, "{pointer}");
        }
    }

    #[test]
    fn a_claim_under_two_names_is_refused() {
        let rule = rule("/new", &["/old", "/older"]);
        let seen = |payload: &Value| format!("{:?}", find(payload.as_object().unwrap(), &rule));
        assert_eq!(seen(&json!({ "new": 1 })), seen(&json!({ "older": 1 })));
        assert_eq!(seen(&json!({ "x": 1 })), "Nothing");
        assert_eq!(seen(&json!({ "new": 1, "old": 1 })), "Ambiguous", "also where they agree");
        assert_eq!(seen(&json!({ "old": null, "older": 1 })), "Ambiguous");
    }

    #[test]
    fn a_star_means_the_same_to_loader_and_reader() {
        let payload = json!({ "x": { "*foo": 1, "a": { "foo": 2 } } });
        let seen = find(payload.as_object().unwrap(), &rule("/x/*foo", &[]));
        assert_eq!(seen, Seen::One(&json!(1)), "a letter of a name");
    }

    #[test]
    fn a_part_that_says_nothing_is_refused() {
        let rule = rule("/parts/*/new", &["/parts/*/old"]);
        let seen = |payload: Value| match find(payload.as_object().unwrap(), &rule) {
            Seen::Each(values) => values.len().to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(seen(json!({ "parts": { "a": { "new": 1 }, "b": { "old": 2 } } })), "2");
        assert_eq!(seen(json!({ "parts": { "a": { "new": 1 }, "b": {} } })), "Ambiguous");
        assert_eq!(seen(json!({ "parts": { "a": { "new": 1 }, "b": "a nested token" } })), "Ambiguous");
        assert_eq!(seen(json!({ "parts": { "a": { "new": 1, "old": 1 } } })), "Ambiguous");
        assert_eq!(seen(json!({ "parts": [{ "new": 1 }] })), "Ambiguous");
        assert_eq!(seen(json!({ "parts": { "a": {}, "b": {} } })), "Nothing");
        assert_eq!((seen(json!({ "parts": {} })), seen(json!({}))), ("Nothing".into(), "Nothing".into()));
    }
}
