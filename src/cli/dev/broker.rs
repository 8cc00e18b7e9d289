//! A development broker from its folder to a running process: addresses, keys, certificates, the
//! bundle with its stand-in, and the operator's token. `dev` keeps it running; `demo` plays a
//! story on it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use dayfly_domain::{Kind, Name, Secret, bundle::Problem};
use dayfly_verifier::{Jws, crypto::SigningKey};
use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::{
    bundle::{DevBundle, OVERLAY, Text, Told},
    home::{Addresses, Home, Keys, Played},
    stand_in,
    token::{self, Given},
};
use crate::{
    cli::{
        failure::{Exit, Failure},
        serve,
    },
    config::{Caps, SOCKET_NAME},
    flow::{BundleSource, Exchange, Flow, Startup, Subject},
    policy::{Ask, What},
    run::{
        self, Parts, Running,
        accept::Door,
        limits::{self, Limits},
    },
    store::Store,
    sys::{clock::Clock, files::StateLock},
};

/// What a development broker is made from.
#[derive(Debug)]
pub struct Setup {
    pub home: Home,
    /// The store and the broker's own keys are in the folder, otherwise in memory.
    pub on_disk: bool,
    /// Absent: where it was, or a free port.
    pub listen: Option<SocketAddr>,
    pub text: Text,
    /// The workload issuer that the stand-in plays.
    pub played: Name,
    pub clock: Clock,
}

/// A running development broker. The lock goes with it.
pub struct DevBroker {
    pub running: Running,
    pub addresses: Addresses,
    pub bundle: Arc<DevBundle>,
    pub keys: Keys,
    /// Settings of every listener on loopback.
    pub tls: Arc<ArcSwap<ServerConfig>>,
    pub operator: Operator,
    pub lock: StateLock,
}

/// Makes the operator's tokens.
#[derive(Debug)]
pub struct Operator {
    flow: Flow,
    home: Home,
    issuer: Played,
    key: SigningKey,
    clock: Clock,
}

struct Listeners {
    broker: TcpListener,
    stand_in: TcpListener,
    metrics: TcpListener,
    addresses: Addresses,
}

/// A socket's path has so many bytes at most (`sun_path`, with its final zero).
const SOCKET_PATH_MAX_BYTES: usize = 107;

impl DevBroker {
    /// Takes the folder and starts everything. When it returns, all is served; the operator has no
    /// token yet.
    pub async fn start(setup: Setup) -> Result<Self, Failure> {
        // Before anything is touched.
        wanted(setup.listen, None)?;
        let Setup { home, clock, .. } = &setup;
        let lock = run::prepare_state(home.dir());
        let lock = lock.map_err(|error| serve::failure(&error))?;
        home.forget_env()?;
        let keys = home.keys_or_new(clock.wall())?;
        home.put(&home.ca_file(), &keys.authority.cert_pem)?;
        let listeners = listen_all(home, setup.listen).await?;
        let addresses = listeners.addresses;
        let bundle = Arc::new(bundle(&setup, &addresses, &keys));
        // Said here, problem by problem, before anything is started.
        bundle.load().map_err(|problems| not_usable(&problems))?;
        let tls = keys.authority.server_config(addresses.broker.ip(), clock.wall());
        let tls = Arc::new(ArcSwap::new(tls.map_err(|error| failed("TLS cannot be set up", error))?));
        let running = launch(&setup, listeners, &bundle, &keys, &tls)?;
        let operator = Operator::of(&setup, &running, &bundle, &keys);
        Ok(Self { running, addresses, bundle, keys, tls, operator, lock })
    }

    /// What the loaded bundle says.
    pub fn told(&self) -> Result<Told, Failure> {
        self.bundle.told().ok_or_else(|| Failure::failed("the bundle was not loaded"))
    }
}

fn bundle(setup: &Setup, addresses: &Addresses, keys: &Keys) -> DevBundle {
    DevBundle {
        text: setup.text.clone(),
        issuer_url: addresses.issuer_url(),
        played: setup.played.clone(),
        stand_in_url: addresses.stand_in_url(),
        ca_pem: keys.authority.cert_pem.as_bytes().into(),
        told: Mutex::default(),
    }
}

