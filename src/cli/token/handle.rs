//! The task's handle as the client keeps it: made here, in a file of mode 0600 before it is used,
//! known to the broker by its hash only (design.md section 5).

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use dayfly_domain::Secret;

use crate::{
    cli::{door, failure::Failure, session::Vars},
    sys::{entropy, files},
};

const PREFIX: &str = "dtc_";

/// `dtc_` and 43 base64url characters: 256 random bits.
#[derive(Debug)]
pub struct Handle(Secret<String>);

impl Handle {
    pub fn make() -> Result<Self, Failure> {
        let random = entropy::bytes::<32>().map_err(|error| Failure::failed("no handle can be made").because(error))?;
        let random = Secret::new(random);
        Ok(Self(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.expose())))))
    }

    fn parse(text: Secret<String>) -> Option<Self> {
        let digits = text.expose().strip_prefix(PREFIX)?;
        let whole = digits.len() == 43 && URL_SAFE_NO_PAD.decode(digits).is_ok_and(|bytes| bytes.len() == 32);
        whole.then_some(Self(text))
    }

    /// `task_control_s256`: base64url of SHA-256 over the ASCII, `dtc_` included.
    pub fn s256(&self) -> String {
        URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, self.expose().as_bytes()))
    }

    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    pub fn into_bearer(self) -> Secret<String> {
        self.0
    }
}

/// Where the handle is kept: `--task-file`, otherwise `DAYFLY_TASK_FILE`, otherwise beside `--out`.
pub fn place(task_file: Option<&Path>, out: Option<&Path>, vars: &Vars) -> Option<PathBuf> {
    let from_vars = || vars.get("DAYFLY_TASK_FILE").map(PathBuf::from);
    let beside = || {
        let mut name = OsString::from(out?);
        name.push(".task");
        Some(PathBuf::from(name))
    };
    task_file.map(Path::to_owned).or_else(from_vars).or_else(beside)
}

/// The handle of a file that must be there.
pub fn read(file: &Path) -> Result<Handle, Failure> {
    let shown = file.display();
    let unreadable = |error| Failure::usage(format!("the handle `{shown}` cannot be read")).because(error);
    files::require_private(file).map_err(unreadable)?;
    let text = door::secret_file(file, "the handle")?;
    Handle::parse(text).ok_or_else(|| {
        Failure::usage(format!("`{shown}` holds no handle"))
            .help("name the file that `dayfly token` keeps the handle in; if it is damaged, delete it")
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn placed(out: Option<&str>, task_file: Option<&str>, vars: &Vars) -> Option<PathBuf> {
        use clap::Parser;
        let mut line = vec!["dayfly", "token"];
        line.extend(out.map(|out| ["--out", out]).iter().flatten());
        line.extend(task_file.map(|file| ["--task-file", file]).iter().flatten());
        match crate::cli::args::Cli::try_parse_from(line).unwrap().verb {
            crate::cli::args::Verb::Token(args) => place(args.task_file.as_deref(), args.out_file(), vars),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_handle_is_256_random_bits_that_debug_does_not_show() {
        let (one, other) = (Handle::make().unwrap(), Handle::make().unwrap());
        assert_ne!(one.expose(), other.expose());
        assert_eq!((one.expose().len(), one.s256().len()), (47, 43));
        assert_eq!(format!("{one:?}"), "Handle([redacted])");
        assert!(Handle::parse(one.into_bearer()).is_some());
    }

    #[test]
    fn the_hash_is_over_the_ascii_with_its_prefix() {
        let handle = Handle::parse(Secret::new(format!("dtc_{}", "A".repeat(43)))).unwrap();
        let expected = ring::digest::digest(&ring::digest::SHA256, format!("dtc_{}", "A".repeat(43)).as_bytes());
        assert_eq!(URL_SAFE_NO_PAD.decode(handle.s256()).unwrap(), expected.as_ref());
    }

    #[test]
    fn a_kept_handle_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.task");
        let handle = Handle::make().unwrap();
        files::write_atomic(&file, handle.expose().as_bytes(), 0o600).unwrap();
        assert_eq!(read(&file).unwrap().expose(), handle.expose());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&file).is_err());
    }

    #[test]
    fn a_file_that_holds_something_else_is_never_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("t.task");
        for bad in ["eyJhbGciOiJFUzI1NiJ9.e30.x", "dtc_short", "DTC_AAAA", &format!("dtc_{}", "=".repeat(43))] {
            files::write_atomic(&file, bad.as_bytes(), 0o600).unwrap();
            let failure = read(&file).unwrap_err();
            assert!(!failure.text("error").contains(bad));
        }
    }

    #[test]
    fn an_option_beats_the_variable_and_the_variable_beats_the_place_beside_the_token() {
        let vars = Vars::given(&[("DAYFLY_TASK_FILE", "/v")]);
        assert_eq!(placed(Some("F"), Some("/o"), &vars), Some("/o".into()));
        assert_eq!(placed(Some("F"), None, &vars), Some("/v".into()));
        assert_eq!(placed(Some("d/F"), None, &Vars::given(&[])), Some("d/F.task".into()));
        assert_eq!(placed(None, None, &Vars::given(&[])), None);
        assert_eq!(placed(Some("-"), None, &Vars::given(&[])), None);
    }
}
