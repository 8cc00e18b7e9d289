//! `dayfly demo`: the whole story on loopback, in order, with measured milliseconds. In: nothing,
//! no variable and no settings. Out: the story, and nothing left behind.

mod certified;
mod killed;
mod listed;
mod page;
mod server;
mod story;

use std::{io, time::Duration};

use tokio::time::sleep;

use self::{page::Page, story::Story};
use super::{
    args::DemoArgs,
    dev::{
        broker::{DevBroker, Setup},
        bundle::Text,
        home::Home,
        passing_folder, runtime,
    },
    failure::Failure,
    session::Session,
};
use crate::run::{self, Signals};

/// The exit code of a process that was interrupted, as shells say it.
const INTERRUPTED: u8 = 130;

pub fn run(_args: &DemoArgs, session: &Session) -> Result<(), Failure> {
    runtime()?.block_on(tell(session))
}

/// The story, or as much of it as there is time for before a signal. The folder goes either way.
async fn tell(session: &Session) -> Result<(), Failure> {
    let signals = Signals::listen();
    let mut signals = signals.map_err(|error| Failure::failed("signals cannot be listened to").because(error))?;
    let folder = passing_folder()?;
    let told = tokio::select! {
        told = Box::pin(play(&folder, session)) => told,
        _ = signals.next() => Err(Failure::with_exit(INTERRUPTED, "interrupted; nothing is left behind")),
    };
    told.and(leave_nothing(&folder).await)
}

/// A story that was broken off may still write for a moment.
async fn leave_nothing(folder: &tempfile::TempDir) -> Result<(), Failure> {
    let mut left = Ok(());
    for _ in 0..REMOVE_TRIES {
        left = match std::fs::remove_dir_all(folder.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => return Ok(()),
        };
        sleep(Duration::from_millis(20)).await;
    }
    let what = format!("`{}` stays", folder.path().display());
    left.map_err(|error| Failure::failed(what).because(error))
}

const REMOVE_TRIES: u32 = 50;

async fn play(folder: &tempfile::TempDir, session: &Session) -> Result<(), Failure> {
    let page = Page::new(session.screen);
    page.line("One credential, from its first second to its last. All of it on this machine, on loopback.")?;
    page.line("")?;
    run::install_metrics();
    let started = tokio::time::Instant::now();
    let setup = Setup {
        home: Home::at(folder.path())?,
        on_disk: true,
        listen: None,
        text: Text::ShippedAnd(include_str!("edge.toml")),
        played: "github".parse().expect("`github` is a name"),
        clock: session.clock.clone(),
    };
    let home = setup.home.clone();
    let broker = Box::pin(DevBroker::start(setup)).await?;
    broker.operator.renew().await?;
    let mut story = Story::new(broker, home, page, session.clock.clone())?;
    let told = story.tell(started.elapsed()).await;
    story.close().await;
    told
}
