//! What every verb has at hand: the environment, the screen, how to print, what time it is.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, IsTerminal, Write},
};

use clap::ValueEnum;

use super::{
    args::{Colour, ErrorFormat, Output, StyleArgs},
    failure::Failure,
    table::escape,
};
use crate::sys::{clock::Clock, env};

/// The variables: the process's, or a test's.
#[derive(Debug, Clone)]
pub enum Vars {
    Process,
    Given(BTreeMap<String, String>),
}

impl Vars {
    pub fn given(pairs: &[(&str, &str)]) -> Self {
        Self::Given(pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect())
    }

    /// These variables and no other.
    pub fn only(&self, names: &[&str]) -> Self {
        let held = names.iter().filter_map(|name| self.raw(name).map(|value| (name.to_string(), value)));
        Self::Given(held.collect())
    }

    /// The variable as it is, also when it is empty.
    pub fn raw(&self, name: &str) -> Option<String> {
        match self {
            Self::Process => env::var(name),
            Self::Given(map) => map.get(name).cloned(),
        }
    }

    /// The variable, unless it is empty: for what has a default.
    pub fn get(&self, name: &str) -> Option<String> {
        self.raw(name).filter(|value| !value.is_empty())
    }
}

/// Data goes to stdout, talk to stderr.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    colour: bool,
    /// On stdout.
    paints: bool,
}

impl Screen {
    /// `NO_COLOR` and `TERM=dumb` count where `--color` does not say otherwise.
    pub fn new(colour: Colour, vars: &Vars) -> Self {
        let allowed = vars.get("NO_COLOR").is_none() && vars.get("TERM").as_deref() != Some("dumb");
        let on = |terminal: bool| match colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => allowed && terminal,
        };
        Self { colour: on(io::stderr().is_terminal()), paints: on(io::stdout().is_terminal()) }
    }

    /// Whether data for people may be coloured.
    pub fn paints(&self) -> bool {
        self.paints
    }

    /// What the caller asked for. A reader that went away ends the process without a word.
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::quiet(),
            _ => Failure::failed("stdout cannot be written").because(error),
        })
    }

    /// One line of talk: `dayfly: ...`. Safe for the terminal whatever is in it.
    pub fn say(&self, line: &str) {
        self.talk(&format!("dayfly: {}\n", escape(line)));
    }

    /// Lines to look at before a question, where stdout is for a program. The caller made them safe.
    pub fn show(&self, text: &str) {
        self.talk(text);
    }

    /// A yes to a question at the terminal. An end of input is a no.
    pub fn confirm(&self, question: &str) -> bool {
        self.talk(&format!("dayfly: {} [y/N] ", escape(question)));
        let mut answer = String::new();
        let heard = io::stdin().lock().read_line(&mut answer);
        heard.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
    }

    /// What is typed in answer to a question. `None`: nothing was.
    pub fn ask(&self, question: &str) -> Option<String> {
        self.talk(&format!("dayfly: {} ", escape(question)));
        let mut answer = String::new();
        let heard = io::stdin().lock().read_line(&mut answer).is_ok();
        heard.then(|| answer.trim().to_owned()).filter(|answer| !answer.is_empty())
    }

    pub fn warn(&self, line: &str) {
        self.talk(&format!("{}: {}\n", self.label("warning", "33"), escape(line)));
    }

    pub fn fail(&self, failure: &Failure, format: ErrorFormat) {
        match format {
            _ if failure.is_quiet() => {}
            ErrorFormat::Text => self.talk(&failure.painted(&self.label("error", "31"), self.colour)),
            ErrorFormat::Json => self.talk(&failure.json()),
        }
    }

    fn label(&self, word: &str, code: &str) -> String {
        if self.colour { format!("\u{1b}[1;{code}m{word}\u{1b}[0m") } else { word.to_owned() }
    }

    /// Talk that nobody can hear is no failure.
    fn talk(&self, text: &str) {
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// One run of the command line.
#[derive(Debug, Clone)]
pub struct Session {
    pub vars: Vars,
    pub screen: Screen,
    pub output: Output,
    /// Nothing may be asked: also when there is no terminal.
    pub no_input: bool,
    pub clock: Clock,
}

impl Session {
    /// `--output`, otherwise `DAYFLY_OUTPUT`, otherwise a table.
    pub fn new(style: &StyleArgs, vars: Vars) -> Result<Self, Failure> {
        let screen = Screen::new(style.color, &vars);
        let output = match (style.output, vars.get("DAYFLY_OUTPUT")) {
            (Some(output), _) => output,
            (None, Some(text)) => Output::from_str(&text, false).map_err(|_| bad_output(&text))?,
            (None, None) => Output::Table,
        };
        let no_input = style.no_input || !io::stdin().is_terminal();
        Ok(Self { vars, screen, output, no_input, clock: Clock::Machine })
    }
}

fn bad_output(text: &str) -> Failure {
    Failure::usage(format!("`DAYFLY_OUTPUT` is `{text}`, which is no output format"))
        .help("use `table`, `json`, `jsonl` or `name`")
}

/// Nothing from the process: no variables, a table, a clock that stands.
#[cfg(test)]
pub fn test_session() -> Session {
    let vars = Vars::given(&[]);
    let screen = Screen::new(Colour::Never, &vars);
    Session { vars, screen, output: Output::Table, no_input: true, clock: Clock::Stepped(Default::default()) }
}

/// The same at this time.
#[cfg(test)]
pub fn session_at(time: &str) -> Session {
    use crate::sys::clock::Stepped;
    let at = dayfly_domain::UnixMs::parse(time).unwrap();
    Session { clock: Clock::Stepped(Stepped::at(at)), ..test_session() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(output: Option<Output>) -> StyleArgs {
        StyleArgs { output, error_format: ErrorFormat::Text, color: Colour::Auto, no_input: false }
    }

    #[test]
    fn the_flag_beats_the_variable() {
        let vars = Vars::given(&[("DAYFLY_OUTPUT", "jsonl")]);
        assert_eq!(Session::new(&style(None), vars.clone()).unwrap().output, Output::Jsonl);
        assert_eq!(Session::new(&style(Some(Output::Name)), vars).unwrap().output, Output::Name);
        assert_eq!(Session::new(&style(None), Vars::given(&[("DAYFLY_OUTPUT", "")])).unwrap().output, Output::Table);
    }

    #[test]
    fn a_wrong_output_variable_is_a_usage_error() {
        let failure = Session::new(&style(None), Vars::given(&[("DAYFLY_OUTPUT", "yaml")])).unwrap_err();
        assert_eq!(failure.exit(), 2);
    }

    #[test]
    fn no_color_and_a_dumb_terminal_switch_colour_off_but_not_against_the_flag() {
        for vars in [Vars::given(&[("NO_COLOR", "1")]), Vars::given(&[("TERM", "dumb")])] {
            assert_eq!(Screen::new(Colour::Auto, &vars).label("error", "31"), "error");
            assert!(Screen::new(Colour::Always, &vars).label("error", "31").contains("error"));
            assert_ne!(Screen::new(Colour::Always, &vars).label("error", "31"), "error");
        }
    }
}
