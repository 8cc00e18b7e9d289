//! Whether a selector speaks of a task or a lease. One rule for the lease table, the fence and the
//! check of the ledger; what is held against it are words, wherever they are kept.

use crate::{ClaimValue, Claims, Selector};

/// Before and after each claim in a text of claims, and between a name and its value. No selector
/// holds a control character, so neither can be part of what is looked for.
const CLAIM: char = '\u{1e}';
const IS: char = '\u{1f}';

/// What a selector sees of a task.
#[derive(Debug, Clone, Copy)]
pub struct TaskWords<'a> {
    /// The platform's label, without the issuer.
    pub job: Option<&'a str>,
    pub workload: &'a str,
    pub owner: &'a str,
    pub issuer: &'a str,
    /// The permit that opened it.
    pub row: &'a str,
    pub template: &'a str,
    /// As [`claim_text`] writes them.
    pub claims: &'a str,
}

/// What a selector sees of a lease, beside its task.
#[derive(Debug, Clone, Copy)]
pub struct LeaseWords<'a> {
    pub target: &'a str,
    /// The permit that granted it.
    pub row: &'a str,
    /// The key that signed it.
    pub key: Option<&'a str>,
}

/// A selector, ready to be held against many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matcher {
    selector: Selector,
    /// Each claim as it stands in a text of claims.
    claims: Vec<String>,
}

impl Matcher {
    pub fn new(selector: Selector) -> Self {
        let claims = selector.claims.iter().map(|(name, value)| format!("{CLAIM}{name}{IS}{value}{CLAIM}")).collect();
        Self { selector, claims }
    }

    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// Whether it speaks of whole tasks. One that names a target or a key means leases alone, and
    /// their tasks live on.
    pub fn means_tasks(&self) -> bool {
        self.selector.target.is_none() && self.selector.key.is_none()
    }

    /// Whether it may mean a lease whose task it does not mean.
    pub fn means_single_leases(&self) -> bool {
        !self.means_tasks() || self.selector.row.is_some()
    }

    pub fn task(&self, task: &TaskWords<'_>) -> bool {
        self.means_tasks() && self.origin(task) && is(&self.selector.row, task.row)
    }

    /// The lease itself, whether or not its task is meant. Opened or granted by the row: either will do.
    pub fn lease(&self, task: &TaskWords<'_>, lease: &LeaseWords<'_>) -> bool {
        let Selector { target, row, key, .. } = &self.selector;
        is(target, lease.target)
            && (is(row, lease.row) || is(row, task.row))
            && key.as_deref().is_none_or(|key| lease.key == Some(key))
            && self.origin(task)
    }

    /// Everything but row, target and key.
    fn origin(&self, task: &TaskWords<'_>) -> bool {
        let Selector { job, workload, owner, issuer, template, target: _, row: _, key: _, claims: _ } = &self.selector;
        is(owner, task.owner)
            && is(issuer, task.issuer)
            && is(template, task.template)
            && is(workload, task.workload)
            && job.as_deref().is_none_or(|job| task.job == Some(job))
            && self.claims.iter().all(|claim| task.claims.contains(claim.as_str()))
    }
}

fn is(wanted: &Option<String>, word: &str) -> bool {
    wanted.as_deref().is_none_or(|wanted| wanted == word)
}

/// The claims that `keep` names, as one text that a [`Matcher`] looks into: of a set every member.
/// What holds a control character can be named by no selector, and is left out.
pub fn claim_text(claims: &Claims, keep: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    for (name, value) in claims.iter().filter(|(name, _)| keep(name)) {
        match value {
            ClaimValue::Set(members) => members.iter().for_each(|member| add(&mut text, name, member)),
            other => add(&mut text, name, &other.to_string()),
        }
    }
    text
}

fn add(text: &mut String, name: &str, value: &str) {
    if value.chars().any(char::is_control) {
        return;
    }
    if text.is_empty() {
        text.push(CLAIM);
    }
    text.push_str(name);
    text.push(IS);
    text.push_str(value);
    text.push(CLAIM);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> String {
        let set = ClaimValue::Set(vec!["admin".into(), "dev".into()]);
        let claims = Claims::from([
            ("org".into(), ClaimValue::Long(7)),
            ("repo".into(), ClaimValue::String("88".into())),
            ("groups".into(), set),
            ("odd".into(), ClaimValue::String("a\u{1e}repo\u{1f}99".into())),
            ("name".into(), ClaimValue::String("secret".into())),
        ]);
        claim_text(&claims, |name| name != "name")
    }

    fn matcher(text: &str) -> Matcher {
        Matcher::new(text.parse().unwrap())
    }

    #[test]
    fn a_task_is_meant_when_all_that_is_named_holds() {
        let text = claims();
        let task = TaskWords {
            job: Some("1/2"),
            workload: "ci/shop",
            owner: "team-shop",
            issuer: "ci",
            row: "shop-deploys",
            template: "deploy",
            claims: &text,
        };
        for (selector, meant) in [
            (r#"owner == "team-shop""#, true),
            (r#"owner == "team-shop" && template == "deploy" && row == "shop-deploys" && job == "1/2""#, true),
            (r#"owner == "team-shop" && template == "pay""#, false),
            (r#"owner == "team""#, false),
            (r#"job == "1""#, false),
            (r#"repo == "88" && org == "7""#, true),
            (r#"repo == "8""#, false),
            (r#"repo == "99""#, false),
            (r#"name == "secret""#, false),
            (r#"groups == "dev""#, true),
            (r#"groups == "admin,dev""#, false),
            (r#"owner == "team-shop" && target == "shop""#, false),
            (r#"key == "k1""#, false),
        ] {
            assert_eq!(matcher(selector).task(&task), meant, "{selector}");
        }
        let lease = LeaseWords { target: "shop", row: "shop-further", key: Some("k1") };
        for (selector, meant) in [
            (r#"target == "shop""#, true),
            (r#"target == "shop" && owner == "team-pay""#, false),
            (r#"key == "k1""#, true),
            (r#"key == "k2""#, false),
            (r#"row == "shop-further""#, true),
            (r#"row == "shop-deploys""#, true),
            (r#"row == "shop""#, false),
        ] {
            assert_eq!(matcher(selector).lease(&task, &lease), meant, "{selector}");
        }
        assert!(!matcher(r#"key == "k1""#).lease(&task, &LeaseWords { key: None, ..lease }));
    }
}
