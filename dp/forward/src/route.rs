//! Routing of inner packets: what RFC 1812 and RFC 8200 ask of a router, and the way to the next hop.

use zerocopy::{FromBytes, IntoBytes};

use super::lookups::{Found, Lookups};
use super::reason::{DropReason, Refused};
use super::told::Told;
use super::{
    Account, Awaited, Batch, Disposition, Packet, Stage, State, Waiting, at, circuit, count_drop,
    flow, icmp,
};
use twinseal_fib::neighbour::Neighbour;
use twinseal_fib::own::Barred;
use twinseal_fib::trie::{Leaf, NO_ROUTE};
use twinseal_fib::{CircuitIndex, Fib, NeighbourKey, NextHop, PortIndex, PortRole, Target};
use twinseal_wire::ip::Mapped;
use twinseal_wire::{ecn, ethernet, ip};

/// Where a packet is routed to.
#[derive(Clone, Copy)]
enum Destination {
    V4([u8; 4]),
    V6([u8; 16]),
}

/// Of an IP packet whose header was checked.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    V4,
    V6,
}

impl Version {
    #[inline(always)]
    fn of(packet: &Packet) -> Self {
        match packet.frame.data().first() {
            Some(first) if first >> 4 == 4 => Self::V4,
            _ => Self::V6,
        }
    }
}

pub(super) fn forward(state: &mut State, tables: &Fib, batch: &mut Batch) {
    let (v4, v6) = look_up(state, tables, batch);
    tables.prefetch_targets(v4.distinct());
    tables.prefetch_targets(v6.distinct());
    follow(state, tables, batch, &v4, &v6);
    if v4.distinct().len() + v6.distinct().len() > 1 {
        circuit::prefetch_transmit(state, tables, batch);
    }
}

/// Checks the headers, and looks for routes.
#[inline(never)]
fn look_up(state: &mut State, tables: &Fib, batch: &mut Batch) -> (Found, Found) {
    let (mut v4, mut v6) = (Lookups::new(), Lookups::new());
    for (slot, packet) in at(batch, Stage::Route) {
        let vrf = &tables.vrfs[packet.meta.from.vrf.0];
        match check(packet, Some((tables, &vrf.barred))) {
            Ok(Destination::V4(address)) => v4.push(slot, &vrf.routes_v4, address),
            Ok(Destination::V6(address)) => v6.push(slot, &vrf.routes_v6, address),
            Err(refused) => answer(state, tables, packet, refused),
        }
    }
    (v4.find(&tables.tries), v6.find(&tables.tries))
}

/// Sends packets where their routes lead.
#[inline(never)]
fn follow(state: &mut State, tables: &Fib, batch: &mut Batch, v4: &Found, v6: &Found) {
    let mut recent: Option<Recent> = None;
    let mut last = NO_ROUTE;
    for (slot, packet) in at(batch, Stage::Route) {
        let version = Version::of(packet);
        let leaf = match version {
            Version::V4 => v4.of(slot),
            Version::V6 => v6.of(slot),
        };
        if let Some(recent) = recent.as_ref()
            && recent.repeat(packet, version, leaf)
        {
            continue;
        }
        match resolve(state, tables, packet, version, leaf) {
            // One packet more the same way, and others may follow.
            Ok(()) if leaf == last && packet.stage == Stage::Done => {
                recent = Recent::new(tables, packet, version, leaf).or(recent);
            }
            Ok(()) => last = leaf,
            Err(refused) => answer(state, tables, packet, refused),
        }
    }
}

/// How a packet was delivered: as a rule the next one goes to the same gateway or host.
struct Recent {
    leaf: Leaf,
    version: Version,
    /// Whose, if it leads to whatever packets are for; a gateway's is not asked.
    destination: Option<Mapped>,
    port: PortIndex,
    mtu: u16,
    header: [u8; ethernet::LEN],
}

