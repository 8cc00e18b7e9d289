//! `dayfly token`: one credential for one task, in a file or on stdout.
//!
//! A kept handle is used first; otherwise evidence is found and opens a task under a new handle.

pub mod deliver;
pub mod exchange;
pub mod handle;
mod hold;
mod kept;

use std::path::Path;

use dayfly_domain::{Name, Reason};
use rustix::process::getppid;

pub(in crate::cli) use self::kept::Kept;
use self::{
    deliver::Places,
    exchange::{Ask, Form},
    handle::Handle,
};
use super::{
    api::{Api, ApiError},
    args::{AskArgs, Output, TokenArgs},
    door::{Door, Way},
    failure::{Exit, Failure},
    identity::{self, Evidence, Machine, Source, Surroundings},
    progress::Progress,
    proof,
    session::Session,
};
use crate::{http::shapes::TokenAnswer, sys::offload::offload};

pub async fn run(args: &TokenArgs, session: &Session) -> Result<(), Failure> {
    // As it is now: it may be gone when there is a token.
    let parent = getppid();
    let place = handle::place(args.task_file.as_deref(), args.out_file(), &session.vars);
    let ask = ask(&args.ask, session)?;
    if session.output == Output::Name && args.out_file().is_none() {
        return Err(Failure::usage("`--output name` would lose the token").help("add --out FILE"));
    }
    deliver::check(args.out_file(), ask.form.noun())?;
    let door = Door::find(&args.door, &session.vars)?;
    door.dpop_key.as_deref().map(proof::make_if_absent).transpose()?;
    let api = door.api(&session.vars, None)?.telling(Progress::of(&session.vars));
    let mut kept = place.as_deref().map(|file| Kept::hold(file, &session.screen)).transpose()?;
    if let Some((file, kept)) = args.out_file().zip(kept.as_ref()).filter(|(file, kept)| kept.is(file)) {
        return Err(Failure::usage(format!("`{}` would hold both the token and the handle", file.display()))
            .help(format!("name another file than `{}` with --task-file", kept.path().display())));
    }
    let granted = granted(&door, &api, &ask, &args.ask, kept.as_mut(), session).await?;
    // Others may renew and end with the file from now on.
    drop(kept);
    let places = Places { out: args.out_file(), handle: place.as_deref(), held: args.hold };
    deliver::deliver(&granted.answer, &ask.template, &places, session)?;
    if args.hold { Box::pin(hold::run(&door, &ask, &granted, &places, parent, session)).await } else { Ok(()) }
}

/// A credential, and the handle of its task.
pub(in crate::cli) struct Granted {
    pub answer: TokenAnswer,
    pub handle: Handle,
}

/// What became of the kept handle.
enum Renewed {
    Credential(Box<Granted>),
    /// There is none, or its task is over.
    Nothing,
    /// The broker does not know it, or not from who holds this key.
    Unknown(Handle),
}

/// A credential: with the kept handle where there is one, otherwise with evidence.
pub(in crate::cli) async fn granted(
    door: &Door,
    api: &Api,
    ask: &Ask,
    args: &AskArgs,
    kept: Option<&mut Kept>,
    session: &Session,
) -> Result<Granted, Failure> {
    let unknown = match renewed(api, ask, kept.as_deref(), session).await? {
        Renewed::Credential(granted) => return Ok(*granted),
        Renewed::Unknown(handle) => Some(handle),
        Renewed::Nothing => None,
    };
    anew(door, api, ask, args, unknown, kept, session).await
}

/// With evidence: opens a task. `unknown`: a handle that may be of one.
pub(in crate::cli) async fn anew(
    door: &Door,
    api: &Api,
    ask: &Ask,
    args: &AskArgs,
    unknown: Option<Handle>,
    kept: Option<&mut Kept>,
    session: &Session,
) -> Result<Granted, Failure> {
    let evidence = evidence(door, api, args, session).await?;
    let opened = opened(api, ask, &evidence, unknown, kept).await;
    opened.map_err(|failure| explained(failure, &ask.template, args.evidence_file.as_deref()))
}

