//! The story's second job, which is killed: what becomes of its credential at introspection, on the
//! status list, and at a server that goes by the list. In: the story so far. Out: four steps more, each
//! with what it took from the kill on.

use std::{sync::Arc, time::Duration};

use dayfly_domain::{Secret, bundle::GRACE};
use dayfly_verifier::{
    Jws, KeySet, ListSettings, Listed, StatusRef,
    status::{LIST_ENTRIES_MAX, ListToken},
};
use hyper::Method;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    killed::{Running, Start},
    server::Check,
    story::{Story, call, expect, no_server, wrong},
};
use crate::cli::{
    api::{Request, Transport},
    failure::Failure,
};

/// What `edge.toml` has.
const TASK: &str = "flush-edge";
const AUDIENCE: &str = "https://edge.staging.shop.example.org";
const ACTION: &str = "edge:flush";

/// How often the server looks whether a list is half its `ttl` old.
const REFRESH: Duration = Duration::from_secs(1);
/// After the grace: the broker looks once a second, signs once a second, and the server reads again
/// after half of 15 s.
const WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);

impl Story {
    /// Nobody is left to end its task, so the broker does, a grace after the last beat.
    pub(super) async fn job_is_killed(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let mut job = self.exec().await?;
        let what = "another one, as `dayfly exec -- ...`: held by beats";
        self.page.step("CI job", what, Some(started.elapsed()))?;
        let server = self.start_edge().await?;
        let started = Instant::now();
        let answer = call(&server, &job.token).await?;
        expect(answer.status == 200, || format!("the server that reads the list answered {}", answer.status))?;
        self.page.step("edge server", "reads the status list, lets it in", Some(started.elapsed()))?;
        let entry = entry_of(&job.token)?;
        expect(self.listed(&entry).await? == 0, || "its entry is set".to_owned())?;
        self.page.more(&format!("{} · entry {} is 0", entry.uri, entry.idx))?;

        job.kill()?;
        let killed = Instant::now();
        self.page.step("accident", "kill -9: nobody is left to end its task", None)?;
        self.page.more(&format!("the broker waits for its beats; {GRACE} of grace"))?;
        let grace = Duration::from_secs(GRACE.as_s().into());
        let within =
            || expect(killed.elapsed() < grace + WITHIN, || "the grace is over, and its token lives".to_owned());
        while self.introspect(&job.token).await? != json!({ "active": false }) {
            within()?;
            sleep(POLL).await;
        }
        let what = "introspection: {\"active\": false}; from the kill on";
        self.page.step("broker", what, Some(killed.elapsed()))?;
        while self.listed(&entry).await? != 1 {
            within()?;
            sleep(POLL).await;
        }
        let what = format!("status list: entry {} is 1; from the kill on", entry.idx);
        self.page.step("broker", &what, Some(killed.elapsed()))?;
        while call(&server, &job.token).await?.status != 401 {
            within()?;
            sleep(POLL).await;
        }
        self.page.step("edge server", "refuses the token; from the kill on", Some(killed.elapsed()))?;
        self.page.more("it asked nobody about it: it reads the list anew every 7.5 s")
    }

    /// A server that goes by the list, and keeps it fresh.
    async fn start_edge(&mut self) -> Result<Transport, Failure> {
        let issuer = self.broker.addresses.issuer_url();
        let settings = ListSettings { ca_pem: Some(self.ca_pem()), ..ListSettings::new(issuer, AUDIENCE) };
        let listed = Arc::new(Listed::new(settings).await.map_err(|error| no_server(&error))?);
        let (fresh, stop) = (listed.clone(), self.broker.running.stopper());
        self.broker.running.also("edge server", async move {
            let mut tick = interval(REFRESH);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stop.run_until_cancelled(tick.tick()).await.is_some() {
                fresh.refresh().await;
            }
        });
        self.serve(Check::Reads(listed), ACTION.to_owned()).await
    }

    /// Started from our own binary, as its user would start it.
    async fn exec(&self) -> Result<Running, Failure> {
        let file = self.home.dir().join("evidence");
        self.home.put(&file, self.evidence()?.expose())?;
        let (addr, ca_file) = (self.broker.addresses.issuer_url(), self.home.ca_file());
        Running::start(Start { addr: &addr, ca_file: &ca_file, task: TASK, evidence_file: &file }).await
    }

    /// The entry, on the list as anybody gets it now.
    async fn listed(&self, entry: &StatusRef) -> Result<u8, Failure> {
        let unread = |error: &dyn std::fmt::Display| wrong("the status list cannot be read").because(error);
        let issuer = self.broker.addresses.issuer_url();
        let path = entry.uri.strip_prefix(&issuer).unwrap_or_default();
        let (jwks, list) = (self.fetch("/oauth2/jwks").await?, self.fetch(path).await?);
        let keys = KeySet::parse(&jwks).map_err(|error| unread(&error))?;
        let list = String::from_utf8_lossy(&list);
        let read = ListToken::read(&list, &keys, &issuer, LIST_ENTRIES_MAX, self.clock.wall());
        let list = read.map_err(|error| unread(&error))?;
        list.list().get(entry.idx).ok_or_else(|| unread(&"it has no such entry"))
    }

    async fn fetch(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let request = Request { method: Method::GET, path: path.to_owned(), authorization: None, body: None };
        let answer = self.to_broker()?.send(&request).await;
        let answer = answer.map_err(|error| wrong("the broker gave no answer").because(error))?;
        expect(answer.status == 200, || format!("`{path}` is answered with {}", answer.status))?;
        Ok(answer.body)
    }
}

/// Where the token says that its end is read.
fn entry_of(token: &Secret<String>) -> Result<StatusRef, Failure> {
    let parsed = Jws::parse(token.expose()).ok();
    let entry = parsed.and_then(|jws| jws.unverified_claims().get("status")?.get("status_list").cloned());
    let entry = entry.and_then(|entry| serde_json::from_value(entry).ok());
    entry.ok_or_else(|| wrong("the token names no status list"))
}
