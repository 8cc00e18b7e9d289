//! The certificate authority of one `dev` folder, and the certificate its listeners show. In: the
//! kept key. Out: TLS settings for loopback; nothing else trusts it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use dayfly_domain::UnixMs;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use crate::sys::net::{NetError, server_config};

const CA_DAYS: i64 = 3650;
/// A leaf is made anew at every start.
const LEAF_DAYS: i64 = 397;

/// An authority, as it is kept.
#[derive(Clone)]
pub struct Authority {
    pub cert_pem: String,
    pub key_pem: Zeroizing<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("the certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("{0}")]
    Tls(#[from] NetError),
    #[error("the clock shows no date")]
    Date,
}

impl Authority {
    pub fn generate(now: UnixMs) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let cert = params(now)?.self_signed(&key)?;
        Ok(Self { cert_pem: cert.pem(), key_pem: Zeroizing::new(key.serialize_pem()) })
    }

    /// TLS settings of the listeners on loopback, `at` among them, under a fresh key.
    pub fn server_config(&self, at: IpAddr, now: UnixMs) -> Result<Arc<ServerConfig>, AuthorityError> {
        // The same name and key as in the kept certificate, so the leaf chains to it.
        let issuer = Issuer::new(params(now)?, KeyPair::from_pem(&self.key_pem)?);
        let key = KeyPair::generate()?;
        let leaf = leaf(at, now)?.signed_by(&key, &issuer)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        Ok(server_config(leaf.pem().as_bytes(), key_pem.as_bytes())?)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

fn params(now: UnixMs) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("Dayfly dev CA, not for production");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date(now)? - Duration::days(1);
    params.not_after = date(now)? + Duration::days(CA_DAYS);
    Ok(params)
}

fn leaf(at: IpAddr, now: UnixMs) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    let ips = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(ips.map(SanType::IpAddress));
    if !ips.contains(&at) {
        params.subject_alt_names.push(SanType::IpAddress(at));
    }
    params.distinguished_name = named("Dayfly dev");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(now)? - Duration::hours(1);
    params.not_after = date(now)? + Duration::days(LEAF_DAYS);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn date(now: UnixMs) -> Result<OffsetDateTime, AuthorityError> {
    OffsetDateTime::from_unix_timestamp(now.as_s()).map_err(|_| AuthorityError::Date)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_authority_makes_listeners_again_and_again() {
        let now = UnixMs::from_s(1_800_000_000);
        let authority = Authority::generate(now).unwrap();
        authority.server_config("127.0.0.1".parse().unwrap(), now).unwrap();
        authority.server_config("127.0.0.2".parse().unwrap(), now.plus_s(86_400)).unwrap();
    }

    #[test]
    fn debug_shows_no_key() {
        let authority = Authority::generate(UnixMs::from_s(1_800_000_000)).unwrap();
        assert_eq!(format!("{authority:?}"), "Authority");
    }
}
