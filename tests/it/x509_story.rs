//! One story of a certificate authority, told by `openssl` at every step: what its CRLs say, what its OCSP answers
//! say, whether a chain verifies, and whether the broker's introspection says the same.

use std::fs;

use dayfly::{flow::Issued, mint::pki::Ca};
use dayfly_domain::LeaseId;

use crate::{
    certs::{CERT_BUNDLE, chain, csr, feed, new_key, open, openssl, pem},
    crl::{Peer, crl_path, fetch, issuing, revoked_as},
    world::{Job, OPERATOR, World, get, handle, lease, token},
};

async fn migrate(world: &mut World) -> Issued {
    open(world, &Job::shop(), "migrate", &csr(&new_key())).await.unwrap()
}

/// The reason beside a serial number, as `openssl crl` reads the list at this path; `None`: it is not there.
async fn by_openssl_crl(world: &World, path: &str, serial: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list").to_str().unwrap().to_owned();
    let fetched = fetch(world, get(path, None)).await;
    assert_eq!(fetched.status, 200, "{path}");
    fs::write(&file, fetched.bytes).unwrap();
    let (read, said) = openssl(&["crl", "-inform", "DER", "-noout", "-text", "-in", &file]);
    assert!(read, "{said}");
    let (_, from) = said.split_once(&format!("Serial Number: {serial}\n"))?;
    let entry = from.split("Serial Number: ").next().unwrap();
    let reason = entry.split_once("CRL Reason Code:").unwrap_or_else(|| panic!("{entry}")).1;
    Some(reason.trim().lines().next().unwrap().trim().to_owned())
}

fn hex(id: LeaseId) -> String {
    format!("{:032X}", id.as_u128())
}

/// All channels agree, and this is what they say: the code of RFC 5280, and OpenSSL's word for it.
async fn all_say(world: &World, issued: &Issued, expected: Option<(u8, &str)>) {
    assert_eq!(revoked_as(world, issued).await, expected.map(|(code, _)| code));
    let path = crl_path(&chain(&token(issued))[0]);
    let listed = by_openssl_crl(world, &path, &hex(lease(issued))).await;
    assert_eq!(listed.as_deref(), expected.map(|(_, word)| word));
}

fn serial_of(ca: &Ca) -> String {
    ca.serial().unwrap().iter().map(|octet| format!("{octet:02X}")).collect()
}

/// Its key got out: all that it signed is dead, the list above names it, and it says nothing any more.
async fn the_ca_is_out(world: &World, issued: &Issued, ca: &Ca, area: &str) {
    assert_eq!(by_openssl_crl(world, area, &serial_of(ca)).await.as_deref(), Some("Key Compromise"));
    let (credential, own) = (token(issued), chain(&token(issued)));
    for named in [credential.clone(), lease(issued).to_string()] {
        assert!(!world.active(&named).await);
    }
    let peer = Peer::new(world, &credential);
    let (accepted, said) = peer.verifies(world).await;
    assert!(!accepted, "{said}");
    let above = Peer::new(world, &own[1..].iter().map(|der| pem(der)).collect::<String>());
    assert!(above.asks(world, &[]).await.contains("leaf: revoked"), "of the CA, by the one above it");
    let (accepted, said) = above.verifies(world).await;
    assert!(!accepted && said.contains("certificate revoked"), "{said}");
    assert_eq!(fetch(world, get(&crl_path(&own[0]), None)).await.status, 404, "its key is gone, and so is its list");
}

#[tokio::test]
async fn crls_ocsp_and_introspection_tell_one_story_from_issue_to_expiry() {
    let mut world = World::of(CERT_BUNDLE);
    let first = migrate(&mut world).await;
    all_say(&world, &first, None).await;
    let second = feed(&world, &handle(&first), Some(0), &csr(&new_key())).await.unwrap();
    all_say(&world, &first, Some((4, "Superseded"))).await;
    all_say(&world, &second, None).await;
    let third = migrate(&mut world).await;
    world.flow.end_lease(&OPERATOR, lease(&third), Some("leaked".into())).await.unwrap();
    all_say(&world, &third, Some((9, "Privilege Withdrawn"))).await;
    world.end(&handle(&first), second.task).await.unwrap();
    all_say(&world, &second, Some((5, "Cessation Of Operation"))).await;
    all_say(&world, &first, Some((4, "Superseded"))).await;

    let fourth = migrate(&mut world).await;
    let leaked = issuing(&world);
    all_say(&world, &fourth, None).await;
    let area = format!("/pki/{}/0.crl", world.flow.pki().unwrap().area().id());
    world.flow.taint_key(&OPERATOR, leaked.id().as_str(), Some("a backup got out".into()), false).await.unwrap();
    world.pass_s(1);
    the_ca_is_out(&world, &fourth, &leaked, &area).await;
    the_ca_is_out(&world, &third, &leaked, &area).await;
    let fifth = feed(&world, &handle(&fourth), None, &csr(&new_key())).await.unwrap();
    assert_ne!(issuing(&world).id(), leaked.id());
    all_say(&world, &fifth, None).await;
    assert!(by_openssl_crl(&world, &area, &serial_of(&leaked)).await.is_some(), "it stays there");

    // The last second of all, and the one after it.
    let (end, now) = (world.flow.lease(&OPERATOR, lease(&fifth)).await.unwrap().row.expires, world.now());
    world.pass_s(end.as_s() - now.as_s() - 3);
    all_say(&world, &fifth, None).await;
    world.pass_s(1);
    // Its last second, which OpenSSL alone does not count.
    assert!(world.active(&token(&fifth)).await && world.now().as_s() == end.as_s() - 1);
    world.pass_s(1);
    let (peer, path) = (Peer::new(&world, &token(&fifth)), crl_path(&chain(&token(&fifth))[0]));
    let (accepted, said) = peer.verifies(&world).await;
    assert!(!accepted && said.contains("certificate has expired"), "{said}");
    assert!(!world.active(&token(&fifth)).await && !world.active(&lease(&fifth).to_string()).await);
    assert!(peer.asks(&world, &[]).await.contains("leaf: good"), "it was not revoked while it lived");
    assert_eq!(by_openssl_crl(&world, &path, &hex(lease(&fifth))).await, None);
    let sixth = feed(&world, &handle(&fourth), None, &csr(&new_key())).await.unwrap();
    world.flow.end_lease(&OPERATOR, lease(&sixth), None).await.unwrap();
    all_say(&world, &sixth, Some((9, "Privilege Withdrawn"))).await;
    let (end, now) = (world.flow.lease(&OPERATOR, lease(&sixth)).await.unwrap().row.expires, world.now());
    world.pass_s(end.as_s() - now.as_s());
    let listed = async || by_openssl_crl(&world, &path, &hex(lease(&sixth))).await.is_some();
    assert!(listed().await, "for one list more than it would have lived");
    world.pass_s(180);
    listed().await;
    world.pass_s(60);
    assert!(!listed().await, "then lists have done with it");
    assert!(world.verify().problems.is_empty(), "{:?}", world.verify());
}
