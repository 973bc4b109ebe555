use proptest::prelude::*;
use std::collections::{HashMap, VecDeque};

use super::*;
use twinseal_fib::NeighbourKey;

const PLACES: usize = 512;
const SHARE: usize = PLACES / MAX_PORTS;

fn awaited(port: u8, host: u64) -> Awaited {
    Awaited {
        neighbour: NeighbourKey {
            port: PortIndex(port),
            address: [0, host],
        },
        since: 1,
    }
}

/// Who left, of what a room was full of.
fn all<T>(room: &mut Room<T>) -> Vec<(T, Awaited)> {
    let mut left = Vec::new();
    room.review(|_| Some(()), |guest, of, ()| left.push((guest, *of)));
    left
}

#[test]
fn a_port_that_fills_the_room_takes_no_place_from_another() {
    let now = Instant::now();
    let mut room = Room::new(PLACES, now);
    let mut guest = 0;
    let mut scan = |room: &mut Room<(u8, u64)>, frames: u64| {
        for _ in 0..frames {
            guest += 1;
            let left = room.hold((0, guest), awaited(0, guest % 250), now, || true);
            assert!(
                left.is_none_or(|(port, _)| port == 0),
                "another's frame left"
            );
        }
    };
    scan(&mut room, 10_000);
    // All other ports fill their share, while it goes on.
    for nth in 0..SHARE as u64 {
        for port in 1..MAX_PORTS as u8 {
            let mut asked = false;
            let ask = || {
                asked = true;
                true
            };
            let left = room.hold((port, nth), awaited(port, nth), now, ask);
            assert!(asked, "its neighbour is asked for");
            assert_eq!(
                left.map(|(port, _)| port),
                Some(0),
                "whoever has most gives way"
            );
            scan(&mut room, 100);
        }
    }
    let left = all(&mut room);
    assert_eq!(left.len(), PLACES);
    for port in 1..MAX_PORTS as u8 {
        let of_port = left.iter().filter(|((from, _), _)| *from == port);
        assert_eq!(of_port.count(), SHARE, "port {port}");
    }
    assert!(room.is_empty());
}

#[test]
fn a_neighbour_keeps_its_newest_frames_and_leaves_room_for_others() {
    let now = Instant::now();
    let mut room = Room::new(PLACES, now);
    let mut asks = 0;
    for guest in 0..1000u64 {
        let ask = || {
            asks += 1;
            true
        };
        let left = room.hold(guest, awaited(3, 1), now, ask);
        let oldest = guest.checked_sub(u64::from(A_NEIGHBOURS));
        assert_eq!(left, oldest, "the oldest gives way");
    }
    assert_eq!(asks, 1);
    assert_eq!(room.hold(5000, awaited(3, 2), now, || true), None);
    let guests: Vec<_> = all(&mut room).into_iter().map(|(guest, _)| guest).collect();
    let newest = 1000 - u64::from(A_NEIGHBOURS)..1000;
    assert!(
        guests.into_iter().eq(newest.chain([5000])),
        "in their order"
    );
}

#[test]
fn requests_are_bounded_by_port_and_made_again() {
    let start = Instant::now();
    let mut room = Room::new(PLACES, start);
    let ask = |room: &mut Room<()>, port, host, now, can| {
        let mut asked = false;
        room.hold((), awaited(port, host), now, || {
            asked = true;
            can
        });
        asked
    };
    let asked = (0..1000).filter(|&host| ask(&mut room, 0, host, start, true));
    assert_eq!(asked.count(), usize::from(ASKS));
    assert!(!ask(&mut room, 0, 2000, start, true));
    // Of another port, and again only when it was not taken.
    assert!(ask(&mut room, 1, 2000, start, false));
    assert!(ask(&mut room, 1, 2000, start, true));
    assert!(!ask(&mut room, 1, 2000, start, true));
    let later = start + ASK_AGAIN;
    assert!(ask(&mut room, 1, 2000, later, true));
    room.tidy(later, |_| false, |()| ());
    assert!(ask(&mut room, 0, 2001, later, true));
    // Or with no other frame coming.
    assert!(ask(&mut room, 1, 3000, later, false));
    let mut asked = Vec::new();
    let ask_again = |of| {
        asked.push(of);
        true
    };
    room.tidy(later + TIDY, ask_again, |()| ());
    assert!(asked.contains(&awaited(1, 3000)));
}

