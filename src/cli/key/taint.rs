//! `dayfly key taint`: a key that somebody else may have leaves for ever. First what would happen is shown;
//! then somebody says yes; then until when whoever has the key is believed.

use dayfly_domain::UnixMs;

use crate::{
    cli::{
        api::Api,
        args::{KeyTaintArgs, Output},
        door::Door,
        failure::Failure,
        print::{self, Shown, text},
        session::Session,
        table::{Table, quoted},
    },
    http::shapes::{KeyState, KeyTaint},
};

pub async fn run(args: &KeyTaintArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    taint(args, &api, session).await
}

async fn taint(args: &KeyTaintArgs, api: &Api, session: &Session) -> Result<(), Failure> {
    let KeyTaintArgs { kid, reason, confirm, dry_run, .. } = args;
    let failed = "the key could not be tainted";
    if *dry_run || !confirm {
        let would = api.taint_key(kid, reason, true).await.map_err(|error| error.failure(failed))?;
        if *dry_run {
            return would_be(&would, session);
        }
        // Tainted already: to ask for that again harms nobody.
        if would.state != KeyState::Tainted {
            agreed(&would, args, session)?;
        }
    }
    let done = api.taint_key(kid, reason, false).await.map_err(|error| error.failure(failed))?;
    show(&done, session)
}

fn would_be(would: &KeyTaint, session: &Session) -> Result<(), Failure> {
    session.screen.say(&match would.state {
        KeyState::Tainted => format!("{} is tainted already; nothing would happen", would.kid),
        _ => format!("would taint {} ({}); nothing was done", would.kid, word(would.was)),
    });
    session.screen.data(&data(would, session.output))
}

/// Without a terminal nobody can say yes, and silence is none.
// SECURITY: `no_key_is_tainted_without_a_yes`
fn agreed(would: &KeyTaint, args: &KeyTaintArgs, session: &Session) -> Result<(), Failure> {
    let what = format!("this takes {} out for ever and ends {} live leases", would.kid, would.leases_ended);
    if session.no_input {
        let (kid, reason, door) = (&would.kid, quoted(&args.reason), args.door.typed());
        let again = format!("dayfly key taint {kid} --reason {reason} --confirm{door}");
        return Err(Failure::usage("nothing was tainted: there is no terminal to ask at").because(what).help(again));
    }
    session.screen.show(&data(would, Output::Table));
    match session.screen.confirm(&format!("{what}; taint it?")) {
        true => Ok(()),
        false => Err(Failure::failed("nothing was tainted: the answer was not yes")),
    }
}

fn show(done: &KeyTaint, session: &Session) -> Result<(), Failure> {
    let leases = if done.leases_ended == 1 { "lease" } else { "leases" };
    session.screen.say(&format!(
        "{} is tainted (it was {}) · {} {leases} ended",
        done.kid,
        word(done.was),
        done.leases_ended
    ));
    if let Some(signs) = &done.signs {
        session.screen.say(&format!("signs now: {signs}{}", not_yet_known(done.signs_known_at, session.clock.wall())));
    }
    session.screen.say("whoever has the key can forge credentials until the servers of a target stop believing it:");
    session.screen.data(&data(done, session.output))
}

fn not_yet_known(at: Option<UnixMs>, now: UnixMs) -> String {
    match at.filter(|at| *at > now) {
        Some(at) => format!(" (it is new: servers that keep the JWKS may refuse its tokens until {at})"),
        None => String::new(),
    }
}

fn data(taint: &KeyTaint, output: Output) -> String {
    if output != Output::Table {
        return print::one(taint, output);
    }
    let mut table = Table::new(&["target", "learns by", "believes the key until at worst"]);
    for bound in &taint.targets {
        table.row(&[bound.target.as_str(), bound.channel.as_str(), &bound.worst_case_at.to_string()]);
    }
    table.render()
}

