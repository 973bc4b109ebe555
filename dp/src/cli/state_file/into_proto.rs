//! From the file to changes of a transaction.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_saphyr::{Location, Spanned};
use twinseal_api::v1;
use zeroize::Zeroizing;

use super::schema::{
    self, BindMode, Checksum, Direction, Dscp, End, INSTALLED, PortRole, Suite, XdpMode,
};
use super::{Origin, Place, StateFile};
use crate::config::Mistake;

pub(super) fn convert(
    path: &Path,
    origin: Origin,
    file: schema::File,
) -> Result<StateFile, Vec<Mistake>> {
    use v1::item::Item;
    let mut into = Into {
        path,
        origin,
        changes: Vec::new(),
        places: Vec::new(),
        mistakes: Vec::new(),
        installed: 0,
    };
    into.section("ports", file.ports, |into, at, port| {
        into.port(at, port).map(Item::Port)
    });
    into.section("vrfs", file.vrfs, |_, _, vrf| {
        Some(Item::Vrf(v1::Vrf { name: vrf.name }))
    });
    into.section("links", file.links, |_, _, entry| {
        Some(Item::Link(link(entry)))
    });
    into.section("circuits", file.circuits, |_, _, entry| {
        Some(Item::Circuit(circuit(entry)))
    });
    into.section("labels", file.labels, |into, at, entry| {
        into.label(at, entry).map(Item::Label)
    });
    into.section("groups", file.groups, |into, _, entry| {
        into.group(entry).map(Item::Group)
    });
    into.section("routes", file.routes, |into, at, entry| {
        into.route(at, entry).map(Item::Route)
    });
    into.section(
        "neighbours",
        file.neighbours,
        |_, _, schema::Neighbour { port, address, mac }| {
            Some(Item::Neighbour(v1::Neighbour { port, address, mac }))
        },
    );
    into.section("keys", file.keys, |into, at, entry| {
        into.key(at, entry).map(Item::Key)
    });
    into.section("transmit", file.transmit, |into, at, entry| {
        into.transmit(at, entry).map(Item::Transmit)
    });
    into.deletes(file.delete);
    if !into.mistakes.is_empty() {
        return Err(into.mistakes);
    }
    Ok(StateFile {
        changes: into.changes,
        installed: into.installed,
        path: path.to_owned(),
        places: into.places,
    })
}

struct Into<'a> {
    origin: Origin,
    path: &'a Path,
    changes: Vec<v1::Change>,
    places: Vec<Place>,
    mistakes: Vec<Mistake>,
    installed: usize,
}

