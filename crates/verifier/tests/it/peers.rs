//! Certificates at the gate: who gets in, and every way in which nobody should.

use dayfly_verifier::{
    Reason, UnixMs,
    x509::{Anchors, AnchorsError, CHAIN_MAX, CrlError, CrlSet, PeerRefusal, PeerRules, Peers, Revocation, check_peer},
};
use rcgen::{
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_RSA_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use ring::digest::{SHA256, digest};

use crate::{pki::*, support::NOW_S};

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// What a leaf with these names comes to.
fn named(names: &[SanType]) -> Result<(), PeerRefusal> {
    let pki = Pki::new();
    pki.check(&pki.leaf_of(named_params(names))).map(drop)
}

#[test]
fn a_live_certificate_names_its_workload_its_template_and_its_lease() {
    let pki = Pki::new();
    let leaf = pki.leaf();
    let peer = pki.check(&leaf).unwrap();
    assert_eq!((peer.spiffe_id.as_str(), &*peer.template), (NAME, "orders-mtls"));
    assert_eq!((peer.issuer.as_deref(), peer.ids.join("/")), (Some("github"), "4411/88120".to_owned()));
    assert_eq!((peer.lease, peer.untrusted), (lease(), false));
    assert_eq!(peer.not_after, UnixMs::from_s(NOW_S + TTL_S - 1));
    assert_eq!(peer.fingerprint, digest(&SHA256, &leaf.chain[0]).as_ref());
    let mut shuffled = leaf.chain.clone();
    shuffled.swap(1, 2);
    shuffled.push(pki.root.der.clone());
    assert_eq!(pki.check_at(&shuffled, NOW_S).unwrap(), peer, "the rest comes in any order, with the root or not");
}

#[test]
fn dates_are_inclusive_to_the_second() {
    let (pki, last_s) = (Pki::new(), NOW_S + TTL_S - 1);
    let chain = pki.leaf().chain;
    for (now_s, expected) in [
        (NOW_S - 61, Err(PeerRefusal::NotYetValid)),
        (NOW_S - 60, Ok(())),
        (last_s, Ok(())),
        (last_s + 1, Err(PeerRefusal::Expired)),
        // A clock that is wrong reads as far in the future.
        (-1, Err(PeerRefusal::Expired)),
    ] {
        assert_eq!(pki.check_at(&chain, now_s).map(drop), expected, "{now_s}");
    }
}

#[test]
fn t_144_an_expired_ca_or_another_use_is_refused() {
    let pki = Pki::until(NOW_S - 1);
    assert_eq!(pki.check(&pki.leaf()).unwrap_err(), PeerRefusal::Expired, "the area CA is over");
    let pki = Pki::new();
    for uses in [vec![ExtendedKeyUsagePurpose::ServerAuth], vec![], vec![ExtendedKeyUsagePurpose::Any]] {
        let mut params = leaf_params();
        params.extended_key_usages = uses;
        assert_eq!(pki.check(&pki.leaf_of(params)).unwrap_err(), PeerRefusal::Purpose);
    }
    for usages in [vec![], vec![KeyUsagePurpose::KeyEncipherment]] {
        let mut params = leaf_params();
        params.key_usages = usages;
        assert_eq!(pki.check(&pki.leaf_of(params)).unwrap_err(), PeerRefusal::Purpose);
    }
}

#[test]
fn t_137_a_leaf_is_no_anchor() {
    let pki = Pki::new();
    let leaf = pki.leaf();
    assert_eq!(Anchors::from_der(&leaf.chain[..1]).unwrap_err(), AnchorsError::NotCa);
    // Somebody else's CA of the same name, with the same serial and dates.
    let other = Pki::new();
    assert_eq!(pki.check(&other.leaf()).unwrap_err(), PeerRefusal::Chain);
    let mut mixed = other.leaf().chain;
    mixed[1] = pki.issuing.der.clone();
    assert_eq!(pki.check_at(&mixed, NOW_S).unwrap_err(), PeerRefusal::Chain);
}

#[test]
fn anchors_are_certificates_of_cas_and_nothing_else() {
    let pki = Pki::new();
    let pem = |der: &[u8], label: &str| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    let good = pem(&pki.root.der, "CERTIFICATE");
    assert!(Anchors::from_pem(format!("# our root\n{good}{good}").as_bytes()).is_ok());
    let cut = pem(&pki.root.der[..100], "CERTIFICATE");
    for (bad, why) in [
        (String::new(), AnchorsError::None),
        (pem(&pki.root.der, "PUBLIC KEY"), AnchorsError::None),
        (cut.clone(), AnchorsError::Malformed),
        (good.clone() + &cut, AnchorsError::Malformed),
        (pem(&[&pki.root.der[..], b"x"].concat(), "CERTIFICATE"), AnchorsError::Malformed),
    ] {
        assert_eq!(Anchors::from_pem(bad.as_bytes()).unwrap_err(), why, "{bad}");
    }
}

#[test]
fn a_leaf_vouches_for_nobody() {
    let pki = Pki::new();
    let mut params = leaf_params();
    params.key_usages.push(KeyUsagePurpose::KeyCertSign);
    let middle = Tier::make("issuing", 9, params, Some(&pki.issuing));
    let leaf = leaf_params().signed_by(&rcgen::KeyPair::generate().unwrap(), &middle.issuer).unwrap();
    let mut chain = pki.leaf().chain;
    chain.splice(..1, [leaf.der().clone(), middle.der]);
    assert_eq!(pki.check_at(&chain, NOW_S).unwrap_err(), PeerRefusal::Chain);
    let mut params = leaf_params();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    assert!(pki.check(&pki.leaf_of(params)).is_err(), "a CA is no leaf");
}

#[test]
fn t_139_a_level_without_a_list_is_refused() {
    let pki = Pki::new();
    let (chain, usual) = (pki.leaf().chain, Said::default());
    let lists = [pki.issuing.list(&usual), pki.area.list(&usual), pki.root.list(&usual)];
    for missing in 0..lists.len() {
        let mut some = lists.to_vec();
        some.remove(missing);
        assert_eq!(pki.check_by(&chain, &set(&some), NOW_S).unwrap_err(), PeerRefusal::NoCrl, "{missing}");
        some.push([&pki.issuing, &pki.area, &pki.root][missing].list_at(&usual, "http://pki.example/pki/other.crl"));
        assert_eq!(pki.check_by(&chain, &set(&some), NOW_S).unwrap_err(), PeerRefusal::NoCrl, "another shard");
    }
    let none = check_peer(&chain, &pki.anchors(), &rules(), None, UnixMs::from_s(NOW_S));
    assert_eq!(none.unwrap_err(), PeerRefusal::NoCrl);
    let elsewhere = rules().with_revocation(Revocation::Elsewhere);
    let now = UnixMs::from_s(NOW_S);
    assert!(check_peer(&chain, &pki.anchors(), &elsewhere, None, now).is_ok());
    let revoked = pki.crls(&Said { revoked: vec![LEASE], ..usual });
    let told = check_peer(&chain, &pki.anchors(), &elsewhere, Some(&revoked), now);
    assert_eq!(told.unwrap_err(), PeerRefusal::Revoked, "what is known counts");
}

/// One certificate with several places where its list may be: the second counts as much as the first.
#[test]
fn t_139_a_second_distribution_point_is_not_passed_over() {
    let pki = Pki::new();
    let mut params = leaf_params();
    let own = params.crl_distribution_points[0].clone();
    let other = rcgen::CrlDistributionPoint { uris: vec!["http://pki.example/pki/elsewhere.crl".to_owned()] };
    params.crl_distribution_points = vec![other, own];
    let leaf = pki.leaf_of(params);
    let revoked = pki.crls(&Said { revoked: vec![LEASE], ..Said::default() });
    assert_eq!(pki.check_by(&leaf.chain, &revoked, NOW_S).unwrap_err(), PeerRefusal::Revoked);
}

#[test]
fn what_is_revoked_at_any_level_is_refused() {
    let pki = Pki::new();
    let (chain, usual) = (pki.leaf().chain, Said::default());
    let said = |serial| Said { revoked: vec![17, serial], ..Said::default() };
    let sets = [
        [pki.issuing.list(&said(LEASE)), pki.area.list(&usual), pki.root.list(&usual)],
        [pki.issuing.list(&usual), pki.area.list(&said(pki.issuing.serial)), pki.root.list(&usual)],
        [pki.issuing.list(&usual), pki.area.list(&usual), pki.root.list(&said(pki.area.serial))],
    ];
    for lists in sets {
        assert_eq!(pki.check_by(&chain, &set(&lists), NOW_S).unwrap_err(), PeerRefusal::Revoked);
    }
    assert!(pki.check_by(&chain, &pki.crls(&said(LEASE + 1)), NOW_S).is_ok());
}

#[test]
fn a_list_past_its_next_update_says_nothing() {
    let pki = Pki::new();
    let (chain, crls) = (pki.leaf().chain, pki.crls(&Said { next_s: NOW_S + 60, ..Said::default() }));
    assert!(pki.check_by(&chain, &crls, NOW_S + 59).is_ok());
    for now_s in [NOW_S + 60, NOW_S + 61] {
        let refusal = pki.check_by(&chain, &crls, now_s).unwrap_err();
        assert_eq!((refusal, refusal.reason()), (PeerRefusal::StaleCrl, Reason::IssuerDown));
    }
}

#[test]
fn a_list_that_its_ca_did_not_sign_is_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let usual = Said::default();
    let lists = [other.issuing.list(&usual), pki.area.list(&usual), pki.root.list(&usual)];
    assert_eq!(pki.check_by(&pki.leaf().chain, &set(&lists), NOW_S).unwrap_err(), PeerRefusal::BadCrl);
}

