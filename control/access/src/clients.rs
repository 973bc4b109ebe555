//! What each client takes: requests a second, and requests that are under way.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Limits;

/// Seconds' worth of requests that a client may save up.
const BURST: f64 = 2.0;
/// Clients that are remembered; of those that are not under way the rest is forgotten.
const REMEMBERED: usize = 1024;
/// Peers whose refusals are counted apart.
const COUNTED: usize = 64;

/// By reason and peer, how many.
pub type Refusals = HashMap<(&'static str, String), u64>;

#[derive(Default)]
pub(crate) struct Clients {
    clients: Mutex<HashMap<String, Arc<Mutex<Client>>>>,
    refusals: Mutex<Refusals>,
    /// In all, by reason.
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

struct Client {
    /// Requests that it may still make, and when that was so.
    saved: f64,
    at: Instant,
    under_way: u32,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A request that is under way. It ends when this is dropped.
pub(crate) struct Permit(Arc<Mutex<Client>>);

impl Permit {
    /// Of the client.
    pub(crate) fn turn(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&lock(&self.0).turn)
    }
}

/// How a request uses its place, and so how many of the client's places there are for it: not so many for those that hold
/// theirs for long that nothing else could be asked, and the last ones for what mends things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Use {
    /// Its answer goes on and on.
    Endless,
    /// It is answered and done.
    Short,
    /// The same, and only admins may ask it.
    Admin,
}

impl Use {
    /// Of so many places those that there are for it, at least one.
    pub(crate) fn of(self, streams: u32) -> u32 {
        match self {
            Self::Endless => streams - streams / 4,
            Self::Short => streams - streams / 8,
            Self::Admin => streams,
        }
    }
}

/// Why a request has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TooMany {
    Requests,
    /// So many are under way.
    Streams(u32),
}

impl Clients {
    pub(crate) fn admit(
        &self,
        identity: &str,
        limits: &Limits,
        place: Use,
    ) -> Result<Permit, TooMany> {
        self.admit_at(identity, limits, place, Instant::now())
    }

    fn admit_at(
        &self,
        identity: &str,
        limits: &Limits,
        place: Use,
        now: Instant,
    ) -> Result<Permit, TooMany> {
        let rate = f64::from(limits.requests_per_second);
        let mut clients = lock(&self.clients);
        if clients.len() >= REMEMBERED && !clients.contains_key(identity) {
            // Whoever is forgotten has its whole savings again: at most two seconds' worth.
            clients.retain(|_, client| lock(client).under_way > 0);
        }
        let client = clients.entry(identity.to_owned()).or_insert_with(|| {
            Arc::new(Mutex::new(Client {
                saved: rate * BURST,
                at: now,
                under_way: 0,
                turn: Arc::default(),
            }))
        });
        let client = Arc::clone(client);
        drop(clients);
        let mut state = lock(&client);
        let since = now.saturating_duration_since(state.at).as_secs_f64();
        state.saved = (state.saved + since * rate).min(rate * BURST);
        state.at = now;
        let most = place.of(limits.streams);
        if state.under_way >= most {
            return Err(TooMany::Streams(most));
        }
        if state.saved < 1.0 {
            return Err(TooMany::Requests);
        }
        state.saved -= 1.0;
        state.under_way += 1;
        drop(state);
        Ok(Permit(client))
    }

    /// Counts a refusal, to be told in one event with others.
    pub(crate) fn refused(&self, reason: &'static str, peer: String) {
        *lock(&self.refused).entry(reason).or_default() += 1;
        let mut refusals = lock(&self.refusals);
        let peer = match refusals.len() < COUNTED || refusals.contains_key(&(reason, peer.clone()))
        {
            true => peer,
            false => "others".to_owned(),
        };
        *refusals.entry((reason, peer)).or_default() += 1;
    }

    pub(crate) fn refusals(&self) -> Vec<(&'static str, u64)> {
        let refused = lock(&self.refused);
        refused.iter().map(|(why, count)| (*why, *count)).collect()
    }

    pub(crate) fn take_refusals(&self) -> Refusals {
        std::mem::take(&mut lock(&self.refusals))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        lock(&self.0).under_way -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one can leave it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clients_have_a_rate_and_streams_of_their_own() {
        let clients = Clients::default();
        let limits = Limits {
            requests_per_second: 2,
            streams: 2,
            ..Limits::default()
        };
        let start = Instant::now();
        let admit = |who, after| {
            let now = start + Duration::from_millis(after);
            clients.admit_at(who, &limits, Use::Short, now)
        };
        let first = admit("a", 0).ok();
        let second = admit("a", 0).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(admit("a", 0).err(), Some(TooMany::Streams(2)));
        assert!(admit("b", 0).is_ok(), "another is not concerned");
        drop((first, second));
        assert!(admit("a", 0).is_ok() && admit("a", 0).is_ok());
        assert_eq!(admit("a", 0).err(), Some(TooMany::Requests));
        assert_eq!(admit("a", 400).err(), Some(TooMany::Requests));
        assert!(admit("a", 600).is_ok(), "half a second for each");
    }

    #[test]
    fn streams_leave_places_for_calls_and_calls_for_admins() {
        let clients = Clients::default();
        let limits = Limits::default();
        let mut held = Vec::new();
        for (place, most) in [(Use::Endless, 48), (Use::Short, 56), (Use::Admin, 64)] {
            while let Ok(permit) = clients.admit("a", &limits, place) {
                held.push(permit);
            }
            assert_eq!(held.len(), most, "{place:?}");
        }
        for streams in 1..=10_000 {
            let [endless, short, admin] =
                [Use::Endless, Use::Short, Use::Admin].map(|it| it.of(streams));
            assert!(1 <= endless && endless <= short && short <= admin);
        }
    }

    #[test]
    fn neither_clients_nor_refusals_fill_memory() {
        let clients = Clients::default();
        for n in 0..5000 {
            assert!(
                clients
                    .admit(&n.to_string(), &Limits::default(), Use::Short)
                    .is_ok()
            );
            clients.refused("peer_refused", n.to_string());
        }
        assert!(lock(&clients.clients).len() <= REMEMBERED);
        let refusals = clients.take_refusals();
        assert_eq!(refusals.len(), COUNTED + 1);
        assert_eq!(refusals.values().sum::<u64>(), 5000);
        assert!(clients.take_refusals().is_empty());
    }
}
