//! What `dev` tells the outside once it is ready: `dev.env` for scripts, and lines to paste.

use std::fmt::Write;

use super::{
    bundle::{Text, Told},
    home::{Addresses, Home},
};

/// `dev.env`: `KEY=value` lines without quotes.
pub fn env(home: &Home, addresses: &Addresses, told: &Told) -> String {
    let mut pairs = vec![
        ("DAYFLY_ADDR", addresses.issuer_url()),
        ("DAYFLY_CA", home.ca_file().display().to_string()),
        ("DAYFLY_METRICS", addresses.metrics_url()),
        ("DAYFLY_DEV_ISSUER", addresses.stand_in_url()),
        ("DAYFLY_OPERATOR_TOKEN_FILE", home.operator_token_file().display().to_string()),
    ];
    if let Some(sample) = &told.sample {
        pairs.push(("DAYFLY_DEV_CLAIMS", home.claims_file().display().to_string()));
        pairs.push(("DAYFLY_DEV_TASK", sample.task.to_string()));
    }
    pairs.iter().fold(String::new(), |mut out, (key, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{key}={value}");
        out
    })
}

/// What stands on the screen when all is ready.
pub fn said(addresses: &Addresses, told: &Told, text: &Text) -> Vec<String> {
    let from = match text {
        Text::Folder(path) => path.display().to_string(),
        Text::Shipped => "shipped with the program".to_owned(),
    };
    vec![
        "for development only, not for production: a stand-in vouches for whatever it is told".to_owned(),
        format!("broker     {}", addresses.issuer_url()),
        format!("stand-in   {} plays `{}`", addresses.stand_in_url(), told.played.name),
        format!("metrics    {}", addresses.metrics_url()),
        format!("bundle     {from} · {} rows · {} tests passed", told.rows, told.tests),
    ]
}

/// Lines to paste into another terminal.
pub fn lines(home: &Home, told: &Told) -> String {
    let dir = home.dir().display();
    let mut out = format!("set -a; . {dir}/dev.env; set +a\n");
    if told.sample.is_some() {
        out.push_str(&format!(
            "dayfly dev token --state {dir} --claims $DAYFLY_DEV_CLAIMS | \
             dayfly token --task $DAYFLY_DEV_TASK --evidence-file - --out job.token\n"
        ));
    }
    out.push_str("DAYFLY_TOKEN_FILE=$DAYFLY_OPERATOR_TOKEN_FILE dayfly lease ls\n");
    if told.sample.is_some() {
        out.push_str("DAYFLY_TASK_FILE=job.token.task dayfly task end\n");
    }
    out
}
