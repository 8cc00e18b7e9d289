//! Signals: which are passed on, to whom, and from which moment on.

use std::{fs, process::Stdio};

use rustix::process::Signal;

use super::{GROUP, PARENT, Running, SESSION, Stage, WAITS, skipped, stat};
use crate::dev::wait_until;

/// Says each signal's name, and lasts until its stdin closes. No shell tells of each as it comes.
const TELLS: &str = r#"
    $| = 1;
    for my $s (qw(TERM HUP QUIT USR1 USR2 ALRM WINCH INT)) { $SIG{$s} = sub { print "$s\n" } }
    print "ready\n";
    while (1) { my $n = sysread(STDIN, my $line, 1); last if defined $n && $n == 0 }
"#;

/// The same, of a parent and its child, with their ids before.
const FAMILY: &str = r#"
    $| = 1;
    my $who = fork ? "parent" : "grandchild";
    $SIG{TERM} = sub { print "$who\n" };
    print "$$\n";
    while (1) { my $n = sysread(STDIN, my $line, 1); last if defined $n && $n == 0 }
"#;

const ALWAYS: [(Signal, &str); 7] = [
    (Signal::TERM, "TERM"),
    (Signal::HUP, "HUP"),
    (Signal::QUIT, "QUIT"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
    (Signal::ALARM, "ALRM"),
    (Signal::WINCH, "WINCH"),
];

#[test]
fn signals_are_forwarded_and_the_command_decides() {
    if skipped("perl") {
        return;
    }
    let stage = Stage::new();
    let mut running = stage.start(&[], &["perl", "-e", TELLS]);
    assert_eq!(running.line(), "ready");
    for (signal, name) in ALWAYS.into_iter().chain([(Signal::INT, "INT")]) {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    let (exit, _, said) = running.end();
    assert_eq!(exit, Some(0), "it was never killed: {said}");
}

#[test]
fn a_command_that_ignores_term_is_never_killed() {
    let stage = Stage::new();
    let ignores = "trap '' TERM HUP INT QUIT; echo ready; while read -r line; do :; done; exit 5";
    let mut running = stage.start(&[], &["sh", "-c", ignores]);
    assert_eq!(running.line(), "ready");
    for signal in [Signal::TERM, Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
        running.signal(signal);
    }
    let (exit, _, said) = running.end();
    assert_eq!(exit, Some(5), "{said}");
    assert!(said.contains("dayfly: ended"), "{said}");
}

#[test]
fn without_a_terminal_the_command_has_a_session_and_its_whole_group_hears() {
    if skipped("perl") {
        return;
    }
    let stage = Stage::new();
    let mut running = stage.start(&[], &["perl", "-e", FAMILY]);
    let ids: Vec<u32> = (0..2).map(|_| running.line().parse().unwrap()).collect();
    let command = *ids.iter().find(|id| stat(**id, PARENT) == running.id().to_string()).unwrap();
    for id in &ids {
        assert_eq!((stat(*id, GROUP), stat(*id, SESSION)), (command.to_string(), command.to_string()));
    }
    assert_ne!(stat(running.id(), SESSION), command.to_string());
    running.signal(Signal::TERM);
    let mut heard = [running.line(), running.line()];
    heard.sort();
    assert_eq!(heard, ["grandchild", "parent"]);
    running.end();
}

#[test]
fn with_a_terminal_the_command_is_in_our_group_and_a_ctrl_c_reaches_it_once() {
    if skipped("script") {
        return;
    }
    let stage = Stage::new();
    let show = "trap 'echo INT' INT; trap 'echo TERM' TERM; \
                echo own $$ group $(ps -o pgid= -p $$) above $(ps -o pgid= -p $PPID) wrapper $PPID; \
                while :; do read -r line; [ \"$line\" = done ] && break; done; exit 6";
    let inner = stage.exec_by(&["setsid"], &[], &["bash", "-c", show]);
    let words: Vec<_> = inner
        .get_args()
        .skip_while(|word| *word != "exec")
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', "'\\''")))
        .collect();
    let line = format!("exec '{}' {}", env!("CARGO_BIN_EXE_dayfly"), words.join(" "));
    let mut outer = std::process::Command::new("env");
    outer.args(["--default-signal", "script", "-qec", &line, "/dev/null"]).env_clear().current_dir(stage.work());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("SHELL", "/bin/sh");
    let mut running = Running::start(outer.stderr(Stdio::null()));
    let told = std::iter::repeat_with(|| running.line()).find(|line| line.starts_with("own ")).unwrap();
    let words: Vec<_> = told.split_whitespace().collect();
    let ["own", own, "group", group, "above", above, "wrapper", wrapper] = words[..] else { panic!("{told}") };
    assert!(group == above && own != group, "{told}");
    // The terminal's Ctrl-C: the command hears it once, and not from us again.
    std::io::Write::write_all(running.stdin.as_mut().unwrap(), b"\x03").unwrap();
    let wrapper = rustix::process::Pid::from_raw(wrapper.parse().unwrap()).unwrap();
    let hears = |running: &mut Running| {
        std::iter::repeat_with(|| running.line()).find(|line| line.ends_with("INT") || line.ends_with("TERM")).unwrap()
    };
    assert!(hears(&mut running).ends_with("INT"));
    rustix::process::kill_process(wrapper, Signal::TERM).unwrap();
    assert!(hears(&mut running).ends_with("TERM"), "the next that comes is ours");
    std::io::Write::write_all(running.stdin.as_mut().unwrap(), b"done\n").unwrap();
    let (exit, ..) = running.end();
    assert_eq!(exit, Some(6));
}

#[test]
fn the_command_inherits_the_defaults_and_a_nohup_is_its_own() {
    let stage = Stage::new();
    let show = ["cat", "/proc/self/status"];
    let masks = |shown: &[u8]| {
        ["SigBlk", "SigIgn", "SigCgt"].map(|name| {
            let line = super::text(shown).lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            // Those of the C library's own threads are above.
            u64::from_str_radix(line.unwrap(), 16).unwrap() & 0x7fff_ffff
        })
    };
    assert_eq!(masks(&stage.run(&[], &show).stdout), [0, 0, 0]);
    let output = stage.exec_by(&["nohup"], &[], &show).output().unwrap();
    assert_eq!(masks(&output.stdout), [0, 1, 0], "a hangup stays ignored");
}

/// Whether a process has a handler for this signal.
fn handles(id: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal.as_raw() - 1)) != 0
}

