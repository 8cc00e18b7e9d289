//! What would change, tried before anybody is asked: the bundle with the new row is loaded in memory and
//! must pass all its tests, the new ones among them. In: the bundle's files and the facts. Out: one file,
//! before and after.

use dayfly_domain::{
    BindingKind, Name,
    bundle::{Bundle, Lint, Problem, Template},
};

use super::{
    cases::{Cases, DENIALS, Test},
    edit::{self, EditError},
    facts::Facts,
    provider::Narrow,
    row::{self, Claim, Rules},
};
use crate::{
    cli::{args::TrustAddArgs, failure::Failure, policy},
    flow::{Folder, Loaded, run_tests},
    policy::Policy,
    sys::files::SourceFile,
};

/// A change of one file of the bundle.
#[derive(Debug)]
pub struct Proposal {
    /// Below the top of the bundle.
    pub path: String,
    pub before: String,
    pub after: String,
    pub task: Name,
    pub row: Name,
    pub issuer: Name,
    /// Its table is made with the row.
    pub issuer_is_new: bool,
    /// Names of the tests, permits first.
    pub tests: Vec<String>,
    /// Denials that another row of the template turns into permits.
    pub left_out: Vec<String>,
    /// What the changed bundle is warned of and the old one was not.
    pub lints: Vec<Lint>,
    /// Neither ref nor environment: all that the workload runs.
    pub wide: bool,
    /// A target of the template wants the job's key.
    pub bound: bool,
}

/// The bundle as it is.
#[derive(Debug)]
pub struct Bundled {
    pub folder: Folder,
    pub files: Vec<SourceFile>,
    pub loaded: Loaded,
}

impl Bundled {
    pub fn read(folder: Folder) -> Result<Self, Failure> {
        let refused = |problems: Vec<Problem>| {
            policy::refused(&folder, &problems).help("put it right first: a row is only added to a bundle that loads")
        };
        let files = folder.read().map_err(refused)?;
        let (bundle, lints) = folder.parse(&files).map_err(refused)?;
        let loaded = Loaded::of(bundle, lints).map_err(refused)?;
        Ok(Self { folder, files, loaded })
    }

    pub fn bundle(&self) -> &Bundle {
        self.loaded.policy.bundle()
    }

    /// The file that has this template.
    fn file_of(&self, task: &Name) -> Option<(&str, &str)> {
        let texts =
            self.files.iter().filter(|file| file.path.ends_with(".toml") && !file.path.starts_with("profiles/"));
        let mut texts = texts.filter_map(|file| Some((file.path.as_str(), std::str::from_utf8(&file.bytes).ok()?)));
        texts.find(|(_, text)| edit::has(text, &["task", task]))
    }

    /// All files, one of them with another text.
    fn with(&self, path: &str, text: &str) -> Vec<SourceFile> {
        let changed = |file: &SourceFile| match file.path == path {
            true => SourceFile { path: path.to_owned(), bytes: text.as_bytes().to_vec() },
            false => file.clone(),
        };
        self.files.iter().map(changed).collect()
    }
}

/// Puts it together, and tries it.
pub fn propose(old: &Bundled, facts: &Facts, args: &TrustAddArgs) -> Result<Proposal, Failure> {
    let bundle = old.bundle();
    let template = row::template(bundle, &facts.task)?;
    let source = row::source(bundle, facts, args)?;
    let claims = row::claims(&source, facts);
    if let Some(row) = row::same(template, &source, &claims, facts.untrusted) {
        return Err(there(template, &row.id, row.disabled));
    }
    let id = row::id(bundle, facts, args)?;
    let profile = bundle.profiles.get(facts.provider);
    let rules = source.known.map(|known| &known.claims).or(profile.map(|profile| &profile.claims));
    let rules = Rules(rules.ok_or_else(|| Failure::failed(format!("there is no profile `{}`", facts.provider)))?);
    let cases = Cases { id: &id, source: &source, claims: &claims, facts, template, rules };
    let (path, before) = old
        .file_of(&template.name)
        .ok_or_else(|| Failure::failed(format!("the table `task.{}` is in no file of the bundle", template.name)))?;
    let base = with_row(before, &cases, args).map_err(|error| unknown_layout(path, &error))?;
    let (after, tests, left_out) = with_tests(old, path, before, &base, &cases)?;
    let lints = tried(old, path, &after, facts)?;
    Ok(Proposal {
        path: path.to_owned(),
        before: before.to_owned(),
        after,
        task: template.name.clone(),
        issuer: source.name.clone(),
        issuer_is_new: source.known.is_none(),
        tests,
        left_out,
        lints,
        wide: is_wide(facts, &claims),
        bound: is_bound(bundle, template),
        row: id,
    })
}

fn is_bound(bundle: &Bundle, template: &Template) -> bool {
    let mut targets = template.grants.keys().filter_map(|name| bundle.targets.get(name));
    targets.any(|target| target.binding == BindingKind::Dpop)
}

