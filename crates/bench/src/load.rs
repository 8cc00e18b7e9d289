//! The two loops. A closed loop sends when it has been answered, so a broker that stalls is asked
//! less; an open loop sends by the clock, and latency counts from the moment a request was due.

use std::{
    future::Future,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{
        Mutex,
        mpsc::{self, UnboundedSender},
    },
    task::JoinSet,
    time::Instant,
};

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    Closed { connections: usize },
    Open { connections: usize, rate: f64 },
}

/// One connection with its requests.
pub trait Visit: Send + 'static {
    /// Sends request `index` and checks its answer. `Err`: what was wrong with it.
    fn visit(&mut self, index: usize) -> impl Future<Output = Result<(), String>> + Send;
}

/// What became of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub latencies_ns: Vec<u64>,
    /// Good answers and others.
    pub done: usize,
    pub errors: usize,
    pub first_error: Option<String>,
    pub took: Duration,
}

impl Load {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Open { .. } => "open",
        }
    }

    pub const fn connections(&self) -> usize {
        match self {
            Self::Closed { connections } | Self::Open { connections, .. } => *connections,
        }
    }

    pub const fn rate(&self) -> Option<f64> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { rate, .. } => Some(*rate),
        }
    }
}

/// Every connection sends its next request when the last one is answered.
pub async fn closed<V: Visit>(visitors: Vec<V>, range: Range<usize>) -> (Outcome, Vec<V>) {
    let next = Arc::new(AtomicUsize::new(range.start));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut visitor in visitors {
        let (next, end) = (next.clone(), range.end);
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= end {
                    return (outcome, visitor);
                }
                let sent = Instant::now();
                let answer = visitor.visit(index).await;
                outcome.add(sent, answer);
            }
        });
    }
    gather(tasks, began).await
}

/// Requests are due at `rate` a second, whoever is free takes the next one, and its latency counts
/// from when it was due. `pace` sends each when its time has come.
pub async fn open<V, P, F>(visitors: Vec<V>, range: Range<usize>, rate: f64, pace: P) -> (Outcome, Vec<V>)
where
    V: Visit,
    P: FnOnce(Vec<(usize, Instant)>, UnboundedSender<(usize, Instant)>) -> F,
    F: Future<Output = ()>,
{
    let began = Instant::now();
    let first = range.start;
    let due = range.map(|index| (index, began + Duration::from_secs_f64((index - first) as f64 / rate))).collect();
    let (to, from) = mpsc::unbounded_channel();
    let from = Arc::new(Mutex::new(from));
    let mut tasks = JoinSet::new();
    for mut visitor in visitors {
        let from = from.clone();
        tasks.spawn(async move {
            let mut outcome = Outcome::default();
            loop {
                let next = from.lock().await.recv().await;
                let Some((index, due)) = next else { return (outcome, visitor) };
                let answer = visitor.visit(index).await;
                outcome.add(due, answer);
            }
        });
    }
    pace(due, to).await;
    gather(tasks, began).await
}

async fn gather<V: Visit>(mut tasks: JoinSet<(Outcome, V)>, began: Instant) -> (Outcome, Vec<V>) {
    let (mut whole, mut visitors) = (Outcome::default(), Vec::new());
    while let Some(joined) = tasks.join_next().await {
        let Ok((outcome, visitor)) = joined else {
            whole.errors += 1;
            continue;
        };
        whole.merge(outcome);
        visitors.push(visitor);
    }
    whole.took = began.elapsed();
    (whole, visitors)
}

impl Outcome {
    fn add(&mut self, since: Instant, answer: Result<(), String>) {
        self.latencies_ns.push(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.done += 1;
        if let Err(what) = answer {
            self.errors += 1;
            self.first_error.get_or_insert(what);
        }
    }

    fn merge(&mut self, other: Self) {
        self.latencies_ns.extend(other.latencies_ns);
        self.done += other.done;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Times;

    const STALL: Duration = Duration::from_secs(1);
    const RATE: f64 = 1_000.0;
    const N: usize = 10_000;

    /// A server that takes a millisecond, and once, for everyone, a second.
    #[derive(Clone)]
    struct Stalling {
        began: Instant,
    }

    impl Visit for Stalling {
        async fn visit(&mut self, _: usize) -> Result<(), String> {
            let stall = self.began + Duration::from_secs(3);
            tokio::time::sleep(Duration::from_millis(1)).await;
            let now = Instant::now();
            if now >= stall && now < stall + STALL {
                tokio::time::sleep_until(stall + STALL).await;
            }
            Ok(())
        }
    }

    async fn pace(due: Vec<(usize, Instant)>, to: UnboundedSender<(usize, Instant)>) {
        for (index, at) in due {
            tokio::time::sleep_until(at).await;
            to.send((index, at)).unwrap();
        }
    }

    fn visitors() -> Vec<Stalling> {
        vec![Stalling { began: Instant::now() }; 8]
    }

    #[tokio::test(start_paused = true)]
    async fn the_open_loop_notices_a_stall_of_a_second() {
        let (outcome, _) = open(visitors(), 0..N, RATE, pace).await;
        let times = Times::of(&outcome.latencies_ns);
        assert_eq!((outcome.done, outcome.errors), (N, 0));
        // A tenth of the run was late: the median is good, the tail is the stall.
        assert!(times.p50_us < 5_000.0, "{times:?}");
        assert!(times.p99_us > 800_000.0 && times.p999_us > 900_000.0 && times.max_us > 990_000.0, "{times:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_closed_loop_hides_the_same_stall() {
        let (outcome, _) = closed(visitors(), 0..N).await;
        let (times, late) = (Times::of(&outcome.latencies_ns), late(&outcome));
        assert_eq!((outcome.done, outcome.errors), (N, 0));
        // Each of the eight saw it once, and nobody else was there to see it.
        assert!(late <= 8 && times.p99_us < 5_000.0, "{late} {times:?}");
        let (outcome, _) = open(visitors(), 0..N, RATE, pace).await;
        assert!(self::late(&outcome) > 100 * late, "{}", self::late(&outcome));
    }

    fn late(outcome: &Outcome) -> usize {
        outcome.latencies_ns.iter().filter(|ns| **ns > 5_000_000).count()
    }

    struct Wrong;

    impl Visit for Wrong {
        async fn visit(&mut self, index: usize) -> Result<(), String> {
            if index.is_multiple_of(2) { Ok(()) } else { Err(format!("{index}")) }
        }
    }

    #[tokio::test]
    async fn wrong_answers_are_counted_and_the_first_is_told() {
        let (outcome, _) = closed(vec![Wrong], 0..10).await;
        assert_eq!((outcome.done, outcome.errors, outcome.first_error.as_deref()), (10, 5, Some("1")));
    }
}
