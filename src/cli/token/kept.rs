//! The file of a task's handle, held by one call at a time: in comes its path, out goes what it keeps.
//!
//! A handle is all that can end its task, so none is lost here: what this call did not write, and
//! nobody showed to be over, stays. The lock is on the file itself and goes with the process.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::handle::{self, Handle};
use crate::cli::{failure::Failure, session::Screen};

/// Held until it is dropped.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    file: File,
    /// This call made the file.
    made: bool,
    before: Zeroizing<Vec<u8>>,
    written: Option<Zeroizing<Vec<u8>>>,
}

impl Kept {
    /// Waits while another call holds the file; makes it where there is none.
    pub fn hold(path: &Path, screen: &Screen) -> Result<Self, Failure> {
        loop {
            require_plain(path)?;
            let (file, made) = opened(path).map_err(|error| unkept(path, &error))?;
            wait(&file, path, screen).map_err(|error| unkept(path, &error))?;
            // Another call may have removed or replaced it meanwhile.
            if is_at(&file, path) {
                let mut kept = Self { path: path.to_owned(), file, made, before: Zeroizing::default(), written: None };
                kept.before = kept.content().map_err(|error| unkept(path, &error))?;
                return Ok(kept);
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The handle that is kept; an empty file keeps none.
    pub fn handle(&self) -> Result<Option<Handle>, Failure> {
        if self.before.is_empty() { Ok(None) } else { handle::read(&self.path).map(Some) }
    }

    /// Kept before it is sent: a crash after that loses no task. Only where none is kept, or its task
    /// is over.
    pub fn put(&mut self, handle: &Handle) -> Result<(), Failure> {
        let line = Zeroizing::new(format!("{}\n", handle.expose()).into_bytes());
        self.write(&line).map_err(|error| unkept(&self.path, &error))?;
        self.written = Some(line);
        Ok(())
    }

    /// The task of what was put was refused, so that a later `task end` should not find it: the file
    /// is again as it was. What this call did not write stays.
    pub fn take_back(&mut self) {
        let Some(written) = self.written.take() else { return };
        if !is_at(&self.file, &self.path) || !self.content().is_ok_and(|content| content == written) {
            return;
        }
        let before = self.before.clone();
        // What cannot be taken back does no harm: its handle is unknown. A file that is empty and was
        // made here goes when this is dropped.
        let _ = self.write(&before);
    }

    /// Whether `other` is this very file.
    pub fn is(&self, other: &Path) -> bool {
        is_at(&self.file, other)
    }

    fn content(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::default();
        self.file.rewind()?;
        (&self.file).take(1024).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(0o600))?;
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(bytes)?;
        self.file.sync_all()?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.made && self.file.metadata().is_ok_and(|found| found.len() == 0) && is_at(&self.file, &self.path) {
            // Nothing was kept after all.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A link, a folder, a pipe or a device is never written to, nor put away for a file.
pub fn require_plain(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let folder = path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    match path.symlink_metadata() {
        Ok(found) if found.is_file() && !folder => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !folder => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::usage(format!("`{shown}` cannot be written")).because(error))
        }
        _ => Err(Failure::usage(format!("`{shown}` is no plain file")).help("name a file, or a new one in a folder")),
    }
}

fn opened(path: &Path) -> io::Result<(File, bool)> {
    let new = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
    match new {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        new => return new.map(|file| (file, true)),
    }
    let there = OpenOptions::new().read(true).write(true).open(path);
    match there {
        // Good enough to renew with.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path).map(|file| (file, false)),
        there => there.map(|file| (file, false)),
    }
}

fn wait(file: &File, path: &Path, screen: &Screen) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => return Ok(()),
        Err(TryLockError::WouldBlock) => {
            screen.say(&format!("another `dayfly token` is at work with `{}`; waiting", path.display()));
        }
        Err(TryLockError::Error(error)) => return unless_unsupported(error),
    }
    file.lock().or_else(unless_unsupported)
}

/// A file system without locks still keeps handles.
fn unless_unsupported(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Unsupported { Ok(()) } else { Err(error) }
}

fn is_at(file: &File, path: &Path) -> bool {
    let found = path.symlink_metadata().and_then(|there| Ok((there, file.metadata()?)));
    found.is_ok_and(|(there, held)| (there.dev(), there.ino()) == (held.dev(), held.ino()))
}

fn unkept(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("the handle cannot be kept in `{}`, so no task is opened", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::mpsc, thread};

    use super::*;
    use crate::cli::session::test_session;

    fn hold(path: &Path) -> Result<Kept, Failure> {
        Kept::hold(path, &test_session().screen)
    }

    #[test]
    fn what_was_never_put_leaves_no_file_and_what_was_taken_back_neither() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.task");
        drop(hold(&path).unwrap());
        assert!(!path.exists());
        let mut kept = hold(&path).unwrap();
        kept.put(&Handle::make().unwrap()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        kept.take_back();
        drop(kept);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_was_there_is_never_removed_and_gets_its_handle_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.task");
        hold(&path).unwrap().put(&Handle::make().unwrap()).unwrap();
        let first = fs::read(&path).unwrap();
        let mut kept = hold(&path).unwrap();
        kept.put(&Handle::make().unwrap()).unwrap();
        assert_ne!(fs::read(&path).unwrap(), first);
        kept.take_back();
        drop(kept);
        assert_eq!(fs::read(&path).unwrap(), first);
    }

    #[test]
    fn what_someone_else_wrote_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.task");
        for replace in [true, false] {
            let mut kept = hold(&path).unwrap();
            kept.put(&Handle::make().unwrap()).unwrap();
            if replace {
                fs::remove_file(&path).unwrap();
            }
            fs::write(&path, "theirs").unwrap();
            kept.take_back();
            drop(kept);
            assert_eq!(fs::read(&path).unwrap(), b"theirs");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn two_calls_take_turns_and_the_second_sees_what_the_first_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.task");
        for refused in [false, true] {
            let _ = fs::remove_file(&path);
            let mut first = hold(&path).unwrap();
            let (done, second) = mpsc::channel();
            let other = path.clone();
            let waiter = thread::spawn(move || done.send(hold(&other).unwrap().handle().unwrap().is_some()));
            first.put(&Handle::make().unwrap()).unwrap();
            assert!(second.try_recv().is_err(), "it waits");
            if refused {
                first.take_back();
            }
            drop(first);
            assert_eq!(second.recv().unwrap(), !refused);
            waiter.join().unwrap().unwrap();
            assert_eq!(path.exists(), !refused);
        }
    }

    #[test]
    fn only_a_plain_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &link).unwrap();
        for bad in [dir.path(), &link, Path::new("/dev/full"), Path::new(""), &dir.path().join("new/")] {
            let failure = hold(bad).unwrap_err();
            assert!(failure.exit() == 2 && failure.text("error").contains("is no plain file"), "{failure:?}");
        }
        assert_eq!(hold(&dir.path().join("none/t")).unwrap_err().exit(), 1);
    }
}
