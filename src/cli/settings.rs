//! Where the settings lie, and reading them. `serve` needs them; clients only want to know where
//! the state folder is.

use std::path::{Path, PathBuf};

use super::{failure::Failure, session::Vars};
use crate::{config::Settings, sys::files};

/// Where settings may lie, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Named by the caller: it must be there.
    pub named: Option<PathBuf>,
    /// Looked at in turn.
    pub usual: Vec<PathBuf>,
}

/// `--config`, `$DAYFLY_CONFIG`, `$XDG_CONFIG_HOME/dayfly/config.toml`, `/etc/dayfly/dayfly.toml`.
pub fn places(config: Option<&Path>, vars: &Vars) -> Places {
    let named = config.map(Path::to_owned).or_else(|| vars.get("DAYFLY_CONFIG").map(PathBuf::from));
    let home = || vars.get("HOME").map(|home| PathBuf::from(home).join(".config"));
    let base = vars.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let own = base.map(|base| base.join("dayfly/config.toml"));
    Places { named, usual: own.into_iter().chain([PathBuf::from("/etc/dayfly/dayfly.toml")]).collect() }
}

/// The settings and the file they came from; `None` when none was named and none lies about.
pub fn load(config: Option<&Path>, vars: &Vars) -> Result<Option<(PathBuf, Settings)>, Failure> {
    let places = places(config, vars);
    let file = places.named.or_else(|| places.usual.into_iter().find(|path| path.exists()));
    file.map(|file| read(&file).map(|settings| (file, settings))).transpose()
}

/// The settings, which must be there.
pub fn require(config: Option<&Path>, vars: &Vars) -> Result<(PathBuf, Settings), Failure> {
    load(config, vars)?.ok_or_else(|| {
        let looked: Vec<_> = places(config, vars).usual.iter().map(|path| format!("`{}`", path.display())).collect();
        Failure::usage(format!(
            "no settings: `--config` and `DAYFLY_CONFIG` are not given, and there is no {}",
            looked.join(" and no ")
        ))
        .help("write the settings to one of these files, or try `dayfly dev`, which needs none")
    })
}

fn read(file: &Path) -> Result<Settings, Failure> {
    let shown = file.display();
    let bytes = files::read_capped(file)
        .map_err(|error| Failure::usage(format!("the settings `{shown}` cannot be read")).because(error))?;
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("the settings `{shown}` are not UTF-8")))?;
    Settings::parse(&text).map_err(|error| Failure::usage(format!("the settings `{shown}` are wrong")).because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_looked_for_in_order() {
        let vars = Vars::given(&[("DAYFLY_CONFIG", "/v.toml"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")]);
        assert_eq!(places(Some(Path::new("/c.toml")), &vars).named, Some("/c.toml".into()));
        let found = places(None, &vars);
        assert_eq!(found.named, Some("/v.toml".into()));
        assert_eq!(found.usual, [Path::new("/x/dayfly/config.toml"), Path::new("/etc/dayfly/dayfly.toml")]);
        let found = places(None, &Vars::given(&[("HOME", "/h")]));
        assert_eq!(found.usual[0], Path::new("/h/.config/dayfly/config.toml"));
    }

    #[test]
    fn named_settings_that_are_missing_or_wrong_are_errors_and_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s.toml");
        let failure = load(Some(&file), &Vars::given(&[])).unwrap_err();
        assert_eq!(failure.exit(), 2);
        std::fs::write(&file, "colour = 1").unwrap();
        let failure = load(Some(&file), &Vars::given(&[])).unwrap_err();
        assert!(failure.parts().causes[0].contains("unknown field `colour`"), "{failure:?}");
    }
}
