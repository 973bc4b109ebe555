//! Which frames are ours. Reads headers and maps, changes nothing.

use crate::layout::{
    Config, EndpointKey, LocalKey, MAX_EXTENSION_HEADERS, Verdict, is_mapped, role, v4_key, v6_key,
};
use crate::packet::{Ethernet, Extension, Frame, Ipv4, Ipv6, Tag, Udp};
use crate::{is_endpoint, is_local, is_own_mac};

pub(crate) const ARP: [u8; 2] = [0x08, 0x06];
pub(crate) const IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const IPV6: [u8; 2] = [0x86, 0xdd];
/// 802.1Q, 802.1ad, and the QinQ type from before 802.1ad.
const VLAN: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];

const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// `Err` is the reason why a frame passes to the kernel; `Ok` means that it is ours.
type Ours = Result<(), Verdict>;

#[inline(always)]
pub(crate) fn classify(frame: &Frame, config: &Config) -> Ours {
    let ethernet = frame.at::<Ethernet>(0).ok_or(Verdict::PassTruncated)?;
    match config.role {
        role::UNDERLAY => underlay(frame, ethernet),
        role::EDGE => edge(frame, ethernet, config),
        role::BRIDGE if VLAN.contains(&ethernet.ether_type) => Err(Verdict::PassVlan),
        role::BRIDGE => bridge(ethernet, config),
        _ => Err(Verdict::PassUnconfigured),
    }
}

/// The type of a frame, and where what is of that type begins. A tag of VLAN 0 has a priority and no VLAN: to a router the
/// frame is as one without.
#[inline(always)]
pub(crate) fn network(frame: &Frame, ethernet: &Ethernet) -> Result<([u8; 2], usize), Verdict> {
    let start = size_of::<Ethernet>();
    if !VLAN.contains(&ethernet.ether_type) {
        return Ok((ethernet.ether_type, start));
    }
    let tag = frame.at::<Tag>(start).ok_or(Verdict::PassTruncated)?;
    let priority = ethernet.ether_type == VLAN[0] && has_no_vlan(tag);
    if !priority || VLAN.contains(&tag.ether_type) {
        return Err(Verdict::PassVlan);
    }
    Ok((tag.ether_type, start + size_of::<Tag>()))
}

/// Whether the first tag of a frame is one of VLAN 0. Linux takes all such tags off, of 802.1Q and of 802.1ad, and reads what
/// is behind as if they were not there.
#[inline(always)]
pub(crate) fn begins_with_vlan_0(frame: &Frame, ethernet: &Ethernet) -> bool {
    VLAN.contains(&ethernet.ether_type)
        && frame
            .at::<Tag>(size_of::<Ethernet>())
            .is_some_and(has_no_vlan)
}

#[inline(always)]
fn has_no_vlan(tag: &Tag) -> bool {
    let [high, low] = tag.control;
    high & 0x0f == 0 && low == 0
}

/// Ours is unfragmented UDP to one of our endpoints.
#[inline(always)]
fn underlay(frame: &Frame, ethernet: &Ethernet) -> Ours {
    let (ether_type, start) = network(frame, ethernet)?;
    let (address, udp_offset) = match ether_type {
        IPV4 => {
            let (ip, payload) = ipv4(frame, start)?;
            if ip.protocol[0] != UDP {
                return Err(Verdict::PassNotOurs);
            }
            // More fragments, or an offset (RFC 791): ports are in the first fragment only.
            if ip.flags_offset[0] & 0x3f != 0 || ip.flags_offset[1] != 0 {
                return Err(Verdict::PassFragment);
            }
            (v4_key(ip.destination), payload)
        }
        IPV6 => {
            let ip = ipv6(frame, start)?;
            let address = v6_key(ip.destination);
            if is_mapped(&address) {
                return Err(Verdict::PassNotOurs);
            }
            let (next, payload) = upper_layer(frame, start, ip)?;
            if next != UDP {
                return Err(Verdict::PassNotOurs);
            }
            (address, payload)
        }
        _ => return Err(Verdict::PassNotIp),
    };
    let udp = frame.at::<Udp>(udp_offset).ok_or(Verdict::PassTruncated)?;
    if is_endpoint(&EndpointKey::new(address, udp.destination)) {
        Ok(())
    } else {
        Err(Verdict::PassNotOurs)
    }
}

