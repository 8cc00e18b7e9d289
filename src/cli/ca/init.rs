//! `dayfly ca init` and `dayfly ca import`: the ceremonies. Settings and a passphrase in; files and a
//! transcript out.

use std::{
    io,
    path::{Path, PathBuf},
};

use dayfly_domain::BindingKind;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};

use super::passphrase::passphrase;
use crate::{
    cli::{
        args::{CaImportArgs, CaInitArgs},
        failure::Failure,
        session::Session,
        settings,
    },
    config::{self, Settings},
    flow::{BundleSource, Folder as Bundle},
    mint::pki::{CaId, Ceremony, Folder, PkiError, Places, RootKey, Transcript, may_hold_root, pem},
    policy::BundleEnv,
    run::{self, PkiSettingsError},
    sys::{files, host},
};

/// What every ceremony stands on.
struct Table {
    settings: Settings,
    pki: config::Pki,
    folder: Folder,
    places: Places,
    trust_domain: String,
    by: String,
}

impl Table {
    fn lay(config: Option<&Path>, trust_domain: Option<&String>, session: &Session) -> Result<Self, Failure> {
        let (file, settings) = settings::require(config, &session.vars)?;
        crate::cli::serve::own_crypto()?;
        let lines =
            "add `[pki]` to them: `url = \"http://pki.example.org\"` and `seal = \"file:/etc/dayfly/seal.key\"`";
        let missing = || Failure::usage(format!("the settings `{}` name no authority", file.display())).help(lines);
        let pki = settings.pki.clone().ok_or_else(missing)?;
        let opened = run::pki_folder(&settings, &pki);
        let (folder, places) = opened.map_err(|error| {
            let help = match &error {
                PkiSettingsError::Token(_) => "build it with `--features pkcs11`, or take `pki.area_key` out",
                PkiSettingsError::Pin { .. } | PkiSettingsError::NoPin(_) => {
                    "the PIN is one line: mode 0600, the broker's own"
                }
                _ => "openssl rand -hex 32 writes a seal key: mode 0600, the broker's own",
            };
            Failure::failed("the authority's folder cannot be opened").because(error).help(help)
        })?;
        let trust_domain = trust_domain.cloned().map_or_else(|| domain_of(&settings), Ok)?;
        Ok(Self { pki, folder, places, trust_domain, by: host::whoami(), settings })
    }

    fn ceremony<'a>(&'a self, dns: &'a [String], session: &Session) -> Ceremony<'a> {
        let Self { places, trust_domain, by, .. } = self;
        Ceremony { trust_domain, places, dns, now: session.clock.wall(), by }
    }

    fn transcript(&self, what: &str, session: &Session) -> Transcript {
        Transcript::begin(what, &self.trust_domain, session.clock.wall(), &self.by)
    }

    /// Printed, and kept beside what it tells of.
    fn tell(&self, told: &Transcript, session: &Session) -> Result<(), Failure> {
        let at = session.clock.wall().to_string().replace([':', '-'], "");
        let names =
            std::iter::once(format!("ceremony-{at}.txt")).chain((2..100).map(|n| format!("ceremony-{at}-{n}.txt")));
        // Another one of the same second is not written over.
        let mut places = names.map(|name| self.folder.dir.join(name));
        let mut kept: io::Result<()> = Err(io::ErrorKind::AlreadyExists.into());
        let mut file = PathBuf::new();
        while let (Err(error), Some(next)) = (&kept, places.next())
            && error.kind() == io::ErrorKind::AlreadyExists
        {
            kept = files::write_new(&next, told.text().as_bytes(), 0o600);
            file = next;
        }
        session.screen.data(told.text())?;
        kept.map_err(|error| Failure::failed("the transcript cannot be kept: keep what is printed").because(error))?;
        session.screen.say(&format!("the transcript is in {}", file.display()));
        Ok(())
    }
}

pub fn init(args: &CaInitArgs, session: &Session) -> Result<(), Failure> {
    let table = Table::lay(args.config.as_deref(), args.trust_domain.as_ref(), session)?;
    match (&args.csr, &args.root_key) {
        (Some(csr), _) => request(csr, &table, session),
        (None, Some(root)) => with_root(root, args, &table, session),
        (None, None) => Err(Failure::usage("neither `--root-key` nor `--csr` is given")),
    }
}

