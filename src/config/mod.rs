//! The settings of the server: text in, checked values out.
//!
//! Where the file lies and how it is read is the door's business; what is in it is decided here,
//! so that `serve --check` and the tests need no file. Nothing in it is a secret: keys are named
//! by their files.

mod issuer;
mod pki;
mod table;
mod token;

use std::{net::SocketAddr, path::PathBuf};

use dayfly_domain::Span;
use serde::Deserialize;

pub use issuer::IssuerFault;
pub use pki::{NoSealSource, Pki, SealSource};
pub use table::{SETTINGS, Setting};
pub use token::{NoPkcs11Uri, Pkcs11Uri};

/// What `dayfly serve` needs to know. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The broker's own URL, exactly as it stands in tokens. No default.
    pub issuer: String,
    /// Where the API listens, with TLS. Default `0.0.0.0:8443`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Where health and metrics are served, without TLS. Default `127.0.0.1:9464`.
    #[serde(default = "default_metrics_listen")]
    pub metrics_listen: SocketAddr,
    /// No default: the API is never served in the clear.
    pub tls: Tls,
    /// Database, keys, lock and socket. Default `/var/lib/dayfly`.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// The trust bundle. Default `/etc/dayfly/policies`.
    #[serde(default = "default_policies_dir")]
    pub policies_dir: PathBuf,
    /// Refuse to start under a bundle that was already replaced once. Default `false`: say so only.
    #[serde(default)]
    pub strict_rollback: bool,
    /// How long past its review date a row goes on. Default 30 days.
    #[serde(default = "default_review_grace")]
    pub review_grace: Span,
    /// Serve local operators at `state_dir/dayfly.sock`. Default `true`.
    #[serde(default = "default_socket")]
    pub socket: bool,
    /// What is logged, as a filter of `tracing`: `info`, `dayfly=debug,info`. Default `info`.
    #[serde(default = "default_log")]
    pub log: String,
    /// How much anybody may take: of the API's listener, of the broker's time, of what is live.
    #[serde(default)]
    pub limits: Caps,
    /// The authority for certificates. Absent: none are issued.
    #[serde(default)]
    pub pki: Option<Pki>,
}

/// How much may be taken. A connection also takes a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// In all; past it none is accepted until one ends. Default 4096.
    pub connections: u32,
    /// Of one IPv4 address or one IPv6 /64; past it a new one is dropped. Default 256.
    pub connections_per_address: u32,
    /// Requests a second of one IPv4 address or one IPv6 /64. Default 100.
    pub address_rate_per_s: u32,
    /// Of them, at once. Default 1000.
    pub address_burst: u32,
    /// Exchanges a second of one proven workload. Default 20.
    pub workload_rate_per_s: u32,
    /// Of them, at once. Default 256.
    pub workload_burst: u32,
    /// Exchanges of one job for one template. Default 600.
    pub storm_per_minute: u32,
    /// Live leases of one owner. Default 100 000.
    pub owner_leases: u32,
    /// Of them, what only production may use, in percent. Default 25.
    pub production_reserve_percent: u32,
    /// Live leases of one workload. Default 1 000.
    pub workload_leases: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
            address_rate_per_s: ADDRESS_RATE_PER_S,
            address_burst: ADDRESS_BURST,
            workload_rate_per_s: WORKLOAD_RATE_PER_S,
            workload_burst: WORKLOAD_BURST,
            storm_per_minute: STORM_PER_MINUTE,
            owner_leases: OWNER_LEASES,
            production_reserve_percent: PRODUCTION_RESERVE_PERCENT,
            workload_leases: WORKLOAD_LEASES,
        }
    }
}

