//! What a ceremony says of itself: times, names, key ids, fingerprints, who did it. Never a secret.

use std::{fmt::Write, path::Path};

use dayfly_domain::UnixMs;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::{ca::Ca, kept::upper_crl, signer::PkiError};

/// Lines for a file and for people.
#[derive(Debug, Default)]
pub struct Transcript(String);

impl Transcript {
    /// `what` is held, e.g. `ceremony: root and area CA`.
    pub fn begin(what: &str, trust_domain: &str, now: UnixMs, by: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self(format!("dayfly {version} · {what}\nat        {now}\nby        {by}\ndomain    {trust_domain}\n"))
    }

    pub fn text(&self) -> &str {
        &self.0
    }

    pub fn line(&mut self, line: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line}");
    }

    pub(super) fn made(&mut self, what: &str, der: &[u8], ca: &Ca) -> Result<(), PkiError> {
        let (_, read) = X509Certificate::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
        self.line(&format!("made      {what}"));
        self.line(&format!("  subject {}", read.subject()));
        self.line(&format!("  issuer  {}", read.issuer()));
        self.line(&format!("  key id  {}", ca.id()));
        self.line(&format!("  serial  {}", hex(read.raw_serial(), "")));
        self.line(&format!("  valid   {} to {}", ca.not_before(), ca.not_after()));
        self.line(&format!("  sha-256 {}", fingerprint(der)));
        Ok(())
    }

    pub(super) fn crl(&mut self, what: &str, der: &[u8]) -> Result<(), PkiError> {
        let read = upper_crl(der)?;
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| PkiError::Read(error.to_string()))?;
        let listed = list.iter_revoked_certificates().count();
        self.line(what);
        self.line(&format!("  issuer  {}", read.issuer));
        self.line(&format!("  lists   {listed}"));
        self.line(&format!("  until   {}", read.next_update));
        self.line(&format!("  sha-256 {}", fingerprint(der)));
        Ok(())
    }

    pub(super) fn wrote(&mut self, what: &str, file: &Path) {
        self.line(&format!("wrote     {}: {what}", file.display()));
    }
}

/// As `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(der: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, der).as_ref(), ":").to_uppercase()
}

fn hex(octets: &[u8], between: &str) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(between)
}
