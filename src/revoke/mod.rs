//! Stage 6: the end of a lease, and who knows of it when (law L12).

mod crl;
mod der;
mod lists;
mod ocsp;

use dayfly_domain::{Channel, UnixMs, Verifies, bundle::Target};

pub use crl::{
    CRL_AT_LEAST_S, CRL_BACK_S, CRL_EACH_MS, CRL_LIFE_S, CRL_MAX_AGE_S, CRL_NUMBER_WORD, CrlEntry, CrlPlace, CrlReason,
    CrlTerms, Crls, DueCrl, PublishedCrl, Revocation, Serial, Shelf, lease_of, serial_of, shard_of, sign_crl,
};
pub use lists::{
    LIST_SLOTS_MAX, LIST_TTL_S, ListCounts, ListView, Lists, PRESS_EACH_MS, Proof, Published, SERVED_AFTER_S,
    SHARED_SLOTS, SMALL, Scope, Sizes, Wish, list_claims,
};
pub use ocsp::{
    Asked, CertStatus, NotAnswered, OCSP_ASKED_MAX, OCSP_LIFE_S, OCSP_MAX_AGE_S, OCSP_MAX_BYTES, OcspAnswer,
    OcspRequest, OcspSigners, answer as ocsp_answer, asked_ca, due_signers, keep_signers, renew_signer,
};

/// How the verifiers of a target learn of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    pub channel: Channel,
    /// Usually within, in seconds.
    pub usual_s: u64,
    /// At worst within, in seconds.
    pub bound_s: u64,
}

/// What a channel knows once a lease has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub channel: Channel,
    /// The channel itself already answers `inactive`.
    pub known: bool,
    pub worst_case_at: UnixMs,
}

/// How a verifier really checks, as its target's table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checking {
    pub verifies: Verifies,
    pub cache_s: u32,
    pub leeway_s: u32,
    /// How long after a status list was signed it may be gone by.
    pub list_life_s: u32,
}

impl From<&Target> for Checking {
    fn from(target: &Target) -> Self {
        Self {
            verifies: target.verifies,
            cache_s: target.cache.as_s(),
            leeway_s: target.leeway.as_s(),
            list_life_s: target.list_life.as_s(),
        }
    }
}

/// What is promised when a credential of `ttl_s` is issued. Introspection: the server's cache and
/// leeway. A list, or a CRL: the server looks again after its `ttl` (`max-age`), and may go by the one it
/// has until that expires (`nextUpdate`). Otherwise nothing tells the server, and the credential lives to its `exp`.
pub fn reach(checking: Checking, ttl_s: u64) -> Vec<Reach> {
    let leeway_s = u64::from(checking.leeway_s);
    vec![match checking.verifies {
        Verifies::Introspect => Reach {
            channel: Channel::Introspection,
            usual_s: u64::from(checking.cache_s),
            bound_s: u64::from(checking.cache_s) + leeway_s,
        },
        Verifies::List => {
            let bound_s = ttl_s.min(u64::from(checking.list_life_s)) + leeway_s;
            let usual_s = u64::from(LIST_TTL_S) + PRESS_EACH_MS.unsigned_abs() / 1_000;
            Reach { channel: Channel::StatusList, usual_s: usual_s.min(bound_s), bound_s }
        }
        Verifies::Crl => {
            let bound_s = ttl_s.min(u64::from(CRL_LIFE_S)) + leeway_s;
            let usual_s = u64::from(CRL_MAX_AGE_S) + CRL_EACH_MS.unsigned_abs() / 1_000;
            Reach { channel: Channel::Crl, usual_s: usual_s.min(bound_s), bound_s }
        }
        Verifies::ExpOnly => Reach { channel: Channel::Expiry, usual_s: ttl_s, bound_s: ttl_s + leeway_s },
    }]
}

