//! What `dev` tells the outside once it is ready: `dev.env` for scripts, and lines to paste.

use std::{borrow::Cow, fmt::Write};

use super::{
    bundle::{Text, Told},
    home::{Addresses, Home},
};

/// `dev.env`: `KEY=value` lines for a shell, in quotes only where a value needs them.
pub fn env(home: &Home, addresses: &Addresses, told: &Told) -> String {
    let mut pairs = vec![
        ("DAYFLY_ADDR", addresses.issuer_url()),
        ("DAYFLY_CA", home.ca_file().display().to_string()),
        ("DAYFLY_METRICS", addresses.metrics_url()),
        ("DAYFLY_DEV_ISSUER", addresses.stand_in_url()),
        ("DAYFLY_OPERATOR_TOKEN_FILE", home.operator_token_file().display().to_string()),
    ];
    pairs.extend(addresses.pki_url().map(|url| ("DAYFLY_DEV_PKI", url)));
    if let Some(sample) = &told.sample {
        pairs.push(("DAYFLY_DEV_CLAIMS", home.claims_file().display().to_string()));
        pairs.push(("DAYFLY_DEV_TASK", sample.task.to_string()));
    }
    pairs.iter().fold(String::new(), |mut out, (key, value)| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{key}={}", quoted(value));
        out
    })
}

/// What stands on the screen when all is ready.
pub fn said(addresses: &Addresses, told: &Told, text: &Text) -> Vec<String> {
    let from = match text {
        Text::Folder(path) => path.display().to_string(),
        Text::Shipped | Text::ShippedAnd(_) => "shipped with the program".to_owned(),
    };
    vec![
        "for development only, not for production: a stand-in vouches for whatever it is told".to_owned(),
        format!("broker     {}", addresses.issuer_url()),
        format!("stand-in   {} plays `{}`", addresses.stand_in_url(), told.played.name),
        format!("metrics    {}", addresses.metrics_url()),
        format!("authority  {}/spiffe/bundle", addresses.pki_url().unwrap_or_else(|| addresses.issuer_url())),
        format!("bundle     {from} · {} rows · {} tests passed", told.rows, told.tests),
    ]
}

/// Lines to paste into another terminal.
pub fn lines(home: &Home, told: &Told) -> String {
    let dir = home.dir().display().to_string();
    let env_file = home.env_file().display().to_string();
    let mut out = format!("set -a; . {}; set +a\n", quoted(&env_file));
    if told.sample.is_some() {
        let claims = match quoted(&home.claims_file().display().to_string()) {
            Cow::Borrowed(_) => "$DAYFLY_DEV_CLAIMS",
            Cow::Owned(_) => "\"$DAYFLY_DEV_CLAIMS\"",
        };
        out.push_str(&format!(
            "dayfly dev token --state {} --claims {claims} | \
             dayfly token --task $DAYFLY_DEV_TASK --evidence-file - --out job.token\n",
            quoted(&dir)
        ));
    }
    out.push_str("DAYFLY_TOKEN_FILE=$DAYFLY_OPERATOR_TOKEN_FILE dayfly lease ls\n");
    if told.sample.is_some() {
        out.push_str("DAYFLY_TASK_FILE=job.token.task dayfly task end\n");
    }
    out
}

/// One word for a shell; in single quotes where it would be anything else without.
fn quoted(value: &str) -> Cow<'_, str> {
    let simple = |byte: u8| byte.is_ascii_alphanumeric() || b"_./:@%+=-".contains(&byte);
    match !value.is_empty() && value.bytes().all(simple) {
        true => Cow::Borrowed(value),
        false => Cow::Owned(format!("'{}'", value.replace('\'', r"'\''"))),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_path_is_one_word_whatever_is_in_it() {
        for simple in ["https://127.0.0.1:8443", "/tmp/a_b-c.d", "a@b%c+d=e"] {
            assert_eq!(quoted(simple), simple);
        }
        assert_eq!(quoted("my dir"), "'my dir'");
        assert_eq!(quoted("$(id);it's"), r"'$(id);it'\''s'");
        assert_eq!((quoted(""), quoted("~/é")), ("''".into(), "'~/é'".into()));
    }
}
