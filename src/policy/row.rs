//! A row as the one Cedar permit that it is: as a policy that decides, made of values and never of
//! text, and as the text that people read. Both say the same.

use std::sync::{Arc, LazyLock};

use cedar_policy::{
    Policy as Cedar,
    pst::{
        ActionConstraint, BinaryOp, Clause, Effect, EntityOrSlot, EntityType, EntityUID, Expr, Literal,
        Name as CedarName, NonEmpty, Policy, PolicyID, PrincipalConstraint, PstConstructionError, ResourceConstraint,
        SmolStr, StaticPolicy, Template as Body, UnaryOp, Var,
    },
};
use dayfly_domain::{
    ClaimType, ClaimValue,
    bundle::{Issuer, Row, Template},
};

use super::names::{RUN, access, attribute, quoted};

/// The permit that decides.
// SECURITY: a value is data from its table to its comparison
// (t_176_a_row_with_any_value_matches_exactly_that_value).
pub(super) fn permit(template: &Template, row: &Row, issuer: &Issuer) -> Result<Cedar, PstConstructionError> {
    let principal = Arc::new(Expr::Var(Var::Principal));
    let record = get(&principal, &issuer.profile);
    let mut conditions = vec![binary(BinaryOp::Eq, get(&principal, "issuer"), string(&row.issuer))];
    if !row.untrusted {
        conditions.push(Arc::new(Expr::UnaryOp { op: UnaryOp::Not, expr: get(&principal, "untrusted") }));
    }
    conditions.push(has(&principal, &issuer.profile));
    for (name, values) in &row.claims {
        conditions.push(has(&record, name));
        conditions.push(wanted(get(&record, name), values, is_set(issuer, name)));
    }
    let all = conditions.into_iter().reduce(|left, right| binary(BinaryOp::And, left, right));
    let id = SmolStr::new(row.id.as_str());
    let body = Body::new(
        PolicyID(id.clone()),
        Effect::Permit,
        PrincipalConstraint::Is(TYPES.workload.clone()),
        ActionConstraint::Eq(EntityUID { ty: TYPES.action.clone(), eid: SmolStr::new(RUN) }),
        ResourceConstraint::Eq(EntityOrSlot::Entity(EntityUID {
            ty: TYPES.template.clone(),
            eid: SmolStr::new(template.name.as_str()),
        })),
    );
    let body = body.try_with_clauses(all.map(Clause::When))?.with_annotations([("id".to_owned(), id)].into());
    Cedar::from_pst(Policy::Static(StaticPolicy::try_from(body)?))
}

/// The text of the permit. Values are quoted; names were checked with the bundle.
pub(super) fn text(template: &Template, row: &Row, issuer: &Issuer) -> String {
    let record = format!("principal{}", access(&issuer.profile));
    let mut first = vec![format!("principal.issuer == {}", quoted(&row.issuer))];
    if !row.untrusted {
        first.push("!principal.untrusted".into());
    }
    first.push(format!("principal has {}", attribute(&issuer.profile)));
    let claims = row.claims.iter().map(|(name, values)| claim(&record, name, values, is_set(issuer, name)));
    let lines: Vec<String> = [first.join(" && ")].into_iter().chain(claims).collect();
    format!(
        "@id({})\npermit (principal is Dayfly::Workload, action == Dayfly::Action::\"run\", resource == Dayfly::Template::{})\nwhen {{ {} }};\n",
        quoted(&row.id),
        quoted(&template.name),
        lines.join(" &&\n       "),
    )
}

/// What a permit looks like whatever its values are: of all that look alike, one is validated.
pub(super) fn form(row: &Row, issuer: &Issuer) -> String {
    let claims = row.claims.iter().map(|(name, values)| {
        let kind = issuer.claims.get(name).map(|rule| rule.kind);
        format!("{name} {kind:?} {}", values.len().min(2))
    });
    // Cedar looks into strings for letters that change how a text reads.
    let plain = |value: &ClaimValue| matches!(value, ClaimValue::String(text) if text.is_ascii());
    let strange = row.claims.values().flatten().any(|value| matches!(value, ClaimValue::String(_)) && !plain(value));
    let own = if strange { row.id.as_str() } else { "" };
    format!("{} {} {own} {}", issuer.profile, row.untrusted, claims.collect::<Vec<_>>().join(","))
}

pub(super) fn is_set(issuer: &Issuer, claim: &str) -> bool {
    issuer.claims.get(claim).is_some_and(|rule| rule.kind == ClaimType::Set)
}

struct Types {
    workload: EntityType,
    action: EntityType,
    template: EntityType,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let name = |kind| CedarName::qualified(["Dayfly"], kind).expect("a type of ours is a Cedar name");
    let [workload, action, template] = ["Workload", "Action", "Template"].map(|kind| EntityType(name(kind)));
    Types { workload, action, template }
});

fn get(of: &Arc<Expr>, attribute: &str) -> Arc<Expr> {
    Arc::new(Expr::GetAttr { expr: of.clone(), attr: SmolStr::new(attribute) })
}

fn has(record: &Arc<Expr>, attribute: &str) -> Arc<Expr> {
    Arc::new(Expr::HasAttr { expr: record.clone(), attrs: NonEmpty::new(SmolStr::new(attribute)) })
}

fn binary(op: BinaryOp, left: Arc<Expr>, right: Arc<Expr>) -> Arc<Expr> {
    Arc::new(Expr::BinaryOp { op, left, right })
}

fn string(text: &str) -> Arc<Expr> {
    Arc::new(Expr::Literal(Literal::String(SmolStr::new(text))))
}

fn wanted(seen: Arc<Expr>, values: &[ClaimValue], is_set: bool) -> Arc<Expr> {
    let literals: Vec<_> = values.iter().map(constant).collect();
    match (literals.as_slice(), is_set) {
        ([one], false) => binary(BinaryOp::Eq, seen, one.clone()),
        ([one], true) => binary(BinaryOp::Contains, seen, one.clone()),
        (_, false) => binary(BinaryOp::Contains, Arc::new(Expr::Set(literals)), seen),
        (_, true) => binary(BinaryOp::ContainsAny, seen, Arc::new(Expr::Set(literals))),
    }
}

fn constant(value: &ClaimValue) -> Arc<Expr> {
    match value {
        ClaimValue::Bool(value) => Arc::new(Expr::Literal(Literal::Bool(*value))),
        ClaimValue::Long(value) => Arc::new(Expr::Literal(Literal::Long(*value))),
        ClaimValue::String(value) => string(value),
        ClaimValue::Set(values) => Arc::new(Expr::Set(values.iter().map(|value| string(value)).collect())),
    }
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
