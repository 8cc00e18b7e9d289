//! `dayfly cert --watch`: stays with a certificate. It beats, renews at half-life with a new key, and opens the
//! next task before this one's deadline; at a signal it ends the task and removes the files. In: an order.

use std::{cell::Cell, future::pending, time::Duration};

use dayfly_domain::TaskId;
use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior};
use rustls_pki_types::CertificateDer;
use tokio::time::{Instant, sleep};

use super::Order;
use crate::{
    cli::{
        api::Api,
        exec::{
            Heard, Hook, Signals, end, handle_api,
            hold::{self, Hold, jittered},
            renew::{self, Renewal},
        },
        failure::Failure,
        session::Screen,
        token::{Granted, handle},
    },
    http::shapes::TokenAnswer,
    sys::files,
};

/// Until an earlier task is ended: a server has read the new files by then, and the hold is not lost yet.
const RETIRE: Duration = Duration::from_secs(10);
/// Between two tries to open the next task.
const AGAIN_LEAST_MS: u64 = 5_000;
const AGAIN_MOST_MS: u64 = 60_000;

pub async fn run(order: &Order<'_>) -> Result<(), Failure> {
    // Keys are in its memory.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| Failure::failed("signals cannot be listened to").because(error))?;
    let (began, hook) = (Instant::now(), order.hook());
    let first = tokio::select! {
        first = Box::pin(begun(order)) => first,
        _ = signals.stop() => Err(Failure::failed("interrupted before there was a certificate")),
    };
    let first = match first {
        Ok(first) => first,
        Err(failure) => {
            unseen(order, began).await;
            return Err(failure);
        }
    };
    let mut watch = Watch { order, hook: &hook, held: first, retired: None, began };
    let done = watch.stay(&mut signals).await;
    hook.stop();
    watch.over().await;
    done
}

/// The first certificate, in its files.
async fn begun(order: &Order<'_>) -> Result<Held, Failure> {
    let roots = order.roots().await?;
    let held = Held { granted: order.granted().await?, roots };
    order.put(&held.granted.answer, &held.roots)?;
    order.tell(&held.granted.answer)?;
    Ok(held)
}

/// A task, its last opening's answer, and the roots that go with it.
struct Held {
    granted: Granted,
    roots: Vec<CertificateDer<'static>>,
}

struct Watch<'a> {
    order: &'a Order<'a>,
    hook: &'a Hook<'a>,
    held: Held,
    /// The task before this one, until it is ended.
    retired: Option<Retired>,
    began: Instant,
}

struct Retired {
    api: Api,
    task: TaskId,
    at: Instant,
}

/// How the time with one task came to its end.
enum Turn {
    Stopped,
    /// The broker says that it is over.
    Over,
    /// The next one is there, or none can be had.
    Next(Result<Box<Granted>, Failure>),
}

impl Watch<'_> {
    async fn stay(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        self.hook.run_or_warn(self.order.session.screen);
        loop {
            let granted = match self.turn(signals).await? {
                Turn::Stopped => return Ok(()),
                Turn::Next(next) => {
                    let granted = *next?;
                    let (api, task) = (self.api(end::TRY)?, self.held.granted.answer.task_id);
                    self.retired = Some(Retired { api, task, at: Instant::now() + RETIRE });
                    granted
                }
                Turn::Over => tokio::select! {
                    granted = Box::pin(self.order.granted()) => granted?,
                    () = stopped(signals, self.hook, self.order.session.screen) => return Ok(()),
                },
            };
            self.held.granted = granted;
            match self.order.roots().await {
                Ok(roots) => self.held.roots = roots,
                Err(failure) => self.warn(&failure),
            }
            self.order.put(&self.held.granted.answer, &self.held.roots)?;
            self.hook.run_or_warn(self.order.session.screen);
        }
    }

    /// With one task for as long as it goes.
    async fn turn(&mut self, signals: &mut Signals) -> Result<Turn, Failure> {
        let (beats, renewals) = (self.api(hold::TRY)?, self.order.api()?.within(renew::TRY));
        let (order, screen) = (self.order, self.order.session.screen);
        let Held { granted: Granted { answer, handle }, roots } = &self.held;
        let hold = Hold::new(&beats, answer.task_id, screen);
        let renewal = Renewal { api: &renewals, ask: &order.ask, handle, screen };
        let last = Cell::new(Life::of(answer));
        let hook = self.hook;
        let put = |answer: &TokenAnswer| {
            last.set(Life::of(answer));
            order.put(answer, roots)?;
            hook.run_or_warn(screen);
            Ok(())
        };
        let next = async {
            renewal.keep(answer, put).await;
            successor(order, last.get()).await
        };
        let retired = &mut self.retired;
        Ok(tokio::select! {
            () = async { hold.keep(hold.beat().await).await } => Turn::Over,
            next = Box::pin(next) => Turn::Next(next.map(Box::new)),
            () = stopped(signals, hook, screen) => Turn::Stopped,
            never = retire(retired, screen) => never,
            never = hook.bounded(screen) => never,
        })
    }

    /// Ends what may be alive, and removes what is dead by then.
    async fn over(&mut self) {
        let screen = self.order.session.screen;
        if let Some(Retired { api, task, .. }) = self.retired.take() {
            end::end(&api, task, self.began.elapsed(), screen).await;
        }
        let Granted { answer, handle } = &self.held.granted;
        let ended = match self.api(end::TRY) {
            Ok(api) => end::end(&api, answer.task_id, self.began.elapsed(), screen).await,
            Err(_) => false,
        };
        self.order.files.remove();
        match handle::read(&self.order.place) {
            Ok(kept) if kept.s256() != handle.s256() => unseen(self.order, self.began).await,
            Ok(_) if ended => forget(self.order),
            Ok(_) | Err(_) => {}
        }
    }

    fn warn(&self, failure: &Failure) {
        self.order.session.screen.warn(&one_line(failure));
    }

    /// As the holder of the task.
    fn api(&self, within: Duration) -> Result<Api, Failure> {
        handle_api(&self.order.door, &self.held.granted.handle, within, self.order.session)
    }
}

