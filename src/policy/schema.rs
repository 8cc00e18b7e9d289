//! The Cedar schema, derived from the bundle, so that it cannot go stale.

use std::{collections::BTreeMap, fmt::Write};

use dayfly_domain::{
    ClaimType, Name,
    bundle::{BROKER_ACTIONS, Bundle, IssuerKind},
};

use super::names::attribute;

const ENTITIES: &str = "\
    entity Operator = { issuer: String, name: String, groups: Set<String> };
    entity Environment;
    entity Template in [Environment] = { owner: String };
    entity Target in [Environment] = { uri: String, owner: String };
    entity Task = { owner: String, template: String, workload: String, environment: String };
    entity Lease = { owner: String, template: String, workload: String, environment: String, target: String };
";

const RUN: &str = "    action run appliesTo {
        principal: Workload,
        resource: Template,
        context: {
            ttl: Long, kind: String, binding: String, ticket?: String, age_s: Long,
            ask: Set<String>, ask_tags: Set<String>, held: Set<String>, held_tags: Set<String>,
        },
    };
";

/// Cedar schema text.
pub(super) fn text(bundle: &Bundle) -> String {
    let mut text = String::from("namespace Dayfly {\n    entity Workload = {\n");
    text.push_str("        issuer: String,\n        profile: String,\n        untrusted: Bool,\n");
    for (profile, claims) in records(bundle) {
        let claims: Vec<_> =
            claims.iter().map(|(name, kind)| format!("{}?: {}", attribute(name), cedar_type(*kind))).collect();
        // `write!` to a `String` cannot fail.
        let _ = writeln!(text, "        {}?: {{ {} }},", attribute(profile), claims.join(", "));
    }
    text.push_str("    };\n");
    text.push_str(ENTITIES);
    text.push_str(RUN);
    for action in BROKER_ACTIONS {
        let resources = resources(action);
        let _ = writeln!(
            text,
            "    action \"{action}\" appliesTo {{ principal: [Workload, Operator], resource: {resources} }};"
        );
    }
    text.push_str("}\n");
    text
}

fn resources(action: &str) -> &'static str {
    match action {
        "tasks:read" | "tasks:end" => "[Task]",
        "ledger:read" => "[Task, Target]",
        "broker:operate" => "[Target]",
        _ => "[Lease]",
    }
}

/// The claims of each profile, with those that its workload issuers add.
fn records(bundle: &Bundle) -> BTreeMap<&Name, BTreeMap<&str, ClaimType>> {
    let mut records = BTreeMap::new();
    for (name, profile) in &bundle.profiles {
        let claims: BTreeMap<_, _> = profile.claims.iter().map(|(name, rule)| (name.as_str(), rule.kind)).collect();
        records.insert(name, claims);
    }
    for issuer in bundle.issuers.values().filter(|issuer| issuer.kind == IssuerKind::Workload) {
        let record = records.entry(&issuer.profile).or_default();
        record.extend(issuer.claims.iter().map(|(name, rule)| (name.as_str(), rule.kind)));
    }
    records
}

fn cedar_type(kind: ClaimType) -> &'static str {
    match kind {
        ClaimType::String => "String",
        ClaimType::Long | ClaimType::StringLong => "Long",
        ClaimType::Bool | ClaimType::StringBool => "Bool",
        ClaimType::Set => "Set<String>",
    }
}
