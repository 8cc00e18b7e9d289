//! What operators do to the broker itself, under `/v1`: load its bundle again, look at its keys and take one
//! out.

use axum::{extract::Request, http::request::Parts, response::Response};
use dayfly_domain::bundle::{Lint, Problem};

use super::{
    body,
    caller::caller,
    door::Context,
    ending, filters,
    refusal::ok,
    shapes::{BundleError, BundleLint, BundleLoad, Ca, CaTurned, Key, KeyState, KeyTaint, Known, List, TargetBound},
    views,
};
use crate::{
    flow::{
        CaTurn, Carries, Flow, NotLoaded, NotSwapped, Refused, Swapped, TaintAnswer, TargetKnown, bounds::PROBLEMS_MAX,
    },
    mint::{JWKS_MAX_AGE_S, KeyState as Held, KeyUse, KeyView, pki::CaView},
};

/// Of one text about a bundle: its author's names are in it, and they may be long.
pub const BUNDLE_TEXT_MAX_CHARS: usize = 500;

pub(super) async fn load(flow: &Flow, context: &Context, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    ending::nothing(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    match flow.operate_load(&caller).await? {
        Ok(swapped) => Ok(ok(&loaded(swapped))),
        Err(NotLoaded { why: NotSwapped::Bundle(problems), event }) => {
            let omitted = problems.len().saturating_sub(PROBLEMS_MAX) as u64;
            let errors = problems.into_iter().take(PROBLEMS_MAX).map(error).collect();
            Ok(context.refuse_bundle(errors, omitted, event))
        }
        Err(NotLoaded { why, event }) => {
            Err(Refused { hint: Some(why.to_string()), decision: event, ..why.reason().into() })
        }
    }
}

pub(super) async fn keys(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let items = flow.keys(&caller).await?.into_iter().map(key).collect();
    Ok(ok(&List { items, next_cursor: None }))
}

/// `GET /v1/pki`.
pub(super) async fn cas(flow: &Flow, parts: &Parts) -> Result<Response, Refused> {
    filters::none(parts.uri.query())?;
    let caller = caller(flow, parts).await?;
    let items = flow.cas(&caller).await?.into_iter().map(ca).collect();
    Ok(ok(&List { items, next_cursor: None }))
}

/// `POST /v1/pki/rotate`.
pub(super) async fn rotate(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    ending::nothing(&parts.headers, &bytes)?;
    let CaTurn { from, to } = flow.rotate_ca(&caller(flow, &parts).await?).await?;
    Ok(ok(&CaTurned { from, to }))
}

pub(super) async fn taint(flow: &Flow, request: Request) -> Result<Response, Refused> {
    let (parts, bytes) = body::read(request).await?;
    filters::none(parts.uri.query())?;
    let (reason, dry_run) = ending::taint(&parts.headers, &bytes)?;
    let caller = caller(flow, &parts).await?;
    // The last segment but one, as it was sent; what is no `kid` is one that nobody knows.
    let kid = parts.uri.path().split('/').nth(3).unwrap_or_default();
    Ok(ok(&tainted(flow.taint_key(&caller, kid, reason, dry_run).await?)))
}

fn tainted(answer: TaintAnswer) -> KeyTaint {
    let TaintAnswer { kid, was, dry_run, at, leases_ended, signs, signs_known_at, targets, channels } = answer;
    let bound = |TargetKnown { target, known }| {
        let Known { channel, known, worst_case_at } = views::known(known);
        TargetBound { target: target.to_string(), channel, known, worst_case_at }
    };
    KeyTaint {
        kid,
        state: state(if dry_run { was } else { Held::Tainted }),
        was: state(was),
        dry_run,
        tainted_at: at,
        leases_ended,
        signs,
        signs_known_at,
        jwks_max_age_s: JWKS_MAX_AGE_S.unsigned_abs(),
        targets: targets.into_iter().map(bound).collect(),
        revocation: channels.into_iter().map(views::known).collect(),
    }
}

fn loaded(swapped: Swapped) -> BundleLoad {
    let Swapped { from, to, rollback, ended, carries, lints } = swapped;
    let Carries { issuers, targets, templates, rows, tests } = carries;
    BundleLoad {
        from: from.map(|from| from.to_string()),
        to: to.to_string(),
        rollback,
        ended: ended as u64,
        issuers: issuers as u64,
        targets: targets as u64,
        templates: templates as u64,
        rows: rows as u64,
        tests_passed: tests as u64,
        lints: lints.into_iter().take(PROBLEMS_MAX).map(lint).collect(),
    }
}

fn error(problem: Problem) -> BundleError {
    let Problem { path, at, what, help } = problem;
    BundleError { path: cut(path), at: cut(at), what: cut(what), help: help.map(cut) }
}

fn lint(lint: Lint) -> BundleLint {
    let Lint { at, what, help } = lint;
    BundleLint { at: cut(at), what: cut(what), help: help.map(cut) }
}

/// The text, or as much of it as is told.
fn cut(text: String) -> String {
    match text.char_indices().nth(BUNDLE_TEXT_MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn key((what, key): (KeyUse, KeyView)) -> Key {
    let KeyView { kid, state: held, since, until } = key;
    let usage = match what {
        KeyUse::Tokens => "sig",
        KeyUse::Lists => "status_list",
    };
    Key { kid, usage: usage.to_owned(), alg: "ES256".to_owned(), state: state(held), since, until }
}

fn ca(ca: CaView) -> Ca {
    let CaView { id, tier, state: held, since, until } = ca;
    Ca { id: id.as_str().to_owned(), tier: tier.to_owned(), state: state(held), since, until }
}

fn state(state: Held) -> KeyState {
    match state {
        Held::Next => KeyState::Next,
        Held::Active => KeyState::Active,
        Held::Retired => KeyState::Retired,
        Held::Tainted => KeyState::Tainted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_in_a_bundle_does_not_make_a_long_answer() {
        let long = cut("é".repeat(BUNDLE_TEXT_MAX_CHARS + 1));
        assert_eq!(long.chars().count(), BUNDLE_TEXT_MAX_CHARS + 3);
        assert_eq!(cut("é".repeat(BUNDLE_TEXT_MAX_CHARS)).chars().count(), BUNDLE_TEXT_MAX_CHARS);
    }
}