/// What is true after an end at `ended_at` of credentials that would have lived until `expires`.
/// No worst case lies beyond the credential's own `exp` and the server's leeway. `shown`: whoever fetches
/// the status list or CRL now reads the end in it.
pub fn known(checking: Checking, ended_at: UnixMs, expires: UnixMs, shown: bool) -> Known {
    let dead = expires.plus_s(i64::from(checking.leeway_s));
    match checking.verifies {
        Verifies::Introspect => {
            let bound_s = i64::from(checking.cache_s) + i64::from(checking.leeway_s);
            Known { channel: Channel::Introspection, known: true, worst_case_at: ended_at.plus_s(bound_s).min(dead) }
        }
        // The last list without the end was signed before it.
        Verifies::List => {
            let bound_s = i64::from(checking.list_life_s) + i64::from(checking.leeway_s);
            let worst_case_at = ended_at.plus_s(bound_s).min(dead);
            Known { channel: Channel::StatusList, known: shown, worst_case_at }
        }
        // The last CRL without the end was made before it, and nobody goes by it past its `nextUpdate`.
        Verifies::Crl => {
            let bound_s = i64::from(CRL_LIFE_S) + i64::from(checking.leeway_s);
            Known { channel: Channel::Crl, known: shown, worst_case_at: ended_at.plus_s(bound_s).min(dead) }
        }
        Verifies::ExpOnly => Known { channel: Channel::Expiry, known: false, worst_case_at: dead },
    }
}

/// What is true once a key is out of the JWKS. Whoever has it writes what he likes, with any `exp`: whoever
/// verifies by signature believes it as long as the keys that he fetched earlier. Only who asks the broker
/// for every token knows at once.
// SECURITY: `t_197_the_bound_of_a_leaked_key_is_not_the_exp_of_what_it_signed`.
pub fn known_of_key(checking: Checking, tainted_at: UnixMs, jwks_max_age_s: i64) -> Known {
    let own_s = i64::from(checking.cache_s) + i64::from(checking.leeway_s);
    let (channel, bound_s) = match checking.verifies {
        Verifies::Introspect => (Channel::Introspection, own_s),
        Verifies::ExpOnly | Verifies::List | Verifies::Crl => (Channel::Jwks, jwks_max_age_s + own_s),
    };
    Known { channel, known: true, worst_case_at: tainted_at.plus_s(bound_s) }
}

/// What is true once a CA is out: its area CA's CRL lists it, and whoever checks the CRL of every level
/// refuses it once the one that he has is over. Whoever checks none believes it to its own end.
/// `shown`: whoever fetches that CRL now reads of it.
pub fn known_of_ca(checking: Checking, tainted_at: UnixMs, ends_at: UnixMs, shown: bool) -> Known {
    let own_s = i64::from(checking.cache_s) + i64::from(checking.leeway_s);
    let dead = ends_at.plus_s(i64::from(checking.leeway_s));
    let (channel, worst_case_at) = match checking.verifies {
        Verifies::Introspect => (Channel::Introspection, tainted_at.plus_s(own_s)),
        Verifies::Crl => (Channel::Crl, tainted_at.plus_s(i64::from(CRL_LIFE_S) + i64::from(checking.leeway_s))),
        Verifies::ExpOnly | Verifies::List => (Channel::Expiry, dead),
    };
    let known = match channel {
        Channel::Crl => shown,
        Channel::Introspection | Channel::StatusList | Channel::Jwks => true,
        Channel::Expiry => false,
    };
    Known { channel, known, worst_case_at: worst_case_at.min(dead) }
}

