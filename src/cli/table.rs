//! Plain aligned tables, and what makes text from the wire safe to show.
//!
//! Claims are chosen by others: a branch may be called `ESC[2J`. Whatever moves a cursor, breaks a
//! line, turns the reading direction or cannot be seen is shown as its code.

use std::{borrow::Cow, fmt::Write};

/// Text from elsewhere, safe for a terminal.
// SECURITY: T-170, `a_branch_cannot_paint_the_terminal`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            '"' | '\'' => out.push(letter),
            _ => out.extend(letter.escape_debug()),
        }
    }
    Cow::Owned(out)
}

/// One word for a shell, whatever is in it; without a backslash, which would be shown as two.
pub fn quoted(text: &str) -> String {
    let shown = |letter: char| match letter {
        // Within single quotes a shell leaves it alone.
        '\\' => letter.to_string(),
        _ => escape(letter.encode_utf8(&mut [0; 4])).into_owned(),
    };
    format!("'{}'", text.chars().map(shown).collect::<String>().replace('\'', r#"'"'"'"#))
}

/// JSON whose strings are safe for a terminal and keep to their line: the same value, spelt with
/// `\u`. Outside strings JSON has only ASCII, so each such character stands in one.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if json.bytes().all(|byte| byte < 0x7f) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 8);
    for letter in json.chars() {
        if letter >= '\u{7f}' && letter.escape_debug().len() > 1 {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(letter);
        }
    }
    Cow::Owned(out)
}

/// Rows of cells under a head; the last column is not padded.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| cell.to_uppercase()).collect()] }
    }

    pub fn row(&mut self, cells: &[&str]) {
        let cell = |text: &&str| if text.is_empty() { "-".to_owned() } else { escape(text).into_owned() };
        self.rows.push(cells.iter().map(cell).collect());
    }

    pub fn render(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for (column, cell) in self.rows.iter().flat_map(|row| row.iter().enumerate()) {
            widths[column] = widths[column].max(cell.chars().count());
        }
        widths
    }
}

/// Name and value, one pair a line; pairs without a value are left out.
pub fn pairs(items: &[(&str, String)]) -> String {
    let width = items.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in items.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(out, "{name:<width$}  {}", escape(value));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_cannot_paint_the_terminal() {
        let evil = "a\u{1b}[31m\nb\r\t\u{0}\u{7f}\u{9b}\u{202e}\u{2028}\u{200b}\u{feff}\u{2066}\u{e0041}\\n{}";
        let shown = escape(evil);
        assert_eq!(shown, r"a\u{1b}[31m\nb\r\t\0\u{7f}\u{9b}\u{202e}\u{2028}\u{200b}\u{feff}\u{2066}\u{e0041}\\n{}");
        assert_eq!(escape("déjà \"vu\" 日本"), "déjà \"vu\" 日本");
    }

    #[test]
    fn json_keeps_its_value_and_its_line() {
        let value = serde_json::json!({ "ref": "a\u{202e}b\u{2028}\u{7f}\u{9b}\u{e0041}\n\u{1b}é" });
        let text = value.to_string();
        let safe = escape_json(&text);
        assert!(safe.chars().all(|letter| letter == 'é' || (' '..'\u{7f}').contains(&letter)), "{safe}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["id", "owner", "left"]);
        table.row(&["lse_1", "team-shop", "3m"]);
        table.row(&["lse_22", "", "é\n"]);
        insta::assert_snapshot!(table.render(), @r"
        ID      OWNER      LEFT
        lse_1   team-shop  3m
        lse_22  -          é\n
        ");
    }

    #[test]
    fn pairs_leave_out_what_is_not_there() {
        let text = pairs(&[("id", "x".to_owned()), ("ticket", String::new()), ("owner", "a\nb".to_owned())]);
        assert_eq!(text, "id      x\nowner   a\\nb\n");
    }
}
