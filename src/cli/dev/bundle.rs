//! Where `dev` has its bundle from: the folder unchanged, with one workload issuer played by the
//! stand-in and an overlay that makes the operator. The one place that can do this.
//!
//! The overlay is text like any other: it goes through the same checks and counts in the
//! fingerprint.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use dayfly_domain::{
    BindingKind, Name,
    bundle::{BROKER_ACTIONS, Bundle, Issuer, IssuerKind, KeySource, Problem},
};

use super::{
    home::Played,
    sample::{self, Sample},
};
use crate::{
    flow::{BundleSource, Folder, Loaded},
    policy::BundleEnv,
    sys::files::SourceFile,
};

/// Name of everything in the overlay.
pub const OVERLAY: &str = "dayfly-dev";

/// The only key algorithm of the stand-in.
const ALG: &str = "ES256";

/// The shipped bundle, for where there is no folder.
const SHIPPED: [(&str, &str); 7] = [
    ("production.cedar", include_str!("../../../policies/production.cedar")),
    ("shop.toml", include_str!("../../../policies/shop.toml")),
    ("agent.toml", include_str!("../../../policies/agent.toml")),
    ("limits.cedar", include_str!("../../../policies/limits.cedar")),
    ("orders.toml", include_str!("../../../policies/orders.toml")),
    ("platform.toml", include_str!("../../../policies/platform.toml")),
    ("vendor.toml", include_str!("../../../policies/vendor.toml")),
];

/// The bundle's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    Folder(PathBuf),
    Shipped,
    /// The shipped bundle and one file of tables more.
    ShippedAnd(&'static str),
}

/// A bundle with its stand-in.
#[derive(Debug)]
pub struct DevBundle {
    pub text: Text,
    pub issuer_url: String,
    /// The workload issuer that is played.
    pub played: Name,
    pub stand_in_url: String,
    pub ca_pem: Arc<[u8]>,
    /// What the last good load said.
    pub told: Mutex<Option<Told>>,
}

/// What the outside needs to know of a loaded bundle.
#[derive(Debug, Clone)]
pub struct Told {
    pub played: Played,
    pub sample: Option<Sample>,
    pub rows: usize,
    pub tests: usize,
}

impl BundleSource for DevBundle {
    fn load(&self) -> Result<Loaded, Vec<Problem>> {
        let folder = self.folder();
        let mut files = self.read(&folder)?;
        refuse_our_places(&files)?;
        refuse_our_name(&folder.parse(&files)?.0)?;
        files.extend(self.overlay());
        let (mut bundle, lints) = folder.parse(&files)?;
        self.repoint(&mut bundle)?;
        let loaded = Loaded::of(bundle, lints)?;
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = self.tell(&loaded);
        Ok(loaded)
    }

    fn place(&self) -> Option<String> {
        match self.text {
            Text::Folder(_) => self.folder().place(),
            Text::Shipped | Text::ShippedAnd(_) => None,
        }
    }
}

impl DevBundle {
    /// What the last good load said.
    pub fn told(&self) -> Option<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// URL of the issuer of the operator's evidence.
    pub fn operator_url(&self) -> String {
        format!("{}/operator", self.stand_in_url)
    }

    fn folder(&self) -> Folder {
        let path = match &self.text {
            Text::Folder(path) => path.clone(),
            Text::Shipped | Text::ShippedAnd(_) => PathBuf::from("policies"),
        };
        let env = BundleEnv { issuer_url: self.issuer_url.clone(), broker_binding: BindingKind::Bearer };
        Folder { path, env }
    }

    fn read(&self, folder: &Folder) -> Result<Vec<SourceFile>, Vec<Problem>> {
        match self.text {
            Text::Folder(_) => folder.read(),
            Text::Shipped => Ok(SHIPPED.map(|(path, text)| file(path, text)).into()),
            Text::ShippedAnd(more) => {
                Ok(SHIPPED.into_iter().chain([("more.toml", more)]).map(|(path, text)| file(path, text)).collect())
            }
        }
    }

    /// Owner, issuer, template, row and permit of the operator. The first line puts what is
    /// played, and where, into the fingerprint.
    fn overlay(&self) -> [SourceFile; 2] {
        let listed = |each: fn(&str) -> String| BROKER_ACTIONS.map(each).join(", ");
        let (words, actions) =
            (listed(|action| format!("\"{action}\"")), listed(|action| format!("Dayfly::Action::\"{action}\"")));
        let toml = format!(
            "# `issuer.{played}` is played by {url}, {ALG}\n\
             [owner.{OVERLAY}]\n\
             [issuer.{OVERLAY}]\n\
             profile = \"oidc\"\nowner = \"{OVERLAY}\"\nurl = \"{operator}\"\nalgs = [\"{ALG}\"]\n\
             [task.{OVERLAY}]\n\
             purpose = \"operate the development broker\"\nowner = \"{OVERLAY}\"\n\
             grants = {{ broker = [{words}] }}\nttl = \"1h\"\nreview_by = 9999-12-31\n\
             [[task.{OVERLAY}.allow]]\n\
             id = \"{OVERLAY}\"\nissuer = \"{OVERLAY}\"\nclaims = {{ sub = \"{OVERLAY}\" }}\n",
            played = self.played,
            url = self.stand_in_url,
            operator = self.operator_url(),
        );
        let cedar = format!(
            "@id(\"{OVERLAY}-rows\") @purpose(\"the operator of a development broker reaches every row\")\n\
             permit (principal is Dayfly::Workload, action in [{actions}], resource)\n\
             when {{ principal.issuer == \"{OVERLAY}\" }};\n"
        );
        [file("builtin/dev/overlay.cedar", &cedar), file("builtin/dev/overlay.toml", &toml)]
    }

