//! Routing of inner packets: what RFC 1812 and RFC 8200 ask of a router, and the way to the next hop.

use zerocopy::{FromBytes, IntoBytes};

use super::reason::{DropReason, Refused};
use super::{Account, Batch, Packet, Stage, State, Waiting, at, count_drop, flow, icmp};
use crate::tables::fib::{Leaf, NO_ROUTE};
use crate::tables::hash::Memo;
use crate::tables::{CircuitIndex, NeighbourKey, Tables, Target, Via, Vrf};
use crate::wire::ethernet::Mac;
use crate::wire::ip::Mapped;
use crate::wire::overlay::OVERHEAD;
use crate::wire::{ecn, ethernet, ip};

/// Looked up again and again: most packets of a batch go to one gateway or a few hosts.
type Neighbours<'t> = Memo<'t, NeighbourKey, Mac>;

pub(super) fn forward(state: &mut State, tables: &Tables, batch: &mut Batch) {
    let mut neighbours = Memo::new(&tables.neighbours);
    for packet in at(batch, Stage::Route) {
        if let Err(refused) = route(state, tables, &mut neighbours, packet, true) {
            answer(state, tables, &mut neighbours, packet, refused);
        }
    }
}

/// The sender of a packet that goes no further hears of it where ICMP provides for that; the drop counts either way.
#[cold]
fn answer(
    state: &mut State,
    tables: &Tables,
    neighbours: &mut Neighbours<'_>,
    packet: &mut Packet,
    refused: Refused,
) {
    // The answer goes its own way, maybe into another circuit; what it answers stays on its account.
    let meta = packet.meta;
    let answered = icmp::answer(state, tables, packet, refused)
        && route(state, tables, neighbours, packet, false).is_ok();
    if answered {
        count_drop(state, tables, &meta, refused.reason);
    } else {
        packet.meta = meta;
        packet.drop(refused.reason);
    }
}

/// Checks the IP header, cuts off what is not the packet, takes a hop off if the packet is in `transit` and not our own,
/// and follows its route.
// All of it is inlined where it is hot: left to itself the compiler does so nowhere, because of the cold caller.
#[inline(always)]
fn route(
    state: &mut State,
    tables: &Tables,
    neighbours: &mut Neighbours<'_>,
    packet: &mut Packet,
    transit: bool,
) -> Result<(), Refused> {
    let vrf = &tables.vrfs[packet.meta.vrf.0 as usize];
    let checked = match packet.frame.data().first().copied() {
        // Nearly all headers have no options.
        Some(0x45) => check_v4(vrf, packet, ip::V4_LEN, transit)?,
        Some(first) if first >> 4 == 4 => {
            check_v4(vrf, packet, usize::from(first & 0x0f) * 4, transit)?
        }
        Some(first) if first >> 4 == 6 => check_v6(vrf, packet, transit)?,
        Some(_) => return Err(DropReason::BadIpHeader.into()),
        None => return Err(DropReason::Truncated.into()),
    };
    resolve(state, tables, neighbours, vrf, packet, checked)
}

/// What the check of an IP header finds out.
struct Checked {
    /// Of the packet's route, or [`NO_ROUTE`].
    leaf: Leaf,
    ethertype: u16,
    destination: Mapped,
}

#[inline(always)]
fn check_v4(
    vrf: &Vrf,
    packet: &mut Packet,
    header_len: usize,
    transit: bool,
) -> Result<Checked, Refused> {
    let (outer, tunnelled) = (packet.meta.traffic_class, packet.meta.tunnelled);
    let data = packet.frame.data();
    let (header, _) = ip::V4Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
    let total = usize::from(header.total_length.get());
    if header_len < ip::V4_LEN || total < header_len {
        return Err(DropReason::BadIpHeader.into());
    }
    if total > data.len() {
        return Err(DropReason::Truncated.into());
    }
    if !ip::checksum_is_right(&data[..header_len]) {
        return Err(DropReason::BadChecksum.into());
    }
    if !ip::v4_source_is_valid(header.source) {
        return Err(DropReason::BadSource.into());
    }
    if !ip::v4_is_routable(header.destination) {
        return Err(DropReason::BadDestination.into());
    }
    let leaf = vrf.fib.lookup_v4(header.destination);
    packet.frame.truncate(total);

    let (header, _) = ip::V4Header::mut_from_prefix(packet.frame.data_mut())
        .map_err(|_| DropReason::Truncated)?;
    if tunnelled {
        let class = ecn::leave(header.traffic_class, outer).ok_or(DropReason::EcnViolation)?;
        if class != header.traffic_class {
            header.set_traffic_class(class);
        }
    }
    if transit {
        if header.ttl <= 1 {
            return Err(DropReason::TtlExpired.into());
        }
        header.decrement_ttl();
    }
    packet.meta.traffic_class = header.traffic_class;
    Ok(Checked {
        leaf,
        ethertype: ethernet::IPV4,
        destination: ip::mapped_v4(header.destination),
    })
}

