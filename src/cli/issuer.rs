//! `dayfly issuer`: how the keys of those are whose tokens are evidence, and a fetch of them now.

use super::{
    args::{IssuerListArgs, IssuerRefreshArgs},
    door::Door,
    failure::Failure,
    print::{self, Shown, text},
    session::Session,
};
use crate::http::shapes::{Issuer, IssuerState};

pub async fn ls(args: &IssuerListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let issuers = api.issuers().await.map_err(|error| error.failure("the issuers cannot be listed"))?;
    session.screen.data(&print::list(&issuers, session.output))
}

pub async fn refresh(args: &IssuerRefreshArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let what = format!("the keys of `{}` were not fetched", args.name);
    let issuer = api.refresh_issuer(&args.name).await.map_err(|error| error.failure(&what))?;
    session.screen.data(&print::one(&issuer, session.output))
}

impl Shown for Issuer {
    const HEAD: &'static [&'static str] =
        &["name", "profile", "kind", "state", "keys", "confirmed", "failures", "why", "url"];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        let Self { name, profile, kind, url, source: _, state, keys, confirmed_at, tried_at: _, failures, why } = self;
        vec![
            name.clone(),
            profile.clone(),
            kind.clone(),
            word(*state).to_owned(),
            keys.to_string(),
            text(confirmed_at.as_ref()),
            failures.to_string(),
            text(why.as_ref()),
            url.clone(),
        ]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let more = [("source", self.source.clone()), ("tried", text(self.tried_at.as_ref()))];
        Self::HEAD.iter().copied().zip(self.cells()).chain(more).collect()
    }
}

fn word(state: IssuerState) -> &'static str {
    match state {
        IssuerState::Fresh => "fresh",
        IssuerState::Stale => "stale",
        IssuerState::Down => "down",
        IssuerState::Waiting => "waiting",
        IssuerState::Pinned => "pinned",
        IssuerState::Disabled => "disabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, args::Output};

    const ANSWER: &str = r#"{"items":[
        {"name":"github","profile":"github","kind":"workload","url":"https://token.actions.githubusercontent.com","source":"discovery","state":"fresh","keys":4,"confirmed_at":"2026-11-22T05:00:00Z","tried_at":"2026-11-22T05:00:00Z","failures":0},
        {"name":"company","profile":"oidc","kind":"workload","url":"https://id.example.org","source":"discovery","state":"down","keys":0,"tried_at":"2026-11-22T05:00:09Z","failures":3,"why":"discovery: its certificate has expired","new":1},
        {"name":"server","profile":"oidc","kind":"verifier","url":"server","source":"file","state":"pinned","keys":1,"failures":0}]}"#;

    #[tokio::test]
    async fn issuers_are_shown_in_every_format() {
        let script = Script::default().ok(ANSWER);
        let issuers = script.api(Some("eyJ")).issuers().await.unwrap();
        assert_eq!(script.seen(), ["GET /v1/issuers Bearer eyJ"]);
        insta::assert_snapshot!(print::list(&issuers, Output::Table), @r"
        NAME     PROFILE  KIND      STATE   KEYS  CONFIRMED             FAILURES  WHY                                     URL
        github   github   workload  fresh   4     2026-11-22T05:00:00Z  0         -                                       https://token.actions.githubusercontent.com
        company  oidc     workload  down    0     -                     3         discovery: its certificate has expired  https://id.example.org
        server   oidc     verifier  pinned  1     -                     0         -                                       server
        ");
        insta::assert_snapshot!(print::one(&issuers[1], Output::Table), @r"
        name       company
        profile    oidc
        kind       workload
        state      down
        keys       0
        failures   3
        why        discovery: its certificate has expired
        url        https://id.example.org
        source     discovery
        tried      2026-11-22T05:00:09Z
        ");
        assert_eq!(print::list(&issuers, Output::Name), "github\ncompany\nserver\n");
        let json: serde_json::Value = serde_json::from_str(&print::list(&issuers, Output::Json)).unwrap();
        assert_eq!((&json["schema_version"], &json["items"][1]["state"]), (&1.into(), &"down".into()));
    }

    #[tokio::test]
    async fn a_refresh_names_its_issuer() {
        let one = r#"{"name":"a","profile":"oidc","kind":"workload","url":"u","source":"file","state":"pinned","keys":1,"failures":0}"#;
        let script = Script::default().ok(one);
        script.api(None).refresh_issuer(&"a".parse().unwrap()).await.unwrap();
        assert_eq!(script.seen(), ["POST /v1/issuers/a/refresh {}"]);
    }
}