/// How long past its review date a row goes on, unless the settings say otherwise.
pub const REVIEW_GRACE: Span = Span::seconds(30 * 86_400);
/// Connections of a listener, unless the settings say otherwise.
pub const CONNECTIONS: u32 = 4096;
/// Connections of one address, unless the settings say otherwise.
pub const CONNECTIONS_PER_ADDRESS: u32 = 256;
/// Requests of one address, unless the settings say otherwise.
pub const ADDRESS_RATE_PER_S: u32 = 100;
pub const ADDRESS_BURST: u32 = 1_000;
/// Exchanges of one workload, unless the settings say otherwise.
pub const WORKLOAD_RATE_PER_S: u32 = 20;
pub const WORKLOAD_BURST: u32 = 256;
/// Exchanges of one job for one template, unless the settings say otherwise.
pub const STORM_PER_MINUTE: u32 = 600;
/// Live leases of one owner, unless the settings say otherwise.
pub const OWNER_LEASES: u32 = 100_000;
/// What of an owner's leases only production may use, unless the settings say otherwise.
pub const PRODUCTION_RESERVE_PERCENT: u32 = 25;
/// Live leases of one workload, unless the settings say otherwise.
pub const WORKLOAD_LEASES: u32 = 1_000;
/// More than this no setting of a rate or a number of leases allows.
pub const TAKEN_CAP: u32 = 1_000_000_000;
/// Production may be given all but a tenth.
pub const PRODUCTION_RESERVE_CAP_PERCENT: u32 = 90;
/// More connections than this no setting allows: one process is not made for them.
pub const CONNECTIONS_CAP: u32 = 1 << 20;

/// PEM files of the API's listener; read again on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Leaf first, then intermediates.
    pub cert_file: PathBuf,
    /// PKCS#8, mode 0600.
    pub key_file: PathBuf,
}

/// Why a text is no settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("line {line}: {text}")]
    Toml { line: usize, text: String },
    #[error("`issuer` is `{url}`, but {fault}")]
    Issuer { url: String, fault: IssuerFault },
    #[error("`{0}` is empty")]
    Empty(&'static str),
    #[error("`listen` and `metrics_listen` are both `{0}`")]
    SameAddress(SocketAddr),
    #[error("`pki.listen` is `{0}`, which is another listener's")]
    PkiAddress(SocketAddr),
    #[error("`limits.{name}` is {value}: at least 1 and at most {most}")]
    Limit { name: &'static str, value: u32, most: u32 },
    #[error("`pki.url` is `{0}`: it is plain `http://`, with no user, no query and no `/` at the end")]
    PkiUrl(String),
    #[error("`limits.production_reserve_percent` is {0}: at most {PRODUCTION_RESERVE_CAP_PERCENT}")]
    Reserve(u32),
}

/// Where the default settings say the state is; clients look for the socket there.
pub const STATE_DIR: &str = "/var/lib/dayfly";

/// The socket's name below the state folder.
pub const SOCKET_NAME: &str = "dayfly.sock";

impl Settings {
    /// Reads and checks.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let settings: Self = toml::from_str(text).map_err(|error| in_line(text, &error))?;
        settings.check()?;
        Ok(settings)
    }

    pub fn socket_path(&self) -> PathBuf {
        self.state_dir.join(SOCKET_NAME)
    }

    fn check(&self) -> Result<(), SettingsError> {
        issuer::check(&self.issuer).map_err(|fault| SettingsError::Issuer { url: self.issuer.clone(), fault })?;
        let paths = [
            ("tls.cert_file", &self.tls.cert_file),
            ("tls.key_file", &self.tls.key_file),
            ("state_dir", &self.state_dir),
            ("policies_dir", &self.policies_dir),
        ];
        if let Some((name, _)) = paths.iter().find(|(_, path)| path.as_os_str().is_empty()) {
            return Err(SettingsError::Empty(name));
        }
        if self.log.trim().is_empty() {
            return Err(SettingsError::Empty("log"));
        }
        // Port 0 is another port for each of them.
        if self.listen == self.metrics_listen && self.listen.port() != 0 {
            return Err(SettingsError::SameAddress(self.listen));
        }
        self.check_pki()?;
        self.limits.check()
    }

    fn check_pki(&self) -> Result<(), SettingsError> {
        let Some(Pki { url, dir, listen, .. }) = &self.pki else { return Ok(()) };
        if !pki::is_url(url) {
            return Err(SettingsError::PkiUrl(url.clone()));
        }
        if dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            return Err(SettingsError::Empty("pki.dir"));
        }
        let taken = |address: &SocketAddr| address.port() != 0 && [self.listen, self.metrics_listen].contains(address);
        match listen.filter(taken) {
            Some(address) => Err(SettingsError::PkiAddress(address)),
            None => Ok(()),
        }
    }
}

