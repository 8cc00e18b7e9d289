//! Every setting in one table, for the reference; a test holds it equal to what is read.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// With its table: `tls.cert_file`.
    pub key: &'static str,
    pub kind: &'static str,
    /// As it would stand in the file; `None`: it must be given.
    pub default: Option<&'static str>,
    pub help: &'static str,
}

const fn given(key: &'static str, kind: &'static str, help: &'static str) -> Setting {
    Setting { key, kind, default: None, help }
}

const fn usual(key: &'static str, kind: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, kind, default: Some(default), help }
}

/// In the order of the file.
pub const SETTINGS: &[Setting] = &[
    given(
        "issuer",
        "URL",
        "the broker's own URL, exactly as it stands in tokens: `https`, no query, no fragment, no slash at the end",
    ),
    usual("listen", "address", r#""0.0.0.0:8443""#, "where the API is served, with TLS"),
    usual("metrics_listen", "address", r#""127.0.0.1:9464""#, "where health and metrics are served, without TLS"),
    usual("state_dir", "folder", r#""/var/lib/dayfly""#, "database, keys, lock and socket; mode 0700"),
    usual("policies_dir", "folder", r#""/etc/dayfly/policies""#, "the trust bundle"),
    usual(
        "strict_rollback",
        "boolean",
        "false",
        "refuse a bundle that was in force before and was replaced; otherwise it loads, with an event of its own",
    ),
    usual(
        "review_grace",
        "duration",
        r#""30d""#,
        "how long past its `review_by` a row goes on; then it permits nothing new until it is reviewed, and ends nothing",
    ),
    usual("socket", "boolean", "true", "serve local operators at `dayfly.sock` in the state folder, mode 0600"),
    usual(
        "log",
        "filter",
        r#""info""#,
        "what is logged, as a filter of `tracing`: `info`, `dayfly=debug,info`; `DAYFLY_LOG` beats it",
    ),
    given("tls.cert_file", "file", "PEM: leaf first, then intermediates; read again on SIGHUP"),
    given("tls.key_file", "file", "PEM, PKCS#8, mode 0600; read again on SIGHUP"),
    usual(
        "limits.connections",
        "integer",
        "4096",
        "open connections of the API's listener; past it none is accepted until one ends",
    ),
    usual(
        "limits.connections_per_address",
        "integer",
        "256",
        "those of one IPv4 address or IPv6 /64, at most `limits.connections`; past it a new one is closed",
    ),
    usual(
        "limits.address_rate_per_s",
        "integer",
        "100",
        "requests a second of one IPv4 address or IPv6 /64, whoever asks; past it `E-RATE` (429), before a body is read",
    ),
    usual("limits.address_burst", "integer", "1000", "how many of them may come at once"),
    usual(
        "limits.workload_rate_per_s",
        "integer",
        "20",
        "exchanges a second of one proven workload, granted or refused; past it `E-RATE` (429)",
    ),
    usual("limits.workload_burst", "integer", "256", "how many of them may come at once"),
    usual(
        "limits.storm_per_minute",
        "integer",
        "600",
        "exchanges of one job (or of a workload without one) for one template; past it `E-STORM` (429) until the minute is over",
    ),
    usual("limits.owner_leases", "integer", "100000", "live leases of one owner; past it `E-QUOTA` (429)"),
    usual(
        "limits.production_reserve_percent",
        "integer",
        "25",
        "what of them only targets in the environment `production` may use: 0 to 90",
    ),
    usual("limits.workload_leases", "integer", "1000", "live leases of one workload; past it `E-QUOTA` (429)"),
    given(
        "pki.url",
        "URL",
        "with `[pki]`, which makes the broker issue certificates: plain `http`, no slash at the end; stands in every certificate, before `/pki/...`",
    ),
    given(
        "pki.seal",
        "secret",
        "with `[pki]`: the 32 octets that the keys of area and issuing CAs are sealed under: `file:PATH` (mode 0600), `credential:NAME` (systemd) or `env:NAME`",
    ),
    usual(
        "pki.area_key",
        "PKCS#11 URI",
        "none",
        "the token that `dayfly ca init` makes an area CA's key in, in a build with `pkcs11`: `pkcs11:token=NAME?module-path=/PATH&pin-source=SECRET`, where `SECRET` is as in `pki.seal` and one line; `object=` names what is made, `id=` a key that is there already; otherwise the key is sealed in the folder",
    ),
    usual("pki.dir", "folder", r#""state_dir/pki""#, "the authority's folder, which `dayfly ca init` fills"),
    usual(
        "pki.listen",
        "address",
        "none",
        "where `/pki/*` and `/spiffe/bundle` are served without TLS; otherwise on the API's listener alone",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Settings;

    const LEAST: &str = "issuer = 'https://b.example'\ntls.cert_file = 'c'\ntls.key_file = 'k'\n";

    /// The keys that the parser says it knows, in `table` or at the top.
    fn known(table: &str) -> BTreeSet<String> {
        let error = Settings::parse(&format!("{table}nonsense = 1\n")).unwrap_err().to_string();
        let (_, known) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_table_has_the_keys_that_are_read_and_no_other() {
        let table = |table: &str| -> BTreeSet<String> {
            SETTINGS.iter().filter_map(|row| row.key.strip_prefix(table)).map(str::to_owned).collect()
        };
        assert_eq!((table("tls."), table("limits.")), (known("tls."), known("limits.")));
        assert_eq!(table("pki."), known("pki."));
        let mut top: BTreeSet<String> = table("").into_iter().filter(|key| !key.contains('.')).collect();
        top.extend(["tls".to_owned(), "limits".to_owned(), "pki".to_owned()]);
        assert_eq!(top, known(""));
    }

    #[test]
    fn the_defaults_are_those_that_count() {
        let least = Settings::parse(LEAST).unwrap();
        // That table is whole or absent, and one of its defaults is another setting.
        for Setting { key, default, .. } in SETTINGS.iter().filter(|row| !row.key.starts_with("pki.")) {
            match default {
                Some(default) => {
                    assert_eq!(Settings::parse(&format!("{LEAST}{key} = {default}\n")).unwrap(), least, "{key}")
                }
                None => assert!(LEAST.contains(key)),
            }
        }
    }
}
