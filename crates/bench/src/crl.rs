//! What a CRL costs when it reads differently from before: its entries gathered, sorted, written, signed, and
//! put where they are fetched, alone and in the bundle of all. In this process, without a broker, in CPU time of
//! the thread that does it. Looking up who has ended is not in it.

use std::sync::Arc;

use dayfly::{
    lease::End,
    mint::pki::{Ca, Pki, Places},
    revoke::{CRL_BACK_S, CRL_LIFE_S, CrlTerms, Crls, DueCrl, PublishedCrl, sign_crl},
    store::{Change, LeaseRow},
};
use dayfly_domain::{Cause, Kind, LeaseId, TaskId, UnixMs};
use serde::Serialize;

use crate::{report::Machine, sys::thread_cpu};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);
const ROUNDS: usize = 50;

/// One list, made anew [`ROUNDS`] times, each with one more end; of times, the middle one.
#[derive(Debug, Serialize)]
pub struct CrlReport {
    pub scenario: &'static str,
    pub entries: usize,
    pub bytes: usize,
    /// All of it.
    pub rebuilt_ms: f64,
    pub rebuilt_max_ms: f64,
    /// Of it: gathering, building and signing, publishing.
    pub gathered_ms: f64,
    pub signed_ms: f64,
    pub published_ms: f64,
    /// Looked through, and nothing is to be made.
    pub idle_ms: f64,
    pub machine: Machine,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum CrlFault {
    #[error("the list cannot be signed: {0}")]
    Sign(String),
    #[error("the list was not made although it changed, or was made although it did not")]
    Wrong,
}

/// A list with so many certificates that have ended.
pub fn measure(entries: usize) -> Result<CrlReport, CrlFault> {
    let said = |error: &dyn std::fmt::Display| CrlFault::Sign(error.to_string());
    dayfly_verifier::crypto::init().map_err(|error| said(&error))?;
    let places = Places { base: "http://pki.bench.test".to_owned() };
    let pki = Pki::in_memory("bench.test", places, AT).map_err(|error| said(&error))?;
    let ca = pki.active(AT).map_err(|error| said(&error))?;
    Desk { crls: Crls::default(), ca, pki, now: AT }.measure(entries.max(ROUNDS + 1))
}

/// Where lists are made, by hand.
struct Desk {
    crls: Crls,
    ca: Arc<Ca>,
    pki: Pki,
    now: UnixMs,
}

/// What one making took, in milliseconds: gathering, signing, publishing.
type Parts = [f64; 3];

impl Desk {
    fn measure(mut self, entries: usize) -> Result<CrlReport, CrlFault> {
        let numbers = 0..entries as u64;
        numbers.clone().for_each(|number| self.crls.apply(&Change::AddLease(self.row(number))));
        let (first, later) = (entries - ROUNDS, entries as u64 - ROUNDS as u64..entries as u64);
        // As it is in earnest: over a quarter of an hour, and not in one second.
        numbers.take(first).for_each(|number| self.end(number, AT.plus_s(-(number as i64 % 900))));
        self.press()?;
        let mut took = Vec::new();
        for number in later {
            self.now = self.now.plus_s(1);
            self.end(number, self.now);
            took.push(self.press()?.ok_or(CrlFault::Wrong)?);
        }
        self.now = self.now.plus_s(1);
        let before = thread_cpu();
        if self.press()?.is_some() {
            return Err(CrlFault::Wrong);
        }
        let idle_ms = (thread_cpu() - before).as_secs_f64() * 1e3;
        let middle = |of: &dyn Fn(&Parts) -> f64| {
            let mut all: Vec<f64> = took.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            (all[all.len() / 2], all[all.len() - 1])
        };
        let (rebuilt_ms, rebuilt_max_ms) = middle(&|parts| parts.iter().sum());
        let place = (self.ca.id().as_str().into(), 0);
        Ok(CrlReport {
            scenario: "crl",
            entries,
            bytes: self.crls.shelf().get(&place).map_or(0, |list| list.bytes.len()),
            rebuilt_ms,
            rebuilt_max_ms,
            gathered_ms: middle(&|parts| parts[0]).0,
            signed_ms: middle(&|parts| parts[1]).0,
            published_ms: middle(&|parts| parts[2]).0,
            idle_ms,
            machine: Machine::here(&std::env::current_exe().unwrap_or_default()),
        })
    }

    fn end(&self, number: u64, at: UnixMs) {
        self.crls.end(lease(number), End { at, cause: Cause::Completed, seq: None });
    }

    /// As `flow` does it; `None`: nothing was to be made.
    fn press(&self) -> Result<Option<Parts>, CrlFault> {
        let cas = [(Arc::from(self.ca.id().as_str()), 1)];
        let clock = || thread_cpu().as_secs_f64() * 1e3;
        let began = clock();
        let due = self.crls.due(&cas, self.now);
        let number = self.crls.next_number(self.now);
        let gathered = clock();
        let made: Vec<_> = due.into_iter().map(|due| self.made(due, number)).collect::<Result<_, _>>()?;
        let (signed, any) = (clock(), !made.is_empty());
        self.crls.publish(made, &cas, Vec::new(), self.now);
        Ok(any.then(|| [gathered - began, signed - gathered, clock() - signed]))
    }

    fn made(&self, due: DueCrl, number: u64) -> Result<(DueCrl, PublishedCrl), CrlFault> {
        let uri = self.pki.places().crl(self.ca.id(), due.place.1);
        let this_update = self.now.plus_s(-CRL_BACK_S).max(self.ca.not_before());
        let terms = CrlTerms { uri: &uri, number, this_update, next_update: self.now.plus_s(i64::from(CRL_LIFE_S)) };
        let der = sign_crl(&self.ca, terms, due.entries.clone()).map_err(|error| CrlFault::Sign(error.to_string()))?;
        Ok((due, PublishedCrl::new(der, this_update, self.now)))
    }

    fn row(&self, number: u64) -> LeaseRow {
        LeaseRow {
            id: lease(number),
            task: TaskId::from_u128(1),
            seq: 1,
            target: "db".into(),
            kind: Kind::X509,
            row: String::new(),
            actions: "[]".into(),
            issued_at: AT,
            expires: AT.plus_s(86_400),
            credential_hash: [0; 32],
            thumbprint: None,
            kid: Some(self.ca.id().as_str().to_owned()),
            status: None,
            end: None,
        }
    }
}

/// As ids are: the time first, the rest looks random.
fn lease(number: u64) -> LeaseId {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(mixed ^ mixed >> 29).to_be_bytes());
    LeaseId::from_parts(AT.as_ms() as u64 + number / 4, random)
}

impl CrlReport {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn row(&self) -> String {
        let Self { entries, bytes, rebuilt_ms, rebuilt_max_ms, gathered_ms, signed_ms, published_ms, idle_ms, .. } =
            self;
        format!(
            "{entries} entries, {bytes} bytes: made anew in {rebuilt_ms:.2} ms (at most {rebuilt_max_ms:.2}), of it \
             gathered {gathered_ms:.2}, built and signed {signed_ms:.2}, published {published_ms:.2}; \
             looked through without news {idle_ms:.2} ms"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_made_anew_each_time_and_only_then() {
        let report = measure(200).unwrap();
        assert!(report.rebuilt_ms > 0.0 && report.bytes > 200 * 40, "{}", report.line());
        assert!(report.row().contains("200 entries"));
    }
}
