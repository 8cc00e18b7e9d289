//! `dayfly block ls|lift`: what ends keep from being issued, and how it may be again.

use super::{
    api::Api,
    args::{BlockLiftArgs, BlockListArgs},
    door::Door,
    failure::{Exit, Failure},
    print::{self, Shown, text},
    session::Session,
    task,
};
use crate::http::shapes::Block;

/// All that may stand are looked through for one.
const ALL: usize = 100_000;

pub async fn ls(args: &BlockListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let listed = api.blocks(args.limit as usize).await;
    let listed = listed.map_err(|error| error.failure("the blocks cannot be listed"))?;
    task::more(listed.more, session);
    session.screen.data(&print::list(&listed.items, session.output))
}

pub async fn lift(args: &BlockLiftArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    lift_at(args, &api, session).await
}

async fn lift_at(args: &BlockLiftArgs, api: &Api, session: &Session) -> Result<(), Failure> {
    if args.dry_run {
        let listed = api.blocks(ALL).await.map_err(|error| error.failure("the block cannot be shown"))?;
        let missing = || Failure::new(Exit::NotFound, format!("there is no block {}", args.id)).help("dayfly block ls");
        let block = listed.items.into_iter().find(|block| block.id == args.id).ok_or_else(missing)?;
        session.screen.say(&format!("would lift {}; nothing was lifted", block.id));
        return session.screen.data(&print::one(&block, session.output));
    }
    api.lift_block(args.id).await.map_err(|error| error.failure("the block could not be lifted"))?;
    session.screen.say(&format!("{} is lifted: what it named may be issued again; what it ended stays ended", args.id));
    Ok(())
}

impl Shown for Block {
    const HEAD: &'static [&'static str] = &["id", "where", "until", "since", "by", "reason"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let until = self.until.map_or_else(|| "lifted".to_owned(), |until| until.to_string());
        let (by, reason) = (text(self.by.as_ref()), text(self.reason.as_ref()));
        vec![self.id(), self.text.clone(), until, self.created_at.to_string(), by, reason]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields: Vec<_> = Self::HEAD.iter().copied().zip(self.cells()).collect();
        fields.extend([
            ("cause", text(self.cause.as_ref())),
            ("leases ended", text(self.leases_ended.as_ref())),
            ("tasks ended", text(self.tasks_ended.as_ref())),
            ("rows behind", self.behind.to_string()),
            ("event", self.event.to_string()),
            ("ledger", format!("{} #{}", self.ledger.stream, self.ledger.seq)),
        ]);
        fields
    }
}

#[cfg(test)]
mod tests {
    use dayfly_domain::BlockId;

    use super::*;
    use crate::cli::{api::script::Script, args::Output, session::test_session};

    const ANSWER: &str = r#"{"items":[{
        "id":"blk_00000000010000000000000000","filter":{"claims":{"repository_id":"88120"}},
        "where":"repository_id == \"88120\"","created_at":"2026-11-22T05:00:00Z",
        "event":"evt_00000000010000000000000000","by":"local:0","reason":"gone\u001b[2J","cause":"revoked",
        "leases_ended":412,"tasks_ended":37,"behind":3,"ledger":{"stream":"00","seq":7},"new":1}]}"#;

    fn args(dry_run: bool, number: u64) -> BlockLiftArgs {
        BlockLiftArgs { id: BlockId::from_parts(number, [0; 10]), dry_run, door: <_>::default() }
    }

    #[tokio::test]
    async fn blocks_are_shown_as_what_was_typed() {
        let script = Script::default().ok(ANSWER);
        let listed = script.api(None).blocks(50).await.unwrap();
        assert_eq!(script.seen(), ["GET /v1/blocks?limit=50"]);
        insta::assert_snapshot!(print::list(&listed.items, Output::Table), @r#"
        ID                              WHERE                     UNTIL   SINCE                 BY       REASON
        blk_00000000010000000000000000  repository_id == "88120"  lifted  2026-11-22T05:00:00Z  local:0  gone\u{1b}[2J
        "#);
        assert_eq!(print::list(&listed.items, Output::Name), "blk_00000000010000000000000000\n");
    }

    #[tokio::test]
    async fn a_dry_run_only_looks_and_a_lift_is_one_request() {
        let known = serde_json::from_str::<serde_json::Value>(ANSWER).unwrap()["items"][0]["id"].clone();
        let script = Script::default().ok(ANSWER).ok(ANSWER).ok("").refuse(404, "E-NOT-FOUND");
        let api = script.api(None);
        let id: BlockId = known.as_str().unwrap().parse().unwrap();
        lift_at(&BlockLiftArgs { id, ..args(true, 0) }, &api, &test_session()).await.unwrap();
        assert_eq!(lift_at(&args(true, 9), &api, &test_session()).await.unwrap_err().exit(), 3);
        lift_at(&BlockLiftArgs { id, ..args(false, 0) }, &api, &test_session()).await.unwrap();
        assert_eq!(lift_at(&args(false, 9), &api, &test_session()).await.unwrap_err().exit(), 3);
        assert_eq!(script.seen()[2], format!("DELETE /v1/blocks/{id}"));
    }
}
