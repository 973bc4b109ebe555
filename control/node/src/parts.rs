//! What Get and Stats tell, in parts that merged in their order are the whole: as protobuf merges messages, lists go on.

use prost::Message;
use twinseal_api::v1;

use crate::report::{Counts, Moment};
use twinseal_model::items::{after, each_after};
use twinseal_model::parse::ItemKey;
use twinseal_model::state::{CircuitName, KeyId, LinkName};

/// About how many bytes a part has.
const PART: usize = 64 << 10;
/// Links, keys, neighbours and counters of a part, which have about a hundred bytes each.
const ENTRIES: usize = 500;
/// Bytes of a [`whole`] answer: what gRPC clients take unless they are told otherwise.
const MAX_WHOLE: usize = 4 << 20;

/// The parts of a moment, made one by one.
pub struct Parts {
    moment: Moment,
    next: Next,
}

/// What comes next, and after which entry.
enum Next {
    Head,
    Items(Option<ItemKey>),
    Links(Option<LinkName>),
    Keys(Option<KeyId>),
    Neighbours(std::vec::IntoIter<v1::NeighbourState>),
    End,
}

impl Parts {
    /// Of a moment.
    pub fn new(moment: Moment) -> Self {
        Self {
            moment,
            next: Next::Head,
        }
    }

    fn items(&self, last: Option<&ItemKey>) -> (v1::GetResponse, Option<ItemKey>) {
        let (mut items, mut size) = (Vec::new(), 0);
        let last = each_after(&self.moment.state, last, |item| {
            size += item.encoded_len();
            items.push(item);
            size < PART
        });
        let part = v1::GetResponse {
            items,
            ..Default::default()
        };
        (part, last)
    }

    fn links(&self, last: Option<&LinkName>) -> (v1::GetResponse, Option<LinkName>) {
        let moment = &self.moment;
        let links = after(&moment.state.links, last).take(ENTRIES);
        let links: Vec<_> = links.map(|(name, _)| (name, moment.link(name))).collect();
        let full = links.len() == ENTRIES;
        let last = links
            .last()
            .filter(|_| full)
            .map(|(name, _)| (*name).clone());
        let part = v1::GetResponse {
            links: links.into_iter().map(|(_, link)| link).collect(),
            ..Default::default()
        };
        (part, last)
    }

    fn keys(&self, last: Option<&KeyId>) -> (v1::GetResponse, Option<KeyId>) {
        let moment = &self.moment;
        let keys = after(&moment.state.keys, last).take(ENTRIES);
        let keys: Vec<_> = keys.map(|(id, key)| (id, moment.key(id, key))).collect();
        let full = keys.len() == ENTRIES;
        let last = keys.last().filter(|_| full).map(|(id, _)| (*id).clone());
        let part = v1::GetResponse {
            keys: keys.into_iter().map(|(_, key)| key).collect(),
            ..Default::default()
        };
        (part, last)
    }
}

impl Iterator for Parts {
    type Item = v1::GetResponse;

    fn next(&mut self) -> Option<v1::GetResponse> {
        let (part, next) = match std::mem::replace(&mut self.next, Next::End) {
            Next::Head => (std::mem::take(&mut self.moment.head), Next::Items(None)),
            Next::Items(last) => {
                let (part, last) = self.items(last.as_ref());
                let next = last.map(|last| Next::Items(Some(last)));
                (part, next.unwrap_or(Next::Links(None)))
            }
            Next::Links(last) => {
                let (part, last) = self.links(last.as_ref());
                let next = last.map(|last| Next::Links(Some(last)));
                (part, next.unwrap_or(Next::Keys(None)))
            }
            Next::Keys(last) => {
                let (part, last) = self.keys(last.as_ref());
                let next = last.map(|last| Next::Keys(Some(last)));
                let neighbours = || Next::Neighbours(self.moment.neighbours().into_iter());
                (part, next.unwrap_or_else(neighbours))
            }
            Next::Neighbours(mut neighbours) => {
                let part = v1::GetResponse {
                    neighbours: neighbours.by_ref().take(ENTRIES).collect(),
                    ..Default::default()
                };
                let next = match neighbours.len() {
                    0 => Next::End,
                    _ => Next::Neighbours(neighbours),
                };
                (part, next)
            }
            Next::End => return None,
        };
        self.next = next;
        Some(part)
    }
}

/// All parts as one, unless that has too many bytes.
pub fn whole(moment: Moment) -> Option<v1::GetResponse> {
    let mut parts = Parts::new(moment);
    let mut whole = parts.next()?;
    let mut size = whole.encoded_len();
    for part in parts {
        size += part.encoded_len();
        if size > MAX_WHOLE {
            return None;
        }
        let v1::GetResponse {
            items,
            links,
            keys,
            neighbours,
            ..
        } = part;
        whole.items.extend(items);
        whole.links.extend(links);
        whole.keys.extend(keys);
        whole.neighbours.extend(neighbours);
    }
    Some(whole)
}

/// The parts of counters, made one by one.
pub struct StatsParts {
    counts: Counts,
    next: NextStats,
}

enum NextStats {
    Head,
    Links(Option<LinkName>),
    Circuits(Option<CircuitName>),
    End,
}

impl StatsParts {
    /// Of a moment.
    pub fn new(counts: Counts) -> Self {
        Self {
            counts,
            next: NextStats::Head,
        }
    }
}

impl Iterator for StatsParts {
    type Item = v1::StatsResponse;

    fn next(&mut self) -> Option<v1::StatsResponse> {
        use NextStats as Next;
        let (part, next) = match std::mem::replace(&mut self.next, Next::End) {
            Next::Head => (self.counts.head(), Next::Links(None)),
            Next::Links(last) => {
                let (links, last) = self.counts.links(last.as_ref(), ENTRIES);
                let part = v1::StatsResponse {
                    links,
                    ..Default::default()
                };
                let next = last.map(|last| Next::Links(Some(last)));
                (part, next.unwrap_or(Next::Circuits(None)))
            }
            Next::Circuits(last) => {
                let (circuits, last) = self.counts.circuits(last.as_ref(), ENTRIES);
                let part = v1::StatsResponse {
                    circuits,
                    ..Default::default()
                };
                (
                    part,
                    last.map_or(Next::End, |last| Next::Circuits(Some(last))),
                )
            }
            Next::End => return None,
        };
        self.next = next;
        Some(part)
    }
}

/// All counters as one, unless that has too many bytes.
pub fn whole_stats(counts: Counts) -> Option<v1::StatsResponse> {
    let mut parts = StatsParts::new(counts);
    let mut whole = parts.next()?;
    let mut size = whole.encoded_len();
    for part in parts {
        size += part.encoded_len();
        if size > MAX_WHOLE {
            return None;
        }
        whole.links.extend(part.links);
        whole.circuits.extend(part.circuits);
    }
    Some(whole)
}
