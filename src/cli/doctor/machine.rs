//! The machine under the broker: its clocks, its disk, its limits. Each in: what was read. Out: findings.

use std::path::Path;

use dayfly_domain::UnixMs;

use super::finding::Finding;
use crate::{
    config::Caps,
    run::limits::{files_needed, fitting},
    sys::{clock::Reading, files::Space},
};

/// How far clocks may be apart before a broker stops issuing.
const TOLERANCE_MS: i64 = 5_000;
/// 2026-01-01: no machine that runs this is older.
const BUILT: UnixMs = UnixMs::from_s(1_767_225_600);
const MIB: u64 = 1 << 20;
/// Below it the broker's own log may fill what is left in minutes.
const LITTLE_BYTES: u64 = 1_024 * MIB;
/// A write-ahead log alone takes about as much.
const NOTHING_BYTES: u64 = 16 * MIB;
/// What the store took before is its own: it writes on there for a while.
const FULL: &str = "nothing is issued once the store needs more than it has";
const LITTLE_INODES: u64 = 1_000;

/// What remembers time beside the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// The store's latest moment.
    pub high_water: Option<UnixMs>,
    /// When a file of the state folder was last written.
    pub written: Option<UnixMs>,
}

/// Two readings, the second a moment later, against what was written before.
pub fn clock(first: Reading, second: Reading, remembered: Remembered) -> Vec<Finding> {
    let mend = "timedatectl; chronyc tracking   # set the clock right; a broker believes it within seconds";
    let mut found = Vec::new();
    let (wall_ms, boot_ms) = (second.wall.as_ms() - first.wall.as_ms(), second.boot_ms - first.boot_ms);
    if second.wall < BUILT {
        found.push(Finding::wrong("clock", format!("the wall clock says {}", second.wall), mend));
    }
    if boot_ms < 0 || (wall_ms - boot_ms).abs() > TOLERANCE_MS {
        let what = format!("the clocks disagree: the wall went {wall_ms} ms while the boot clock went {boot_ms} ms");
        found.push(Finding::wrong("clock", what, mend));
    }
    for (what, at) in
        [("the store's last write", remembered.high_water), ("a file of the state folder", remembered.written)]
    {
        let ahead_ms = at.map_or(0, |at| at.as_ms() - second.wall.as_ms());
        if ahead_ms > TOLERANCE_MS {
            let said =
                format!("the wall clock is {} behind {what}: nothing is issued until it is reached", span(ahead_ms));
            found.push(Finding::wrong("clock", said, mend));
        }
    }
    if found.is_empty() {
        found.push(Finding::ok("clock", format!("{}, not behind what is written", second.wall)));
    }
    found
}

/// What is left where the state lies.
pub fn disk(path: &Path, space: Space) -> Vec<Finding> {
    let shown = path.display();
    let look = format!("df -h {shown}; du -xsh /var/log /var/lib/* | sort -h | tail   # never remove dayfly.db-wal");
    let mut found = Vec::new();
    let left = format!("{} MiB of {} MiB are free at `{shown}`", space.free_bytes / MIB, space.bytes / MIB);
    if space.is_read_only {
        let mend = format!("findmnt -T {shown}; dmesg | tail   # then: mount -o remount,rw ...");
        found.push(Finding::wrong("disk", format!("`{shown}` is read only"), mend));
    }
    match space.free_bytes {
        ..NOTHING_BYTES => found.push(Finding::wrong("disk", format!("{left}: {FULL}"), look)),
        NOTHING_BYTES..LITTLE_BYTES => found.push(Finding::warning("disk", left, look)),
        _ => found.push(Finding::ok("disk", left)),
    }
    let inodes = format!("{} inodes are free at `{shown}`", space.free_inodes);
    let mend = format!("df -i {shown}   # then remove what made so many files");
    match (space.inodes, space.free_inodes) {
        (0, _) | (_, LITTLE_INODES..) => {}
        (_, ..10) => found.push(Finding::wrong("disk", inodes, mend)),
        _ => found.push(Finding::warning("disk", inodes, mend)),
    }
    found
}

