//! `dayfly key ls|taint`: the keys that sign, and where each is in its life.

pub mod taint;

use super::{
    args::KeyListArgs,
    door::Door,
    failure::Failure,
    print::{self, Shown, text},
    session::Session,
};
use crate::http::shapes::Key;

pub async fn ls(args: &KeyListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let keys = api.keys().await.map_err(|error| error.failure("the keys cannot be listed"))?;
    session.screen.data(&print::list(&keys, session.output))
}

impl Shown for Key {
    const HEAD: &'static [&'static str] = &["kid", "state", "use", "alg", "since", "until"];

    fn id(&self) -> String {
        self.kid.clone()
    }

    fn cells(&self) -> Vec<String> {
        let Self { kid, usage, alg, state, since, until } = self;
        let state = taint::word(*state);
        let since = since.to_string();
        vec![kid.clone(), state.to_owned(), usage.clone(), alg.clone(), since, text(until.as_ref())]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEAD.iter().copied().zip(self.cells()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, args::Output};

    const ANSWER: &str = r#"{"items":[
        {"kid":"k-1","use":"sig","alg":"ES256","state":"active","since":"2026-11-22T05:00:00Z","until":"2026-11-23T05:00:00Z"},
        {"kid":"k-2\u001b[2J","use":"sig","alg":"ES256","state":"next","since":"2026-11-22T05:00:00Z","new":1}]}"#;

    #[tokio::test]
    async fn keys_are_shown_in_every_format() {
        let script = Script::default().ok(ANSWER);
        let keys = script.api(Some("eyJ")).keys().await.unwrap();
        assert_eq!(script.seen(), ["GET /v1/keys Bearer eyJ"]);
        insta::assert_snapshot!(print::list(&keys, Output::Table), @r"
        KID           STATE   USE  ALG    SINCE                 UNTIL
        k-1           active  sig  ES256  2026-11-22T05:00:00Z  2026-11-23T05:00:00Z
        k-2\u{1b}[2J  next    sig  ES256  2026-11-22T05:00:00Z  -
        ");
        assert_eq!(print::list(&keys[..1], Output::Name), "k-1\n");
        let json: serde_json::Value = serde_json::from_str(&print::list(&keys, Output::Json)).unwrap();
        assert_eq!((&json["schema_version"], &json["items"][0]["state"]), (&1.into(), &"active".into()));
        let lines = print::list(&keys, Output::Jsonl);
        assert!(lines.lines().count() == 2 && lines.lines().all(|line| line.contains("\"schema_version\":1")));
    }
}
