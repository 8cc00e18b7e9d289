//! How the story is told: numbered steps, each with what it took, in plain lines. People read it
//! as it happens; a pipe gets the same.

use std::time::Duration;

use crate::cli::{failure::Failure, session::Screen, table::escape};

/// Where the measure stands.
const WIDTH: usize = 71;
const INDENT: &str = "                  ";

/// The page being written.
#[derive(Debug)]
pub struct Page {
    screen: Screen,
    steps: u32,
}

impl Page {
    pub fn new(screen: Screen) -> Self {
        Self { screen, steps: 0 }
    }

    /// A line that is no step.
    pub fn line(&self, text: &str) -> Result<(), Failure> {
        self.screen.data(&format!("{}\n", escape(text)))
    }

    /// Who does what, and how long it took.
    pub fn step(&mut self, who: &str, what: &str, took: Option<Duration>) -> Result<(), Failure> {
        self.steps += 1;
        self.line(&step(self.steps, who, what, took))
    }

    /// More about the step.
    pub fn more(&self, text: &str) -> Result<(), Failure> {
        self.line(&format!("{INDENT}{text}"))
    }
}

fn step(number: u32, who: &str, what: &str, took: Option<Duration>) -> String {
    let text = format!("{number:>2}  {who:<14}{what}");
    match took {
        Some(took) => format!("{text:<WIDTH$}{:>8}", millis(took)),
        None => text,
    }
}

/// Milliseconds, with a tenth where it says something.
pub fn millis(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_its_number_who_what_and_how_long() {
        let line = step(3, "CI job", "gets a token", Some(Duration::from_micros(4_321)));
        assert_eq!(line.len(), WIDTH + 8);
        assert!(line.starts_with(" 3  CI job        gets a token ") && line.ends_with("  4.3 ms"), "{line}");
        assert_eq!(step(10, "you", "read", None), "10  you           read");
        assert_eq!(millis(Duration::from_millis(1234)), "1234 ms");
    }
}