    /// URL, keys and algorithm of the played issuer, and the way to the operator's keys. All else
    /// stays as the bundle says.
    fn repoint(&self, bundle: &mut Bundle) -> Result<(), Vec<Problem>> {
        let keys = KeySource::Discovery { ca_pem: Some(self.ca_pem.clone()), allow_private: true };
        if let Some(operator) = bundle.issuers.get_mut(OVERLAY) {
            operator.keys = keys.clone();
        }
        let known = workload_issuers(bundle);
        let playable = known.contains(&self.played.to_string());
        match bundle.issuers.get_mut(&self.played).filter(|_| playable) {
            Some(issuer) => {
                issuer.url = self.stand_in_url.as_str().into();
                issuer.keys = keys;
                issuer.algs = vec![ALG.to_owned()];
                Ok(())
            }
            None => Err(vec![nobody_to_play(&self.played, &known)]),
        }
    }

    fn tell(&self, loaded: &Loaded) -> Option<Told> {
        let bundle = loaded.policy.bundle();
        let issuer = bundle.issuers.get(&self.played)?;
        let played = Played {
            name: self.played.clone(),
            url: self.stand_in_url.clone(),
            audience: issuer.audience.to_string(),
            typ: typ(issuer),
        };
        let own = bundle.templates.values().filter(|template| template.name != OVERLAY);
        let rows = own.map(|template| template.rows.len()).sum();
        Some(Told { played, sample: sample::of(&loaded.policy, &self.played), rows, tests: bundle.tests.len() })
    }
}

/// What the stand-in can play.
fn workload_issuers(bundle: &Bundle) -> Vec<String> {
    // An SVID has its trust domain's keys, which no stand-in can have.
    let by_iss = |issuer: &&Issuer| issuer.kind == IssuerKind::Workload && issuer.trust_domain().is_none();
    let workload = |issuer: &&Issuer| by_iss(issuer) && issuer.name != OVERLAY;
    bundle.issuers.values().filter(workload).map(|issuer| issuer.name.to_string()).collect()
}

fn nobody_to_play(played: &Name, known: &[String]) -> Problem {
    let help = match known {
        [] => "the bundle has none: add one".to_owned(),
        known => format!("choose with --as: `{}`", known.join("`, `")),
    };
    Problem::new("bundle", format!("issuer.{played}"), "there is no such workload issuer to play").help(help)
}

/// `JWT` where the issuer takes it.
fn typ(issuer: &Issuer) -> String {
    let usual = "JWT".to_owned();
    if issuer.typ.contains(&usual) {
        return usual;
    }
    issuer.typ.iter().find(|typ| !typ.is_empty()).cloned().unwrap_or(usual)
}

// SECURITY: `a_bundle_with_a_folder_of_ours_is_refused`
fn refuse_our_places(files: &[SourceFile]) -> Result<(), Vec<Problem>> {
    let ours = files.iter().filter(|file| file.path.starts_with("builtin/"));
    let problem = |file: &SourceFile| {
        Problem::new(&file.path, "file", "the folder `builtin` is our own").help("put it in another folder")
    };
    none(ours.map(problem).collect())
}

/// The overlay gives rights over everything: nothing of the bundle may stand in for a part of it.
// SECURITY: `a_bundle_that_uses_our_name_is_refused`
fn refuse_our_name(bundle: &Bundle) -> Result<(), Vec<Problem>> {
    let quoted = format!("\"{OVERLAY}");
    let mut used = Vec::new();
    let mut look = |kind: &str, name: &str| {
        if name == OVERLAY || name.starts_with("dayfly-dev-") {
            used.push(format!("{kind}.{name}"));
        }
    };
    bundle.owners.keys().for_each(|name| look("owner", name));
    bundle.issuers.keys().for_each(|name| look("issuer", name));
    bundle.profiles.keys().for_each(|name| look("profile", name));
    for target in bundle.targets.values() {
        look("target", &target.name);
        look("environment", &target.environment);
    }
    for template in bundle.templates.values() {
        look("task", &template.name);
        template.rows.iter().for_each(|row| look("row", &row.id));
    }
    let cedar = bundle.cedar.iter().filter(|file| file.text.contains(&quoted));
    used.extend(cedar.map(|file| format!("a policy in `{}`", file.path)));
    let what = format!("`{OVERLAY}` is the name of what `dayfly dev` adds");
    none(used.into_iter().map(|at| Problem::new("bundle", at, what.as_str()).help("choose another name")).collect())
}

