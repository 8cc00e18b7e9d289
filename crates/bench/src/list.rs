//! What a status list costs when it reads differently from before: put together, packed and signed. In this
//! process, without a broker, in CPU time of the thread that does it. Looking up who has ended is not in it.

use dayfly::{
    mint::ListKeyring,
    revoke::{LIST_SLOTS_MAX, Lists, Published, Sizes, Wish, list_claims},
    store::{Change, LeaseRow},
};
use dayfly_domain::{Kind, LeaseId, ListId, TaskId, UnixMs};
use serde::Serialize;

use crate::{report::Machine, sys::thread_cpu};

const AT: UnixMs = UnixMs::from_s(1_800_000_000);
/// Of the leases, one in so many has ended.
const ENDED_EACH: u64 = 100;

#[derive(Debug, Serialize)]
pub struct ListReport {
    pub scenario: &'static str,
    pub slots: u32,
    pub leases: u64,
    pub ended: u64,
    /// Places that read as ended, decoys included.
    pub set: u64,
    pub bytes: usize,
    /// Built and signed: the middle one of all.
    pub sign_ms: f64,
    pub sign_max_ms: f64,
    /// A place for a lease.
    pub reserve_us: f64,
    pub machine: Machine,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum ListFault {
    #[error("the list cannot be signed: {0}")]
    Sign(String),
    #[error("the list was not signed again although it changed")]
    Unchanged,
}

/// A list of 2^17 places, given away until it takes no more; signed `n` times, each with one more end.
pub fn measure(n: usize) -> Result<ListReport, ListFault> {
    one(LIST_SLOTS_MAX, n)
}

fn one(slots: u32, n: usize) -> Result<ListReport, ListFault> {
    let said = |error: &dyn std::fmt::Display| ListFault::Sign(error.to_string());
    dayfly_verifier::crypto::init().map_err(|error| said(&error))?;
    let keys = ListKeyring::in_memory(AT).map_err(|error| said(&error))?;
    let lists = Lists::with_sizes(Sizes { shared: slots, small: u32::MAX, own: slots, most: slots });
    let before = thread_cpu();
    let id = issue(&lists, 0);
    // The first that is on another list is one too many.
    let others = (1..).find(|number| issue(&lists, *number) != id);
    let leases = others.unwrap_or_default();
    let reserve_us = (thread_cpu() - before).as_secs_f64() * 1e6 / leases as f64;
    (0..leases).step_by(ENDED_EACH as usize).for_each(|number| lists.end(lease(number), AT));
    let uri = format!("https://dayfly.bench.test/status/{id}");
    let (mut took, mut last, mut set) = (Vec::new(), None, 0);
    for round in 0..n {
        let now = AT.plus_s(1 + round as i64);
        // Nobody who had ended already.
        lists.end(lease(round as u64 * ENDED_EACH % leases + 1), now);
        let before = thread_cpu();
        let published = lists.publish(id, 300, now, |proof| {
            set = proof.bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
            let token = keys.sign(&list_claims(uri.clone(), proof.bytes, 300, now))?;
            Ok::<_, dayfly::mint::MintError>(Published { token, etag: String::new() })
        });
        took.push((thread_cpu() - before).as_secs_f64() * 1e3);
        let published = published.ok_or(ListFault::Unchanged)?.map_err(|error| said(&error))?;
        if last.as_ref() == Some(&published) {
            return Err(ListFault::Unchanged);
        }
        last = Some(published);
    }
    took.sort_by(f64::total_cmp);
    Ok(ListReport {
        scenario: "list",
        slots,
        leases,
        ended: leases.div_ceil(ENDED_EACH) + n as u64,
        set,
        bytes: last.map_or(0, |list| list.token.len()),
        sign_ms: took.get(took.len() / 2).copied().unwrap_or_default(),
        sign_max_ms: took.last().copied().unwrap_or_default(),
        reserve_us,
        machine: Machine::here(&std::env::current_exe().unwrap_or_default()),
    })
}

fn lease(number: u64) -> LeaseId {
    LeaseId::from_u128(u128::from(number))
}

fn issue(lists: &Lists, number: u64) -> ListId {
    let wish = Wish { target: "edge", environment: "bench", expires: AT.plus_s(900) };
    let mut random = [0; 56];
    for (at, eight) in random.chunks_mut(8).enumerate() {
        // Far from the steps in which a list tries its places.
        let mut mixed = (number << 3 | at as u64).wrapping_add(0x632b_e59b_d9b4_e019);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        mixed ^= mixed >> 33;
        eight.copy_from_slice(&mixed.to_be_bytes());
    }
    let slot = lists.reserve(wish, AT, &random);
    if let Some(row) = lists.unwritten(slot.list) {
        lists.apply(&Change::AddList(row));
    }
    lists.apply(&Change::AddLease(LeaseRow {
        id: lease(number),
        task: TaskId::from_u128(1),
        seq: 1,
        target: "edge".into(),
        kind: Kind::Jwt,
        row: String::new(),
        actions: "[]".into(),
        issued_at: AT,
        expires: AT.plus_s(900),
        credential_hash: [0; 32],
        thumbprint: None,
        kid: None,
        status: Some(slot),
        end: None,
    }));
    slot.list
}

impl ListReport {
    /// One line of JSON.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("a report has only plain members")
    }

    /// For people.
    pub fn row(&self) -> String {
        let Self { slots, leases, ended, set, bytes, sign_ms, sign_max_ms, reserve_us, .. } = self;
        format!(
            "{slots} places, {leases} leases, {ended} ended, {set} set: {bytes} bytes, built and signed in \
             {sign_ms:.2} ms (at most {sign_max_ms:.2}); a place {reserve_us:.2} us"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_signed_each_time() {
        let report = one(1 << 12, 3).unwrap();
        assert!(report.sign_ms > 0.0 && report.bytes > 500 && report.set > report.ended);
        assert!(report.leases > 2_000, "given away until it took no more: {}", report.leases);
        assert!(report.row().contains("4096 places"));
    }
}
