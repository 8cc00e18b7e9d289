//! What a platform gives a job to prove itself with: identity tokens, and what mints them. A command
//! that has a credential of its own needs none of it, so `dayfly exec` keeps it from it.

use super::{Vars, ci};

/// Held against the probes by a test.
pub const MINTING: &[&str] = &[
    "DAYFLY_ID_TOKEN",
    "DAYFLY_ID_TOKEN_FILE",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "BITBUCKET_STEP_OIDC_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_JOB_API_SOCKET",
    "BUILDKITE_AGENT_JOB_API_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_OIDCREQUESTURI",
    "TFC_WORKLOAD_IDENTITY_TOKEN",
];

/// Every one of them, and the one that GitLab names after the broker's own URL.
pub fn minting(audience: Option<&str>, vars: &Vars) -> Vec<String> {
    let on_gitlab = vars.get("GITLAB_CI").is_some();
    let gitlab = audience.filter(|_| on_gitlab).map(ci::token_variable);
    MINTING.iter().map(|name| (*name).to_owned()).chain(gitlab).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::identity::{Machine, PROBES, Source, Surroundings, find};

    const B: &str = "https://b.example";

    /// Everything that any platform sets, each with the marks of this one.
    fn job(mark: (&str, &str)) -> Vec<(String, String)> {
        let gitlab = ci::token_variable(B);
        let minting = MINTING.iter().copied().chain([gitlab.as_str()]);
        minting
            .map(|name| (name, "a.b.c"))
            .chain([mark])
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_command_cannot_be_the_job_by_any_variable() {
        for mark in [
            ("GITHUB_ACTIONS", "true"),
            ("GITLAB_CI", "true"),
            ("BITBUCKET_BUILD_NUMBER", "1"),
            ("TFC_RUN_ID", "run-1"),
            ("TF_BUILD", "True"),
            ("NO_PLATFORM", "1"),
        ] {
            let job = job(mark);
            let all = Vars::Given(job.iter().cloned().collect());
            let taken = minting(Some(B), &all);
            let left = Vars::Given(job.into_iter().filter(|(name, _)| !taken.contains(name)).collect());
            let machine = Machine::default();
            let found = |vars: &Vars| find(None, &Surroundings { vars, machine: &machine, audience: Some(B) });
            assert!(matches!(found(&all), Ok(Source::Variable { .. })), "{mark:?}: the job itself is known");
            let after = found(&left);
            let gitlab_kept = mark.0 != "GITLAB_CI" && left.get(&ci::token_variable(B)).is_some();
            assert!(after.is_err(), "{mark:?}: {after:?}");
            assert!(gitlab_kept || left.get(&ci::token_variable(B)).is_none());
        }
    }

    #[test]
    fn every_probe_that_reads_a_variable_is_thought_of() {
        let known = [
            "DAYFLY_ID_TOKEN",
            "DAYFLY_ID_TOKEN_FILE",
            "github",
            "gitlab",
            "circleci",
            "buildkite",
            "bitbucket",
            "terraform",
            "azure-devops",
            // These mint by a socket, a mount or a metadata server: no variable can be kept from anyone.
            "spiffe",
            "kubernetes",
            "aws",
            "google",
            "azure",
        ];
        assert_eq!(PROBES.iter().map(|probe| probe.name).collect::<Vec<_>>(), known, "a new one: see `MINTING`");
    }
}