/// Until a signal asks us to stop. A hook that is done is noted meanwhile.
async fn stopped(signals: &mut Signals, hook: &Hook<'_>, screen: Screen) {
    loop {
        match signals.next().await {
            Heard::Child => hook.look(screen),
            Heard::Signal(Signal::TERM | Signal::HUP | Signal::QUIT | Signal::INT) => return,
            Heard::Signal(_) => {}
        }
    }
}

/// Ends the task before this one when it is time; then nothing more.
async fn retire(retired: &mut Option<Retired>, screen: Screen) -> Turn {
    if let Some(Retired { api, task, at }) = retired {
        tokio::time::sleep_until(*at).await;
        end::end(api, *task, RETIRE, screen).await;
        *retired = None;
    }
    pending().await
}

/// Ends the task of the kept handle, whose opening was interrupted, if there is one.
async fn unseen(order: &Order<'_>, began: Instant) {
    let Ok(kept) = handle::read(&order.place) else { return };
    let Ok(api) = handle_api(&order.door, &kept, end::TRY, order.session) else { return };
    if end::end_unseen(&api, began.elapsed(), order.session.screen).await {
        forget(order);
    }
}

/// The handle of a task that is over.
fn forget(order: &Order<'_>) {
    // One that is gone already is what we want.
    let _ = files::remove(&order.place);
}

fn one_line(failure: &Failure) -> String {
    let causes = failure.parts().causes.iter().map(|cause| format!(": {cause}")).collect::<String>();
    format!("{}{causes}", failure.parts().what)
}

/// The next task, opened at half-life of the last certificate: that one lives as long as its task, or cannot
/// be renewed any more. Tried until it is dead.
async fn successor(order: &Order<'_>, last: Life) -> Result<Granted, Failure> {
    sleep(jittered(last.half_ms() * 9 / 10, last.half_ms() / 10)).await;
    let mut told = false;
    loop {
        let failure = match order.anew().await {
            Ok(granted) => return Ok(granted),
            Err(failure) => failure,
        };
        let left_ms = last.left_ms();
        if left_ms < AGAIN_LEAST_MS {
            return Err(failure);
        }
        if !std::mem::replace(&mut told, true) {
            let (what, left_s) = (one_line(&failure), left_ms / 1000);
            order.session.screen.warn(&format!("{what}; the certificate is good for {left_s} s more"));
        }
        sleep(jittered((left_ms / 8).clamp(AGAIN_LEAST_MS, AGAIN_MOST_MS) / 2, AGAIN_LEAST_MS / 2)).await;
    }
}

/// Of a certificate, counted from when it came.
#[derive(Debug, Clone, Copy)]
struct Life {
    from: Instant,
    ttl_s: u64,
}

impl Life {
    fn of(answer: &TokenAnswer) -> Self {
        Self { from: Instant::now(), ttl_s: answer.expires_in.unwrap_or_default().min(u64::from(u32::MAX)) }
    }

    fn left_ms(&self) -> u64 {
        let left = (self.from + Duration::from_secs(self.ttl_s)).saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    /// To its half, from now on.
    fn half_ms(&self) -> u64 {
        self.left_ms().saturating_sub(self.ttl_s * 500)
    }
}
