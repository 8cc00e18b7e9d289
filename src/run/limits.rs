//! How much a stranger may take before anything is known about them.

use std::time::Duration;

use crate::{
    config::{ADDRESS_BURST, ADDRESS_RATE_PER_S, CONNECTIONS, CONNECTIONS_PER_ADDRESS, Caps},
    flow::{Allowance, Quotas, Rate},
    http::bounds::BODY_MAX_BYTES,
};

/// Request line and headers together.
pub const HEADER_MAX_BYTES: usize = 16 << 10;
/// Headers of one request.
pub const HEADERS_MAX: usize = 100;

/// Limits of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections; past it none is accepted until one ends.
    pub connections: usize,
    /// Open connections of one IPv4 address or one IPv6 /64; past it a new one is dropped.
    pub per_address: usize,
    /// Requests of one IPv4 address or one IPv6 /64; `None`: any number.
    pub rate: Option<Rate>,
    /// A TLS handshake, from the first byte to the last.
    pub handshake: Duration,
    /// A header block: the first counts from the start of the connection, later ones from their
    /// first byte.
    pub header: Duration,
    /// A whole request body.
    pub body: Duration,
    /// Silence between two requests.
    pub idle: Duration,
    /// A client that reads nothing while an answer waits for it.
    pub stall: Duration,
    /// Request line and headers together.
    pub header_max_bytes: usize,
    pub headers_max: usize,
    pub body_max_bytes: usize,
    /// How long requests in flight have after a stop.
    pub drain: Duration,
}

/// Descriptors that a broker needs beside its connections: the store and its readers, listeners,
/// files of a load, requests to issuers.
pub const DESCRIPTORS_BESIDE: u64 = 128;
/// Connections of `pki.listen`, which are short.
pub const CONNECTIONS_PUBLIC: usize = 64;
/// Connections of the local socket, and of the listener of health and metrics, each.
pub const CONNECTIONS_INSIDE: usize = 256;

/// With fewer connections than this a broker does not start: it would seem to run, and shut almost
/// everybody out.
pub const CONNECTIONS_LEAST: u32 = 16;

/// The process may not open what the settings promise: fewer connections are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{connections} connections take {needed} open files, but the process may open {may}: {left} fit")]
pub struct TooFewFiles {
    pub connections: u32,
    pub needed: u64,
    pub may: u64,
    /// What fits.
    pub left: u32,
}

impl Limits {
    /// The settings' limits of the API's listener.
    pub fn of(caps: Caps) -> Self {
        let Caps { connections, connections_per_address, address_rate_per_s, address_burst, .. } = caps;
        Self {
            connections: connections as usize,
            per_address: connections_per_address as usize,
            rate: Some(Rate::new(address_rate_per_s, address_burst)),
            ..Self::default()
        }
    }

    /// The same for those inside, who need not wait behind strangers, and cannot take their place.
    pub fn inside(self) -> Self {
        let connections = CONNECTIONS_INSIDE.min(self.connections);
        Self { connections, per_address: connections, rate: None, ..self }
    }

    /// Those of the listener that serves documents in the clear: strangers come there too, and fetch a file.
    pub fn public(self) -> Self {
        let connections = CONNECTIONS_PUBLIC.min(self.connections);
        Self { connections, per_address: self.per_address.min(connections / 4).max(1), ..self }
    }
}

/// The settings' limits of those who are known.
pub fn allowance(caps: Caps) -> Allowance {
    let production = u64::from(caps.owner_leases) * u64::from(caps.production_reserve_percent) / 100;
    let quotas = Quotas {
        owner: caps.owner_leases,
        // INVARIANT: at most 90 % of a number that fits.
        production: u32::try_from(production).unwrap_or(caps.owner_leases),
        workload: caps.workload_leases,
    };
    let workload = Rate::new(caps.workload_rate_per_s, caps.workload_burst);
    Allowance { workload, storm_per_minute: caps.storm_per_minute, quotas }
}

