//! Paths and lists that broke other verifiers, made here case by case after x509-limbo's classes (`nc`, `crl`,
//! `pathological`, `pathlen`, `eku`): RFC 5280 says of each which way it goes, and so must the gate.

use std::net::IpAddr;

use dayfly_verifier::{
    UnixMs,
    x509::{Anchors, CHAIN_MAX, PeerRefusal, check_peer},
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::CertificateDer;

use crate::{pki::*, support::NOW_S};

const YEAR_S: i64 = 365 * 86_400;

/// One element of DER; `tag` as it stands on the wire.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let head = match content.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

/// A subtree: the kind of name (its tag in a `GeneralName`), and the name.
type Subtree<'a> = (u8, &'a [u8]);

const MAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const FOLDER: u8 = 0xa4;
const URI: u8 = 0x86;
const IP: u8 = 0x87;

/// A name constraints extension (RFC 5280 section 4.2.1.10), critical.
fn constraints(permitted: &[Subtree<'_>], excluded: &[Subtree<'_>]) -> CustomExtension {
    let tree = |(kind, name): &Subtree<'_>| tlv(0x30, &[&tlv(*kind, &[name])]);
    let trees = |tag: u8, subtrees: &[Subtree<'_>]| match subtrees {
        [] => Vec::new(),
        _ => tlv(tag, &[&subtrees.iter().flat_map(tree).collect::<Vec<u8>>()]),
    };
    let value = tlv(0x30, &[&trees(0xa0, permitted), &trees(0xa1, excluded)]);
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], value);
    extension.set_criticality(true);
    extension
}

/// An authority whose tiers were changed: root, area, issuing.
pub fn changed(change: impl Fn(usize, &mut CertificateParams)) -> Pki {
    let params = |tier: usize, name: &str| {
        let mut params = ca_params(name, NOW_S + 86_400);
        change(tier, &mut params);
        params
    };
    let root = Tier::make("root", 1, params(0, "root"), None);
    let area = Tier::make("area", 2, params(1, "area"), Some(&root));
    let issuing = Tier::make("issuing", 3, params(2, "issuing"), Some(&area));
    Pki { root, area, issuing }
}

/// What a leaf of these names, beside its SPIFFE ID, comes to below each tier that has these constraints.
fn below(extension: &CustomExtension, names: &[SanType]) -> Result<(), PeerRefusal> {
    let told = [0, 1, 2].map(|constrained| {
        let pki = changed(|tier, params| {
            if tier == constrained {
                params.custom_extensions.push(extension.clone());
            }
        });
        let names = [&[SanType::URI(NAME.try_into().unwrap())], names].concat();
        pki.check(&pki.leaf_of(named_params(&names))).map(drop)
    });
    assert!(told.iter().all(|one| *one == told[0]), "the level makes no difference: {told:?}");
    told[0]
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn mail(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse::<IpAddr>().unwrap())
}

#[test]
fn t_141_a_dns_name_outside_its_constraint_is_refused() {
    let permitted = constraints(&[(DNS, b"prod.example")], &[]);
    for inside in ["prod.example", "orders.prod.example", "ORDERS.Prod.Example", "*.prod.example", "a.b.prod.example"] {
        assert_eq!(below(&permitted, &[dns(inside)]), Ok(()), "{inside}");
    }
    for outside in [
        "notprod.example",
        "prod.example.evil",
        "example",
        "*.example",
        "dev.example",
        "prod.example.",
        "orders.prod.example.",
        ".prod.example",
        "orders..prod.example",
        "orders.prod.example\0.evil",
        "*",
    ] {
        assert_eq!(below(&permitted, &[dns(outside)]), Err(PeerRefusal::Chain), "{outside:?}");
        assert_eq!(
            below(&permitted, &[dns("orders.prod.example"), dns(outside)]),
            Err(PeerRefusal::Chain),
            "{outside:?}"
        );
    }
    assert_eq!(below(&permitted, &[]), Ok(()), "a kind of name that is not there");
    assert_eq!(below(&permitted, &[ip("10.0.0.1"), mail("a@evil.example")]), Ok(()), "or another one");
}

