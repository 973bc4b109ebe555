//! Which frames are ours. Reads headers and maps, changes nothing.

use crate::layout::{
    Config, EndpointKey, LocalKey, MAX_EXTENSION_HEADERS, Verdict, is_mapped, role, v4_key, v6_key,
};
use crate::packet::{Ethernet, Extension, Frame, Ipv4, Ipv6, Udp};
use crate::{is_endpoint, is_local};

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
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
    if VLAN.contains(&ethernet.ether_type) {
        return Err(Verdict::PassVlan);
    }
    match config.role {
        role::UNDERLAY => underlay(frame, ethernet),
        role::EDGE => edge(frame, ethernet, config),
        role::BRIDGE => bridge(ethernet, config),
        _ => Err(Verdict::PassUnconfigured),
    }
}

/// Ours is unfragmented UDP to one of our endpoints.
#[inline(always)]
fn underlay(frame: &Frame, ethernet: &Ethernet) -> Ours {
    let (address, udp_offset) = match ethernet.ether_type {
        IPV4 => {
            let (ip, payload) = ipv4(frame)?;
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
            let ip = ipv6(frame)?;
            let address = v6_key(ip.destination);
            if is_mapped(&address) {
                return Err(Verdict::PassNotOurs);
            }
            (address, udp_after_extensions(frame, ip)?)
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
    if ethernet.ether_type != IPV4 && ethernet.ether_type != IPV6 {
        return Err(Verdict::PassNotIp);
    }
    if ethernet.destination[0] & 1 != 0 {
        return Err(Verdict::PassMulticast);
    }
    if ethernet.destination != config.mac {
        return Err(Verdict::PassOtherMac);
    }
    let destination = if ethernet.ether_type == IPV4 {
        let (ip, _) = ipv4(frame)?;
        routable_v4(ip.destination)?;
        v4_key(ip.destination)
    } else {
        let ip = ipv6(frame)?;
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
    let [a, b, c, d, e, f] = ethernet.destination;
    if [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0x00, 0x00] && f & 0xf0 == 0 {
        return Err(Verdict::PassLinkControl);
    }
    if ethernet.destination == config.mac {
        return Err(Verdict::PassLocal);
    }
    Ok(())
}

/// The IPv4 header and where its payload begins.
#[inline(always)]
fn ipv4(frame: &Frame) -> Result<(&Ipv4, usize), Verdict> {
    let start = size_of::<Ethernet>();
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
fn ipv6(frame: &Frame) -> Result<&Ipv6, Verdict> {
    let start = size_of::<Ethernet>();
    let ip = frame.at::<Ipv6>(start).ok_or(Verdict::PassTruncated)?;
    if ip.version_class_flow[0] >> 4 != 6 {
        return Err(Verdict::PassMalformed);
    }
    Ok(ip)
}

/// Where the UDP header begins, behind at most [`MAX_EXTENSION_HEADERS`].
#[inline(always)]
fn udp_after_extensions(frame: &Frame, ip: &Ipv6) -> Result<usize, Verdict> {
    let mut offset = size_of::<Ethernet>() + size_of::<Ipv6>();
    let [mut next] = ip.next_header;
    for _ in 0..MAX_EXTENSION_HEADERS {
        match next {
            UDP => return Ok(offset),
            FRAGMENT => return Err(Verdict::PassFragment),
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {}
            _ => return Err(Verdict::PassNotOurs),
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
        UDP => Ok(offset),
        FRAGMENT => Err(Verdict::PassFragment),
        HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => Err(Verdict::PassExtension),
        _ => Err(Verdict::PassNotOurs),
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
