//! Blocks: what stands, who wrote it and why, and how it is lifted.

use dayfly_domain::{BlockId, Cause, EventId, Reason, Selector, UnixMs};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::{
    Flow, Shared,
    commit::{Prepared, Reply, Writer, numbered},
    group::{Group, NotCommitted},
    read::Failed,
    words::{Caller, Listing, Point, Refused},
};
use crate::{
    lease::{Fence, Now},
    ledger::{self, Body, Stamp},
    store::{BlockRow, Change, Page},
};

/// A block as shown, with what its event says.
#[derive(Debug, Clone)]
pub struct BlockView {
    pub id: BlockId,
    pub selector: Selector,
    pub until: Option<UnixMs>,
    pub at: UnixMs,
    pub event: EventId,
    pub by: Option<String>,
    pub reason: Option<String>,
    /// Of an end by selector.
    pub cause: Option<Cause>,
    pub leases: Option<u64>,
    pub tasks: Option<u64>,
    /// Rows that do not yet say that they ended; all that is shown of them does.
    pub behind: u64,
    pub point: Point,
}

impl Flow {
    /// What stands, newest first.
    pub async fn blocks(
        &self,
        caller: &Caller,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Listing<BlockView>, Refused> {
        let scope = format!("blocks {}", self.operator(caller).await?);
        let before = self.cursor(&scope, cursor)?.map(BlockId::from_u128);
        self.on_reader(move |flow, now| {
            let mut rows = flow.reader.blocks(now.at, Page { before, limit: limit + 1 })?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let next = rows.last().filter(|_| more).map(|row| flow.make_cursor(&scope, row.id.as_u128()));
            let items = rows.into_iter().map(|row| flow.block_view(row)).collect::<Result<_, _>>()?;
            Ok(Listing { items, next_cursor: next })
        })
        .await
    }

    /// What it refused may be issued again from now on. One that does not stand any more is not found.
    pub async fn lift_block(&self, caller: &Caller, id: BlockId) -> Result<(), Refused> {
        let actor = self.operator(caller).await?;
        let (ack, done) = oneshot::channel();
        self.submit(Group::Lift(id, actor, ack), done).await.map_err(|failed| match failed {
            NotCommitted::Gone => Reason::NotFound.into(),
            NotCommitted::Store
            | NotCommitted::OtherBundle
            | NotCommitted::OtherJob
            | NotCommitted::OtherKey
            | NotCommitted::OtherEnds
            | NotCommitted::Overtaken(_)
            | NotCommitted::Released => Reason::Store.into(),
        })
    }
}

impl Shared {
    fn block_view(&self, row: BlockRow) -> Result<BlockView, Failed> {
        let BlockRow { id, selector, until, seq } = row;
        let event = self.reader.event_at(seq)?.ok_or(Failed::Unreadable)?;
        let body: Body = serde_json::from_slice(&event.body).map_err(|_| Failed::Unreadable)?;
        let detail = event.detail.and_then(|detail| serde_json::from_slice::<Map<String, Value>>(&detail.bytes).ok());
        let text = |name: &str| Some(detail.as_ref()?.get(name)?.as_str()?.to_owned());
        let behind = self.table.tombs().iter().find(|tomb| tomb.end.seq == Some(seq)).map(|tomb| tomb.left());
        let mass = body.kind == "tombstone";
        Ok(BlockView {
            id,
            selector,
            until,
            at: event.at,
            event: event.id,
            by: text("actor"),
            reason: text("reason"),
            cause: body.cause,
            leases: body.count.filter(|_| mass),
            tasks: body.tasks,
            behind: behind.unwrap_or_default(),
            point: Point { stream: self.stream.clone(), seq },
        })
    }
}

impl Writer {
    pub(super) fn prepare_lift(
        &self,
        id: BlockId,
        actor: &str,
        ack: oneshot::Sender<Result<(), NotCommitted>>,
        fence: &mut Fence<'_>,
        seq: &mut u64,
        now: Now,
    ) -> Option<Prepared> {
        let Some(block) = fence.lift(id) else {
            // A caller that has gone away needs no answer.
            let _ = ack.send(Err(NotCommitted::Gone));
            return None;
        };
        let stamp = Stamp::draw(now.at).ok()?;
        let mut changes = numbered(vec![ledger::block_lifted(stamp, id, block.seq, actor)], seq);
        changes.push(Change::LiftBlock(id));
        Some((changes, Reply::Note(ack)))
    }
}
