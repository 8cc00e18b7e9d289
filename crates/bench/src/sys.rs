//! The bench's own door to the machine: the clock that paces an open loop, randomness, and what
//! the kernel says of a process.

use std::{fs, io, thread, time::Duration};

use ring::rand::SystemRandom;
use tokio::{sync::mpsc::UnboundedSender, time::Instant};

#[expect(clippy::disallowed_methods, reason = "the bench's one door to randomness")]
pub(crate) fn random() -> SystemRandom {
    SystemRandom::new()
}

/// Sends each index when it is due, from a thread of its own: the timers of the runtime are a
/// thousand microseconds coarse.
pub(crate) async fn pace(due: Vec<(usize, Instant)>, to: UnboundedSender<(usize, Instant)>) {
    let send = move || {
        for (index, at) in due {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.send((index, at)).is_err() {
                return;
            }
        }
    };
    // Whoever waits for the last answer waits for the last request.
    drop(tokio::task::spawn_blocking(send));
}

/// What this thread has worked so far.
pub(crate) fn thread_cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// What the kernel knows of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time of all its threads, the ended ones too.
    pub cpu: Duration,
    pub rss_kb: u64,
    /// What it caused to be sent to the disk.
    pub bytes_written: u64,
}

impl Usage {
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let written = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let parsed = || {
            Some(Self {
                cpu: cpu(&stat)?,
                rss_kb: number_after(&status, "VmRSS:")?,
                bytes_written: number_after(&written, "\nwrite_bytes:")?,
            })
        };
        parsed().ok_or_else(|| io::Error::other("it does not read as expected"))
    }
}

/// `utime` and `stime`, fields 14 and 15; the name before them may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let after_name = stat.rsplit_once(") ")?.1;
    let mut fields = after_name.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn number_after(text: &str, label: &str) -> Option<u64> {
    text.split_once(label)?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 250 150 0 0 20";
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!(cpu(stat), Some(Duration::from_secs_f64(400.0 / ticks)));
    }

    #[test]
    fn this_process_is_known_to_the_kernel() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_kb > 0);
    }
}
