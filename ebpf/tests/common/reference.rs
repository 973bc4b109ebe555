//! What the program ought to say, written from the rules and with std's own idea of addresses; it shares no code with
//! the program.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use twinseal_ebpf::{Role, Verdict};

use super::frames::{ENDPOINTS, LOCAL, SUBNET_BROADCAST, VIRTUAL};

/// The verdict on a frame, on a port whose queue has a socket.
pub(crate) fn verdict(role: Role, frame: &[u8]) -> Verdict {
    let Some((ethernet, packet)) = frame.split_at_checked(14) else {
        return Verdict::PassTruncated;
    };
    let destination: [u8; 6] = ethernet[..6].try_into().unwrap();
    let (ether_type, packet) = match inside(ethernet, packet) {
        Err(_) if matches!(role, Role::Bridge { .. }) => return Verdict::PassVlan,
        Err(verdict) => return verdict,
        Ok((_, inner)) if matches!(role, Role::Bridge { .. }) && inner.len() < packet.len() => {
            return Verdict::PassVlan;
        }
        Ok(inside) => inside,
    };
    match role {
        Role::Bridge { mac } => match destination {
            [1, 0x80, 0xc2, 0, 0, 0..=0x0f] => Verdict::PassLinkControl,
            to if to == mac => Verdict::PassLocal,
            _ => Verdict::Redirected,
        },
        _ if ether_type != 0x0800 && ether_type != 0x86dd => Verdict::PassNotIp,
        Role::Edge { .. } if destination[0] % 2 == 1 => to_all(ether_type, packet),
        Role::Edge { mac, .. } if destination != mac && destination != VIRTUAL => {
            Verdict::PassOtherMac
        }
        Role::Edge { .. } => edge(ether_type, packet),
        Role::Underlay if ether_type == 0x0800 => underlay4(packet),
        Role::Underlay => underlay6(packet),
    }
}

/// The verdict on an IP packet in a frame to a group, or to all.
fn to_all(ether_type: u16, packet: &[u8]) -> Verdict {
    let to = match ether_type {
        0x0800 => ipv4(packet).map(|it| IpAddr::V4(it.0)),
        _ => ipv6(packet).map(|it| IpAddr::V6(it.0)),
    };
    let all = [Ipv4Addr::BROADCAST, SUBNET_BROADCAST];
    match to {
        Ok(to) if to.is_multicast() || own(to) => Verdict::PassMulticast,
        Ok(IpAddr::V4(to)) if all.contains(&to) => Verdict::PassMulticast,
        Ok(_) => Verdict::UnicastInMulticast,
        Err(_) => Verdict::PassMulticast,
    }
}

fn own(it: IpAddr) -> bool {
    LOCAL.iter().any(|own| own.parse::<IpAddr>().unwrap() == it)
}

/// Why an edge port, owned or not, does not let the kernel have this frame of this verdict, but for budgets.
pub(crate) fn never(because: Verdict, frame: &[u8]) -> bool {
    let tags = || {
        let tag = u16::from_be_bytes([frame[14], frame[15]]);
        tag.is_multiple_of(0x1000)
    };
    match because {
        Verdict::UnicastInMulticast => true,
        Verdict::PassVlan => tags(),
        _ => false,
    }
}

/// The type of a frame and what is of that type, behind a tag that has no VLAN.
fn inside<'a>(ethernet: &[u8], packet: &'a [u8]) -> Result<(u16, &'a [u8]), Verdict> {
    let is_vlan = |ether_type| [0x8100, 0x88a8, 0x9100].contains(&ether_type);
    let ether_type = u16::from_be_bytes([ethernet[12], ethernet[13]]);
    if !is_vlan(ether_type) {
        return Ok((ether_type, packet));
    }
    let (tag, rest) = packet.split_at_checked(4).ok_or(Verdict::PassTruncated)?;
    let vlan = u16::from_be_bytes([tag[0], tag[1]]) % 0x1000;
    let inner = u16::from_be_bytes([tag[2], tag[3]]);
    if ether_type != 0x8100 || vlan != 0 || is_vlan(inner) {
        return Err(Verdict::PassVlan);
    }
    Ok((inner, rest))
}

/// Why an owned edge port does not let the kernel have a frame that is not ours, if so.
pub(crate) fn refused(frame: &[u8]) -> Option<Verdict> {
    let because = verdict(
        Role::Edge {
            mac: super::MAC,
            owned: true,
        },
        frame,
    );
    let Some((ethernet, packet)) = frame.split_at_checked(14) else {
        return Some(because);
    };
    if never(because, frame) {
        return Some(because);
    }
    let link_control = ethernet[..5] == [1, 0x80, 0xc2, 0, 0] && ethernet[5] < 16;
    match inside(ethernet, packet) {
        Ok((0x0806, arp)) => {
            let wanted = arp.get(..28).is_some_and(|arp| {
                let (from, to): ([u8; 4], [u8; 4]) = (
                    arp[14..18].try_into().unwrap(),
                    arp[24..].try_into().unwrap(),
                );
                match arp[6..8] {
                    [0, 1] => from == to || own(Ipv4Addr::from(to).into()),
                    [0, 2] => true,
                    _ => false,
                }
            });
            (!wanted).then_some(because)
        }
        Ok((0x0800, packet)) => match ipv4(packet) {
            Ok((to, protocol, _, payload)) => {
                let link = to.octets()[..3] == [224, 0, 0] || to == Ipv4Addr::BROADCAST;
                let first = u16::from_be_bytes([packet[6], packet[7]]) % 0x2000 == 0;
                match link || own(to.into()) {
                    false => Some(because),
                    true if protocol == 1 && first && matches!(payload, [5, _, ..]) => {
                        Some(Verdict::RouterClaim)
                    }
                    true => None,
                }
            }
            Err(_) => Some(because),
        },
        Ok((0x86dd, packet)) => match ipv6(packet) {
            Ok((to, next, rest)) => {
                let link = to.is_multicast() && [1, 2].contains(&(to.octets()[1] % 16));
                match (link || own(to.into()), behind(next, rest)) {
                    (false, _) => Some(because),
                    (true, Ok((58, [134 | 137, _, ..]))) => Some(Verdict::RouterClaim),
                    (true, Ok((58, [] | [_]))) => Some(Verdict::PassTruncated),
                    (true, Ok(_) | Err(Verdict::PassFragment)) => None,
                    (true, Err(why)) => Some(why),
                }
            }
            Err(_) => Some(because),
        },
        Ok(_) if link_control => None,
        _ => Some(because),
    }
}

