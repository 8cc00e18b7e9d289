//! `dayfly policy usage`: what each row gives and how often it was used, never used first.

use super::{
    args::{Output, PolicyUsageArgs},
    door::Door,
    failure::{Exit, Failure},
    print::{self, Shown},
    session::Session,
};
use crate::http::shapes::Entitlement;

pub async fn run(args: &PolicyUsageArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let unused_since = args.unused_for.map(|span| session.clock.wall().plus_ms(-span.as_ms()).to_string());
    let filter = [("template", args.template.as_ref().map(ToString::to_string)), ("unused_since", unused_since)];
    let filter: Vec<_> = filter.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let listed = api.entitlements(&filter).await;
    let mut listed = listed.map_err(|error| error.failure("the uses cannot be listed"))?;
    unknown(args, listed.len())?;
    listed.sort_by_key(|one| one.last_used_at);
    if let (Some(first), Output::Table) = (listed.first(), session.output) {
        let never = listed.iter().filter(|one| one.count == 0).count();
        let since = first.counted_since;
        session.screen.say(&format!("{} entitlements, {never} of them never used since {since}", listed.len()));
    }
    session.screen.data(&print::list(&listed, session.output))
}

/// A template that is there has rows, unless only the unused ones were asked for.
fn unknown(args: &PolicyUsageArgs, found: usize) -> Result<(), Failure> {
    match &args.template {
        Some(name) if found == 0 && args.unused_for.is_none() => {
            let what = format!("there is no template `{name}` in force, or it has no rows");
            Err(Failure::new(Exit::NotFound, what).help("dayfly policy usage   # of all templates"))
        }
        _ => Ok(()),
    }
}

impl Shown for Entitlement {
    const HEAD: &'static [&'static str] = &["template", "row", "owner", "target", "action", "used", "last"];

    fn id(&self) -> String {
        format!("{}/{}/{}#{}", self.template, self.row, self.target, self.action)
    }

    fn cells(&self) -> Vec<String> {
        let Self { template, row, owner, target, action, count, last_used_at, counted_since: _ } = self;
        let last = last_used_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
        let names = [template, row, owner, target, action].map(String::clone);
        names.into_iter().chain([count.to_string(), last]).collect()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let since = ("counted since", self.counted_since.to_string());
        Self::HEAD.iter().copied().zip(self.cells()).chain([since]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::api::script::Script;

    const ANSWER: &str = r#"{"items":[
        {"template":"deploy","row":"main","owner":"team","target":"shop","action":"deploy:create","count":2,
         "last_used_at":"2026-11-22T05:00:00Z","counted_since":"2026-11-01T00:00:00Z"},
        {"template":"deploy","row":"main","owner":"team","target":"shop","action":"deploy:undo","count":0,
         "counted_since":"2026-11-01T00:00:00Z"}]}"#;

    #[test]
    fn a_template_that_is_not_there_is_not_an_empty_table() {
        use clap::Parser;
        let look = |line: &str, found| {
            let cli = crate::cli::args::Cli::try_parse_from(format!("dayfly policy usage {line}").split_whitespace());
            match cli.unwrap().verb {
                crate::cli::args::Verb::Policy(crate::cli::args::PolicyVerb::Usage(args)) => unknown(&args, found),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(look("--template nowhere", 0).unwrap_err().exit(), 3);
        assert!(look("--template deploy", 1).is_ok() && look("", 0).is_ok());
        assert!(look("--template deploy --unused-for 30d", 0).is_ok());
    }

    #[tokio::test]
    async fn uses_are_shown_in_every_format() {
        let script = Script::default().ok(ANSWER);
        let listed = script.api(Some("eyJ")).entitlements(&[("template", "deploy".to_owned())]).await.unwrap();
        assert_eq!(script.seen(), ["GET /v1/entitlements?template=deploy&limit=500 Bearer eyJ"]);
        insta::assert_snapshot!(print::list(&listed, Output::Table), @r"
        TEMPLATE  ROW   OWNER  TARGET  ACTION         USED  LAST
        deploy    main  team   shop    deploy:create  2     2026-11-22T05:00:00Z
        deploy    main  team   shop    deploy:undo    0     never
        ");
        assert!(print::list(&listed, Output::Name).starts_with("deploy/main/shop#deploy:create\n"));
        let json: serde_json::Value = serde_json::from_str(&print::list(&listed, Output::Json)).unwrap();
        assert_eq!((&json["items"][1]["count"], json["items"][1].get("last_used_at")), (&0.into(), None));
    }
}
