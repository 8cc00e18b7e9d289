//! `dayfly task ls|show|end`.

use std::path::PathBuf;

use dayfly_domain::{State, TaskId};

use super::{
    api::{Api, ApiError},
    args::{ShowTaskArgs, SiftArgs, TaskEndArgs, TaskListArgs},
    door::{Door, Way},
    ended,
    failure::Failure,
    print::{self, Shown, text},
    session::{Session, Vars},
    token::handle,
};
use crate::http::shapes::{Hold, Task};

pub async fn ls(args: &TaskListArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.sift.door().map_err(Failure::usage)?, &session.vars)?.operator(&session.vars)?;
    let filter = sift(&args.sift, session)?;
    let listed = api.tasks(&filter, args.sift.limit as usize).await;
    let listed = listed.map_err(|error| error.failure("the tasks cannot be listed"))?;
    more(listed.more, session);
    session.screen.data(&print::list(&listed.items, session.output))
}

pub async fn show(args: &ShowTaskArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    let task = api.task(args.id).await.map_err(|error| error.failure("the task cannot be shown"))?;
    session.screen.data(&print::one(&task, session.output))
}

pub async fn end(args: &TaskEndArgs, session: &Session) -> Result<(), Failure> {
    let api = holder(args, &session.vars)?;
    let (id, task) = which(args.id, &api).await?;
    if args.dry_run {
        let task = match task {
            Some(task) => task,
            None => api.task(id).await.map_err(|error| error.failure("the task cannot be shown"))?,
        };
        return would_end(&task, session);
    }
    let answer = api.end_task(id, args.reason.as_deref(), None).await;
    ended::show(&answer.map_err(|error| error.failure("the task could not be ended"))?, session)
}

/// Says what an end of this task would end.
pub fn would_end(task: &Task, session: &Session) -> Result<(), Failure> {
    let line = match task.state {
        State::Active => {
            format!("would end {} and its {} active leases; nothing was ended", task.id, task.leases.active)
        }
        state => format!("{} is {state} already; nothing would end", task.id),
    };
    session.screen.say(&line);
    session.screen.data(&print::one(task, session.output))
}

/// The filters of a list, as parameters of its query.
pub fn sift(args: &SiftArgs, session: &Session) -> Result<Vec<(&'static str, String)>, Failure> {
    let state = args.wanted_state().map_err(Failure::usage)?.map(|state| state.to_string());
    let expires_before = args.expires_before.map(|when| when.ahead(session.clock.wall()).to_string());
    let pairs = [
        ("state", state.as_ref()),
        ("job", args.job.as_ref()),
        ("workload", args.workload.as_ref()),
        ("owner", args.owner.as_ref()),
        ("issuer", args.issuer.as_ref()),
        ("template", args.template.as_ref()),
        ("target", args.target.as_ref()),
        ("expires_before", expires_before.as_ref()),
    ];
    Ok(pairs.into_iter().filter_map(|(name, value)| Some((name, value?.clone()))).collect())
}

/// Nobody should take a part for the whole.
pub fn more(more: bool, session: &Session) {
    if more {
        session.screen.say("there are more: raise --limit, or ask for less");
    }
}

/// Who ends: a task that is named, with a token, an operator; otherwise the handle, if there is
/// one; otherwise the socket.
fn holder(args: &TaskEndArgs, vars: &Vars) -> Result<Api, Failure> {
    let door = Door::find(&args.door, vars)?;
    let has_token = matches!(door.way, Way::Remote(_)) && vars.get("DAYFLY_TOKEN_FILE").is_some();
    let operator = has_token && args.id.is_some();
    let from_vars = || vars.get("DAYFLY_TASK_FILE").map(PathBuf::from).filter(|_| !operator);
    match args.task_file.clone().or_else(from_vars) {
        Some(file) => door.api(vars, Some(handle::read(&file)?.into_bearer())),
        None if args.id.is_none() => Err(no_id()),
        None => door.operator(vars),
    }
}

/// The task that is meant: named, or the one the handle sees.
async fn which(id: Option<TaskId>, api: &Api) -> Result<(TaskId, Option<Task>), Failure> {
    if let Some(id) = id {
        return Ok((id, None));
    }
    let own = api.tasks(&[], 2).await.map_err(|error: ApiError| error.failure("the handle's task cannot be read"))?;
    match <[Task; 1]>::try_from(own.items) {
        Ok([task]) => Ok((task.id, Some(task))),
        Err(tasks) if tasks.is_empty() => Err(Failure::new(super::failure::Exit::NotFound, "the handle has no task")),
        Err(_) => Err(Failure::usage("this caller sees several tasks: name the one to end")),
    }
}

fn no_id() -> Failure {
    Failure::usage("no task is named and there is no handle")
        .because("neither `--task-file` nor `DAYFLY_TASK_FILE` is set or used")
        .help("dayfly task end tsk_..., or dayfly task end --task-file FILE.task as `dayfly token --out FILE` wrote it")
}

