//! What a device's driver can do for AF_XDP, as the kernel tells it since 6.3: `Documentation/netlink/specs/netdev.yaml`, over
//! generic netlink. Whoever cannot be asked is taken to be able: the kernel says so when a socket is bound.

use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_NAME`, `CTRL_ATTR_FAMILY_ID`.
const CONTROL: (u16, u8, u16, u16) = (0x10, 3, 2, 1);
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES`.
const DEVICE: (u8, u16, u16) = (1, 1, 3);
/// `NETDEV_XDP_ACT_BASIC`: it runs programs.
const NATIVE: u64 = 1;
/// `NETDEV_XDP_ACT_XSK_ZEROCOPY`
const ZERO_COPY: u64 = 8;
/// Bytes of the headers before attributes: `struct nlmsghdr` and `struct genlmsghdr`.
const HEAD: usize = 20;
/// Only a guard: the kernel answers before the request's call returns.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a device's driver can do.
#[derive(Clone, Copy)]
pub(crate) struct Features(u64);

impl Features {
    /// Whether it runs programs itself.
    pub(crate) fn native(self) -> bool {
        self.0 & NATIVE != 0
    }

    /// Whether its sockets can be bound zero-copy.
    pub(crate) fn zero_copy(self) -> bool {
        self.0 & ZERO_COPY != 0
    }
}

/// What the device can do; `None` where the kernel does not say.
pub(crate) fn of(ifindex: u32) -> Option<Features> {
    let (control, get_family, name, id) = CONTROL;
    let family = ask(control, get_family, (name, b"netdev\0"), id)?;
    let family = u16::from_ne_bytes(family.get(..2)?.try_into().ok()?);
    let (get, index, features) = DEVICE;
    let features = ask(family, get, (index, &ifindex.to_ne_bytes()), features)?;
    let features = u64::from_ne_bytes(features.get(..8)?.try_into().ok()?);
    Some(Features(features))
}

/// The attribute `wanted` of the answer to a request with one attribute.
fn ask(family: u16, command: u8, given: (u16, &[u8]), wanted: u16) -> Option<Vec<u8>> {
    let request = request(family, command, given);
    let flags = SocketFlags::CLOEXEC;
    let generic = Some(netlink::GENERIC);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, generic).ok()?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE)).ok()?;
    let kernel = netlink::SocketAddrNetlink::new(0, 0);
    sendto(&socket, &request, SendFlags::empty(), &kernel).ok()?;
    let mut answer = vec![0; 8192];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty()).ok()?;
    attribute(answer.get(..length)?, family, wanted)
}

fn request(family: u16, command: u8, (kind, value): (u16, &[u8])) -> Vec<u8> {
    /// `NLM_F_REQUEST`
    const REQUEST: u16 = 1;
    let padded = value.len().next_multiple_of(4);
    let length = (HEAD + 4 + padded) as u32;
    let mut request = Vec::with_capacity(length as usize);
    request.extend(length.to_ne_bytes());
    request.extend(family.to_ne_bytes());
    request.extend(REQUEST.to_ne_bytes());
    // The number of the request, and whose it is: the kernel fills that in.
    request.extend([0; 8]);
    request.extend([command, 1, 0, 0]);
    request.extend((4 + value.len() as u16).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(value);
    request.resize(length as usize, 0);
    request
}

/// An attribute of a message of this family; an error is one of another.
fn attribute(message: &[u8], family: u16, wanted: u16) -> Option<Vec<u8>> {
    let word = |bytes: &[u8], at: usize| -> Option<u16> {
        Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
    };
    if word(message, 4)? != family {
        return None;
    }
    let mut rest = message.get(HEAD..)?;
    while !rest.is_empty() {
        let length = usize::from(word(rest, 0)?);
        // The two highest bits say how its value is made.
        let kind = word(rest, 2)? & 0x3fff;
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value.to_vec());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_however_short_they_are() {
        let message = request(0x1d, 1, (3, &8u64.to_ne_bytes()));
        assert_eq!(
            attribute(&message, 0x1d, 3),
            Some(8u64.to_ne_bytes().into())
        );
        assert_eq!(attribute(&message, 0x1d, 4), None);
        assert_eq!(attribute(&message, 2, 3), None);
        for length in 0..message.len() {
            assert_eq!(attribute(&message[..length], 0x1d, 3), None, "{length}");
        }
        let endless = request(0x1d, 1, (3, &[]));
        let mut zero = endless.clone();
        zero[HEAD] = 0;
        assert_eq!(attribute(&zero, 0x1d, 4), None);
    }

    #[test]
    fn the_loopback_device_cannot() {
        // Where the kernel is older it says nothing.
        assert!(of(1).is_none_or(|it| !it.zero_copy() && !it.native()));
        assert!(of(u32::MAX).is_none());
    }
}
