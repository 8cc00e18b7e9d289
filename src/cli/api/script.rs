//! A broker in a test's hand: answers in order, and what was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use dayfly_domain::Secret;

use super::{Answer, Api, Request, Transport, WireError};

#[derive(Debug, Clone, Default)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Result<Answer, WireError>>,
    seen: Vec<String>,
    pauses: Vec<Duration>,
    proof: Option<String>,
}

impl Script {
    pub fn ok(self, body: &str) -> Self {
        self.then(Ok(Answer { status: 200, retry_after_s: None, dpop_nonce: None, body: body.into() }))
    }

    pub fn refuse(self, status: u16, code: &str) -> Self {
        let body = serde_json::json!({
            "error": "x", "error_description": "told so", "reason": code, "request_id": "req-1",
        });
        self.then(Ok(Answer {
            status,
            retry_after_s: (status == 503).then_some(2),
            dpop_nonce: (code == "E-DPOP-NONCE").then(|| "the-nonce".to_owned()),
            body: body.to_string().into(),
        }))
    }

    /// The request arrives, its answer does not.
    pub fn lose(self) -> Self {
        self.then(Err(WireError::Lost("connection reset".to_owned())))
    }

    pub fn unreachable(self) -> Self {
        self.then(Err(WireError::Unreachable("connection refused".to_owned())))
    }

    pub fn then(self, answer: Result<Answer, WireError>) -> Self {
        self.0.lock().unwrap().answers.push_back(answer);
        self
    }

    pub fn api(&self, bearer: Option<&str>) -> Api {
        Api::new(Transport::Script(self.clone()), bearer.map(|text| Secret::new(text.to_owned())))
    }

    /// `METHOD path body authorization` of each request.
    pub fn seen(&self) -> Vec<String> {
        self.0.lock().unwrap().seen.clone()
    }

    pub fn pauses(&self) -> Vec<Duration> {
        self.0.lock().unwrap().pauses.clone()
    }

    /// The last proof that was sent.
    pub fn proof(&self) -> Option<String> {
        self.0.lock().unwrap().proof.clone()
    }

    pub fn send(&self, request: &Request, proof: Option<&str>) -> Result<Answer, WireError> {
        let mut state = self.0.lock().unwrap();
        let mut line = format!("{} {}", request.method, request.path);
        for part in [request.body.as_ref().map(|(_, text)| text), request.authorization.as_ref()].into_iter().flatten()
        {
            line.push(' ');
            line.push_str(part.expose());
        }
        state.seen.push(line);
        state.proof = proof.map(str::to_owned);
        state.answers.pop_front().expect("the script has an answer for every request")
    }

    pub fn pause(&self, wait: Duration) {
        self.0.lock().unwrap().pauses.push(wait);
    }
}