impl Into<'_> {
    fn section<T>(
        &mut self,
        section: &'static str,
        entries: Vec<Spanned<T>>,
        convert: impl Fn(&mut Self, Location, T) -> Option<v1::item::Item>,
    ) {
        for (index, entry) in entries.into_iter().enumerate() {
            let at = entry.referenced;
            if let Some(item) = convert(self, at, entry.value) {
                let item = v1::Item { item: Some(item) };
                self.push(section, index, at, v1::change::Change::Set(item));
            }
        }
    }

    fn push(
        &mut self,
        section: &'static str,
        index: usize,
        at: Location,
        change: v1::change::Change,
    ) {
        self.changes.push(v1::Change {
            change: Some(change),
        });
        self.places.push(Place {
            line: at.line(),
            section,
            index,
        });
    }

    fn wrong(&mut self, at: Location, field: &str, reason: impl std::string::ToString, fix: &str) {
        self.mistakes.push(Mistake {
            path: self.path.to_owned(),
            line: at.line() as usize,
            column: at.column() as usize,
            field: field.to_owned(),
            reason: reason.to_string(),
            fix: fix.to_owned(),
        });
    }

    /// The one of several alternatives that is given. None at all is the node's to refuse.
    fn one_of<T, const N: usize>(
        &mut self,
        at: Location,
        fields: &str,
        options: [Option<T>; N],
    ) -> Option<T> {
        let mut given = options.into_iter().flatten();
        let first = given.next();
        if given.next().is_some() {
            self.wrong(
                at,
                fields,
                "more than one of these is given",
                "keep one of them",
            );
        }
        first
    }

    fn port(&mut self, at: Location, port: schema::Port) -> Option<v1::Port> {
        use v1::port::Device;
        let af_xdp = port.af_xdp.map(|it| {
            Device::AfXdp(v1::AfXdp {
                netdev: it.netdev,
                bind: BindMode::number(it.bind),
                xdp: XdpMode::number(it.xdp),
                busy_poll: it.busy_poll,
                owned: it.owned,
            })
        });
        let tap = port
            .tap
            .map(|it| Device::Tap(v1::Tap { netdev: it.netdev }));
        let memory = port.memory.map(|it| {
            Device::Memory(v1::Memory {
                wire: it.wire,
                mac: it.mac,
            })
        });
        Some(v1::Port {
            name: port.name,
            role: PortRole::number(port.role),
            vrf: port.vrf,
            mtu: port.mtu,
            checksum: Checksum::number(port.checksum),
            local: port.local,
            device: self.one_of(at, "af_xdp, tap, memory", [af_xdp, tap, memory]),
        })
    }

    fn label(&mut self, at: Location, label: schema::Label) -> Option<v1::Label> {
        use v1::label::Action;
        let swap = label.swap.map(|it| {
            Action::Swap(v1::Swap {
                link: it.link,
                label: it.label,
            })
        });
        let egress = label.egress.map(|it| {
            Action::Egress(v1::Egress {
                circuit: it.circuit,
            })
        });
        Some(v1::Label {
            link: label.link,
            label: label.label,
            action: self.one_of(at, "swap, egress", [swap, egress]),
        })
    }

    fn group(&mut self, group: schema::Group) -> Option<v1::Group> {
        use v1::member::Target;
        let mut members = Vec::with_capacity(group.members.len());
        for Spanned {
            value: member,
            referenced: at,
            ..
        } in group.members
        {
            let targets = [
                member.circuit.map(Target::Circuit),
                member.via.map(|it| Target::Via(via(it))),
            ];
            let target = self.one_of(at, "circuit, via", targets);
            members.push(v1::Member {
                target,
                weight: member.weight,
            });
        }
        Some(v1::Group {
            name: group.name,
            members,
        })
    }

    fn route(&mut self, at: Location, route: schema::Route) -> Option<v1::Route> {
        use v1::route::Target;
        let targets = [
            route.circuit.map(Target::Circuit),
            route.group.map(Target::Group),
            route.via.map(|it| Target::Via(via(it))),
            route.blackhole.map(|_| Target::Blackhole(v1::Blackhole {})),
        ];
        let target = self.one_of(at, "circuit, group, via, blackhole", targets);
        Some(v1::Route {
            vrf: route.vrf,
            prefix: route.prefix,
            target,
        })
    }

    fn key(&mut self, at: Location, key: schema::Key) -> Option<v1::Key> {
        use v1::key::Owner;
        let owners = [key.link.map(Owner::Link), key.circuit.map(Owner::Circuit)];
        let owner = self.one_of(at, "link, circuit", owners);
        let secret = match (key.secret, key.secret_file) {
            (Some(text), None) if text.0.as_str() == INSTALLED => {
                self.installed += 1;
                Some(Vec::new())
            }
            (Some(text), None) => self.decode(at, "secret", &text.0),
            (None, Some(_)) if self.origin == Origin::Store => {
                let fix = "write the secret itself: files of this machine are not for whoever writes the store";
                self.wrong(at, "secret_file", "it is not taken from a store", fix);
                return None;
            }
            (None, Some(file)) => {
                let file = self.path.parent().unwrap_or(Path::new("")).join(file);
                match std::fs::read_to_string(&file).map(Zeroizing::new) {
                    Ok(text) => self.decode(at, "secret_file", &text),
                    Err(error) => {
                        let reason = format!("cannot read {}: {error}", file.display());
                        self.wrong(
                            at,
                            "secret_file",
                            reason,
                            "name a file made by `twinseal genkey`",
                        );
                        return None;
                    }
                }
            }
            (Some(_), Some(_)) => {
                self.wrong(
                    at,
                    "secret, secret_file",
                    "both are given",
                    "keep one of them",
                );
                return None;
            }
            (None, None) => {
                let fix = "write the output of `twinseal genkey`, name its file in secret_file, or write `installed` \
                           for a key that the node has already";
                self.wrong(at, "secret", "the key has none", fix);
                return None;
            }
        }?;
        Some(v1::Key {
            owner,
            direction: Direction::number(key.direction),
            epoch: key.epoch,
            suite: Suite::number(key.suite),
            secret,
            receiver_index: key.receiver_index,
            fingerprint: Vec::new(),
            limits: key.limits.map(|it| v1::KeyLimits {
                packets: it.packets,
                bytes: it.bytes,
                seconds: it.seconds,
            }),
        })
    }

    fn decode(&mut self, at: Location, field: &str, text: &str) -> Option<Vec<u8>> {
        match STANDARD.decode(text.trim()) {
            Ok(secret) => Some(secret),
            // The decoder's own message would show a part of the secret.
            Err(_) => {
                let fix = "write the output of `twinseal genkey`: 32 octets, 44 characters";
                self.wrong(at, field, "the secret is not base64", fix);
                None
            }
        }
    }

    fn transmit(&mut self, at: Location, transmit: schema::Transmit) -> Option<v1::Transmit> {
        use v1::transmit::Owner;
        let owners = [
            transmit.link.map(Owner::Link),
            transmit.circuit.map(Owner::Circuit),
        ];
        let owner = self.one_of(at, "link, circuit", owners);
        Some(v1::Transmit {
            owner,
            epoch: transmit.epoch,
        })
    }

    fn deletes(&mut self, deletes: Vec<Spanned<schema::Delete>>) {
        use v1::item_ref::Item;
        for (
            index,
            Spanned {
                value: delete,
                referenced: at,
                ..
            },
        ) in deletes.into_iter().enumerate()
        {
            let item = match delete {
                schema::Delete::Port(name) => Item::Port(name),
                schema::Delete::Vrf(name) => Item::Vrf(name),
                schema::Delete::Link(name) => Item::Link(name),
                schema::Delete::Circuit(name) => Item::Circuit(name),
                schema::Delete::Label(it) => Item::Label(v1::LabelRef {
                    link: it.link,
                    label: it.label,
                }),
                schema::Delete::Group(name) => Item::Group(name),
                schema::Delete::Route(it) => Item::Route(v1::RouteRef {
                    vrf: it.vrf,
                    prefix: it.prefix,
                }),
                schema::Delete::Neighbour(it) => Item::Neighbour(v1::NeighbourRef {
                    port: it.port,
                    address: it.address,
                }),
                schema::Delete::Key(it) => Item::Key(self.key_ref(at, it)),
                schema::Delete::Transmit(it) => {
                    use v1::transmit_ref::Owner;
                    let owners = [it.link.map(Owner::Link), it.circuit.map(Owner::Circuit)];
                    Item::Transmit(v1::TransmitRef {
                        owner: self.one_of(at, "link, circuit", owners),
                    })
                }
            };
            let item = v1::ItemRef { item: Some(item) };
            self.push("delete", index, at, v1::change::Change::Delete(item));
        }
    }

    fn key_ref(&mut self, at: Location, key: schema::KeyRef) -> v1::KeyRef {
        use v1::key_ref::Owner;
        let owners = [key.link.map(Owner::Link), key.circuit.map(Owner::Circuit)];
        let owner = self.one_of(at, "link, circuit", owners);
        v1::KeyRef {
            owner,
            direction: Direction::number(key.direction),
            epoch: key.epoch,
        }
    }
}

fn link(link: schema::Link) -> v1::Link {
    v1::Link {
        name: link.name,
        end: End::number(link.end),
        port: link.port,
        local: link.local,
        remote: link.remote,
        local_port: link.local_port,
        remote_port: link.remote_port,
        next_hop: link.next_hop,
    }
}

fn circuit(circuit: schema::Circuit) -> v1::Circuit {
    v1::Circuit {
        name: circuit.name,
        id: circuit.id,
        end: End::number(circuit.end),
        vrf: circuit.vrf,
        link: circuit.link,
        label: circuit.label,
        hop_limit: circuit.hop_limit,
        dscp: Dscp::number(circuit.dscp),
        dscp_value: circuit.dscp_value,
        tags: circuit.tags,
    }
}

fn via(via: schema::Via) -> v1::Via {
    v1::Via {
        port: via.port,
        address: via.address,
    }
}
