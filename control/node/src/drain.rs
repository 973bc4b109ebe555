//! Drain: a node, links or ports are taken out of service without loss.
//!
//! What drains is only marked. Workers know nothing of it: it goes on forwarding what is there, controllers are told, and
//! transactions that would put something new on it are refused. Marks are by name and outlive a restart, as maintenance
//! does: they are in the file `drained` of the state directory until an operator takes them away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};
use twinseal_api::v1::{self, drain_target::Target};
use twinseal_crypto::write_whole;

use crate::events::{EventKind, Events};
use crate::node::Node;
use twinseal_base::time::unix_nanos;
use twinseal_model::parse::{Item, ItemKey};
use twinseal_model::refusal::{Code, Refused, reason};
use twinseal_model::state::{Hop, LabelAction, LinkName, PortName, State, Target as RouteTarget};
use twinseal_model::transaction::Touched;

/// The file of the state directory.
pub(crate) const DRAINED_FILE: &str = "drained";

/// What may drain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Scope {
    Node,
    Link(LinkName),
    Port(PortName),
}

/// Since when, and who wanted it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mark {
    since_unix_nanos: u64,
    by: String,
}

/// All that drains.
#[derive(Clone, Default)]
pub(super) struct Drains {
    marks: BTreeMap<Scope, Mark>,
    path: PathBuf,
}

/// A mark as the file has it.
#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<String>,
    since_unix_nanos: u64,
    by: String,
}

impl Drains {
    /// Reads the marks of a state directory. A file that makes no sense is told and left where it is.
    pub(super) fn open(state_dir: &Path) -> (Self, Option<String>) {
        let path = state_dir.join(DRAINED_FILE);
        let mut drains = Self {
            path,
            ..Self::default()
        };
        match drains.read() {
            Ok(marks) => {
                drains.marks = marks;
                (drains, None)
            }
            Err(error) => {
                let path = drains.path.display();
                let damage =
                    format!("{path}: {error}; nothing drains now: drain again what should");
                (drains, Some(damage))
            }
        }
    }

    fn read(&self) -> io::Result<BTreeMap<Scope, Mark>> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            text => text?,
        };
        let lines: Vec<Line> = serde_json::from_slice(&text)?;
        let marks = lines.into_iter().map(|line| {
            let scope = match (&line.link, &line.port) {
                (None, None) => Some(Scope::Node),
                (Some(link), None) => LinkName::new(link).map(Scope::Link),
                (None, Some(port)) => PortName::new(port).map(Scope::Port),
                _ => None,
            };
            let scope = scope.ok_or_else(|| io::Error::other("an entry names nothing"))?;
            let mark = Mark {
                since_unix_nanos: line.since_unix_nanos,
                by: line.by,
            };
            Ok((scope, mark))
        });
        marks.collect()
    }

    /// Whole under its name, or as it was.
    fn write(&self, marks: &BTreeMap<Scope, Mark>) -> io::Result<()> {
        let lines: Vec<Line> = marks
            .iter()
            .map(|(scope, mark)| {
                let (link, port) = match scope {
                    Scope::Node => (None, None),
                    Scope::Link(name) => (Some(name.to_string()), None),
                    Scope::Port(name) => (None, Some(name.to_string())),
                };
                Line {
                    link,
                    port,
                    since_unix_nanos: mark.since_unix_nanos,
                    by: mark.by.clone(),
                }
            })
            .collect();
        write_whole(&self.path, &serde_json::to_vec(&lines)?)
    }

    /// The mark that a scope is under, if it drains: its own, its port's or the node's.
    fn over(&self, scope: &Scope, state: &State) -> Option<Scope> {
        let marked = |scope: &Scope| self.marks.contains_key(scope).then(|| scope.clone());
        let port = || match scope {
            Scope::Link(name) => {
                let link = state.links.get(name)?;
                marked(&Scope::Port(link.port.clone()))
            }
            _ => None,
        };
        marked(scope).or_else(port)
    }

    /// Whether a link drains, by whatever mark.
    pub(super) fn link(&self, name: &LinkName, state: &State) -> bool {
        self.marks.contains_key(&Scope::Node)
            || self.over(&Scope::Link(name.clone()), state).is_some()
    }

    /// Whether a port drains, by whatever mark.
    pub(super) fn port(&self, name: &PortName) -> bool {
        self.marks.contains_key(&Scope::Node) || self.marks.contains_key(&Scope::Port(name.clone()))
    }

    /// Refuses what would be new on what drains. What is there may stay, change in place, go, or move away.
    pub(super) fn check(&self, old: &State, new: &State, touched: &Touched, refused: &mut Refused) {
        if self.marks.is_empty() {
            return;
        }
        let mut touched: Vec<_> = touched.iter().collect();
        touched.sort_by_key(|(_, change)| **change);
        for (key, change) in touched {
            let Some(item) = new.item(key) else { continue };
            let was: BTreeSet<_> = old.item(key).map_or_else(BTreeSet::new, |was| {
                let uses = uses(&was).into_iter();
                uses.filter_map(|(_, scope)| self.over(&scope, old))
                    .collect()
            });
            for (field, scope) in uses(&item) {
                if let Some(mark) = self.over(&scope, new).filter(|mark| !was.contains(mark)) {
                    refused.push(draining(key, *change, field, &mark));
                }
            }
        }
    }

    /// As the API tells it.
    pub(super) fn report(&self) -> Vec<v1::DrainState> {
        let marks = self.marks.iter();
        marks
            .map(|(scope, mark)| v1::DrainState {
                target: Some(scope.target()),
                since_unix_nanos: mark.since_unix_nanos,
                by: mark.by.clone(),
            })
            .collect()
    }

    /// Tells of all that drains.
    pub(super) fn tell(&self, events: &Events) {
        for (scope, mark) in &self.marks {
            tell(events, scope, v1::DrainStatus::Draining, &mark.by);
        }
    }

    pub(super) fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.marks.keys()
    }
}