#[test]
fn t_141_a_dns_name_inside_what_is_excluded_is_refused_in_any_spelling() {
    let excluded = constraints(&[], &[(DNS, b"Secret.prod.example")]);
    for inside in [
        "secret.prod.example",
        "SECRET.PROD.EXAMPLE",
        "a.secret.prod.example",
        "*.secret.prod.example",
        // It stands for `secret.prod.example` too.
        "*.prod.example",
        "secret.prod.example.",
    ] {
        assert_eq!(below(&excluded, &[dns(inside)]), Err(PeerRefusal::Chain), "{inside}");
    }
    for outside in ["prod.example", "notsecret.prod.example", "*.other.example"] {
        assert_eq!(below(&excluded, &[dns(outside)]), Ok(()), "{outside}");
    }
    let both = constraints(&[(DNS, b"prod.example")], &[(DNS, b"secret.prod.example")]);
    assert_eq!(below(&both, &[dns("a.prod.example")]), Ok(()));
    assert_eq!(below(&both, &[dns("a.secret.prod.example")]), Err(PeerRefusal::Chain), "what is excluded wins");
}

/// What the library does not understand it refuses, whichever way the constraint points.
#[test]
fn t_141_a_constraint_on_uris_refuses_every_spiffe_id() {
    for host in [&b"prod.example"[..], b".prod.example", b"evil.example", b"PROD.example", b""] {
        for extension in [constraints(&[(URI, host)], &[]), constraints(&[], &[(URI, host)])] {
            assert_eq!(below(&extension, &[]), Err(PeerRefusal::Chain), "{host:?}");
        }
    }
}

#[test]
fn t_141_constraints_on_addresses_mail_and_folders_hold() {
    let ten = constraints(&[(IP, &[10, 0, 0, 0, 255, 0, 0, 0])], &[]);
    assert_eq!(below(&ten, &[ip("10.1.2.3")]), Ok(()));
    for outside in ["11.0.0.1", "::ffff:10.1.2.3", "fe80::1"] {
        assert_eq!(below(&ten, &[ip(outside)]), Err(PeerRefusal::Chain), "{outside}");
    }
    let no_loop = constraints(&[], &[(IP, &[[0; 15].as_slice(), &[1], &[255; 16]].concat())]);
    assert_eq!(below(&no_loop, &[ip("::1")]), Err(PeerRefusal::Chain));
    assert_eq!(below(&no_loop, &[ip("::2")]), Ok(()));
    for mask in [&[10, 0, 0, 0, 255, 0, 255, 0][..], &[10, 0, 0, 0], &[10, 0, 0, 0, 255]] {
        assert!(below(&constraints(&[(IP, mask)], &[]), &[ip("10.1.2.3")]).is_err(), "{mask:?} is no network");
    }
    for extension in [constraints(&[(MAIL, b"prod.example")], &[]), constraints(&[], &[(MAIL, b"prod.example")])] {
        for address in ["a@prod.example", "a@PROD.EXAMPLE", "a@evil.example", "\"a@prod.example\"@evil.example"] {
            assert_eq!(below(&extension, &[mail(address)]), Err(PeerRefusal::Chain), "{address}: it is not read");
        }
        assert_eq!(below(&extension, &[]), Ok(()));
    }
    let folder = tlv(0x30, &[&tlv(0x31, &[&tlv(0x30, &[&[0x06, 0x03, 0x55, 0x04, 0x03], &tlv(0x0c, &[b"x"])])])]);
    for extension in [constraints(&[(FOLDER, &folder)], &[]), constraints(&[], &[(FOLDER, &folder)])] {
        assert_eq!(below(&extension, &[]), Err(PeerRefusal::Chain), "it is not read");
    }
}

