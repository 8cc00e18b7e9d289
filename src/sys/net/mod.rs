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
pub use client::{Answer, Client, ClientError};
pub use fetch::{Fetch, FetchError, Fetcher};
pub use tls::{NetError, TlsFiles, server_config};
