//! The page: an introduction and a table for each section.

use std::fmt::Write;

use dayfly::{
    cli::{DEV_VARIABLES, EXEC_VARIABLES, EXITS, VARIABLES},
    config::SETTINGS,
    http::{Listener, ROUTES},
    ledger::EVENTS,
    run::{BOUNDS, METRICS, PROPORTIONAL},
};
use dayfly_domain::{REASONS, bundle::LINTS};

const HEAD: &str = "\
# Reference

Made of the tables that the program itself works by; do not edit it. To write it anew:

```
DAYFLY_REGENERATE=1 cargo test --test it reference::
```

[Routes](#routes) · [Reasons](#reasons) · [Command line](#command-line) · [Exit codes](#exit-codes) · \
[Settings](#settings) · [Lints](#lints) · [Variables](#variables) · [Profiles](#profiles) · [Metrics](#metrics) · [Events](#events) · [Bounds](#bounds)
";

pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for section in [
        routes(),
        reasons(),
        super::cli::section(),
        exits(),
        settings(),
        lints(),
        variables(),
        super::profiles::section(),
        metrics(),
        events(),
        bounds(),
    ] {
        page.push('\n');
        page.push_str(&section);
    }
    page
}

/// A Markdown table.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned));
    text.push_str(&format!("|{}\n", "---|".repeat(N)));
    for row in rows {
        text.push_str(&line(&row.map(|cell| cell.replace('|', "\\|").replace('\n', " "))));
    }
    text
}

pub fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

pub fn codes(names: &[&str]) -> String {
    names.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ")
}

fn routes() -> String {
    let of = |listener: Listener| {
        table(
            ["route", "who may call it", "events it may leave", "what it does"],
            ROUTES.iter().filter(|row| row.listener == listener).map(|row| {
                let route = format!("{} {}", row.verb.as_str(), row.path);
                [code(&route), row.who.to_string(), codes(row.records), row.help.to_owned()]
            }),
        )
    };
    format!(
        "## Routes\n\nThe API, over TLS and on the local socket. An action is one of the target `broker`, held by a token \
         for `{{iss}}/v1`; whoever comes by the local socket holds them all. GET also answers HEAD.\n\n{}\n\
         What is public of the authority: as the others, and without TLS on the listener that `pki.listen` names.\n\n{}\n\
         Health and metrics, on a listener of their own, without TLS.\n\n{}",
        of(Listener::Broker),
        of(Listener::Pki),
        of(Listener::Ops)
    )
}

fn reasons() -> String {
    let mut text =
        "## Reasons\n\nEvery refusal carries one of these as `reason`. Under `/oauth2` it stands beside the \
                    OAuth error; under `/v1` the problem's `type` is `{iss}/problems/` and the code in lower case. \
                    `exit` is what the command line ends with.\n"
            .to_owned();
    for row in REASONS {
        let _ = write!(
            text,
            "\n### {}\n\nstatus {} · `{}` · exit {}\n\n{}.\n",
            row.code,
            row.status,
            row.oauth,
            row.exit,
            capital(row.help)
        );
    }
    text
}

fn exits() -> String {
    let rows = EXITS.iter().map(|(exit, help)| [exit.to_string(), (*help).to_owned()]);
    format!(
        "## Exit codes\n\nA refusal of the broker ends with the exit code of its reason.\n\n{}",
        table(["code", "meaning"], rows)
    )
}

fn settings() -> String {
    let rows = SETTINGS.iter().map(|row| {
        let default = row.default.map_or_else(|| "must be given".to_owned(), code);
        [code(row.key), row.kind.to_owned(), default, row.help.to_owned()]
    });
    format!(
        "## Settings\n\nOf `dayfly serve`, in TOML. Looked for in this order: `--config`, `DAYFLY_CONFIG`, \
         `$XDG_CONFIG_HOME/dayfly/config.toml`, `/etc/dayfly/dayfly.toml`. A key that is not here is an error. SIGHUP \
         reads bundle and TLS files again, not the settings.\n\n{}",
        table(["key", "type", "default", "meaning"], rows)
    )
}

fn lints() -> String {
    let of = |refuses: bool| {
        let rows = LINTS.iter().filter(|row| row.refuses == refuses);
        let rows = rows.map(|row| [code(row.name), row.what.to_owned(), row.mend.to_owned()]);
        table(["name", "what it finds", "how to mend it"], rows)
    };
    format!(
        "## Lints\n\nOf a trust bundle, at every load and with `dayfly policy check`; the name stands in square brackets \
         behind what is said. These keep a bundle from loading; what is disabled is not looked at.\n\n{}\nThese load, and \
         warn.\n\n{}",
        of(true),
        of(false)
    )
}

fn variables() -> String {
    let rows = VARIABLES.iter().map(|row| [code(row.name), row.verbs.to_owned(), row.help.to_owned()]);
    let told = EXEC_VARIABLES.iter().map(|row| [code(row.name), row.help.to_owned()]);
    format!(
        "## Variables\n\nAn option beats its variable; an empty variable counts as none. `demo` and `dev token` read none \
         of Dayfly's.\n\n{}\n`dayfly exec` tells its command, in variables:\n\n{}\n`dayfly dev --state DIR` also writes {} into `DIR/dev.env`, for scripts.\n",
        table(["variable", "read by", "meaning"], rows),
        table(["variable", "meaning"], told),
        codes(DEV_VARIABLES)
    )
}

fn metrics() -> String {
    let rows = METRICS
        .iter()
        .map(|row| [code(row.name), row.kind.as_str().to_owned(), codes(row.labels), row.help.to_owned()]);
    format!(
        "## Metrics\n\nPrometheus text at `/metrics`; seconds and counts, no label for a lease or a workload.\n\n{}",
        table(["name", "type", "labels", "meaning"], rows)
    )
}

fn events() -> String {
    let rows = EVENTS.iter().map(|row| [code(row.name), row.when.to_owned(), codes(row.members), codes(row.details)]);
    format!(
        "## Events\n\nOf the ledger. Every one has `id`, `seq`, `at`, `type` and `outcome`; the others only where they \
         apply. What may be erased is kept apart and committed to by its hash; over HTTP its members stand beside the \
         others or in `details`. Expiry is no event.\n\n{}",
        table(["type", "when", "members", "may be erased"], rows)
    )
}

fn bounds() -> String {
    let rows =
        BOUNDS.iter().map(|row| [row.what.to_owned(), number(row.most), row.unit.to_owned(), row.full.to_owned()]);
    let kept = PROPORTIONAL.iter().map(|(what, why)| [(*what).to_owned(), (*why).to_owned()]);
    format!(
        "## Bounds\n\nEverything that strangers, workloads or operators can fill has a most.\n\n{}\n\
         What is not counted grows only with what is kept:\n\n{}",
        table(["what", "most", "unit", "beyond it"], rows),
        table(["what", "how far it grows"], kept)
    )
}

fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A sentence begins with a capital; a parameter keeps its spelling.
fn capital(text: &str) -> String {
    if text.split(' ').next().is_some_and(|word| word.contains('_')) {
        return text.to_owned();
    }
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}
