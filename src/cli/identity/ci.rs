//! CI platforms: each is recognised by its own variable, and gives a token its own way. A job that
//! was not told to have one gets the exact lines to paste.

use super::{Look, Source, Surroundings, is_set, no_token, not_set, shown_audience};
use crate::cli::door;

/// The lines that a job needs, to be pasted as they are.
const GITHUB_PERMISSIONS: &str = "permissions:\n  id-token: write\n  contents: read";

pub fn github(around: &Surroundings<'_>) -> Look {
    const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
    const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";
    if let Some(absent) = not_exactly(around, "GITHUB_ACTIONS", "true") {
        return absent;
    }
    let (Some(url), Some(token)) = (around.vars.get(URL), around.vars.get(TOKEN)) else {
        let missing = if around.vars.get(URL).is_none() { URL } else { TOKEN };
        let help = format!(
            "add these lines to the job, or to the top of the workflow; pull requests from forks cannot have a token\n\
             {GITHUB_PERMISSIONS}"
        );
        let what = "GitHub gave this job no way to prove what it is";
        return no_token(what, format!("`GITHUB_ACTIONS` is `true`, but {}", not_set(missing)), help);
    };
    match door::secret_text(token.into_bytes(), &format!("`{TOKEN}`")) {
        Ok(request_token) => Look::Found(Source::GitHub { url, request_token }, is_set(URL)),
        Err(failure) => Look::Unusable(failure),
    }
}

/// A job's token lies in a variable whose name the job chose: `DAYFLY_ID_TOKEN`, or by convention
/// the audience in capitals with `_ID_TOKEN` behind it.
pub fn gitlab(around: &Surroundings<'_>) -> Look {
    if let Some(absent) = not_exactly(around, "GITLAB_CI", "true") {
        return absent;
    }
    let usual = around.audience.map(token_variable);
    let token = usual.as_deref().and_then(|name| around.vars.get(name).map(|token| (name, token)));
    if let Some((name, token)) = token {
        return variable(name, token, "gitlab");
    }
    let also = usual.map(|name| format!(" and {}", not_set(&name))).unwrap_or_default();
    let why = format!("`GITLAB_CI` is `true`, but {}{also}", not_set("DAYFLY_ID_TOKEN"));
    let lines = format!("id_tokens:\n  DAYFLY_ID_TOKEN:\n    aud: {}", shown_audience(around));
    no_token("GitLab gave this job no identity token", why, format!("add these lines to the job\n{lines}"))
}

pub fn circleci(around: &Surroundings<'_>) -> Look {
    // SECURITY: `CIRCLE_OIDC_TOKEN` is for the whole organisation, so it is never sent:
    // `a_token_for_everyone_is_not_sent`.
    program(around, "CIRCLECI", "circleci", "circleci", |audience| {
        let claims = serde_json::json!({ "aud": audience }).to_string();
        ["run", "oidc", "get", "--root-issuer", "--claims", &claims].map(str::to_owned).to_vec()
    })
}

pub fn buildkite(around: &Surroundings<'_>) -> Look {
    program(around, "BUILDKITE", "buildkite", "buildkite-agent", |audience| {
        let claims = ["--claim", "organization_id", "--claim", "pipeline_id"];
        ["oidc", "request-token", "--lifetime", "300"]
            .into_iter()
            .chain(claims)
            .chain(["--audience", audience])
            .map(str::to_owned)
            .collect()
    })
}

pub fn bitbucket(around: &Surroundings<'_>) -> Look {
    let help = format!(
        "add these lines to the step, with this one audience: a token that is for others too is refused\n\
         oidc:\n  audiences:\n    - {}",
        shown_audience(around)
    );
    given(around, "BITBUCKET_BUILD_NUMBER", "BITBUCKET_STEP_OIDC_TOKEN", "bitbucket", "Bitbucket", help)
}

pub fn terraform(around: &Surroundings<'_>) -> Look {
    let help = format!(
        "add this environment variable to the workspace (agents from 1.7.0 on give the token)\n\
         TFC_WORKLOAD_IDENTITY_AUDIENCE={}",
        shown_audience(around)
    );
    given(around, "TFC_RUN_ID", "TFC_WORKLOAD_IDENTITY_TOKEN", "terraform", "HCP Terraform", help)
}

/// Recognised, so that its runners are not taken for the machines they run on.
pub fn azure_devops(around: &Surroundings<'_>) -> Look {
    if let Some(absent) = not_exactly(around, "TF_BUILD", "True") {
        return absent;
    }
    let help = "fetch the service connection's token in the pipeline, and give it with --evidence-file FILE";
    no_token("this is Azure DevOps, whose tokens are not fetched yet", "`TF_BUILD` is `True`".to_owned(), help.into())
}

/// SECURITY: exactly this value, see `only_the_exact_word_names_a_platform`.
fn not_exactly(around: &Surroundings<'_>, name: &str, word: &str) -> Option<Look> {
    let is = around.vars.raw(name).as_deref() == Some(word);
    (!is).then(|| Look::Absent(format!("`{name}` is not `{word}`")))
}

fn program(
    around: &Surroundings<'_>,
    name: &'static str,
    origin: &'static str,
    program: &'static str,
    args: fn(&str) -> Vec<String>,
) -> Look {
    not_exactly(around, name, "true")
        .unwrap_or_else(|| Look::Found(Source::Program { origin, program, args }, format!("`{name}` is `true`")))
}

/// A platform that puts the token into a variable of its own.
fn given(
    around: &Surroundings<'_>,
    mark: &str,
    name: &'static str,
    origin: &'static str,
    title: &str,
    help: String,
) -> Look {
    match (around.vars.get(name), around.vars.get(mark)) {
        (Some(token), _) => variable(name, token, origin),
        (None, Some(_)) => {
            let why = format!("{}, but {}", is_set(mark), not_set(name));
            no_token(&format!("{title} gave this job no identity token"), why, help)
        }
        (None, None) => Look::Absent(format!("neither `{mark}` nor `{name}` is set")),
    }
}

