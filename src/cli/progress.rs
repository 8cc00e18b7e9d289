//! What takes longer than a second says so, on stderr: a terminal sees something move, a log gets a plain
//! line after the first second and then one every ten. Data and exit codes know nothing of it.
//!
//! In: some work to wait for, and perhaps how much of it is done. Out: what the work gives.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::session::Vars;

/// Nothing is said of what is quicker.
const AFTER: Duration = Duration::from_secs(1);
/// Between two pictures of what moves.
const FRAME: Duration = Duration::from_millis(120);
/// Between two lines of a log.
const LINE: Duration = Duration::from_secs(10);
/// A bar, in characters.
const BAR: u64 = 24;
const WIDTH: usize = 78;

/// Where it is shown, if anywhere. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    kind: Kind,
    /// One wait at a time is shown: the outer one knows best what it is for.
    shown: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Silent,
    Lines,
    Motion,
}

/// How much is done; of how much, once that is known. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<[AtomicU64; 2]>);

impl Count {
    pub fn set(&self, done: u64, of: u64) {
        self.0[0].store(done, Ordering::Relaxed);
        self.0[1].store(of, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (self.0[0].load(Ordering::Relaxed), self.0[1].load(Ordering::Relaxed))
    }
}

impl Progress {
    /// Motion only on a terminal that can; no colour anywhere, so `NO_COLOR` has nothing to switch off.
    pub fn of(vars: &Vars) -> Self {
        let moves = io::stderr().is_terminal() && !matches!(vars.get("TERM").as_deref(), None | Some("dumb"));
        Self::with(if moves { Kind::Motion } else { Kind::Lines })
    }

    fn with(kind: Kind) -> Self {
        Self { kind, shown: Arc::default() }
    }

    /// Waits for the work. `what`: as in `still reading the ledger`.
    pub async fn watch<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.counted(what, &Count::default(), work).await
    }

    /// The same, with how far it is.
    pub async fn counted<T>(&self, what: &str, count: &Count, work: impl Future<Output = T>) -> T {
        self.onto(&mut io::stderr(), what, count, work).await
    }

    async fn onto<T>(&self, out: &mut impl Write, what: &str, count: &Count, work: impl Future<Output = T>) -> T {
        if self.kind == Kind::Silent || self.shown.swap(true, Ordering::Relaxed) {
            return work.await;
        }
        // Whoever waits may be dropped in the middle.
        let _free = Free(&self.shown);
        let began = Instant::now();
        let every = if self.kind == Kind::Motion { FRAME } else { LINE };
        let mut ticks = interval_at(began + AFTER, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut work, mut width) = (std::pin::pin!(work), 0);
        loop {
            tokio::select! {
                biased;
                done = &mut work => {
                    clear(out, width);
                    return done;
                }
                _ = ticks.tick() => {
                    let text = self.text(what, count.read(), began.elapsed());
                    width = if self.kind == Kind::Motion { paint(out, &text, width) } else { line(out, &text) };
                }
            }
        }
    }

    fn text(&self, what: &str, (done, of): (u64, u64), took: Duration) -> String {
        let took_s = took.as_secs();
        let far = match (done, of) {
            (0, 0) => String::new(),
            (done, 0) => format!(" · {done}"),
            (done, of) => format!(" · {done} of {of}"),
        };
        if self.kind == Kind::Lines {
            return format!("dayfly: still {what}{far} · {took_s} s");
        }
        let frame = (took.as_millis() / FRAME.as_millis()) as usize % 4;
        let bar = if of == 0 { ["-", "\\", "|", "/"][frame].to_owned() } else { bar(done, of) };
        format!("dayfly: {bar} {what}{far} · {took_s} s").chars().take(WIDTH).collect()
    }
}

struct Free<'a>(&'a AtomicBool);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn bar(done: u64, of: u64) -> String {
    let full = (done.min(of) * BAR / of) as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR as usize - full))
}

/// Over the last picture. What nobody can see is no failure.
fn paint(out: &mut impl Write, text: &str, before: usize) -> usize {
    let width = text.chars().count();
    let _ = write!(out, "\r{text}{}", " ".repeat(before.saturating_sub(width))).and_then(|()| out.flush());
    width
}

fn line(out: &mut impl Write, text: &str) -> usize {
    let _ = writeln!(out, "{text}");
    0
}

fn clear(out: &mut impl Write, width: usize) {
    if width > 0 {
        let _ = write!(out, "\r{}\r", " ".repeat(width)).and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(kind: Kind, count: (u64, u64), work_s: u64) -> String {
        let (mut out, known) = (Vec::new(), Count::default());
        known.set(count.0, count.1);
        let work = tokio::time::sleep(Duration::from_secs(work_s));
        Progress::with(kind).onto(&mut out, "reading the ledger", &known, work).await;
        String::from_utf8(out).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_quick_says_nothing() {
        for kind in [Kind::Silent, Kind::Lines, Kind::Motion] {
            assert_eq!(shown(kind, (0, 0), 0).await, "", "{kind:?}");
        }
        assert_eq!(shown(Kind::Silent, (0, 0), 60).await, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_gets_a_line_after_a_second_and_then_one_in_ten() {
        let told = shown(Kind::Lines, (7, 0), 25).await;
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(
            lines,
            [1, 11, 21].map(|second| format!("dayfly: still reading the ledger · 7 · {second} s")).to_vec(),
        );
        assert!(!told.contains('\r') && !told.contains('\u{1b}'));
    }

    #[tokio::test(start_paused = true)]
    async fn a_terminal_sees_it_move_and_then_nothing_of_it() {
        let told = shown(Kind::Motion, (0, 0), 3).await;
        let frames: Vec<_> = told.split('\r').filter(|frame| frame.contains("reading")).collect();
        assert!(frames.len() > 10 && frames[0] != frames[1], "{frames:?}");
        assert!(!told.contains('\n') && !told.contains('\u{1b}'));
        let after = told.trim_end_matches('\r').rsplit('\r').next().unwrap();
        assert!(after.trim().is_empty() && after.len() >= "dayfly: - reading the ledger".len(), "{after:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bar_is_never_longer_than_full_nor_the_line_than_the_screen() {
        let told = shown(Kind::Motion, (9, 3), 2).await;
        assert!(told.contains(&format!("[{}] reading", "#".repeat(BAR as usize))), "{told}");
        assert_eq!(bar(0, 3), format!("[{}]", ".".repeat(BAR as usize)));
        let wide = Progress::with(Kind::Motion).text(&"x".repeat(200), (1, 2), AFTER);
        assert_eq!(wide.chars().count(), WIDTH);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_outer_wait_is_shown_and_a_dropped_one_frees_its_place() {
        let progress = Progress::with(Kind::Lines);
        let (mut outer, mut inner) = (Vec::new(), Vec::new());
        let (none, slow) = (Count::default(), || tokio::time::sleep(Duration::from_secs(5)));
        let nested = progress.onto(&mut inner, "asking", &none, slow());
        progress.onto(&mut outer, "reading", &none, nested).await;
        assert!(!outer.is_empty() && inner.is_empty());
        let waiting = progress.onto(&mut inner, "asking", &none, slow());
        assert!(tokio::time::timeout(Duration::from_secs(2), waiting).await.is_err());
        assert!(!progress.shown.load(Ordering::Relaxed));
    }
}