/// As [`check_v4`].
#[inline]
fn check_v6(vrf: &Vrf, packet: &mut Packet, transit: bool) -> Result<Checked, Refused> {
    let (outer, tunnelled) = (packet.meta.traffic_class, packet.meta.tunnelled);
    let data = packet.frame.data();
    let (header, payload) =
        ip::V6Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
    let length = usize::from(header.payload_length.get());
    if length > payload.len() {
        return Err(DropReason::Truncated.into());
    }
    if !ip::v6_source_is_valid(header.source) {
        return Err(DropReason::BadSource.into());
    }
    if !ip::v6_is_routable(header.destination) {
        return Err(DropReason::BadDestination.into());
    }
    let leaf = vrf.fib.lookup_v6(header.destination);
    packet.frame.truncate(ip::V6_LEN + length);

    let (header, _) = ip::V6Header::mut_from_prefix(packet.frame.data_mut())
        .map_err(|_| DropReason::Truncated)?;
    if tunnelled {
        let class = header.traffic_class();
        let left = ecn::leave(class, outer).ok_or(DropReason::EcnViolation)?;
        header.set_traffic_class(left);
    }
    if transit {
        if header.hop_limit <= 1 {
            return Err(DropReason::TtlExpired.into());
        }
        header.hop_limit -= 1;
    }
    packet.meta.traffic_class = header.traffic_class();
    Ok(Checked {
        leaf,
        ethertype: ethernet::IPV6,
        destination: ip::mapped_v6(header.destination),
    })
}

/// Follows the route to a circuit or a neighbour.
#[inline(always)]
fn resolve(
    state: &mut State,
    tables: &Tables,
    neighbours: &mut Neighbours<'_>,
    vrf: &Vrf,
    packet: &mut Packet,
    checked: Checked,
) -> Result<(), Refused> {
    if checked.leaf == NO_ROUTE {
        return Err(DropReason::NoRoute.into());
    }
    let target = match vrf.targets.get(checked.leaf as usize - 1) {
        Some(Target::Group(group)) => {
            Some(tables.groups[group.0 as usize].member(flow::of(packet.frame.data())))
        }
        other => other,
    };
    match target {
        Some(Target::Circuit(circuit)) => enter(tables, packet, *circuit),
        Some(Target::Via(via)) => deliver(state, tables, neighbours, packet, via, checked),
        Some(Target::Blackhole) => Err(DropReason::Blackhole.into()),
        // A group has no groups as members.
        Some(Target::Group(_)) | None => Err(DropReason::NoRoute.into()),
    }
}

/// Into a circuit, if the packet will fit its link.
#[inline(always)]
fn enter(tables: &Tables, packet: &mut Packet, circuit: CircuitIndex) -> Result<(), Refused> {
    (packet.meta.circuit, packet.meta.account) = (circuit, Account::Circuit);
    let link = tables.link(tables.circuit(circuit).link);
    let overhead = link.outer.len() - ethernet::LEN + OVERHEAD;
    if packet.frame.len() + overhead > usize::from(link.mtu) {
        return Err(Refused {
            reason: DropReason::PacketTooBig,
            mtu: (usize::from(link.mtu).saturating_sub(overhead)) as u16,
        });
    }
    packet.meta.flow = flow::of(packet.frame.data());
    packet.stage = Stage::CircuitSeal;
    Ok(())
}

/// Out of an edge port to a neighbour.
#[inline(always)]
fn deliver(
    state: &mut State,
    tables: &Tables,
    neighbours: &mut Neighbours<'_>,
    packet: &mut Packet,
    via: &Via,
    checked: Checked,
) -> Result<(), Refused> {
    let port = tables.port(via.port).ok_or(DropReason::PortGone)?;
    if packet.frame.len() > usize::from(port.mtu) {
        return Err(Refused {
            reason: DropReason::PacketTooBig,
            mtu: port.mtu,
        });
    }
    let key = NeighbourKey {
        port: via.port,
        address: via.address.unwrap_or(checked.destination),
    };
    let neighbour = port.peer.or_else(|| neighbours.get(key).copied());
    let header = ethernet::Header {
        destination: neighbour.unwrap_or_default(),
        source: port.mac,
        ethertype: checked.ethertype.into(),
    };
    if !packet.frame.prepend(ethernet::LEN) {
        return Err(DropReason::NoHeadroom.into());
    }
    packet.frame.data_mut()[..ethernet::LEN].copy_from_slice(header.as_bytes());
    match neighbour {
        Some(_) => packet.send(via.port),
        None => ask(state, packet, key),
    }
    Ok(())
}

/// Has a neighbour looked for, and the packet wait for it.
#[cold]
fn ask(state: &mut State, packet: &mut Packet, key: NeighbourKey) {
    let wanted = (key.port, ip::unmapped(key.address));
    if !state.wanted.is_full() && !state.wanted.contains(&wanted) {
        state.wanted.push(wanted);
    }
    let waiting = Waiting(state.waiting.len() as u8);
    match state.waiting.try_push(key) {
        Ok(()) => packet.wait(waiting),
        // There is room for every packet of a batch.
        Err(_) => packet.drop(DropReason::NeighbourUnresolved),
    }
}