impl Recent {
    /// Of a packet whose route was followed; `None` if it was not delivered, or by a group.
    #[inline(never)]
    fn new(tables: &Fib, packet: &Packet, version: Version, leaf: Leaf) -> Option<Self> {
        let Some(Target::NextHop(via)) = Target::of(leaf) else {
            return None;
        };
        let Disposition::Send(port) = packet.disposition else {
            return None;
        };
        let (header, inside) = packet.frame.data().split_first_chunk()?;
        Some(Self {
            leaf,
            version,
            destination: match tables.vias[via.0].address {
                Some(_) => None,
                None => Some(destination(inside, version)?),
            },
            port,
            mtu: tables.port(port)?.mtu,
            header: *header,
        })
    }

    /// Delivers another packet alike, if it is.
    #[inline(always)]
    fn repeat(&self, packet: &mut Packet, version: Version, leaf: Leaf) -> bool {
        let alike = leaf == self.leaf
            && version == self.version
            && packet.frame.len() <= usize::from(self.mtu)
            && (self.destination.is_none()
                || self.destination == destination(packet.frame.data(), version));
        if !alike || !packet.frame.prepend(ethernet::LEN) {
            return false;
        }
        packet.frame.data_mut()[..ethernet::LEN].copy_from_slice(&self.header);
        packet.send(self.port);
        true
    }
}

/// The sender of a packet that goes no further hears of it where ICMP provides for that; the drop counts either way.
#[cold]
fn answer(state: &mut State, tables: &Fib, packet: &mut Packet, refused: Refused) {
    // The answer goes its own way, maybe into another circuit; what it answers stays on its account.
    let meta = packet.meta;
    // Where a packet ends it takes no hop off.
    let ends_here = refused.reason == DropReason::TtlExpired && icmp::is_for_us(tables, packet);
    let refused = if ends_here {
        DropReason::OwnAddress.into()
    } else {
        refused
    };
    if refused.reason == DropReason::OwnAddress && icmp::echo(packet) {
        let sent = match icmp::may_reply(state, tables, packet) {
            true => route(state, tables, packet),
            false => Err(DropReason::EchoLimited.into()),
        };
        match sent {
            Ok(()) => packet.meta.answered = Some(refused.reason),
            Err(unsent) => {
                packet.meta = meta;
                packet.drop(unsent.reason);
            }
        }
        return;
    }
    let told = match icmp::answer(state, tables, packet, refused) {
        Ok(()) if route(state, tables, packet).is_ok() => Some(Told::Sent),
        Ok(()) => Some(Told::NoWayBack),
        Err(told) => told,
    };
    if let Some(told) = told {
        state.told.count(told);
    }
    if told == Some(Told::Sent) {
        packet.meta.answered = Some(refused.reason);
        count_drop(state, tables, &meta, refused.reason);
    } else {
        packet.meta = meta;
        packet.drop(refused.reason);
    }
}

/// Whether a packet came from the host itself, by a TAP: its addresses are ours.
#[cold]
fn is_of_the_host(tables: &Fib, port: PortIndex) -> bool {
    let port = tables.port(port);
    port.is_some_and(|it| it.peer.is_some() && matches!(it.role, PortRole::Edge(_)))
}

/// Follows the route of a packet of our own.
fn route(state: &mut State, tables: &Fib, packet: &mut Packet) -> Result<(), Refused> {
    let vrf = &tables.vrfs[packet.meta.from.vrf.0];
    let leaf = match check(packet, None)? {
        Destination::V4(address) => tables.tries.lookup(&vrf.routes_v4, address),
        Destination::V6(address) => tables.tries.lookup(&vrf.routes_v6, address),
    };
    resolve(state, tables, packet, Version::of(packet), leaf)
}

/// Of a packet that is passed on: the tables, and whom it must not come from. `None` for one of our own.
type Transit<'t> = Option<(&'t Fib, &'t Barred)>;