/// Who we are, found by itself, and told.
pub(in crate::cli) async fn evidence(
    door: &Door,
    api: &Api,
    args: &AskArgs,
    session: &Session,
) -> Result<Evidence, Failure> {
    let around = Surroundings { vars: &session.vars, machine: &Machine::this(), audience: door.audience() };
    let source = identity::find(args.evidence_file.as_deref(), &around)?;
    let evidence = fetched(source, door, api, session).await?;
    session.screen.say(&deliver::identity(&evidence));
    Ok(evidence)
}

/// Evidence that policy never saw: who has the bundle sees piece by piece what is wrong with it.
pub(in crate::cli) fn explained(failure: Failure, template: &str, file: Option<&Path>) -> Failure {
    let code = failure.parts().code.as_deref().and_then(Reason::from_code);
    let before_policy = matches!(
        code,
        Some(
            Reason::Issuer
                | Reason::Audience
                | Reason::Signature
                | Reason::Expired
                | Reason::Claim
                | Reason::Stranger
                | Reason::Event
                | Reason::Appraisal
                | Reason::Own
        )
    );
    if !before_policy || failure.parts().help.is_some() {
        return failure;
    }
    let file = file.filter(|file| *file != Path::new("-"));
    let file = file.map(|file| format!(" --evidence-file {}", file.display())).unwrap_or_default();
    failure.help(format!("as an operator, or with the bundle (--policies DIR): dayfly explain --task {template}{file}"))
}

/// What is asked, with the variables.
pub(in crate::cli) fn ask(args: &AskArgs, session: &Session) -> Result<Ask, Failure> {
    let from_vars = || session.vars.get("DAYFLY_TASK").map(|text| text.parse::<Name>());
    let template = match args.task.clone().map(Ok).or_else(from_vars) {
        Some(Ok(name)) => name.to_string(),
        Some(Err(error)) => return Err(Failure::usage("`DAYFLY_TASK` names no template").because(error)),
        None => return Err(Failure::usage("no task is named").help("add --task NAME, or set DAYFLY_TASK")),
    };
    let ttl_s = args.ttl.map(|ttl| ttl.as_s());
    let AskArgs { target, actions, ticket, .. } = args.clone();
    Ok(Ask { template, target, actions, ttl_s, ticket, form: Form::Token })
}

/// With the kept handle, where there is one.
async fn renewed(api: &Api, ask: &Ask, kept: Option<&Kept>, session: &Session) -> Result<Renewed, Failure> {
    let Some((kept, handle)) = kept.map(|kept| Ok((kept, kept.handle()?))).transpose()? else {
        return Ok(Renewed::Nothing);
    };
    let Some(handle) = handle else { return Ok(Renewed::Nothing) };
    match exchange::renew(api, ask, &handle).await {
        Ok(answer) => {
            if ask.ticket.is_some() {
                session.screen.warn("the ticket was fixed when the task opened: `--ticket` is not used");
            }
            Ok(Renewed::Credential(Box::new(Granted { answer, handle })))
        }
        Err(error) if error.reason() == Some(Reason::Ended) => {
            session.screen.say("the kept handle's task is over; opening a new one");
            Ok(Renewed::Nothing)
        }
        Err(error) if error.reason() == Some(Reason::Handle) => {
            session
                .screen
                .say("the kept handle is of no task, or bound to another key than --dpop-key; trying to open");
            Ok(Renewed::Unknown(handle))
        }
        Err(error) => Err(refused(&error, ask, Some(kept))),
    }
}