fn edge(ether_type: u16, packet: &[u8]) -> Verdict {
    let destination = match ether_type {
        0x0800 => match ipv4(packet) {
            Ok((to, ..)) => IpAddr::V4(to),
            Err(verdict) => return verdict,
        },
        _ => match ipv6(packet) {
            Ok((to, ..)) => IpAddr::V6(to),
            Err(verdict) => return verdict,
        },
    };
    let scoped = match destination {
        IpAddr::V4(to) => to.is_link_local() || to.is_loopback() || to.octets()[0] == 0,
        IpAddr::V6(to) => {
            to.is_unicast_link_local()
                || to.is_loopback()
                || to.is_unspecified()
                || to.to_ipv4_mapped().is_some()
        }
    };
    if destination.is_multicast() || destination == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Verdict::PassMulticast
    } else if scoped {
        Verdict::PassScope
    } else if own(destination) {
        Verdict::PassLocal
    } else {
        Verdict::Redirected
    }
}

fn underlay4(packet: &[u8]) -> Verdict {
    match ipv4(packet) {
        Err(verdict) => verdict,
        Ok((_, 17, true, _)) => Verdict::PassFragment,
        Ok((to, 17, false, udp)) => endpoint(IpAddr::V4(to), udp),
        Ok(_) => Verdict::PassNotOurs,
    }
}

fn underlay6(packet: &[u8]) -> Verdict {
    let (to, next, rest) = match ipv6(packet) {
        Err(verdict) => return verdict,
        Ok((to, ..)) if to.to_ipv4_mapped().is_some() => return Verdict::PassNotOurs,
        Ok(header) => header,
    };
    match behind(next, rest) {
        Ok((17, udp)) => endpoint(IpAddr::V6(to), udp),
        Ok(_) => Verdict::PassNotOurs,
        Err(verdict) => verdict,
    }
}

/// What is behind the extension headers, and of which protocol.
fn behind(mut next: u8, mut rest: &[u8]) -> Result<(u8, &[u8]), Verdict> {
    let mut walked = 0;
    loop {
        match next {
            44 => return Err(Verdict::PassFragment),
            0 | 43 | 60 if walked == 4 => return Err(Verdict::PassExtension),
            0 | 43 | 60 if rest.len() < 4 => return Err(Verdict::PassTruncated),
            43 if rest[3] > 0 => return Err(Verdict::PassExtension),
            0 | 43 | 60 => {
                next = rest[0];
                let length = (usize::from(rest[1]) + 1) * 8;
                // Beyond the end nothing is left, and whatever looks for more there finds the frame cut.
                rest = rest.get(length..).unwrap_or_default();
                walked += 1;
            }
            _ => return Ok((next, rest)),
        }
    }
}

fn endpoint(to: IpAddr, udp: &[u8]) -> Verdict {
    if udp.len() < 8 {
        return Verdict::PassTruncated;
    }
    let to = SocketAddr::new(to, u16::from_be_bytes([udp[2], udp[3]]));
    if ENDPOINTS
        .iter()
        .any(|own| own.parse::<SocketAddr>().unwrap() == to)
    {
        Verdict::Redirected
    } else {
        Verdict::PassNotOurs
    }
}

/// Destination, protocol, whether a fragment, payload.
fn ipv4(packet: &[u8]) -> Result<(Ipv4Addr, u8, bool, &[u8]), Verdict> {
    if packet.len() < 20 {
        return Err(Verdict::PassTruncated);
    }
    if !(0x45..=0x4f).contains(&packet[0]) {
        return Err(Verdict::PassMalformed);
    }
    let payload = packet
        .get(usize::from(packet[0] - 0x40) * 4..)
        .ok_or(Verdict::PassTruncated)?;
    let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
    let more = packet[6] & 0x20 != 0;
    let offset = u16::from_be_bytes([packet[6], packet[7]]) % 0x2000;
    Ok((to, packet[9], more || offset > 0, payload))
}

/// Destination, next header, what follows the fixed header.
fn ipv6(packet: &[u8]) -> Result<(Ipv6Addr, u8, &[u8]), Verdict> {
    let (header, rest) = packet
        .split_first_chunk::<40>()
        .ok_or(Verdict::PassTruncated)?;
    if header[0] / 16 != 6 {
        return Err(Verdict::PassMalformed);
    }
    let to: [u8; 16] = header[24..].try_into().unwrap();
    Ok((to.into(), header[6], rest))
}
