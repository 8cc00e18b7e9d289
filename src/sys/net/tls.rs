//! TLS settings of both sides: ring, TLS 1.2 and 1.3, HTTP/1.1, and no way to turn checks off.

use std::{io, path::PathBuf, sync::Arc};

use dayfly_domain::UnixMs;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::verify_server_name,
    crypto::CryptoProvider,
    server::{NoServerSessionStorage, ParsedCertificate},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::presented::AnyChain;
use crate::sys::files;

/// Where the listener's certificate chain and key lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the leaf first, then its intermediates.
    pub cert_file: PathBuf,
    /// PEM: PKCS#8, SEC 1 or PKCS#1; mode 0600.
    pub key_file: PathBuf,
}

/// TLS settings that cannot be used. Never quotes what is in a key file.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("`{path}` cannot be read: {source}")]
    File { path: String, source: io::Error },
    #[error("the certificate file holds no PEM certificate that can be read")]
    Certificate,
    #[error("the key file holds no PEM private key that can be read")]
    Key,
    #[error("the private key does not belong to the certificate, or is of an unsupported kind")]
    KeyMismatch,
    #[error("the certificate's own data cannot be read")]
    Validity,
    #[error("the certificate expired at {0}: nobody could connect")]
    Expired(UnixMs),
    #[error("the certificate is not valid before {0}: nobody could connect")]
    NotYet(UnixMs),
    #[error("the CA file holds no PEM certificate that can be trusted")]
    Authority,
    #[error("the TLS library refuses its own settings")]
    Settings,
}

/// A listener's settings, and how long they are good for.
#[derive(Debug)]
pub struct Certified {
    pub config: Arc<ServerConfig>,
    pub life: Life,
    /// The leaf is a CA's own certificate: clients that look refuse it as a server's.
    pub is_authority: bool,
}

/// From when and until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    pub from: UnixMs,
    pub until: UnixMs,
}

impl Life {
    /// Of the first certificate, the one that clients are shown as ours.
    pub(super) fn of(leaf: &X509Certificate<'_>) -> Self {
        let at = |time: ASN1Time| UnixMs::from_s(time.timestamp());
        // The last second is still part of it (RFC 5280 section 4.1.2.5).
        Self { from: at(leaf.validity().not_before), until: at(leaf.validity().not_after) }
    }

    /// Whether clients take it at `now`.
    pub fn holds(self, now: UnixMs) -> Result<(), NetError> {
        if now >= self.until.plus_s(1) {
            return Err(NetError::Expired(self.until));
        }
        if now < self.from { Err(NetError::NotYet(self.from)) } else { Ok(()) }
    }

    /// Whether it is time to put a new one in place: seven days are left, or a third of its life if
    /// that is less.
    pub fn is_short(self, now: UnixMs) -> bool {
        let third_ms = (self.until.as_ms() - self.from.as_ms()) / 3;
        self.until.as_ms() - now.as_ms() < third_ms.min(SHORT_MS)
    }
}

const SHORT_MS: i64 = 7 * 24 * 3_600_000;

impl TlsFiles {
    /// Reads both files; the key's mode must keep others out, and the certificate must hold now.
    // SECURITY: `an_expired_certificate_is_refused_and_so_is_one_of_tomorrow`
    pub fn load(&self, now: UnixMs) -> Result<Certified, NetError> {
        files::require_private(&self.key_file).map_err(file_error(&self.key_file))?;
        let cert = files::read_capped(&self.cert_file).map_err(file_error(&self.cert_file))?;
        let key = Zeroizing::new(files::read_capped(&self.key_file).map_err(file_error(&self.key_file))?);
        let config = server_config(&cert, &key)?;
        let chain = certificates(&cert).ok_or(NetError::Certificate)?;
        let leaf = chain.first().ok_or(NetError::Certificate)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| NetError::Validity)?;
        let life = Life::of(&leaf);
        life.holds(now)?;
        Ok(Certified { config, life, is_authority: leaf.is_ca() })
    }
}