#[test]
fn t_141_a_constraint_that_cannot_be_read_is_refused() {
    for value in [
        vec![],
        vec![0x05, 0x00],
        tlv(0x30, &[&tlv(0xa0, &[&[0x30]])]),
        tlv(0x30, &[&tlv(0xa0, &[&tlv(0x30, &[&tlv(0x99, &[b"x"])])])]),
    ] {
        let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], value.clone());
        extension.set_criticality(true);
        let pki = changed(|tier, params| {
            if tier == 1 {
                params.custom_extensions.push(extension.clone());
            }
        });
        let told = pki.check(&pki.leaf_of(named_params(&[SanType::URI(NAME.try_into().unwrap()), dns("a.example")])));
        assert!(told.is_err(), "{value:?}");
    }
}

#[test]
fn t_141_an_extension_that_nobody_knows_is_refused_when_it_is_critical() {
    for (critical, expected) in [(false, Ok(())), (true, Err(PeerRefusal::Malformed))] {
        for place in 0..4 {
            let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            unknown.set_criticality(critical);
            let pki = changed(|tier, params| {
                if tier == place {
                    params.custom_extensions.push(unknown.clone());
                }
            });
            let mut leaf = leaf_params();
            if place == 3 {
                leaf.custom_extensions.push(unknown.clone());
            }
            // The root is a name and a key by decree; nobody reads more of it (RFC 5280 section 6.1.1 d).
            let expected = if place == 0 { Ok(()) } else { expected };
            let told = pki.check(&pki.leaf_of(leaf)).map(drop);
            assert!(told == expected || (told.is_err() && expected.is_err()), "{place} {critical}: {told:?}");
        }
    }
}

#[test]
fn t_144_a_ca_goes_no_further_than_it_may() {
    let refused = |change: &dyn Fn(usize, &mut CertificateParams)| {
        let pki = changed(change);
        pki.check(&pki.leaf()).unwrap_err()
    };
    let at = |place: usize, change: &dyn Fn(&mut CertificateParams)| {
        refused(&|tier, params| {
            if tier == place {
                change(params);
            }
        })
    };
    let long = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    assert_eq!(at(1, &long), PeerRefusal::Chain, "pathLen 0 above another CA");
    for tier in [1, 2] {
        let over = |params: &mut CertificateParams| params.not_after = crate::pki::at(NOW_S - 1);
        assert_eq!(at(tier, &over), PeerRefusal::Expired, "{tier}");
        let early = |params: &mut CertificateParams| params.not_before = crate::pki::at(NOW_S + 1);
        assert_eq!(at(tier, &early), PeerRefusal::NotYetValid, "{tier}");
        let leaf = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
        assert_eq!(at(tier, &leaf), PeerRefusal::Chain, "{tier}");
        let unsaid = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
        assert_eq!(at(tier, &unsaid), PeerRefusal::Chain, "{tier}");
        let server = |params: &mut CertificateParams| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        };
        assert_eq!(at(tier, &server), PeerRefusal::Purpose, "{tier}");
    }
    let pki = Pki::new();
    let chain = pki.leaf().chain;
    for missing in [1, 2] {
        let mut some = chain.clone();
        some.remove(missing);
        assert_eq!(pki.check_at(&some, NOW_S).unwrap_err(), PeerRefusal::Chain, "{missing}");
    }
}

