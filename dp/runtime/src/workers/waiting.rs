//! The waiting room: frames whose next hop's hardware address is being asked for.
//!
//! A worker's places are shared by the ports that frames are to leave by, and so by tenants. While places are free anybody
//! may have them. When none is, the port that has most of them loses its oldest, whoever comes: a port with no more than
//! its share ([`MAX_PORTS`]th part) keeps what it has, whatever others do. So it is with neighbours of a port, which have a
//! bound of their own, and with requests, of which each port has some a second.
//!
//! Who waits, waits for a neighbour on a port *of one life* ([`Port::since`](twinseal_fib::Port::since)): when the port
//! goes or becomes another VRF's, all leave.
//!
//! It reads no clock and allocates nothing once it is made.

use std::time::{Duration, Instant};

use twinseal_fib::hash::FastMap;
use twinseal_fib::{MAX_PORTS, PortIndex};
use twinseal_forward::Awaited;

/// How long a frame waits.
pub(super) const HOLD: Duration = Duration::from_secs(1);
/// How often a neighbour is asked for.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Neighbours of one port that are asked for in [`ASK_AGAIN`].
const ASKS: u16 = 256;
/// Frames that wait for one neighbour.
const A_NEIGHBOURS: u16 = 32;
/// Between two looks at who has waited too long.
const TIDY: Duration = Duration::from_millis(20);
/// No place.
const NONE: u16 = u16::MAX;

/// See the [module](self).
pub(super) struct Room<T> {
    seats: Box<[Seat<T>]>,
    free_seats: Vec<u16>,
    parties: Box<[Party]>,
    free_parties: Vec<u16>,
    found: FastMap<Awaited, u16>,
    shares: [Share; MAX_PORTS],
    tidied: Instant,
    asks_since: Instant,
}

/// A frame's place.
struct Seat<T> {
    guest: Option<T>,
    since: Instant,
    /// Who came next, for the same neighbour.
    next: u16,
}

/// Those who wait for one neighbour, one at least. In a list of the port's, the party that came first at its head.
#[derive(Clone, Copy)]
struct Party {
    of: Awaited,
    asked: Option<Instant>,
    first: u16,
    last: u16,
    guests: u16,
    before: u16,
    after: u16,
}

/// What a port has.
#[derive(Clone, Copy)]
struct Share {
    first: u16,
    last: u16,
    guests: u16,
    asks: u16,
}