/// The broker, and the stand-in beside it.
fn launch(
    setup: &Setup,
    listeners: Listeners,
    bundle: &Arc<DevBundle>,
    keys: &Keys,
    tls: &Arc<ArcSwap<ServerConfig>>,
) -> Result<Running, Failure> {
    let (dir, url) = (setup.home.dir(), listeners.addresses.stand_in_url());
    let startup = Startup {
        issuer: listeners.addresses.issuer_url(),
        clock: setup.clock.clone(),
        store: open_store(&setup.home, setup.on_disk)?,
        keys_dir: setup.on_disk.then(|| dir.to_owned()),
        source: bundle.clone(),
        strict_rollback: false,
        review_grace: crate::config::REVIEW_GRACE,
        list_sizes: Default::default(),
        allowance: limits::allowance(Caps::default()),
        pki: None,
    };
    let parts = Parts {
        startup,
        api: listeners.broker,
        tls: tls.clone(),
        ops: Some(listeners.metrics),
        socket: Some(dir.join(SOCKET_NAME)).filter(|path| path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES),
        // Loopback only: every client there is one address, and none of them a stranger.
        limits: Limits { rate: None, ..Limits::default() },
    };
    let mut running = run::launch(parts).map_err(|error| failed("the broker does not start", error))?;
    let door = Door::new(stand_in::router(&url, &keys.stand_in, &keys.operator));
    let served = run::accept::serve_tls(listeners.stand_in, tls.clone(), door, running.stopper());
    running.also("stand-in", served);
    Ok(running)
}

impl Operator {
    fn of(setup: &Setup, running: &Running, bundle: &DevBundle, keys: &Keys) -> Self {
        let issuer = Played {
            name: OVERLAY.parse().expect("the overlay's name is a name"),
            url: bundle.operator_url(),
            audience: bundle.issuer_url.clone(),
            typ: "JWT".to_owned(),
        };
        let (flow, home, clock) = (running.flow.clone(), setup.home.clone(), setup.clock.clone());
        Self { flow, home, issuer, key: keys.operator.clone(), clock }
    }

    /// A new token in the operator's file.
    pub async fn renew(&self) -> Result<Fresh, Failure> {
        let refused = |why: String| Failure::failed("the operator got no token").because(why);
        let evidence = token::evidence(Given::subject(OVERLAY), &self.issuer, &self.key, self.clock.wall(), &[]);
        let evidence = Secret::new(evidence.map_err(|error| refused(error.to_string()))?);
        let ask = Ask {
            template: OVERLAY.to_owned(),
            what: What::Credential { kind: Kind::Jwt, resource: None, actions: None },
            ttl_s: None,
            ticket: None,
        };
        let subject = Subject::Evidence { token: evidence, control_s256: None };
        let issued =
            self.flow.exchange(Exchange { subject, ask, possession: None, csr: None }).await.map_err(|refusal| {
                let hint = refusal.hint.map(|hint| format!(": {hint}")).unwrap_or_default();
                refused(format!("{}{hint}", refusal.reason))
            })?;
        let credential = issued.credential.ok_or_else(|| refused("a task without a credential".to_owned()))?;
        self.home.put(&self.home.operator_token_file(), &format!("{}\n", credential.token.expose()))?;
        let kid = Jws::parse(credential.token.expose()).ok().and_then(|jws| jws.kid().map(str::to_owned));
        Ok(Fresh { ttl_s: credential.ttl_s, kid: kid.unwrap_or_default() })
    }

    /// Renews at half-life, for as long as it is polled. The older token lives to its `exp`, unless the
    /// key is tainted that signed it: then there is a new one at once.
    pub async fn keep_fresh(&self, first: Option<Fresh>, warn: impl Fn(&Failure)) {
        let mut fresh = first;
        loop {
            let wait_s = fresh.as_ref().map_or(RETRY_S, |fresh| (fresh.ttl_s / 2).max(1));
            for _ in 0..wait_s {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if fresh.as_ref().is_some_and(|fresh| self.flow.has_tainted(&fresh.kid)) {
                    break;
                }
            }
            fresh = self.renew().await.inspect_err(&warn).ok();
        }
    }
}