/// What an item puts packets on, and by which field.
fn uses(item: &Item) -> Vec<(&'static str, Scope)> {
    let link = |name: &LinkName| Scope::Link(name.clone());
    match item {
        Item::Link(_, it) => vec![("port", Scope::Port(it.port.clone())), ("", Scope::Node)],
        Item::Circuit(_, it) => vec![("link", link(&it.link)), ("", Scope::Node)],
        Item::Label(on, _, action) => {
            let mut uses = vec![("link", link(on)), ("", Scope::Node)];
            if let LabelAction::Swap { link: to, .. } = action {
                uses.push(("swap.link", link(to)));
            }
            uses
        }
        Item::Group(_, members) => {
            let vias = members.iter().filter_map(|member| match &member.hop {
                Hop::Via(via) => Some(("members", Scope::Port(via.port.clone()))),
                Hop::Circuit(_) => None,
            });
            vias.collect()
        }
        Item::Route(_, _, RouteTarget::Hop(Hop::Via(via))) => {
            vec![("via.port", Scope::Port(via.port.clone()))]
        }
        _ => Vec::new(),
    }
}

fn draining(key: &ItemKey, change: usize, field: &str, mark: &Scope) -> v1::RefusedItem {
    let undrain = match mark {
        Scope::Node => "`twinseal ctl undrain`".to_owned(),
        Scope::Link(name) => format!("`twinseal ctl undrain --link {name}`"),
        Scope::Port(name) => format!("`twinseal ctl undrain --port {name}`"),
    };
    reason(
        Code::Draining,
        Some(change),
        key,
        field,
        format!("{mark} drains, and this would be new on it"),
        &format!("lead it elsewhere, or have the drain ended with {undrain}"),
    )
}

fn tell(events: &Events, scope: &Scope, status: v1::DrainStatus, by: &str) {
    let body = v1::DrainEvent {
        target: Some(scope.target()),
        status: status.into(),
        by: by.to_owned(),
    };
    events.emit(EventKind::Configuration, v1::event::Event::Drain(body));
}

impl Scope {
    pub(super) fn target(&self) -> v1::DrainTarget {
        let target = match self {
            Self::Node => Target::Node(v1::WholeNode {}),
            Self::Link(name) => Target::Link(name.to_string()),
            Self::Port(name) => Target::Port(name.to_string()),
        };
        v1::DrainTarget {
            target: Some(target),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("the node"),
            Self::Link(name) => write!(f, "link {name:?}"),
            Self::Port(name) => write!(f, "port {name:?}"),
        }
    }
}

