//! Device features (offloads) by the ethtool ioctl.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNT: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const SET_FEATURES: u32 = 0x3b;
/// `ETH_SS_FEATURES`.
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LEN: usize = 32;

/// The features of an interface by the kernel's name ("tx-checksum-ip-generic"), true when active.
pub(crate) fn features(socket: BorrowedFd<'_>, ifname: &str) -> io::Result<BTreeMap<String, bool>> {
    let names = names(socket, ifname)?;
    // ethtool_gfeatures: command, blocks; then per 32 features: available, requested, active, never changed.
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0u32; 2 + 4 * blocks];
    words[..2].copy_from_slice(&[GET_FEATURES, blocks as u32]);
    call(socket, ifname, &mut words)?;
    let active = |i: usize| words[2 + 4 * (i / 32) + 2] >> (i % 32) & 1 == 1;
    Ok(names
        .into_iter()
        .enumerate()
        .filter(|(_, name)| !name.is_empty())
        .map(|(i, name)| (name, active(i)))
        .collect())
}

/// Turns off every feature whose name `unwanted` accepts; fixed ones stay as they are.
pub(crate) fn disable(
    socket: BorrowedFd<'_>,
    ifname: &str,
    unwanted: impl Fn(&str) -> bool,
) -> io::Result<()> {
    let names = names(socket, ifname)?;
    // ethtool_sfeatures: command, blocks; then per 32 features: which to set, to what.
    let blocks = names.len().div_ceil(32);
    let mut words = vec![0u32; 2 + 2 * blocks];
    words[..2].copy_from_slice(&[SET_FEATURES, blocks as u32]);
    for (i, name) in names.iter().enumerate() {
        if !name.is_empty() && unwanted(name) {
            words[2 + 2 * (i / 32)] |= 1 << (i % 32);
        }
    }
    call(socket, ifname, &mut words)
}

fn names(socket: BorrowedFd<'_>, ifname: &str) -> io::Result<Vec<String>> {
    // ethtool_sset_info: command, reserved, mask of sets as u64, then one count a set.
    let mut count = [GET_STRING_COUNT, 0, 0, 0, 0];
    #[cfg(target_endian = "little")]
    let low = 2;
    #[cfg(target_endian = "big")]
    let low = 3;
    count[low] = 1 << FEATURE_NAMES;
    call(socket, ifname, &mut count)?;
    let count = count[4] as usize;
    // ethtool_gstrings: command, set, count, then the names.
    let mut words = vec![0u32; 3 + count * NAME_LEN / 4];
    words[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, count as u32]);
    call(socket, ifname, &mut words)?;
    let bytes: Vec<u8> = words[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    Ok(bytes
        .chunks_exact(NAME_LEN)
        .map(|name| {
            let end = name.iter().position(|b| *b == 0).unwrap_or(NAME_LEN);
            String::from_utf8_lossy(&name[..end]).into_owned()
        })
        .collect())
}

/// One `SIOCETHTOOL`. Each caller in this file sizes `words` for its command, as the kernel trusts it.
fn call(socket: BorrowedFd<'_>, ifname: &str, words: &mut [u32]) -> io::Result<()> {
    if ifname.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: `request` is an ifreq whose data points at `words`; each command above has the room its structure needs,
    // counted from the kernel's own answers (the number of features does not change while a kernel runs).
    let r = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
