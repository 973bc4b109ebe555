//! Places for connections, divided so that no client takes those of others.
//!
//! A client holds at most its share. Some places are kept for those who may displace: when they find none, the silent
//! longest connection of whoever has most ends for them. So one of them always gets in.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;

/// So many, and how they are divided.
pub(crate) struct Places {
    /// Of one client.
    share: usize,
    /// Of all.
    room: usize,
    /// Besides, for those who may displace.
    kept: usize,
    began: Instant,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    clients: HashMap<String, Vec<Seat>>,
}

struct Seat {
    number: u64,
    heard: Arc<AtomicU64>,
    /// Dropped, it ends the connection.
    _end: oneshot::Sender<()>,
}

/// One of them, until it is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    client: String,
    number: u64,
    /// When it was last heard, in milliseconds since the places began.
    heard: Arc<AtomicU64>,
    ended: oneshot::Receiver<()>,
}

/// Why there is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Full {
    /// The client has its share.
    Share(usize),
    /// All are taken.
    Room(usize),
}

impl Places {
    pub(crate) fn new(share: usize, room: usize, kept: usize) -> Arc<Self> {
        Arc::new(Self {
            share,
            room,
            kept,
            began: Instant::now(),
            taken: Mutex::default(),
        })
    }

    /// A place, and whose connection ended for it.
    pub(crate) fn take(
        self: &Arc<Self>,
        client: &str,
        displaces: bool,
    ) -> Result<(Place, Option<String>), Full> {
        let mut taken = self.lock();
        let own = taken.clients.get(client).map_or(0, Vec::len);
        let all: usize = taken.clients.values().map(Vec::len).sum();
        let room = self.room + if displaces { self.kept } else { 0 };
        let displaced = if own >= self.share {
            if !displaces {
                return Err(Full::Share(self.share));
            }
            Some(client.to_owned())
        } else if all >= room {
            if !displaces {
                return Err(Full::Room(self.room));
            }
            let clients = taken.clients.iter();
            let greediest = clients.max_by_key(|(_, seats)| seats.len());
            greediest.map(|(client, _)| client.clone())
        } else {
            None
        };
        if let Some(client) = &displaced {
            taken.displace(client);
        }
        let heard = Arc::new(AtomicU64::new(self.now()));
        let (end, ended) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        let seat = Seat {
            number,
            heard: Arc::clone(&heard),
            _end: end,
        };
        taken
            .clients
            .entry(client.to_owned())
            .or_default()
            .push(seat);
        drop(taken);
        let place = Place {
            places: Arc::clone(self),
            client: client.to_owned(),
            number,
            heard,
            ended,
        };
        Ok((place, displaced))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing that holds it can leave it half changed.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

impl Taken {
    /// Ends the connection of a client that has been silent longest.
    fn displace(&mut self, client: &str) {
        let Some(seats) = self.clients.get_mut(client) else {
            return;
        };
        let silent = seats.iter().enumerate();
        let silent = silent.min_by_key(|(_, seat)| (seat.heard.load(Relaxed), seat.number));
        if let Some((at, _)) = silent {
            seats.swap_remove(at);
        }
        if seats.is_empty() {
            self.clients.remove(client);
        }
    }
}

impl Place {
    /// Something was heard on its connection.
    pub(crate) fn heard(&self) {
        self.heard.store(self.places.now(), Relaxed);
    }

    /// Ready once somebody else has the place.
    pub(crate) fn poll_displaced(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.ended).poll(cx).map(drop)
    }

    /// Waits for that.
    pub(crate) async fn displaced(&mut self) {
        std::future::poll_fn(|cx| self.poll_displaced(cx)).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(seats) = taken.clients.get_mut(&self.client) {
            seats.retain(|seat| seat.number != self.number);
            if seats.is_empty() {
                taken.clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(place: &mut Place) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        place.poll_displaced(&mut cx).is_ready()
    }

    #[test]
    fn a_client_has_its_share_and_others_the_rest() {
        let places = Places::new(2, 3, 1);
        let take = |client, displaces| places.take(client, displaces);
        let a = take("a", false).expect("the first");
        let _b = take("a", false).expect("the second");
        assert_eq!(take("a", false).err(), Some(Full::Share(2)));
        let _c = take("b", false).expect("another's");
        assert_eq!(take("c", false).err(), Some(Full::Room(3)));
        drop(a);
        assert!(take("c", false).is_ok());
    }

    #[test]
    fn who_may_displace_always_gets_in() {
        let places = Places::new(2, 3, 1);
        let take = |client, displaces| {
            let taken = places.take(client, displaces).ok();
            taken.expect("a place")
        };
        let (mut a, _) = take("a", false);
        let (mut b, _) = take("a", false);
        let (mut c, _) = take("b", false);
        let (mut d, displaced) = take("root", true);
        assert_eq!(displaced, None, "one is kept for it");
        let (mut e, displaced) = take("root", true);
        assert_eq!(displaced.as_deref(), Some("a"), "who has most");
        assert!(ended(&mut a) && !ended(&mut b) && !ended(&mut c) && !ended(&mut d));
        // Its own share is full: its own first.
        let (_f, displaced) = take("root", true);
        assert_eq!(displaced.as_deref(), Some("root"));
        assert!(ended(&mut d) && !ended(&mut e));
        // A place that was displaced is not given back twice.
        drop((a, d));
        assert_eq!(
            places.lock().clients.values().map(Vec::len).sum::<usize>(),
            4
        );
    }

    #[test]
    fn the_longest_silent_goes() {
        let places = Places::new(2, 2, 0);
        let (mut a, _) = places.take("a", true).expect("a place");
        let (mut b, _) = places.take("a", true).expect("a place");
        a.heard.store(7, Relaxed);
        b.heard.store(6, Relaxed);
        let _c = places.take("a", true).expect("a place");
        assert!(ended(&mut b) && !ended(&mut a));
    }
}