#[test]
fn t_140_a_broken_list_is_an_error_and_no_panic() {
    let pki = Pki::new();
    let list = pki.issuing.list(&Said { revoked: vec![1, 2, LEASE], ..Said::default() });
    for cut in 0..list.len() {
        assert!(CrlSet::parse(&list[..cut]).is_err(), "{cut}");
    }
    let longer = [&list[..], b"\0"].concat();
    assert_eq!(CrlSet::parse(&longer).unwrap_err(), CrlError::Malformed);
    let chain = pki.leaf().chain;
    let rest = [pki.area.list(&Said::default()), pki.root.list(&Said::default())];
    for at in 0..list.len() {
        for mask in [0x01, 0x20, 0x80, 0xff] {
            let mut broken = list.clone();
            broken[at] ^= mask;
            // Read or not: it never lets the revoked one in.
            let Ok(_) = CrlSet::parse(&broken) else { continue };
            let crls = set(&[&[broken], &rest[..]].concat());
            assert!(pki.check_by(&chain, &crls, NOW_S).is_err(), "{at} {mask}");
        }
    }
}

#[test]
fn files_of_lists_are_bounded_and_whole() {
    let pki = Pki::new();
    let list = pki.issuing.list(&Said::default());
    assert_eq!(CrlSet::parse(&list).unwrap().count(), 1, "a single one in DER");
    assert_eq!(CrlSet::parse(b"").unwrap_err(), CrlError::None);
    assert_eq!(CrlSet::parse(&vec![b'x'; (32 << 20) + 1]).unwrap_err(), CrlError::Size);
    assert_eq!(CrlSet::parse(pem(&vec![list.clone(); 1025]).as_bytes()).unwrap_err(), CrlError::Size);
    let cut = pem(std::slice::from_ref(&list)).replace("-----END", "");
    assert!(CrlSet::parse((pem(&[list]) + &cut).as_bytes()).is_err());
}

