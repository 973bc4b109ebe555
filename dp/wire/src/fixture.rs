//! Frames of the hosts on paper: 10.1.0.2 and 2001:db8:1::2 behind node A, 10.2.0.2 and 2001:db8:2::2 behind node B.

use std::net::Ipv6Addr;

use crate::ethernet::{self, Mac};
use crate::{ip, udp};

/// The hardware address of a node's host.
pub fn host_mac(node: u8) -> Mac {
    Mac([2, 0, 0, 0xff, node, 0])
}

/// The IPv6 address of the host behind node 1 or (2) B.
pub fn host_v6(site: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, 2)
}

/// A frame from A's host to B's: UDP over IPv4, of `size` bytes of IP packet (28 or more), of flow `flow`.
pub fn host_frame_v4(size: usize, flow: u16) -> Vec<u8> {
    let size = size.max(ip::V4_LEN + udp::LEN);
    let mut frame = vec![0; ethernet::LEN + size];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 0]);
    frame[6..12].copy_from_slice(&host_mac(1).0);
    frame[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
    let packet = &mut frame[ethernet::LEN..];
    packet[..10].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, udp::PROTOCOL]);
    packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 1, 0, 2]);
    packet[16..20].copy_from_slice(&[10, 2, 0, 2]);
    let sum = ip::checksum(&packet[..ip::V4_LEN]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    write_udp(&mut packet[ip::V4_LEN..], flow);
    frame
}

/// As [`host_frame_v4`], over IPv6 (48 bytes or more).
pub fn host_frame_v6(size: usize, flow: u16) -> Vec<u8> {
    let size = size.max(ip::V6_LEN + udp::LEN);
    let mut frame = vec![0; ethernet::LEN + size];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 0]);
    frame[6..12].copy_from_slice(&host_mac(1).0);
    frame[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
    let packet = &mut frame[ethernet::LEN..];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&((size - ip::V6_LEN) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&[udp::PROTOCOL, 64]);
    packet[8..24].copy_from_slice(&host_v6(1).octets());
    packet[24..40].copy_from_slice(&host_v6(2).octets());
    write_udp(&mut packet[ip::V6_LEN..], flow);
    frame
}

fn write_udp(datagram: &mut [u8], flow: u16) {
    let len = datagram.len() as u16;
    datagram[..2].copy_from_slice(&flow.to_be_bytes());
    datagram[2..4].copy_from_slice(&9u16.to_be_bytes());
    datagram[4..6].copy_from_slice(&len.to_be_bytes());
    for (n, byte) in datagram[udp::LEN..].iter_mut().enumerate() {
        *byte = n as u8;
    }
}