/// How many open files the settings take in all.
pub fn files_needed(caps: Caps) -> u64 {
    u64::from(caps.connections) + BESIDE_STRANGERS
}

/// The settings, or as much of them as a process that may open `may` files can hold: strangers
/// must never take the descriptors that an end or a fetch of keys needs.
// SECURITY: `strangers_are_let_in_only_as_far_as_files_can_be_opened`.
pub fn fitting(caps: Caps, may: u64) -> Result<(Caps, Option<TooFewFiles>), TooFewFiles> {
    let needed = files_needed(caps);
    if may >= needed {
        return Ok((caps, None));
    }
    let left = u32::try_from(may.saturating_sub(BESIDE_STRANGERS)).unwrap_or(u32::MAX).min(caps.connections);
    let fewer = TooFewFiles { connections: caps.connections, needed, may, left };
    if left < CONNECTIONS_LEAST {
        return Err(fewer);
    }
    let fitting = Caps { connections: left, connections_per_address: caps.connections_per_address.min(left), ..caps };
    Ok((fitting, Some(fewer)))
}

const BESIDE_STRANGERS: u64 = DESCRIPTORS_BESIDE + (2 * CONNECTIONS_INSIDE + CONNECTIONS_PUBLIC) as u64;

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS as usize,
            per_address: CONNECTIONS_PER_ADDRESS as usize,
            rate: Some(Rate::new(ADDRESS_RATE_PER_S, ADDRESS_BURST)),
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(10),
            header_max_bytes: HEADER_MAX_BYTES,
            headers_max: HEADERS_MAX,
            body_max_bytes: BODY_MAX_BYTES,
            drain: Duration::from_secs(25),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_let_in_only_as_far_as_files_can_be_opened() {
        let caps = Caps::default();
        let needed = files_needed(caps);
        assert_eq!(fitting(caps, needed), Ok((caps, None)));
        let (fewer, said) = fitting(caps, needed - 96).unwrap();
        assert_eq!((fewer.connections, fewer.connections_per_address), (CONNECTIONS - 96, CONNECTIONS_PER_ADDRESS));
        assert!(said.unwrap().to_string().contains("4000 fit"), "{}", said.unwrap());
        let least = BESIDE_STRANGERS + u64::from(CONNECTIONS_LEAST);
        assert_eq!(fitting(caps, least).unwrap().0.connections_per_address, CONNECTIONS_LEAST);
        assert_eq!(fitting(caps, least - 1).unwrap_err().left, CONNECTIONS_LEAST - 1);
        assert_eq!(fitting(caps, 3).unwrap_err().left, 0);
        let few = Caps { connections: 2, connections_per_address: 1, ..caps };
        assert_eq!(fitting(few, files_needed(few)), Ok((few, None)), "who asks for few gets them");
    }

    #[test]
    fn strangers_cannot_take_the_places_of_those_inside() {
        let limits = Limits::of(Caps { connections: 9, connections_per_address: 3, ..Caps::default() });
        assert_eq!((limits.connections, limits.per_address), (9, 3));
        assert_eq!((limits.inside().connections, limits.inside().per_address), (9, 9));
        assert_eq!(Limits::default().inside().connections, CONNECTIONS_INSIDE);
        let public = Limits::default().public();
        assert!(public.connections == CONNECTIONS_PUBLIC && public.per_address == 16 && public.rate.is_some());
        assert!(Limits::default().rate.is_some() && Limits::default().inside().rate.is_none());
    }

    #[test]
    fn production_is_kept_its_share() {
        let of = |owner_leases, production_reserve_percent| {
            allowance(Caps { owner_leases, production_reserve_percent, ..Caps::default() }).quotas.production
        };
        assert_eq!([of(100_000, 25), of(1_000_000_000, 90), of(3, 50), of(7, 0)], [25_000, 900_000_000, 1, 0]);
    }
}