/// The root is made, or used again.
fn with_root(file: &Path, args: &CaInitArgs, table: &Table, session: &Session) -> Result<(), Failure> {
    let named = |text: &String| CaId::named(text).ok_or_else(|| Failure::usage(format!("`{text}` names no CA")));
    let revoke = args.revoke.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    for name in &args.permit_dns {
        dns_name(name)?;
    }
    let pki_dir = run::pki_dir(&table.settings, &table.pki);
    let file = may_hold_root(file, &[&table.settings.state_dir, &pki_dir]);
    let file = file.map_err(|error| failure("the root key cannot be there", &error))?;
    let ceremony = table.ceremony(&args.permit_dns, session);
    let fresh = !file.exists();
    if fresh && !args.new_root && pki_dir.join(crate::mint::pki::AUTHORITY_FILE).exists() {
        let what = format!("the authority has a root already, and `{}` is not there", file.display());
        return Err(Failure::usage(what)
            .help("name the file of that root; `--new-root` makes another, which every verifier must learn"));
    }
    let passphrase = passphrase(args, fresh, session)?;
    let mut told = table.transcript(if fresh { "root and area CA" } else { "area CA" }, session);
    let root = match fresh {
        true => ceremony.make_root(&file, &passphrase, &mut told),
        false => RootKey::open(&file, &passphrase),
    };
    let root = root.map_err(|error| match error {
        PkiError::Sealed => {
            failure("the root key does not open: the passphrase is another, or the file was changed", &error)
        }
        error => failure("there is no root", &error),
    })?;
    let made = ceremony.make_area(&table.folder, &root, &revoke, &mut told);
    made.map_err(|error| failure("the area CA was not made", &error))?;
    table.tell(&told, session)?;
    session.screen.say(&format!("keep `{}` away from this machine, and its passphrase away from it", file.display()));
    Ok(())
}

fn request(file: &Path, table: &Table, session: &Session) -> Result<(), Failure> {
    let mut told = table.transcript("request for an area CA", session);
    let made = table.ceremony(&[], session).request(&table.folder, &mut told);
    let csr = made.map_err(|error| failure("the request was not made", &error))?;
    let text = pem("CERTIFICATE REQUEST", &csr);
    let written = files::write_atomic(file, text.as_bytes(), 0o644);
    written.map_err(|error| Failure::failed(format!("`{}` cannot be written", file.display())).because(error))?;
    told.line(&format!("wrote     {}: the request", file.display()));
    table.tell(&told, session)?;
    session.screen.say("have it signed as a CA (pathLen 1 or more), then: dayfly ca import CHAIN");
    Ok(())
}

pub fn import(args: &CaImportArgs, session: &Session) -> Result<(), Failure> {
    let table = Table::lay(args.config.as_deref(), args.trust_domain.as_ref(), session)?;
    let chain = args.chain.as_deref().map(certificates).transpose()?.unwrap_or_default();
    let crls = args.crl.iter().map(|file| crl(file)).collect::<Result<Vec<_>, _>>()?;
    let mut told = table.transcript("what was signed elsewhere", session);
    let taken = table.ceremony(&[], session).import(&table.folder, &chain, &crls, &mut told);
    taken.map_err(|error| failure("nothing was taken in", &error))?;
    table.tell(&told, session)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bytes = read(file)?;
    let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Failure::usage(format!("`{}` holds no certificates in PEM", file.display()))),
    }
}

fn crl(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = read(file)?;
    match CertificateRevocationListDer::from_pem_slice(&bytes) {
        Ok(crl) => Ok(crl.to_vec()),
        Err(_) => Ok(bytes),
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    files::read_capped(file)
        .map_err(|error| Failure::usage(format!("`{}` cannot be read", file.display())).because(error))
}

/// Of the bundle: it stands in every name that we give.
fn domain_of(settings: &Settings) -> Result<String, Failure> {
    let env = BundleEnv { issuer_url: settings.issuer.clone(), broker_binding: BindingKind::Dpop };
    let bundle = Bundle { path: settings.policies_dir.clone(), env };
    let loaded = bundle.load().map_err(|problems| {
        let what = format!("the bundle in `{}` is not usable", settings.policies_dir.display());
        let failure = problems.iter().fold(Failure::failed(what), Failure::because);
        failure.help("mend it (`dayfly policy check`), or name the trust domain: `--trust-domain example.org`")
    })?;
    Ok(loaded.policy.bundle().trust_domain.clone())
}

fn dns_name(name: &str) -> Result<(), Failure> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(letter);
    match name.len() <= 253 && name.split('.').all(label) {
        true => Ok(()),
        false => Err(Failure::usage(format!("`{name}` is no DNS name in lower case, without a dot in front"))),
    }
}

fn failure(what: &str, error: &PkiError) -> Failure {
    Failure::failed(what).because(error)
}
