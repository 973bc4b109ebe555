//! The other end of the wire: raw packets by AF_PACKET, which knows nothing of AF_XDP.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// IEEE 802 local experimental Ethertype, so that nobody else answers.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A broadcast frame of `len` bytes whose content depends on `seed`.
pub(crate) fn packet(seed: u32, len: usize) -> Vec<u8> {
    assert!(len >= 18);
    let mut bytes = vec![0xff; 6];
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend(ETHERTYPE);
    bytes.extend(seed.to_be_bytes());
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    bytes.resize_with(len, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes
}

/// A raw socket on a device.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    pub(crate) fn open(ifindex: u32) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes no pointers.
        let fd = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                protocol.into(),
            )
        };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: zero is a value of it.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = ifindex as i32;
        // SAFETY: pointer and length are of `address`.
        let bound = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        assert_eq!(bound, 0, "{}", std::io::Error::last_os_error());
        // The default holds about a hundred packets; a test sends more before it reads.
        let bytes: libc::c_int = 16 << 20;
        // SAFETY: pointer and length are of `bytes`.
        let set = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const bytes).cast(),
                size_of_val(&bytes) as u32,
            )
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        Self(fd)
    }

    pub(crate) fn send(&self, bytes: &[u8]) {
        // SAFETY: pointer and length are of `bytes`.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        assert_eq!(
            sent,
            bytes.len() as isize,
            "{}",
            std::io::Error::last_os_error()
        );
    }

    /// The next test packet that came in on the device, or none for a while.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        loop {
            if !readable(self.0.as_raw_fd(), Duration::from_secs(2)) {
                return None;
            }
            let mut buffer = vec![0; 16384];
            // SAFETY: zero is a value of it.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut from_len = size_of_val(&from) as libc::socklen_t;
            // SAFETY: pointers and lengths are of the buffer and the address.
            let got = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut from_len,
                )
            };
            assert!(got >= 0, "{}", std::io::Error::last_os_error());
            buffer.truncate(got as usize);
            if from.sll_pkttype != libc::PACKET_OUTGOING && buffer[12..14] == ETHERTYPE {
                return Some(buffer);
            }
        }
    }
}

/// Waits until a descriptor can be read.
pub(crate) fn readable(fd: i32, limit: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, limit.as_millis() as i32) > 0 }
}
