//! TLS and outbound requests. In: PEM bytes, URLs, a socket path. Out: a server's TLS settings,
//! fetched documents, the broker's answers. Listeners are accepted from in `run::accept`.

mod address;
mod client;
mod exchange;
mod fetch;
mod metadata;
mod place;
mod presented;
mod proxy;
#[cfg(test)]
pub(crate) mod testing;
mod tls;

pub use address::is_public;
pub use client::{ANSWER_MAX_BYTES, Answer, Client, ClientError, peer_process};
pub use fetch::{Document, FETCH_MAX_BYTES, Fetch, FetchError, Fetcher, Post, check_url};
pub use metadata::{METADATA_WITHIN, metadata};
pub use presented::{
    CERTIFICATE_MAX_BYTES, CHAIN_MAX, CHAIN_MAX_BYTES, ChainError, PresentedChain, VerifiedClient, roots,
};
pub use proxy::{NO_PROXY_VARIABLES, PROXY_VARIABLES, ProxyError};
pub use tls::{Certified, Chain, Life, NetError, TlsFiles, server_config};