/// One line for each channel: the latest worst case counts, and it knows when it knows of all.
pub fn merged(all: impl IntoIterator<Item = Known>) -> Vec<Known> {
    let mut merged: Vec<Known> = Vec::new();
    for known in all {
        match merged.iter_mut().find(|other| other.channel == known.channel) {
            Some(other) => {
                other.worst_case_at = other.worst_case_at.max(known.worst_case_at);
                other.known &= known.known;
            }
            None => merged.push(known),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: UnixMs = UnixMs::from_s(1_000);

    #[test]
    fn t_108_the_bound_is_that_of_the_targets_own_way() {
        let introspect = Checking { verifies: Verifies::Introspect, cache_s: 10, leeway_s: 30, list_life_s: 300 };
        assert_eq!(reach(introspect, 900)[0].bound_s, 40);
        assert_eq!(known(introspect, AT, AT.plus_s(900), true).worst_case_at, AT.plus_s(40));
        assert_eq!(known(introspect, AT, AT.plus_s(5), true).worst_case_at, AT.plus_s(35), "never past its own end");
        let exp_only = Checking { verifies: Verifies::ExpOnly, ..introspect };
        assert_eq!(reach(exp_only, 900)[0].bound_s, 930);
        let after = known(exp_only, AT, AT.plus_s(900), true);
        assert!(!after.known && after.worst_case_at == AT.plus_s(930));
    }

    #[test]
    fn t_108_the_bound_of_a_list_is_its_life() {
        let list = Checking { verifies: Verifies::List, cache_s: 10, leeway_s: 30, list_life_s: 300 };
        let promised = Reach { channel: Channel::StatusList, usual_s: 16, bound_s: 330 };
        assert_eq!(reach(list, 900), [promised]);
        assert_eq!(reach(list, 60)[0].bound_s, 90, "the token expires first");
        assert_eq!(reach(Checking { leeway_s: 0, ..list }, 5)[0], Reach { usual_s: 5, bound_s: 5, ..promised });
        assert_eq!(known(list, AT, AT.plus_s(900), true).worst_case_at, AT.plus_s(330));
        assert_eq!(known(list, AT, AT.plus_s(60), true).worst_case_at, AT.plus_s(90));
        let all = [true, false].map(|shown| known(list, AT, AT.plus_s(900), shown));
        assert!(!merged(all)[0].known, "one that is not shown is enough");
    }

    #[test]
    fn t_108_the_bound_of_a_crl_is_its_next_update() {
        let crl = Checking { verifies: Verifies::Crl, cache_s: 10, leeway_s: 30, list_life_s: 300 };
        let promised = Reach { channel: Channel::Crl, usual_s: 16, bound_s: 630 };
        assert_eq!(reach(crl, 900), [promised]);
        assert_eq!(reach(crl, 60)[0].bound_s, 90, "the certificate expires first");
        let after = known(crl, AT, AT.plus_s(900), false);
        assert_eq!((after.channel, after.known, after.worst_case_at), (Channel::Crl, false, AT.plus_s(630)));
        assert_eq!(known(crl, AT, AT.plus_s(60), true).worst_case_at, AT.plus_s(90));
    }

    #[test]
    fn t_197_the_bound_of_a_leaked_key_is_not_the_exp_of_what_it_signed() {
        let introspect = Checking { verifies: Verifies::Introspect, cache_s: 10, leeway_s: 30, list_life_s: 300 };
        assert_eq!(known_of_key(introspect, AT, 300).worst_case_at, AT.plus_s(40));
        for verifies in [Verifies::ExpOnly, Verifies::List, Verifies::Crl] {
            let known = known_of_key(Checking { verifies, ..introspect }, AT, 300);
            assert_eq!((known.channel, known.worst_case_at), (Channel::Jwks, AT.plus_s(340)));
        }
    }

    #[test]
    fn t_197_the_bound_of_a_leaked_ca_is_the_life_of_the_crl_above_it() {
        let crl = Checking { verifies: Verifies::Crl, cache_s: 10, leeway_s: 30, list_life_s: 300 };
        let until = AT.plus_s(3 * 86_400);
        assert_eq!(known_of_ca(crl, AT, until, true).worst_case_at, AT.plus_s(630));
        assert!(!known_of_ca(crl, AT, until, false).known, "the list is not made yet");
        assert_eq!(known_of_ca(crl, AT, AT.plus_s(60), true).worst_case_at, AT.plus_s(90), "never past its own end");
        let exp_only = known_of_ca(Checking { verifies: Verifies::ExpOnly, ..crl }, AT, until, true);
        assert_eq!((exp_only.known, exp_only.worst_case_at), (false, until.plus_s(30)));
    }

    #[test]
    fn each_channel_is_told_once() {
        let introspect = Checking { verifies: Verifies::Introspect, cache_s: 10, leeway_s: 30, list_life_s: 300 };
        let all = merged([
            known(introspect, AT, AT.plus_s(900), true),
            known(introspect, AT.plus_s(1), AT.plus_s(900), true),
        ]);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].worst_case_at, AT.plus_s(41));
    }
}
