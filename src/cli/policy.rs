//! `dayfly policy check|show`: the trust bundle, without a broker.

use std::path::PathBuf;

use dayfly_domain::{
    BindingKind,
    bundle::{Bundle, Lint, Problem, example_ids, overdue_lints},
};
use serde_json::json;

use super::{
    args::{Output, PolicyCheckArgs, PolicyShowArgs},
    failure::{Exit, Failure},
    print::document,
    session::Session,
    settings,
    table::pairs,
};
use crate::{
    flow::{BundleSource, Folder, Loaded},
    policy::BundleEnv,
};

/// Whose bundle it is when no settings say so. Nothing can be issued under this name.
pub const NOBODY: &str = "https://broker.invalid";

/// Loads the bundle, runs its lints and its tests.
pub fn check(args: &PolicyCheckArgs, session: &Session) -> Result<(), Failure> {
    let folder = folder(args.policies.as_ref(), session)?;
    let Loaded { policy, mut lints } = folder.load().map_err(|problems| refused(&folder, &problems))?;
    let bundle = policy.bundle();
    lints.extend(overdue_lints(bundle, session.clock.wall()));
    lints.extend(example_ids(bundle).into_iter().map(example));
    lints.iter().for_each(|lint| session.screen.warn(&lint.to_string()));
    session.screen.data(&summary(bundle, &lints, session.output))
}

/// A template as the broker understands it, or the schema that policies are checked against.
pub fn show(args: &PolicyShowArgs, session: &Session) -> Result<(), Failure> {
    let folder = folder(args.policies.as_ref(), session)?;
    let Loaded { policy, .. } = folder.load().map_err(|problems| refused(&folder, &problems))?;
    if args.schema {
        return session.screen.data(&as_output("schema", policy.schema(), session.output));
    }
    let name = args.template.as_deref().filter(|name| policy.bundle().templates.contains_key(*name));
    match (name, &args.template) {
        (Some(name), _) => session.screen.data(&as_output("cedar", &policy.show(Some(name)), session.output)),
        (None, Some(asked)) => {
            let known: Vec<_> = policy.bundle().templates.keys().map(|name| format!("`{name}`")).collect();
            let help = format!("the bundle has {}", known.join(", "));
            Err(Failure::new(Exit::NotFound, format!("there is no template `{asked}`")).help(help))
        }
        (None, None) => session.screen.data(&as_output("cedar", &policy.show(None), session.output)),
    }
}

/// Text as it is for people, one string of JSON for programs.
fn as_output(name: &str, text: &str, output: Output) -> String {
    match output {
        Output::Table | Output::Name => text.to_owned(),
        Output::Json | Output::Jsonl => document(json!({ "schema_version": 1, name: text })),
    }
}

/// The bundle's folder: the one that is named, or the settings'.
pub fn folder(policies: Option<&PathBuf>, session: &Session) -> Result<Folder, Failure> {
    let known = match policies {
        Some(_) => settings::load(None, &session.vars).ok().flatten(),
        None => Some(settings::require(None, &session.vars)?),
    };
    let (issuer_url, usual) = match known {
        Some((_, settings)) => (settings.issuer, settings.policies_dir),
        None => (NOBODY.to_owned(), PathBuf::new()),
    };
    let path = policies.cloned().unwrap_or(usual);
    Ok(Folder { path, env: BundleEnv { issuer_url, broker_binding: BindingKind::Dpop } })
}

/// All problems at once, each with its file and place.
pub fn refused(folder: &Folder, problems: &[Problem]) -> Failure {
    let count = problems.len();
    let what = format!("the bundle `{}` does not load, {count} to put right", folder.path.display());
    problems.iter().fold(Failure::failed(what), |failure, problem| failure.because(problem))
}

fn example(at: String) -> Lint {
    Lint { at, what: "an example id, which no platform issues".to_owned(), help: Some("`serve` refuses it".to_owned()) }
}

fn summary(bundle: &Bundle, lints: &[Lint], output: Output) -> String {
    let rows: usize = bundle.templates.values().map(|template| template.rows.len()).sum();
    let fingerprint = bundle.fingerprint.to_string();
    if output == Output::Name {
        return format!("{fingerprint}\n");
    }
    if output != Output::Table {
        let lints: Vec<_> =
            lints.iter().map(|lint| json!({ "at": lint.at, "what": lint.what, "help": lint.help })).collect();
        return document(json!({
            "schema_version": 1, "fingerprint": fingerprint, "issuers": bundle.issuers.len(),
            "targets": bundle.targets.len(), "templates": bundle.templates.len(), "rows": rows,
            "tests_passed": bundle.tests.len(), "lints": lints,
        }));
    }
    pairs(&[
        ("fingerprint", fingerprint),
        ("issuers", bundle.issuers.len().to_string()),
        ("targets", bundle.targets.len().to_string()),
        ("templates", bundle.templates.len().to_string()),
        ("rows", rows.to_string()),
        ("tests passed", bundle.tests.len().to_string()),
        ("warnings", lints.len().to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::session::test_session;

    #[test]
    fn the_shipped_bundle_loads_and_passes_its_tests() {
        let policies = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/policies").into());
        check(&PolicyCheckArgs { policies }, &test_session()).unwrap();
    }

    #[test]
    fn a_broken_bundle_names_every_problem() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), "format = 1\ncolour = 2\n").unwrap();
        std::fs::write(dir.path().join("b.toml"), "format = [\n").unwrap();
        let policies = Some(dir.path().to_owned());
        let failure = check(&PolicyCheckArgs { policies }, &test_session()).unwrap_err();
        let causes = &failure.parts().causes;
        assert!(causes.iter().any(|cause| cause.contains("a.toml") && cause.contains("colour")), "{causes:?}");
        assert!(causes.iter().any(|cause| cause.contains("b.toml")), "{causes:?}");
    }

    #[test]
    fn an_unknown_template_is_not_found() {
        let policies = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/policies").into());
        let args = PolicyShowArgs { template: "nope".parse().ok(), schema: false, policies };
        assert_eq!(show(&args, &test_session()).unwrap_err().exit(), 3);
    }
}