/// Ours is what a host sends through this port: to the port's MAC address, but not to an address of this machine.
#[inline(always)]
fn edge(frame: &Frame, ethernet: &Ethernet, config: &Config) -> Ours {
    let (ether_type, start) = network(frame, ethernet)?;
    if ether_type != IPV4 && ether_type != IPV6 {
        return Err(Verdict::PassNotIp);
    }
    if ethernet.destination[0] & 1 != 0 {
        return Err(Verdict::PassMulticast);
    }
    if ethernet.destination != config.mac && !is_own_mac(ethernet.destination) {
        return Err(Verdict::PassOtherMac);
    }
    let destination = if ether_type == IPV4 {
        let (ip, _) = ipv4(frame, start)?;
        routable_v4(ip.destination)?;
        v4_key(ip.destination)
    } else {
        let ip = ipv6(frame, start)?;
        let destination = v6_key(ip.destination);
        routable_v6(&destination)?;
        destination
    };
    if is_local(&destination) {
        return Err(Verdict::PassLocal);
    }
    Ok(())
}

/// Ours is what a bridge would forward or flood.
#[inline(always)]
fn bridge(ethernet: &Ethernet, config: &Config) -> Ours {
    if is_link_control(ethernet.destination) {
        return Err(Verdict::PassLinkControl);
    }
    if ethernet.destination == config.mac {
        return Err(Verdict::PassLocal);
    }
    Ok(())
}

/// Whether it is one of the addresses that no bridge forwards (IEEE 802.1D, 7.12.6).
#[inline(always)]
pub(crate) fn is_link_control([a, b, c, d, e, f]: [u8; 6]) -> bool {
    [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0x00, 0x00] && f & 0xf0 == 0
}

/// The IPv4 header at `start`, and where its payload begins.
#[inline(always)]
pub(crate) fn ipv4(frame: &Frame, start: usize) -> Result<(&Ipv4, usize), Verdict> {
    let ip = frame.at::<Ipv4>(start).ok_or(Verdict::PassTruncated)?;
    let [version_ihl] = ip.version_ihl;
    let header_length = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_length < size_of::<Ipv4>() {
        return Err(Verdict::PassMalformed);
    }
    let payload = start + header_length;
    // The options must be there whole, even where nobody reads them here.
    frame.at::<[u8; 0]>(payload).ok_or(Verdict::PassTruncated)?;
    Ok((ip, payload))
}

#[inline(always)]
pub(crate) fn ipv6(frame: &Frame, start: usize) -> Result<&Ipv6, Verdict> {
    let ip = frame.at::<Ipv6>(start).ok_or(Verdict::PassTruncated)?;
    if ip.version_class_flow[0] >> 4 != 6 {
        return Err(Verdict::PassMalformed);
    }
    Ok(ip)
}

/// The upper-layer protocol and where its header begins, behind the IPv6 header at `start` and at most
/// [`MAX_EXTENSION_HEADERS`].
#[inline(always)]
pub(crate) fn upper_layer(frame: &Frame, start: usize, ip: &Ipv6) -> Result<(u8, usize), Verdict> {
    let mut offset = start + size_of::<Ipv6>();
    let [mut next] = ip.next_header;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            FRAGMENT => return Err(Verdict::PassFragment),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            _ => return Ok((next, offset)),
        }
        let extension = frame
            .at::<Extension>(offset)
            .ok_or(Verdict::PassTruncated)?;
        // Segments left: the destination in the header is a waypoint, not yet the end (RFC 8200, section 4.4).
        if next == ROUTING && extension.segments_left[0] != 0 {
            return Err(Verdict::PassExtension);
        }
        [next] = extension.next_header;
        offset += (usize::from(extension.length[0]) + 1) * 8;
    }
    match next {
        FRAGMENT => Err(Verdict::PassFragment),
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Err(Verdict::PassExtension),
        _ => Ok((next, offset)),
    }
}

/// Whether a router may forward to this destination (RFC 6890; RFC 1812, 5.3.7).
#[inline(always)]
fn routable_v4([a, b, c, d]: [u8; 4]) -> Ours {
    match (a, b) {
        (224..=239, _) => Err(Verdict::PassMulticast),
        (255, 255) if c == 255 && d == 255 => Err(Verdict::PassMulticast),
        (0 | 127, _) | (169, 254) => Err(Verdict::PassScope),
        _ => Ok(()),
    }
}

/// Whether a router may forward to this destination (RFC 4291, section 2.5; RFC 6890).
#[inline(always)]
fn routable_v6(address: &LocalKey) -> Ours {
    let [a, b, ..] = address[0].to_ne_bytes();
    if a == 0xff {
        return Err(Verdict::PassMulticast);
    }
    let link_local = a == 0xfe && b & 0xc0 == 0x80;
    let last = u32::from_be(address[3]);
    let unspecified_or_loopback = address[..3] == [0; 3] && last <= 1;
    if link_local || unspecified_or_loopback || is_mapped(address) {
        return Err(Verdict::PassScope);
    }
    Ok(())
}
