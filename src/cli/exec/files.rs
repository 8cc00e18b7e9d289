//! The files of a job: a folder of mode 0700 in memory where there is such, files of mode 0600, all
//! gone when it is dropped. In: what the job holds. Out: the paths that its command is told.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
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

/// Removed with all that is in it when it is dropped. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    _lock: File,
}

/// How the folders of all jobs begin.
const PREFIX: &str = "dayfly-exec-";
const LOCK: &str = "lock";

/// File systems that are memory (linux/magic.h).
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

impl Folder {
    /// In `$XDG_RUNTIME_DIR` or `/dev/shm`, if that is memory; otherwise among the temporary files.
    pub fn make(vars: &Vars) -> Result<Self, Failure> {
        let runtime = vars.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
        let in_memory = [runtime, Some("/dev/shm".into())].into_iter().flatten().filter(|dir| is_memory(dir));
        for dir in in_memory {
            sweep(&dir);
            if let Ok(made) = Self::private(Some(&dir)) {
                return Ok(made);
            }
        }
        sweep(&std::env::temp_dir());
        Self::private(None).map_err(|error| Failure::failed("there is no place for the job's files").because(error))
    }

    fn private(within: Option<&Path>) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700));
        let dir = within.map_or_else(|| builder.tempdir(), |within| builder.tempdir_in(within))?;
        // Whatever the umask took away.
        files::set_mode(dir.path(), 0o700)?;
        let mut lock = OpenOptions::new().create_new(true).write(true).mode(0o600).open(dir.path().join(LOCK))?;
        lock.lock()?;
        // Only what says so was ever held.
        lock.write_all(b"held\n")?;
        Ok(Self { dir, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
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
        self.dir.close().map_err(|error| Failure::failed(format!("`{shown}` stays")).because(error))
    }
}

/// Removes what jobs left that were killed: it is ours, was held, and nobody holds it any more.
fn sweep(within: &Path) {
    let Ok(found) = std::fs::read_dir(within) else { return };
    let ours = found.flatten().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for left in ours.map(|entry| entry.path()).filter(|path| is_left(path).unwrap_or(false)) {
        // What cannot be removed now is no worse than before.
        let _ = std::fs::remove_dir_all(left);
    }
}

fn is_left(dir: &Path) -> io::Result<bool> {
    let found = dir.symlink_metadata()?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    let lock = File::open(dir.join(LOCK))?;
    Ok(lock.metadata()?.len() > 0 && lock.try_lock().is_ok())
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
    fn what_a_killed_job_left_is_removed_and_what_a_live_one_holds_is_not() {
        let within = tempfile::tempdir().unwrap();
        let live = Folder::private(Some(within.path())).unwrap();
        let killed = Folder::private(Some(within.path())).unwrap();
        let left = killed.dir.keep();
        let others = within.path().join("other");
        let begun = within.path().join(format!("{PREFIX}begun"));
        for dir in [&others, &begun] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join(LOCK), "").unwrap();
        }
        std::os::unix::fs::symlink(live.path(), within.path().join(format!("{PREFIX}link"))).unwrap();
        drop(killed._lock);
        sweep(within.path());
        assert!(!left.exists() && live.path().exists() && others.exists() && begun.exists());
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
