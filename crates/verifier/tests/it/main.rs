//! Every way to cheat the gate that happened elsewhere, by the number of its threat.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests run as a user's machine does"
)]

#[cfg(feature = "online")]
mod broker;
mod certified;
mod claims;
#[cfg(feature = "online")]
mod credential;
#[cfg(feature = "x509")]
mod crl_forms;
#[cfg(feature = "online")]
mod example;
#[cfg(feature = "x509")]
mod handshake;
mod jose;
mod keys;
#[cfg(feature = "online")]
mod listed;
mod lists;
#[cfg(feature = "online")]
mod online;
#[cfg(feature = "x509")]
mod paths;
#[cfg(feature = "x509")]
mod peers;
#[cfg(feature = "x509")]
mod pki;
mod proof;
mod support;
mod svid;
mod task;