impl Caps {
    fn check(self) -> Result<(), SettingsError> {
        let caps = [
            ("connections", self.connections, CONNECTIONS_CAP),
            ("connections_per_address", self.connections_per_address, self.connections),
            ("address_rate_per_s", self.address_rate_per_s, TAKEN_CAP),
            ("address_burst", self.address_burst, TAKEN_CAP),
            ("workload_rate_per_s", self.workload_rate_per_s, TAKEN_CAP),
            ("workload_burst", self.workload_burst, TAKEN_CAP),
            ("storm_per_minute", self.storm_per_minute, TAKEN_CAP),
            ("owner_leases", self.owner_leases, TAKEN_CAP),
            ("workload_leases", self.workload_leases, TAKEN_CAP),
        ];
        if let Some((name, value, most)) = caps.into_iter().find(|(_, value, most)| !(1..=*most).contains(value)) {
            return Err(SettingsError::Limit { name, value, most });
        }
        match self.production_reserve_percent {
            percent if percent > PRODUCTION_RESERVE_CAP_PERCENT => Err(SettingsError::Reserve(percent)),
            _ => Ok(()),
        }
    }
}

fn in_line(text: &str, error: &toml::de::Error) -> SettingsError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start].iter().filter(|&&byte| byte == b'\n').count() + 1;
    SettingsError::Toml { line, text: error.message().to_owned() }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
}

fn default_metrics_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9464))
}

fn default_state_dir() -> PathBuf {
    STATE_DIR.into()
}

fn default_policies_dir() -> PathBuf {
    "/etc/dayfly/policies".into()
}

fn default_review_grace() -> Span {
    REVIEW_GRACE
}

fn default_socket() -> bool {
    true
}