#[test]
fn those_who_waited_too_long_leave_and_those_of_another_life() {
    let start = Instant::now();
    let mut room = Room::new(PLACES, start);
    let after = |part: u32| start + HOLD * part / 4;
    for (guest, (port, host)) in [(1, 1), (1, 2), (2, 1)].into_iter().enumerate() {
        room.hold(guest, awaited(port, host), start, || true);
        room.hold(guest + 10, awaited(port, host), after(2), || true);
    }
    let reborn = Awaited {
        since: 2,
        ..awaited(1, 1)
    };
    room.hold(20, reborn, after(2), || true);
    let mut left = Vec::new();
    room.tidy(after(3), |_| true, |guest| left.push(guest));
    assert!(left.is_empty());
    room.tidy(after(4), |_| true, |guest| left.push(guest));
    assert_eq!(left, [0, 1, 2]);
    let mut left = Vec::new();
    let gone = |of: &Awaited| (of.neighbour.port == PortIndex(1) && of.since == 1).then_some(());
    room.review(gone, |guest, _, ()| left.push(guest));
    assert_eq!(left, [10, 11]);
    let rest: Vec<_> = all(&mut room).into_iter().map(|(guest, _)| guest).collect();
    assert_eq!(rest, [20, 12]);
}

#[derive(Clone, Debug)]
enum Step {
    Hold { port: u8, host: u64 },
    Leave { port: u8, host: u64 },
    Pass { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = || (0..4u8, 0..6u64);
    prop_oneof![
        8 => who().prop_map(|(port, host)| Step::Hold { port, host }),
        1 => who().prop_map(|(port, host)| Step::Leave { port, host }),
        1 => (0..700u64).prop_map(|ms| Step::Pass { ms }),
    ]
}

proptest! {
    /// Nobody is lost, nobody leaves twice, each party leaves in its order, and nothing is allocated.
    #[test]
    fn all_who_come_leave_once(steps in proptest::collection::vec(step(), 0..400), places in 1..20usize) {
        let mut now = Instant::now();
        let mut room = Room::new(places, now);
        let capacities = |room: &Room<u64>| (room.found.capacity(), room.free_seats.capacity(), room.free_parties.capacity());
        let before = capacities(&room);
        let mut inside: HashMap<Awaited, VecDeque<(u64, Instant)>> = HashMap::new();
        let take = |inside: &mut HashMap<Awaited, VecDeque<(u64, Instant)>>, guest: u64| {
            let (of, party) = inside.iter_mut().find(|(_, party)| party.front().is_some_and(|it| it.0 == guest)).expect("the oldest of a party");
            let of = *of;
            party.pop_front();
            of
        };
        for (nth, step) in (0..).zip(steps) {
            match step {
                Step::Hold { port, host } => {
                    let of = awaited(port, host);
                    let most = inside.iter().map(|(of, party)| (of.neighbour.port, party.len())).fold([0; 4], |mut all, (port, guests)| {
                        all[usize::from(port.0)] += guests;
                        all
                    });
                    if let Some(left) = room.hold(nth, of, now, || true) {
                        let of_left = take(&mut inside, left);
                        let had = most[usize::from(of_left.neighbour.port.0)];
                        prop_assert!(Some(&had) == most.iter().max() || of_left == of);
                    }
                    inside.entry(of).or_default().push_back((nth, now));
                }
                Step::Leave { port, host } => {
                    let of = awaited(port, host);
                    let mut left = Vec::new();
                    room.review(|it| (*it == of).then_some(()), |guest, _, ()| left.push(guest));
                    let expected: Vec<_> = inside.remove(&of).into_iter().flatten().map(|it| it.0).collect();
                    prop_assert_eq!(left, expected);
                }
                Step::Pass { ms } => {
                    now += Duration::from_millis(ms);
                    room.tidy(now, |_| true, |guest| { take(&mut inside, guest); });
                    if ms >= TIDY.as_millis() as u64 {
                        prop_assert!(inside.values().flatten().all(|(_, since)| now - *since < HOLD));
                    }
                }
            }
            let count: usize = inside.values().map(VecDeque::len).sum();
            prop_assert!(count <= places);
            prop_assert_eq!(room.is_empty(), count == 0);
            prop_assert_eq!(room.seats.len() - room.free_seats.len(), count);
        }
        prop_assert_eq!(capacities(&room), before);
    }
}
