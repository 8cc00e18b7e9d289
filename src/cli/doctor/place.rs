//! What lies on the disk: the state folder with its files, the TLS pair, who may change the settings and
//! the bundle. Modes are looked at, never set.

use std::{
    io,
    path::{Path, PathBuf},
};

use dayfly_domain::UnixMs;

use super::finding::Finding;
use crate::{
    config::{SOCKET_NAME, Settings},
    mint::{KEYS_FILE, LIST_KEYS_FILE},
    run::DATABASE,
    sys::{
        files::{self, Held},
        net::{NetError, TlsFiles},
    },
};

/// What helps who may not look.
pub const AS_BROKER: &str =
    "run this as root, or as the broker's user: setpriv --reuid dayfly --regid dayfly --clear-groups dayfly doctor";

/// The folder's owner closed it to this user: nothing in it can be looked at, and nothing is known to be
/// wrong there.
pub fn closed(dir: &Path) -> Option<Finding> {
    closed_as(dir, files::held(&dir.join(DATABASE)).err().as_ref())
}

fn closed_as(dir: &Path, error: Option<&io::Error>) -> Option<Finding> {
    error.filter(|error| error.kind() == io::ErrorKind::PermissionDenied)?;
    let what = format!("cannot look into `{}`: it is closed to this user", dir.display());
    Some(Finding::wrong("state", what, AS_BROKER))
}

/// The folder and the files of a broker; nobody else may read them, and they have one owner.
pub fn state(dir: &Path) -> Vec<Finding> {
    let shown = dir.display();
    let folder = match files::held(dir) {
        Ok(Some(folder)) if folder.is_dir => folder,
        Ok(Some(_)) => {
            return vec![Finding::wrong(
                "state",
                format!("`{shown}` is not a folder"),
                "name another `state_dir` in the settings",
            )];
        }
        Ok(None) => return vec![absent(dir)],
        Err(error) => {
            return vec![Finding::wrong("state", format!("`{shown}`: {error}"), AS_BROKER)];
        }
    };
    let mut found = Vec::new();
    if folder.mode & 0o077 != 0 {
        let what = format!("`{shown}` has mode {:04o}; a start closes it to others", folder.mode);
        found.push(Finding::warning("state", what, format!("chmod 0700 {shown}")));
    }
    let names = [DATABASE, "dayfly.db-wal", "dayfly.db-shm", KEYS_FILE, LIST_KEYS_FILE, SOCKET_NAME, "lock"];
    let mut there = Vec::new();
    for path in names.iter().map(|name| dir.join(name)) {
        match files::held(&path) {
            Ok(Some(file)) => there.push((path, file)),
            Ok(None) => {}
            Err(error) => found.push(Finding::wrong("state", format!("`{}`: {error}", path.display()), AS_BROKER)),
        }
    }
    found.extend(there.iter().flat_map(|(path, file)| of_file(path, *file, folder)));
    found.extend(emptied(dir));
    if found.is_empty() {
        found.push(Finding::ok("state", format!("`{shown}`: {} files, their owner's alone", there.len())));
    }
    found
}

fn absent(dir: &Path) -> Finding {
    let shown = dir.display();
    match files::could_be_private_dir(dir) {
        Ok(()) => Finding::ok("state", format!("`{shown}` is not there; the first start makes it")),
        Err(error) => Finding::wrong(
            "state",
            format!("`{shown}` cannot be made: {error}"),
            format!("install -d -m 0700 -o dayfly -g dayfly {shown}"),
        ),
    }
}

fn of_file(path: &Path, file: Held, folder: Held) -> Vec<Finding> {
    let shown = path.display();
    let mut found = Vec::new();
    if file.mode & 0o077 != 0 {
        let what =
            format!("`{shown}` has mode {:04o}: others may read what is secret, and no start takes it", file.mode);
        found.push(Finding::wrong("state", what, format!("chmod 0600 {shown}")));
    }
    if (file.uid, file.gid) != (folder.uid, folder.gid) {
        let what =
            format!("`{shown}` belongs to {}:{}, its folder to {}:{}", file.uid, file.gid, folder.uid, folder.gid);
        found.push(Finding::wrong("state", what, format!("chown {}:{} {shown}", folder.uid, folder.gid)));
    }
    found
}