fn variable(name: &str, token: String, origin: &'static str) -> Look {
    match door::secret_text(token.into_bytes(), &format!("`{name}`")) {
        Ok(token) => Look::Found(Source::Variable { token, origin }, is_set(name)),
        Err(failure) => Look::Unusable(failure),
    }
}

/// `https://b.example` is `HTTPS___B_EXAMPLE_ID_TOKEN`: capitals, and `_` for all that is neither
/// letter nor digit, also for a digit in front.
pub(super) fn token_variable(audience: &str) -> String {
    let letter = |(at, c): (usize, char)| match c {
        '0'..='9' if at == 0 => '_',
        c if c.is_ascii_alphanumeric() => c.to_ascii_uppercase(),
        _ => '_',
    };
    audience.chars().enumerate().map(letter).chain("_ID_TOKEN".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        identity::{Machine, find},
        session::Vars,
    };

    const B: &str = "https://b.example";

    fn found(pairs: &[(&str, &str)]) -> Result<Source, String> {
        let (vars, machine) = (Vars::given(pairs), Machine::default());
        let around = Surroundings { vars: &vars, machine: &machine, audience: Some(B) };
        find(None, &around).map_err(|failure| {
            assert_eq!(failure.exit(), 4);
            failure.text("error")
        })
    }

    #[test]
    fn only_the_exact_word_names_a_platform() {
        for name in ["GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "BUILDKITE"] {
            for word in ["", "false", "TRUE", "True", "1", "yes", " true", "true "] {
                let said = found(&[(name, word)]).unwrap_err();
                assert!(said.contains(&format!("`{name}` is not `true`")), "`{name}`=`{word}`: {said}");
            }
        }
        assert!(found(&[("TF_BUILD", "true")]).unwrap_err().contains("`TF_BUILD` is not `True`"));
    }

    #[test]
    fn a_job_without_permission_gets_the_exact_lines_and_no_fall_through() {
        let url = ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://run.example/token?v=2");
        let token = ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "rt");
        // Another platform's token lies there too, and is not taken.
        let other = ("TFC_WORKLOAD_IDENTITY_TOKEN", "x.y.z");
        for left in [url, token] {
            let said = found(&[("GITHUB_ACTIONS", "true"), left, other]).unwrap_err();
            assert!(said.contains("\npermissions:\n  id-token: write\n  contents: read\n"), "{said}");
            assert!(said.contains("forks"));
        }
        for (mark, lines) in [
            ("GITLAB_CI", "\nid_tokens:\n  DAYFLY_ID_TOKEN:\n    aud: https://b.example\n"),
            ("BITBUCKET_BUILD_NUMBER", "\noidc:\n  audiences:\n    - https://b.example\n"),
        ] {
            let said = found(&[(mark, "true"), other]).unwrap_err();
            assert!(said.contains(lines), "{mark}: {said}");
        }
        let said = found(&[("TFC_RUN_ID", "run-1")]).unwrap_err();
        assert!(said.contains("\nTFC_WORKLOAD_IDENTITY_AUDIENCE=https://b.example\n"), "{said}");
        assert!(found(&[("TF_BUILD", "True")]).unwrap_err().contains("--evidence-file"));
    }

    #[test]
    fn gitlab_names_the_variable_after_the_audience() {
        assert_eq!(token_variable(B), "HTTPS___B_EXAMPLE_ID_TOKEN");
        assert_eq!(token_variable("7z"), "_Z_ID_TOKEN");
        let source = found(&[("GITLAB_CI", "true"), ("HTTPS___B_EXAMPLE_ID_TOKEN", "a.b.c")]).unwrap();
        assert!(matches!(source, Source::Variable { origin: "gitlab", .. }));
        // A token for somebody else lies in another variable.
        assert!(found(&[("GITLAB_CI", "true"), ("VAULT_ID_TOKEN", "a.b.c")]).is_err());
    }

    #[test]
    fn a_token_in_a_variable_of_the_platform() {
        for (name, origin) in [("BITBUCKET_STEP_OIDC_TOKEN", "bitbucket"), ("TFC_WORKLOAD_IDENTITY_TOKEN", "terraform")]
        {
            let source = found(&[(name, "a.b.c")]).unwrap();
            assert!(matches!(source, Source::Variable { origin: by, .. } if by == origin), "{source:?}");
        }
    }

    #[test]
    fn a_token_for_everyone_is_not_sent() {
        let made = [("CIRCLE_OIDC_TOKEN", "a.b.c"), ("CIRCLE_OIDC_TOKEN_V2", "a.b.c")];
        let source = found(&[&[("CIRCLECI", "true")], &made[..]].concat()).unwrap();
        let Source::Program { program: "circleci", args, .. } = source else { panic!("{source:?}") };
        assert_eq!(args(B), ["run", "oidc", "get", "--root-issuer", "--claims", r#"{"aud":"https://b.example"}"#]);
        assert!(found(&made).is_err());
    }

    #[test]
    fn an_audience_is_one_argument_whatever_is_in_it() {
        let Ok(Source::Program { args, .. }) = found(&[("BUILDKITE", "true")]) else { panic!("no agent") };
        assert_eq!(args("--help $(id)").last().unwrap(), "--help $(id)");
        let Ok(Source::Program { args, .. }) = found(&[("CIRCLECI", "true")]) else { panic!("no program") };
        assert_eq!(args("\"}").last().unwrap(), r#"{"aud":"\"}"}"#);
    }
}
