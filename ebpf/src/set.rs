//! A BPF hash map used as a set of addresses or endpoints.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use aya::Pod;
use aya::maps::{HashMap, MapData, MapError};

use crate::SteerError;
use crate::layout::{EndpointKey, HostKey, LocalKey, v4_key, v6_key};

// SAFETY: words without padding (20 bytes, alignment 4), any value valid.
unsafe impl Pod for EndpointKey {}

// SAFETY: words without padding (24 bytes, alignment 8), any value valid.
unsafe impl Pod for HostKey {}

/// A BPF map used as a set, and what we wrote to it. What stands beside a key is the program's; it begins with zeroes.
pub(crate) struct Set<K: Pod, V: Pod = u8> {
    map: HashMap<MapData, K, V>,
    keys: BTreeSet<K>,
    what: &'static str,
    max: u32,
}

impl<K: Pod + Ord, V: Pod + Default> Set<K, V> {
    pub(crate) fn new(map: HashMap<MapData, K, V>, what: &'static str, max: u32) -> Self {
        Self {
            map,
            keys: BTreeSet::new(),
            what,
            max,
        }
    }

    /// Adds and removes what differs. Adds first, so that what is in both the old and the new set is never away; removes
    /// first only when both do not fit side by side.
    pub(crate) fn replace(&mut self, wanted: BTreeSet<K>) -> Result<(), SteerError> {
        if wanted.len() > self.max as usize {
            return Err(SteerError::TooMany {
                what: self.what,
                given: wanted.len(),
                max: self.max,
            });
        }
        if self.keys.union(&wanted).count() > self.max as usize {
            self.remove_all_but(&wanted)?;
        }
        for key in &wanted {
            if !self.keys.contains(key) {
                self.map
                    .insert(key, V::default(), 0)
                    .map_err(|error| self.error(&error))?;
                self.keys.insert(*key);
            }
        }
        self.remove_all_but(&wanted)
    }

    fn remove_all_but(&mut self, wanted: &BTreeSet<K>) -> Result<(), SteerError> {
        let unwanted: Vec<K> = self.keys.difference(wanted).copied().collect();
        for key in unwanted {
            self.map.remove(&key).map_err(|error| self.error(&error))?;
            self.keys.remove(&key);
        }
        Ok(())
    }

    fn error(&self, error: &MapError) -> SteerError {
        SteerError::aya(format!("setting the {}", self.what), error)
    }
}

pub(crate) fn local_key(address: &IpAddr) -> LocalKey {
    match address {
        IpAddr::V4(v4) => v4_key(v4.octets()),
        IpAddr::V6(v6) => v6_key(v6.octets()),
    }
}

pub(crate) fn endpoint_key(endpoint: &SocketAddr) -> EndpointKey {
    EndpointKey::new(local_key(&endpoint.ip()), endpoint.port().to_be_bytes())
}
