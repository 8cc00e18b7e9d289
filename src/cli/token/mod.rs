//! `dayfly token`: one credential for one task, in a file or on stdout.
//!
//! A kept handle is used first; otherwise evidence is found and opens a task under a new handle.

mod deliver;
mod evidence;
mod exchange;
mod github;
pub mod handle;

use std::path::{Path, PathBuf};

use dayfly_domain::{Name, Reason};

use self::{
    evidence::{Evidence, Source},
    exchange::{Ask, NotOpened},
    handle::Handle,
};
use super::{
    api::{Api, ApiError},
    args::{Output, TokenArgs},
    door::{Door, Way},
    failure::{Exit, Failure},
    proof,
    session::Session,
};
use crate::http::shapes::TokenAnswer;

pub async fn run(args: &TokenArgs, session: &Session) -> Result<(), Failure> {
    let place = handle::place(args, &session.vars);
    let ask = ask(args, session)?;
    if session.output == Output::Name && args.out_file().is_none() {
        return Err(Failure::usage("`--output name` would lose the token").help("add --out FILE"));
    }
    let door = Door::find(&args.door, &session.vars)?;
    door.dpop_key.as_deref().map(proof::make_if_absent).transpose()?;
    let api = door.api(&session.vars, None)?;
    let answer = match renewed(&api, &ask, place.as_deref(), session).await? {
        Some(answer) => answer,
        None => opened(&door, &api, &ask, args, place.as_deref(), session).await?,
    };
    deliver::deliver(&answer, &ask.template, args.out_file(), place.as_deref(), session)
}

fn ask(args: &TokenArgs, session: &Session) -> Result<Ask, Failure> {
    let from_vars = || session.vars.get("DAYFLY_TASK").map(|text| text.parse::<Name>());
    let template = match args.task.clone().map(Ok).or_else(from_vars) {
        Some(Ok(name)) => name.to_string(),
        Some(Err(error)) => return Err(Failure::usage("`DAYFLY_TASK` names no template").because(error)),
        None => return Err(Failure::usage("no task is named").help("dayfly token --task NAME, or set DAYFLY_TASK")),
    };
    let ttl_s = args.ttl.map(|ttl| ttl.as_s());
    Ok(Ask { template, target: args.target.clone(), actions: args.actions.clone(), ttl_s, ticket: args.ticket.clone() })
}

/// With the kept handle; `None` when there is none, or its task is over.
async fn renewed(
    api: &Api,
    ask: &Ask,
    place: Option<&Path>,
    session: &Session,
) -> Result<Option<TokenAnswer>, Failure> {
    let Some(handle) = place.map(handle::read_if_kept).transpose()?.flatten() else { return Ok(None) };
    match exchange::renew(api, ask, &handle).await {
        Ok(answer) => {
            if ask.ticket.is_some() {
                session.screen.warn("the ticket was fixed when the task opened: `--ticket` is not used");
            }
            Ok(Some(answer))
        }
        Err(error) if matches!(error.reason(), Some(Reason::Ended | Reason::Handle)) => {
            session.screen.say(match error.reason() {
                Some(Reason::Handle) => {
                    "the kept handle is of no live task, or bound to another key than --dpop-key; opening a new one"
                }
                _ => "the kept handle's task is over; opening a new one",
            });
            Ok(None)
        }
        Err(error) => Err(refused(&error, place)),
    }
}

/// With evidence, under a new handle that is kept before anything is sent.
async fn opened(
    door: &Door,
    api: &Api,
    ask: &Ask,
    args: &TokenArgs,
    place: Option<&Path>,
    session: &Session,
) -> Result<TokenAnswer, Failure> {
    let source = evidence::probe(args.evidence_file.as_deref(), &session.vars)?;
    let evidence = fetched(source, door, api, session).await?;
    if let Some(line) = deliver::identity(&evidence) {
        session.screen.say(&line);
    }
    let handle = Handle::make()?;
    if let Some(file) = place {
        handle.keep(file)?;
    }
    let opened = exchange::open(api, ask, &evidence.token, &handle).await;
    opened.map_err(|not_opened| {
        forget(&not_opened, place);
        refused(&not_opened.error, None)
    })
}

async fn fetched(source: Source, door: &Door, api: &Api, session: &Session) -> Result<Evidence, Failure> {
    let Source::GitHub { url, request_token } = source else { return source.read() };
    let metadata =
        api.metadata().await.map_err(|error| error.failure("the broker's name for itself cannot be read"))?;
    check_issuer(door, &metadata.issuer)?;
    github::fetch(&url, &request_token, &metadata.issuer, &session.vars).await
}

/// SECURITY: a server that names another broker as its issuer would be given evidence that is
/// good there (mix-up, T-60); `a_broker_cannot_ask_for_evidence_in_the_name_of_another`.
fn check_issuer(door: &Door, issuer: &str) -> Result<(), Failure> {
    match &door.way {
        Way::Remote(addr) if addr != issuer => {
            let what = format!("the broker at `{addr}` calls itself `{issuer}`");
            Err(Failure::new(Exit::NotAuthenticated, what).help("set DAYFLY_ADDR to the broker's issuer URL, exactly"))
        }
        Way::Remote(_) | Way::Socket(_) => Ok(()),
    }
}

