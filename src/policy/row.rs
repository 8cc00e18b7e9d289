//! A row as the one Cedar permit that it is.

use dayfly_domain::{
    ClaimType, ClaimValue,
    bundle::{Issuer, Row, Template},
};

use super::names::{access, attribute, quoted};

/// The text of the permit. Values are quoted; names were checked with the bundle.
pub(super) fn text(template: &Template, row: &Row, issuer: &Issuer) -> String {
    let record = format!("principal{}", access(&issuer.profile));
    let mut first = vec![format!("principal.issuer == {}", quoted(&row.issuer))];
    if !row.untrusted {
        first.push("!principal.untrusted".into());
    }
    first.push(format!("principal has {}", attribute(&issuer.profile)));
    let is_set = |name: &str| issuer.claims.get(name).is_some_and(|rule| rule.kind == ClaimType::Set);
    let claims = row.claims.iter().map(|(name, values)| claim(&record, name, values, is_set(name)));
    let lines: Vec<String> = [first.join(" && ")].into_iter().chain(claims).collect();
    format!(
        "@id({})\npermit (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", resource == Dayfly::Template::{})\nwhen {{ {} }};\n",
        quoted(&row.id),
        quoted(&template.name),
        lines.join(" &&\n       "),
    )
}

fn claim(record: &str, name: &str, values: &[ClaimValue], is_set: bool) -> String {
    let seen = format!("{record}{}", access(name));
    let literals: Vec<_> = values.iter().map(literal).collect();
    let wanted = match (literals.as_slice(), is_set) {
        ([one], false) => format!("{seen} == {one}"),
        ([one], true) => format!("{seen}.contains({one})"),
        (many, false) => format!("[{}].contains({seen})", many.join(", ")),
        (many, true) => format!("{seen}.containsAny([{}])", many.join(", ")),
    };
    format!("{record} has {} && {wanted}", attribute(name))
}

fn literal(value: &ClaimValue) -> String {
    match value {
        ClaimValue::Bool(value) => value.to_string(),
        ClaimValue::Long(value) => value.to_string(),
        ClaimValue::String(value) => quoted(value),
        ClaimValue::Set(values) => {
            let values: Vec<_> = values.iter().map(|value| quoted(value)).collect();
            format!("[{}]", values.join(", "))
        }
    }
}
