//! The door itself: whole TLS handshakes in memory, and the example server.

#[cfg(feature = "online")]
#[allow(dead_code, reason = "the example has more than the test needs")]
#[path = "../../examples/mtls_server.rs"]
mod mtls_server;

use std::sync::Arc;

use dayfly_verifier::{UnixMs, x509::Peers};
use rcgen::SanType;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection,
    client::Resumption,
    crypto::ring,
    pki_types::{PrivateKeyDer, ServerName, UnixTime},
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};

use crate::{pki::*, support::NOW_S};

const HOST: &str = "orders.prod.example";

#[derive(Debug)]
struct Fixed;

impl TimeProvider for Fixed {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW_S.unsigned_abs())))
    }
}

fn key(leaf: &Leaf) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap()
}

fn server(pki: &Pki, peers: &Arc<Peers>) -> Arc<ServerConfig> {
    let mut params = named_params(&[SanType::DnsName(HOST.try_into().unwrap())]);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = pki.leaf_of(params);
    let key = key(&leaf);
    let mut config = peers.server_config(leaf.chain, key).unwrap();
    config.time_provider = Arc::new(Fixed);
    Arc::new(config)
}

fn client(pki: &Pki, leaf: Option<&Leaf>, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(pki.root.der.clone()).unwrap();
    let builder = ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(Fixed))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain.clone(), key(leaf)).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(16);
    Arc::new(config)
}

/// The server's side of a handshake with the data that each end sends after it.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<ServerConnection, rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from(HOST).unwrap()).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
        }
        client.process_new_packets()?;
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok(server)
}

fn peers(pki: &Pki, said: &Said) -> Arc<Peers> {
    let peers = Peers::new(pki.anchors(), rules());
    peers.put_crls(pki.crls(said)).unwrap();
    peers
}

#[test]
fn a_handshake_with_a_live_certificate_says_who_is_there() {
    let pki = Pki::new();
    let (leaf, peers) = (pki.leaf(), peers(&pki, &Said::default()));
    for version in [&TLS12, &TLS13] {
        let connection = shake(&client(&pki, Some(&leaf), version), &server(&pki, &peers)).unwrap();
        let chain = connection.peer_certificates().unwrap();
        assert_eq!(peers.check(chain, UnixMs::from_s(NOW_S)).unwrap().spiffe_id, NAME);
    }
}

#[test]
fn a_client_without_a_certificate_does_not_enter() {
    let pki = Pki::new();
    let peers = peers(&pki, &Said::default());
    for version in [&TLS12, &TLS13] {
        assert!(shake(&client(&pki, None, version), &server(&pki, &peers)).is_err());
    }
}

#[test]
fn t_138_no_session_is_resumed() {
    let pki = Pki::new();
    let (leaf, peers) = (pki.leaf(), peers(&pki, &Said::default()));
    for version in [&TLS12, &TLS13] {
        let (client, server) = (client(&pki, Some(&leaf), version), server(&pki, &peers));
        for _ in 0..2 {
            assert_eq!(shake(&client, &server).unwrap().handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[test]
fn a_revoked_certificate_is_refused_from_the_swap_on_and_its_open_connections_too() {
    let pki = Pki::new();
    let (leaf, peers) = (pki.leaf(), peers(&pki, &Said::default()));
    let (client, server) = (client(&pki, Some(&leaf), &TLS13), server(&pki, &peers));
    let open = shake(&client, &server).unwrap();
    peers.put_crls(pki.crls(&Said { number: 8, revoked: vec![LEASE], ..Said::default() })).unwrap();
    let refused = shake(&client, &server).err().unwrap();
    assert!(refused.to_string().contains("Revoked"), "{refused}");
    assert!(peers.check(open.peer_certificates().unwrap(), UnixMs::from_s(NOW_S)).is_err());
}

#[cfg(feature = "online")]
#[tokio::test]
async fn the_example_server_goes_by_its_file_of_lists_and_keeps_the_last_good_one() {
    let pki = Pki::new();
    let (leaf, peers) = (pki.leaf(), Peers::new(pki.anchors(), rules()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bundle.crl");
    let put = |said: &Said| {
        let usual = Said::default();
        let lists = [pki.issuing.list(said), pki.area.list(&usual), pki.root.list(&usual)];
        std::fs::write(&file, pem(&lists)).unwrap();
    };
    let now = UnixMs::from_s(NOW_S);
    let path = file.to_str().unwrap();
    assert!(mtls_server::reload(&peers, path).await.is_err(), "there is none yet");
    assert!(peers.check(&leaf.chain, now).is_err(), "and so nobody enters");
    put(&Said::default());
    mtls_server::reload(&peers, path).await.unwrap();
    assert!(peers.check(&leaf.chain, now).is_ok());
    std::fs::write(&file, "nonsense").unwrap();
    assert!(mtls_server::reload(&peers, path).await.is_err());
    assert!(peers.check(&leaf.chain, now).is_ok(), "the last ones count");
    assert!(peers.check(&leaf.chain, UnixMs::from_s(NOW_S + 3_600)).is_err(), "until they are stale");
    put(&Said { number: 8, revoked: vec![LEASE], ..Said::default() });
    mtls_server::reload(&peers, path).await.unwrap();
    assert!(peers.check(&leaf.chain, now).is_err());
}
