//! `dayfly revoke`: an operator ends a lease, a task with everything it was given, or all that matches.

mod selected;

use dayfly_domain::{LeaseId, TaskId};

use super::{
    api::Api,
    args::{RevokeArgs, Revoked},
    door::Door,
    ended,
    failure::Failure,
    lease,
    session::Session,
    task,
};

pub async fn run(args: &RevokeArgs, session: &Session) -> Result<(), Failure> {
    let api = Door::find(&args.door, &session.vars)?.operator(&session.vars)?;
    match &args.selector {
        Some(typed) => selected::run(args, typed, &api, session).await,
        None => revoke(args, &api, session).await,
    }
}

async fn revoke(args: &RevokeArgs, api: &Api, session: &Session) -> Result<(), Failure> {
    match args.id {
        Some(Revoked::Lease(_)) if args.block || args.no_block => {
            Err(Failure::usage("the end of a single lease writes no block: `--block` and `--no-block` are for tasks"))
        }
        Some(Revoked::Lease(id)) => one_lease(id, args, api, session).await,
        Some(Revoked::Task(id)) => whole_task(id, args, api, session).await,
        None => Err(Failure::usage("nothing is named: a lease, a task or `--where`")),
    }
}

async fn one_lease(id: LeaseId, args: &RevokeArgs, api: &Api, session: &Session) -> Result<(), Failure> {
    if args.dry_run {
        let found = api.lease(id).await.map_err(|error| error.failure("the lease cannot be shown"))?;
        return lease::would_end(&found, session);
    }
    let answer = api.end_lease(id, args.reason.as_deref()).await;
    ended::show(&answer.map_err(|error| error.failure("the lease could not be ended"))?, session)
}

async fn whole_task(id: TaskId, args: &RevokeArgs, api: &Api, session: &Session) -> Result<(), Failure> {
    if args.dry_run {
        let found = api.task(id).await.map_err(|error| error.failure("the task cannot be shown"))?;
        return task::would_end(&found, session);
    }
    let answer = api.end_task(id, args.reason.as_deref(), Some(!args.no_block)).await;
    ended::show(&answer.map_err(|error| error.failure("the task could not be ended"))?, session)?;
    if !args.no_block {
        session.screen.say("blocked: the same job cannot open this task again before its deadline");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{api::script::Script, samples, session::test_session};

    fn args(id: Revoked) -> RevokeArgs {
        RevokeArgs {
            id: Some(id),
            selector: None,
            confirm: None,
            reason: Some("gone".to_owned()),
            block: false,
            no_block: false,
            dry_run: false,
            door: <_>::default(),
        }
    }

    #[tokio::test]
    async fn a_dry_run_only_reads() {
        let script = Script::default().ok(&samples::task(1).to_string()).ok(&samples::lease(2).to_string());
        let api = script.api(None);
        for id in [Revoked::Task(samples::task_id(1)), Revoked::Lease(samples::lease_id(2))] {
            revoke(&RevokeArgs { dry_run: true, ..args(id) }, &api, &test_session()).await.unwrap();
        }
        assert!(script.seen().iter().all(|line| line.starts_with("GET /v1/")), "{:?}", script.seen());
    }

    #[tokio::test]
    async fn a_task_is_blocked_unless_it_is_told_otherwise() {
        let id = samples::task_id(1);
        let body = samples::ended(&id.to_string()).to_string();
        let script = Script::default().ok(&body).ok(&body);
        let api = script.api(None);
        for no_block in [false, true] {
            revoke(&RevokeArgs { no_block, ..args(Revoked::Task(id)) }, &api, &test_session()).await.unwrap();
        }
        let bodies: Vec<serde_json::Value> = script
            .seen()
            .iter()
            .map(|line| serde_json::from_str(line.strip_prefix(&format!("POST /v1/tasks/{id}/end ")).unwrap()).unwrap())
            .collect();
        assert_eq!(bodies[0], serde_json::json!({ "reason": "gone", "block": true }));
        assert_eq!(bodies[1], serde_json::json!({ "reason": "gone", "block": false }));
    }

    #[tokio::test]
    async fn a_lease_takes_no_block() {
        let script = Script::default();
        let wrong = RevokeArgs { block: true, ..args(Revoked::Lease(samples::lease_id(1))) };
        assert_eq!(revoke(&wrong, &script.api(None), &test_session()).await.unwrap_err().exit(), 2);
        assert!(script.seen().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_there_is_exit_3() {
        let script = Script::default().refuse(404, "E-NOT-FOUND");
        let failure = revoke(&args(Revoked::Lease(samples::lease_id(1))), &script.api(None), &test_session()).await;
        assert_eq!(failure.unwrap_err().exit(), 3);
    }
}
