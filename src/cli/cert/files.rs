//! A certificate in files. In: a key, its chain, the roots. Out: one file or three, each replaced whole and
//! readable by their owner alone, or nothing.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::keys::LeafKey;
use crate::{
    cli::{
        args::Layout,
        failure::Failure,
        proof::pem,
        token::{Kept, deliver},
    },
    sys::files,
};

/// Where it goes.
#[derive(Debug, Clone)]
pub struct Files {
    out: PathBuf,
    layout: Layout,
}

const CERTIFICATE: &str = "CERTIFICATE";

impl Files {
    pub fn new(out: &Path, layout: Layout) -> Self {
        Self { out: out.to_owned(), layout }
    }

    /// Whether they can be written at all: asked before anything is.
    pub fn check(&self) -> Result<(), Failure> {
        if self.out == Path::new("-") {
            return Err(Failure::usage("a certificate and its key go into files, not to stdout"));
        }
        self.paths().iter().try_for_each(|(_, path)| deliver::check(Some(path), "certificate"))
    }

    /// The handle has a file of its own.
    pub fn check_apart(&self, kept: &Kept) -> Result<(), Failure> {
        match self.paths().into_iter().find(|(_, path)| kept.is(path)) {
            None => Ok(()),
            Some((_, path)) => {
                Err(Failure::usage(format!("`{}` would hold both the certificate and the handle", path.display()))
                    .help(format!("name another file than `{}` with --task-file", kept.path().display())))
            }
        }
    }

    pub fn wants_roots(&self) -> bool {
        self.layout == Layout::Split
    }

    /// Replaces what is there. `chain`: as the broker sent it, PEM, the leaf first.
    // SECURITY: `a_certificate_for_another_key_replaces_nothing`
    pub fn put(&self, key: &LeafKey, chain: &str, roots: &[CertificateDer<'_>]) -> Result<(), Failure> {
        let chain = parsed(chain)?;
        if !chain.first().is_some_and(|leaf| key.fits(leaf)) {
            return Err(Failure::failed("what the broker sent is no certificate for the key that was made"));
        }
        let (key, chain) = (key.pem(), text(&chain));
        let texts = match self.layout {
            Layout::Bundle => vec![Zeroizing::new([key.as_str(), &chain].concat())],
            Layout::Split => vec![key, Zeroizing::new(chain), Zeroizing::new(text(roots))],
        };
        let paths = self.paths();
        let all: Vec<_> = paths.iter().zip(&texts).map(|((_, path), text)| (path.as_path(), text.as_bytes())).collect();
        files::write_together(&all, 0o600).map_err(|error| {
            Failure::failed(format!("the certificate cannot be written to `{}`", self.shown())).because(error)
        })
    }

    /// A dead certificate serves nobody.
    pub fn remove(&self) {
        for (_, path) in self.paths() {
            // One that is gone already is what we want.
            let _ = files::remove(&path);
        }
    }

    /// What a document calls them, and where they are.
    pub fn named(&self) -> Vec<(&'static str, Value)> {
        self.paths().into_iter().map(|(name, path)| (name, json!(path.display().to_string()))).collect()
    }

    /// The one with the certificate.
    pub fn shown(&self) -> String {
        let paths = self.paths();
        let named = paths.iter().find(|(name, _)| *name == "certificate_file").or(paths.first());
        named.map(|(_, path)| path.display().to_string()).unwrap_or_default()
    }

    fn paths(&self) -> Vec<(&'static str, PathBuf)> {
        let beside = |end: &str| {
            let mut name = OsString::from(&self.out);
            name.push(end);
            PathBuf::from(name)
        };
        match self.layout {
            Layout::Bundle => vec![("bundle_file", self.out.clone())],
            Layout::Split => {
                vec![("key_file", beside(".key")), ("certificate_file", beside(".crt")), ("ca_file", beside(".ca"))]
            }
        }
    }
}

/// The one name of a leaf, for people's eyes.
pub fn spiffe_id(chain: &str) -> Option<String> {
    let leaf = parsed(chain).ok()?.into_iter().next()?;
    let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

/// Certificates only: whatever else is in it does not get into our files.
fn parsed(pem: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.map_err(|error| Failure::failed("what the broker sent is no chain of certificates").because(error))
}

fn text(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| pem(CERTIFICATE, der).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::cert::{Keys, tests::signed};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn read(path: PathBuf) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn labels(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----")).collect()
    }

    #[test]
    fn a_bundle_is_key_leaf_and_intermediates_in_one_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("tls.pem");
        std::fs::write(&out, "old").unwrap();
        std::fs::set_permissions(&out, PermissionsExt::from_mode(0o644)).unwrap();
        let (keys, files) = (Keys::default(), Files::new(&out, Layout::Bundle));
        let chain = signed(&keys.request().unwrap());
        files.put(&keys.take().unwrap(), &chain, &[]).unwrap();
        assert_eq!(labels(&read(out.clone())), [PRIVATE, CERTIFICATE, CERTIFICATE]);
        assert_eq!(mode(&out), 0o600);
        assert!(read(out.clone()).ends_with(&chain), "as it was sent");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no other file stays");
        files.remove();
        assert!(!out.exists());
    }

    const PRIVATE: &str = crate::cli::proof::PRIVATE_KEY;

    #[test]
    fn split_is_three_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (keys, files) = (Keys::default(), Files::new(&at("tls"), Layout::Split));
        let chain = signed(&keys.request().unwrap());
        let root = parsed(&chain).unwrap().remove(1);
        files.put(&keys.take().unwrap(), &chain, &[root]).unwrap();
        assert_eq!(labels(&read(at("tls.key"))), [PRIVATE]);
        assert_eq!(labels(&read(at("tls.crt"))), [CERTIFICATE, CERTIFICATE]);
        assert_eq!(labels(&read(at("tls.ca"))), [CERTIFICATE]);
        assert!(["tls.key", "tls.crt", "tls.ca"].iter().all(|name| mode(&at(name)) == 0o600));
        assert_eq!(files.shown(), at("tls.crt").display().to_string());
    }

    #[test]
    fn a_certificate_for_another_key_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("tls.pem");
        std::fs::write(&out, "old").unwrap();
        let (keys, files) = (Keys::default(), Files::new(&out, Layout::Bundle));
        let theirs = signed(&Keys::default().request().unwrap());
        keys.request().unwrap();
        let key = keys.take().unwrap();
        for bad in [theirs.as_str(), "", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(files.put(&key, bad, &[]).is_err());
            assert_eq!(read(out.clone()), "old");
        }
    }

    #[test]
    fn what_is_no_certificate_does_not_get_into_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("tls.pem");
        let (keys, files) = (Keys::default(), Files::new(&out, Layout::Bundle));
        let chain = signed(&keys.request().unwrap());
        let stuffed = format!("ssl_verify_client off;\n{chain}# more\n");
        files.put(&keys.take().unwrap(), &stuffed, &[]).unwrap();
        assert!(read(out.clone()).ends_with(&chain) && !read(out).contains("off;"));
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let check = |out: &Path| Files::new(out, Layout::Split).check().map_err(|failure| failure.exit());
        assert_eq!(check(&dir.path().join("tls")), Ok(()));
        assert_eq!(check(&dir.path().join("none/tls")), Err(1));
        assert_eq!(check(Path::new("-")), Err(2));
    }
}
