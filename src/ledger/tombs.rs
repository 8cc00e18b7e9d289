//! Ends by selector against the rows: what a tomb ended says so and was meant, and nothing that it
//! meant lives on.

use std::collections::{BTreeMap, BTreeSet};

use dayfly_domain::{BlockId, Cause, Claims, LeaseWords, Matcher, Selector, TaskWords, UnixMs, claim_text};
use serde::Deserialize;

use super::body::Body;
use crate::store::{BlockRow, EndRow, EventRow, LeaseRow, TaskRow, TombRow};

/// Owner, issuer, template, row, environment of a lease's task, as its event says them.
type Words = [Option<String>; 5];

#[derive(Debug, Default)]
pub(super) struct Tombs {
    said: BTreeMap<u64, Said>,
}

/// What an event says of a tomb, and later what its row adds.
#[derive(Debug)]
struct Said {
    cause: Option<Cause>,
    at: Option<i64>,
    count: Option<u64>,
    block: Option<BlockId>,
    /// `None` once it is erased.
    selector: Option<String>,
    row: Option<Row>,
    block_stands: bool,
}

#[derive(Debug)]
struct Row {
    done: bool,
    matcher: Matcher,
    /// Without what an ended row no longer tells: its claims.
    unclaimed: Matcher,
    /// Without what the row of a lease does not tell of its task.
    of_leases: Matcher,
}

#[derive(Deserialize)]
struct Detail {
    selector: String,
}

impl Row {
    fn of(row: &TombRow) -> Self {
        let selector = &row.selector;
        let unclaimed = Selector { claims: BTreeMap::new(), ..selector.clone() };
        let of_leases = Selector { job: None, workload: None, ..unclaimed.clone() };
        let matcher = Matcher::new(selector.clone());
        Self { done: row.done, matcher, unclaimed: Matcher::new(unclaimed), of_leases: Matcher::new(of_leases) }
    }
}

/// `None`: nothing that a tomb has to do with.
type Judged = Option<Result<(), String>>;

impl Tombs {
    pub fn event(&mut self, seq: u64, row: &EventRow, body: &Body) {
        let detail = row.detail.as_ref().and_then(|detail| serde_json::from_slice::<Detail>(&detail.bytes).ok());
        let said = Said {
            cause: body.cause,
            at: body.ended_at,
            count: body.count,
            block: body.block,
            selector: detail.map(|detail| detail.selector),
            row: None,
            block_stands: false,
        };
        self.said.insert(seq, said);
    }

    /// A problem, if the row is not as its event says.
    pub fn row(&mut self, row: &TombRow) -> Option<String> {
        let Some(said) = self.said.get_mut(&row.seq) else {
            return Some(format!("tomb {}: no event of this sequence wrote it", row.seq));
        };
        let same = (said.cause, said.at, said.count) == (Some(row.cause), Some(row.at.as_ms()), Some(row.count))
            && said.selector.as_ref().is_none_or(|text| *text == row.selector.to_string());
        said.row = Some(Row::of(row));
        (!same).then(|| format!("tomb {}: the row does not match its event", row.seq))
    }

    pub fn block(&mut self, row: &BlockRow) -> bool {
        let Some(said) = self.said.get_mut(&row.seq) else { return false };
        said.block_stands = true;
        said.block == Some(row.id) && said.selector.as_ref().is_none_or(|text| *text == row.selector.to_string())
    }

    /// `over`: what it hangs on has ended.
    pub fn task(&self, row: &TaskRow, over: bool, now: UnixMs) -> Judged {
        let Some(end) = row.end else {
            let claims = row.claims.as_deref().and_then(|text| serde_json::from_str::<Claims>(text).ok());
            let claims = claim_text(&claims.unwrap_or_default(), |_| true);
            // Not every claim can be ended by: by those alone nothing is said to live on.
            let meant =
                |tomb: &Row| tomb.matcher.selector().claims.is_empty() && tomb.matcher.task(&words_of(row, &claims));
            return if over { None } else { self.lives_on(row.seq, row.deadline, now, meant) };
        };
        self.ended(end, row.seq, |tomb| tomb.unclaimed.task(&words_of(row, "")))
    }

    /// `over`: its task has ended.
    pub fn lease(&self, row: &LeaseRow, task: Option<&Words>, over: bool, now: UnixMs) -> Judged {
        let lease = LeaseWords { target: &row.target, row: &row.row, key: row.kid.as_deref() };
        let meant = |tomb: &Row| task.is_none_or(|task| tomb.of_leases.lease(&words_of_event(task), &lease));
        match row.end {
            Some(end) => self.ended(end, row.seq, meant),
            None if over => None,
            None => {
                let all = |tomb: &Row| {
                    let alone = tomb.matcher.means_single_leases() && !tomb.matcher.means_tasks();
                    alone && tomb.matcher == tomb.of_leases && meant(tomb)
                };
                self.lives_on(row.seq, row.expires, now, all)
            }
        }
    }

    fn ended(&self, end: EndRow, seq: u64, meant: impl Fn(&Row) -> bool) -> Judged {
        let said = self.said.get(&end.seq)?;
        let same = (said.cause, said.at) == (Some(end.cause), Some(end.at.as_ms())) && seq < end.seq;
        let good = same && said.row.as_ref().is_some_and(meant);
        Some(if good { Ok(()) } else { Err(format!("the end by selector of sequence {} did not end it so", end.seq)) })
    }

    /// What has run out by now may never have been caught up with.
    fn lives_on(&self, seq: u64, until: UnixMs, now: UnixMs, meant: impl Fn(&Row) -> bool) -> Judged {
        let ended = |(own, said): &(&u64, &Said)| {
            let due = seq < **own && said.at.is_some_and(|at| at < until.as_ms());
            due && said.row.as_ref().is_some_and(|tomb| tomb.done && meant(tomb))
        };
        let (own, _) = self.said.iter().filter(|_| until > now).find(ended)?;
        Some(Err(format!("the end by selector of sequence {own} ended it, and its row lives on")))
    }

    /// What the events say and no row shows.
    pub fn gone(&self, lifted: &BTreeSet<u64>) -> Vec<String> {
        let mut problems = Vec::new();
        for (seq, said) in &self.said {
            if said.row.is_none() {
                problems.push(format!("event {seq}: the end by selector that it records is gone"));
            }
            if said.block.is_some() && !said.block_stands && !lifted.contains(seq) {
                problems.push(format!("event {seq}: the block that it records is gone"));
            }
        }
        problems
    }
}

fn words_of<'a>(row: &'a TaskRow, claims: &'a str) -> TaskWords<'a> {
    TaskWords {
        job: row.job.as_deref(),
        workload: &row.workload,
        owner: &row.owner,
        issuer: &row.issuer,
        row: &row.row,
        template: &row.template,
        claims,
    }
}

fn words_of_event(words: &Words) -> TaskWords<'_> {
    let [owner, issuer, template, row, _] = words.each_ref().map(|word| word.as_deref().unwrap_or_default());
    TaskWords { job: None, workload: "", owner, issuer, row, template, claims: "" }
}
