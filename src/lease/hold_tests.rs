use super::*;

const GRACE: Span = Span::seconds(15);

fn id(number: usize) -> TaskId {
    TaskId::from_u128(number as u128 + 1)
}

/// Holds of tasks that all began at once, and the second of their clock.
struct Beating {
    holds: Holds,
    at_s: i64,
}

impl Beating {
    fn of(count: usize) -> Self {
        let mut beating = Self { holds: Holds::default(), at_s: 0 };
        beating.pass(1);
        (0..count).for_each(|number| beating.holds.begin(id(number)));
        beating
    }

    /// Seconds in which nobody beats.
    fn pass(&mut self, seconds: i64) -> Look {
        self.pass_beating(seconds, 0..0)
    }

    /// Seconds in each of which these beat, and then are looked at.
    fn pass_beating(&mut self, seconds: i64, numbers: std::ops::Range<usize>) -> Look {
        let mut all = Look::default();
        for _ in 0..seconds {
            self.at_s += 1;
            for number in numbers.clone() {
                assert!(self.holds.beat(id(number), self.at_s * 1_000), "{number} at {}", self.at_s);
            }
            let Look { lapsed, storm, away_ms } = self.holds.look(self.at_s * 1_000, |_| Some(GRACE));
            all.lapsed.extend(lapsed);
            all.storm = storm.or(all.storm);
            all.away_ms = away_ms.or(all.away_ms);
        }
        all
    }

    fn lapsed(look: &Look) -> Vec<TaskId> {
        let mut ids: Vec<_> = look.lapsed.iter().map(|(id, _)| *id).collect();
        ids.sort();
        ids
    }
}

#[test]
fn a_hold_lapses_its_grace_after_the_last_beat_and_not_before() {
    let mut tasks = Beating::of(2);
    assert_eq!(tasks.pass_beating(40, 0..2), Look::default());
    assert_eq!(tasks.pass_beating(14, 1..2), Look::default());
    assert_eq!(Beating::lapsed(&tasks.pass_beating(2, 1..2)), [id(0)]);
    assert!(!tasks.holds.beat(id(0), tasks.at_s * 1_000), "it is held no more");
    assert_eq!(tasks.holds.beating(), 1);
    assert_eq!(tasks.pass_beating(60, 1..2), Look::default(), "once");
}

#[test]
fn a_hold_that_has_begun_and_never_beats_again_lapses() {
    let mut tasks = Beating::of(1);
    assert_eq!(tasks.holds.held(id(0), GRACE).unwrap().last_ms, None);
    assert_eq!(tasks.pass(14), Look::default());
    assert_eq!(Beating::lapsed(&tasks.pass(2)), [id(0)]);
    assert!(tasks.holds.held(id(0), GRACE).is_none() && lock(&tasks.holds.calendar).is_empty());
}

#[test]
fn what_is_released_lapses_never() {
    let mut tasks = Beating::of(3);
    tasks.holds.release(id(1));
    assert_eq!(Beating::lapsed(&tasks.pass(30)), [id(0), id(2)]);
}

#[test]
fn a_grace_is_that_of_its_task_when_it_is_looked_at() {
    let holds = Holds::default();
    holds.look(1, |_| None);
    let graces = [Span::seconds(10), Span::seconds(3_600)];
    holds.begin(id(0));
    holds.begin(id(1));
    holds.begin(id(2));
    let mut ended = Vec::new();
    for second in 1..=4_000 {
        let of = |task: TaskId| graces.get(task.as_u128() as usize - 1).copied();
        let lapsed = holds.look(second * 1_000, of).lapsed;
        ended.extend(lapsed.into_iter().map(|(task, _)| (task, second)));
    }
    assert_eq!(ended, [(id(0), 11), (id(1), 3_601)], "and what need not be held is let go");
    assert_eq!(holds.beating(), 0);
}

#[test]
fn a_storm_of_lost_holds_ends_nothing_for_a_minute() {
    let mut tasks = Beating::of(500);
    tasks.pass_beating(20, 0..500);
    let began = tasks.pass_beating(16, 100..500);
    assert_eq!(tasks.at_s, 37);
    assert_eq!(began.storm, Some(Storm::Began { silent: 100, beating: 500 }));
    assert!(began.lapsed.is_empty() && tasks.holds.storm());
    // Twenty of them are heard again, the rest is not.
    let during = tasks.pass_beating(58, 80..500);
    assert_eq!(tasks.at_s, 95, "the last second of the storm");
    assert!(during.lapsed.is_empty() && during.storm.is_none());
    let over = tasks.pass_beating(3, 80..500);
    assert_eq!((over.lapsed.len(), over.storm), (80, Some(Storm::Over)), "who stays silent ends");
    assert!(!tasks.holds.storm());
    assert_eq!(tasks.pass_beating(60, 80..500), Look::default());
}

/// Looks come when they come, hardly ever on a whole second.
#[test]
fn what_a_storm_spared_ends_with_it_whenever_the_looks_come() {
    for phase_ms in [0, 1, 60, 500, 999] {
        let holds = Holds::default();
        let look = |second: i64| holds.look(second * 1_000 + phase_ms, |_| Some(GRACE));
        look(1);
        (0..79).for_each(|number| holds.begin(id(number)));
        let (mut began, mut over, mut ended) = (0, Vec::new(), 0);
        for second in 2..=200 {
            // The last that is heard of them, each at its own time.
            if second == 5 {
                (0..79).for_each(|number| assert!(holds.beat(id(number), 5_000 + 41 * number as i64)));
            }
            let look = look(second);
            began += u32::from(matches!(look.storm, Some(Storm::Began { .. })));
            over.extend(matches!(look.storm, Some(Storm::Over)).then_some(look.lapsed.len()));
            ended += look.lapsed.len();
        }
        assert_eq!((began, over.len(), ended), (1, 1, 79), "{phase_ms}");
        assert!(over[0] > 0, "{phase_ms}: {over:?}");
    }
}