/// Keys or a log without their store: a start refuses that.
fn emptied(dir: &Path) -> Option<Finding> {
    let bytes = |name: &str| std::fs::metadata(dir.join(name)).map_or(0, |file| file.len());
    let lost = bytes(DATABASE) == 0 && (bytes(KEYS_FILE) > 0 || bytes("dayfly.db-wal") > 0);
    lost.then(|| {
        let what = format!("`{}` holds keys or a log, but its store is gone: no start takes it", dir.display());
        Finding::wrong("state", what, "put the store back, or read `From nothing` in docs/RUNBOOK.md")
    })
}

/// When a file of the folder was last written.
pub fn last_written(dir: &Path) -> Option<UnixMs> {
    let names = [DATABASE, "dayfly.db-wal", KEYS_FILE];
    names.iter().filter_map(|name| files::held(&dir.join(name)).ok().flatten()).map(|file| file.written).max()
}

/// The listener's certificate and key.
pub fn tls(settings: &Settings, now: UnixMs) -> Vec<Finding> {
    let pair = TlsFiles { cert_file: settings.tls.cert_file.clone(), key_file: settings.tls.key_file.clone() };
    let cert = settings.tls.cert_file.display();
    let renew = format!(
        "put a new certificate in `{cert}` and its key in `{}`, then: systemctl reload dayfly",
        settings.tls.key_file.display()
    );
    let certified = match pair.load(now) {
        Ok(certified) => certified,
        Err(error) => {
            let mend = match &error {
                NetError::File { .. } if error.to_string().contains("chmod") => {
                    format!("chmod 0600 {}", settings.tls.key_file.display())
                }
                NetError::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                    unreadable(settings)
                }
                NetError::NotYet(_) => "timedatectl   # is the machine's clock right?".to_owned(),
                _ => renew,
            };
            return vec![Finding::wrong("tls", error.to_string(), mend)];
        }
    };
    let mut found = Vec::new();
    if certified.life.is_short(now) {
        found.push(Finding::warning("tls", format!("`{cert}` expires at {}", certified.life.until), renew.clone()));
    }
    if certified.is_authority {
        let what = format!("`{cert}` is a CA's own: some clients refuse it as a server's (`CaUsedAsEndEntity`)");
        found.push(Finding::warning(
            "tls",
            what,
            "have a certificate with `basicConstraints = CA:FALSE` issued for the broker",
        ));
    }
    let host = host_of(&settings.issuer);
    match pair.chain(&host) {
        Ok(chain) => {
            if !chain.names_host {
                let what = format!("`{cert}` is not for `{host}`, the host of `issuer`: clients refuse it");
                found.push(Finding::wrong(
                    "tls",
                    what,
                    format!("openssl x509 -in {cert} -noout -ext subjectAltName   # then have one issued for {host}"),
                ));
            }
            if !chain.is_in_order {
                let what = format!("the certificates in `{cert}` are not in order: each must be issued by the next");
                found.push(Finding::wrong("tls", what, format!("cat leaf.pem intermediate.pem > {cert}")));
            }
        }
        Err(error) => found.push(Finding::wrong("tls", error.to_string(), renew)),
    }
    if found.is_empty() {
        found.push(Finding::ok("tls", format!("`{cert}` is for `{host}` until {}", certified.life.until)));
    }
    found
}

/// Who cannot even look into the state folder is not the broker; the broker must be let at its key.
fn unreadable(settings: &Settings) -> String {
    let owner = files::held(&settings.state_dir).ok().flatten();
    match (closed(&settings.state_dir), owner) {
        (None, Some(owner)) => {
            let key = settings.tls.key_file.display();
            format!("chown {}:{} {key} && chmod 0600 {key}", owner.uid, owner.gid)
        }
        _ => AS_BROKER.to_owned(),
    }
}

/// The host of an `https` URL, without port and brackets.
fn host_of(url: &str) -> String {
    let authority = url.trim_start_matches("https://").split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address.to_owned(),
        None => authority.split(':').next().unwrap_or_default().to_owned(),
    }
}

/// Settings and bundle decide everything: nobody but their owners may write them.
pub fn writable(paths: &[PathBuf]) -> Vec<Finding> {
    let open = |path: &PathBuf| {
        let held = files::held(path).ok().flatten()?;
        (held.mode & 0o002 != 0 && held.mode & 0o1000 == 0).then(|| {
            let shown = path.display();
            let what =
                format!("`{shown}` has mode {:04o}: anybody on this machine can change who is trusted", held.mode);
            Finding::wrong("trust", what, format!("chmod o-w {shown}"))
        })
    };
    paths.iter().filter_map(open).collect()
}

#[cfg(test)]
mod tests;