fn none(problems: Vec<Problem>) -> Result<(), Vec<Problem>> {
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAND_IN: &str = "https://127.0.0.1:2";

    fn source(text: Text, played: &str) -> DevBundle {
        DevBundle {
            text,
            issuer_url: "https://127.0.0.1:1".to_owned(),
            played: played.parse().unwrap(),
            stand_in_url: STAND_IN.to_owned(),
            ca_pem: Arc::from(*b"pem"),
            told: Mutex::default(),
        }
    }

    fn load(files: &[(&str, &str)], played: &str) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let loaded = source(Text::Folder(dir.path().to_owned()), played).load();
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn shop(from: &str, to: &str) -> String {
        let text = SHIPPED[1].1;
        assert!(text.contains(from));
        text.replace(from, to)
    }

    #[test]
    fn the_shipped_bundle_is_played() {
        let source = source(Text::Shipped, "github");
        let loaded = source.load().unwrap();
        let bundle = loaded.policy.bundle();
        let github = &bundle.issuers["github"];
        assert_eq!((&*github.url, &github.algs[..]), (STAND_IN, &["ES256".to_owned()][..]));
        assert_eq!(&*github.audience, "https://127.0.0.1:1");
        assert_eq!(&*bundle.issuers[OVERLAY].url, "https://127.0.0.1:2/operator");
        assert_eq!(loaded.lints, []);
        let told = source.told().unwrap();
        assert_eq!((told.rows, told.tests), (7, 21));
        assert_eq!(told.sample.unwrap().task, "deploy-staging");
    }

    #[test]
    fn who_is_played_and_where_counts_in_the_fingerprint() {
        let print = |source: DevBundle| source.load().unwrap().policy.bundle().fingerprint;
        let first = print(source(Text::Shipped, "github"));
        assert_eq!(first, print(source(Text::Shipped, "github")));
        let elsewhere = DevBundle { stand_in_url: "https://127.0.0.1:3".to_owned(), ..source(Text::Shipped, "github") };
        assert_ne!(first, print(elsewhere));
    }

    #[test]
    fn an_issuer_that_is_not_there_is_named_with_those_that_are() {
        let said = load(&[("shop.toml", SHIPPED[1].1)], "gitlab").unwrap_err();
        assert!(
            said.contains("issuer.gitlab: there is no such workload issuer") && said.contains("`github`"),
            "{said}"
        );
        assert!(!said.contains(OVERLAY), "{said}");
        let said = load(&[("shop.toml", SHIPPED[1].1)], OVERLAY).unwrap_err();
        assert!(said.contains("choose with --as: `github`"), "{said}");
    }

    #[test]
    fn a_verifier_is_not_played() {
        let text = shop(
            "[target.shop-staging]",
            "[issuer.v]\nprofile = \"oidc\"\nowner = \"team-shop\"\nkind = \"verifier\"\nurl = \"https://v.example\"\n[target.shop-staging]",
        );
        let said = load(&[("shop.toml", &text)], "v").unwrap_err();
        assert!(said.contains("issuer.v: there is no such workload issuer"), "{said}");
    }

    #[test]
    fn a_bundle_that_uses_our_name_is_refused() {
        for (from, to) in [
            ("team-shop", OVERLAY),
            ("deploy-staging", OVERLAY),
            ("shop-staging-main", OVERLAY),
            ("environment = \"staging\"\nowner", "environment = \"dayfly-dev\"\nowner"),
        ] {
            let said = load(&[("shop.toml", &shop(from, to))], "github").unwrap_err();
            assert!(said.contains("`dayfly-dev` is the name of what `dayfly dev` adds"), "{said}");
        }
        let cedar = "@id(\"x\") @purpose(\"y\") forbid (principal, action == Dayfly::Action::\"run\", resource == Dayfly::Template::\"dayfly-dev\");";
        let said = load(&[("shop.toml", SHIPPED[1].1), ("x.cedar", cedar)], "github").unwrap_err();
        assert!(said.contains("a policy in `x.cedar`"), "{said}");
    }

    #[test]
    fn a_bundle_with_a_folder_of_ours_is_refused() {
        let said = load(&[("shop.toml", SHIPPED[1].1), ("builtin/dev/overlay.toml", "")], "github").unwrap_err();
        assert!(said.contains("the folder `builtin` is our own"), "{said}");
    }

    #[test]
    fn a_bad_bundle_is_told_as_it_is() {
        let said = load(&[("shop.toml", &shop("ttl       =", "tttl ="))], "github").unwrap_err();
        assert!(said.contains("shop.toml: line ") && said.contains("`tttl`"), "{said}");
    }
}