/// Checks the IP header, cuts off what is not the packet, and takes a hop off if it is in transit.
// All of it is inlined where it is hot: left to itself the compiler does so nowhere, because of the cold caller.
#[inline(always)]
fn check(packet: &mut Packet, transit: Transit<'_>) -> Result<Destination, Refused> {
    match packet.frame.data().first().copied() {
        // Nearly all headers have no options.
        Some(0x45) => check_v4(packet, ip::V4_LEN, transit),
        Some(first) if first >> 4 == 4 => check_v4(packet, usize::from(first & 0x0f) * 4, transit),
        Some(first) if first >> 4 == 6 => check_v6(packet, transit),
        Some(_) => Err(DropReason::BadIpHeader.into()),
        None => Err(DropReason::Truncated.into()),
    }
}

#[inline(always)]
fn check_v4(
    packet: &mut Packet,
    header_len: usize,
    transit: Transit<'_>,
) -> Result<Destination, Refused> {
    let circuit_class = packet.meta.from.circuit_class;
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
    let barred = transit.is_some_and(|(tables, barred)| {
        barred.has_v4(header.source) && !is_of_the_host(tables, packet.port)
    });
    if barred || !ip::v4_is_routed(header.source) {
        return Err(DropReason::BadSource.into());
    }
    if !ip::v4_is_routed(header.destination) {
        return Err(DropReason::BadDestination.into());
    }
    packet.frame.truncate(total);

    let (header, _) = ip::V4Header::mut_from_prefix(packet.frame.data_mut())
        .map_err(|_| DropReason::Truncated)?;
    if let Some(outer) = circuit_class {
        let class = ecn::leave(header.traffic_class, outer).ok_or(DropReason::EcnViolation)?;
        if class != header.traffic_class {
            header.set_traffic_class(class);
        }
    }
    if transit.is_some() {
        if header.ttl <= 1 {
            return Err(DropReason::TtlExpired.into());
        }
        header.decrement_ttl();
    }
    packet.meta.to.class = header.traffic_class;
    Ok(Destination::V4(header.destination))
}

/// As [`check_v4`].
#[inline]
fn check_v6(packet: &mut Packet, transit: Transit<'_>) -> Result<Destination, Refused> {
    let circuit_class = packet.meta.from.circuit_class;
    let data = packet.frame.data();
    let (header, payload) =
        ip::V6Header::ref_from_prefix(data).map_err(|_| DropReason::Truncated)?;
    let length = usize::from(header.payload_length.get());
    if length > payload.len() {
        return Err(DropReason::Truncated.into());
    }
    // A jumbogram (RFC 2675) says its length in an option; without one there is nothing that the next header could be.
    if length == 0 && header.next_header != ip::NO_NEXT_HEADER {
        return Err(DropReason::BadIpHeader.into());
    }
    let barred = transit.is_some_and(|(tables, barred)| {
        barred.has_v6(header.source) && !is_of_the_host(tables, packet.port)
    });
    if barred || !ip::v6_is_routed(header.source) {
        return Err(DropReason::BadSource.into());
    }
    if !ip::v6_is_routed(header.destination) {
        return Err(DropReason::BadDestination.into());
    }
    packet.frame.truncate(ip::V6_LEN + length);

    let (header, _) = ip::V6Header::mut_from_prefix(packet.frame.data_mut())
        .map_err(|_| DropReason::Truncated)?;
    if let Some(outer) = circuit_class {
        let class = header.traffic_class();
        let left = ecn::leave(class, outer).ok_or(DropReason::EcnViolation)?;
        header.set_traffic_class(left);
    }
    if transit.is_some() {
        if header.hop_limit <= 1 {
            return Err(DropReason::TtlExpired.into());
        }
        header.hop_limit -= 1;
    }
    packet.meta.to.class = header.traffic_class();
    Ok(Destination::V6(header.destination))
}