fn is_wide(facts: &Facts, claims: &[Claim]) -> bool {
    let narrows: Vec<_> = [&facts.provider().reference, &facts.provider().environment].into_iter().flatten().collect();
    let narrowed = |narrow: &&Narrow| claims.iter().any(|(name, _)| name == narrow.claim);
    !narrows.is_empty() && !narrows.iter().any(narrowed)
}

fn with_row(text: &str, cases: &Cases<'_>, args: &TrustAddArgs) -> Result<String, EditError> {
    let Cases { id, source, claims, facts, template, rules } = cases;
    let mut text = text.to_owned();
    if source.known.is_none() {
        let entry = row::issuer_entry(source, facts, &template.owner, args);
        text = edit::table(&text, "issuer", &source.name, &["owner"], &entry)?;
    }
    let entry = row::row_entry(id, source, claims, facts, args, rules);
    edit::push(&text, &["task", &template.name, "allow"], &entry)
}

/// With the permits and the first denials that hold. Those that another row answers are left out, and
/// named; if another row already permits what this one would, there is nothing to add.
fn with_tests(
    old: &Bundled,
    path: &str,
    before: &str,
    base: &str,
    cases: &Cases<'_>,
) -> Result<(String, Vec<String>, Vec<String>), Failure> {
    let layout = |error| unknown_layout(path, &error);
    let (permits, denials) = (cases.permits(), cases.denials());
    if cases.source.known.is_some() {
        let without = pushed(before, &cases.unwanted()).map_err(layout)?;
        let by_others = permitted(old, path, &without);
        if let [(_, first), ..] = &by_others[..]
            && by_others.len() == permits.len()
        {
            return Err(let_in(cases, first));
        }
    }
    let tried = pushed(base, &denials).map_err(layout)?;
    let wrong: Vec<_> = permitted(old, path, &tried).into_iter().filter(|(_, row)| row != cases.id.as_str()).collect();
    let (out, kept): (Vec<_>, Vec<_>) =
        denials.into_iter().partition(|test| wrong.iter().any(|(name, _)| *name == test.name));
    let tests: Vec<_> = permits.into_iter().chain(kept.into_iter().take(DENIALS)).collect();
    let after = pushed(base, &tests).map_err(layout)?;
    let names = |tests: Vec<Test>| tests.into_iter().map(|test| test.name).collect();
    Ok((after, names(tests), names(out)))
}

fn pushed(text: &str, tests: &[Test]) -> Result<String, EditError> {
    tests.iter().try_fold(text.to_owned(), |text, test| edit::push(&text, &["test"], &test.entry))
}

/// The tests that some row permits though they do not expect it, and that row.
fn permitted(old: &Bundled, path: &str, text: &str) -> Vec<(String, String)> {
    let Ok((bundle, _)) = old.folder.parse(&old.with(path, text)) else { return Vec::new() };
    let Ok(policy) = Policy::compile(bundle) else { return Vec::new() };
    let by = |found: &str| found.strip_prefix("permit by `").map(|row| row.trim_end_matches('`').to_owned());
    run_tests(&policy).into_iter().filter_map(|failure| Some((failure.name, by(&failure.found)?))).collect()
}

/// The changed bundle as a broker would load it: what is new to be warned of, or why it does not.
fn tried(old: &Bundled, path: &str, text: &str, facts: &Facts) -> Result<Vec<Lint>, Failure> {
    let refused = |problems: Vec<Problem>| {
        let failure = policy::refused(&old.folder, &problems);
        let what = "the bundle with this row would not load; nothing was changed";
        let failure = failure.parts().causes.iter().fold(Failure::failed(what), Failure::because);
        match facts.reference.is_none() && facts.environment.is_none() && facts.provider().reference.is_some() {
            true => failure.help("narrow the row: --ref refs/heads/main --environment production"),
            false => failure,
        }
    };
    let (bundle, lints) = old.folder.parse(&old.with(path, text)).map_err(refused)?;
    let loaded = Loaded::of(bundle, lints).map_err(refused)?;
    Ok(loaded.lints.into_iter().filter(|lint| !old.loaded.lints.contains(lint)).collect())
}

fn there(template: &Template, row: &Name, disabled: bool) -> Failure {
    let word = if disabled { ", disabled" } else { "" };
    Failure::failed(format!("the row `{row}` of `{}` says the same already{word}; nothing was changed", template.name))
        .help(format!("dayfly policy show {}", template.name))
}

fn let_in(cases: &Cases<'_>, row: &str) -> Failure {
    let task = &cases.template.name;
    Failure::failed(format!("the row `{row}` of `{task}` lets this in already; nothing was changed"))
        .because("a narrower row beside it would refuse nothing")
        .help(format!("narrow `{row}` by hand, or see it with: dayfly policy show {task}"))
}

fn unknown_layout(path: &str, error: &EditError) -> Failure {
    Failure::failed(format!("`{path}` cannot be added to; nothing was changed"))
        .because(error)
        .help("write the table as `[task.NAME]` with rows as `[[task.NAME.allow]]`, and issuers as `[issuer.NAME]`")
}
