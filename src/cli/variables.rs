//! Every variable of the environment in one table, for the reference; a test holds it against
//! what is read.

/// One variable.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    pub name: &'static str,
    /// Which verbs read it.
    pub verbs: &'static str,
    pub help: &'static str,
}

const fn read(name: &'static str, verbs: &'static str, help: &'static str) -> Variable {
    Variable { name, verbs, help }
}

const OPERATORS: &str = "operator verbs";
const EVERY: &str = "every verb";

/// What the command line reads. An option beats a variable; an empty variable is none.
pub const VARIABLES: &[Variable] = &[
    read("DAYFLY_ADDR", "`token`, operator verbs", "the broker's URL; without it, the socket of the state folder"),
    read("DAYFLY_CA", "`token`, operator verbs", "PEM file of the only authorities that may vouch for the broker"),
    read("DAYFLY_CONFIG", "`serve`, operator verbs, `policy`", "the settings, as `--config`"),
    read(
        "DAYFLY_DPOP_KEY",
        "`token`, operator verbs, `task end`",
        "the key that the credential is bound to, as `--dpop-key`",
    ),
    read("DAYFLY_ID_TOKEN", "`token`", "the platform's identity token itself"),
    read("DAYFLY_LOG", "`serve`, `dev`", "filter of the log; beats the setting `log`"),
    read("DAYFLY_OUTPUT", EVERY, "`table`, `json`, `jsonl` or `name`, as `--output`"),
    read("DAYFLY_TASK", "`token`", "the template to run, as `--task`"),
    read("DAYFLY_TASK_FILE", "`token`, `task end`", "the file that keeps the task's handle, as `--task-file`"),
    read("DAYFLY_TOKEN_FILE", OPERATORS, "file with a token for the broker itself; needed with `DAYFLY_ADDR`"),
    read(
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "`token`",
        "set by GitHub Actions where a job may ask for an identity token",
    ),
    read("ACTIONS_ID_TOKEN_REQUEST_URL", "`token`", "the same"),
    read("GITHUB_ACTIONS", "`token`", "says that this is GitHub Actions, so that a missing identity token is an error"),
    read("HOME", EVERY, "where `.config/dayfly/config.toml` is looked for"),
    read("XDG_CONFIG_HOME", EVERY, "where `dayfly/config.toml` is looked for"),
    read("NO_COLOR", EVERY, "no colour"),
    read("TERM", EVERY, "`dumb`: no colour"),
    read(
        "SSL_CERT_FILE",
        "`token`, operator verbs",
        "PEM file of the authorities to trust, where `DAYFLY_CA` is not set",
    ),
];

/// What `dayfly dev --state DIR` writes into `DIR/dev.env` beside what the command line reads.
pub const DEV_VARIABLES: &[&str] =
    &["DAYFLY_DEV_CLAIMS", "DAYFLY_DEV_ISSUER", "DAYFLY_DEV_TASK", "DAYFLY_METRICS", "DAYFLY_OPERATOR_TOKEN_FILE"];
