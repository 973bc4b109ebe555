//! What the log says of ports, links and circuits that go down and come up again. Events have it all; here who flaps is
//! told a few times a minute with a count of the rest, and what happens to many at once by their number.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::health::Status;

/// Lines of one item within [`WINDOW`].
const LINES: u32 = 4;
/// How long they are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// What is new has so long to come up: next hops are not resolved at once.
const BIRTH: Duration = Duration::from_secs(3);
/// Items of a kind that are told one by one at a time.
const AT_ONCE: usize = 20;

/// A kind of item.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Kind {
    /// A port.
    Port,
    /// A link.
    Link,
    /// A circuit.
    Circuit,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Port => "port",
            Self::Link => "link",
            Self::Circuit => "circuit",
        })
    }
}

/// What was said of an item. Of one that is not here, nothing, or long ago that it is up.
struct Item {
    is: Status,
    said: Option<Status>,
    /// Changes since the last line that have none.
    silent: u32,
    /// When the first of `lines` was said.
    since: Instant,
    lines: u32,
    /// When to look again.
    due: Option<Instant>,
}

/// A line to be logged.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Line {
    /// Whether all is well.
    pub(super) good: bool,
    /// What it says.
    pub(super) text: String,
}

/// What was said.
#[derive(Default)]
pub(super) struct Said {
    items: HashMap<(Kind, String), Item>,
    due: Option<Instant>,
    lines: Vec<Line>,
    /// Of what happened in this look: how many of each kind were told, and how many were not, that are well and that are not.
    told: HashMap<Kind, (usize, [usize; 2])>,
}

impl Said {
    /// An item is so from now on. `known`: it was there before.
    pub(super) fn note(&mut self, now: Instant, kind: Kind, name: &str, is: &Status, known: bool) {
        let key = (kind, name.to_owned());
        let item = self.items.entry(key.clone()).or_insert_with(|| Item {
            is: is.clone(),
            said: known.then_some(Status::Up),
            silent: 0,
            since: now,
            lines: 0,
            due: (!known && *is != Status::Up).then(|| now + BIRTH),
        });
        item.is = is.clone();
        // There may be a hundred thousand, which come up all at once.
        if kind == Kind::Circuit && item.said.is_none() && *is == Status::Up {
            self.items.remove(&key);
            return;
        }
        if now.duration_since(item.since) >= WINDOW {
            (item.since, item.lines) = (now, 0);
        }
        let born = item.said.is_none() && *is != Status::Up;
        if born || item.lines >= LINES {
            item.silent += u32::from(!born);
            let due = item.due.unwrap_or(item.since + WINDOW);
            item.due = Some(due);
            self.look_at(due);
        } else {
            self.say(now, &key);
        }
    }

    /// An item is no more.
    pub(super) fn forget(&mut self, kind: Kind, name: &str) {
        self.items.remove(&(kind, name.to_owned()));
    }

    /// What is to be logged now.
    pub(super) fn lines(&mut self, now: Instant) -> Vec<Line> {
        if self.due.is_some_and(|due| now >= due) {
            self.due = None;
            let is_due = |item: &Item| item.due.is_some_and(|due| now >= due);
            let due = self.items.iter().filter(|(_, item)| is_due(item));
            let due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
            for key in due {
                self.again(now, &key);
            }
            let next = self.items.values().filter_map(|item| item.due).min();
            self.due = next;
        }
        for (kind, (_, [bad, good])) in std::mem::take(&mut self.told) {
            for (count, is, good) in [(bad, "are not up", false), (good, "are up", true)] {
                if count > 0 {
                    let (s, is) = match count {
                        1 => ("", is.replacen("are", "is", 1)),
                        _ => ("s", is.to_owned()),
                    };
                    let text = format!("{count} more {kind}{s} {is}: see `twinseal ctl watch`");
                    self.lines.push(Line { good, text });
                }
            }
        }
        std::mem::take(&mut self.lines)
    }

    /// Looks at an item whose time has come.
    fn again(&mut self, now: Instant, key: &(Kind, String)) {
        let Some(item) = self.items.get_mut(key) else {
            return;
        };
        item.due = None;
        if item.silent > 0 || item.said.as_ref() != Some(&item.is) {
            (item.since, item.lines) = (now, 0);
            self.say(now, key);
        } else if item.is == Status::Up {
            self.items.remove(key);
        }
    }

