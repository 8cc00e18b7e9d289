//! `dayfly trust add`: one more workload for a template, in one command. In: a platform's name and ids,
//! or a refusal. Out: a row with its tests in the file that has the template, shown as a diff and written
//! after a yes. The broker is told nothing: what it loads, and when, stays with whoever runs it.

mod cases;
mod edit;
mod facts;
mod proposal;
mod provider;
mod row;

use dayfly_domain::{UnixMs, bundle::Lint};
use serde_json::json;
use similar::TextDiff;

use super::{
    args::{Output, TrustAddArgs},
    failure::Failure,
    policy,
    print::document,
    serve,
    session::Session,
};
use crate::sys::files;
use proposal::{Bundled, Proposal, propose};
pub use provider::PROVIDERS;

pub async fn add(args: &TrustAddArgs, session: &Session) -> Result<(), Failure> {
    serve::own_crypto()?;
    review_by(args, session.clock.wall())?;
    let bundled = Bundled::read(policy::folder(args.policies.as_ref(), session)?)?;
    let facts = facts::gather(args, bundled.bundle(), session).await?;
    let proposal = propose(&bundled, &facts, args)?;
    let path = bundled.folder.path.join(&proposal.path);
    let shown = path.display().to_string();
    examples(&facts).iter().for_each(|said| session.screen.warn(said));
    warn(&proposal, session);
    let told = told(&proposal, &shown);
    match diff_to(args, session) {
        Some(Stream::Stdout) => session.screen.data(&told)?,
        Some(Stream::Stderr) => session.screen.show(&told),
        None => {}
    }
    let written = agreed(args, session, &shown)?;
    if written {
        let failed =
            |error| Failure::failed(format!("`{shown}` cannot be written; nothing was changed")).because(error);
        files::rewrite(&path, proposal.before.as_bytes(), proposal.after.as_bytes()).map_err(failed)?;
        next(&proposal, &shown, args, session);
    }
    match session.output {
        Output::Table => Ok(()),
        Output::Name => session.screen.data(&format!("{}\n", proposal.row)),
        Output::Json | Output::Jsonl => session.screen.data(&as_json(&proposal, &shown, &told, written)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// Where the diff is shown before anything is written: nobody is asked about what they did not see.
// SECURITY: `whoever_is_asked_has_seen_the_diff`
fn diff_to(args: &TrustAddArgs, session: &Session) -> Option<Stream> {
    let asks = !args.dry_run && !args.yes && !session.no_input;
    match session.output {
        Output::Table => Some(Stream::Stdout),
        _ => asks.then_some(Stream::Stderr),
    }
}

/// Whether to write. Without a terminal nobody can say yes, and silence is none.
// SECURITY: `nothing_is_written_without_a_yes`
fn agreed(args: &TrustAddArgs, session: &Session, path: &str) -> Result<bool, Failure> {
    match (args.dry_run, args.yes, session.no_input) {
        (true, ..) => Ok(false),
        (false, true, _) => Ok(true),
        (false, false, true) => Err(Failure::usage("nothing was changed: there is no terminal to ask at")
            .help("look at the diff, then the same again with `--yes`; `--dry-run` only shows it")),
        (false, false, false) => match session.screen.confirm(&format!("write this to `{path}`?")) {
            true => Ok(true),
            false => Err(Failure::failed("nothing was changed: the answer was not yes")),
        },
    }
}

fn review_by(args: &TrustAddArgs, now: UnixMs) -> Result<(), Failure> {
    let Some(text) = &args.review_by else { return Ok(()) };
    let date = text.parse::<toml::value::Datetime>().ok().filter(|date| date.time.is_none() && date.offset.is_none());
    match date {
        // Dates are written so that their text sorts as they do.
        Some(date) if date.to_string().as_str() < now.to_string().get(..10).unwrap_or_default() => {
            Err(Failure::usage(format!("`--review-by` is `{text}`, which is past"))
                .help("a row that nobody is to look at again permits nothing once its grace is over"))
        }
        Some(_) => Ok(()),
        None => {
            Err(Failure::usage(format!("`--review-by` is `{text}`, which is not a date"))
                .help("write it as 2027-06-30"))
        }
    }
}

fn warn(proposal: &Proposal, session: &Session) {
    let Proposal { task, row, left_out, lints, wide, tests, .. } = proposal;
    lints.iter().for_each(|lint: &Lint| session.screen.warn(&lint.to_string()));
    if *wide {
        let narrow = "narrow it with `--ref refs/heads/main` or `--environment NAME`";
        session.screen.warn(&format!("row `{row}` lets every branch of the workload run `{task}`: {narrow}"));
    }
    for test in left_out {
        session.screen.warn(&format!("no test `{test}`: another row of `{task}` lets it in"));
    }
    let denials = tests.len().saturating_sub(2);
    if denials < cases::DENIALS {
        session.screen.warn(&format!("only {denials} denials could be made for row `{row}`"));
    }
}

/// The diff, with the names of the file before and after.
fn told(proposal: &Proposal, path: &str) -> String {
    let diff = TextDiff::from_lines(&proposal.before, &proposal.after);
    let diff = diff.unified_diff().header(path, path).to_string();
    diff.split_inclusive('\n').map(shown).collect()
}

/// A line of the diff, safe for the terminal whatever the bundle holds.
fn shown(line: &str) -> String {
    let text = line.trim_end_matches(['\r', '\n']);
    let odd = |letter: char| {
        letter != '\t' && (letter.is_control() || (!letter.is_ascii() && letter.escape_debug().len() > 1))
    };
    let mut out = String::with_capacity(text.len() + 1);
    for letter in text.chars() {
        if odd(letter) { out.extend(letter.escape_debug()) } else { out.push(letter) }
    }
    out + "\n"
}

fn next(proposal: &Proposal, path: &str, args: &TrustAddArgs, session: &Session) {
    let Proposal { task, row, issuer, issuer_is_new, tests, .. } = proposal;
    let made = if *issuer_is_new { format!(", issuer `{issuer}`") } else { String::new() };
    let denials = tests.len().saturating_sub(2);
    session
        .screen
        .say(&format!("wrote `{path}`: row `{row}` of `{task}`{made}, 2 permits and {denials} denials as tests"));
    let policies = args.policies.as_ref().map(|dir| format!(" --policies {}", dir.display()));
    session.screen.say(&format!("look again:  dayfly policy check{}", policies.unwrap_or_default()));
    session.screen.say("load it:     kill -HUP of the broker (systemctl reload dayfly), or POST /v1/bundle/load");
    session.screen.say(&format!("in the job:  {}", in_the_job(proposal)));
}

fn in_the_job(proposal: &Proposal) -> String {
    let key = if proposal.bound { " --dpop-key key.pem" } else { "" };
    format!("dayfly token --task {} --out token{key}", proposal.task)
}

/// Ids such as the shipped examples have: no platform issues one that begins with 0.
fn examples(facts: &facts::Facts) -> Vec<String> {
    let is_example = |value: &str| value.starts_with('0') && value.bytes().all(|byte| byte.is_ascii_digit());
    let found = facts.ids.iter().filter(|(_, value)| is_example(value));
    found.map(|(claim, value)| format!("`{claim}` `{value}` is an example id, which no platform issues")).collect()
}

fn as_json(proposal: &Proposal, path: &str, diff: &str, written: bool) -> String {
    let Proposal { task, row, issuer, issuer_is_new, tests, left_out, lints, .. } = proposal;
    let lints: Vec<_> =
        lints.iter().map(|lint| json!({ "at": lint.at, "what": lint.what, "help": lint.help })).collect();
    document(json!({
        "schema_version": 1, "written": written, "file": path, "task": task, "row": row, "issuer": issuer,
        "issuer_added": issuer_is_new, "tests": tests, "tests_left_out": left_out, "lints": lints, "diff": diff,
    }))
}

#[cfg(test)]
mod tests;
