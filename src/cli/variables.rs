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
    read(
        "DAYFLY_ADDR",
        "`token`, `exec`, `cert`, operator verbs",
        "the broker's URL; without it, the socket of the state folder",
    ),
    read(
        "DAYFLY_CA",
        "`token`, `exec`, `cert`, operator verbs",
        "PEM file of the only authorities that may vouch for the broker",
    ),
    read("DAYFLY_CONFIG", "`serve`, operator verbs, `policy`, `trust`, `doctor`", "the settings, as `--config`"),
    read(
        "DAYFLY_DPOP_KEY",
        "`token`, `exec`, `cert`, operator verbs, `task end`",
        "the key that the credential is bound to, as `--dpop-key`",
    ),
    read("DAYFLY_ID_TOKEN", "`token`, `exec`, `cert`, `explain`", "the platform's identity token itself"),
    read(
        "DAYFLY_ID_TOKEN_FILE",
        "`token`, `exec`, `cert`",
        "file that holds it, read each time; a pod's is `/var/run/secrets/dayfly/token` without it",
    ),
    read("DAYFLY_LOG", "`serve`, `dev`", "filter of the log; beats the setting `log`"),
    read("DAYFLY_OUTPUT", EVERY, "`table`, `json`, `jsonl` or `name`, as `--output`"),
    read("DAYFLY_LEASE", "`exec`", "says that this runs inside of another `exec`"),
    read("DAYFLY_TASK", "`token`, `exec`, `cert`, `explain`", "the template to run, as `--task`"),
    read("DAYFLY_TASK_FILE", "`token`, `cert`, `task end`", "the file that keeps the task's handle, as `--task-file`"),
    read("DAYFLY_TOKEN_FILE", OPERATORS, "file with a token for the broker itself; needed with `DAYFLY_ADDR`"),
    read(
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "`token`, `exec`, `cert`",
        "set by GitHub Actions where a job may ask for an identity token",
    ),
    read("ACTIONS_ID_TOKEN_REQUEST_URL", "`token`, `exec`, `cert`", "the same"),
    read(
        "GITHUB_ACTIONS",
        "`token`, `exec`, `cert`",
        "says that this is GitHub Actions, so that a missing identity token is an error",
    ),
    read(
        "GITLAB_CI",
        "`token`, `exec`, `cert`",
        "the same for GitLab: the token is in `DAYFLY_ID_TOKEN`, or in the audience in capitals with `_` for what is no letter or digit, and `_ID_TOKEN`",
    ),
    read("CIRCLECI", "`token`, `exec`, `cert`", "the same for CircleCI, which is asked by its own program"),
    read("BUILDKITE", "`token`, `exec`, `cert`", "the same for Buildkite, whose agent is asked"),
    read("BITBUCKET_BUILD_NUMBER", "`token`, `exec`, `cert`", "the same for Bitbucket"),
    read(
        "BITBUCKET_STEP_OIDC_TOKEN",
        "`token`, `exec`, `cert`",
        "set by Bitbucket for a step with `oidc:`, which names its audience",
    ),
    read("TFC_RUN_ID", "`token`, `exec`, `cert`", "the same for HCP Terraform"),
    read(
        "TFC_WORKLOAD_IDENTITY_TOKEN",
        "`token`, `exec`, `cert`",
        "set by HCP Terraform where `TFC_WORKLOAD_IDENTITY_AUDIENCE` is",
    ),
    read(
        "TF_BUILD",
        "`token`, `exec`, `cert`",
        "`True` says that this is Azure DevOps, whose tokens are not fetched yet",
    ),
    read(
        "SPIFFE_ENDPOINT_SOCKET",
        "`token`, `exec`, `cert`",
        "says that there is a SPIFFE Workload API, which is not spoken to yet",
    ),
    read(
        "KUBERNETES_SERVICE_HOST",
        "`token`, `exec`, `cert`",
        "says that this is a pod, so that a missing token is an error",
    ),
    read(
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "`token`, `exec`, `cert`",
        "says that this is AWS, which is not asked yet",
    ),
    read("AWS_CONTAINER_CREDENTIALS_FULL_URI", "`token`, `exec`, `cert`", "the same"),
    read("AWS_LAMBDA_FUNCTION_NAME", "`token`, `exec`, `cert`", "the same"),
    read(
        "AZURE_CLIENT_ID",
        "`token`, `exec`, `cert`",
        "which identity of an Azure machine is meant, where it has several",
    ),
    read(
        "PATH",
        "`token`, `exec`, `cert`",
        "where the programs of CircleCI and Buildkite are looked for, in absolute folders only; and the command of `exec`, as a shell finds it",
    ),
    read(
        "HTTPS_PROXY",
        "`serve`, `dev`",
        "the proxy by which issuers are reached, as `http://[user:password@]host:port`",
    ),
    read("https_proxy", "`serve`, `dev`", "the same, where `HTTPS_PROXY` is not set"),
    read("NO_PROXY", "`serve`, `dev`", "hosts, domains, addresses and blocks that are reached without it, or `*`"),
    read("no_proxy", "`serve`, `dev`", "the same, where `NO_PROXY` is not set"),
    read(
        "CREDENTIALS_DIRECTORY",
        "`serve`, `ca`",
        "set by systemd; where `credential:NAME` of `pki.seal` and of a token's `pin-source` is read",
    ),
    read("HOME", EVERY, "where `.config/dayfly/config.toml` is looked for"),
    read("XDG_CONFIG_HOME", EVERY, "where `dayfly/config.toml` is looked for"),
    read("XDG_RUNTIME_DIR", "`exec`", "where the job's files are put, if it is in memory; otherwise `/dev/shm`"),
    read("NO_COLOR", EVERY, "no colour"),
    read("TERM", EVERY, "`dumb`: no colour"),
    read(
        "SSL_CERT_FILE",
        "`token`, operator verbs",
        "PEM file of the authorities to trust, where `DAYFLY_CA` is not set",
    ),
];

const fn told(name: &'static str, help: &'static str) -> Variable {
    read(name, "the command of `exec`", help)
}

/// What `dayfly exec` tells its command.
pub const EXEC_VARIABLES: &[Variable] = &[
    told(
        "DAYFLY_TOKEN_FILE",
        "the file with the token, to be read for each use: it is replaced when the token is renewed",
    ),
    told("DAYFLY_TASK_FILE", "the file with the task's handle"),
    told("DAYFLY_LEASE", "the id of the first lease"),
    told("DAYFLY_DPOP_KEY", "the key that the token is bound to, where it is"),
];

/// What `dayfly dev --state DIR` writes into `DIR/dev.env` beside what the command line reads.
pub const DEV_VARIABLES: &[&str] = &[
    "DAYFLY_DEV_CLAIMS",
    "DAYFLY_DEV_ISSUER",
    "DAYFLY_DEV_PKI",
    "DAYFLY_DEV_TASK",
    "DAYFLY_METRICS",
    "DAYFLY_OPERATOR_TOKEN_FILE",
];