#[test]
fn jobs_that_die_are_no_storm() {
    for (beating, dying, storm) in [(500, 50, false), (500, 51, true), (20, 20, false), (21, 21, true), (100, 21, true)]
    {
        let mut tasks = Beating::of(beating);
        tasks.pass_beating(20, 0..beating);
        let look = tasks.pass_beating(17, dying..beating);
        assert_eq!(look.storm.is_some(), storm, "{dying} of {beating}");
        assert_eq!(look.lapsed.len(), if storm { 0 } else { dying }, "{dying} of {beating}");
    }
}

#[test]
fn lapses_add_up_within_a_grace_and_not_beyond() {
    let mut tasks = Beating::of(100);
    tasks.pass_beating(20, 0..100);
    // One in each second: fifteen within a grace.
    for first in 1..60 {
        let look = tasks.pass_beating(1, first..100);
        assert_eq!(look.storm, None, "{first}");
    }
    // Two in each second: thirty.
    let looks: Vec<_> = (0..15).map(|step| tasks.pass_beating(1, (60 + 2 * step)..100)).collect();
    assert!(looks.iter().all(|look| look.storm.is_none()));
    let storm = tasks.pass_beating(15, 90..100);
    assert!(matches!(storm.storm, Some(Storm::Began { silent: 21, .. })), "{storm:?}");
}

#[test]
fn another_storm_does_not_spare_what_was_spared() {
    let mut tasks = Beating::of(100);
    tasks.pass_beating(20, 0..100);
    tasks.pass_beating(17, 30..100);
    assert!(tasks.holds.storm());
    // Thirty more die so that they lapse when the storm is just over.
    tasks.pass_beating(44, 30..100);
    let over = tasks.pass_beating(14, 60..100);
    assert_eq!((over.storm, over.lapsed.len()), (Some(Storm::Over), 30));
    let look = tasks.pass_beating(1, 60..100);
    assert!(matches!(look.storm, Some(Storm::Began { .. })), "{look:?}");
    assert_eq!(Beating::lapsed(&over), (0..30).map(id).collect::<Vec<_>>());
    let look = tasks.pass_beating(60, 60..100);
    assert_eq!(Beating::lapsed(&look), (30..60).map(id).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_was_away_starts_every_grace_anew() {
    let mut tasks = Beating::of(10);
    tasks.pass_beating(20, 0..10);
    tasks.at_s += 600;
    let look = tasks.pass(1);
    assert_eq!((look.away_ms, look.lapsed.len()), (Some(601_000), 0));
    let look = tasks.pass_beating(14, 5..10);
    assert!(look.lapsed.is_empty());
    let look = tasks.pass_beating(2, 5..10);
    assert_eq!((look.lapsed.len(), look.storm), (5, None), "who died meanwhile ends one grace later");
}

#[test]
fn a_storm_is_forgotten_with_the_pause_that_comes_after_it() {
    let mut tasks = Beating::of(100);
    tasks.pass_beating(20, 0..100);
    tasks.pass_beating(17, 50..100);
    assert!(tasks.holds.storm());
    tasks.at_s += 30;
    tasks.pass(1);
    assert!(!tasks.holds.storm());
    let look = tasks.pass_beating(16, 50..100);
    assert!(matches!(look.storm, Some(Storm::Began { silent: 50, beating: 100 })), "{look:?}");
}

#[test]
fn a_mass_death_ends_in_slices_after_its_minute() {
    let count = 2 * ENDED_EACH_MAX + 10;
    let mut tasks = Beating::of(count);
    let began = tasks.pass(16);
    assert_eq!(began.storm, Some(Storm::Began { silent: count, beating: count }));
    assert!(tasks.pass(58).lapsed.is_empty());
    let each: Vec<_> = (0..4).map(|_| tasks.pass(1)).map(|look| (look.lapsed.len(), look.storm)).collect();
    let slices = [(ENDED_EACH_MAX, Some(Storm::Over)), (ENDED_EACH_MAX, None), (10, None), (0, None)];
    assert_eq!(each, slices);
}

#[test]
fn a_beat_and_a_lapse_do_not_both_win() {
    let tasks = Beating::of(1);
    // The look has found it silent when the beat comes.
    assert!(tasks.holds.beat(id(0), 17_000));
    assert!(!tasks.holds.lapse(id(0), GRACE, 17_000));
    assert!(tasks.holds.lapse(id(0), GRACE, 32_000) && !tasks.holds.beat(id(0), 32_000));
}

#[test]
fn beats_of_two_connections_count_whichever_comes_last() {
    let tasks = Beating::of(1);
    assert!(tasks.holds.beat(id(0), 9_000) && tasks.holds.beat(id(0), 8_000));
    assert_eq!(tasks.holds.held(id(0), GRACE), Some(Held { last_ms: Some(9_000), lapses_ms: 24_000 }));
}
