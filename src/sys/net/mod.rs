//! TLS and outbound requests. In: PEM bytes, URLs, a socket path. Out: a server's TLS settings,
//! fetched documents, the broker's answers. Listeners are accepted from in `run::accept`.

mod address;
mod client;
mod exchange;
mod fetch;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

pub use address::is_public;
pub use client::{ANSWER_MAX_BYTES, Answer, Client, ClientError, peer_process};
pub use fetch::{FETCH_MAX_BYTES, Fetch, FetchError, Fetcher};
pub use tls::{Certified, Chain, Life, NetError, TLS_SESSIONS_MAX, TlsFiles, server_config};
