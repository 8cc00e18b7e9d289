//! The only door to the environment.

/// The variable's text, also when it is empty; `None` when it is unset or not UTF-8.
#[expect(clippy::disallowed_methods, reason = "the one door to the environment")]
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
