//! `dayfly policy replay`: recorded decisions under another bundle.
//!
//! The ledger is read through the broker, page by page, newest first; the bundle is read here. What
//! changed is told by who, what and how, with a count and an event to look at.

mod read;
mod tally;

use dayfly_domain::{BindingKind, EventId};

use self::{
    read::{Found, Reading},
    tally::Tally,
};
use super::{
    api::Api,
    args::PolicyReplayArgs,
    door::Door,
    failure::{Exit, Failure},
    policy,
    progress::Count,
    session::Session,
};
use crate::{
    config::REVIEW_GRACE,
    flow::{BundleSource, Loaded},
    policy::{BundleEnv, Policy},
};

pub async fn run(args: &PolicyReplayArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let mut folder = policy::folder(args.policies.as_ref(), session)?;
    // Whose bundle it is, the broker knows best.
    let metadata = api.metadata().await.map_err(|error| error.failure("the broker does not say who it is"))?;
    folder.env = BundleEnv { issuer_url: metadata.issuer, broker_binding: BindingKind::Dpop };
    let Loaded { policy, .. } = folder.load().map_err(|problems| policy::refused(&folder, &problems))?;
    let (count, filter) = (Count::default(), filter(args, session));
    let replayed = replayed(&api, &policy, &filter, &count, session);
    let tally = api.progress().counted("replaying decisions", &count, replayed).await?;
    session.screen.say(&tally.summary());
    session.screen.data(&tally.print(&policy.bundle().fingerprint.to_string(), session.output))?;
    match tally.newly() {
        (0, 0) => Ok(()),
        (denied, allowed) if args.strict => {
            Err(Failure::new(Exit::Failure, format!("{denied} would newly be denied, {allowed} newly allowed")))
        }
        _ => Ok(()),
    }
}

fn filter(args: &PolicyReplayArgs, session: &Session) -> Vec<(&'static str, String)> {
    let now = session.clock.wall();
    let until = args.until.map(|until| ("until", until.ago(now).to_string()));
    [("since", args.since.ago(now).to_string())].into_iter().chain(until).collect()
}

async fn replayed(
    api: &Api,
    policy: &Policy,
    filter: &[(&str, String)],
    count: &Count,
    session: &Session,
) -> Result<Tally, Failure> {
    // What the broker's own grace is, it tells nobody.
    policy.lapse(session.clock.wall(), REVIEW_GRACE);
    let (mut reading, mut tally) = (Reading::default(), Tally::default());
    let mut cursor = None;
    loop {
        let page = api.event_page(filter, cursor.as_deref()).await;
        let (events, next) = page.map_err(|error| error.failure("the ledger cannot be read"))?;
        events.into_iter().for_each(|event| judge(reading.take(event), policy, &mut tally));
        count.set(tally.decisions(), 0);
        let Some(next) = next else { break };
        cursor = Some(next);
    }
    // Of tasks that were opened before, only what they were given later was met.
    for task in reading.unopened() {
        let of_task = [("task", task.to_string())];
        let mut cursor = None;
        loop {
            let page = api.event_page(&of_task, cursor.as_deref()).await;
            let (events, next) = page.map_err(|error| error.failure("the ledger cannot be read"))?;
            events.into_iter().for_each(|event| judge(reading.open(event), policy, &mut tally));
            let Some(next) = next else { break };
            cursor = Some(next);
        }
    }
    judge(reading.rest(), policy, &mut tally);
    Ok(tally)
}

fn judge(found: Vec<Found>, policy: &Policy, tally: &mut Tally) {
    found.into_iter().for_each(|found| tally.judge(found, policy));
}

/// Where a person looks further.
type Example = EventId;

#[cfg(test)]
mod tests;
