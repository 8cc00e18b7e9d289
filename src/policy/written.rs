//! Policies written by hand, in `*.cedar`: what may stand there, and what each is for.

use std::{collections::BTreeMap, str::FromStr};

use cedar_policy::{ActionConstraint, Effect, EntityUid, Policy as Cedar, PolicyId, PolicySet, ResourceConstraint};
use dayfly_domain::{
    Name,
    bundle::{Bundle, CedarFile, Lint, PRODUCTION, Problem, Rule, Template, written as writes},
};

use super::{
    Policy,
    mention::{Mentioned, reads_context},
    names::{RUN, Type, builtin_action},
};

/// One hand-written policy that may be used.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub path: String,
    pub policy: Cedar,
    pub role: Role,
    /// What of a workload it can look at.
    pub mentioned: Mentioned,
    /// It looks at what the job holds.
    pub reads_held: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// A permit for `run` of this template.
    Run(Name),
    /// A permit for row-level rights.
    Rights,
    Forbid,
}

impl Written {
    pub fn id(&self) -> &str {
        self.policy.id().as_ref()
    }
}

impl Policy {
    /// No lint of rows holds for a permit that is written by hand, so each is named.
    pub fn opaque_lints(&self) -> Vec<Lint> {
        let permit = |written: &Written| match &written.role {
            Role::Run(template) => Some(opaque(&self.bundle, written.id(), self.bundle.templates.get(template)?)),
            Role::Rights | Role::Forbid => None,
        };
        self.written.iter().filter_map(permit).collect()
    }
}

fn opaque(bundle: &Bundle, id: &str, template: &Template) -> Lint {
    let mut gets = Vec::new();
    if template.environment == PRODUCTION {
        gets.push("reaches production".to_owned());
    }
    if let Some((target, action)) = writes(bundle, template) {
        gets.push(format!("gets `{action}` on `target.{target}`, which changes something"));
    }
    let danger = if gets.is_empty() { String::new() } else { format!(", and who it lets in {}", gets.join(" and ")) };
    let what = format!("a permit written by hand, into which no lint looks: who it lets in is for its reader{danger}");
    let help = format!("write it as `[[task.{}.allow]]` rows, or have a second person read it", template.name);
    Rule::Opaque.warns(format!("task.{}, policy `{id}`", template.name), what, Some(help))
}

/// All policies of the bundle's Cedar files.
pub(super) fn read(bundle: &Bundle, problems: &mut Vec<Problem>) -> Vec<Written> {
    let mut ids: BTreeMap<String, String> = row_ids(bundle);
    let mut all = Vec::new();
    for file in &bundle.cedar {
        let Some(set) = parse(file, problems) else { continue };
        let mut policies: Vec<_> = set.policies().cloned().collect();
        policies.sort_by_key(|policy| position(policy.id().as_ref()));
        for (index, policy) in policies.into_iter().enumerate() {
            let at = format!("policy {}", index + 1);
            match one(bundle, file, &policy, &mut ids) {
                Ok(written) => all.push(written),
                Err(what) => problems.extend(what.into_iter().map(|what| Problem::new(&file.path, at.clone(), what))),
            }
        }
    }
    all
}

fn row_ids(bundle: &Bundle) -> BTreeMap<String, String> {
    let rows = bundle.templates.values().flat_map(|template| template.rows.iter().map(move |row| (template, row)));
    rows.map(|(template, row)| (row.id.to_string(), format!("a row of `task.{}`", template.name))).collect()
}

fn parse(file: &CedarFile, problems: &mut Vec<Problem>) -> Option<PolicySet> {
    match PolicySet::from_str(&file.text) {
        Err(errors) => {
            problems.extend(errors.iter().map(|error| Problem::new(&file.path, "file", error.to_string())));
            None
        }
        Ok(set) if set.num_of_templates() > 0 => {
            problems.push(Problem::new(&file.path, "file", "has a policy template (`?principal`, `?resource`)"));
            None
        }
        Ok(set) => Some(set),
    }
}

