//! Whose key a certificate is for, as long as one may live. In: leases of certificates as they are
//! committed. Out: whether another workload has been given one for the same key: then its secret half is
//! known to two.
//!
//! A key stays its workload's until the last of its certificates has expired, ended or not.

use std::sync::Arc;

use dayfly_domain::{Kind, UnixMs};
use dayfly_verifier::Thumbprint;

use super::{calendar::Calendar, table::Task, time::Now};
use crate::{
    store::LeaseRow,
    sys::sync::{DashMap, Entry, Mutex, PoisonError},
};

#[derive(Debug, Default)]
pub(super) struct Certified {
    holders: DashMap<Thumbprint, Holder>,
    over: Mutex<Calendar<Thumbprint>>,
}

#[derive(Debug, Clone)]
struct Holder {
    workload: Arc<str>,
    until: UnixMs,
}

impl Certified {
    pub fn add(&self, row: &LeaseRow, task: &Task) {
        let Some(key) = key_of(row) else { return };
        let holder = Holder { workload: task.workload.clone(), until: row.expires };
        match self.holders.entry(key) {
            Entry::Occupied(mut held) if held.get().until < holder.until => drop(held.insert(holder)),
            Entry::Occupied(_) => {}
            Entry::Vacant(free) => drop(free.insert(holder)),
        }
        self.over.lock().unwrap_or_else(PoisonError::into_inner).insert(row.expires, key);
    }

    /// Whether the key is none, or this workload's.
    pub fn may_have(&self, row: &LeaseRow, workload: &str, now: Now) -> bool {
        let other = |holder: &Holder| holder.until > now.at && *holder.workload != *workload;
        !key_of(row).is_some_and(|key| self.holders.get(&key).is_some_and(|holder| other(&holder)))
    }

    /// A slice of what is over.
    pub fn forget(&self, now: Now, max: usize) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner).drain(now.at, max);
        for key in over {
            self.holders.remove_if(&key, |_, holder| holder.until <= now.at);
        }
    }
}

/// Of a certificate. What cannot be read is nobody's key and everybody's.
pub(super) fn key_of(row: &LeaseRow) -> Option<Thumbprint> {
    let thumbprint = row.thumbprint.as_deref().filter(|_| row.kind == Kind::X509)?;
    Some(thumbprint.parse().unwrap_or(Thumbprint::NOBODY))
}
