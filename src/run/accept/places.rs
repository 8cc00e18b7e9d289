//! How many connections each address holds.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{flow::block, http::Peer};

/// Counts connections by IPv4 address or IPv6 /64 (one customer's usual block).
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// Held while a connection lives.
#[derive(Debug)]
pub(super) struct Place {
    of: Places,
    address: IpAddr,
}

impl Places {
    /// `Err` if the address holds `max` already; `Ok(None)` for the local socket, which is not
    /// counted. SECURITY: `t_155_one_address_cannot_take_every_connection`
    pub fn take(&self, peer: Peer, max: usize) -> Result<Option<Place>, Full> {
        let Peer::Tcp(address) = peer else { return Ok(None) };
        let address = block(address.ip());
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_insert(0);
        if *count >= max {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(Place { of: self.clone(), address }))
    }
}

/// The address holds all it may.
#[derive(Debug)]
pub(super) struct Full;

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(ip: &str) -> Peer {
        Peer::Tcp((ip.parse::<IpAddr>().expect("an address"), 1).into())
    }

    #[test]
    fn a_place_is_given_back_with_its_connection() {
        let places = Places::default();
        let first = places.take(peer("10.0.0.1"), 1).expect("free");
        assert!(places.take(peer("::ffff:10.0.0.1"), 1).is_err());
        assert!(places.take(peer("10.0.0.2"), 1).is_ok());
        drop(first);
        assert!(places.take(peer("10.0.0.1"), 1).is_ok());
        assert!(places.0.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn t_155_a_whole_v6_block_is_one_address() {
        let places = Places::default();
        let _held = places.take(peer("2400::1"), 1).expect("free");
        assert!(places.take(peer("2400::ffff:1"), 1).is_err());
        assert!(places.take(peer("2400:0:0:1::1"), 1).is_ok());
    }

    #[test]
    fn the_local_socket_is_not_counted() {
        assert!(matches!(Places::default().take(Peer::Local { uid: 0 }, 0), Ok(None)));
    }
}
