//! Dayfly's names in Cedar, and how text of ours is quoted there.

use std::sync::LazyLock;

use cedar_policy::{EntityId, EntityTypeName, EntityUid};
use dayfly_domain::bundle::BROKER_ACTIONS;

/// The action of an exchange.
pub(super) const RUN: &str = "run";

/// Entity types of the namespace `Dayfly`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Workload,
    Operator,
    Template,
    Environment,
    Target,
    Task,
    Lease,
    Action,
}

impl Type {
    const ALL: [Self; 8] = [
        Self::Workload,
        Self::Operator,
        Self::Template,
        Self::Environment,
        Self::Target,
        Self::Task,
        Self::Lease,
        Self::Action,
    ];

    pub fn name(self) -> &'static EntityTypeName {
        static NAMES: LazyLock<Vec<EntityTypeName>> = LazyLock::new(|| {
            let name = |kind: &Type| format!("Dayfly::{kind:?}").parse().expect("a variant's name is a Cedar name");
            Type::ALL.iter().map(name).collect()
        });
        &NAMES[self as usize]
    }

    /// SECURITY: an id is data, never text to be parsed (t_176_claim_values_never_become_policy_text).
    pub fn uid(self, id: &str) -> EntityUid {
        EntityUid::from_type_name_and_id(self.name().clone(), EntityId::new(id))
    }

    pub fn is_of(self, uid: &EntityUid) -> bool {
        uid.type_name() == self.name()
    }
}

/// A built-in action by its name.
pub(super) fn builtin_action(name: &str) -> Option<&'static str> {
    BROKER_ACTIONS.into_iter().find(|action| *action == name)
}

/// A Cedar string literal of `text`.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.escape_debug())
}

/// An attribute's name after `has`, or as a key of a record: bare where it can be.
pub(super) fn attribute(name: &str) -> String {
    if is_identifier(name) { name.to_owned() } else { quoted(name) }
}

/// `.name`, or `["name"]` where the name is no identifier.
pub(super) fn access(name: &str) -> String {
    if is_identifier(name) { format!(".{name}") } else { format!("[{}]", quoted(name)) }
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 10] = ["true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"];
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.bytes().all(letter) && !name.as_bytes()[0].is_ascii_digit() && !RESERVED.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use cedar_policy::{EvalResult, Expression};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn t_176_a_quoted_text_reads_back_as_itself(text in any::<String>()) {
            let expression = Expression::from_str(&quoted(&text)).unwrap();
            let uid = || Type::Task.uid("x");
            let context = cedar_policy::Context::empty();
            let request = cedar_policy::Request::new(uid(), uid(), uid(), context, None).unwrap();
            let value = cedar_policy::eval_expression(&request, &cedar_policy::Entities::empty(), &expression).unwrap();
            prop_assert_eq!(value, EvalResult::String(text));
        }
    }

    #[test]
    fn a_reserved_word_is_quoted() {
        assert_eq!(
            (attribute("in"), access("acme-ci"), access("ref")),
            ("\"in\"".into(), "[\"acme-ci\"]".into(), ".ref".into())
        );
    }
}
