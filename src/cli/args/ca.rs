//! Options of `dayfly ca`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{DoorArgs, KeyTaintArgs};

#[derive(Debug, Subcommand)]
pub enum CaVerb {
    /// Make the authority: root, area CA, their CRL; or a request for the company's own CA
    #[command(long_about = INIT_ABOUT)]
    Init(Box<CaInitArgs>),
    /// List the CAs: roots, area CAs, issuing CAs and whose turn it is
    Ls(CaListArgs),
    /// Let the next issuing CA sign from now on
    #[command(long_about = ROTATE_ABOUT)]
    Rotate(CaRotateArgs),
    /// Take an issuing CA out for ever, because somebody else may have its key, and end what it signed
    #[command(long_about = TAINT_ABOUT)]
    Taint(KeyTaintArgs),
    /// Print what verifiers need: the root, a CA's certificate, the SPIFFE bundle
    Export(CaExportArgs),
    /// Take in what the company's own CA signed, and CRLs of the CAs above
    #[command(long_about = IMPORT_ABOUT)]
    Import(CaImportArgs),
}

const INIT_ABOUT: &str = "\
Make the authority: root, area CA, their CRL; or a request for the company's own CA.

Hold this ceremony as the broker's own user, with the settings that `dayfly serve` will have: `[pki]` in them
says where the authority's folder is, what its keys are sealed under, and the URL that stands in every
certificate. The root key is written once to --root-key, sealed with a passphrase, and no running broker needs
it: keep it on a medium of its own, away from this machine. It may not lie in the broker's folders. Each
ceremony writes into that file which area CAs the root signed and took back: it must be writable, and its newest
copy is the one to use.

The area CA lives 90 days and the root's CRL 100. Hold the ceremony again, with the same --root-key, before
they are over (readiness and metrics say so 14 and 30 days ahead): a new area CA takes over within a minute,
and what the old one carries lives on. --revoke puts an area CA on the root's CRL, also one that the folder does
not know; a running broker ends what was signed below it within a minute. With --new-root it takes the id of a
root that leaked: that is no longer given out, and all below it ends.

With --csr nothing is made but a key and what the company's own CA is to sign: `dayfly ca import` takes in the
answer. It must allow one more CA below it (pathLen 1 or more, no constraints on URIs or on subjects' names, and
extended key usage that leaves out neither clients nor servers), and end no later than the CA above it.

Where the settings name a token (`pki.area_key`, PKCS#11), the area CA's key is made there and never leaves it:
a new one at each ceremony, or the one that `id=` in the URI names, which no area CA has had. The token's user
logs in with the PIN of `pin-source`, once: a PIN that is refused is not tried again.

A transcript without secrets is printed, and kept in the authority's folder.

  openssl rand -hex 32 > /etc/dayfly/seal.key       # 0600, the broker's; `seal = \"file:/etc/dayfly/seal.key\"`
  dayfly ca init --root-key /media/vault/dayfly-root.key";

const ROTATE_ABOUT: &str = "\
Let the next issuing CA sign from now on.

They take turns by themselves, every day or two, and each is known a day before it signs. Asked for by hand,
the next one may be new: servers that keep CRLs refuse its certificates until they have fetched
`/pki/bundle.crl` anew. The one of before retires; what it signed lives on.";

const TAINT_ABOUT: &str = "\
Take an issuing CA out for ever, because somebody else may have its key, and end what it signed.

The same as `dayfly key taint`: it signs nothing more, its key is destroyed, its area CA's CRL lists it, and
every certificate that it had signed ends. The next issuing CA takes its place; where there is none yet, one
is made. An area CA is taken back at a ceremony: `dayfly ca init --revoke`.";

const IMPORT_ABOUT: &str = "\
Take in what the company's own CA signed, and CRLs of the CAs above.

CHAIN holds the area CA's certificate first, what is above it, and the root last, in PEM. It is looked at
as closely as what the broker signs itself. CRLs (--crl, DER or PEM) of the CAs above may come with it, or
alone, as often as they are made anew: servers that check every level need them in `/pki/bundle.crl`.";

/// `dayfly ca init`.
#[derive(Debug, Clone, Args)]
pub struct CaInitArgs {
    /// The settings [default: $DAYFLY_CONFIG, $XDG_CONFIG_HOME/dayfly/config.toml, /etc/dayfly/dayfly.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The root's file: made if it is not there, used if it is
    #[arg(long, value_name = "FILE", required_unless_present = "csr")]
    pub root_key: Option<PathBuf>,
    /// Make another root, though the authority has one
    #[arg(long, requires = "root_key")]
    pub new_root: bool,
    /// Read the root's passphrase from this file, mode 0600 [default: asked at the terminal]
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_credential")]
    pub passphrase_file: Option<PathBuf>,
    /// Read it from this credential of systemd
    #[arg(long, value_name = "NAME")]
    pub passphrase_credential: Option<String>,
    /// Write a request for the company's own CA here instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["root_key", "permit_dns", "revoke"])]
    pub csr: Option<PathBuf>,
    /// DNS names in certificates are this one or below it; may be repeated [default: any]
    #[arg(long, value_name = "NAME")]
    pub permit_dns: Vec<String>,
    /// Put this area CA on the root's CRL, or leave this other root; may be repeated
    #[arg(long, value_name = "CA")]
    pub revoke: Vec<String>,
    /// The trust domain [default: the bundle's]
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<String>,
}

/// `dayfly ca import`.
#[derive(Debug, Clone, Args)]
pub struct CaImportArgs {
    /// PEM: area CA, what is above it, root
    #[arg(value_name = "CHAIN", required_unless_present = "crl")]
    pub chain: Option<PathBuf>,
    /// A CRL of a CA above the area CA; may be repeated
    #[arg(long, value_name = "FILE")]
    pub crl: Vec<PathBuf>,
    /// The settings
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The trust domain [default: the bundle's]
    #[arg(long, value_name = "NAME")]
    pub trust_domain: Option<String>,
}

/// `dayfly ca ls`.
#[derive(Debug, Clone, Args)]
pub struct CaListArgs {
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly ca rotate`.
#[derive(Debug, Clone, Args)]
pub struct CaRotateArgs {
    #[command(flatten)]
    pub door: DoorArgs,
}

/// `dayfly ca export`.
#[derive(Debug, Clone, Args)]
pub struct CaExportArgs {
    /// `root`, `all` (PEM of every CA), `spiffe` (the trust bundle), or a CA's id
    #[arg(value_name = "WHAT", default_value = "root")]
    pub what: String,
    /// Write it here [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub door: DoorArgs,
}
