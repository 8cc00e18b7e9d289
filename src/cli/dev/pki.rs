//! The authority of a development broker: in memory, or in its folder with the seal key beside it. Nobody
//! keeps its root: when the area CA is nearly over, all of it is made anew.

use std::{path::Path, sync::Arc};

use dayfly_domain::UnixMs;

use crate::{
    cli::failure::Failure,
    mint::pki::{Ceremony, Folder, Pki, PkiError, Places, SealKey},
    sys::files,
};

/// Names below the folder.
const FOLDER: &str = "pki";
const SEAL: &str = "dev-pki.seal";
/// An area CA that is over before this is not worth a start.
const LEAST_S: i64 = 7 * 86_400;

/// `dir`: the folder of `--state`; absent: it lives and dies with the process.
pub fn authority(dir: Option<&Path>, trust_domain: &str, url: String, now: UnixMs) -> Result<Pki, Failure> {
    let places = Places { base: url };
    let made = match dir {
        None => Pki::in_memory(trust_domain, places, now),
        Some(dir) => kept(dir, trust_domain, places, now),
    };
    made.map_err(|error| {
        let failure = Failure::failed("the authority cannot be used").because(error);
        match dir {
            Some(dir) => failure.help(format!("remove `{}`: another is made", dir.join(FOLDER).display())),
            None => failure,
        }
    })
}

fn kept(dir: &Path, trust_domain: &str, places: Places, now: UnixMs) -> Result<Pki, PkiError> {
    let folder = Folder { dir: dir.join(FOLDER), seal: Arc::new(seal_key(&dir.join(SEAL))?), token: None };
    match Pki::open(folder.clone(), places.clone(), now) {
        Ok(pki) if pki.authority().trust_domain == trust_domain && pki.area().not_after() > now.plus_s(LEAST_S) => {
            return Ok(pki);
        }
        Ok(pki) if pki.authority().trust_domain != trust_domain => {
            let what =
                format!("it is that of `{}`, and the bundle's is `{trust_domain}`", pki.authority().trust_domain);
            return Err(PkiError::Refused(what));
        }
        Ok(_) | Err(PkiError::Missing(_)) => {}
        Err(error) => return Err(error),
    }
    let ceremony = Ceremony { trust_domain, places: &places, dns: &[], now, by: "dayfly dev" };
    ceremony.without_root(&folder)?;
    Pki::open(folder, places, now)
}

fn seal_key(file: &Path) -> Result<SealKey, PkiError> {
    let failed = |source| PkiError::File { path: file.to_owned(), source };
    if !file.exists() {
        files::write_new(file, SealKey::generate()?.as_bytes(), 0o600).map_err(failed)?;
    }
    files::require_private(file).map_err(failed)?;
    SealKey::parse(&files::read_capped(file).map_err(failed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    #[test]
    fn a_restart_finds_the_same_authority_and_another_when_it_is_nearly_over() {
        let dir = tempfile::tempdir().unwrap();
        let at = |now: UnixMs, domain: &str| authority(Some(dir.path()), domain, "http://127.0.0.1:1".to_owned(), now);
        let first = at(NOW, "example.org").unwrap();
        first.rotate(NOW).unwrap().unwrap();
        let again = at(NOW.plus_s(80 * 86_400), "example.org").unwrap();
        assert_eq!((first.root(), first.area().id().clone()), (again.root(), again.area().id().clone()));
        let other = at(NOW.plus_s(84 * 86_400), "example.org").unwrap();
        assert_ne!(first.area().id(), other.area().id());
        assert_eq!(other.sequence(), 2, "whoever keeps the bundle sees another root");
        assert!(at(NOW, "other.example").unwrap_err().text("error").contains("example.org"));
    }
}
