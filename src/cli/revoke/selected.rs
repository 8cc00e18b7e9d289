//! `dayfly revoke --where`: everything that matches, whatever the number. What would end is shown and
//! counted before anybody is asked; what the broker then finds must be that number.

use dayfly_domain::{Selector, SelectorError, UnixMs};

use crate::{
    cli::{
        api::Api,
        args::{Output, RevokeArgs},
        failure::Failure,
        print::{self, Shown, text},
        session::Session,
        table::{Table, escape, quoted},
    },
    http::shapes::{EndRequest, EndedBySelector},
};

const FAILED: &str = "nothing was ended";

pub async fn run(args: &RevokeArgs, typed: &str, api: &Api, session: &Session) -> Result<(), Failure> {
    let selector: Selector = typed.parse().map_err(|error| not_understood(typed, &error))?;
    let ask = EndRequest {
        filter: selector.clone().into(),
        reason: args.reason.clone(),
        dry_run: Some(args.dry_run),
        expected_count: args.confirm,
        block: Some(!args.no_block),
    };
    if args.confirm.is_some() {
        return end(&ask, &selector, args, api, session).await;
    }
    let would = api.end(&EndRequest { dry_run: Some(true), ..ask.clone() }).await;
    let would = would.map_err(|error| error.failure(FAILED))?;
    if args.dry_run {
        session.screen.say(&format!("would end {}; {FAILED}", counted(&would)));
        return session.screen.data(&shown(&would, session.output));
    }
    agreed(&would, &selector, args, session)?;
    end(&EndRequest { expected_count: Some(would.count), ..ask }, &selector, args, api, session).await
}

async fn end(
    ask: &EndRequest,
    selector: &Selector,
    args: &RevokeArgs,
    api: &Api,
    session: &Session,
) -> Result<(), Failure> {
    let began = session.clock.read().boot_ms;
    let ended = api.end(ask).await.map_err(|error| match error.reason() {
        Some(dayfly_domain::Reason::Count) => {
            error.failure(FAILED).help(format!("look again:  {} --dry-run", command(selector, args)))
        }
        _ => error.failure("the end is not acknowledged"),
    })?;
    let took_ms = (session.clock.read().boot_ms - began).max(0);
    told(&ended, selector, took_ms, session);
    session.screen.data(&known(&ended, session.output))
}

/// Without a terminal nobody can say a number, and silence is none.
// SECURITY: `nothing_ends_in_bulk_without_its_number`
fn agreed(would: &EndedBySelector, selector: &Selector, args: &RevokeArgs, session: &Session) -> Result<(), Failure> {
    if session.no_input {
        let again = format!("{} --confirm {}", command(selector, args), would.count);
        return Err(Failure::usage(format!("{FAILED}: there is no terminal to ask at"))
            .because(format!("{} would end", counted(would)))
            .help(again));
    }
    session.screen.show(&shown(would, Output::Table));
    let and = if args.no_block { "" } else { " and block the same until it is lifted" };
    let question = format!("end {}{and}? type {} to do it:", counted(would), would.count);
    match session.screen.ask(&question).as_deref() {
        Some(answer) if answer == would.count.to_string() => Ok(()),
        _ => Err(Failure::failed(format!("{FAILED}: the answer was not {}", would.count))),
    }
}

/// The same again, for a shell.
fn command(selector: &Selector, args: &RevokeArgs) -> String {
    let reason = args.reason.as_ref().map(|reason| format!(" --reason {}", quoted(reason))).unwrap_or_default();
    let no_block = if args.no_block { " --no-block" } else { "" };
    format!("dayfly revoke --where {}{reason}{no_block}{}", quoted(&selector.to_string()), args.door.typed())
}

fn told(ended: &EndedBySelector, selector: &Selector, took_ms: i64, session: &Session) {
    session.screen.say(&format!("ended {} in {took_ms} ms", counted(ended)));
    for (target, at) in last(ended) {
        session.screen.say(&format!("worst case a revoked credential is still honoured: {target} until {at}"));
    }
    if let Some(block) = ended.block {
        session.screen.say(&format!("blocked: {selector} until lifted (dayfly block lift {block})"));
    }
}

