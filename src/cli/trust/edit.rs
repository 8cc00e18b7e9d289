//! Puts tables into a bundle's file as its author would: text goes in at one place, and every other
//! byte stays. In: the file's text, where the table belongs, its keys. Out: the new text, or why this
//! layout is not understood.
//!
//! The parser says where things stand; what is written is checked by reading it again: the new text
//! must mean the old one and the new table, and nothing else.

use std::ops::Range;

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// A table to put in. Values are TOML as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// For people, above the table; one line.
    pub comment: Option<String>,
    pub keys: Vec<(&'static str, String)>,
}

/// Why nothing was put in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("it is not TOML: {0}")]
    Toml(String),
    #[error("`{0}` is written in a way that this cannot add to")]
    Layout(String),
}

/// Adds an element to the array of tables at `path`, whose parent must be there.
pub fn push(text: &str, path: &[&str], entry: &Entry) -> Result<String, EditError> {
    let document = parse(text)?;
    let layout = || EditError::Layout(path.join("."));
    let (parent, last) = path.split_last().map(|(last, parent)| (parent, *last)).ok_or_else(layout)?;
    let new = match find(document.get_ref(), path) {
        Some(array) if is_inline(text, array) => into_inline(text, array, entry).ok_or_else(layout)?,
        Some(array) => after_section(text, Some(end(array)), &format!("[[{}]]", path.join(".")), entry),
        None if parent.is_empty() => after_section(text, None, &format!("[[{last}]]"), entry),
        None => {
            let table = find(document.get_ref(), parent).filter(|table| !is_inline(text, table)).ok_or_else(layout)?;
            after_section(text, Some(end(table)), &format!("[[{}]]", path.join(".")), entry)
        }
    };
    checked(text, new, entry, layout, |old, added| {
        let parent = below(old, parent)?;
        let array = parent.entry(last).or_insert_with(|| Value::Array(Vec::new())).as_array_mut()?;
        array.push(Value::Table(added));
        Some(())
    })
}

/// Adds the table `kind.name`, behind the last one of its kind, or of a kind that goes before it.
pub fn table(text: &str, kind: &str, name: &str, before: &[&str], entry: &Entry) -> Result<String, EditError> {
    let document = parse(text)?;
    let found = [&[kind], before].concat().into_iter().find_map(|kind| find(document.get_ref(), &[kind]));
    let new = after_section(text, found.map(end), &format!("[{kind}.{name}]"), entry);
    let layout = || EditError::Layout(format!("{kind}.{name}"));
    checked(text, new, entry, layout, |old, added| {
        let kinds = old.entry(kind).or_insert_with(|| Value::Table(Table::new())).as_table_mut()?;
        kinds.insert(name.to_owned(), Value::Table(added)).is_none().then_some(())
    })
}

/// A string as TOML writes it.
pub fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