/// What a chain looks like to clients, beside its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The leaf is for this host.
    pub names_host: bool,
    /// Each certificate is issued by the next.
    pub is_in_order: bool,
}

impl TlsFiles {
    /// How clients of `host` find the chain; the key is not read.
    pub fn chain(&self, host: &str) -> Result<Chain, NetError> {
        let pem = files::read_capped(&self.cert_file).map_err(file_error(&self.cert_file))?;
        let chain = certificates(&pem).ok_or(NetError::Certificate)?;
        let leaf = ParsedCertificate::try_from(&chain[0]).map_err(|_| NetError::Validity)?;
        let name = ServerName::try_from(host.to_owned());
        let names_host = name.is_ok_and(|name| verify_server_name(&leaf, &name).is_ok());
        let parsed = chain.iter().map(|der| X509Certificate::from_der(der).map(|(_, parsed)| parsed));
        let parsed = parsed.collect::<Result<Vec<_>, _>>().map_err(|_| NetError::Validity)?;
        let is_in_order = parsed.windows(2).all(|pair| pair[0].issuer() == pair[1].subject());
        Ok(Chain { names_host, is_in_order })
    }
}

/// The listener's settings from a chain (leaf first) and its key, which must fit the leaf. Clients are asked for
/// a certificate, and need none (`presented`).
// SECURITY: `a_key_of_another_certificate_is_refused`
pub fn server_config(cert_pem: &[u8], key_pem: &[u8]) -> Result<Arc<ServerConfig>, NetError> {
    let chain = certificates(cert_pem).ok_or(NetError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| NetError::Key)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|_| NetError::Settings)?
        .with_client_cert_verifier(Arc::new(AnyChain::new(&provider())))
        .with_single_cert(chain, key)
        .map_err(|_| NetError::KeyMismatch)?;
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    // SECURITY: `t_138_no_session_is_resumed`: a resumed one would carry a certificate whose key nobody proved
    // again. No early data either: nothing is read before the handshake is done.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// A client's settings: the given authorities and no other, or those of the system.
pub(super) fn client_config(ca_pem: Option<&[u8]>) -> Result<Arc<ClientConfig>, NetError> {
    let roots = match ca_pem {
        Some(pem) => given_roots(pem)?,
        None => system_roots()?,
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|_| NetError::Settings)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP_1_1.to_vec()];
    Ok(Arc::new(config))
}

const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const HTTP_1_1: &[u8] = b"http/1.1";
/// Where Debian, Alpine, Arch and the usual container images keep their bundle.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Every certificate of a PEM text; `None` if one is broken or there is none.
pub(super) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()?;
    (!all.is_empty()).then_some(all)
}

fn given_roots(pem: &[u8]) -> Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).ok_or(NetError::Authority)? {
        roots.add(certificate).map_err(|_| NetError::Authority)?;
    }
    Ok(roots)
}

/// The system's bundle may hold an odd certificate: those are passed over.
fn system_roots() -> Result<RootCertStore, NetError> {
    let path = PathBuf::from(SYSTEM_ROOTS);
    let pem = files::read_capped(&path).map_err(file_error(&path))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if roots.is_empty() { Err(NetError::Authority) } else { Ok(roots) }
}