impl Node {
    /// Marks what shall drain, or takes marks away; tells all that drains then.
    pub fn drain(
        &mut self,
        request: &v1::DrainRequest,
        by: &str,
    ) -> Result<Vec<v1::DrainState>, Refused> {
        let scopes = self.scopes(request)?;
        let mut marks = self.drains.marks.clone();
        let mut changed = Vec::new();
        for scope in scopes {
            let new = match request.active {
                true => marks.remove(&scope).is_some(),
                false => !marks.contains_key(&scope),
            };
            if !request.active && new {
                let mark = Mark {
                    since_unix_nanos: unix_nanos(),
                    by: by.to_owned(),
                };
                marks.insert(scope.clone(), mark);
            }
            if new {
                changed.push(scope);
            }
        }
        if !changed.is_empty() && self.state_dir.is_none() {
            return Err(whole(
                Code::Storage,
                self.burned.refuses().unwrap_or_default(),
                "",
            ));
        }
        if !changed.is_empty() {
            self.drains.write(&marks).map_err(|error| {
                let why = format!("{}: {error}", self.drains.path.display());
                whole(
                    Code::Storage,
                    why,
                    "see to the node's state directory; nothing was changed",
                )
            })?;
            self.drains.marks = marks;
        }
        let status = match request.active {
            true => v1::DrainStatus::Active,
            false => v1::DrainStatus::Draining,
        };
        for scope in changed {
            tracing::info!(%scope, status = status.as_str_name(), by, "drain");
            tell(&self.events, &scope, status, by);
        }
        Ok(self.drains.report())
    }

    /// What a request names; an old mark may be of something that has gone.
    fn scopes(&self, request: &v1::DrainRequest) -> Result<Vec<Scope>, Refused> {
        let mut refused = Refused::default();
        let mut scopes = Vec::new();
        for target in &request.targets {
            let (scope, known) = match &target.target {
                Some(Target::Node(_)) => (Some(Scope::Node), true),
                Some(Target::Link(name)) => {
                    let name = LinkName::new(name);
                    let known = name
                        .as_ref()
                        .is_some_and(|it| self.state.links.contains_key(it));
                    (name.map(Scope::Link), known)
                }
                Some(Target::Port(name)) => {
                    let name = PortName::new(name);
                    let known = name
                        .as_ref()
                        .is_some_and(|it| self.state.ports.contains_key(it));
                    (name.map(Scope::Port), known)
                }
                None => (None, false),
            };
            match scope {
                Some(scope) if known || self.drains.marks.contains_key(&scope) => {
                    scopes.push(scope)
                }
                Some(scope) => {
                    let why = format!("there is no {scope}");
                    let fix = "name a link or port that `twinseal ctl get` shows";
                    refused.append(whole(Code::NotFound, why, fix));
                }
                None => {
                    let why = "it names no node, link or port".to_owned();
                    refused.append(whole(
                        Code::Invalid,
                        why,
                        "give node, or the name of a link or port",
                    ));
                }
            }
        }
        if request.targets.is_empty() {
            let why = "it names nothing".to_owned();
            refused.append(whole(
                Code::Invalid,
                why,
                "give at least one of node, link and port",
            ));
        }
        refused.unless(scopes)
    }
}

fn whole(code: Code, why: String, fix: &str) -> Refused {
    Refused::about("drain", code, "targets", why, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_outlive_the_program_and_damage_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let (mut drains, damage) = Drains::open(dir.path());
        assert_eq!((drains.marks.len(), damage), (0, None));
        for scope in [
            Scope::Node,
            Scope::Link(LinkName::new("ab").expect("a name")),
            Scope::Port(PortName::new("wan").expect("a name")),
        ] {
            let mark = Mark {
                since_unix_nanos: unix_nanos(),
                by: "user 0 (group 0)".to_owned(),
            };
            drains.marks.insert(scope, mark);
        }
        drains.write(&drains.marks).expect("it is written");
        let (again, damage) = Drains::open(dir.path());
        assert_eq!((&again.marks, damage), (&drains.marks, None));
        for text in [
            "[{",
            "{}",
            r#"[{"link":"no name","since_unix_nanos":1,"by":""}]"#,
        ] {
            fs::write(&drains.path, text).expect("it is written");
            let (none, damage) = Drains::open(dir.path());
            assert!(none.marks.is_empty() && damage.is_some(), "{text}");
        }
    }
}
