//! `dayfly explain`: why a decision came out as it did, asked of a broker or of a bundle alone; and who
//! this job is. An explanation of a refusal is a success.

mod show;

use std::{io::Read, path::Path};

use dayfly_domain::{Name, Secret};
use serde_json::{Map, Value, json};

use super::{
    args::{ExplainArgs, Explained as Asked},
    door::{Door, Way, secret_file, secret_text},
    failure::{Exit, Failure},
    identity::{self, Machine, Probed, Surroundings},
    policy,
    session::Session,
    token,
};
use crate::{
    config::REVIEW_GRACE,
    flow::{
        BundleSource, Loaded,
        explain::{self, Trial},
    },
    http::shapes::Explanation,
    policy::What,
    sys::files,
};

/// Said wherever a token is explained without a broker.
const UNSIGNED: &str = "the token's signature was NOT checked: anybody can have written it";

/// Of a refusal that is not in the ledger, or not yet.
pub const COLLAPSED: &str = "a refusal that repeats within a minute is written when the minute is over: try again then";

const CLAIMS_MAX_BYTES: u64 = 64 << 10;

pub async fn run(args: &ExplainArgs, session: &Session) -> Result<(), Failure> {
    let explanation = match (args.id, &args.claims, &args.evidence_file) {
        (Some(id), _, _) => recorded(id, args, session).await?,
        (None, Some(file), _) => of_claims(claims(file)?, args, session).await?,
        (None, None, Some(file)) => of_token(&token_in(file)?, args, session).await?,
        (None, None, None) => return here(args, session).await,
    };
    session.screen.data(&show::explanation(&explanation, session.output, session.screen.paints()))
}

async fn recorded(id: Asked, args: &ExplainArgs, session: &Session) -> Result<Explanation, Failure> {
    let (name, id) = match id {
        Asked::Event(id) => ("event", id.to_string()),
        Asked::Lease(id) => ("lease", id.to_string()),
    };
    simulate(Map::from_iter([(name.to_owned(), json!(id))]), args, session).await
}

async fn of_claims(claims: Map<String, Value>, args: &ExplainArgs, session: &Session) -> Result<Explanation, Failure> {
    let Some(dir) = &args.policies else {
        let mut body = ask(args, session)?;
        body.extend(args.issuer.as_ref().map(|issuer| ("issuer".to_owned(), json!(issuer.as_str()))));
        body.insert("claims".to_owned(), Value::Object(claims));
        return simulate(body, args, session).await;
    };
    let (policy, _) = loaded(dir, args, session)?;
    let explained = explain::of_claims(&policy, args.issuer.as_deref(), &claims, &trial(args, session)?);
    Ok(explained.into())
}

async fn of_token(token: &Secret<String>, args: &ExplainArgs, session: &Session) -> Result<Explanation, Failure> {
    let Some(dir) = &args.policies else {
        let mut body = ask(args, session)?;
        body.insert("evidence".to_owned(), json!(token.expose()));
        return simulate(body, args, session).await;
    };
    let (policy, issuer) = loaded(dir, args, session)?;
    session.screen.warn(UNSIGNED);
    let now = session.clock.wall();
    let mut explained = explain::of_unverified(&policy, token.expose(), &issuer, now, &trial(args, session)?);
    explained.notes.push(UNSIGNED.to_owned());
    if issuer == policy::NOBODY {
        explained
            .notes
            .push("the broker's URL is not known here, so the audience means nothing: name it with --addr".to_owned());
    }
    Ok(explained.into())
}

/// Nothing was named: who this job is, and what policy would say to it.
async fn here(args: &ExplainArgs, session: &Session) -> Result<(), Failure> {
    let door = Door::find(&args.door, &session.vars);
    let audience = door.as_ref().ok().and_then(|door| match &door.way {
        Way::Remote(addr) => Some(addr.as_str()),
        Way::Socket(_) => None,
    });
    let machine = Machine::this();
    let around = Surroundings { vars: &session.vars, machine: &machine, audience };
    let probed = identity::probes(None, &around);
    let found = identity::find(None, &around);
    let unusable = found.as_ref().err().cloned();
    let explanation = match (found, task(args, session)?) {
        (Ok(source), Some(_)) => Some(of_source(source, door, args, session).await?),
        (Ok(_), None) if args.policies.is_some() => return Err(no_task()),
        _ => None,
    };
    let shown = show::here(&probed, explanation.as_ref(), session.output, session.screen.paints());
    session.screen.data(&shown)?;
    if let Some(said) = next(&probed, explanation.is_some(), unusable.as_ref()) {
        session.screen.say(&said);
    }
    Ok(())
}

async fn of_source(
    source: identity::Source,
    door: Result<Door, Failure>,
    args: &ExplainArgs,
    session: &Session,
) -> Result<Explanation, Failure> {
    let evidence = if source.wants_audience() {
        let door = door?;
        let api = door.api(&session.vars, None)?;
        token::fetched(source, &door, &api, session).await?
    } else {
        source.read()?
    };
    of_token(&evidence.token, args, session).await
}

