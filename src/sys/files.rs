//! Files: read whole trees, write whole files, keep private what is private.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use dayfly_domain::UnixMs;

/// One file of a tree, by its path below the top, with `/` between the parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    pub path: String,
    pub bytes: Vec<u8>,
}

/// One file that is read whole.
pub const FILE_MAX_BYTES: u64 = 4 << 20;
/// Files of one tree.
pub const TREE_MAX_FILES: usize = 10_000;
/// All files of one tree together.
pub const TREE_MAX_BYTES: usize = 64 << 20;
/// Folders in folders.
pub const TREE_MAX_DEPTH: usize = 16;
/// Folders of one tree; a link may lead to what was seen before.
pub const TREE_MAX_FOLDERS: usize = 1_000;

/// Every file below `top` whose name ends in one of `extensions`, sorted by path. Names that
/// begin with `.` are passed over (editors, `..data` of Kubernetes); links are followed.
pub fn read_tree(top: &Path, extensions: &[&str]) -> io::Result<Vec<SourceFile>> {
    let mut tree = Tree::default();
    collect(top, "", extensions, 0, &mut tree)?;
    tree.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(tree.found)
}

#[derive(Default)]
struct Tree {
    folders: usize,
    found: Vec<SourceFile>,
}

// SECURITY: `folders_that_link_to_each_other_come_to_an_end`
fn collect(dir: &Path, prefix: &str, extensions: &[&str], depth: usize, tree: &mut Tree) -> io::Result<()> {
    tree.folders += 1;
    if depth > TREE_MAX_DEPTH || tree.folders > TREE_MAX_FOLDERS {
        return Err(io::Error::other(format!("`{}` is nested too deeply, or in too many folders", dir.display())));
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| io::Error::other("a file name is not UTF-8"))?;
        if name.starts_with('.') {
            continue;
        }
        let path = entry.path();
        let below = format!("{prefix}{name}");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("`{below}`: {error}"));
        if fs::metadata(&path).map_err(named)?.is_dir() {
            collect(&path, &format!("{below}/"), extensions, depth + 1, tree)?;
        } else if extensions.iter().any(|extension| name.ends_with(extension)) {
            if tree.found.len() >= TREE_MAX_FILES {
                return Err(io::Error::other("too many files"));
            }
            let named = |error: io::Error| io::Error::new(error.kind(), format!("`{below}`: {error}"));
            let bytes = read_capped(&path).map_err(named)?;
            if tree.found.iter().map(|file| file.bytes.len()).sum::<usize>() + bytes.len() > TREE_MAX_BYTES {
                return Err(io::Error::other("its files are larger than 64 MiB together"));
            }
            tree.found.push(SourceFile { path: below, bytes });
        }
    }
    Ok(())
}

/// Where a folder really lies, and where its `..data` leads: the link that Kubernetes swaps for all
/// files of a mount at once. A checkout that takes the place of another changes this, an edit does not.
pub fn resolved(top: &Path) -> String {
    let place = |path: &Path| match fs::canonicalize(path) {
        Ok(place) => place.display().to_string(),
        Err(error) => format!("{:?}", error.kind()),
    };
    format!("{}\n{}", place(top), place(&top.join("..data")))
}

/// A whole file of at most 4 MiB. A pipe or a device is no file: reading one could last for ever.
pub fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let no_wait = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!("`{}` is no plain file", path.display())));
    }
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(io::Error::other(format!("`{}` is larger than 4 MiB", path.display())));
    }
    Ok(bytes)
}

/// Writes a file whole or not at all: temporary file beside it, mode before content, fsync,
/// rename, fsync of the folder.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_atomic_as(path, bytes, mode, None)
}

/// The same for files that belong together: none is replaced before all are on the disk. Between the renames
/// a reader may find some old and some new.
pub fn write_together(all: &[(&Path, &[u8])], mode: u32) -> io::Result<()> {
    let written = all.iter().map(|(path, bytes)| Ok((unnamed(path, bytes, mode, None)?, *path)));
    for (file, path) in written.collect::<io::Result<Vec<_>>>()? {
        named(file, path)?;
    }
    Ok(())
}

fn write_atomic_as(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    named(unnamed(path, bytes, mode, owner)?, path)
}

fn unnamed(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".dayfly-").tempfile_in(folder_of(path))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(file.as_file(), Some(uid), Some(gid))?;
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn named(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file anew, whole or not at all, if it still holds `before`. Mode and owner stay; a link stays
/// one, and what it leads to is written.
pub fn rewrite(path: &Path, before: &[u8], after: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let found = fs::metadata(&path)?;
    if read_capped(&path)? != before {
        return Err(io::Error::other("it was changed by someone else meanwhile"));
    }
    write_atomic_as(&path, after, found.permissions().mode() & 0o7777, Some((found.uid(), found.gid())))
}

/// Writes a file that is not there yet: whole, or it is said what is wrong. What is there is never written
/// over.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let file = unnamed(path, bytes, mode, None)?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder_of(path))?.sync_all()
}

