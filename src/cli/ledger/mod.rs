//! `dayfly ledger show|verify`: reading what happened, and proving that it was not changed.

mod verify;

use super::{
    args::LedgerShowArgs,
    door::Door,
    failure::Failure,
    print::{self, Shown, text},
    session::Session,
    task,
};
use crate::http::shapes::{Details, Event};

pub use verify::verify;

pub async fn show(args: &LedgerShowArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    if let Some(id) = args.id {
        let event = api.event(id).await.map_err(|error| error.failure("the event cannot be shown"))?;
        return session.screen.data(&print::one(&event, session.output));
    }
    let listed = api.events(&filter(args, session), args.limit as usize).await;
    let listed = listed.map_err(|error| error.failure("the ledger cannot be read"))?;
    task::more(listed.more, session);
    session.screen.data(&print::list(&listed.items, session.output))
}

fn filter(args: &LedgerShowArgs, session: &Session) -> Vec<(&'static str, String)> {
    let now = session.clock.wall();
    let pairs = [
        ("task", args.task.map(|id| id.to_string())),
        ("lease", args.lease.map(|id| id.to_string())),
        ("since", args.since.map(|when| when.ago(now).to_string())),
        ("until", args.until.map(|when| when.ago(now).to_string())),
    ];
    pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

impl Shown for Event {
    const HEAD: &'static [&'static str] = &["at", "id", "type", "why", "about", "workload", "actor"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let why = self.cause.map(|cause| cause.to_string()).or_else(|| self.reason.clone());
        let count = self.count.map(|count| format!(" ×{count}")).unwrap_or_default();
        let lease = self.lease.map(|id| id.to_string());
        vec![
            self.at.to_string(),
            self.id(),
            format!("{}{count}", self.kind),
            why.or_else(|| self.outcome.clone()).unwrap_or_default(),
            lease.or_else(|| self.task.map(|id| id.to_string())).unwrap_or_default(),
            text(self.workload.as_ref()),
            text(self.actor.as_ref()),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let details = match &self.details {
            Some(Details::Open(members)) => serde_json::Value::Object(members.clone()).to_string(),
            Some(Details::Erased(word)) => word.clone(),
            None => String::new(),
        };
        vec![
            ("id", self.id()),
            ("seq", self.seq.to_string()),
            ("at", self.at.to_string()),
            ("type", self.kind.clone()),
            ("outcome", text(self.outcome.as_ref())),
            ("count", text(self.count.as_ref())),
            ("cause", text(self.cause.as_ref())),
            ("task", text(self.task.as_ref())),
            ("lease", text(self.lease.as_ref())),
            ("workload", text(self.workload.as_ref())),
            ("owner", text(self.owner.as_ref())),
            ("issuer", text(self.issuer.as_ref())),
            ("target", text(self.target.as_ref())),
            ("actions", self.actions.as_ref().map(|actions| actions.join(", ")).unwrap_or_default()),
            ("template", text(self.template.as_ref())),
            ("row", text(self.row.as_ref())),
            ("bundle", text(self.bundle.as_ref())),
            ("replaced", text(self.previous_bundle.as_ref())),
            ("rollback", text(self.rollback.as_ref())),
            ("until", text(self.until.as_ref())),
            ("ttl_s", text(self.ttl_s.as_ref())),
            ("ended_at", text(self.ended_at.as_ref())),
            ("blocked", text(self.blocked_until.as_ref())),
            ("jkt", text(self.jkt.as_ref())),
            ("x5t", text(self.x5t.as_ref())),
            ("spki", text(self.spki.as_ref())),
            ("kid", text(self.kid.as_ref())),
            ("old_kid", text(self.previous_kid.as_ref())),
            ("use", text(self.key_use.as_ref())),
            ("tainted_kid", text(self.tainted_kid.as_ref())),
            ("version", text(self.version.as_ref())),
            ("wall_ms", text(self.wall_ms.as_ref())),
            ("boot_ms", text(self.boot_ms.as_ref())),
            ("reason", text(self.reason.as_ref())),
            ("policies", self.policies.as_ref().map(|ids| ids.join(", ")).unwrap_or_default()),
            ("context", self.context.clone().map(|it| serde_json::Value::Object(it).to_string()).unwrap_or_default()),
            ("actor", text(self.actor.as_ref())),
            ("details", details),
        ]
    }
}

#[cfg(test)]
mod tests {
    use dayfly_domain::UnixMs;

    use super::*;
    use crate::{
        cli::{args::Output, samples, session::test_session},
        sys::clock::{Clock, Stepped},
    };

    #[test]
    fn events_are_shown_without_their_tricks() {
        let event: Event = serde_json::from_value(samples::event(3)).unwrap();
        insta::assert_snapshot!(print::list(std::slice::from_ref(&event), Output::Table), @r"
        AT                    ID                              TYPE    WHY        ABOUT  WORKLOAD           ACTOR
        2026-11-22T05:00:00Z  evt_00000000030000000000000000  denied  E-NOMATCH  -      github/4411/88120  -
        ");
        insta::assert_snapshot!(print::one(&event, Output::Table), @r#"
        id           evt_00000000030000000000000000
        seq          3
        at           2026-11-22T05:00:00Z
        type         denied
        outcome      denied
        workload     github/4411/88120
        reason       E-NOMATCH
        details      {"ref":"refs/heads/\u{202e}x"}
        "#);
        assert!(!print::one(&event, Output::Json).contains('\u{202e}'));
    }

    #[test]
    fn since_counts_back_from_now() {
        let clock = Clock::Stepped(Stepped::at(UnixMs::from_s(7_200)));
        let args = LedgerShowArgs {
            id: None,
            task: Some(samples::task_id(1)),
            lease: None,
            since: "1h".parse().ok(),
            until: None,
            limit: 50,
            door: <_>::default(),
        };
        let session = Session { clock, ..test_session() };
        let expected = [("task", samples::task_id(1).to_string()), ("since", "1970-01-01T01:00:00Z".to_owned())];
        assert_eq!(filter(&args, &session), expected);
    }
}
