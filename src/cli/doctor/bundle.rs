//! The bundle as a broker would load it, and the store beside it: does it load, what is it warned of, is
//! it the one in force. Both are only read.

use std::path::Path;

use dayfly_domain::{
    UnixMs,
    bundle::{Bundle, example_ids, overdue_lints},
};

use super::super::serve::NOT_BACK;
use super::finding::Finding;
use crate::{
    flow::{BundleSource, Folder, Loaded, goes_back, recorded},
    store::{Reader, StoreError},
};

/// Findings, and the bundle if it loads.
pub fn bundle(folder: &Folder, may_have_examples: bool, now: UnixMs) -> (Vec<Finding>, Option<Loaded>) {
    let path = folder.path.display();
    let check = format!("dayfly policy check --policies {path}");
    let loaded = match folder.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            let wrong = |problem| Finding::wrong("bundle", format!("`{path}` does not load: {problem}"), check.clone());
            return (problems.iter().map(wrong).collect(), None);
        }
    };
    let bundle = loaded.policy.bundle();
    let example = |at: &String| {
        let mend = "write the real id of your platform there: `serve` refuses examples";
        Finding::wrong("bundle", format!("{at}: an example id, which no platform issues"), mend)
    };
    let examples = if may_have_examples { Vec::new() } else { example_ids(bundle) };
    let mut found: Vec<_> = examples.iter().map(example).collect();
    let lints = loaded.lints.iter().cloned().chain(overdue_lints(bundle, now));
    found.extend(lints.map(|lint| {
        let mend = lint.help.clone().unwrap_or_else(|| check.clone());
        Finding::warning("bundle", format!("{}: {}", lint.at, lint.what), mend)
    }));
    if found.is_empty() {
        found.push(Finding::ok("bundle", summary(bundle)));
    }
    (found, Some(loaded))
}

fn summary(bundle: &Bundle) -> String {
    let rows: usize = bundle.templates.values().map(|template| template.rows.len()).sum();
    let Bundle { templates, tests, .. } = bundle;
    format!("{} templates, {rows} rows, {} tests passed", templates.len(), tests.len())
}

/// What the store says, read beside whoever has it. `strict`: the settings refuse to go back.
pub fn store(path: &Path, bundle: Option<&Bundle>, strict: bool) -> (Vec<Finding>, Option<UnixMs>) {
    match std::fs::metadata(path) {
        Ok(file) if file.len() > 0 => {}
        _ => return (Vec::new(), None),
    }
    let read = |reader: &Reader| {
        let high_water = reader.high_water()?;
        let in_force = bundle.map(|bundle| in_force(reader, bundle, strict)).transpose()?;
        Ok::<_, StoreError>((in_force, high_water))
    };
    match Reader::open(path).and_then(|reader| read(&reader)) {
        Ok((in_force, high_water)) => {
            let found = [Finding::ok("store", format!("`{}` can be read", path.display()))];
            (found.into_iter().chain(in_force).collect(), Some(high_water))
        }
        Err(error @ StoreError::Older { .. }) => {
            let mend = "nothing: the next start brings it forward, and an older broker does not run on it after that";
            (vec![Finding::warning("store", error.to_string(), mend)], None)
        }
        Err(error) => {
            let mend = "copy the state folder first; then: dayfly ledger verify";
            (vec![Finding::wrong("store", format!("`{}`: {error}", path.display()), mend)], None)
        }
    }
}

/// Whether the folder holds what decided last.
fn in_force(reader: &Reader, bundle: &Bundle, strict: bool) -> Result<Finding, StoreError> {
    let ours = bundle.fingerprint.to_string();
    let last = recorded(reader)?;
    Ok(match last {
        Some(last) if last == ours => Finding::ok("bundle", format!("the one in force, {}", short(&last))),
        Some(_) if goes_back(reader, bundle.fingerprint)? => went_back(strict),
        Some(last) => {
            let what = format!(
                "the folder holds {}, in force is {}: it was changed and not loaded",
                short(&ours),
                short(&last)
            );
            Finding::warning("bundle", what, "systemctl reload dayfly   # or kill -HUP of the broker")
        }
        None => Finding::ok("bundle", "the store remembers none yet"),
    })
}

/// As `serve --check` says it.
fn went_back(strict: bool) -> Finding {
    let what = "the bundle in the folder was in force before, and was replaced";
    match strict {
        true => Finding::wrong("bundle", format!("{what}: `strict_rollback` refuses it"), NOT_BACK),
        false => Finding::warning(
            "bundle",
            format!("{what}: loading it takes back what came after"),
            "git log -p in the bundle's repository; `strict_rollback = true` refuses to go back",
        ),
    }
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

#[cfg(test)]
mod tests {
    use dayfly_domain::BindingKind;

    use super::*;
    use crate::{cli::doctor::finding::Verdict, policy::BundleEnv};

    fn folder(text: &str) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), text).unwrap();
        let env = BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: BindingKind::Dpop };
        let folder = Folder { path: dir.path().to_owned(), env };
        (dir, folder)
    }

    #[test]
    fn a_bundle_that_does_not_load_is_wrong_with_each_problem() {
        let (_dir, broken) = folder("format = 1\ncolour = 2\n");
        let (found, loaded) = bundle(&broken, false, UnixMs::from_s(1));
        assert!(loaded.is_none() && found.iter().all(|finding| finding.verdict == Verdict::Wrong), "{found:?}");
        assert!(found[0].what.contains("colour") && found[0].mend.as_ref().unwrap().starts_with("dayfly policy check"));
    }

    #[test]
    fn example_ids_and_reviews_in_the_past_are_found() {
        dayfly_verifier::crypto::init().unwrap();
        let (_dir, shop) = folder(include_str!("../../../policies/shop.toml"));
        let (found, loaded) = bundle(&shop, false, UnixMs::parse("2028-01-01T00:00:00Z").unwrap());
        assert!(loaded.is_some());
        let count = |verdict| found.iter().filter(|finding| finding.verdict == verdict).count();
        assert!(count(Verdict::Wrong) >= 3 && count(Verdict::Warning) >= 2, "{found:?}");
        assert!(found.iter().any(|finding| finding.what.contains("was to be reviewed by 2027-06-30")));
    }

    #[test]
    fn a_bundle_that_is_refused_is_mended_as_a_start_says() {
        let refused = went_back(true);
        assert_eq!((refused.verdict, refused.mend.as_deref()), (Verdict::Wrong, Some(NOT_BACK)));
        assert!(NOT_BACK.contains("change a byte") && NOT_BACK.contains("lift `strict_rollback`"));
        assert_eq!(went_back(false).verdict, Verdict::Warning);
    }

    #[test]
    fn a_store_that_cannot_be_read_is_wrong_and_none_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dayfly.db");
        assert_eq!(store(&path, None, false), (Vec::new(), None));
        std::fs::write(&path, "no database at all, but long enough to be looked at").unwrap();
        let (found, high_water) = store(&path, None, false);
        assert_eq!((found[0].verdict, high_water), (Verdict::Wrong, None), "{found:?}");
    }
}
