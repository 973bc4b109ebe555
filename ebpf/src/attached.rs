//! Which XDP program another has attached to a device, as well as can be told: attaching has the last word.

use std::fs::File;
use std::io::{self, Read, Write};

use aya::programs::loaded_programs;

use crate::sys;

/// `linux/if_link.h`: the attribute with the XDP state, and the attributes in it.
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;

/// `linux/netlink.h`: flags in an attribute's type that are not part of its number.
const TYPE_MASK: u16 = 0x3fff;

/// Name, id and mode of the program on a device, in words.
pub(crate) fn describe(if_index: u32) -> String {
    found(if_index).unwrap_or_else(|| "a program the kernel does not name".to_owned())
}

/// The same; none if there is no program, or nobody can tell.
pub(crate) fn found(if_index: u32) -> Option<String> {
    let (mode, id) = query(if_index).ok().flatten()?;
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "(no name)".to_owned());
    // `XDP_ATTACHED_*` of `linux/if_link.h`.
    let mode = match mode {
        1 => "native",
        2 => "generic",
        3 => "offloaded",
        _ => "several modes",
    };
    Some(format!("{name}, program id {id}, {mode}"))
}

/// The attach mode and the program's id, if a program is attached.
fn query(if_index: u32) -> io::Result<Option<(u8, u32)>> {
    let mut socket = File::from(sys::netlink_socket()?);
    socket.write_all(&get_link(if_index))?;
    let mut reply = vec![0; 65_536];
    let length = socket.read(&mut reply)?;
    Ok(xdp_state(&reply[..length]))
}

/// `RTM_GETLINK` for one device: a `struct nlmsghdr` and a `struct ifinfomsg`, 16 bytes each, in host order.
fn get_link(if_index: u32) -> [u8; 32] {
    let mut request = [0; 32];
    request[0..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    let flags = u16::try_from(libc::NLM_F_REQUEST).unwrap_or(1);
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[20..24].copy_from_slice(&if_index.to_ne_bytes());
    request
}

fn xdp_state(reply: &[u8]) -> Option<(u8, u32)> {
    if u16::from_ne_bytes(*reply.get(4..)?.first_chunk()?) != libc::RTM_NEWLINK {
        return None;
    }
    let xdp = attributes(reply.get(32..)?)
        .find(|(kind, _)| *kind == IFLA_XDP)?
        .1;
    let mode = attributes(xdp)
        .find(|(kind, _)| *kind == IFLA_XDP_ATTACHED)?
        .1;
    let id = attributes(xdp)
        .find(|(kind, _)| *kind == IFLA_XDP_PROG_ID)?
        .1;
    Some((*mode.first()?, u32::from_ne_bytes(*id.first_chunk()?)))
}

/// Type and value of each attribute: a 4-byte header (length with the header, type) before each value, padded to 4.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn reply(attributes: &[u8]) -> Vec<u8> {
        let mut reply = vec![0; 32];
        reply[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        reply.extend(attributes);
        reply
    }

    #[test]
    fn finds_mode_and_program() {
        let nested = [attribute(2, &[1]), attribute(4, &77u32.to_ne_bytes())].concat();
        // With the nested flag, and behind an attribute of odd length.
        let reply = reply(&[attribute(3, b"eth0\0"), attribute(43 | 0x8000, &nested)].concat());
        assert_eq!(xdp_state(&reply), Some((1, 77)));
    }

    #[test]
    fn no_program_or_a_cut_reply_is_none() {
        assert_eq!(xdp_state(&reply(&attribute(43, &attribute(2, &[0])))), None);
        let nested = [attribute(2, &[1]), attribute(4, &77u32.to_ne_bytes())].concat();
        let whole = reply(&attribute(43, &nested));
        for length in 0..whole.len() {
            assert_eq!(xdp_state(&whole[..length]), None, "cut at {length}");
        }
    }
}
