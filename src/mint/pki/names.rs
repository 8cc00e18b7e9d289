//! DNS names that a chain lets its leaves have (RFC 5280 section 4.2.1.10): a server's certificate with another is
//! refused by whoever checks it, so none is made.

use dayfly_domain::bundle::{Bundle, Template};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::{GeneralName, GeneralSubtree},
    prelude::{FromDer, X509Certificate},
};

use super::{ca::CaId, der, turns::Pki};

/// 2.5.29.30
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 30];

impl Pki {
    /// The first of `names` that no leaf of this issuing CA may have.
    // SECURITY: `a_name_outside_the_area_cas_constraint_gets_no_certificate`.
    pub fn forbidden<'n>(&self, ca: &CaId, names: &'n [String]) -> Option<&'n String> {
        names.first()?;
        let limits = self.limits(Some(ca));
        names.iter().find(|name| !allow(&limits, name))
    }

    /// What the bundle asks, and the CAs above who signs now, or will, do not allow.
    pub fn unservable(&self, bundle: &Bundle) -> Option<String> {
        let limits = self.limits(self.active_id().as_ref());
        let served = bundle.templates.values().filter(|template| !template.disabled);
        let out = |template: &Template| template.serves.iter().find(|name| !allow(&limits, name)).cloned();
        let mut out = served.filter_map(|template| Some((&template.name, out(template)?)));
        let (task, name) = out.next()?;
        let more = match out.count() {
            0 => String::new(),
            more => format!(", nor do {more} more"),
        };
        Some(format!("the CAs above constrain DNS names: task `{task}` gets no certificate, for `{name}`{more}"))
    }

    /// Of the CAs above this one; `None`: above the next one. Where they are not found, nothing is allowed.
    fn limits(&self, ca: Option<&CaId>) -> Vec<Limits> {
        let (turns, authority) = (self.turns.load(), self.authority());
        let area = match ca {
            Some(ca) => turns.all().find(|held| held.ca.id() == ca).map(|held| &held.area),
            // The one of now is first.
            None => authority.areas.first().map(|area| area.ca.id()),
        };
        let area = authority.areas.iter().find(|one| Some(one.ca.id()) == area);
        area.map_or_else(|| vec![Limits::nothing()], |area| area.chain().iter().filter_map(Limits::of).collect())
    }
}

/// What a certificate says of DNS names.
#[derive(Debug)]
struct Limits {
    /// None: whatever is not excluded.
    permitted: Vec<String>,
    excluded: Vec<String>,
}

impl Limits {
    /// `None`: it says nothing. One that cannot be read allows nothing.
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let Ok((_, read)) = X509Certificate::from_der(der) else { return Some(Self::nothing()) };
        let Ok(found) = read.name_constraints() else { return Some(Self::nothing()) };
        let trees = found?.value;
        // What it cannot read the reader marks, or leaves out.
        let all = [&trees.permitted_subtrees, &trees.excluded_subtrees].into_iter().flatten().flatten();
        let left = all.filter(|tree| !matches!(tree.base, GeneralName::Invalid(..))).count();
        if left == 0 || trees_in(&read) != Some(left) {
            return Some(Self::nothing());
        }
        let dns = |trees: &Option<Vec<GeneralSubtree<'_>>>| trees.iter().flatten().filter_map(dns).collect();
        Some(Self { permitted: dns(&trees.permitted_subtrees), excluded: dns(&trees.excluded_subtrees) })
    }

    /// Every name is below the empty one.
    fn nothing() -> Self {
        Self { permitted: Vec::new(), excluded: vec![String::new()] }
    }
}

fn allow(limits: &[Limits], name: &str) -> bool {
    limits.iter().all(|Limits { permitted, excluded }| {
        let below = |bases: &[String]| bases.iter().any(|base| is_below(name, base));
        !below(excluded) && (permitted.is_empty() || below(permitted))
    })
}

/// How many subtrees its name constraints have, permitted and excluded.
fn trees_in(certificate: &X509Certificate<'_>) -> Option<usize> {
    let constraints = certificate.extensions().iter().find(|found| found.oid.as_bytes() == NAME_CONSTRAINTS)?;
    der::all_of(constraints.value)?.into_iter().map(|part| Some(der::all_of(part)?.len())).sum()
}

fn dns(tree: &GeneralSubtree<'_>) -> Option<String> {
    match tree.base {
        GeneralName::DNSName(base) => Some(base.to_ascii_lowercase()),
        _ => None,
    }
}

