//! What is packed comes out as it went in, and leaves nothing behind.

use dayfly_domain::Cause;
use proptest::{collection::vec, option, prelude::*};

use super::*;

const AT: UnixMs = UnixMs::from_s(1_800_000_000);

fn end() -> impl Strategy<Value = Option<End>> {
    let seq = option::of(any::<u64>());
    option::weighted(0.3, (0..99i64, seq).prop_map(|(s, seq)| End { at: AT.plus_s(s), cause: Cause::Revoked, seq }))
}

/// Of a few words, so that records share some; labels of every form, and claims that repeat parts of them.
fn task() -> impl Strategy<Value = Task> {
    let word = || prop_oneof![Just("a"), Just("shop"), Just("")].prop_map(Arc::<str>::from);
    let words = (word(), word(), word(), word(), word(), word());
    let job = option::weighted(0.8, "ci/[0-9]{0,12}(/[0-9]{1,12}){0,4}|[a-z]{0,40}|ci/\\PC{0,40}/\\PC{0,20}");
    let claims = prop_oneof!["(x|[0-9]{4}|\u{11}[0-3]){0,6}", "\\PC{0,20}"];
    let times = (0..9i64, 0..100_000i64, 0..100_000i64, any::<u64>());
    let rest = (any::<bool>(), option::weighted(0.3, 0..3u8), option::of(any::<u128>()), end());
    (words, job, claims, times, rest).prop_map(|(words, job, claims, (opened, lasts, evidence, seq), rest)| {
        let (template, owner, environment, row, workload, grants) = words;
        let (untrusted, key, parent, end) = rest;
        let own: String = job.as_deref().unwrap_or_default().chars().skip(8).collect();
        let key = key.map(|key| "AEIMQUYcgkosw048"[usize::from(key)..=usize::from(key)].repeat(43));
        Task {
            parent: parent.map(TaskId::from_u128),
            template,
            owner,
            environment,
            issuer: "ci".into(),
            row,
            workload,
            grants,
            untrusted,
            claims: format!("{claims}run{own}end").into(),
            job: job.map(Arc::from),
            opened_at: AT.plus_s(opened),
            deadline: AT.plus_s(opened).plus_ms(lasts),
            seq,
            evidence_until: AT.plus_s(evidence),
            thumbprint: key.and_then(|text| text.parse().ok()),
            end,
            leases: Vec::new(),
        }
    })
}

fn lease(number: u128, task: TaskId, of: &Task, end: Option<End>, late: bool) -> Lease {
    Lease {
        id: LeaseId::from_u128(number),
        task,
        seq: if late { of.seq.wrapping_add(1 << 40) } else { of.seq.wrapping_add(1) },
        target: "shop".into(),
        row: of.row.clone(),
        kid: late.then(|| "kid".into()),
        issued_at: of.opened_at.plus_ms(if late { -7 } else { 7 }),
        expires: of.deadline.plus_ms(9),
        credential_hash: [number as u8; 16],
        thumbprint: of.thumbprint.filter(|_| !late),
        end,
        counted: late,
    }
}

/// How many records and shared values are kept.
fn kept(tasks: &Tasks) -> usize {
    let records = read(&tasks.0);
    let indexes = [&records.by_task, &records.by_handle, &records.by_evidence, &records.by_lease];
    records.shared.kept() + indexes.map(HashTable::len).iter().sum::<usize>()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out_and_nothing_stays(made in vec((task(), any::<bool>(), end(), any::<bool>()), 1..12)) {
        let tasks = Tasks::default();
        let leases = tasks.leases();
        let mut places = Vec::new();
        for (number, (task, drawn, end, late)) in made.iter().enumerate() {
            let random = std::array::from_fn(|_| number as u8);
            let id = TaskId::from_parts(if *drawn { task.opened_at.as_ms().unsigned_abs() } else { 7 }, random);
            let keys = Keys { evidence: &[number as u8; 32], handle: &[number as u8 + 100; 32] };
            let (place, over_at) = tasks.insert(id, task, &keys);
            prop_assert_eq!(over_at, task.deadline.max(task.evidence_until));
            let mut lease = lease(number as u128, id, task, *end, *late);
            let below = leases.insert(&lease);
            let expected = Task { leases: vec![lease.id], ..task.clone() };
            prop_assert_eq!(format!("{:?}", tasks.get(&id)), format!("{:?}", Some(&expected)));
            prop_assert_eq!(tasks.of_evidence(keys.evidence), Some((id, task.thumbprint)));
            prop_assert_eq!(tasks.of_handle(keys.handle), Some((id, task.thumbprint)));
            prop_assert_eq!(format!("{:?}", leases.get(&lease.id)), format!("{:?}", Some(&lease)));
            leases.change(&lease.id, |lease| lease.counted = !lease.counted);
            lease.counted = !lease.counted;
            prop_assert_eq!(format!("{:?}", leases.get(&lease.id)), format!("{:?}", Some(&lease)));
            places.push((place, below, lease));
        }
        prop_assert_eq!((tasks.iter().count(), leases.iter().count()), (made.len(), made.len()));
        for (number, (place, below, lease)) in places.into_iter().enumerate() {
            // One is forgotten after its task: it is still what it was.
            if number % 2 == 0 {
                tasks.remove(place);
                prop_assert_eq!(format!("{:?}", leases.get(&lease.id)), format!("{:?}", Some(&lease)));
                leases.remove(below);
            } else {
                leases.remove(below);
                tasks.remove(place);
            }
        }
        prop_assert_eq!(kept(&tasks), 0);
    }
}