/// A token that there is.
#[derive(Debug)]
pub struct Fresh {
    ttl_s: u64,
    /// Of the key that signed it.
    kid: String,
}

/// Between two tries of an operator who is refused.
const RETRY_S: u64 = 5;

/// What keeps a bundle from loading, problem by problem.
pub fn not_usable(problems: &[Problem]) -> Failure {
    problems.iter().fold(Failure::failed("the bundle is not usable"), Failure::because)
}

/// Binds all three, at the kept ports where there are such, and keeps them.
async fn listen_all(home: &Home, listen: Option<SocketAddr>) -> Result<Listeners, Failure> {
    let kept = home.addresses()?;
    let wanted = wanted(listen, kept.map(|kept| kept.broker))?;
    let free = SocketAddr::new(wanted.ip(), 0);
    let broker = bind("the broker", wanted).await?;
    let stand_in = bind("the stand-in", kept.map_or(free, |kept| kept.stand_in)).await?;
    let metrics = bind("the metrics", kept.map_or(free, |kept| kept.metrics)).await?;
    let at = |listener: &TcpListener| listener.local_addr().map_err(|error| failed("a listener has no address", error));
    let addresses = Addresses { broker: at(&broker)?, stand_in: at(&stand_in)?, metrics: at(&metrics)? };
    if kept != Some(addresses) {
        home.keep_addresses(&addresses)?;
    }
    Ok(Listeners { broker, stand_in, metrics, addresses })
}

/// Port 0 is any port: the kept one, where there is one.
// SECURITY: `only_loopback_is_listened_on`
fn wanted(listen: Option<SocketAddr>, kept: Option<SocketAddr>) -> Result<SocketAddr, Failure> {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let wanted = listen.or(kept).unwrap_or(any);
    if !wanted.ip().is_loopback() {
        let what = format!("`{wanted}` is not on loopback: a stand-in vouches for whatever it is told");
        return Err(Failure::usage(what).help("--listen 127.0.0.1:0"));
    }
    let same = kept.filter(|kept| wanted.port() == 0 && kept.ip() == wanted.ip());
    Ok(same.unwrap_or(wanted))
}

async fn bind(whose: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let what = format!("{whose} cannot listen on `{address}`");
        let help = "end what holds the port: the addresses of a folder are kept, another port is never taken instead";
        Failure::new(Exit::Unavailable, what).because(error).help(help)
    })
}

fn open_store(home: &Home, on_disk: bool) -> Result<Store, Failure> {
    if on_disk {
        return run::open_store(home.dir()).map_err(|error| serve::failure(&error));
    }
    Store::memory().map_err(|error| failed("the store is not usable", error))
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::failed(what).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_loopback_is_listened_on() {
        for far in ["0.0.0.0:0", "192.0.2.1:443", "[::]:0"] {
            assert_eq!(wanted(Some(at(far)), None).unwrap_err().exit(), 2, "{far}");
        }
        assert!(wanted(Some(at("[::1]:0")), None).is_ok());
    }

    #[test]
    fn the_kept_address_is_the_default() {
        assert_eq!(wanted(None, None).unwrap(), at("127.0.0.1:0"));
        assert_eq!(wanted(None, Some(at("127.0.0.1:7"))).unwrap(), at("127.0.0.1:7"));
        assert_eq!(wanted(Some(at("127.0.0.1:0")), Some(at("127.0.0.1:7"))).unwrap(), at("127.0.0.1:7"));
        assert_eq!(wanted(Some(at("127.0.0.1:8")), Some(at("127.0.0.1:7"))).unwrap(), at("127.0.0.1:8"));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_and_never_another_port() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let first = listen_all(&home, None).await.unwrap();
        let failure = listen_all(&home, None).await.err().unwrap();
        assert_eq!(failure.exit(), 69);
        assert!(failure.text("error").contains(&first.addresses.broker.to_string()));
        let addresses = first.addresses;
        drop(first);
        assert_eq!(listen_all(&home, None).await.unwrap().addresses, addresses);
    }
}