    fn say(&mut self, now: Instant, key: &(Kind, String)) {
        let Some(item) = self.items.get_mut(key) else {
            return;
        };
        item.lines += 1;
        let good = item.is == Status::Up;
        let mut text = format!("{} {:?} is ", key.0, key.1);
        text += match &item.is {
            Status::Up => "up",
            Status::Degraded(_) => "degraded: ",
            Status::Down(_) => "down: ",
        };
        text += item.is.reason();
        match std::mem::take(&mut item.silent) {
            0 => {}
            1 => text += " (1 change before was not logged)",
            n => text += &format!(" ({n} changes before were not logged)"),
        }
        item.said = Some(item.is.clone());
        item.due = good.then_some(now + WINDOW);
        if let Some(due) = item.due {
            self.look_at(due);
        }
        let (told, more) = self.told.entry(key.0).or_default();
        match *told < AT_ONCE {
            true => {
                *told += 1;
                self.lines.push(Line { good, text });
            }
            false => more[usize::from(good)] += 1,
        }
    }

    fn look_at(&mut self, due: Instant) {
        self.due = Some(self.due.map_or(due, |other| other.min(due)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Status = Status::Down(std::borrow::Cow::Borrowed("its link is down"));

    fn texts(said: &mut Said, now: Instant) -> Vec<String> {
        said.lines(now).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn what_goes_down_and_comes_up_is_said() {
        let (mut said, now) = (Said::default(), Instant::now());
        said.note(now, Kind::Link, "ab", &Status::Up, false);
        assert_eq!(texts(&mut said, now), ["link \"ab\" is up"]);
        said.note(now, Kind::Link, "ab", &DOWN, true);
        let lines = said.lines(now);
        assert_eq!(lines[0].text, "link \"ab\" is down: its link is down");
        assert!(!lines[0].good);
        assert_eq!(said.lines(now + WINDOW), []);
    }

    #[test]
    fn what_is_new_has_time_to_come_up() {
        let (mut said, now) = (Said::default(), Instant::now());
        said.note(now, Kind::Link, "ab", &DOWN, false);
        said.note(now, Kind::Circuit, "c", &DOWN, false);
        said.note(now, Kind::Link, "cd", &DOWN, false);
        assert_eq!(said.lines(now), []);
        said.note(now, Kind::Link, "ab", &Status::Up, true);
        said.note(now, Kind::Circuit, "c", &Status::Up, true);
        assert_eq!(texts(&mut said, now), ["link \"ab\" is up"]);
        assert_eq!(
            texts(&mut said, now + BIRTH),
            ["link \"cd\" is down: its link is down"]
        );
    }

    #[test]
    fn who_flaps_is_counted_and_what_it_came_to_is_said() {
        let (mut said, mut now) = (Said::default(), Instant::now());
        let mut lines = Vec::new();
        for n in 0..1001 {
            let is = if n % 2 == 0 { DOWN } else { Status::Up };
            said.note(now, Kind::Port, "wan", &is, true);
            lines.append(&mut texts(&mut said, now));
            now += Duration::from_millis(10);
        }
        assert_eq!(lines.len(), LINES as usize, "{lines:?}");
        assert_eq!(
            texts(&mut said, now + WINDOW),
            ["port \"wan\" is down: its link is down (997 changes before were not logged)"]
        );
        assert_eq!(said.lines(now + 3 * WINDOW), []);
        said.note(now + 3 * WINDOW, Kind::Port, "wan", &Status::Up, true);
        assert_eq!(texts(&mut said, now + 3 * WINDOW), ["port \"wan\" is up"]);
        said.lines(now + 5 * WINDOW);
        assert!(said.items.is_empty() && said.due.is_none());
    }

    #[test]
    fn what_befalls_many_is_said_by_their_number() {
        let (mut said, now) = (Said::default(), Instant::now());
        for n in 0..1000 {
            said.note(now, Kind::Circuit, &format!("c{n}"), &DOWN, true);
        }
        let lines = texts(&mut said, now);
        assert_eq!(lines.len(), AT_ONCE + 1);
        assert_eq!(
            lines[AT_ONCE],
            "980 more circuits are not up: see `twinseal ctl watch`"
        );
        said.forget(Kind::Circuit, "c0");
        assert_eq!(said.lines(now), []);
    }
}