#[test]
fn the_newest_list_of_a_file_counts() {
    let pki = Pki::new();
    let (old, new) = (Said::default(), Said { number: 8, revoked: vec![LEASE], ..Said::default() });
    for pair in [[&old, &new], [&new, &old]] {
        let usual = [pki.area.list(&old), pki.root.list(&old)];
        let lists = [&pair.map(|said| pki.issuing.list(said)), &usual[..]].concat();
        assert_eq!(pki.check_by(&pki.leaf().chain, &set(&lists), NOW_S).unwrap_err(), PeerRefusal::Revoked);
    }
}

#[test]
fn an_older_list_does_not_replace_a_newer_one() {
    let pki = Pki::new();
    let peers = Peers::new(pki.anchors(), rules());
    let (chain, now) = (pki.leaf().chain, UnixMs::from_s(NOW_S));
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::NoCrl, "nobody enters before there are lists");
    peers.put_crls(pki.crls(&Said::default())).unwrap();
    assert!(peers.check(&chain, now).is_ok());
    peers.put_crls(pki.crls(&Said { number: 8, revoked: vec![LEASE], ..Said::default() })).unwrap();
    peers.put_crls(pki.crls(&Said::default())).unwrap();
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::Revoked, "the newest counts, whichever came last");
    assert_eq!(peers.put_crls(pki.crls(&Said::default())).unwrap_err(), CrlError::Older);
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::Revoked, "what is in force stays");
}

#[test]
fn a_list_that_is_left_out_is_not_forgotten() {
    let pki = Pki::new();
    let peers = Peers::new(pki.anchors(), rules());
    let (chain, now, usual) = (pki.leaf().chain, UnixMs::from_s(NOW_S), Said::default());
    peers.put_crls(pki.crls(&Said { number: 8, revoked: vec![LEASE], ..Said::default() })).unwrap();
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::Revoked);
    peers.put_crls(set(&[pki.area.list(&usual), pki.root.list(&usual)])).unwrap();
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::Revoked, "without the list that says it");
    assert_eq!(peers.put_crls(pki.crls(&usual)).unwrap_err(), CrlError::Older, "and with the one of before");
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::Revoked);
}

