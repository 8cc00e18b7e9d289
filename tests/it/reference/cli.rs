//! The command line's part of the page, read off the tree that the parser works by.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

use super::page::{code, table};

pub fn section() -> String {
    let mut root = dayfly::cli::command();
    root.build();
    let style: Vec<&Arg> = root.get_arguments().filter(|arg| arg.is_global_set()).collect();
    let mut text = format!(
        "## Command line\n\nData goes to stdout, talk to stderr. These go with every verb:\n\n{}",
        options(style.iter().copied())
    );
    verbs(&root, "dayfly", &mut text);
    text
}

fn verbs(command: &Command, path: &str, text: &mut String) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let path = format!("{path} {}", verb.get_name());
        let own: Vec<&Arg> = verb.get_arguments().filter(|arg| shown(arg)).collect();
        // What only leads to verbs is told by them.
        if !verb.has_subcommands() || !own.is_empty() {
            let about = verb.get_long_about().or(verb.get_about()).map(ToString::to_string).unwrap_or_default();
            let _ = write!(text, "\n### {path}\n\n{}\n", sentence(&about));
            if !own.is_empty() {
                let _ = write!(text, "\n{}", options(own.into_iter()));
            }
        }
        verbs(verb, &path, text);
    }
}

fn shown(arg: &Arg) -> bool {
    !arg.is_global_set() && !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version")
}

fn options<'a>(args: impl Iterator<Item = &'a Arg>) -> String {
    table(["option", "meaning"], args.map(|arg| [code(&spelt(arg)), meaning(arg)]))
}

fn spelt(arg: &Arg) -> String {
    let value = || arg.get_value_names().unwrap_or_default().join(" ");
    match arg.get_long() {
        None if arg.is_required_set() => value(),
        None => format!("[{}]", value()),
        Some(long) => match arg.get_action() {
            ArgAction::Set | ArgAction::Append => format!("--{long} <{}>", value()),
            _ => format!("--{long}"),
        },
    }
}

fn meaning(arg: &Arg) -> String {
    let mut text = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let flag = !matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| code(value.get_name())).collect();
    if !values.is_empty() && !flag {
        let _ = write!(text, ": {}", values.join(", "));
    }
    let usual: Vec<String> = arg.get_default_values().iter().map(|value| code(&value.to_string_lossy())).collect();
    if !usual.is_empty() && !flag {
        let _ = write!(text, " [default: {}]", usual.join(", "));
    }
    if arg.is_required_set() && arg.get_long().is_some() {
        text.push_str(" [required]");
    }
    // A bracket is no link.
    text.replace('[', "\\[").replace('<', "\\<")
}

/// Clap takes the full stop off a short text; a long one has its own.
fn sentence(about: &str) -> String {
    let about = about.trim();
    if about.ends_with('.') { about.to_owned() } else { format!("{about}.") }
}
