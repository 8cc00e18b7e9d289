//! Just enough of YAML to run what the how-to pages and the template say: block maps of plain scalars and
//! `|` blocks, as they are written there.

use serde_json::Value;

/// The fenced blocks of a page that begin like this.
pub fn blocks<'a>(page: &'a str, begin: &'a str) -> impl Iterator<Item = &'a str> {
    let fenced = page.split("\n```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    fenced.filter(move |block| block.starts_with(begin))
}

pub fn after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.split_once(mark).unwrap_or_else(|| panic!("no `{mark}`")).1
}

/// What stands below this key: the lines that are indented deeper than it, and, of a list's item, its
/// other keys.
pub fn pairs(text: &str, key: &str) -> Vec<(String, Value)> {
    let mut lines = text.lines().skip_while(|line| line.trim() != key);
    let own = indent(lines.next().unwrap_or_else(|| panic!("no `{key}`")));
    let mut lines = lines.peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next_if(|line| indent(line) > own) {
        let (name, value) = line.trim().split_once(':').unwrap_or_else(|| panic!("no pair: `{line}`"));
        let mut text = value.trim().trim_matches('"').to_owned();
        if text == "|" {
            text.clear();
            let deep = lines.peek().map_or(0, |line| indent(line));
            while let Some(line) = lines.next_if(|next| next.is_empty() || indent(next) >= deep) {
                text.push_str(line.get(deep..).unwrap_or_default());
                text.push('\n');
            }
        }
        found.push((name.to_owned(), text.into()));
    }
    found
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}