fn default_log() -> String {
    "info".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
issuer = "https://broker.example"
[tls]
cert_file = "/etc/dayfly/tls.pem"
key_file = "/etc/dayfly/tls.key"
"#;

    #[test]
    fn the_least_settings_get_the_documented_defaults() {
        let settings = Settings::parse(LEAST).unwrap();
        assert_eq!(settings.listen.to_string(), "0.0.0.0:8443");
        assert_eq!(settings.metrics_listen.to_string(), "127.0.0.1:9464");
        assert_eq!(settings.socket_path(), PathBuf::from("/var/lib/dayfly/dayfly.sock"));
        assert_eq!(settings.policies_dir, PathBuf::from("/etc/dayfly/policies"));
        assert_eq!((settings.strict_rollback, settings.socket, settings.log.as_str()), (false, true, "info"));
    }

    #[test]
    fn every_setting_can_be_given() {
        let text = format!(
            "listen = '[::1]:0'\nmetrics_listen = '127.0.0.1:0'\nstate_dir = '/s'\npolicies_dir = 'p'\n\
             strict_rollback = true\nsocket = false\nlog = 'dayfly=debug'\n{LEAST}"
        );
        let settings = Settings::parse(&text).unwrap();
        assert!(settings.strict_rollback && !settings.socket && settings.listen.is_ipv6());
        assert_eq!(settings.state_dir, PathBuf::from("/s"));
    }

    #[test]
    fn a_key_spelt_wrong_is_an_error_with_its_line() {
        let error = Settings::parse(&format!("strict_rolback = true{LEAST}")).unwrap_err().to_string();
        assert!(error.starts_with("line 1: unknown field `strict_rolback`"), "{error}");
        let error = Settings::parse(&format!("{LEAST}password = 'x'\n")).unwrap_err().to_string();
        assert!(error.starts_with("line 6: unknown field `password`"), "{error}");
    }

    #[test]
    fn settings_without_tls_or_issuer_are_errors() {
        assert!(matches!(Settings::parse("issuer = 'https://b.example'"), Err(SettingsError::Toml { .. })));
        assert!(matches!(Settings::parse("[tls]\ncert_file='a'\nkey_file='b'"), Err(SettingsError::Toml { .. })));
    }

    #[test]
    fn one_address_cannot_serve_both_listeners() {
        let text = format!("listen = '127.0.0.1:1'\nmetrics_listen = '127.0.0.1:1'{LEAST}");
        assert!(matches!(Settings::parse(&text), Err(SettingsError::SameAddress(_))));
        let text = format!("listen = '127.0.0.1:0'\nmetrics_listen = '127.0.0.1:0'{LEAST}");
        assert!(Settings::parse(&text).is_ok());
    }

    #[test]
    fn limits_have_their_defaults_and_their_own_limits() {
        let of = |limits: &str| Settings::parse(&format!("{LEAST}[limits]\n{limits}"));
        assert_eq!(Settings::parse(LEAST).unwrap().limits, of("").unwrap().limits);
        let caps = of("connections = 9000").unwrap().limits;
        assert_eq!((caps.connections, caps.connections_per_address), (9000, CONNECTIONS_PER_ADDRESS));
        assert!(of("connections = 1\nconnections_per_address = 1").is_ok());
        for (bad, said) in [
            ("connections = 0", "`limits.connections` is 0"),
            ("connections = 1048577", "`limits.connections` is 1048577: at least 1 and at most 1048576"),
            ("connections = 255", "`limits.connections_per_address` is 256: at least 1 and at most 255"),
            ("address_burst = 0", "`limits.address_burst` is 0"),
            ("workload_rate_per_s = 1000000001", "at most 1000000000"),
            ("production_reserve_percent = 91", "is 91: at most 90"),
            ("connections_per_address = 0", "`limits.connections_per_address` is 0"),
            ("connections = -1", "line "),
            ("connections = 1.5", "line "),
            ("connection = 1", "unknown field `connection`"),
        ] {
            assert!(of(bad).unwrap_err().to_string().contains(said), "{bad}: {}", of(bad).unwrap_err());
        }
    }

    #[test]
    fn the_authority_is_named_whole_or_not_at_all() {
        let of = |pki: &str| Settings::parse(&format!("{LEAST}[pki]\n{pki}"));
        assert_eq!(Settings::parse(LEAST).unwrap().pki, None);
        let least = "url = 'http://pki.example.org'\nseal = 'file:/etc/dayfly/seal'\n";
        let pki = of(least).unwrap().pki.unwrap();
        assert_eq!((pki.dir, pki.listen, pki.seal), (None, None, SealSource::File("/etc/dayfly/seal".into())));
        for (bad, said) in [
            ("url = 'http://pki.example.org'", "missing field `seal`"),
            ("seal = 'env:S'", "missing field `url`"),
            ("url = 'https://pki.example.org'\nseal = 'env:S'", "it is plain `http://`"),
            ("url = 'http://pki.example.org'\nseal = 'c2VjcmV0'", "expected `file:PATH`"),
            (&format!("{least}listen = '127.0.0.1:9464'"), "another listener's"),
            (&format!("{least}dir = ''"), "`pki.dir` is empty"),
            (&format!("{least}passphrase = 'x'"), "unknown field `passphrase`"),
            (&format!("{least}area_key = 'pkcs11:token=t?pin-value=c2VjcmV0'"), "a PIN never stands in the settings"),
            (&format!("{least}area_key = 'c2VjcmV0'"), "expected `pkcs11:token=NAME"),
        ] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("c2VjcmV0"), "{bad}: {error}");
        }
    }

    #[test]
    fn an_empty_path_is_an_error() {
        let error = Settings::parse(&format!("state_dir = ''{LEAST}")).unwrap_err();
        assert_eq!(error, SettingsError::Empty("state_dir"));
    }
}
