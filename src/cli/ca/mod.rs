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
use crate::http::shapes::{Ca, CaTurned};

pub use export::run as export;
pub use init::{import, init};

/// The CAs among the keys.
pub async fn ls(args: &CaListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let cas = api.cas().await.map_err(|error| error.failure("the CAs cannot be listed"))?;
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

impl Shown for Ca {
    const HEAD: &'static [&'static str] = &["ca", "tier", "state", "since", "until"];

    fn id(&self) -> String {
        self.id.clone()
    }

    fn cells(&self) -> Vec<String> {
        let Self { id, tier, state, since, until } = self;
        let state = super::key::taint::word(*state).to_owned();
        vec![id.clone(), tier.clone(), state, since.to_string(), text(until.as_ref())]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, args::Output};

    #[tokio::test]
    async fn cas_are_shown_with_their_tier() {
        let answer = r#"{"items":[
            {"id":"aa01","tier":"root","state":"active","since":"2026-11-22T05:00:00Z","until":"2036-11-22T05:00:00Z"},
            {"id":"bb02","tier":"issuing","state":"tainted","since":"2026-11-22T05:00:00Z","new":1}]}"#;
        let script = Script::default().ok(answer);
        let cas = script.api(Some("eyJ")).cas().await.unwrap();
        assert_eq!(script.seen(), ["GET /v1/pki Bearer eyJ"]);
        insta::assert_snapshot!(print::list(&cas, Output::Table), @r"
        CA    TIER     STATE    SINCE                 UNTIL
        aa01  root     active   2026-11-22T05:00:00Z  2036-11-22T05:00:00Z
        bb02  issuing  tainted  2026-11-22T05:00:00Z  -
        ");
        assert_eq!(print::list(&cas, Output::Name), "aa01\nbb02\n");
    }
}