impl<T> Room<T> {
    /// With this many places, at least one.
    pub(super) fn new(places: usize, now: Instant) -> Self {
        let places = places.clamp(1, usize::from(NONE));
        let nobody = Awaited::default();
        Self {
            seats: (0..places)
                .map(|_| Seat {
                    guest: None,
                    since: now,
                    next: NONE,
                })
                .collect(),
            free_seats: (0..places as u16).rev().collect(),
            parties: vec![Party::new(nobody); places].into(),
            free_parties: (0..places as u16).rev().collect(),
            // Twice the room: then it is never made larger, only cleaned up in place.
            found: FastMap::with_capacity_and_hasher(2 * places, Default::default()),
            shares: [Share {
                first: NONE,
                last: NONE,
                guests: 0,
                asks: ASKS,
            }; MAX_PORTS],
            tidied: now,
            asks_since: now,
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.free_seats.len() == self.seats.len()
    }

    /// Takes a guest in, and returns who has to leave for it. `ask` is called if the neighbour is to be asked for now, and
    /// says whether it was.
    pub(super) fn hold(
        &mut self,
        guest: T,
        of: Awaited,
        now: Instant,
        ask: impl FnOnce() -> bool,
    ) -> Option<T> {
        let party = self.found.get(&of).copied();
        let full = party.filter(|&party| self.parties[usize::from(party)].guests >= A_NEIGHBOURS);
        let leaves = match full {
            Some(party) => self.pop(party),
            None if self.free_seats.is_empty() => self.pop(self.shares[self.hog(of)].first),
            None => None,
        };
        let Some(seat) = self.free_seats.pop() else {
            return Some(guest);
        };
        // The party's last one may have been the one that left.
        let party = match self.found.get(&of).copied() {
            Some(party) => party,
            None => self.enter(of),
        };
        let share = &mut self.shares[port(of)];
        share.guests += 1;
        self.seats[usize::from(seat)] = Seat {
            guest: Some(guest),
            since: now,
            next: NONE,
        };
        let it = &mut self.parties[usize::from(party)];
        let last = std::mem::replace(&mut it.last, seat);
        it.guests += 1;
        if it.guests == 1 {
            it.first = seat;
        } else {
            self.seats[usize::from(last)].next = seat;
        }
        if it.asked.is_none_or(|asked| now - asked >= ASK_AGAIN) {
            it.ask(share, now, ask);
        }
        leaves
    }

    /// Has those leave for whom `look` finds something.
    pub(super) fn review<R>(
        &mut self,
        mut look: impl FnMut(&Awaited) -> Option<R>,
        mut leave: impl FnMut(T, &Awaited, &R),
    ) {
        for share in 0..MAX_PORTS {
            let mut next = self.shares[share].first;
            while next != NONE {
                let party = next;
                let Party { of, after, .. } = self.parties[usize::from(party)];
                next = after;
                if let Some(found) = look(&of) {
                    self.pop_while(party, |_| true, |guest| leave(guest, &of, &found));
                }
            }
        }
    }

    /// Has those leave who have waited too long, and those asked for who could not be before. Looks now and then only: call
    /// it often.
    pub(super) fn tidy(
        &mut self,
        now: Instant,
        mut ask: impl FnMut(Awaited) -> bool,
        mut leave: impl FnMut(T),
    ) {
        if now - self.asks_since >= ASK_AGAIN {
            self.asks_since = now;
            for share in &mut self.shares {
                share.asks = ASKS;
            }
        }
        if self.is_empty() || now - self.tidied < TIDY {
            return;
        }
        self.tidied = now;
        for share in 0..MAX_PORTS {
            let mut next = self.shares[share].first;
            while next != NONE {
                let party = next;
                let it = &mut self.parties[usize::from(party)];
                next = it.after;
                if it.asked.is_none() {
                    let of = it.of;
                    it.ask(&mut self.shares[share], now, || ask(of));
                }
                let too_long = |seat: &Seat<T>| now - seat.since >= HOLD;
                self.pop_while(party, too_long, &mut leave);
            }
        }
    }

    /// The port that has most; this one if it is among them.
    fn hog(&self, of: Awaited) -> usize {
        let shares = self.shares.iter().enumerate();
        let own = (port(of), self.shares[port(of)].guests);
        let most = shares.fold(own, |most, (port, share)| {
            if share.guests > most.1 {
                (port, share.guests)
            } else {
                most
            }
        });
        most.0
    }

    /// Another party, still without guests.
    fn enter(&mut self, of: Awaited) -> u16 {
        // There are as many as seats, and none is without a guest.
        let party = self.free_parties.pop().expect("a seat was free");
        let share = &mut self.shares[port(of)];
        let before = std::mem::replace(&mut share.last, party);
        match before {
            NONE => share.first = party,
            before => self.parties[usize::from(before)].after = party,
        }
        self.parties[usize::from(party)] = Party {
            before,
            ..Party::new(of)
        };
        self.found.insert(of, party);
        party
    }

    fn pop_while(
        &mut self,
        party: u16,
        wanted: impl Fn(&Seat<T>) -> bool,
        mut leave: impl FnMut(T),
    ) {
        let mut left = self.parties[usize::from(party)].guests;
        while left > 0 {
            left -= 1;
            let first = self.parties[usize::from(party)].first;
            if !wanted(&self.seats[usize::from(first)]) {
                return;
            }
            if let Some(guest) = self.pop(party) {
                leave(guest);
            }
        }
    }

    /// The oldest of a party leaves, and the party with its last.
    fn pop(&mut self, party: u16) -> Option<T> {
        let it = &mut self.parties[usize::from(party)];
        let seat = it.first;
        it.guests -= 1;
        it.first = self.seats[usize::from(seat)].next;
        self.free_seats.push(seat);
        let Party {
            of,
            guests,
            before,
            after,
            ..
        } = *it;
        let share = &mut self.shares[port(of)];
        share.guests -= 1;
        if guests == 0 {
            match before {
                NONE => share.first = after,
                before => self.parties[usize::from(before)].after = after,
            }
            match after {
                NONE => share.last = before,
                after => self.parties[usize::from(after)].before = before,
            }
            self.found.remove(&of);
            self.free_parties.push(party);
        }
        self.seats[usize::from(seat)].guest.take()
    }
}

impl Party {
    fn new(of: Awaited) -> Self {
        Self {
            of,
            asked: None,
            first: NONE,
            last: NONE,
            guests: 0,
            before: NONE,
            after: NONE,
        }
    }

    fn ask(&mut self, share: &mut Share, now: Instant, ask: impl FnOnce() -> bool) {
        if share.asks > 0 && ask() {
            share.asks -= 1;
            self.asked = Some(now);
        }
    }
}

fn port(of: Awaited) -> usize {
    let PortIndex(port) = of.neighbour.port;
    usize::from(port) % MAX_PORTS
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