#[test]
fn a_forged_list_keeps_nobody_out() {
    let (pki, twin) = (Pki::new(), Pki::new());
    let peers = Peers::new(pki.anchors(), rules());
    let (chain, now) = (pki.leaf().chain, UnixMs::from_s(NOW_S));
    let usual = Said::default();
    // Of the same name and place, with a number that no true one reaches.
    let forged = twin.issuing.list(&Said { number: u64::MAX, revoked: vec![LEASE], ..Said::default() });
    let mixed = || set(&[forged.clone(), pki.area.list(&usual), pki.root.list(&usual)]);
    peers.put_crls(mixed()).unwrap();
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::NoCrl, "it counts for nothing");
    peers.put_crls(pki.crls(&usual)).unwrap();
    assert!(peers.check(&chain, now).is_ok());
    for _ in 0..9 {
        peers.put_crls(mixed()).unwrap();
        assert!(peers.check(&chain, now).is_ok());
    }
    peers.put_crls(mixed()).unwrap();
    peers.put_crls(pki.crls(&Said { number: 8, revoked: vec![LEASE], ..Said::default() })).unwrap();
    assert_eq!(peers.check(&chain, now).unwrap_err(), PeerRefusal::Revoked, "the true one is heard");
    let stranger = twin.leaf().chain;
    assert_eq!(peers.check(&stranger, now).unwrap_err(), PeerRefusal::Chain, "whose lists prove nothing");
}

#[test]
fn t_146_a_common_name_is_no_identity() {
    let pki = Pki::new();
    for names in [vec![], vec![SanType::DnsName("prod.example".try_into().unwrap())]] {
        let mut params = named_params(&names);
        params.distinguished_name.push(DnType::CommonName, NAME);
        assert_eq!(pki.check(&pki.leaf_of(params)).unwrap_err(), PeerRefusal::Name);
    }
    let mut params = leaf_params();
    params.distinguished_name.push(DnType::CommonName, "spiffe://prod.example/admin/github/1");
    assert_eq!(pki.check(&pki.leaf_of(params)).unwrap().spiffe_id, NAME);
}

#[test]
fn two_names_are_none() {
    let dns = SanType::DnsName("orders.prod.example".try_into().unwrap());
    assert_eq!(named(&[uri(NAME), dns]), Ok(()), "a server's certificate has DNS names too");
    for names in [[uri(NAME), uri("spiffe://prod.example/admin/github/1")], [uri(NAME), uri(NAME)]] {
        assert_eq!(named(&names), Err(PeerRefusal::Name));
    }
    assert_eq!(named(&[uri("https://prod.example/x"), uri(NAME)]), Err(PeerRefusal::Name));
}