/// The name itself, or with labels put before it; after a dot, as some write it, only those. Both in lower case, as a
/// bundle's names are.
fn is_below(name: &str, base: &str) -> bool {
    match name.strip_suffix(base) {
        Some(before) => base.is_empty() || base.starts_with('.') || before.is_empty() || before.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CidrSubnet, CustomExtension, GeneralSubtree as Tree, IsCa, KeyPair, NameConstraints,
    };

    use super::*;

    fn certificate(constraints: Option<NameConstraints>, custom: Option<CustomExtension>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.name_constraints = constraints;
        params.custom_extensions.extend(custom);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn with(permitted: &[&str], excluded: &[&str]) -> Limits {
        let trees = |names: &[&str]| names.iter().map(|name| Tree::DnsName((*name).to_owned())).collect();
        let constraints = NameConstraints { permitted_subtrees: trees(permitted), excluded_subtrees: trees(excluded) };
        Limits::of(&certificate(Some(constraints), None)).unwrap()
    }

    /// With these octets as its name constraints.
    fn constrained(octets: Vec<u8>) -> Option<Limits> {
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], octets);
        extension.set_criticality(true);
        Limits::of(&certificate(None, Some(extension)))
    }

    #[test]
    fn a_name_is_allowed_as_servers_read_it() {
        let shop = [with(&["Shop.Example.org", "localhost"], &["old.shop.example.org"])];
        for allowed in ["shop.example.org", "db.shop.example.org", "a.b.shop.example.org", "localhost"] {
            assert!(allow(&shop, allowed), "{allowed}");
        }
        for not in [
            "example.org",
            "workshop.example.org",
            "shop.example.org.evil",
            "old.shop.example.org",
            "x.old.shop.example.org",
        ] {
            assert!(!allow(&shop, not), "{not}");
        }
        let dotted = [with(&[".example.org"], &[])];
        assert!(allow(&dotted, "a.example.org") && !allow(&dotted, "example.org"));
        assert!(allow(&[with(&[], &["evil.org"])], "example.org") && !allow(&[with(&[], &[""])], "example.org"));
        let tiers = [with(&["example.org"], &[]), with(&["db.example.org", "evil.org"], &[])];
        assert!(allow(&tiers, "db.example.org") && !allow(&tiers, "evil.org") && !allow(&tiers, "example.org"));
    }

    #[test]
    fn what_says_nothing_of_dns_names_allows_all_and_what_cannot_be_read_nothing() {
        assert!(Limits::of(&certificate(None, None)).is_none());
        let addresses = Tree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]));
        let constraints = NameConstraints { permitted_subtrees: vec![addresses], excluded_subtrees: Vec::new() };
        let limits = Limits::of(&certificate(Some(constraints), None)).unwrap();
        assert!(allow(&[limits], "anything.example.com"));
        let tree = |base: &[u8]| der::sequence(base);
        let (name, no_text, unknown) = (tree(b"\x82\x03a.b"), tree(&[0x82, 1, 0xff]), tree(&[0x8f, 0]));
        let part = |tag: u8, trees: &[&[u8]]| der::element(tag, &trees.concat());
        let readable = der::sequence(&part(0xa0, &[&tree(b"\x82\x0bexample.org")]));
        for (what, constraints) in [
            ("a base that is no text", der::sequence(&part(0xa0, &[&no_text]))),
            ("the same after one that is", der::sequence(&part(0xa0, &[&name, &no_text]))),
            (
                "the same, excluded",
                der::sequence(&[part(0xa0, &[&tree(b"\x82\x0bexample.org")]), part(0xa1, &[&no_text])].concat()),
            ),
            ("and before what is excluded", der::sequence(&[part(0xa0, &[&no_text]), part(0xa1, &[&name])].concat())),
            ("a form that is unknown", der::sequence(&part(0xa1, &[&name, &unknown]))),
            ("nothing permitted, nothing excluded", der::sequence(&[])),
            ("no sequence", vec![5, 0]),
            ("cut", readable[..readable.len() - 1].to_vec()),
        ] {
            let limits = constrained(constraints);
            assert!(limits.is_some_and(|limits| !allow(&[limits], "example.org")), "{what}");
        }
        assert!(allow(&[constrained(readable).unwrap()], "example.org"), "by hand as by the builder");
        let cut = Limits::of(&CertificateDer::from(vec![0x30, 0])).unwrap();
        assert!(!allow(&[cut], "example.org"));
    }
}
