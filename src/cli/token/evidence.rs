//! Who we are, found by itself: an explicit file or variable, then the platform's own way. The
//! first that fires is taken; a platform that is recognised but gives no token is an error, never
//! a reason to try the next (evidence.md, detection order).

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use dayfly_domain::Secret;

use crate::cli::{
    door,
    failure::{Exit, Failure},
    session::Vars,
};

/// Where the evidence comes from.
#[derive(Debug)]
pub enum Source {
    File(PathBuf),
    Stdin,
    Variable(Secret<String>),
    /// The runner mints a token for an audience, on demand.
    GitHub {
        url: String,
        request_token: Secret<String>,
    },
}

/// The platform's token, and whose it is for people.
#[derive(Debug)]
pub struct Evidence {
    pub token: Secret<String>,
    /// `github`, `file`, ...
    pub origin: &'static str,
}

/// The lines that a job needs, to be pasted as they are.
pub const GITHUB_PERMISSIONS: &str = "permissions:\n  id-token: write\n  contents: read";

const TOKEN_MAX_BYTES: u64 = 16 << 10;

/// Looks, and reads nothing yet.
pub fn probe(evidence_file: Option<&Path>, vars: &Vars) -> Result<Source, Failure> {
    if let Some(file) = evidence_file {
        return Ok(if file == Path::new("-") { Source::Stdin } else { Source::File(file.to_owned()) });
    }
    if let Some(token) = vars.get("DAYFLY_ID_TOKEN") {
        let token = door::secret_text(token.into_bytes(), "`DAYFLY_ID_TOKEN`");
        return token.map(Source::Variable).map_err(|failure| {
            failure.help("give it the platform's identity token, or unset it so that the platform is asked")
        });
    }
    // SECURITY: exactly this value, see `only_the_exact_word_makes_it_github`.
    if vars.raw("GITHUB_ACTIONS").as_deref() == Some("true") {
        return github(vars);
    }
    Err(nothing())
}

impl Source {
    /// Reads what needs no network.
    pub fn read(self) -> Result<Evidence, Failure> {
        let (token, origin) = match self {
            Self::File(file) => (door::secret_file(&file, "the evidence file")?, "file"),
            Self::Stdin => (stdin()?, "stdin"),
            Self::Variable(token) => (token, "DAYFLY_ID_TOKEN"),
            Self::GitHub { .. } => return Err(Failure::failed("the platform's token was not fetched")),
        };
        Ok(Evidence { token, origin })
    }
}

fn github(vars: &Vars) -> Result<Source, Failure> {
    let url = vars.get("ACTIONS_ID_TOKEN_REQUEST_URL");
    match (url, vars.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")) {
        (Some(url), Some(token)) => {
            let request_token = door::secret_text(token.into_bytes(), "`ACTIONS_ID_TOKEN_REQUEST_TOKEN`")?;
            Ok(Source::GitHub { url, request_token })
        }
        (url, _) => Err(no_permission(if url.is_none() {
            "ACTIONS_ID_TOKEN_REQUEST_URL"
        } else {
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
        })),
    }
}

fn no_permission(missing: &str) -> Failure {
    let help = format!(
        "add these lines to the job, or to the top of the workflow; pull requests from forks cannot have a token\n\
         {GITHUB_PERMISSIONS}"
    );
    Failure::new(Exit::NotAuthenticated, "GitHub gave this job no way to prove what it is")
        .because(format!("`GITHUB_ACTIONS` is `true`, but `{missing}` is not set"))
        .help(help)
}

fn nothing() -> Failure {
    Failure::new(Exit::NotAuthenticated, "nothing here says who is asking")
        .because("`--evidence-file` is not given")
        .because("`DAYFLY_ID_TOKEN` is not set")
        .because("`GITHUB_ACTIONS` is not `true`")
        .help("give the platform's identity token: --evidence-file FILE, or - for stdin")
}

fn stdin() -> Result<Secret<String>, Failure> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(TOKEN_MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::failed("stdin cannot be read").because(error))?;
    door::secret_text(bytes, "stdin")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNER: [(&str, &str); 3] = [
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://run.example/token?v=2"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "rt"),
    ];

    #[test]
    fn what_is_explicit_comes_before_the_platform() {
        let mut pairs = RUNNER.to_vec();
        assert!(matches!(probe(None, &Vars::given(&pairs)), Ok(Source::GitHub { .. })));
        pairs.push(("DAYFLY_ID_TOKEN", "a.b.c"));
        assert!(matches!(probe(None, &Vars::given(&pairs)), Ok(Source::Variable(_))));
        assert!(matches!(probe(Some(Path::new("-")), &Vars::given(&pairs)), Ok(Source::Stdin)));
        assert!(matches!(probe(Some(Path::new("f")), &Vars::given(&pairs)), Ok(Source::File(_))));
    }

    #[test]
    fn only_the_exact_word_makes_it_github() {
        for word in ["", "false", "TRUE", "True", "1", "yes", " true", "true "] {
            let mut pairs = RUNNER.to_vec();
            pairs[0].1 = word;
            assert_eq!(probe(None, &Vars::given(&pairs)).unwrap_err().exit(), 4, "`{word}`");
        }
    }

    #[test]
    fn a_job_without_permission_gets_the_exact_lines_and_no_fall_through() {
        for missing in [1, 2] {
            let mut pairs = RUNNER.to_vec();
            pairs.remove(missing);
            let failure = probe(None, &Vars::given(&pairs)).unwrap_err();
            assert_eq!(failure.exit(), 4);
            let text = failure.text("error");
            assert!(text.contains("\npermissions:\n  id-token: write\n  contents: read\n"), "{text}");
            assert!(text.contains("forks"));
        }
    }

    #[test]
    fn an_empty_token_variable_is_none_as_every_other() {
        let empty = ("DAYFLY_ID_TOKEN", "");
        assert!(matches!(probe(None, &Vars::given(&[&RUNNER[..], &[empty]].concat())), Ok(Source::GitHub { .. })));
        assert_eq!(probe(None, &Vars::given(&[empty])).unwrap_err().exit(), 4);
    }

    #[test]
    fn where_nothing_fires_each_probe_says_why() {
        let failure = probe(None, &Vars::given(&[])).unwrap_err();
        assert_eq!((failure.exit(), failure.parts().causes.len()), (4, 3));
    }

    #[test]
    fn a_source_shows_no_secret() {
        let shown = format!("{:?}", probe(None, &Vars::given(&RUNNER)).unwrap());
        assert!(shown.contains("[redacted]") && !shown.contains("\"rt\""), "{shown}");
    }
}
