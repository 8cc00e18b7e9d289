//! What is wrong with a bundle, said so that its author can put it right.

use std::fmt;

/// Something that keeps a bundle from loading.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, below the top of the bundle.
    pub path: String,
    /// Where in it, e.g. `task.deploy-prod.allow[0].claims.ref`.
    pub at: String,
    pub what: String,
    pub help: Option<String>,
}

/// Something that loads and is probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lint {
    pub at: String,
    pub what: String,
    pub help: Option<String>,
}

impl Problem {
    pub fn new(path: &str, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { path: path.into(), at: at.into(), what: what.into(), help: None }
    }

    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = [&self.path, &self.at];
        places.iter().filter(|place| !place.is_empty()).try_for_each(|place| write!(f, "{place}: "))?;
        f.write_str(&self.what)?;
        self.help.iter().try_for_each(|help| write!(f, " (help: {help})"))
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)?;
        self.help.iter().try_for_each(|help| write!(f, " (help: {help})"))
    }
}

/// A table and the file it stands in.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub path: &'a str,
    pub table: String,
}

impl<'a> Place<'a> {
    pub fn new(path: &'a str, table: impl Into<String>) -> Self {
        Self { path, table: table.into() }
    }

    pub fn below(&self, key: impl fmt::Display) -> Self {
        Self { path: self.path, table: format!("{}.{key}", self.table) }
    }
}

/// All problems found so far: a check goes on after the first.
#[derive(Debug, Default)]
pub(super) struct Found(pub Vec<Problem>);

impl Found {
    /// `key` may be empty: the table itself.
    pub fn add(&mut self, place: &Place<'_>, key: &str, what: impl Into<String>) {
        self.0.push(Problem::new(place.path, at(place, key), what));
    }

    pub fn add_with(&mut self, place: &Place<'_>, key: &str, what: impl Into<String>, help: impl Into<String>) {
        self.0.push(Problem::new(place.path, at(place, key), what).help(help));
    }

    /// A problem unless `holds`.
    pub fn require(&mut self, holds: bool, place: &Place<'_>, key: &str, what: &str) {
        if !holds {
            self.add(place, key, what);
        }
    }
}

fn at(place: &Place<'_>, key: &str) -> String {
    if key.is_empty() { place.table.clone() } else { format!("{}.{key}", place.table) }
}