/// A CA of this name below `parent`, or one that signs itself.
fn middle(name: &str, key: &KeyPair, parent: Option<&Issuer<'_, KeyPair>>, until_s: i64) -> CertificateDer<'static> {
    let params = ca_params(name, until_s);
    let signed = match parent {
        Some(parent) => params.signed_by(key, parent),
        None => params.self_signed(key),
    };
    signed.unwrap().der().clone()
}

fn issuer(name: &str, key: &KeyPair) -> Issuer<'static, KeyPair> {
    Issuer::new(ca_params(name, NOW_S + YEAR_S), KeyPair::try_from(key.serialize_der()).unwrap())
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[test]
fn t_142_a_circle_of_cas_leads_nowhere() {
    let pki = Pki::new();
    for names in [["one", "two"], ["same", "same"], ["root", "root"]] {
        let keys = [key(), key()];
        let cas = [issuer(names[0], &keys[0]), issuer(names[1], &keys[1])];
        let leaf = leaf_params().signed_by(&key(), &cas[0]).unwrap().der().clone();
        let first = middle(names[0], &keys[0], Some(&cas[1]), NOW_S + YEAR_S);
        let second = middle(names[1], &keys[1], Some(&cas[0]), NOW_S + YEAR_S);
        assert_eq!(pki.check_at(&[leaf, first, second], NOW_S).unwrap_err(), PeerRefusal::Chain, "{names:?}");
    }
}

/// One name for all CAs, and so each may have signed each.
#[test]
fn t_142_a_path_is_found_beside_a_twin_and_given_up_among_many() {
    let pki = changed(|_, params| params.distinguished_name = ca_params("same", 0).distinguished_name);
    let (leaf, crls) = (pki.leaf().chain, pki.crls(&Said::default()));
    let twin = || middle("same", &key(), None, NOW_S + YEAR_S);
    for place in 1..=leaf.len() {
        let mut shown = leaf.clone();
        shown.insert(place, twin());
        assert_eq!(pki.check_by(&shown, &crls, NOW_S).map(drop), Ok(()), "{place}");
    }
    let twins: Vec<_> = (0..CHAIN_MAX - 3).map(|_| twin()).collect();
    let right_first = [&leaf[..], &twins].concat();
    assert_eq!(pki.check_by(&right_first, &crls, NOW_S).map(drop), Ok(()));
    let right_last = [&leaf[..1], &twins, &leaf[1..]].concat();
    assert_eq!(pki.check_by(&right_last, &crls, NOW_S).unwrap_err(), PeerRefusal::Chain, "it harms itself");
    let mut strangers = right_first;
    strangers[0] = leaf_params().signed_by(&key(), &issuer("same", &key())).unwrap().der().clone();
    assert_eq!(pki.check_by(&strangers, &crls, NOW_S).unwrap_err(), PeerRefusal::Chain);
}

#[test]
fn t_142_an_expired_bridge_beside_a_good_path_does_no_harm() {
    let (pki, other) = (Pki::new(), Pki::new());
    let mut chain = pki.leaf().chain;
    let area_key = KeyPair::try_from(pki.area.issuer.key().serialize_der()).unwrap();
    let bridge = middle("area", &area_key, Some(&issuer("root-2", other.root.issuer.key())), NOW_S - 1);
    let second =
        middle("root-2", &KeyPair::try_from(other.root.issuer.key().serialize_der()).unwrap(), None, NOW_S + YEAR_S);
    let anchors = Anchors::from_der(&[second, pki.root.der.clone()]).unwrap();
    for place in 1..=chain.len() {
        let mut shown = chain.clone();
        shown.insert(place, bridge.clone());
        let crls = pki.crls(&Said::default());
        assert!(check_peer(&shown, &anchors, &rules(), Some(&crls), UnixMs::from_s(NOW_S)).is_ok(), "{place}");
    }
    chain[2] = bridge;
    let crls = pki.crls(&Said::default());
    assert!(check_peer(&chain, &anchors, &rules(), Some(&crls), UnixMs::from_s(NOW_S)).is_err(), "alone it is none");
}

#[test]
fn t_142_a_long_chain_is_not_walked() {
    let pki = Pki::new();
    let keys: Vec<_> = (0..40).map(|_| key()).collect();
    let mut chain = vec![pki.area.der.clone(), middle("ca-0", &keys[0], Some(&pki.area.issuer), NOW_S + YEAR_S)];
    for at in 1..keys.len() {
        let above = issuer(&format!("ca-{}", at - 1), &keys[at - 1]);
        chain.push(middle(&format!("ca-{at}"), &keys[at], Some(&above), NOW_S + YEAR_S));
    }
    chain.push(leaf_params().signed_by(&key(), &issuer("ca-39", &keys[39])).unwrap().der().clone());
    chain.reverse();
    assert_eq!(pki.check_at(&chain, NOW_S).unwrap_err(), PeerRefusal::Size);
}
