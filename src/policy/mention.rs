//! Which claims a slice's policies can look at. Cedar makes a value of every attribute it is given,
//! and a platform's token has many more claims than rows name. In: policies. Out: what of a
//! workload they may see; more than needed where that cannot be told.

use std::collections::BTreeSet;

use cedar_policy::Policy as Cedar;
use serde_json::{Map, Value};

/// The attributes that policies name.
#[derive(Debug, Clone, Default)]
pub(super) struct Mentioned {
    names: BTreeSet<String>,
    /// Those whose value is used as it is, and not only looked into.
    whole: BTreeSet<String>,
    /// A policy could not be looked through.
    everything: bool,
}

impl Mentioned {
    pub fn by<'a>(policies: impl Iterator<Item = &'a Cedar>) -> Self {
        let mut mentioned = Self::default();
        for policy in policies {
            match policy.to_json().ok().and_then(|mut json| json.get_mut("conditions").map(Value::take)) {
                Some(conditions) => mentioned.walk(&conditions),
                None => mentioned.everything = true,
            }
        }
        mentioned
    }

    /// What any of these shows.
    pub fn all<'a>(many: impl Iterator<Item = &'a Self>) -> Self {
        let mut all = Self::default();
        for one in many {
            all.names.extend(one.names.iter().cloned());
            all.whole.extend(one.whole.iter().cloned());
            all.everything |= one.everything;
        }
        all
    }

    /// And these claims, which rows name.
    pub fn and(mut self, claims: impl Iterator<Item = String>) -> Self {
        self.names.extend(claims);
        self
    }

    /// All there is, whatever policies name.
    #[cfg(test)]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Whether a policy can tell whether the claim is there. A record that is used whole, as in
    /// `principal.github == {...}`, shows all of its claims.
    // SECURITY: `a_claim_that_a_policy_looks_at_is_never_left_out`.
    pub fn shows(&self, profile: &str, claim: &str) -> bool {
        self.everything || self.whole.contains(profile) || self.names.contains(claim)
    }

    /// Whatever is not one of the two known expressions, and no literal, counts as a use of every
    /// word in it: a form of Cedar that is not known here shows too much, never too little.
    fn walk(&mut self, node: &Value) {
        match node {
            Value::Object(members) => members.iter().for_each(|(name, value)| match access(name, value) {
                Some((left, attribute)) => {
                    // Whether a record is there is no look into it.
                    if name == "." {
                        self.whole.insert(attribute.to_owned());
                    }
                    self.access(left, attribute);
                }
                None if name == "Value" => {}
                None => {
                    self.word(name);
                    self.walk(value);
                }
            }),
            Value::Array(nodes) => nodes.iter().for_each(|node| self.walk(node)),
            Value::String(word) => self.word(word),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn word(&mut self, word: &str) {
        self.names.insert(word.to_owned());
        self.whole.insert(word.to_owned());
    }

    /// `left.attribute` or `left has attribute`: what is left of it is only looked into.
    fn access(&mut self, left: &Value, attribute: &str) {
        self.names.insert(attribute.to_owned());
        let inner = left.as_object().filter(|members| members.len() == 1).and_then(|members| members.iter().next());
        match inner.and_then(|(name, value)| access(name, value)) {
            Some((left, attribute)) => self.access(left, attribute),
            None => self.walk(left),
        }
    }
}

/// Whether a policy looks at one of these members of the context; also where it uses the context
/// as a whole, or cannot be looked through.
pub(super) fn reads_context(policy: &Cedar, members: &[&str]) -> bool {
    let json = policy.to_json().ok();
    json.as_ref().and_then(|json| json.get("conditions")).is_none_or(|conditions| looks_at(conditions, members))
}

fn looks_at(node: &Value, members: &[&str]) -> bool {
    match node {
        Value::Object(parts) => parts.iter().any(|(name, value)| match access(name, value) {
            Some((left, attribute)) if is_context(left) => members.contains(&attribute),
            Some((left, _)) => looks_at(left, members),
            None if name == "Value" => false,
            None => name == "Var" && value == "context" || looks_at(value, members),
        }),
        Value::Array(nodes) => nodes.iter().any(|node| looks_at(node, members)),
        _ => false,
    }
}

fn is_context(node: &Value) -> bool {
    node.get("Var").is_some_and(|var| var == "context")
}

/// The two expressions that name an attribute, in Cedar's JSON.
fn access<'a>(operator: &str, operands: &'a Value) -> Option<(&'a Value, &'a str)> {
    let operands: &Map<String, Value> = operands.as_object().filter(|_| matches!(operator, "." | "has"))?;
    Some((operands.get("left")?, operands.get("attr")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mentioned(conditions: &str) -> Mentioned {
        let text = format!("permit (principal, action, resource) {conditions};");
        Mentioned::by([Cedar::parse(None, text).unwrap()].iter())
    }

    #[test]
    fn a_row_shows_its_own_claims_only() {
        let seen = mentioned(
            "when { principal.issuer == \"github\" && principal has github && principal.github has ref && \
             principal.github.ref == \"main\" && [\"1\"].contains(principal.github.repository_id) }",
        );
        let shown: Vec<_> =
            ["ref", "repository_id", "sha", "actor_id"].into_iter().filter(|name| seen.shows("github", name)).collect();
        assert_eq!(shown, ["ref", "repository_id"]);
    }

    #[test]
    fn who_looks_at_what_is_held_is_known() {
        let reads = |conditions: &str| {
            let text = format!("forbid (principal, action, resource) {conditions};");
            reads_context(&Cedar::parse(None, text).unwrap(), &["held", "held_tags"])
        };
        for condition in [
            "when { context.held.contains(\"x\") }",
            "unless { context[\"held_tags\"].isEmpty() }",
            "when { context has held }",
            "when { context == {held: []} }",
            "when { (if context.ttl > 5 then context else context).ttl > 4 }",
            "when { principal in [context.held] }",
        ] {
            assert!(reads(condition), "{condition}");
        }
        for condition in ["when { context.ask.contains(\"held\") }", "when { principal.github.held == \"held\" }", ""] {
            assert!(!reads(condition), "{condition}");
        }
    }

    #[test]
    fn a_claim_that_a_policy_looks_at_is_never_left_out() {
        for condition in [
            "when { principal.github.sha == \"x\" }",
            "unless { principal.github has sha }",
            "when { principal has github.sha }",
            "when { principal[\"github\"][\"sha\"] like \"a*\" }",
            "when { (if true then principal else principal).github.sha == \"x\" }",
            "when { (if true then principal.github else principal.github).sha == \"x\" }",
            // The record as a whole.
            "when { principal.github == {sha: \"x\"} }",
            "when { [{sha: \"x\"}].contains(principal.github) }",
            "when { {a: principal.github}.a == {sha: \"x\"} }",
            "when { principal.github == principal.github && principal.github.ref == \"x\" }",
            "when { !([principal.github.ref, principal.github.sha].isEmpty()) }",
            "when { principal has github.sha.x }",
            "when { {sha: 1} has sha }",
        ] {
            assert!(mentioned(condition).shows("github", "sha"), "{condition}");
        }
        assert!(!mentioned("when { principal.github.ref == \"sha\" }").shows("github", "sha"), "a value is no name");
    }
}