#[test]
fn a_name_of_another_trust_domain_or_template_does_not_enter() {
    let hash = "0123456789abcdef0123456789abcdef";
    for (name, expected) in [
        ("spiffe://dev.example/orders-mtls/github/1", PeerRefusal::TrustDomain),
        ("spiffe://prod.example.evil/orders-mtls/github/1", PeerRefusal::TrustDomain),
        ("spiffe://prod.example/admin/github/1", PeerRefusal::Template),
        ("spiffe://prod.example/orders-mtls-2/github/1", PeerRefusal::Template),
        (&format!("spiffe://prod.example/{hash}"), PeerRefusal::Template),
        ("spiffe://prod.example/orders-mtls/github/1/untrusted", PeerRefusal::Untrusted),
        (&format!("spiffe://prod.example/orders-mtls/{hash}/untrusted"), PeerRefusal::Untrusted),
        ("spiffe://prod.example/orders-mtls/github", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls/Git Hub/1", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls/GitHub/1", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls//1", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls/github/../1", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls/github/%31", PeerRefusal::Name),
        ("spiffe://prod.example/orders-mtls/github/1?x", PeerRefusal::Name),
        ("SPIFFE://prod.example/orders-mtls/github/1", PeerRefusal::Name),
        ("spiffe://PROD.example/orders-mtls/github/1", PeerRefusal::Name),
        ("spiffe://prod.example:443/orders-mtls/github/1", PeerRefusal::Name),
        ("https://prod.example/orders-mtls/github/1", PeerRefusal::Name),
        (&format!("spiffe://prod.example/orders-mtls/github/{}", "9".repeat(90)), PeerRefusal::Name),
    ] {
        assert_eq!(named(&[uri(name)]), Err(expected), "{name}");
    }
    assert_eq!(named(&[uri(&format!("spiffe://prod.example/orders-mtls/github/{hash}"))]), Ok(()));
    assert_eq!(named(&[uri(&format!("spiffe://prod.example/orders-mtls/{hash}"))]), Ok(()));
}

#[test]
fn untrusted_code_enters_only_where_that_is_meant() {
    let pki = Pki::new();
    let leaf = pki.leaf_of(named_params(&[uri("spiffe://prod.example/orders-mtls/github/1/untrusted")]));
    let crls = pki.crls(&Said::default());
    let enters = |rules: &PeerRules| {
        check_peer(&leaf.chain, &pki.anchors(), rules, Some(&crls), UnixMs::from_s(NOW_S)).map(|peer| peer.untrusted)
    };
    assert_eq!(enters(&rules()), Err(PeerRefusal::Untrusted));
    assert_eq!(enters(&rules().admit_untrusted()), Ok(true));
    assert_eq!(enters(&PeerRules::new(DOMAIN).unwrap()), Err(PeerRefusal::Template), "nobody is admitted");
    for bad in ["", "Prod.example", "prod.example/", "a b"] {
        assert!(PeerRules::new(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_serial_number_that_is_no_lease_is_refused() {
    let pki = Pki::new();
    let mut params = leaf_params();
    params.serial_number = Some(SerialNumber::from_slice(&[1; 17]));
    assert_eq!(pki.check(&pki.leaf_of(params)).unwrap_err(), PeerRefusal::Serial);
}

/// A public key of as many octets as one likes; nobody has it.
struct Huge(Vec<u8>);

impl PublicKeyData for Huge {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

#[test]
fn t_133_a_huge_key_is_refused_before_it_costs_anything() {
    let pki = Pki::new();
    let rsa = |octets: u16| {
        let modulus = [&[0x02, 0x82][..], &(octets + 1).to_be_bytes(), &[0], &vec![0xff; octets.into()]].concat();
        let inner = [&modulus[..], &[0x02, 0x03, 1, 0, 1]].concat();
        let whole = [&[0x30, 0x82][..], &u16::try_from(inner.len()).unwrap().to_be_bytes(), &inner].concat();
        pki.leaf_for(&Huge(whole))
    };
    assert!(pki.check_at(&rsa(512), NOW_S).is_ok(), "4096 bits");
    assert_eq!(pki.check_at(&rsa(2048), NOW_S).unwrap_err(), PeerRefusal::Size);
}

#[test]
fn what_is_presented_is_bounded() {
    let pki = Pki::new();
    let chain = pki.leaf().chain;
    assert_eq!(pki.check_at(&[], NOW_S).unwrap_err(), PeerRefusal::Size);
    let padded = |count: usize| chain.iter().cycle().take(count).cloned().collect::<Vec<_>>();
    assert!(pki.check_at(&padded(CHAIN_MAX), NOW_S).is_ok());
    assert_eq!(pki.check_at(&padded(CHAIN_MAX + 1), NOW_S).unwrap_err(), PeerRefusal::Size);
    let mut huge = chain.clone();
    huge[1] = vec![0x30; 20_000].into();
    assert_eq!(pki.check_at(&huge, NOW_S).unwrap_err(), PeerRefusal::Size);
    let mut longer = chain.clone();
    longer[0] = [&chain[0][..], b"x"].concat().into();
    assert_eq!(pki.check_at(&longer, NOW_S).unwrap_err(), PeerRefusal::Malformed);
}

#[test]
fn every_broken_octet_of_a_leaf_is_refused() {
    let pki = Pki::new();
    let (chain, crls) = (pki.leaf().chain, pki.crls(&Said::default()));
    for at in 0..chain[0].len() {
        let mut broken = chain[0].to_vec();
        broken[at] ^= 0x01;
        let broken = [broken.into(), chain[1].clone(), chain[2].clone()];
        assert!(pki.check_by(&broken, &crls, NOW_S).is_err(), "{at}");
    }
}

#[test]
fn a_refusal_shows_nothing_of_the_certificate() {
    let pki = Pki::new();
    let refusal = pki.check(&pki.leaf_of(named_params(&[uri("spiffe://prod.example/secret/a/b")]))).unwrap_err();
    assert!(!format!("{refusal} {refusal:?}").contains("secret"));
}