#[test]
fn handlers_are_there_before_the_command_and_a_signal_before_it_leaves_nothing() {
    let stage = Stage::new();
    let mark = stage.work().join("started");
    for (signal, expected) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129), (Signal::QUIT, 131)] {
        // Its evidence never comes.
        let running = stage.start(&["--evidence-file", "-"], &["touch", mark.to_str().unwrap()]);
        wait_until("the handlers", || handles(running.id(), Signal::QUIT));
        running.signal(signal);
        let mut running = running;
        let exit = running.child.wait().unwrap().code();
        assert_eq!(exit, Some(expected), "{signal:?}");
        let (_, _, said) = running.end();
        assert!(said.contains("before the command was started"), "{said}");
    }
    assert!(!mark.exists());
    assert_eq!(stage.tasks().matches("tsk_").count(), 0);
}

#[test]
fn a_command_that_closes_everything_and_outlives_its_group_is_waited_for() {
    let stage = Stage::new();
    let mut running = stage.start(&[], WAITS);
    assert_eq!(running.line(), "ready");
    let (exit, out, _) = running.end();
    assert_eq!((exit, out.as_str()), (Some(0), ""));
    let output = stage.run(&[], &["sh", "-c", "exec 0<&- 1>&- 2>&-; exit 4"]);
    assert_eq!(output.status.code(), Some(4));
    let closed = format!("exec {} exec --task x -- true <&- >&- 2>&-", env!("CARGO_BIN_EXE_dayfly"));
    let output = std::process::Command::new("sh").args(["-c", &closed]).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(125));
}
