//! Packets that look like an attack, or like keys that do not match: counted a period, never told one by one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use twinseal_api::v1::security_event::Owner;
use twinseal_api::v1::{self, EventKind, event::Event as Body};

use super::Events;
use crate::keys::Live;
use twinseal_access::Access;
use twinseal_forward::reason::DropReason::{self, *};

/// Told at once, and again after this long.
const PERIOD: Duration = Duration::from_secs(10);
/// Links and circuits that are named for one reason and period; the rest is told in one sum.
const NAMED: usize = 32;

const REASONS: [DropReason; 9] = [
    LinkAuthentication,
    LinkReplayed,
    LinkTooOld,
    CircuitAuthentication,
    CircuitReplayed,
    CircuitTooOld,
    UnknownReceiver,
    UnknownLabel,
    UnknownEpoch,
];

/// What was told so far.
pub struct Security {
    began: Instant,
    told: HashMap<DropReason, Told>,
    /// When refused clients were told of, and of each how many there were in all.
    refusals_at: Option<Instant>,
    refusals: HashMap<&'static str, u64>,
}

#[derive(Default)]
struct Told {
    at: Option<Instant>,
    /// The node's total then.
    total: u64,
    /// That of each link and circuit.
    owners: HashMap<Owner, u64>,
}

impl Security {
    /// Of a node that began at `began`.
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            told: HashMap::new(),
            refusals_at: None,
            refusals: HashMap::new(),
        }
    }

    /// Tells what `drops`, the node's counters by name, say is new.
    pub fn tell(
        &mut self,
        events: &Events,
        now: Instant,
        drops: &[(&'static str, u64)],
        live: &Live,
    ) {
        for reason in REASONS {
            let total = drops
                .iter()
                .find(|(name, _)| *name == reason.name())
                .map_or(0, |(_, total)| *total);
            let told = self.told.entry(reason).or_default();
            let due = told.at.is_none_or(|at| now.duration_since(at) >= PERIOD);
            if total > told.total && due {
                let since = told.at.unwrap_or(self.began);
                let period = now.duration_since(since);
                // After a quiet time the rate is that of a period, not of all the time before.
                told.tell(events, reason, total, period.min(PERIOD), live);
                told.at = Some(now);
            }
        }
    }

    /// Tells of clients that were refused: their requests are counted by the guard.
    pub fn tell_refusals(&mut self, events: &Events, now: Instant, access: &Access) {
        let due = self
            .refusals_at
            .is_none_or(|at| now.duration_since(at) >= PERIOD);
        if !due {
            return;
        }
        for ((reason, peer), count) in access.take_refusals() {
            let since = self.refusals_at.unwrap_or(self.began);
            let total = self.refusals.entry(reason).or_default();
            *total += count;
            let body = v1::SecurityEvent {
                reason: reason.to_owned(),
                owner: Some(Owner::Peer(peer)),
                count,
                total: *total,
                period_nanos: now.duration_since(since).min(PERIOD).as_nanos() as u64,
            };
            events.emit(EventKind::Security, Body::Security(body));
            self.refusals_at = Some(now);
        }
    }
}

impl Told {
    fn tell(
        &mut self,
        events: &Events,
        reason: DropReason,
        total: u64,
        period: Duration,
        live: &Live,
    ) {
        let emit = |owner, count, total| {
            let body = v1::SecurityEvent {
                reason: reason.name().to_owned(),
                count,
                total,
                period_nanos: period.as_nanos() as u64,
                owner,
            };
            events.emit(EventKind::Security, Body::Security(body));
        };
        let owners: HashMap<_, _> = owners(live, reason).collect();
        let mut grown: Vec<_> = owners
            .iter()
            .map(|(owner, total)| {
                // One that counts less than before is another one of that name.
                let before = self.owners.get(owner).filter(|before| *before <= total);
                (owner, total - before.copied().unwrap_or(0), *total)
            })
            .filter(|(_, count, _)| *count > 0)
            .collect();
        grown.sort_unstable_by_key(|(_, count, _)| std::cmp::Reverse(*count));
        let mut rest = total - self.total;
        for (owner, count, total) in grown.into_iter().take(NAMED) {
            // Counters are read one after the other while packets come: the sum may be ahead.
            rest = rest.saturating_sub(count);
            emit(Some(owner.clone()), count, total);
        }
        if rest > 0 {
            emit(None, rest, total);
        }
        self.total = total;
        self.owners = owners;
    }
}

/// The links and circuits that have counted this reason.
fn owners(live: &Live, reason: DropReason) -> impl Iterator<Item = (Owner, u64)> {
    let links = live
        .links()
        .map(move |(name, traffic)| (traffic, Owner::Link as fn(String) -> Owner, name.as_str()));
    let circuits = live.circuits().map(move |(name, traffic)| {
        (
            traffic,
            Owner::Circuit as fn(String) -> Owner,
            name.as_str(),
        )
    });
    links
        .chain(circuits)
        .filter_map(move |(traffic, owner, name)| {
            let drops = traffic.drops(reason as usize);
            (drops > 0).then(|| (owner(name.to_owned()), drops))
        })
}
