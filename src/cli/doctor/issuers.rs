//! Whether the issuers' keys can be had: as the running broker knows it, or by asking them.

use std::time::Duration;

use dayfly_domain::{
    UnixMs,
    bundle::{Bundle, Issuer, KeySource},
};
use tokio::time::timeout;

use super::finding::Finding;
use crate::{
    http::shapes::{Issuer as Shown, IssuerState},
    intake::IssuerKeys,
    sys::net::Fetcher,
};

/// For all issuers together, where several do not answer.
const ALL: Duration = Duration::from_secs(30);

/// From the broker's own account of them.
pub fn told(issuers: &[Shown]) -> Vec<Finding> {
    issuers.iter().map(one).collect()
}

fn one(issuer: &Shown) -> Finding {
    let Shown { name, url, source, state, why, .. } = issuer;
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let mend = || {
        let look = if source == "discovery" { discovery(url) } else { look("URL   # its `spiffe_bundle_url`;") };
        format!("{look}\nthen: dayfly issuer refresh {name}")
    };
    match state {
        IssuerState::Down => {
            let what = format!("`{name}`: its keys cannot be had, so its tokens are refused{why}");
            Finding::wrong("issuers", what, mend())
        }
        // Still believed, for six hours at most.
        IssuerState::Stale => Finding::warning("issuers", format!("`{name}`: its keys are old{why}"), mend()),
        IssuerState::Fresh => Finding::ok("issuers", format!("`{name}` gives its keys")),
        IssuerState::Waiting => Finding::ok("issuers", format!("`{name}` was not asked for its keys yet")),
        IssuerState::Pinned => Finding::ok("issuers", format!("`{name}` has pinned keys")),
        IssuerState::Disabled => Finding::ok("issuers", format!("`{name}` is disabled")),
    }
}

fn discovery(url: &str) -> String {
    look(&format!("{}/.well-known/openid-configuration   #", url.trim_end_matches('/')))
}

/// `what`: an address, and where a comment begins.
fn look(what: &str) -> String {
    format!("curl -sSI {what} from this machine: DNS, proxy, firewall, CAs")
}

/// Asks each for its keys, as a broker would.
pub async fn asked(bundle: &Bundle, fetcher: Fetcher, now: UnixMs) -> Vec<Finding> {
    let keys = IssuerKeys::new(fetcher);
    let mut found = Vec::new();
    let all = async {
        for issuer in bundle.issuers.values().filter(|issuer| !issuer.disabled) {
            found.push(ask(&keys, issuer, now).await);
        }
    };
    if timeout(ALL, all).await.is_err() {
        let what = format!("issuers did not answer within {} s", ALL.as_secs());
        found.push(Finding::wrong("issuers", what, "look at DNS, proxy and firewall of this machine"));
    }
    if found.is_empty() {
        found.push(Finding::warning("issuers", "the bundle has none: nobody is believed", "dayfly trust add --help"));
    }
    found
}

async fn ask(keys: &IssuerKeys, issuer: &Issuer, now: UnixMs) -> Finding {
    let name = &issuer.name;
    let look = match &issuer.keys {
        KeySource::Pinned { .. } | KeySource::TrustBundle { .. } => {
            return Finding::ok("issuers", format!("`{name}` has pinned keys"));
        }
        KeySource::Roots { .. } => return Finding::ok("issuers", format!("`{name}` has pinned roots")),
        KeySource::Discovery { .. } => discovery(&issuer.url),
        KeySource::BundleEndpoint { url, .. } => look(&format!("{url}   #")),
    };
    let alg = issuer.algs.first().map_or("", String::as_str);
    match keys.of(issuer, None, alg, now).await {
        Ok(_) => Finding::ok("issuers", format!("`{name}` gives its keys")),
        Err(error) => Finding::wrong("issuers", error.to_string(), look),
    }
}

#[cfg(test)]
mod tests {
    use dayfly_domain::BindingKind;

    use super::*;
    use crate::{
        cli::doctor::finding::Verdict,
        flow::{BundleSource, Folder},
        policy::BundleEnv,
    };

    #[test]
    fn what_the_broker_knows_is_told_again() {
        let of = |source: &str, name: &str, state: &str, why: Option<&str>| {
            serde_json::json!({
                "name": name, "profile": "oidc", "kind": "workload", "url": format!("https://{name}.example/"),
                "source": source, "state": state, "keys": 1, "failures": 0, "why": why,
            })
        };
        let issuer = |name: &str, state: &str, why: Option<&str>| of("discovery", name, state, why);
        let issuers = serde_json::json!([
            issuer("a", "fresh", None),
            issuer("b", "down", Some("its host has no address")),
            issuer("c", "stale", Some("the fetch took too long")),
            issuer("d", "pinned", None),
            of("endpoint", "e", "down", None),
        ]);
        let found = told(&serde_json::from_value::<Vec<Shown>>(issuers).unwrap());
        let verdicts: Vec<_> = found.iter().map(|finding| finding.verdict).collect();
        assert_eq!(verdicts, [Verdict::Ok, Verdict::Wrong, Verdict::Warning, Verdict::Ok, Verdict::Wrong]);
        let mend = found[1].mend.as_ref().unwrap();
        assert!(mend.contains("https://b.example/.well-known/openid-configuration"), "{mend}");
        assert!(mend.contains("dayfly issuer refresh b"), "{mend}");
        let mend = found[4].mend.as_ref().unwrap();
        assert!(mend.contains("spiffe_bundle_url") && !mend.contains("openid-configuration"), "{mend}");
    }

    /// A port that nobody listens on, and a name that cannot exist.
    #[tokio::test]
    async fn an_issuer_that_cannot_be_reached_is_wrong() {
        dayfly_verifier::crypto::init().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!(
            "format = 1\ntrust_domain = \"example.org\"\n[owner.o]\n\
             [issuer.near]\nprofile = \"oidc\"\nowner = \"o\"\nurl = \"https://127.0.0.1:{port}\"\n\
             keys = {{ discovery = true, allow_private = true }}\n\
             [issuer.mesh]\nprofile = \"spiffe\"\nowner = \"o\"\nurl = \"spiffe://prod.example\"\n\
             keys = {{ spiffe_bundle_url = \"https://127.0.0.1:{port}/bundle\", allow_private = true }}\n\
             [issuer.private]\nprofile = \"oidc\"\nowner = \"o\"\nurl = \"https://localhost:{port}\"\n"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), text).unwrap();
        let env = BundleEnv { issuer_url: "https://b.example".to_owned(), broker_binding: BindingKind::Dpop };
        let loaded = Folder { path: dir.path().to_owned(), env }.load().unwrap();
        let found = asked(loaded.policy.bundle(), Fetcher::new(), UnixMs::from_s(1_800_000_000)).await;
        assert!(found.len() == 3 && found.iter().all(|finding| finding.verdict == Verdict::Wrong), "{found:?}");
        let mend = found[0].mend.as_ref().unwrap();
        assert!(mend.contains(&format!("curl -sSI https://127.0.0.1:{port}/bundle ")), "{mend}");
        assert!(found[2].what.contains("not public"), "{found:?}");
    }
}