/// A handle whose task was refused opens nothing: a later `task end` should not find it.
fn forget(not_opened: &NotOpened, place: Option<&Path>) {
    if let Some(file) = place.filter(|_| !not_opened.task_may_exist) {
        // A file that stays does no harm: its handle is unknown.
        let _ = std::fs::remove_file(file);
    }
}

fn refused(error: &ApiError, place: Option<&Path>) -> Failure {
    let failure = error.failure("no token was issued");
    match (error.reason(), place) {
        (Some(Reason::Template), Some(file)) => failure.help(format!(
            "`{}` keeps the handle of another template's task: use another --task-file, or end that task first",
            PathBuf::from(file).display()
        )),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        api::script::Script,
        samples,
        session::{Vars, test_session},
    };

    fn given(words: &[&str]) -> TokenArgs {
        use clap::Parser;
        let line = ["dayfly", "token"].iter().chain(words);
        match crate::cli::args::Cli::try_parse_from(line).unwrap().verb {
            crate::cli::args::Verb::Token(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn with(vars: &[(&str, &str)]) -> Session {
        Session { vars: Vars::given(vars), ..test_session() }
    }

    #[test]
    fn the_task_is_named_by_option_or_variable() {
        let session = with(&[("DAYFLY_TASK", "from-var")]);
        assert_eq!(ask(&given(&["--task", "from-arg"]), &session).unwrap().template, "from-arg");
        assert_eq!(ask(&given(&[]), &session).unwrap().template, "from-var");
        assert_eq!(ask(&given(&[]), &with(&[])).unwrap_err().exit(), 2);
        assert_eq!(ask(&given(&[]), &with(&[("DAYFLY_TASK", "tsk_x")])).unwrap_err().exit(), 2);
    }

    #[test]
    fn a_broker_cannot_ask_for_evidence_in_the_name_of_another() {
        let door = |way| Door { way, dpop_key: None };
        let socket = door(Way::Socket("/s".into()));
        let door = door(Way::Remote("https://evil.example".to_owned()));
        assert_eq!(check_issuer(&door, "https://b.example").unwrap_err().exit(), 4);
        assert!(check_issuer(&door, "https://evil.example").is_ok());
        assert!(check_issuer(&socket, "https://b.example").is_ok());
    }

    /// Runs the part after the door with a script for a broker.
    async fn token(script: &Script, place: &Path, session: &Session) -> Result<TokenAnswer, Failure> {
        let (api, args) = (script.api(None), given(&["--task", "deploy-prod"]));
        let ask = ask(&args, session)?;
        match renewed(&api, &ask, Some(place), session).await? {
            Some(answer) => Ok(answer),
            None => {
                opened(&Door { way: Way::Socket("/s".into()), dpop_key: None }, &api, &ask, &args, Some(place), session)
                    .await
            }
        }
    }

    #[tokio::test]
    async fn the_handle_is_kept_and_a_later_token_uses_it_without_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        let script = Script::default().ok(&samples::issued(1).to_string()).ok(&samples::issued(2).to_string());
        token(&script, &place, &with(&[("DAYFLY_ID_TOKEN", "a.b.c")])).await.unwrap();
        let kept = handle::read(&place).unwrap();
        token(&script, &place, &with(&[])).await.unwrap();
        assert!(script.seen()[1].contains(&format!("subject_token={}&supersede=30", kept.expose())));
    }

    #[tokio::test]
    async fn when_the_task_is_over_new_evidence_opens_a_new_one_under_a_new_handle() {
        for code in ["E-ENDED", "E-HANDLE"] {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().join("t.task");
            Handle::make().unwrap().keep(&place).unwrap();
            let old = handle::read(&place).unwrap();
            let script = Script::default().refuse(400, code).ok(&samples::issued(1).to_string());
            token(&script, &place, &with(&[("DAYFLY_ID_TOKEN", "a.b.c")])).await.unwrap();
            let new = handle::read(&place).unwrap();
            assert_ne!(old.expose(), new.expose());
            assert!(script.seen()[1].contains(&new.s256()));
        }
    }

    #[tokio::test]
    async fn a_refused_task_leaves_no_handle_but_a_lost_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        let session = with(&[("DAYFLY_ID_TOKEN", "a.b.c")]);
        let failure = token(&Script::default().refuse(400, "E-NOMATCH"), &place, &session).await.err().unwrap();
        assert_eq!((failure.exit(), place.exists()), (77, false));
        let lost = (0..6).fold(Script::default(), |script, _| script.lose());
        assert_eq!(token(&lost, &place, &session).await.err().unwrap().exit(), 69);
        assert!(handle::read(&place).is_ok());
        let found = Script::default().lose().refuse(400, "E-PER-JOB");
        std::fs::remove_file(&place).unwrap();
        assert_eq!(token(&found, &place, &session).await.err().unwrap().exit(), 77);
        assert!(handle::read(&place).is_ok(), "its task is open: only a further credential was refused");
    }

    #[tokio::test]
    async fn a_handle_of_another_template_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        Handle::make().unwrap().keep(&place).unwrap();
        let script = Script::default().refuse(400, "E-TEMPLATE");
        let failure = token(&script, &place, &with(&[])).await.err().unwrap();
        assert!(failure.text("error").contains("--task-file"));
        assert!(handle::read(&place).is_ok());
    }
}