/// Of a platform that gives no token: what `dayfly token` says, with the lines to paste.
fn next(probed: &[Probed], explained: bool, unusable: Option<&Failure>) -> Option<String> {
    if !probed.iter().any(|probed| probed.fired) {
        let nothing = "nothing here says who is asking; give the platform's identity token: --evidence-file FILE";
        return Some(nothing.to_owned());
    }
    match unusable {
        Some(failure) => Some(failure.text("there is no token to put to policy").trim_end().to_owned()),
        None => (!explained).then(|| "add --task NAME to see what policy says to it".to_owned()),
    }
}

async fn simulate(body: Map<String, Value>, args: &ExplainArgs, session: &Session) -> Result<Explanation, Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let explained = api.simulate(body).await;
    explained.map_err(|error| {
        let failure = error.failure("it cannot be explained");
        match error.reason() {
            Some(dayfly_domain::Reason::Scope) => {
                failure.help("the token needs `broker:operate` (and to read the record `ledger:read`, `leases:read`)")
            }
            Some(dayfly_domain::Reason::NotFound) => failure.help(COLLAPSED),
            _ => failure,
        }
    })
}

/// The ask as `/v1/simulate` takes it.
fn ask(args: &ExplainArgs, session: &Session) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    body.insert("template".to_owned(), json!(task(args, session)?.ok_or_else(no_task)?.as_str()));
    body.extend(args.target.as_ref().map(|target| ("resource".to_owned(), json!(target))));
    body.extend(args.ttl.map(|ttl| ("ttl".to_owned(), json!(ttl.as_s()))));
    body.extend(args.binding.map(|binding| ("binding".to_owned(), json!(binding.as_str()))));
    if !args.actions.is_empty() {
        body.insert("actions".to_owned(), json!(args.actions));
    }
    Ok(body)
}

/// The same for a bundle alone.
fn trial(args: &ExplainArgs, session: &Session) -> Result<Trial, Failure> {
    let mut ask = explain::whole_ask(task(args, session)?.ok_or_else(no_task)?.as_str());
    if let What::Credential { resource, actions, .. } = &mut ask.what {
        resource.clone_from(&args.target);
        *actions = Some(args.actions.clone()).filter(|actions| !actions.is_empty());
    }
    ask.ttl_s = args.ttl.map(|ttl| ttl.as_s());
    Ok(Trial { ask, binding: args.binding, age_s: 0, held: Vec::new() })
}

fn task(args: &ExplainArgs, session: &Session) -> Result<Option<Name>, Failure> {
    let from_vars = || session.vars.get("DAYFLY_TASK").map(|text| text.parse::<Name>());
    let named = args.task.clone().map(Ok).or_else(from_vars).transpose();
    named.map_err(|error| Failure::usage("`DAYFLY_TASK` names no template").because(error))
}

fn no_task() -> Failure {
    Failure::usage("no task is named, so there is nothing to put to policy").help("add --task NAME, or set DAYFLY_TASK")
}

/// A bundle without a broker, and whose it is taken to be.
fn loaded(dir: &Path, args: &ExplainArgs, session: &Session) -> Result<(crate::policy::Policy, String), Failure> {
    let mut folder = policy::folder(Some(&dir.to_owned()), session)?;
    if let Some(addr) = args.door.addr.clone().or_else(|| session.vars.get("DAYFLY_ADDR")) {
        addr.trim_end_matches('/').clone_into(&mut folder.env.issuer_url);
    }
    let Loaded { policy, .. } = folder.load().map_err(|problems| policy::refused(&folder, &problems))?;
    policy.lapse(session.clock.wall(), REVIEW_GRACE);
    Ok((policy, folder.env.issuer_url))
}

fn token_in(file: &Path) -> Result<Secret<String>, Failure> {
    if file == Path::new("-") {
        return secret_text(stdin()?, "stdin");
    }
    secret_file(file, "the evidence file")
}

fn claims(file: &Path) -> Result<Map<String, Value>, Failure> {
    let shown = if file == Path::new("-") { "stdin".to_owned() } else { format!("`{}`", file.display()) };
    let bytes = match file == Path::new("-") {
        true => stdin()?,
        false => files::read_capped(file)
            .map_err(|error| Failure::usage(format!("the claims {shown} cannot be read")).because(error))?,
    };
    // The parser's own words may quote what it read.
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = format!("the claims in {shown} are no JSON object, at line {line} column {column}");
        Failure::new(Exit::Usage, what)
            .help("a token's payload, as in {\"sub\": \"...\"}; a whole token goes to --evidence-file")
    })
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(CLAIMS_MAX_BYTES).read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed("stdin cannot be read").because(error))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
