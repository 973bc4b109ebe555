//! Frames for the tests, and the addresses that are "ours" in them.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::{Ipv4Addr, Ipv6Addr};

use super::MAC;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;

/// Our endpoints on the underlay port.
pub(crate) const ENDPOINTS: [&str; 3] =
    ["192.0.2.1:51820", "[2001:db8::1]:51820", "[fe80::1]:51820"];
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const UDP_PORT: u16 = 51_820;

/// The machine's own addresses, for the edge port.
pub(crate) const LOCAL: [&str; 3] = ["10.0.0.1", "192.0.2.1", "2001:db8:1::1"];

/// The broadcast address of the machine's subnet there.
pub(crate) const SUBNET_BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 255);

/// A MAC address that the edge port has besides its own.
pub(crate) const VIRTUAL: [u8; 6] = [0, 0, 0x5e, 0, 1, 7];

/// An Ethernet frame to the port.
pub(crate) fn eth(ether_type: u16, payload: Vec<u8>) -> Vec<u8> {
    eth_to(MAC, ether_type, payload)
}

pub(crate) fn eth_to(destination: [u8; 6], ether_type: u16, payload: Vec<u8>) -> Vec<u8> {
    let source = [0x02, 0, 0, 0, 0, 0x99];
    [
        &destination[..],
        &source,
        &ether_type.to_be_bytes(),
        &payload,
    ]
    .concat()
}

/// The payload with an 802.1Q header and the type of what follows; the outer EtherType is [`eth`]'s.
pub(crate) fn tagged(inner: u16, payload: Vec<u8>) -> Vec<u8> {
    [&[0, 42][..], &inner.to_be_bytes(), &payload].concat()
}

/// As [`tagged`], with a priority and no VLAN.
pub(crate) fn priority(inner: u16, payload: Vec<u8>) -> Vec<u8> {
    [&[0xb0, 0][..], &inner.to_be_bytes(), &payload].concat()
}

pub(crate) fn ip4(protocol: u8, destination: impl Into<Ipv4Addr>, payload: Vec<u8>) -> Vec<u8> {
    ip4_with(protocol, destination, 0x4000, &[], payload)
}

/// IPv4 with flags and fragment offset, and options (a multiple of 4 bytes).
pub(crate) fn ip4_with(
    protocol: u8,
    destination: impl Into<Ipv4Addr>,
    flags_offset: u16,
    options: &[u8],
    payload: Vec<u8>,
) -> Vec<u8> {
    let header = 20 + options.len();
    let total = u16::try_from(header + payload.len()).unwrap();
    let mut ip = [0; 20];
    ip[0] = 0x40 | u8::try_from(header / 4).unwrap();
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[6..8].copy_from_slice(&flags_offset.to_be_bytes());
    ip[8] = 64;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&[198, 51, 100, 7]);
    ip[16..20].copy_from_slice(&destination.into().octets());
    [&ip[..], options, &payload].concat()
}

pub(crate) fn ip6(next: u8, destination: impl Into<Ipv6Addr>, payload: Vec<u8>) -> Vec<u8> {
    let source: Ipv6Addr = "2001:db8:ffff::7".parse().unwrap();
    let length = u16::try_from(payload.len()).unwrap();
    [
        &[0x60, 0, 0, 0][..],
        &length.to_be_bytes(),
        &[next, 64],
        &source.octets(),
        &destination.into().octets(),
        &payload,
    ]
    .concat()
}

/// A hop-by-hop, routing or destination options header of `8 * (units + 1)` bytes; byte 3 is the segments left.
pub(crate) fn extension(next: u8, units: u8, segments_left: u8, payload: Vec<u8>) -> Vec<u8> {
    let mut header = vec![0; (usize::from(units) + 1) * 8];
    header[0] = next;
    header[1] = units;
    header[3] = segments_left;
    [header, payload].concat()
}

/// An IPv6 fragment header.
pub(crate) fn fragment6(next: u8, offset_more: u16, payload: Vec<u8>) -> Vec<u8> {
    [
        &[next, 0][..],
        &offset_more.to_be_bytes(),
        &[0, 0, 0, 9],
        &payload,
    ]
    .concat()
}

pub(crate) fn udp(port: u16) -> Vec<u8> {
    [
        &50_000u16.to_be_bytes()[..],
        &port.to_be_bytes(),
        &24u16.to_be_bytes(),
        &[0, 0],
        &[0xab; 16],
    ]
    .concat()
}

/// An ICMP or ICMPv6 echo request, as far as anybody here looks.
pub(crate) fn echo(kind: u8) -> Vec<u8> {
    vec![kind, 0, 0, 0, 0, 1, 0, 1]
}

/// An ARP request for `target`.
pub(crate) fn arp(target: Ipv4Addr) -> Vec<u8> {
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([0x02, 0, 0, 0, 0, 0x99, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0]);
    arp.extend(target.octets());
    arp
}
