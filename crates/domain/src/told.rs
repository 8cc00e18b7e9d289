//! Text from elsewhere, as people may be told it.

use crate::may_hold_secret;

/// Characters of one text that are told.
pub const TOLD_MAX_CHARS: usize = 200;

/// Printable, cut, and nothing that may hold a secret (law L8): what moves a cursor, breaks a line or
/// cannot be seen becomes U+FFFD.
// SECURITY: `a_secret_is_never_told`, `what_is_told_is_printable_and_cut`.
pub fn told(text: &str) -> String {
    if may_hold_secret(text) {
        return "(withheld)".to_owned();
    }
    let plain = |letter: char| match letter {
        '"' | '\'' | '\\' => letter,
        _ if letter.escape_debug().len() > 1 => char::REPLACEMENT_CHARACTER,
        _ => letter,
    };
    let mut out: String = text.chars().take(TOLD_MAX_CHARS).map(plain).collect();
    if text.chars().nth(TOLD_MAX_CHARS).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_told() {
        for text in ["dtc_SECRET", "see eyJhbGciOiJub25lIn0.e30."] {
            assert_eq!(told(text), "(withheld)");
        }
    }

    #[test]
    fn what_is_told_is_printable_and_cut() {
        assert_eq!(told("a\u{1b}[2J\n\u{202e}\u{200b}\"é\\"), "a\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}\"é\\");
        let long = told(&"é".repeat(TOLD_MAX_CHARS + 1));
        assert_eq!(long.chars().count(), TOLD_MAX_CHARS + 3);
        assert_eq!(told(&"é".repeat(TOLD_MAX_CHARS)).chars().count(), TOLD_MAX_CHARS);
    }
}
