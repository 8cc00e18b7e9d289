//! The lints in one table, for the reference: what each looks for, and whether it keeps a bundle
//! from loading.

use super::super::{Lint, Problem};

macro_rules! rules {
    ($($variant:ident = $name:literal, $refuses:literal, $what:literal, $mend:literal;)+) => {
        /// A lint. Its name stands behind what it says, in square brackets.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $($variant),+ }

        /// All lints, in the order of the reference.
        pub const LINTS: &[LintRow] = &[
            $(LintRow { rule: Rule::$variant, name: $name, refuses: $refuses, what: $what, mend: $mend }),+
        ];
    };
}

/// What the reference shows of a lint.
#[derive(Debug, Clone, Copy)]
pub struct LintRow {
    pub rule: Rule,
    /// Stable, as a code is.
    pub name: &'static str,
    /// The bundle does not load; otherwise it loads with a warning.
    pub refuses: bool,
    pub what: &'static str,
    pub mend: &'static str,
}

rules! {
    NameNotId = "name-not-id", true,
        "a row or a pin names something that can be renamed and taken by someone else, and not its id",
        "name the id that the profile gives for it; the name may stay beside it";
    OpenProduction = "open-production", true,
        "a row of a template in the environment `production` pins neither the platform's environment nor a protected ref, though the platform has them",
        "name the claim that says so";
    NeverMatches = "never-matches", true,
        "no evidence that is believed can match the row",
        "correct its claims, or remove it";
    Useless = "useless", true,
        "another row of the template permits all that this one does, as long or longer",
        "remove one of the two, or make the wider one narrower";
    UnreviewedWrites = "unreviewed-writes", true,
        "evidence of unreviewed code, or of a phase that only plans, gets actions that change something",
        "grant a template of its own, with actions that the target names in `reads`";
    SharedAccount = "shared-account", true,
        "one workload could match rows of templates of several owners",
        "give each owner a workload of its own, or pin in each row what tells their jobs apart";
    Overdue = "overdue", false,
        "a row is past its review date; past the grace of the server's settings it permits nothing",
        "review the row and set a new `review_by`";
    ValueNeverMatches = "value-never-matches", false,
        "one of a row's values can never match",
        "remove the value";
    Wildcard = "wildcard", false,
        "a value of a row or a pin has a `*`, which stands for itself: there are no wildcards",
        "write out every value";
    NoJobLabel = "no-job-label", false,
        "a template limits what one job may have, and evidence of one of its rows names no job",
        "remove `keys_per_job` and `per_job`, or use a platform whose profile has a `job`";
    Opaque = "opaque", false,
        "a permit for `run` is written by hand: no lint looks into it",
        "write it as rows, or have its reader know whom it lets in";
    ChangesHands = "changes-hands", false,
        "a row names nothing that stays with one workload",
        "name a claim of the profile's principal";
    MovingRef = "moving-ref", false,
        "a row names code by a branch or a tag, which others can move",
        "pin its commit, or a protected ref";
    PrivateKeys = "private-keys", false,
        "an issuer reaches private addresses with the authorities of the public web",
        "give `ca_file`";
    NoCertificate = "no-certificate", false,
        "something is said of a certificate that is never issued: the template has not one target that takes them, or the target is said to verify what it never gets",
        "give the template one target with `binding = \"mtls\"`, or leave out `serves` and `leaf`";
    Unrevocable = "unrevocable", false,
        "credentials that cannot be revoked live longer than 15 minutes",
        "verify by introspection, or shorten `max_ttl`";
    IdleVerifier = "idle-verifier", false,
        "a verifier may introspect for no target",
        "add a `[[target.NAME.verifier]]`";
    NobodyAnswers = "nobody-answers", false,
        "a target's server is said to introspect, and no verifier may",
        "add a `[[target.NAME.verifier]]`";
    WholePlatform = "whole-platform", false,
        "every token of a platform may introspect for a target",
        "name a claim such as `sub`";
    NeverGranted = "never-granted", false,
        "a template's ttl is longer than its target takes, or than its deadline",
        "shorten the ttl";
    IdleGrace = "idle-grace", false,
        "a template's grace is as long as its tasks: a task whose process died is expired before it is ended",
        "shorten the grace";
}

impl Rule {
    pub fn name(self) -> &'static str {
        // INVARIANT: the macro writes enum and table in one order; `the_table_is_in_order` holds it.
        LINTS[self as usize].name
    }

    /// A warning.
    pub fn warns(self, at: String, what: impl AsRef<str>, help: Option<String>) -> Lint {
        Lint { at, what: self.said(what), help }
    }

    /// A reason not to load.
    pub(super) fn refuses(self, path: &str, at: String, what: impl AsRef<str>, help: impl Into<String>) -> Problem {
        Problem::new(path, at, self.said(what)).help(help)
    }

    fn said(self, what: impl AsRef<str>) -> String {
        format!("{} [{}]", what.as_ref(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        for (index, row) in LINTS.iter().enumerate() {
            assert_eq!(row.rule as usize, index);
            assert!(row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{}", row.name);
        }
    }
}
