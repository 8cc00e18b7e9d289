//! `dayfly token --hold`: a sidecar for a shell. It stays with what it was given: it beats, renews, and
//! ends the task when it is told to, or when its parent is gone. In: a credential and its handle.

use std::time::Duration;

use rustix::process::{Pid, getppid};
use tokio::time::{Instant, sleep};

use super::{
    Granted,
    deliver::{self, Places},
    exchange::Ask,
};
use crate::cli::{
    door::Door,
    exec::{
        Signals, end, handle_api,
        hold::{self, Hold},
        renew::{self, Renewal},
    },
    failure::Failure,
    session::Session,
};

/// Nothing tells us of our parent's end: it is looked for.
const LOOK: Duration = Duration::from_millis(500);

/// `parent`: whose end is ours.
pub async fn run(
    door: &Door,
    ask: &Ask,
    granted: &Granted,
    places: &Places<'_>,
    parent: Option<Pid>,
    session: &Session,
) -> Result<(), Failure> {
    let began = Instant::now();
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| Failure::failed("signals cannot be listened to").because(error))?;
    let Granted { answer, handle } = granted;
    let beats = handle_api(door, handle, hold::TRY, session)?;
    let renewals = door.api(&session.vars, None)?.within(renew::TRY);
    let hold = Hold::new(&beats, answer.task_id, session.screen);
    let renewal = Renewal { api: &renewals, ask, handle, screen: session.screen };
    let kept = async { hold.keep(hold.beat().await).await };
    let renewed = async {
        renewal.keep(answer, |answer| deliver::deliver(answer, &ask.template, places, session)).await;
        std::future::pending().await
    };
    let is_over = tokio::select! {
        () = kept => true,
        () = renewed => true,
        _ = signals.stop() => false,
        () = gone(parent) => false,
    };
    let api = handle_api(door, handle, end::TRY, session)?;
    if end::end(&api, answer.task_id, began.elapsed(), session.screen).await || is_over {
        forget(places);
    }
    if is_over { Err(Failure::failed("the task was over before this was told to end it")) } else { Ok(()) }
}

/// Until somebody else is our parent.
async fn gone(parent: Option<Pid>) {
    while getppid() == parent {
        sleep(LOOK).await;
    }
}

/// A dead credential and the handle of a task that is over serve nobody.
fn forget(places: &Places<'_>) {
    for file in [places.out, places.handle].into_iter().flatten() {
        // One that is gone already is what we want.
        let _ = std::fs::remove_file(file);
    }
}