fn file_error(path: &std::path::Path) -> impl FnOnce(io::Error) -> NetError {
    let path = path.display().to_string();
    move |source| NetError::File { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::net::testing::Authority;

    #[test]
    fn a_chain_and_its_key_make_settings() {
        let leaf = Authority::new().leaf("broker.test");
        let config = server_config(leaf.cert_pem.as_bytes(), leaf.key_pem.as_bytes()).expect("settings");
        assert_eq!(config.alpn_protocols, vec![b"http/1.1".to_vec()]);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let authority = Authority::new();
        let (one, other) = (authority.leaf("broker.test"), authority.leaf("broker.test"));
        let refused = server_config(one.cert_pem.as_bytes(), other.key_pem.as_bytes());
        assert!(matches!(refused, Err(NetError::KeyMismatch)), "{refused:?}");
    }

    #[test]
    fn a_broken_key_is_refused_and_not_quoted() {
        let leaf = Authority::new().leaf("broker.test");
        let text = format!("{}canary", leaf.key_pem.replace("PRIVATE", "PUBLIC"));
        let refused = server_config(leaf.cert_pem.as_bytes(), text.as_bytes()).expect_err("no private key");
        assert!(matches!(refused, NetError::Key));
        assert!(!format!("{refused} {refused:?}").contains("canary"));
    }

    #[test]
    fn a_certificate_file_without_certificate_is_refused() {
        let leaf = Authority::new().leaf("broker.test");
        let refused = server_config(leaf.key_pem.as_bytes(), leaf.key_pem.as_bytes());
        assert!(matches!(refused, Err(NetError::Certificate)), "{refused:?}");
    }

    const NOW: UnixMs = UnixMs::from_s(1_800_000_000);

    /// Files of a certificate that is valid from so many seconds before `NOW` to so many after it.
    fn files(dir: &std::path::Path, before_s: i64, after_s: i64) -> TlsFiles {
        let leaf = Authority::new().leaf_of("broker.test", NOW.plus_s(-before_s), NOW.plus_s(after_s));
        let files = TlsFiles { cert_file: dir.join("cert.pem"), key_file: dir.join("key.pem") };
        std::fs::write(&files.cert_file, &leaf.cert_pem).expect("written");
        files::write_atomic(&files.key_file, leaf.key_pem.as_bytes(), 0o600).expect("written");
        files
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = files(dir.path(), 60, 60);
        std::fs::set_permissions(&files.key_file, std::fs::Permissions::from_mode(0o644)).expect("mode");
        assert!(matches!(files.load(NOW), Err(NetError::File { .. })));
        std::fs::set_permissions(&files.key_file, std::fs::Permissions::from_mode(0o600)).expect("mode");
        files.load(NOW).expect("settings");
    }

    #[test]
    fn an_expired_certificate_is_refused_and_so_is_one_of_tomorrow() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = files(dir.path(), 60, 600);
        let life = files.load(NOW).expect("settings").life;
        assert_eq!(life, Life { from: NOW.plus_s(-60), until: NOW.plus_s(600) });
        assert!(files.load(NOW.plus_s(600)).is_ok());
        assert!(matches!(files.load(NOW.plus_s(601)), Err(NetError::Expired(until)) if until == NOW.plus_s(600)));
        assert!(files.load(NOW.plus_s(-60)).is_ok());
        assert!(matches!(files.load(NOW.plus_s(-61)), Err(NetError::NotYet(from)) if from == NOW.plus_s(-60)));
    }

    #[test]
    fn a_chain_for_another_host_or_out_of_order_is_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = files(dir.path(), 60, 60);
        assert_eq!(files.chain("broker.test").expect("read"), Chain { names_host: true, is_in_order: true });
        assert!(!files.chain("other.test").expect("read").names_host);
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody else");
        let other = params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("signed").pem();
        let leaf = std::fs::read_to_string(&files.cert_file).expect("read");
        std::fs::write(&files.cert_file, leaf + &other).expect("written");
        assert_eq!(files.chain("broker.test").expect("read"), Chain { names_host: true, is_in_order: false });
    }

    #[test]
    fn a_life_is_short_at_seven_days_or_a_third() {
        let days = |days: i64| NOW.plus_s(days * 24 * 3600);
        let quarter = Life { from: NOW, until: days(90) };
        assert!(!quarter.is_short(days(83)) && quarter.is_short(days(83).plus_ms(1)));
        let brief = Life { from: NOW, until: days(3) };
        assert!(!brief.is_short(days(2)) && brief.is_short(days(2).plus_ms(1)));
        assert!(quarter.is_short(days(91)));
    }

    #[test]
    fn an_authority_file_without_certificate_is_refused() {
        assert!(matches!(client_config(Some(b"nothing")), Err(NetError::Authority)));
    }
}