pub fn word(state: KeyState) -> &'static str {
    match state {
        KeyState::Next => "next",
        KeyState::Active => "active",
        KeyState::Retired => "retired",
        KeyState::Tainted => "tainted",
    }
}

impl Shown for KeyTaint {
    const HEAD: &'static [&'static str] = &["kid", "state", "leases"];

    fn id(&self) -> String {
        self.kid.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.kid.clone(), word(self.state).to_owned(), self.leases_ended.to_string()]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("kid", self.kid.clone()),
            ("was", word(self.was).to_owned()),
            ("leases ended", self.leases_ended.to_string()),
            ("signs now", text(self.signs.as_ref())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, session::test_session};

    fn answer(state: &str, dry_run: bool) -> String {
        serde_json::json!({
            "kid": "k-1", "state": state, "was": "active", "dry_run": dry_run, "tainted_at": "2026-11-22T05:00:00Z",
            "leases_ended": 412, "signs": "k-2", "signs_known_at": "2026-11-22T05:05:00Z", "jwks_max_age_s": 300,
            "targets": [
                { "target": "shop-production", "channel": "introspection", "known": true, "worst_case_at": "2026-11-22T05:00:40Z" },
                { "target": "wiki\u{1b}[2J", "channel": "jwks", "known": true, "worst_case_at": "2026-11-22T05:05:40Z" },
            ],
            "revocation": [], "new": 1,
        })
        .to_string()
    }

    fn args(confirm: bool, dry_run: bool) -> KeyTaintArgs {
        let reason = "it's in a log".to_owned();
        KeyTaintArgs { kid: "k-1".to_owned(), reason, confirm, dry_run, door: <_>::default() }
    }

    #[tokio::test]
    async fn no_key_is_tainted_without_a_yes() {
        let script = Script::default().ok(&answer("active", true));
        let failure = taint(&args(false, false), &script.api(None), &test_session()).await.unwrap_err();
        assert_eq!(failure.exit(), 2);
        assert_eq!(
            failure.parts().help.as_deref(),
            Some(r#"dayfly key taint k-1 --reason 'it'"'"'s in a log' --confirm"#)
        );
        assert_eq!(script.seen(), [r#"POST /v1/keys/k-1/taint {"reason":"it's in a log","dry_run":true}"#]);
    }

    #[tokio::test]
    async fn a_dry_run_does_nothing_and_a_yes_asks_once() {
        let script = Script::default().ok(&answer("active", true)).ok(&answer("tainted", false));
        taint(&args(true, true), &script.api(None), &test_session()).await.unwrap();
        taint(&args(true, false), &script.api(None), &test_session()).await.unwrap();
        let dry: Vec<_> = script.seen().iter().map(|line| line.contains(r#""dry_run":true"#)).collect();
        assert_eq!(dry, [true, false]);
    }

    #[tokio::test]
    async fn a_key_that_nobody_knows_is_exit_3() {
        let script = Script::default().refuse(404, "E-NOT-FOUND");
        let failure = taint(&args(true, false), &script.api(None), &test_session()).await.unwrap_err();
        assert_eq!(failure.exit(), 3);
    }

    #[test]
    fn every_target_says_until_when_the_key_is_believed() {
        let taint: KeyTaint = serde_json::from_str(&answer("tainted", false)).unwrap();
        insta::assert_snapshot!(data(&taint, Output::Table), @r"
        TARGET           LEARNS BY      BELIEVES THE KEY UNTIL AT WORST
        shop-production  introspection  2026-11-22T05:00:40Z
        wiki\u{1b}[2J    jwks           2026-11-22T05:05:40Z
        ");
        assert_eq!(data(&taint, Output::Name), "k-1\n");
        assert!(data(&taint, Output::Json).contains(r#""schema_version":1"#));
        let known = UnixMs::parse("2026-11-22T05:05:00Z").unwrap();
        assert!(not_yet_known(Some(known), known.plus_s(-1)).contains("until 2026-11-22T05:05:00Z"));
        assert_eq!(not_yet_known(Some(known), known), "");
    }
}