/// Sets the mode of what is there.
pub fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Makes a folder with its parents, open as the process's umask says; an existing one is left as it is.
pub fn open_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// What is in a folder, by name. A name that is no UTF-8 is none of ours.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Removes a file; one that is gone already is gone.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a folder of mode 0700 with its parents; an existing one is left as it is.
pub fn private_dir(path: &Path) -> io::Result<()> {
    if !path.exists() {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Takes a folder's mode down to 0700 if others may do anything there. Whose folder it is not is told to
/// do it. `true`: it was open.
pub fn close_to_others(path: &Path) -> io::Result<bool> {
    let open = is_open(path)?;
    if open {
        set_mode(path, 0o700)?;
    }
    Ok(open)
}

/// Whether others may do anything in a folder, which then has to be ours to close.
fn is_open(path: &Path) -> io::Result<bool> {
    let found = fs::metadata(path)?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    if found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(true);
    }
    let text =
        format!("it has mode {mode:04o} and another owner: chmod 0700 it, or name a folder in it, which is made");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Refuses what [`private_dir`] and [`close_to_others`] would fail on, and makes nothing.
pub fn could_be_private_dir(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let named = |why: &dyn std::fmt::Display| format!("`{}` {why}", there.display());
    if !fs::metadata(there)?.is_dir() {
        return Err(io::Error::other(named(&"is not a folder")));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| io::Error::new(error.kind(), named(&format!("cannot be written: {error}"))))?;
    if there == path { is_open(there).map(drop) } else { Ok(()) }
}

/// Refuses a file that anyone but its owner may read or write.
pub fn require_private(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let text = format!("`{}` has mode {mode:04o}, but holds secrets: chmod 0600 it", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// What is left on the file system of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// For others than root.
    pub free_bytes: u64,
    pub bytes: u64,
    pub free_inodes: u64,
    /// 0: this file system has no such limit.
    pub inodes: u64,
    pub is_read_only: bool,
}

pub fn space(path: &Path) -> io::Result<Space> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Space {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free_inodes: found.f_favail,
        inodes: found.f_files,
        is_read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// Who may do what with a file, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The twelve bits of `chmod`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub is_dir: bool,
    pub written: UnixMs,
}

/// `None` where there is nothing.
pub fn held(path: &Path) -> io::Result<Option<Held>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(Held {
            mode: found.permissions().mode() & 0o7777,
            uid: found.uid(),
            gid: found.gid(),
            is_dir: found.is_dir(),
            written: UnixMs::new(found.mtime().saturating_mul(1000)),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of a small file of the kernel's (`/proc`), which has no size.
pub fn read_text(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// How many files this process may have open: its soft limit, raised towards `wanted` as far as
/// its hard limit lets it.
pub fn open_files(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    let raised = wanted.min(hard);
    if soft >= raised {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}

/// Held while a process owns a state folder. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
    pub path: PathBuf,
}

/// Takes `dir/lock`; `WouldBlock` when another process holds it.
pub fn lock_state(dir: &Path) -> io::Result<StateLock> {
    lock(&dir.join("lock"))
}

/// The same by another file.
pub fn lock(path: &Path) -> io::Result<StateLock> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(StateLock { _file: file, path: path.to_owned() }),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_pipe_is_no_file_and_nothing_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        mknodat(CWD, dir.path().join("a.toml"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let error = read_tree(dir.path(), &[".toml"]).unwrap_err().to_string();
        assert!(error.contains("a.toml") && error.contains("no plain file"), "{error}");
    }

    #[test]
    fn a_tree_is_bounded_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..=TREE_MAX_BYTES as u64 / FILE_MAX_BYTES {
            let file = File::create(dir.path().join(format!("{number}.toml"))).unwrap();
            file.set_len(FILE_MAX_BYTES).unwrap();
        }
        assert!(read_tree(dir.path(), &[".toml"]).unwrap_err().to_string().contains("64 MiB"));
    }

    #[test]
    fn a_folder_that_others_may_use_is_closed_to_them() {
        let dir = tempfile::tempdir().unwrap();
        for mode in [0o755, 0o770, 0o701] {
            set_mode(dir.path(), mode).unwrap();
            could_be_private_dir(dir.path()).unwrap();
            assert!(close_to_others(dir.path()).unwrap(), "{mode:o}");
            assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o7777, 0o700);
        }
        assert!(!close_to_others(dir.path()).unwrap());
    }

    #[test]
    fn where_no_folder_can_be_made_is_said_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let below = could_be_private_dir(&dir.path().join("file/state")).unwrap_err().to_string();
        assert!(below.contains("file` is not a folder"), "{below}");
        assert!(could_be_private_dir(&dir.path().join("file")).is_err());
        could_be_private_dir(&dir.path().join("a/b")).unwrap();
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn folders_that_link_to_each_other_come_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::os::unix::fs::symlink(".", dir.path().join(name)).unwrap();
        }
        assert!(read_tree(dir.path(), &[".toml"]).unwrap_err().to_string().contains("too many folders"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("b.toml")).unwrap();
        assert!(read_tree(dir.path(), &[".toml"]).unwrap_err().to_string().contains("b.toml"));
    }

    #[test]
    fn what_is_written_anew_keeps_its_mode_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "one").unwrap();
        set_mode(&file, 0o640).unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        rewrite(&link, b"one", b"two").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
        let error = rewrite(&link, b"one", b"three").unwrap_err().to_string();
        assert!(error.contains("meanwhile"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), b"two");
    }

    #[test]
    fn what_is_there_is_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("once");
        write_new(&path, b"one", 0o600).unwrap();
        assert_eq!(write_new(&path, b"two", 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&path).unwrap().as_slice(), fs::read_dir(dir.path()).unwrap().count()), (&b"one"[..], 1));
    }

    #[test]
    fn what_is_written_whole_is_private_from_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let other = dir.path().join("no/such/folder");
        assert!(write_together(&[(&path, b"new"), (&other, b"new")], 0o600).is_err());
        assert!(!path.exists(), "one that cannot be written keeps the others back");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        write_atomic(&path, b"one", 0o600).unwrap();
        write_atomic(&path, b"two", 0o600).unwrap();
        assert_eq!(read_capped(&path).unwrap(), b"two");
        require_private(&path).unwrap();
        set_mode(&path, 0o640).unwrap();
        assert_eq!(require_private(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
