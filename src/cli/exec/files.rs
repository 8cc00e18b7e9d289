//! The files of a job: a folder of mode 0700 in memory where there is such, files of mode 0600, all
//! gone when it is dropped. In: what the job holds. Out: the paths that its command is told.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::{
    cli::{
        failure::Failure,
        session::Vars,
        token::{deliver, handle::Handle},
    },
    http::shapes::TokenAnswer,
    sys::files,
};

/// Removed with all that is in it when it is dropped.
#[derive(Debug)]
pub struct Folder(TempDir);

/// File systems that are memory (linux/magic.h).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

impl Folder {
    /// In `$XDG_RUNTIME_DIR` or `/dev/shm`, if that is memory; otherwise among the temporary files.
    pub fn make(vars: &Vars) -> Result<Self, Failure> {
        let runtime = vars.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let in_memory = [runtime, Some("/dev/shm".into())].into_iter().flatten().filter(|dir| is_memory(dir));
        for dir in in_memory {
            if let Ok(made) = private(Some(&dir)) {
                return Ok(Self(made));
            }
        }
        let made =
            private(None).map_err(|error| Failure::failed("there is no place for the job's files").because(error));
        made.map(Self)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn token(&self) -> PathBuf {
        self.path().join("token")
    }

    pub fn handle(&self) -> PathBuf {
        self.path().join("task")
    }

    /// Where a key is made, if the job brought none and needs one.
    pub fn key(&self) -> PathBuf {
        self.path().join("dpop.pem")
    }

    /// In place and at once: whoever reads sees the old token or the new one, whole.
    pub fn put_token(&self, answer: &TokenAnswer) -> Result<(), Failure> {
        deliver::write(&self.token(), answer)
    }

    pub fn put_handle(&self, handle: &Handle) -> Result<(), Failure> {
        let line = Zeroizing::new(format!("{}\n", handle.expose()));
        files::write_atomic(&self.handle(), line.as_bytes(), 0o600)
            .map_err(|error| Failure::failed("the handle cannot be kept, so no task is opened").because(error))
    }

    /// Says what stays, if something does.
    pub fn remove(self) -> Result<(), Failure> {
        let shown = self.path().display().to_string();
        self.0.close().map_err(|error| Failure::failed(format!("`{shown}` stays")).because(error))
    }
}

fn private(dir: Option<&Path>) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("dayfly-exec-").permissions(Permissions::from_mode(0o700));
    let made = dir.map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir))?;
    // Whatever the umask took away.
    files::set_mode(made.path(), 0o700)?;
    Ok(made)
}

fn is_memory(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|found| matches!(found.f_type as u64 & 0xffff_ffff, TMPFS | RAMFS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_folder_is_0700_its_files_0600_and_all_go() {
        let folder = Folder::make(&Vars::given(&[])).unwrap();
        folder.put_handle(&Handle::make().unwrap()).unwrap();
        folder.put_token(&serde_json::from_value(samples::issued(1)).unwrap()).unwrap();
        assert_eq!((mode(folder.path()), mode(&folder.token()), mode(&folder.handle())), (0o700, 0o600, 0o600));
        assert!(folder.path().is_absolute());
        let path = folder.path().to_owned();
        folder.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_files_are_in_memory_where_there_is_such() {
        if !is_memory(Path::new("/dev/shm")) {
            return;
        }
        let on_disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let runtime = tempfile::tempdir_in("/dev/shm").unwrap();
        for (given, expected) in [
            (runtime.path().to_str().unwrap(), runtime.path()),
            ("relative", Path::new("/dev/shm")),
            ("/nowhere", Path::new("/dev/shm")),
            (
                on_disk.path().to_str().unwrap(),
                if is_memory(on_disk.path()) { on_disk.path() } else { Path::new("/dev/shm") },
            ),
        ] {
            let folder = Folder::make(&Vars::given(&[("XDG_RUNTIME_DIR", given)])).unwrap();
            assert_eq!(folder.path().parent(), Some(expected), "{given}");
        }
    }
}