/// The targets whose servers learn last.
fn last(ended: &EndedBySelector) -> impl Iterator<Item = (&String, &UnixMs)> {
    let latest = ended.worst_case.values().max().copied();
    ended.worst_case.iter().filter(move |(_, at)| Some(**at) == latest).take(1)
}

fn counted(ended: &EndedBySelector) -> String {
    let many = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    format!("{} of {}", many(ended.count, "lease"), many(ended.tasks_ended, "task"))
}

/// Some of what would end.
fn shown(would: &EndedBySelector, output: Output) -> String {
    match output {
        Output::Table if would.count > would.sample.len() as u64 => {
            let more = would.count - would.sample.len() as u64;
            format!("{}... and {more} more\n", print::list(&would.sample, output))
        }
        Output::Table => print::list(&would.sample, output),
        Output::Json | Output::Jsonl => print::one(would, output),
        Output::Name => print::list(&would.sample, output),
    }
}

/// What every channel knows, and until when each target's servers may honour it.
fn known(ended: &EndedBySelector, output: Output) -> String {
    if output != Output::Table {
        return print::one(ended, output);
    }
    let mut channels = Table::new(&["channel", "knows", "honoured until at worst"]);
    for known in &ended.revocation {
        let knows = if known.known { "at once" } else { "not yet" };
        channels.row(&[known.channel.as_str(), knows, &known.worst_case_at.to_string()]);
    }
    let mut targets = Table::new(&["target", "honoured until at worst"]);
    ended.worst_case.iter().for_each(|(target, at)| targets.row(&[target.as_str(), &at.to_string()]));
    match ended.worst_case.is_empty() {
        true => String::new(),
        false => format!("{}\n{}", channels.render(), targets.render()),
    }
}

