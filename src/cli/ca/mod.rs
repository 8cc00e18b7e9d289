//! `dayfly ca`: the authority. `init` and `import` are ceremonies on this machine's files; the others ask a
//! running broker.

mod export;
mod init;
mod passphrase;

use super::{
    args::{CaListArgs, CaRotateArgs},
    door::Door,
    failure::Failure,
    print::{self, Shown, text},
    session::Session,
};
use crate::http::shapes::{CaTurned, Key};

pub use export::run as export;
pub use init::{import, init};

/// The CAs among the keys.
pub async fn ls(args: &CaListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let keys = api.keys().await.map_err(|error| error.failure("the CAs cannot be listed"))?;
    let cas: Vec<Ca> = keys.into_iter().filter(|key| key.usage == "ca").map(Ca).collect();
    if cas.is_empty() {
        session.screen.say("this broker has no authority: it issues no certificates (`dayfly ca init`)");
    }
    session.screen.data(&print::list(&cas, session.output))
}

pub async fn rotate(args: &CaRotateArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let turned = api.rotate_ca().await.map_err(|error| error.failure("no CA took over; the old one goes on"))?;
    session.screen.say(&format!("{} signs from now on", turned.to));
    session.screen.data(&print::one(&turned, session.output))
}

/// A key that is a CA's.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Ca(Key);

impl Shown for Ca {
    const HEAD: &'static [&'static str] = &["ca", "tier", "state", "since", "until"];

    fn id(&self) -> String {
        self.0.kid.clone()
    }

    fn cells(&self) -> Vec<String> {
        let Key { kid, state, since, until, tier, .. } = &self.0;
        let state = super::key::taint::word(*state).to_owned();
        vec![kid.clone(), text(tier.as_ref()), state, since.to_string(), text(until.as_ref())]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEAD.iter().copied().zip(self.cells()).collect()
    }
}

impl Shown for CaTurned {
    const HEAD: &'static [&'static str] = &["signs now", "before"];

    fn id(&self) -> String {
        self.to.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.to.clone(), text(self.from.as_ref())]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEAD.iter().copied().zip(self.cells()).collect()
    }
}
