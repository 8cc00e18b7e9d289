//! What ends by selector and blocks speak of: every task and lease for which all that is named holds.
//!
//! Its one string form is what people type after `--where`, what the store keeps and what the ledger's
//! detail shows: `owner == "team-shop" && repository_id == "88120"`. Values are compared whole: there
//! are no wildcards. Nothing here knows which names a bundle has; that is checked where it is used.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// Longest text of a selector, in bytes.
pub const SELECTOR_MAX_BYTES: usize = 4_096;

/// A conjunction. An absent member says nothing; an empty selector names everything and is refused
/// wherever something would end by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// The platform's label, as its profile builds it, without the issuer.
    pub job: Option<String>,
    /// The principal, `<issuer name>/<ids...>`.
    pub workload: Option<String>,
    pub owner: Option<String>,
    pub issuer: Option<String>,
    /// A target's name: then only leases of that target are meant, and their tasks live on.
    pub target: Option<String>,
    /// A permit's id: tasks that it opened, leases that it granted.
    pub row: Option<String>,
    pub template: Option<String>,
    /// The `kid` of the key that signed.
    pub key: Option<String>,
    /// Revocable claims: values as text, whatever their type; of a set, one that it contains.
    pub claims: BTreeMap<String, String>,
}

/// Why a text is no selector. Never quotes a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("nothing is selected: `name == \"value\"` is missing")]
    Empty,
    #[error("`{0}` stands twice")]
    Twice(String),
    #[error("position {0}: expected {1}")]
    Form(usize, &'static str),
    #[error("longer than {SELECTOR_MAX_BYTES} bytes")]
    Long,
}

/// Before a claim whose name is also one of ours.
const CLAIM: &str = "claim.";

impl Selector {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is named, in order, with its value. Claims come last, by name.
    pub fn terms(&self) -> impl Iterator<Item = (String, &str)> {
        let own = self.own().into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.as_deref()?)));
        own.chain(self.claims.iter().map(|(name, value)| (spelled(name), value.as_str())))
    }

    fn own(&self) -> [(&'static str, &Option<String>); 8] {
        let Self { job, workload, owner, issuer, target, row, template, key, claims: _ } = self;
        [
            ("job", job),
            ("workload", workload),
            ("owner", owner),
            ("issuer", issuer),
            ("target", target),
            ("row", row),
            ("template", template),
            ("key", key),
        ]
    }

    /// `None` where `name` is a claim's.
    fn own_mut(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "job" => &mut self.job,
            "workload" => &mut self.workload,
            "owner" => &mut self.owner,
            "issuer" => &mut self.issuer,
            "target" => &mut self.target,
            "row" => &mut self.row,
            "template" => &mut self.template,
            "key" => &mut self.key,
            _ => return None,
        })
    }

    fn add(&mut self, name: &str, value: String) -> Result<(), SelectorError> {
        let before = match self.own_mut(name) {
            Some(slot) => slot.replace(value),
            None => self.claims.insert(name.strip_prefix(CLAIM).unwrap_or(name).to_owned(), value),
        };
        before.map_or(Ok(()), |_| Err(SelectorError::Twice(name.to_owned())))
    }
}

/// A claim's name, told from a name of ours.
fn spelled(claim: &str) -> String {
    let ours = Selector::default().own_mut(claim).is_some() || claim.starts_with(CLAIM);
    if ours { format!("{CLAIM}{claim}") } else { claim.to_owned() }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.terms().enumerate() {
            let and = if at == 0 { "" } else { " && " };
            write!(f, "{and}{name} == \"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_MAX_BYTES {
            return Err(SelectorError::Long);
        }
        let mut rest = Rest { text, at: 0 };
        let mut selector = Self::default();
        rest.space();
        if rest.is_over() {
            return Err(SelectorError::Empty);
        }
        loop {
            let name = rest.name()?;
            rest.space();
            rest.word("==")?;
            rest.space();
            let value = rest.value()?;
            selector.add(name, value)?;
            rest.space();
            if rest.is_over() {
                return Ok(selector);
            }
            rest.word("&&")?;
            rest.space();
        }
    }
}

/// What is still to be read.
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn left(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn is_over(&self) -> bool {
        self.left().is_empty()
    }

    fn space(&mut self) {
        self.at += self.left().len() - self.left().trim_start_matches([' ', '\t']).len();
    }

    fn word(&mut self, word: &'static str) -> Result<(), SelectorError> {
        if !self.left().starts_with(word) {
            return Err(SelectorError::Form(self.at, if word == "==" { "`==`" } else { "`&&` or the end" }));
        }
        self.at += word.len();
        Ok(())
    }

    fn name(&mut self) -> Result<&'a str, SelectorError> {
        let part = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        let left = self.left();
        let end = left.find(|letter| !part(letter)).unwrap_or(left.len());
        let name = &left[..end];
        if name.is_empty() || name == CLAIM {
            return Err(SelectorError::Form(self.at, "a name"));
        }
        self.at += end;
        Ok(name)
    }

    /// In double quotes; `\"` and `\\` stand for themselves; no control characters, and not empty.
    fn value(&mut self) -> Result<String, SelectorError> {
        const WANTED: &str = "a value in double quotes";
        let start = self.at;
        let mut letters = self.left().char_indices();
        if !matches!(letters.next(), Some((_, '"'))) {
            return Err(SelectorError::Form(start, WANTED));
        }
        let mut value = String::new();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' if value.is_empty() => return Err(SelectorError::Form(start, "a value that is not empty")),
                '"' => {
                    self.at = start + at + 1;
                    return Ok(value);
                }
                '\\' => match letters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(SelectorError::Form(start + at, "`\\\"` or `\\\\`")),
                },
                control if control.is_control() => {
                    return Err(SelectorError::Form(start + at, "no control character"));
                }
                other => value.push(other),
            }
        }
        Err(SelectorError::Form(start, WANTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_survives_its_text() {
        let text = r#"owner == "team-shop" && template == "a\"b\\" && claim.job == "7" && repository_id == "88120""#;
        let selector: Selector = text.parse().unwrap();
        assert_eq!(selector.owner.as_deref(), Some("team-shop"));
        assert_eq!(selector.template.as_deref(), Some(r#"a"b\"#));
        assert_eq!(selector.claims.get("job").map(String::as_str), Some("7"));
        assert_eq!(selector.job, None);
        assert_eq!(selector.to_string(), text);
        let loose: Selector = "  owner==\"x\"&&row  ==\t\"y\" ".parse().unwrap();
        assert_eq!(loose.to_string(), r#"owner == "x" && row == "y""#);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "",
            "   ",
            "owner",
            "owner = \"x\"",
            "owner == x",
            "owner == \"x",
            "owner == \"\"",
            "owner == \"x\" ||",
            "owner == \"x\" && ",
            "owner == \"x\" row == \"y\"",
            "owner == \"x\" || owner == \"y\"",
            "owner == \"x\" && owner == \"x\"",
            "owner != \"x\"",
            "claim. == \"x\"",
            "owner == \"a\nb\"",
            "owner == \"\\n\"",
            "öwner == \"x\"",
            "* == \"x\"",
        ] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        assert_eq!(format!("owner == \"{}\"", "x".repeat(5_000)).parse::<Selector>(), Err(SelectorError::Long));
    }
}
