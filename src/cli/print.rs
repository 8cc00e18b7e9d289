//! One thing or many, in the four formats. JSON is a contract: it carries `schema_version`.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    args::Output,
    table::{Table, escape_json, pairs},
};

/// What can be shown: the wire's shape is its JSON.
pub trait Shown: Serialize {
    const HEAD: &'static [&'static str];
    fn id(&self) -> String;
    /// One cell for each of `HEAD`.
    fn cells(&self) -> Vec<String>;
    /// Everything, for a single one.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// A list, as `output` wants it.
pub fn list<T: Shown>(items: &[T], output: Output) -> String {
    match output {
        Output::Table => table(items),
        Output::Json => document(json!({ "schema_version": 1, "items": values(items) })),
        Output::Jsonl => values(items).into_iter().map(|value| document(versioned(value))).collect(),
        Output::Name => items.iter().map(|item| format!("{}\n", item.id())).collect(),
    }
}

/// One thing, as `output` wants it.
pub fn one<T: Shown>(item: &T, output: Output) -> String {
    match output {
        Output::Table => pairs(&item.fields()),
        Output::Json | Output::Jsonl => document(versioned(value(item))),
        Output::Name => format!("{}\n", item.id()),
    }
}

/// One line of JSON that is safe for a terminal.
pub fn document(value: Value) -> String {
    format!("{}\n", escape_json(&value.to_string()))
}

/// The same object with `schema_version`.
pub fn versioned(value: Value) -> Value {
    let mut out = Map::from_iter([("schema_version".to_owned(), json!(1))]);
    match value {
        Value::Object(members) => out.extend(members),
        other => drop(out.insert("value".to_owned(), other)),
    }
    Value::Object(out)
}

/// The text of something that may be absent.
pub fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn table<T: Shown>(items: &[T]) -> String {
    let mut table = Table::new(T::HEAD);
    for item in items {
        let cells = item.cells();
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    table.render()
}

fn values<T: Shown>(items: &[T]) -> Vec<Value> {
    items.iter().map(value).collect()
}

fn value<T: Shown>(item: &T) -> Value {
    serde_json::to_value(item).expect("the shapes of the wire have string keys only")
}