/// With evidence, under a new handle that is kept before anything is sent.
///
/// SECURITY: an unknown handle may be one of a live task that is bound to a key, and it is all that can
/// end that task. So it is not replaced but used: where it belongs to a task the broker says so
/// (`E-HANDLE-USED`) and takes no evidence; `a_handle_that_may_be_of_a_live_task_is_never_lost`.
async fn opened(
    api: &Api,
    ask: &Ask,
    evidence: &Evidence,
    unknown: Option<Handle>,
    mut kept: Option<&mut Kept>,
) -> Result<Granted, Failure> {
    let is_unknown = unknown.is_some();
    let handle = unknown.map_or_else(Handle::make, Ok)?;
    if let Some(kept) = kept.as_deref_mut().filter(|_| !is_unknown) {
        kept.put(&handle)?;
    }
    let opened = exchange::open(api, ask, &evidence.token, &handle).await;
    let answer = opened.map_err(|not_opened| {
        if let Some(kept) = kept.as_deref_mut().filter(|_| !not_opened.task_may_exist) {
            kept.take_back();
        }
        refused(&not_opened.error, ask, kept.as_deref().filter(|_| is_unknown))
    })?;
    Ok(Granted { answer, handle })
}

pub(in crate::cli) async fn fetched(
    source: Source,
    door: &Door,
    api: &Api,
    session: &Session,
) -> Result<Evidence, Failure> {
    if !source.wants_audience() {
        // Stdin may be silent for as long as it likes, and signals are heard meanwhile.
        let read = offload(move || source.read()).await;
        return read.map_err(|error| Failure::failed("the evidence was not read").because(error))?;
    }
    let metadata =
        api.metadata().await.map_err(|error| error.failure("the broker's name for itself cannot be read"))?;
    check_issuer(door, &metadata.issuer)?;
    source.fetch(&metadata.issuer, &session.vars).await
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

/// `kept`: where the handle that was presented lies, unless it is a new one.
fn refused(error: &ApiError, ask: &Ask, kept: Option<&Kept>) -> Failure {
    let none = format!("no {} was issued", ask.form.noun());
    let failure = error.failure(&none);
    let Some(kept) = kept else { return failure };
    let file = kept.path().display();
    match error.reason() {
        Some(Reason::Template) => failure.help(format!(
            "`{file}` keeps the handle of another template's task: use another --task-file, or end that task first"
        )),
        Some(Reason::HandleUsed | Reason::Handle) => Failure::with_exit(
            failure.exit(),
            format!("{none}: `{file}` keeps the handle of a task that may be alive, bound to another key"),
        )
        .told_like(&failure)
        .help("give the --dpop-key of that task, or --task-file OTHER; if that task is over, remove the file yourself"),
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

    #[test]
    fn a_refusal_before_policy_says_how_to_see_why() {
        let failure = |code| Failure::failed("no token was issued").answered(code, 400, None, None);
        let help = |code, file| explained(failure(code), "deploy", file).parts().help.clone();
        let file = help("E-AUDIENCE", Some(Path::new("f.jwt"))).unwrap();
        assert!(file.ends_with("dayfly explain --task deploy --evidence-file f.jwt"), "{file}");
        for file in [None, Some(Path::new("-"))] {
            assert!(help("E-SIGNATURE", file).unwrap().ends_with("dayfly explain --task deploy"));
        }
        assert_eq!(help("E-NOMATCH", None), None);
    }

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
        assert_eq!(ask(&given(&["--task", "from-arg"]).ask, &session).unwrap().template, "from-arg");
        assert_eq!(ask(&given(&[]).ask, &session).unwrap().template, "from-var");
        assert_eq!(ask(&given(&[]).ask, &with(&[])).unwrap_err().exit(), 2);
        assert_eq!(ask(&given(&[]).ask, &with(&[("DAYFLY_TASK", "tsk_x")])).unwrap_err().exit(), 2);
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
    async fn token_of(script: &Script, place: &Path, session: &Session) -> Result<Granted, Failure> {
        let (api, args) = (script.api(None), given(&["--task", "deploy-prod"]));
        let door = Door { way: Way::Socket("/s".into()), dpop_key: None };
        let mut kept = Kept::hold(place, &session.screen)?;
        granted(&door, &api, &ask(&args.ask, session)?, &args.ask, Some(&mut kept), session).await
    }

    fn keep(place: &Path) -> Handle {
        let handle = Handle::make().unwrap();
        Kept::hold(place, &test_session().screen).unwrap().put(&handle).unwrap();
        handle
    }

    #[tokio::test]
    async fn the_handle_is_kept_and_a_later_token_uses_it_without_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        let script = Script::default().ok(&samples::issued(1).to_string()).ok(&samples::issued(2).to_string());
        token_of(&script, &place, &with(&[("DAYFLY_ID_TOKEN", "a.b.c")])).await.unwrap();
        let kept = handle::read(&place).unwrap();
        token_of(&script, &place, &with(&[])).await.unwrap();
        assert!(script.seen()[1].contains(&format!("subject_token={}&supersede=30", kept.expose())));
    }

    #[tokio::test]
    async fn when_the_task_is_over_new_evidence_opens_a_new_one_under_a_new_handle() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        let old = keep(&place);
        let session = with(&[("DAYFLY_ID_TOKEN", "a.b.c")]);
        let script = Script::default().refuse(400, "E-ENDED").refuse(400, "E-NOMATCH");
        assert!(token_of(&script, &place, &session).await.is_err());
        assert_eq!(handle::read(&place).unwrap().expose(), old.expose(), "as it was");
        let script = Script::default().refuse(400, "E-ENDED").ok(&samples::issued(1).to_string());
        token_of(&script, &place, &session).await.unwrap();
        let new = handle::read(&place).unwrap();
        assert_ne!(old.expose(), new.expose());
        assert!(script.seen()[1].contains(&new.s256()));
    }

    #[tokio::test]
    async fn a_handle_that_may_be_of_a_live_task_is_never_lost() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        let old = keep(&place);
        let session = with(&[("DAYFLY_ID_TOKEN", "a.b.c")]);
        for code in ["E-HANDLE-USED", "E-NOMATCH", "E-REPLAYED", "E-DPOP", "E-EXPIRED"] {
            let script = Script::default().refuse(400, "E-HANDLE").refuse(400, code);
            let failure = token_of(&script, &place, &session).await.err().unwrap();
            assert_eq!(failure.parts().code.as_deref(), Some(code));
            assert_eq!(failure.text("error").contains("--task-file OTHER"), code == "E-HANDLE-USED");
            assert_eq!(handle::read(&place).unwrap().expose(), old.expose(), "{code}");
        }
        let script = Script::default().refuse(400, "E-HANDLE").ok(&samples::issued(1).to_string());
        token_of(&script, &place, &session).await.unwrap();
        assert!(script.seen()[1].contains(&old.s256()), "of no task: it opens one");
        assert_eq!(handle::read(&place).unwrap().expose(), old.expose());
    }

    #[tokio::test]
    async fn a_refused_task_leaves_no_handle_but_a_lost_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        let session = with(&[("DAYFLY_ID_TOKEN", "a.b.c")]);
        let failure = token_of(&Script::default().refuse(400, "E-NOMATCH"), &place, &session).await.err().unwrap();
        assert_eq!((failure.exit(), place.exists()), (77, false));
        let lost = (0..6).fold(Script::default(), |script, _| script.lose());
        assert_eq!(token_of(&lost, &place, &session).await.err().unwrap().exit(), 69);
        assert!(handle::read(&place).is_ok());
        let found = Script::default().lose().refuse(400, "E-PER-JOB");
        std::fs::remove_file(&place).unwrap();
        assert_eq!(token_of(&found, &place, &session).await.err().unwrap().exit(), 77);
        assert!(handle::read(&place).is_ok(), "its task is open: only a further credential was refused");
    }

    #[tokio::test]
    async fn a_handle_of_another_template_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("t.task");
        keep(&place);
        let script = Script::default().refuse(400, "E-TEMPLATE");
        let failure = token_of(&script, &place, &with(&[])).await.err().unwrap();
        assert!(failure.text("error").contains("--task-file"));
        assert!(handle::read(&place).is_ok());
    }
}
