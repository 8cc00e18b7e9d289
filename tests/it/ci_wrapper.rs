//! `deploy/ci` as a CI runs it: stand-ins for the runners of GitHub and GitLab, the real program, and a
//! real broker. What an operator sees says whether a credential is dead.

mod github;
mod gitlab;
mod snippet;

use std::{fs, path::Path};

use serde_json::Value;

use super::dev::{self, Dev};

/// A broker, a job that it knows, and an endpoint's certificate.
struct Stage {
    work: tempfile::TempDir,
    broker: Dev,
}

impl Stage {
    fn new() -> Self {
        let work = dev::work();
        let broker = Dev::start(work.path(), &[]);
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(work.path().join("runner.pem"), own.cert.pem()).unwrap();
        fs::write(work.path().join("runner.key"), own.signing_key.serialize_pem()).unwrap();
        Self { work, broker }
    }

    fn path(&self) -> &Path {
        self.work.path()
    }

    fn file(&self, name: &str) -> String {
        self.path().join(name).to_str().unwrap().to_owned()
    }

    fn var(&self, name: &str) -> String {
        dev::env(self.path())[name].clone()
    }

    /// Every task of the job, newest first.
    fn tasks(&self) -> Vec<Value> {
        let listed =
            dev::good(self.path(), &["task", "ls", "--template", &self.var("DAYFLY_DEV_TASK"), "--output", "json"]);
        serde_json::from_str::<Value>(&listed).unwrap()["items"].as_array().unwrap().clone()
    }

    /// The one task that there was: how it is, and by what it ended.
    fn one_task(&self) -> (String, String) {
        let tasks = self.tasks();
        assert_eq!(tasks.len(), 1, "{tasks:?}");
        let text = |name: &str| tasks[0][name].as_str().unwrap_or_default().to_owned();
        (text("state"), text("cause"))
    }
}

fn over(cause: &str) -> (String, String) {
    ("ended".to_owned(), cause.to_owned())
}