impl Shown for Task {
    const HEAD: &'static [&'static str] = &["id", "state", "template", "owner", "workload", "leases", "deadline"];

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn cells(&self) -> Vec<String> {
        let leases = self.leases.active.to_string();
        let deadline = self.deadline.to_string();
        let state = self.cause.map_or_else(|| self.state.to_string(), |cause| format!("{} ({cause})", self.state));
        let cells = [self.template.clone(), self.owner.clone(), self.workload.clone()];
        [vec![self.id(), state], cells.to_vec(), vec![leases, deadline]].concat()
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let grants: Vec<_> = self.grants.iter().map(|(to, actions)| format!("{to}: {}", actions.join(", "))).collect();
        vec![
            ("id", self.id()),
            ("state", self.state.to_string()),
            ("cause", text(self.cause.as_ref())),
            ("template", self.template.clone()),
            ("purpose", self.purpose.clone()),
            ("ticket", text(self.ticket.as_ref())),
            ("owner", self.owner.clone()),
            ("workload", self.workload.clone()),
            ("issuer", self.issuer.clone()),
            ("job", text(self.job.as_ref())),
            ("opened", self.opened_at.to_string()),
            ("deadline", self.deadline.to_string()),
            ("ended", text(self.ended_at.as_ref())),
            ("ended by", text(self.ended_by.as_ref())),
            ("reason", text(self.reason.as_ref())),
            ("parent", text(self.parent.as_ref())),
            ("grants", grants.join("; ")),
            ("bound", self.bound.to_string()),
            ("leases", format!("{} active, {} ended", self.leases.active, self.leases.ended)),
            ("hold", self.hold.as_ref().map_or_else(String::new, hold)),
            ("conflicts", conflicts(self.conflicts)),
        ]
    }
}

fn hold(hold: &Hold) -> String {
    let last = hold.last_beat_at.map_or("no beat since the broker started".to_owned(), |at| format!("last beat {at}"));
    format!("{last}; ends {} unless a beat comes (grace {} s)", hold.lapses_at, hold.grace_s)
}

fn conflicts(count: u64) -> String {
    match count {
        0 => String::new(),
        _ => format!("{count}: its evidence or its job was shown with another key; one of the two may be a thief"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        api::script::Script,
        args::{DoorArgs, Output},
        samples,
    };

    fn sample(n: u64) -> Task {
        serde_json::from_value(samples::task(n)).unwrap()
    }

    #[test]
    fn tasks_in_the_four_formats() {
        let tasks = [sample(1), sample(2)];
        insta::assert_snapshot!(print::list(&tasks, Output::Table), @r"
        ID                              STATE   TEMPLATE     OWNER      WORKLOAD           LEASES  DEADLINE
        tsk_00000000010000000000000000  active  deploy-prod  team-shop  github/4411/88120  2       2026-11-22T05:15:00Z
        tsk_00000000020000000000000000  active  deploy-prod  team-shop  github/4411/88120  2       2026-11-22T05:15:00Z
        ");
        insta::assert_snapshot!(print::list(&tasks, Output::Name), @r"
        tsk_00000000010000000000000000
        tsk_00000000020000000000000000
        ");
        let json: serde_json::Value = serde_json::from_str(&print::list(&tasks, Output::Json)).unwrap();
        assert_eq!((json["schema_version"].as_u64(), json["items"].as_array().unwrap().len()), (Some(1), 2));
        let lines = print::list(&tasks, Output::Jsonl);
        assert_eq!(
            lines
                .lines()
                .filter(|line| line.starts_with(r#"{"schema_version":1,"#) || line.contains(r#""schema_version":1"#))
                .count(),
            2
        );
    }

    #[test]
    fn one_task_is_shown_whole() {
        insta::assert_snapshot!(print::one(&sample(1), Output::Table), @r"
        id         tsk_00000000010000000000000000
        state      active
        template   deploy-prod
        purpose    release the shop
        owner      team-shop
        workload   github/4411/88120
        issuer     github
        job        88120/9421/1/7
        opened     2026-11-22T05:00:00Z
        deadline   2026-11-22T05:15:00Z
        grants     shop-production: deploy:create, deploy:read
        bound      none
        leases     2 active, 1 ended
        ");
    }

    #[test]
    fn a_held_task_says_when_it_would_end() {
        let shown = |hold: serde_json::Value| {
            let mut task = samples::task(1);
            task["hold"] = hold;
            print::one(&serde_json::from_value::<Task>(task).unwrap(), Output::Table)
        };
        let hold = serde_json::json!({ "grace_s": 15, "lapses_at": "2026-11-22T05:01:15Z" });
        assert!(shown(hold.clone()).contains("hold       no beat since the broker started; ends 2026-11-22T05:01:15Z"));
        let mut beaten = hold;
        beaten["last_beat_at"] = "2026-11-22T05:01:00Z".into();
        assert!(shown(beaten).contains("last beat 2026-11-22T05:01:00Z; ends 2026-11-22T05:01:15Z unless"));
    }

    #[tokio::test]
    async fn a_handle_names_its_own_task() {
        let script = Script::default().ok(&serde_json::json!({ "items": [samples::task(7)] }).to_string());
        let (id, task) = which(None, &script.api(Some("dtc_x"))).await.unwrap();
        assert_eq!((id, task.unwrap().id), (samples::task_id(7), samples::task_id(7)));
        assert_eq!(script.seen(), ["GET /v1/tasks?limit=2 Bearer dtc_x"]);
    }

    #[tokio::test]
    async fn a_caller_who_sees_several_tasks_ends_none_by_accident() {
        let body = serde_json::json!({ "items": [samples::task(7), samples::task(8)] }).to_string();
        let failure = which(None, &Script::default().ok(&body).api(None)).await.unwrap_err();
        assert_eq!(failure.exit(), 2);
    }

    #[test]
    fn without_id_and_handle_an_operator_is_told_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("dayfly.sock"), "").unwrap();
        let door = DoorArgs { state: Some(dir.path().to_owned()), ..DoorArgs::default() };
        let args = TaskEndArgs { id: None, reason: None, task_file: None, dry_run: false, door };
        assert_eq!(holder(&args, &Vars::given(&[])).unwrap_err().exit(), 2);
    }
}
