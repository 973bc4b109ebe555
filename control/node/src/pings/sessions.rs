//! Sessions of echo requests: who asks what, how often, and what has come back. Pure: the time is told, and packets are given
//! to a function.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use twinseal_forward::punt::Towards;
use twinseal_runtime::workers::exchange::Punted;
use twinseal_wire::oam::{ECHO_LEN, ECHO_REPLY, Echo};

/// Sessions of one client at a time, and of all.
pub(super) const CLIENT: usize = 2;
pub(super) const ALL: usize = 8;

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pinged {
    /// It was answered.
    Answered {
        /// Which: 1 is the first.
        sequence: u64,
        /// From worker to worker, without the threads before and after.
        rtt: Duration,
    },
    /// It was not, in its time.
    Lost {
        /// Which.
        sequence: u64,
    },
}

/// What is asked of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    /// Whom.
    pub(super) towards: Towards,
    /// How many requests.
    pub(super) count: u32,
    /// One after the other.
    pub(super) interval: Duration,
    /// How long each is waited for.
    pub(super) timeout: Duration,
}

struct Session {
    wanted: Wanted,
    client: String,
    /// How many were sent.
    sent: u64,
    /// When the next one is.
    due: Duration,
    /// Requests that may still be answered, and until when; the oldest first.
    awaited: VecDeque<(u64, Duration)>,
    /// Has room for all that there will be to tell.
    to: Sender<Pinged>,
}

/// There is no room for one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    Client,
    All,
}

/// All that run.
#[derive(Default)]
pub(super) struct Sessions {
    open: HashMap<u32, Session>,
    last: u32,
    /// Requests so far, by which they go round the workers.
    turn: usize,
}

/// Gives a message to a worker; false if that has no room.
pub(super) type Send<'a> = &'a mut dyn FnMut(usize, Towards, &[u8; ECHO_LEN]) -> bool;

impl Sessions {
    /// Begins one, whose first request is due at once.
    pub(super) fn begin(
        &mut self,
        client: &str,
        wanted: Wanted,
        now: Duration,
    ) -> Result<Receiver<Pinged>, Full> {
        self.open.retain(|_, session| !session.to.is_closed());
        let own = self.open.values().filter(|it| it.client == client).count();
        if own >= CLIENT {
            return Err(Full::Client);
        }
        if self.open.len() >= ALL {
            return Err(Full::All);
        }
        let (to, results) = channel(wanted.count.max(1) as usize);
        self.last = self.last.wrapping_add(1);
        let session = Session {
            wanted,
            client: client.to_owned(),
            sent: 0,
            due: now,
            awaited: VecDeque::new(),
            to,
        };
        self.open.insert(self.last, session);
        Ok(results)
    }

    /// Sends what is due, gives up what was waited for long enough, ends what is done; and says when there is more to do.
    pub(super) fn tend(
        &mut self,
        now: Duration,
        workers: usize,
        send: Send<'_>,
    ) -> Option<Duration> {
        let turn = &mut self.turn;
        self.open.retain(|id, session| {
            session.give_up(now);
            session.ask(*id, now, |towards, message| {
                *turn = turn.wrapping_add(1);
                send(*turn % workers.max(1), towards, message)
            });
            session.next().is_some() && !session.to.is_closed()
        });
        self.open.values().filter_map(Session::next).min()
    }

    /// Takes a reply.
    pub(super) fn heard(&mut self, it: &Punted) {
        let Some(echo) = Echo::of(&it.message).filter(|echo| echo.kind == ECHO_REPLY) else {
            return;
        };
        if let Some(session) = self.open.get_mut(&echo.session.get()) {
            session.heard(it, echo);
        }
    }
}

impl Session {
    fn give_up(&mut self, now: Duration) {
        while let Some((sequence, _)) = self.awaited.pop_front_if(|(_, until)| *until <= now) {
            let _ = self.to.try_send(Pinged::Lost { sequence });
        }
    }

    fn ask(&mut self, id: u32, now: Duration, send: impl FnOnce(Towards, &[u8; ECHO_LEN]) -> bool) {
        if self.sent >= self.wanted.count.into() || now < self.due {
            return;
        }
        self.sent += 1;
        // Who was held up does not make up for it: that would be a burst.
        self.due = now + self.wanted.interval;
        let echo = Echo::request(id, self.sent);
        let until = match send(self.wanted.towards, &echo.bytes()) {
            true => now + self.wanted.timeout,
            false => now,
        };
        self.awaited.push_back((self.sent, until));
    }

    fn heard(&mut self, it: &Punted, echo: Echo) {
        let by = match it.came.circuit {
            Some(circuit) => Towards::Circuit(circuit),
            None => Towards::Link(it.came.link),
        };
        let sequence = echo.sequence.get();
        let place = self
            .awaited
            .iter()
            .position(|(awaited, _)| *awaited == sequence);
        // Another's answer, one that came twice, or too late.
        let Some(place) = place.filter(|_| by == self.wanted.towards) else {
            return;
        };
        self.awaited.remove(place);
        let sent = Duration::from_nanos(echo.stamp.get());
        let rtt = it.at.saturating_sub(sent);
        let _ = self.to.try_send(Pinged::Answered { sequence, rtt });
    }