/// An inline table of values as they are written.
pub fn inline(pairs: &[(String, String)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// Whether a file of a bundle has the table at `path`.
pub fn has(text: &str, path: &[&str]) -> bool {
    parse(text).is_ok_and(|document| find(document.get_ref(), path).is_some())
}

fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, EditError> {
    DeTable::parse(text).map_err(|error| EditError::Toml(error.message().to_owned()))
}

fn find<'a, 'i>(table: &'a DeTable<'i>, path: &[&str]) -> Option<&'a Spanned<DeValue<'i>>> {
    let (first, below) = path.split_first()?;
    let value = table.iter().find(|(key, _)| key.get_ref() == first)?.1;
    match (below, value.get_ref()) {
        ([], _) => Some(value),
        (below, DeValue::Table(table)) => find(table, below),
        _ => None,
    }
}

/// Where the last byte of a value stands, with all that is below it.
fn end(value: &Spanned<DeValue<'_>>) -> usize {
    let below = match value.get_ref() {
        DeValue::Table(table) => table.iter().map(|(_, value)| end(value)).max(),
        DeValue::Array(array) => array.iter().map(end).max(),
        _ => None,
    };
    below.unwrap_or_default().max(value.span().end)
}

/// Written with `{}` or `[]` behind an `=`, unlike a `[header]`, a `[[header]]` or a dotted key.
fn is_inline(text: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let Range { start, .. } = value.span();
    let before = text[..start].trim_end_matches([' ', '\t']);
    before.ends_with('=')
}

/// Behind the line that ends at `end`, or at the end of the file.
fn after_section(text: &str, end: Option<usize>, header: &str, entry: &Entry) -> String {
    let newline = newline(text);
    let at = end.map_or(text.len(), |end| line_end(text, end));
    let width = entry.keys.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
    let mut lines = vec![String::new()];
    lines.extend(entry.comment.iter().map(|comment| format!("# {comment}")));
    lines.push(header.to_owned());
    lines.extend(entry.keys.iter().map(|(key, value)| format!("{key:<width$} = {value}")));
    let block: String = lines.into_iter().map(|line| line + newline).collect();
    let open = at == text.len() && !text.is_empty() && !text.ends_with('\n');
    format!("{}{}{block}{}", &text[..at], if open { newline } else { "" }, &text[at..])
}

/// As one more element of an array on one line or on several.
fn into_inline(text: &str, array: &Spanned<DeValue<'_>>, entry: &Entry) -> Option<String> {
    let DeValue::Array(elements) = array.get_ref() else { return None };
    let pairs: Vec<_> = entry.keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let new = inline(&pairs);
    let Some(last) = elements.iter().last() else {
        let at = array.span().start + 1;
        return Some(format!("{}{new}{}", &text[..at], &text[at..]));
    };
    let Range { start, end } = last.span();
    let line = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let indent = &text[line..start];
    let own_line = line > array.span().start && indent.trim().is_empty();
    let between = if own_line { format!(",{}{indent}", newline(text)) } else { ", ".to_owned() };
    Some(format!("{}{between}{new}{}", &text[..end], &text[end..]))
}

/// The new text, if it means what it should.
fn checked(
    old: &str,
    new: String,
    entry: &Entry,
    layout: impl Fn() -> EditError,
    add: impl FnOnce(&mut Table, Table) -> Option<()>,
) -> Result<String, EditError> {
    let read = |text: &str| toml::from_str::<Table>(text).map_err(|_| layout());
    let added: String = entry.keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let mut meant = read(old)?;
    add(&mut meant, read(&added)?).ok_or_else(&layout)?;
    if read(&new)? == meant { Ok(new) } else { Err(layout()) }
}

fn below<'a>(table: &'a mut Table, path: &[&str]) -> Option<&'a mut Table> {
    path.iter().try_fold(table, |table, part| table.get_mut(*part)?.as_table_mut())
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// The start of the line behind the one that holds `at`.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Entry {
        Entry { comment: Some("acme/shop".to_owned()), keys: vec![("id", quoted("new")), ("issuer", quoted("github"))] }
    }

    /// What is new, by what stands before and behind it.
    fn added<'a>(old: &str, new: &'a str) -> &'a str {
        let before = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
        let behind = old.len() - before;
        assert_eq!(&new[new.len() - behind..], &old[before..], "all else stays byte for byte");
        &new[before..new.len() - behind]
    }

    #[test]
    fn a_row_stands_behind_the_last_of_its_task_and_all_else_stays() {
        let old = "# top\nformat = 1\n\n[task.a] # why\npurpose = 'x'   # odd   spaces\n[[task.a.allow]]\nid = 'one'\n\
                   claims.ref = \"\"\"\n[task.fake]\n\"\"\" # ends here\n\n# about b\n[task.b]\nx = 1\n";
        let new = push(old, &["task", "a", "allow"], &row()).unwrap();
        let block = "\n# acme/shop\n[[task.a.allow]]\nid     = \"new\"\nissuer = \"github\"\n";
        assert_eq!(new, old.replace("\n\n# about b", &format!("\n{block}\n# about b")));
        let first = push(old, &["task", "b", "allow"], &row()).unwrap();
        assert_eq!(first, format!("{old}{}", block.replace("task.a", "task.b")));
    }

    #[test]
    fn lines_end_as_those_of_the_file_and_an_open_last_line_is_closed() {
        let old = "[task.a]\r\npurpose = 'x'";
        let new = push(old, &["task", "a", "allow"], &Entry { comment: None, ..row() }).unwrap();
        assert_eq!(new, format!("{old}\r\n\r\n[[task.a.allow]]\r\nid     = \"new\"\r\nissuer = \"github\"\r\n"));
        let tested = push("[task.a]\nx = 1", &["test"], &row()).unwrap();
        assert!(tested.starts_with("[task.a]\nx = 1\n\n# acme/shop\n[[test]]\nid "), "{tested}");
    }

    #[test]
    fn a_row_in_an_array_on_one_line_or_on_several() {
        let new = "{ id = \"new\", issuer = \"github\" }";
        for (old, found) in [
            ("[task.a]\nallow = []\n", new.to_owned()),
            ("[task.a]\nallow = [{ id = 'x' }] # y\n", format!(", {new}")),
            ("[task.a]\nallow = [{ id = 'x' },] # y\n", format!(" {new},")),
            ("[task.a]\nallow = [\n  { id = 'x' }, # y\n]\n", format!("\n  {new},")),
            ("[task]\na = { purpose = 'x', allow = [{ id = 'x' }] }\n", format!(", {new}")),
            ("task.a.allow = [\n\t{ id = 'x' }\n]\n", format!(",\n\t{new}")),
        ] {
            assert_eq!(added(old, &push(old, &["task", "a", "allow"], &row()).unwrap()), found, "{old}");
        }
    }

    #[test]
    fn a_layout_that_is_not_understood_changes_nothing() {
        for old in [
            "[task]\na = { purpose = 'x' }\n",
            "task = { a = { purpose = 'x' } }\n",
            "[task.a]\nallow = 1\n",
            "[task.a]\nallow = { x = 1 }\n",
            "[task.b]\nx = 1\n",
        ] {
            let error = push(old, &["task", "a", "allow"], &row()).unwrap_err();
            assert_eq!(error, EditError::Layout("task.a.allow".to_owned()), "{old}");
        }
        assert!(matches!(push("x = [", &["test"], &row()), Err(EditError::Toml(_))));
        assert!(table("issuer = { github = { url = 'x' } }\n", "issuer", "lab", &[], &row()).is_err());
        assert!(table("[issuer.lab]\nurl = 'x'\n", "issuer", "lab", &[], &row()).is_err(), "it is there");
    }

    #[test]
    fn a_table_stands_with_those_of_its_kind() {
        let old = "format = 1\n[owner.o]\n[issuer.a]\nurl = 'x' # a\n\n[task.t]\nx = 1\n";
        let block = "\n# acme/shop\n[issuer.lab]\nid     = \"new\"\nissuer = \"github\"\n";
        assert_eq!(
            table(old, "issuer", "lab", &["owner"], &row()).unwrap(),
            old.replace("# a\n", &format!("# a\n{block}"))
        );
        let none = "[owner.o]\n[task.t]\nx = 1\n";
        let new = table(none, "issuer", "lab", &["owner"], &row()).unwrap();
        assert_eq!(new, none.replace("[task", &format!("{block}[task")));
        let alone = table("[task.t]\nx = 1\n", "issuer", "lab", &["owner"], &row()).unwrap();
        assert!(alone.ends_with(block), "{alone}");
    }

    #[test]
    fn what_was_typed_cannot_leave_its_string() {
        let evil = "a\"\n[task.b]\nx = 1 #\u{1b}\\";
        let old = "[task.a]\npurpose = 'x'\n";
        let entry = Entry { comment: None, keys: vec![("id", quoted(evil))] };
        let new: Table = toml::from_str(&push(old, &["task", "a", "allow"], &entry).unwrap()).unwrap();
        assert_eq!(new["task"]["a"]["allow"][0]["id"].as_str(), Some(evil));
        assert!(new["task"].get("b").is_none());
    }
}