/// The text, and below it where it stops to be understood.
fn not_understood(typed: &str, error: &SelectorError) -> Failure {
    let failure = Failure::usage(format!("`--where` is not understood: {error}"));
    let failure = match error {
        SelectorError::Form(at, _) => {
            let before = typed.get(..*at).map_or(0, |before| escape(before).chars().count());
            failure.because(typed).because(format!("{}^", " ".repeat(before)))
        }
        SelectorError::Empty | SelectorError::Twice(_) | SelectorError::Long => failure,
    };
    failure.help(r#"dayfly revoke --where 'owner == "team-shop" && repository_id == "88120"' --dry-run"#)
}

impl Shown for EndedBySelector {
    const HEAD: &'static [&'static str] = &["id", "state", "leases", "tasks", "block"];

    fn id(&self) -> String {
        text(self.id.as_ref())
    }

    fn cells(&self) -> Vec<String> {
        let state = text(self.state.as_ref());
        vec![self.id(), state, self.count.to_string(), self.tasks_ended.to_string(), text(self.block.as_ref())]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEAD.iter().copied().zip(self.cells()).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::{api::script::Script, samples, session::test_session};

    const WHERE: &str = r#"repository_id=="88120"&&owner == "team's""#;

    fn answer(id: Option<&str>, count: u64) -> String {
        json!({
            "id": id, "cause": "revoked", "count": count, "tasks_ended": 37, "new": 1,
            "state": id.map(|_| "ended"), "block": id.map(|_| "blk_00000000010000000000000000"),
            "sample": [samples::lease(1), samples::lease(2)],
            "revocation": [{ "channel": "introspection", "known": true, "worst_case_at": "2026-11-22T05:01:30Z" }],
            "worst_case": { "shop-production": "2026-11-22T05:01:30Z", "wiki": "2026-11-22T05:00:10Z" },
        })
        .to_string()
    }

    const EVENT: Option<&str> = Some("evt_00000000010000000000000000");

    fn args(confirm: Option<u64>, dry_run: bool) -> RevokeArgs {
        let reason = Some("vendor off-boarded".to_owned());
        let selector = Some(WHERE.to_owned());
        RevokeArgs { id: None, selector, reason, block: false, no_block: false, dry_run, confirm, door: <_>::default() }
    }

    fn body(line: &str) -> Value {
        serde_json::from_str(line.strip_prefix("POST /v1/end ").unwrap()).unwrap()
    }

    #[tokio::test]
    async fn nothing_ends_in_bulk_without_its_number() {
        let script = Script::default().ok(&answer(None, 412));
        let failure = run(&args(None, false), WHERE, &script.api(None), &test_session()).await.unwrap_err();
        assert_eq!(failure.exit(), 2);
        assert_eq!(
            failure.parts().help.as_deref(),
            Some(
                r#"dayfly revoke --where 'owner == "team'"'"'s" && repository_id == "88120"' --reason 'vendor off-boarded' --confirm 412"#
            )
        );
        let seen = script.seen();
        assert_eq!(seen.len(), 1);
        let filter = json!({ "owner": "team's", "claims": { "repository_id": "88120" } });
        assert_eq!((&body(&seen[0])["dry_run"], &body(&seen[0])["filter"]), (&json!(true), &filter));
    }

    #[tokio::test]
    async fn a_confirmed_number_is_what_the_broker_must_find() {
        let script = Script::default().ok(&answer(EVENT, 412));
        run(&args(Some(412), false), WHERE, &script.api(None), &test_session()).await.unwrap();
        let body = body(&script.seen()[0]);
        assert_eq!(
            (&body["expected_count"], &body["dry_run"], &body["block"]),
            (&json!(412), &json!(false), &json!(true))
        );
        let script = Script::default().refuse(409, "E-COUNT");
        let failure = run(&args(Some(411), false), WHERE, &script.api(None), &test_session()).await.unwrap_err();
        assert_eq!(failure.exit(), 1);
        assert!(failure.parts().help.as_ref().unwrap().ends_with("--dry-run"));
    }

    #[tokio::test]
    async fn a_dry_run_ends_nothing() {
        let script = Script::default().ok(&answer(None, 2));
        run(&args(None, true), WHERE, &script.api(None), &test_session()).await.unwrap();
        assert!(script.seen().iter().all(|line| body(line)["dry_run"] == true));
    }

    #[tokio::test]
    async fn what_is_not_understood_is_shown_where_it_is_and_never_sent() {
        let script = Script::default();
        let wrong = r#"owner == "x" || row == "y""#;
        let failure = run(&args(None, false), wrong, &script.api(None), &test_session()).await.unwrap_err();
        assert_eq!(failure.exit(), 2);
        assert_eq!(failure.parts().causes, [wrong, "             ^"]);
        for bad in ["", "owner", "owner == \"x\" && owner == \"y\"", "owner == \"\u{1b}[2J"] {
            assert_eq!(run(&args(None, true), bad, &script.api(None), &test_session()).await.unwrap_err().exit(), 2);
        }
        assert!(script.seen().is_empty());
    }

    #[test]
    fn what_ended_is_told_with_the_worst_case_of_each_target() {
        let ended: EndedBySelector = serde_json::from_str(&answer(EVENT, 412)).unwrap();
        insta::assert_snapshot!(known(&ended, Output::Table), @r"
        CHANNEL        KNOWS    HONOURED UNTIL AT WORST
        introspection  at once  2026-11-22T05:01:30Z

        TARGET           HONOURED UNTIL AT WORST
        shop-production  2026-11-22T05:01:30Z
        wiki             2026-11-22T05:00:10Z
        ");
        assert_eq!(last(&ended).map(|(target, _)| target.as_str()).collect::<Vec<_>>(), ["shop-production"]);
        assert_eq!(counted(&ended), "412 leases of 37 tasks");
        assert!(shown(&ended, Output::Table).ends_with("... and 410 more\n"));
        assert!(known(&ended, Output::Json).contains(r#""schema_version":1"#));
    }
}