    /// When there is something to do next; `None` if it is done.
    fn next(&self) -> Option<Duration> {
        let due = (self.sent < self.wanted.count.into()).then_some(self.due);
        let until = self.awaited.front().map(|(_, until)| *until);
        due.into_iter().chain(until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinseal_fib::{CircuitIndex, LinkIndex, PortIndex};
    use twinseal_forward::punt::CameBy;

    const MS: Duration = Duration::from_millis(1);
    const LINK: Towards = Towards::Link(LinkIndex(4));

    fn wanted(count: u32) -> Wanted {
        Wanted {
            towards: LINK,
            count,
            interval: 10 * MS,
            timeout: 25 * MS,
        }
    }

    /// A clock that only we move, and what was sent at which time by which worker.
    #[derive(Default)]
    struct Bench {
        sessions: Sessions,
        now: Duration,
        sent: Vec<(Duration, usize, Echo)>,
        full: bool,
    }

    impl Bench {
        fn tend(&mut self) -> Option<Duration> {
            let Self {
                sessions,
                now,
                sent,
                full,
            } = self;
            sessions.tend(*now, 2, &mut |worker, towards, message| {
                assert_eq!(towards, LINK);
                sent.push((*now, worker, Echo::of(message).expect("a message")));
                !*full
            })
        }

        /// Up to a time, as the thread does it: from one thing to do to the next.
        fn run(&mut self, until: Duration) {
            while let Some(next) = self.tend().filter(|next| *next <= until) {
                self.now = next;
            }
            self.now = until;
        }

        fn reply(&mut self, nth: usize, came: CameBy) {
            let mut echo = self.sent[nth].2;
            echo.kind = ECHO_REPLY;
            echo.stamp = (self.sent[nth].0.as_nanos() as u64).into();
            let at = self.now;
            let message = echo.bytes().into_iter().collect();
            self.sessions.heard(&Punted {
                worker: 0,
                at,
                came,
                message,
            });
        }
    }

    const BY_LINK: CameBy = CameBy {
        port: PortIndex(1),
        link: LinkIndex(4),
        circuit: None,
    };

    #[test]
    fn requests_go_out_in_their_time_and_what_does_not_come_back_is_lost() {
        let mut bench = Bench::default();
        let mut results = bench
            .sessions
            .begin("a", wanted(4), bench.now)
            .expect("room");
        bench.run(3 * MS);
        bench.reply(0, BY_LINK);
        bench.run(21 * MS);
        bench.reply(2, BY_LINK);
        // Out of another link or a circuit, again, or with no request: nothing.
        bench.reply(2, BY_LINK);
        let circuit = Some(CircuitIndex(4));
        bench.reply(1, CameBy { circuit, ..BY_LINK });
        bench.reply(
            1,
            CameBy {
                link: LinkIndex(5),
                ..BY_LINK
            },
        );
        bench.run(35 * MS);
        bench.reply(1, BY_LINK);
        assert_eq!(bench.tend(), Some(55 * MS), "the last is still awaited");
        bench.run(100 * MS);
        let times: Vec<_> = bench
            .sent
            .iter()
            .map(|(at, worker, _)| (*at, *worker))
            .collect();
        assert_eq!(
            times,
            [
                (Duration::ZERO, 1),
                (10 * MS, 0),
                (20 * MS, 1),
                (30 * MS, 0)
            ]
        );
        assert_eq!(bench.tend(), None);
        let answered = |sequence, rtt| Pinged::Answered { sequence, rtt };
        let told: Vec<_> = std::iter::from_fn(|| results.try_recv().ok()).collect();
        let lost = |sequence| Pinged::Lost { sequence };
        assert_eq!(
            told,
            [answered(1, 3 * MS), answered(3, MS), lost(2), lost(4)]
        );
        assert!(results.is_closed(), "it is over");
    }

    #[test]
    fn a_thread_that_was_held_up_sends_no_burst_and_a_full_ring_loses_at_once() {
        let mut bench = Bench::default();
        let mut results = bench
            .sessions
            .begin("a", wanted(3), bench.now)
            .expect("room");
        bench.now = 1000 * MS;
        bench.full = true;
        assert_eq!(bench.tend(), Some(1000 * MS));
        assert_eq!(bench.tend(), Some(1010 * MS), "one, not a hundred");
        assert_eq!(bench.sent.len(), 1);
        assert_eq!(results.try_recv(), Ok(Pinged::Lost { sequence: 1 }));
    }

    #[test]
    fn clients_have_so_many_sessions_and_one_that_goes_gives_its_place_back() {
        let mut sessions = Sessions::default();
        let mut begin = |client: &str| sessions.begin(client, wanted(1), Duration::ZERO);
        let mut held = Vec::new();
        for n in 0..ALL / CLIENT {
            for _ in 0..CLIENT {
                held.push(begin(&n.to_string()).expect("room"));
            }
            assert_eq!(begin(&n.to_string()).err(), Some(Full::Client));
        }
        assert_eq!(begin("another").err(), Some(Full::All));
        held.pop();
        let other = begin("another").expect("room again");
        drop((held, other));
        let mut nothing = |_: usize, _: Towards, _: &[u8; ECHO_LEN]| -> bool { true };
        assert_eq!(sessions.tend(Duration::ZERO, 1, &mut nothing), None);
        assert!(sessions.open.is_empty());
    }
}