/// Follows the route to a circuit or a neighbour.
#[inline(always)]
fn resolve(
    state: &mut State,
    tables: &Fib,
    packet: &mut Packet,
    version: Version,
    leaf: Leaf,
) -> Result<(), Refused> {
    let target = match Target::of(leaf) {
        Some(Target::Group(group)) => {
            let member = tables.groups[group.0].member(flow::of(packet.frame.data()));
            Some(member.ok_or(DropReason::GroupDown)?)
        }
        other => other,
    };
    match target {
        Some(Target::Circuit(circuit)) => enter(tables, packet, circuit),
        Some(Target::NextHop(via)) => {
            let via = &tables.vias[via.0];
            deliver(state, tables, packet, version, via)
        }
        Some(Target::Blackhole) => Err(DropReason::Blackhole.into()),
        Some(Target::Own) => Err(DropReason::OwnAddress.into()),
        Some(Target::SubnetEnd) => Err(DropReason::BadDestination.into()),
        // A group has no groups as members.
        Some(Target::Group(_)) | None => Err(DropReason::NoRoute.into()),
    }
}

/// Into a circuit, if that and its link can take the packet.
#[inline(always)]
fn enter(tables: &Fib, packet: &mut Packet, circuit: CircuitIndex) -> Result<(), Refused> {
    packet.meta.to.circuit = Some(circuit);
    packet.meta.account = Account::ToCircuit;
    let circuit = tables.circuit(circuit);
    packet.meta.to.link = circuit.link;
    if let Some(sa) = &circuit.transmit {
        sa.prefetch_self();
    }
    circuit::admit(tables, circuit, packet.frame.len())?;
    packet.meta.to.flow = flow::of(packet.frame.data());
    packet.stage = Stage::CircuitEnter;
    Ok(())
}

/// Out of an edge port to a neighbour.
#[inline(always)]
fn deliver(
    state: &mut State,
    tables: &Fib,
    packet: &mut Packet,
    version: Version,
    via: &NextHop,
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
        address: match via.address {
            Some(address) => address,
            None => destination(packet.frame.data(), version).ok_or(DropReason::Truncated)?,
        },
    };
    let known = || {
        via.neighbour
            .as_ref()
            .or_else(|| tables.neighbours.get(&key))
    };
    let neighbour = port.peer.or_else(|| known().map(Neighbour::send_to));
    let ethertype = match version {
        Version::V4 => ethernet::IPV4,
        Version::V6 => ethernet::IPV6,
    };
    let header = ethernet::Header {
        destination: neighbour.unwrap_or_default(),
        source: port.mac,
        ethertype: ethertype.into(),
    };
    if !packet.frame.prepend(ethernet::LEN) {
        return Err(DropReason::NoHeadroom.into());
    }
    packet.frame.data_mut()[..ethernet::LEN].copy_from_slice(header.as_bytes());
    match neighbour {
        Some(_) => packet.send(via.port),
        None => wait(
            state,
            packet,
            Awaited {
                neighbour: key,
                since: port.since,
            },
        ),
    }
    Ok(())
}

/// The destination of a packet whose header was checked.
#[inline(always)]
fn destination(packet: &[u8], version: Version) -> Option<Mapped> {
    Some(match version {
        Version::V4 => ip::mapped_v4(ip::V4Header::ref_from_prefix(packet).ok()?.0.destination),
        Version::V6 => ip::mapped_v6(ip::V6Header::ref_from_prefix(packet).ok()?.0.destination),
    })
}

/// Has a packet wait for a neighbour.
#[cold]
fn wait(state: &mut State, packet: &mut Packet, awaited: Awaited) {
    let waiting = Waiting(state.waiting.len() as u8);
    match state.waiting.try_push(awaited) {
        Ok(()) => packet.wait(waiting),
        // There is room for every packet of a batch.
        Err(_) => packet.drop(DropReason::NeighbourUnresolved),
    }
}
