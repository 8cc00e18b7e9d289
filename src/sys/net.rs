//! Listeners, TLS and outbound fetches.