/// How many files a broker may open, by its hard limit, against what the settings take.
pub fn open_files(caps: Caps, whose: &str, may: u64) -> Finding {
    let mend = "LimitNOFILE= of the systemd unit, or `ulimit -n`; or lower `limits.connections` in the settings";
    match fitting(caps, may) {
        Ok((_, None)) => {
            Finding::ok("limits", format!("{whose} may open {may} files, {} are needed", files_needed(caps)))
        }
        Ok((_, Some(fewer))) => Finding::warning("limits", format!("{whose}: {fewer}"), mend),
        Err(fewer) => Finding::wrong("limits", format!("{whose}: {fewer}"), mend),
    }
}

/// The hard limit, to which a broker raises its own, in a `/proc/PID/limits`.
pub fn hard_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Milliseconds as people say them.
fn span(ms: i64) -> String {
    match ms / 1_000 {
        s @ ..120 => format!("{s} s"),
        s @ ..7_200 => format!("{} min", s / 60),
        s @ ..172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    fn reading(wall: UnixMs, boot_ms: i64) -> Reading {
        Reading { wall, boot_ms }
    }

    fn verdicts(found: &[Finding]) -> Vec<Verdict> {
        found.iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn a_clock_behind_the_store_is_wrong() {
        let one = reading(NOW, 7);
        let ahead = |ms| Remembered { high_water: Some(NOW.plus_ms(ms)), written: None };
        assert_eq!(verdicts(&clock(one, one, ahead(5_000))), [Verdict::Ok]);
        let found = clock(one, one, ahead(3 * 3_600_000));
        assert_eq!(verdicts(&found), [Verdict::Wrong]);
        assert!(found[0].what.contains("3 h behind the store's last write"), "{found:?}");
        let written = Remembered { high_water: None, written: Some(NOW.plus_ms(6_000)) };
        assert_eq!(verdicts(&clock(one, one, written)), [Verdict::Wrong]);
    }

    #[test]
    fn clocks_that_disagree_or_run_back_are_wrong() {
        let first = reading(NOW, 1_000);
        for second in [reading(NOW, 999), reading(NOW.plus_ms(60_000), 1_001), reading(NOW.plus_ms(-60_000), 1_001)] {
            assert_eq!(verdicts(&clock(first, second, Remembered::default())), [Verdict::Wrong], "{second:?}");
        }
        let boot = reading(UnixMs::from_s(7), 1);
        assert!(clock(boot, boot, Remembered::default())[0].what.contains("1970-01-01"));
    }

    #[test]
    fn a_disk_that_is_full_or_read_only_is_wrong() {
        let roomy = Space {
            free_bytes: 9_000 * MIB,
            bytes: 9_999 * MIB,
            free_inodes: 5_000,
            inodes: 9_999,
            is_read_only: false,
        };
        let look = |space| verdicts(&disk(Path::new("/s"), space));
        assert_eq!(look(roomy), [Verdict::Ok]);
        assert_eq!(look(Space { free_bytes: 100 * MIB, ..roomy }), [Verdict::Warning]);
        let full = Space { free_bytes: 0, ..roomy };
        assert_eq!(look(full), [Verdict::Wrong]);
        assert!(
            disk(Path::new("/s"), full)[0].what.ends_with("nothing is issued once the store needs more than it has")
        );
        assert_eq!(look(Space { is_read_only: true, ..roomy }), [Verdict::Wrong, Verdict::Ok]);
        assert_eq!(look(Space { free_inodes: 3, ..roomy }), [Verdict::Ok, Verdict::Wrong]);
        assert_eq!(look(Space { free_inodes: 900, ..roomy }), [Verdict::Ok, Verdict::Warning]);
        assert_eq!(look(Space { free_inodes: 0, inodes: 0, ..roomy }), [Verdict::Ok], "it counts none");
    }

    #[test]
    fn a_broker_that_could_let_almost_nobody_in() {
        let caps = Caps::default();
        let look = |may| open_files(caps, "the broker", may).verdict;
        let needed = files_needed(caps);
        assert_eq!((look(needed), look(needed - 1), look(200)), (Verdict::Ok, Verdict::Warning, Verdict::Wrong));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(hard_limit(limits), Some(524_288));
        assert_eq!(hard_limit("Max open files  1024  unlimited  files"), Some(u64::MAX));
        assert_eq!(hard_limit("nonsense"), None);
    }
}