/// Cedar numbers the policies of a text `policy0`, `policy1`, ...
fn position(id: &str) -> usize {
    id.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

fn one(
    bundle: &Bundle,
    file: &CedarFile,
    policy: &Cedar,
    ids: &mut BTreeMap<String, String>,
) -> Result<Written, Vec<String>> {
    let mut wrong = annotations(policy);
    let id = policy.annotation("id").unwrap_or_default().to_owned();
    if id.parse::<Name>().is_err() {
        wrong.push(format!("`@id` is `{id}`, which is not a name: lower-case letters, digits and `-`"));
    } else if let Some(first) = ids.insert(id.clone(), format!("a policy of `{}`", file.path)) {
        wrong.push(format!("`@id(\"{id}\")` is the id of {first} already"));
    }
    wrong.extend(unknown_literals(bundle, policy));
    wrong.extend(unknown_words(bundle, policy));
    let role = role(bundle, policy).map_err(|what| wrong.push(what)).unwrap_or(Role::Forbid);
    if wrong.is_empty() {
        let mentioned = Mentioned::by([policy].into_iter());
        let reads_held = reads_context(policy, &["held", "held_tags"]);
        Ok(Written { path: file.path.clone(), policy: policy.new_id(PolicyId::new(&id)), role, mentioned, reads_held })
    } else {
        Err(wrong)
    }
}

/// Both `@id` and `@purpose`, and no other: one that is ignored would fail open.
fn annotations(policy: &Cedar) -> Vec<String> {
    let missing =
        ["id", "purpose"].into_iter().filter(|key| policy.annotation(key).is_none_or(|text| text.trim().is_empty()));
    let other = policy.annotations().map(|(key, _)| key).filter(|key| !["id", "purpose"].contains(key));
    missing
        .map(|key| format!("`@{key}` is missing"))
        .chain(other.map(|key| format!("`@{key}` means nothing here, so it would not do what it says")))
        .collect()
}

/// A forbid about something that does not exist would fail open.
fn unknown_literals(bundle: &Bundle, policy: &Cedar) -> Vec<String> {
    let unknown = |uid: &EntityUid| {
        let id = uid.id().unescaped();
        (Type::Template.is_of(uid) && !bundle.templates.contains_key(id))
            || (Type::Target.is_of(uid) && !bundle.targets.contains_key(id))
            || (Type::Environment.is_of(uid) && !bundle.targets.values().any(|target| target.environment == *id))
    };
    let mut literals: Vec<_> =
        policy.entity_literals().into_iter().filter(unknown).map(|uid| uid.to_string()).collect();
    literals.sort();
    literals.dedup();
    literals.into_iter().map(|uid| format!("`{uid}` is not in the bundle")).collect()
}

/// So would one about a tag that no target has, or an action that none knows.
// SECURITY: `a_forbid_about_a_tag_that_no_target_has`.
fn unknown_words(bundle: &Bundle, policy: &Cedar) -> Vec<String> {
    let mut words = Vec::new();
    let json = policy.to_json().unwrap_or_default();
    looked_for(&json["conditions"], &mut words);
    let pair = |word: &str| word.split_once('#').map(|(target, action)| (target.to_owned(), action.to_owned()));
    let known = |member: &str, word: &str| match member {
        "ask_tags" | "held_tags" => bundle.targets.values().any(|target| target.tags.contains(word)),
        _ => pair(word).is_some_and(|(target, action)| {
            bundle.targets.get(target.as_str()).is_some_and(|target| target.actions.contains(action.as_str()))
        }),
    };
    words.sort();
    words.dedup();
    let unknown = words.into_iter().filter(|(member, word)| !known(member, word));
    unknown.map(|(member, word)| format!("`context.{member}` never contains `{word}`: no target has it")).collect()
}

/// The literals that `context.ask`, `context.held` and their tags are searched for.
fn looked_for(node: &serde_json::Value, words: &mut Vec<(String, String)>) {
    use serde_json::Value;
    for search in ["contains", "containsAny", "containsAll"] {
        let member = node.pointer(&format!("/{search}/left/./attr")).and_then(Value::as_str);
        let of_context = node.pointer(&format!("/{search}/left/./left/Var")).is_some_and(|var| var == "context");
        let Some(member) = member.filter(|name| of_context && ["ask", "ask_tags", "held", "held_tags"].contains(name))
        else {
            continue;
        };
        let right = &node[search]["right"];
        let literals = right["Set"].as_array().map_or_else(|| vec![right], |members| members.iter().collect());
        let texts = literals.into_iter().filter_map(|literal| literal["Value"].as_str());
        words.extend(texts.map(|text| (member.to_owned(), text.to_owned())));
    }
    match node {
        Value::Array(items) => items.iter().for_each(|item| looked_for(item, words)),
        Value::Object(members) => members.values().for_each(|item| looked_for(item, words)),
        _ => {}
    }
}

fn role(bundle: &Bundle, policy: &Cedar) -> Result<Role, String> {
    if policy.effect() == Effect::Forbid {
        return Ok(Role::Forbid);
    }
    let actions = match policy.action_constraint() {
        ActionConstraint::Any => return Err("a permit names its action: write `action == ...`".into()),
        ActionConstraint::Eq(action) => vec![action],
        ActionConstraint::In(actions) => actions,
    };
    let names: Vec<_> = actions.iter().map(|action| action.id().unescaped()).collect();
    if names == [RUN] {
        return run_role(bundle, policy);
    }
    if !names.is_empty() && names.iter().all(|name| builtin_action(name).is_some()) {
        return Ok(Role::Rights);
    }
    Err("a permit is for `run` alone, or for built-in actions".into())
}

/// SECURITY: a permit without `principal.untrusted` would let unreviewed code run
/// (a_permit_that_forgets_untrusted).
fn run_role(bundle: &Bundle, policy: &Cedar) -> Result<Role, String> {
    let one_template = "a permit for `run` names one template: write `resource == Dayfly::Template::\"...\"`";
    let ResourceConstraint::Eq(template) = policy.resource_constraint() else {
        return Err(one_template.into());
    };
    let template = bundle.templates.get(template.id().unescaped()).filter(|_| Type::Template.is_of(&template));
    let json = policy.to_json().map_err(|error| error.to_string())?;
    if !reads_untrusted(&json) {
        return Err("a permit for `run` tests `principal.untrusted`: write `!principal.untrusted`".into());
    }
    template.map(|template| Role::Run(template.name.clone())).ok_or_else(|| one_template.into())
}

/// Whether `principal.untrusted` stands anywhere in the policy's conditions.
fn reads_untrusted(json: &serde_json::Value) -> bool {
    let here = json.get(".").is_some_and(|access| {
        access.pointer("/left/Var").is_some_and(|var| var == "principal")
            && access.get("attr").is_some_and(|attr| attr == "untrusted")
    });
    here || match json {
        serde_json::Value::Array(items) => items.iter().any(reads_untrusted),
        serde_json::Value::Object(members) => members.values().any(reads_untrusted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::fixture::{PRODUCTION, SHOP, policy, with_cedar};

    fn refused(text: &str, what: &str) {
        let said = with_cedar(text).expect_err("loaded");
        assert!(said.starts_with("more.cedar: ") && said.contains(what), "{said}");
    }

    const GOOD: &str = r#"@id("by-hand") @purpose("tags too")
        permit (principal is Dayfly::Workload, action == Dayfly::Action::"run", resource == Dayfly::Template::"deploy-staging")
        when { !principal.untrusted && principal has github && principal.github has ref && principal.github.ref like "refs/tags/v*" };"#;

    #[test]
    fn the_shipped_policies_load() {
        policy(&[("shop.toml", SHOP), ("production.cedar", PRODUCTION)]).unwrap();
        with_cedar(GOOD).unwrap();
    }

    #[test]
    fn a_permit_that_no_lint_looks_into_is_named() {
        let said = |cedar: &str| {
            let lints = with_cedar(cedar).unwrap().opaque_lints();
            lints.iter().map(|lint| format!("{}: {}\n", lint.at, lint.what)).collect::<String>()
        };
        let staging = said(GOOD);
        assert!(staging.starts_with("task.deploy-staging, policy `by-hand`: a permit written by hand"), "{staging}");
        assert!(staging.contains("gets `deploy:create` on") && staging.ends_with("[opaque]\n"), "{staging}");
        assert!(!staging.contains("production"), "{staging}");
        assert!(said(&GOOD.replace("deploy-staging", "deploy-prod")).contains("lets in reaches production and gets"));
        assert_eq!(said(PRODUCTION), "", "a forbid");
    }

    #[test]
    fn a_policy_without_a_name_or_purpose() {
        refused("forbid (principal, action, resource);", "`@id` is missing");
        refused("@id(\"a\") forbid (principal, action, resource);", "`@purpose` is missing");
    }

    #[test]
    fn an_ignored_approval_would_fail_open() {
        refused("@approval(\"two\") @id(\"a\") @purpose(\"b\") forbid (principal, action, resource);", "`@approval`");
    }

    #[test]
    fn a_policy_with_the_id_of_a_row() {
        refused(
            "@id(\"shop-main\") @purpose(\"b\") forbid (principal, action, resource);",
            "a row of `task.deploy-prod`",
        );
        let one = "@id(\"a\") @purpose(\"b\") forbid (principal, action, resource);";
        refused(&format!("{one}\n{one}"), "is the id of a policy of `more.cedar`");
    }

    #[test]
    fn a_forbid_about_a_tag_that_no_target_has() {
        let tagged = SHOP.replacen("verifies    =", "tags = [\"pci\"]\nverifies    =", 1);
        let load = |condition: &str| {
            let cedar = format!(
                "@id(\"a\") @purpose(\"b\") forbid (principal, action == Dayfly::Action::\"run\", resource) when {{ {condition} }};"
            );
            policy(&[("shop.toml", &tagged), ("more.cedar", &cedar)])
        };
        for good in [
            "context.ask_tags.contains(\"pci\") && context.held_tags.contains(\"pci\")",
            "context.held.contains(\"shop-staging#deploy:create\")",
            "context.held.containsAny([\"shop-staging#deploy:create\", \"broker#introspect\"])",
            "!context.held.isEmpty() && context.held == context.ask",
        ] {
            load(good).unwrap();
        }
        for (bad, what) in [
            ("context.ask_tags.contains(\"PCI\")", "`context.ask_tags` never contains `PCI`"),
            ("context.binding == \"dpop\" || context.held_tags.containsAll([\"pci\", \"pcl\"])", "contains `pcl`"),
            ("context.ask.contains(\"shop-staging#deploy:crate\")", "contains `shop-staging#deploy:crate`"),
            ("context.held.containsAny([\"pci\"])", "contains `pci`"),
        ] {
            let said = load(bad).expect_err(bad);
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn a_permit_that_forgets_untrusted() {
        refused(&GOOD.replace("!principal.untrusted &&", ""), "tests `principal.untrusted`");
        refused(&GOOD.replace("!principal.untrusted &&", "principal has untrusted &&"), "tests `principal.untrusted`");
    }

    #[test]
    fn a_permit_for_every_template() {
        refused(&GOOD.replace("resource == Dayfly::Template::\"deploy-staging\"", "resource"), "names one template");
        refused(&GOOD.replace("action == Dayfly::Action::\"run\"", "action"), "names its action");
        let with_rights = "action in [Dayfly::Action::\"run\", Dayfly::Action::\"tasks:read\"]";
        refused(&GOOD.replace("action == Dayfly::Action::\"run\"", with_rights), "`run` alone");
    }

    #[test]
    fn a_forbid_with_a_typo_would_fail_open() {
        let forbid = r#"@id("a") @purpose("b") forbid (principal, action == Dayfly::Action::"run", resource in Dayfly::Environment::"prod");"#;
        refused(forbid, "`Dayfly::Environment::\"prod\"` is not in the bundle");
        let attribute = r#"@id("a") @purpose("b") forbid (principal is Dayfly::Workload, action == Dayfly::Action::"run", resource)
            when { principal has github && principal.github has reff && principal.github.reff == "x" };"#;
        assert!(with_cedar(attribute).is_err());
    }

    #[test]
    fn an_impossible_policy() {
        let forbid = r#"@id("a") @purpose("b") forbid (principal is Dayfly::Operator, action == Dayfly::Action::"run", resource);"#;
        assert!(with_cedar(forbid).is_err());
    }

    #[test]
    fn a_policy_that_reads_what_may_be_absent() {
        refused(&GOOD.replace("principal.github has ref && ", ""), "ref");
    }

    #[test]
    fn a_policy_template() {
        refused("@id(\"a\") @purpose(\"b\") permit (principal == ?principal, action, resource);", "policy template");
    }

    #[test]
    fn what_is_no_cedar() {
        refused("permit everything;", "");
    }
}
