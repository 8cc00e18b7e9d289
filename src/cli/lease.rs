//! `dayfly lease ls|show`.

use dayfly_domain::State;

use super::{
    args::{LeaseListArgs, ShowLeaseArgs},
    door::Door,
    failure::Failure,
    print::{self, Shown, text},
    session::Session,
    task,
};
use crate::http::shapes::Lease;

pub async fn ls(args: &LeaseListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.sift.door().map_err(Failure::usage)?, &session.vars)?.operator(&session.vars)?;
    let mut filter = task::sift(&args.sift, session)?;
    filter.extend(args.task.map(|id| ("task", id.to_string())));
    filter.extend(args.kind.map(|kind| ("kind", kind.to_string())));
    let listed = api.leases(&filter, args.sift.limit as usize).await;
    let listed = listed.map_err(|error| error.failure("the leases cannot be listed"))?;
    task::more(listed.more, session);
    session.screen.data(&print::list(&listed.items, session.output))
}

pub async fn show(args: &ShowLeaseArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let lease = api.lease(args.id).await.map_err(|error| error.failure("the lease cannot be shown"))?;
    session.screen.data(&print::one(&lease, session.output))
}

/// Says what an end of this lease would end.
pub fn would_end(lease: &Lease, session: &Session) -> Result<(), Failure> {
    let line = match lease.state {
        State::Active => format!("would end {}; nothing was ended", lease.id),
        state => format!("{} is {state} already; nothing would end", lease.id),
    };
    session.screen.say(&line);
    session.screen.data(&print::one(lease, session.output))
}

impl Shown for Lease {
    const HEAD: &'static [&'static str] =
        &["id", "state", "target", "template", "owner", "workload", "expires", "task"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let state = self.cause.map_or_else(|| self.state.to_string(), |cause| format!("{} ({cause})", self.state));
        vec![
            self.id(),
            state,
            self.target.clone(),
            self.template.clone(),
            self.owner.clone(),
            self.workload.clone(),
            self.expires_at.to_string(),
            self.task.to_string(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        vec![
            ("id", self.id()),
            ("task", self.task.to_string()),
            ("state", self.state.to_string()),
            ("cause", text(self.cause.as_ref())),
            ("kind", self.kind.to_string()),
            ("workload", self.workload.clone()),
            ("owner", self.owner.clone()),
            ("target", self.target.clone()),
            ("actions", self.actions.join(", ")),
            ("template", self.template.clone()),
            ("row", self.row.clone()),
            ("bound", self.bound.to_string()),
            ("issued", self.issued_at.to_string()),
            ("expires", self.expires_at.to_string()),
            ("ended", text(self.ended_at.as_ref())),
            ("ended by", text(self.ended_by.as_ref())),
            ("reason", text(self.reason.as_ref())),
            ("ledger", format!("{} #{}", self.ledger.stream, self.ledger.seq)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{args::Output, samples};

    #[test]
    fn a_reason_from_the_wire_cannot_paint_the_terminal() {
        let lease: Lease = serde_json::from_value(samples::lease(1)).unwrap();
        insta::assert_snapshot!(print::one(&lease, Output::Table), @r"
        id        lse_00000000010000000000000000
        task      tsk_00000000010000000000000000
        state     ended
        cause     revoked
        kind      jwt
        workload  github/4411/88120
        owner     team-shop
        target    shop-production
        actions   deploy:create
        template  deploy-prod
        row       shop-main
        bound     none
        issued    2026-11-22T05:00:00Z
        expires   2026-11-22T05:15:00Z
        ended     2026-11-22T05:01:00Z
        ended by  local:0
        reason    gone\u{1b}[2J
        ledger    00112233445566778899aabbccddeeff #7
        ");
        for output in [Output::Table, Output::Json, Output::Jsonl, Output::Name] {
            let shown = print::list(std::slice::from_ref(&lease), output);
            assert!(!shown.contains('\u{1b}'), "{output:?}");
        }
        insta::assert_snapshot!(print::list(&[lease], Output::Table), @r"
        ID                              STATE            TARGET           TEMPLATE     OWNER      WORKLOAD           EXPIRES               TASK
        lse_00000000010000000000000000  ended (revoked)  shop-production  deploy-prod  team-shop  github/4411/88120  2026-11-22T05:15:00Z  tsk_00000000010000000000000000
        ");
    }
}
