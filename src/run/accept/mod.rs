//! The accept loop: every connection that reaches the broker passes here. In: a listener, a
//! router, limits, a stop. Out: requests with a whole body and a `Peer`, and a drained end.
//!
//! The usual loop of the web framework has no defence against slow clients, so this one has its
//! own clocks and caps. It never ends because of a client or of a lack of descriptors.

mod bare;
mod entrance;
mod framing;
mod gate;
mod places;
mod request;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::Router;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::request::{Refuse, plain};
use self::{
    entrance::{Entrance, Plain, Socket, Tls},
    gate::Gate,
    places::{Place, Places},
};
use crate::{
    flow::{Limit, Payer, Rates},
    http::{Client, Peer},
    run::limits::Limits,
    sys::clock::Clock,
};

/// What a listener opens on.
#[derive(Clone)]
pub struct Door {
    pub app: Router,
    pub limits: Limits,
    /// Words for what the router never sees.
    pub refuse: Refuse,
    /// What rates are told by.
    pub clock: Clock,
}

impl Door {
    /// With the default limits and refusals without a body.
    pub fn new(app: Router) -> Self {
        Self { app, limits: Limits::default(), refuse: Arc::new(plain), clock: Clock::Machine }
    }
}

/// Serves HTTPS until `stop`, then drains. `tls` may be swapped at any time.
pub async fn serve_tls(listener: TcpListener, tls: Arc<ArcSwap<ServerConfig>>, door: Door, stop: CancellationToken) {
    serve(Tls { listener, config: tls }, door, stop).await;
}

/// Serves HTTP without TLS until `stop`, then drains: for health and metrics.
pub async fn serve_plain(listener: TcpListener, door: Door, stop: CancellationToken) {
    serve(Plain(listener), door, stop).await;
}

/// Serves the broker's own socket until `stop`, then drains.
pub async fn serve_unix(listener: UnixListener, door: Door, stop: CancellationToken) {
    serve(Socket(listener), door, stop).await;
}

async fn serve<E: Entrance>(entrance: E, door: Door, stop: CancellationToken) {
    let drain = door.limits.drain;
    let hall = Hall {
        seats: Arc::new(Semaphore::new(door.limits.connections)),
        places: Places::default(),
        rates: door.limits.rate.map(Rates::new),
        open: metrics::gauge!("dayfly_connections", "door" => E::NAME),
        door,
        stop,
        abandon: CancellationToken::new(),
    };
    let (hall, tasks) = (Arc::new(hall), TaskTracker::new());
    while let Some((raw, visitor)) = hall.next(&entrance).await {
        tasks.spawn(hall.clone().receive::<E>(raw, visitor));
    }
    drop(entrance);
    tasks.close();
    if timeout(drain, tasks.wait()).await.is_err() {
        hall.abandon.cancel();
        tasks.wait().await;
    }
}

/// What every connection of one listener shares.
struct Hall {
    door: Door,
    seats: Arc<Semaphore>,
    places: Places,
    rates: Option<Rates>,
    open: metrics::Gauge,
    stop: CancellationToken,
    /// The drain took too long: what is left is dropped.
    abandon: CancellationToken,
}

/// A connection that was let in.
struct Visitor {
    peer: Peer,
    _seat: OwnedSemaphorePermit,
    _place: Option<Place>,
}

impl Hall {
    /// The next connection that has a seat; `None` after the stop.
    async fn next<E: Entrance>(&self, entrance: &E) -> Option<(E::Raw, Visitor)> {
        loop {
            let seat = self.unless_stopped(self.seats.clone().acquire_owned()).await?.ok()?;
            match self.unless_stopped(entrance.accept()).await? {
                Ok((raw, peer)) => match self.places.take(peer, self.door.limits.per_address) {
                    Ok(place) => return Some((raw, Visitor { peer, _seat: seat, _place: place })),
                    Err(_) => refused::<E>("per_address"),
                },
                Err(error) => {
                    refused::<E>("accept");
                    if !is_of_one_connection(&error) {
                        self.unless_stopped(sleep(BACK_OFF)).await?;
                    }
                }
            }
        }
    }

    async fn unless_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            output = future => Some(output),
        }
    }

    async fn receive<E: Entrance>(self: Arc<Self>, raw: E::Raw, visitor: Visitor) {
        let _open = Counted::new(&self.open);
        match self.unless_stopped(E::open(raw, self.door.limits.handshake)).await {
            Some(Ok(stream)) => self.converse::<E>(stream, visitor.peer).await,
            Some(Err(_)) => refused::<E>("handshake"),
            None => {}
        }
        drop(visitor);
    }

    /// Speaks HTTP until the client, a deadline or the stop ends it.
    async fn converse<E: Entrance>(&self, stream: E::Open, peer: Peer) {
        let door = &self.door;
        let client = E::shown(&stream).map(Client);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let client = client.clone();
            async move {
                Ok::<_, Infallible>(match self.charge(peer) {
                    true => request::answer(door, peer, client, request).await,
                    false => request::too_many(door, request),
                })
            }
        });
        let gate = Gate::new(stream, door);
        let mut connection = pin!(http(&door.limits).serve_connection(TokioIo::new(gate), service));
        // A connection that ends in an error has told its client what it could.
        tokio::select! {
            _ = connection.as_mut() => return,
            () = self.stop.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = self.abandon.cancelled() => refused::<E>("drain"),
        }
    }

    /// Whether the address may make one more request. It is what the kernel says: no header moves it.
    // SECURITY: `t_159_a_limited_address_is_refused_before_its_body_is_read`,
    // `no_header_makes_one_address_look_like_many`.
    fn charge(&self, peer: Peer) -> bool {
        let (Some(rates), Peer::Tcp(address)) = (&self.rates, peer) else { return true };
        let within = rates.charge(Payer::address(address.ip()), self.door.clock.read().boot_ms).is_ok();
        if !within {
            Limit::Address.count();
        }
        within
    }
}

const BACK_OFF: Duration = Duration::from_millis(100);

// SECURITY: `t_158_*`. The gate keeps the clocks; the library's own is a backstop.
fn http(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle + limits.header)
        .max_headers(limits.headers_max)
        .max_header_size(limits.header_max_bytes)
        .max_buf_size(limits.header_max_bytes.max(BUFFER_BYTES))
        .half_close(false)
        .keep_alive(true);
    http
}

const BUFFER_BYTES: usize = 64 << 10;

/// The client left while it waited: nothing is wrong with the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn refused<E: Entrance>(why: &'static str) {
    metrics::counter!("dayfly_connections_refused_total", "door" => E::NAME, "why" => why).increment(1);
}

/// One more in a gauge, as long as it lives.
struct Counted<'a>(&'a metrics::Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a metrics::Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
