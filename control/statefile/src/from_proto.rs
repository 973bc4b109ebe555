//! From items to the file.

use twinseal_api::v1;

use super::schema::{
    self, BindMode, Checksum, Direction, Dscp, End, File, INSTALLED, NEEDED, PortRole, Suite,
    XdpMode,
};

/// The file that says these items. What a later protocol adds is left out.
pub(super) fn file(items: &[v1::Item]) -> File {
    use v1::item::Item;
    let mut file = File::default();
    for v1::Item { item, owner } in items.iter().cloned() {
        macro_rules! push {
            ($section:ident, $entry:expr) => {
                file.$section.push(schema::Owned {
                    entry: $entry,
                    owner,
                })
            };
        }
        match item {
            Some(Item::Port(it)) => push!(ports, port(it)),
            Some(Item::Vrf(it)) => push!(vrfs, schema::Vrf { name: it.name }),
            Some(Item::Link(it)) => push!(links, link(it)),
            Some(Item::Circuit(it)) => push!(circuits, circuit(it)),
            Some(Item::Label(it)) => push!(labels, label(it)),
            Some(Item::Group(it)) => push!(groups, group(it)),
            Some(Item::Route(it)) => push!(routes, route(it)),
            Some(Item::Neighbour(v1::Neighbour { port, address, mac })) => {
                push!(neighbours, schema::Neighbour { port, address, mac });
            }
            Some(Item::Key(it)) => push!(keys, key(it)),
            Some(Item::Transmit(it)) => push!(transmit, transmit(it)),
            None => {}
        }
    }
    file
}

fn port(port: v1::Port) -> schema::Port {
    use v1::port::Device;
    let (mut af_xdp, mut tap, mut memory) = (None, None, None);
    match port.device {
        Some(Device::AfXdp(it)) => {
            af_xdp = Some(schema::AfXdp {
                netdev: it.netdev,
                bind: BindMode::from_number(it.bind).filter(|&it| it != BindMode::Auto),
                xdp: XdpMode::from_number(it.xdp).filter(|&it| it != XdpMode::Auto),
                busy_poll: it.busy_poll,
                owned: it.owned,
            });
        }
        Some(Device::Tap(it)) => tap = Some(schema::Tap { netdev: it.netdev }),
        Some(Device::Memory(it)) => {
            memory = Some(schema::Memory {
                wire: it.wire,
                mac: it.mac,
            })
        }
        None => {}
    }
    let role = PortRole::from_number(port.role);
    schema::Port {
        name: port.name,
        role,
        vrf: port.vrf,
        mtu: port.mtu,
        checksum: Checksum::from_number(port.checksum).filter(|&it| it != Checksum::Auto),
        local: port.local,
        af_xdp,
        tap,
        memory,
    }
}

fn link(link: v1::Link) -> schema::Link {
    schema::Link {
        name: link.name,
        end: End::from_number(link.end),
        port: link.port,
        local: link.local,
        remote: link.remote,
        local_port: link.local_port,
        remote_port: link.remote_port,
        next_hop: link.next_hop,
    }
}

fn circuit(circuit: v1::Circuit) -> schema::Circuit {
    schema::Circuit {
        name: circuit.name,
        id: circuit.id,
        end: End::from_number(circuit.end),
        vrf: circuit.vrf,
        link: circuit.link,
        label: circuit.label,
        hop_limit: circuit.hop_limit,
        dscp: Dscp::from_number(circuit.dscp).filter(|&it| it != Dscp::Copy),
        dscp_value: circuit.dscp_value,
        tags: circuit.tags,
    }
}

fn label(label: v1::Label) -> schema::Label {
    use v1::label::Action;
    let (mut swap, mut egress) = (None, None);
    match label.action {
        Some(Action::Swap(it)) => {
            swap = Some(schema::Swap {
                link: it.link,
                label: it.label,
            })
        }
        Some(Action::Egress(it)) => {
            egress = Some(schema::Egress {
                circuit: it.circuit,
            })
        }
        None => {}
    }
    schema::Label {
        link: label.link,
        label: label.label,
        swap,
        egress,
    }
}

fn group(group: v1::Group) -> schema::Group {
    use v1::member::Target;
    let member = |member: v1::Member| {
        let (circuit, via) = match member.target {
            Some(Target::Circuit(name)) => (Some(name), None),
            Some(Target::Via(it)) => (None, Some(self::via(it))),
            None => (None, None),
        };
        schema::Member {
            circuit,
            via,
            weight: member.weight,
        }
    };
    schema::Group {
        name: group.name,
        members: group.members.into_iter().map(member).collect(),
    }
}

fn via(via: v1::Via) -> schema::Via {
    schema::Via {
        port: via.port,
        address: via.address,
    }
}

fn route(route: v1::Route) -> schema::Route {
    use v1::route::Target;
    let (vrf, prefix) = (route.vrf, route.prefix);
    let mut to = schema::Route {
        vrf,
        prefix,
        circuit: None,
        group: None,
        via: None,
        blackhole: None,
    };
    match route.target {
        Some(Target::Circuit(name)) => to.circuit = Some(name),
        Some(Target::Group(name)) => to.group = Some(name),
        Some(Target::Via(it)) => to.via = Some(via(it)),
        Some(Target::Blackhole(_)) => to.blackhole = Some(schema::Blackhole {}),
        None => {}
    }
    to
}

fn key(key: v1::Key) -> schema::Key {
    use v1::key::Owner;
    let (link, circuit) = match key.owner {
        Some(Owner::Link(name)) => (Some(name), None),
        Some(Owner::Circuit(name)) => (None, Some(name)),
        None => (None, None),
    };
    schema::Key {
        link,
        circuit,
        direction: Direction::from_number(key.direction),
        epoch: key.epoch,
        suite: Suite::from_number(key.suite),
        receiver_index: key.receiver_index,
        limits: key.limits.map(|it| schema::KeyLimits {
            packets: it.packets,
            bytes: it.bytes,
            seconds: it.seconds,
        }),
        secret: match key.needed {
            true => NEEDED,
            false => INSTALLED,
        },
    }
}

fn transmit(transmit: v1::Transmit) -> schema::Transmit {
    use v1::transmit::Owner;
    let (link, circuit) = match transmit.owner {
        Some(Owner::Link(name)) => (Some(name), None),
        Some(Owner::Circuit(name)) => (None, Some(name)),
        None => (None, None),
    };
    schema::Transmit {
        link,
        circuit,
        epoch: transmit.epoch,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{StateFile, render};

    #[test]
    fn whose_an_entry_is_goes_there_and_back() {
        let vrf = |name: &str, owner: &str| v1::Item {
            item: Some(v1::item::Item::Vrf(v1::Vrf { name: name.into() })),
            owner: owner.into(),
        };
        let items = [vrf("red", ""), vrf("blue", "bgp")];
        let text = render(&items);
        assert_eq!(text.matches("owner: bgp").count(), 1, "{text}");
        let read = StateFile::parse(Path::new("s.yaml"), &text).expect("sound");
        let read = read.changes.into_iter().map(|it| match it.change {
            Some(v1::change::Change::Set(item)) => item,
            other => panic!("{other:?}"),
        });
        assert_eq!(read.collect::<Vec<_>>(), items);
        // Of a store all is its reader's.
        let Err(mistakes) = StateFile::parse_fragment(Path::new("key"), &text) else {
            panic!("a fragment has no owner");
        };
        assert_eq!((mistakes.len(), &*mistakes[0].field), (1, "owner"));
    }
}
