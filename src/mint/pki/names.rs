//! DNS names that a chain lets its leaves have (RFC 5280 section 4.2.1.10): a server's certificate with another is
//! refused by whoever checks it, so none is made.

use dayfly_domain::bundle::{Bundle, Template};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::{GeneralName, GeneralSubtree},
    prelude::{FromDer, X509Certificate},
};

use super::{ca::CaId, kept::Area, turns::Pki};

impl Pki {
    /// The first of `names` that no leaf of this issuing CA may have; `None` as the CA: of the next one.
    // SECURITY: `a_name_outside_the_area_cas_constraint_gets_no_certificate`.
    pub fn forbidden<'n>(&self, ca: Option<&CaId>, names: &'n [String]) -> Option<&'n String> {
        names.first()?;
        let (turns, authority) = (self.turns.load(), self.authority());
        let area = ca.and_then(|ca| turns.all().find(|held| held.ca.id() == ca)).map(|held| &held.area);
        // The one of now is first.
        let mut areas = authority.areas.iter();
        let chain = areas.find(|one| area.is_none_or(|area| one.ca.id() == area)).map(Area::chain).unwrap_or_default();
        names.iter().find(|name| !chain.iter().all(|der| allows(der, name)))
    }

    /// What the bundle asks and the area CA of now does not allow, a line for each task.
    pub fn unservable(&self, bundle: &Bundle) -> Vec<String> {
        let served = bundle.templates.values().filter(|template| !template.disabled);
        let line = |template: &Template| {
            let (name, task) = (self.forbidden(None, &template.serves)?, &template.name);
            Some(format!("task `{task}` gets no certificate: the CAs above constrain DNS names, and `{name}` is out"))
        };
        served.filter_map(line).collect()
    }
}

/// A certificate that cannot be read allows nothing.
fn allows(der: &CertificateDer<'_>, name: &str) -> bool {
    let Ok((_, read)) = X509Certificate::from_der(der) else { return false };
    let Ok(found) = read.name_constraints() else { return false };
    let Some(trees) = found.map(|found| found.value) else { return true };
    let excluded = trees.excluded_subtrees.iter().flatten().filter_map(dns).any(|base| is_below(name, base));
    let mut permitted = trees.permitted_subtrees.iter().flatten().filter_map(dns).peekable();
    !excluded && (permitted.peek().is_none() || permitted.any(|base| is_below(name, base)))
}

fn dns<'a>(tree: &GeneralSubtree<'a>) -> Option<&'a str> {
    match tree.base {
        GeneralName::DNSName(base) => Some(base),
        _ => None,
    }
}

/// The name itself, or with labels put before it; after a dot, as some write it, only those.
fn is_below(name: &str, base: &str) -> bool {
    let (name, base) = (name.to_ascii_lowercase(), base.to_ascii_lowercase());
    match name.strip_suffix(&base) {
        Some(before) => base.is_empty() || base.starts_with('.') || before.is_empty() || before.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dayfly_domain::UnixMs;
    use rcgen::{CertificateParams, GeneralSubtree as Tree, IsCa, KeyPair, NameConstraints};

    use super::*;
    use crate::mint::pki::{CA_TIERS, Ca, CaTerms, FileKey};

    fn with(permitted: &[&str], excluded: &[&str]) -> CertificateDer<'static> {
        let trees = |names: &[&str]| names.iter().map(|name| Tree::DnsName((*name).to_owned())).collect();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees: trees(permitted), excluded_subtrees: trees(excluded) });
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_name_is_allowed_as_servers_read_it() {
        let shop = with(&["shop.example.org", "localhost"], &["old.shop.example.org"]);
        for allowed in
            ["shop.example.org", "db.shop.example.org", "a.b.shop.example.org", "localhost", "DB.Shop.Example.Org"]
        {
            assert!(allows(&shop, allowed), "{allowed}");
        }
        for not in [
            "example.org",
            "workshop.example.org",
            "shop.example.org.evil",
            "old.shop.example.org",
            "x.old.shop.example.org",
        ] {
            assert!(!allows(&shop, not), "{not}");
        }
        let dotted = with(&[".example.org"], &[]);
        assert!(allows(&dotted, "a.example.org") && !allows(&dotted, "example.org"));
        assert!(allows(&with(&[], &["evil.org"]), "example.org") && !allows(&with(&[], &[""]), "example.org"));
        assert!(!allows(&CertificateDer::from(vec![0x30, 0]), "example.org"), "what cannot be read allows nothing");
    }

    #[test]
    fn what_says_nothing_of_dns_names_allows_all() {
        let terms = CaTerms {
            tier: CA_TIERS[0],
            trust_domain: "example.org",
            serial: [7; 16],
            from: UnixMs::from_s(1_800_000_000),
            life_s: 600,
            above: None,
            dns: &[],
        };
        let root = Ca::root(&terms, Arc::new(FileKey::generate().unwrap())).unwrap();
        assert!(allows(root.der(), "anything.example.com"));
    }
}
