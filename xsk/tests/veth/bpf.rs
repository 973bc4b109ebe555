//! A program of five instructions that redirects everything to an XSKMAP, by plain bpf(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_HAS_FRAGS: u32 = 1 << 5;
const DRIVER_MODE: u32 = 1 << 2;

/// An XDP program on a device, in native mode. It goes when this is dropped.
pub(crate) struct Redirect {
    map: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    /// Attaches the program. Packets of a queue with no socket pass to the kernel's stack.
    pub(crate) fn attach(ifindex: u32, queues: u32) -> Self {
        let map = bpf(MAP_CREATE, words(&[XSKMAP, 4, 4, queues]));
        let program = [
            instruction(0x61, 0x12, 16, 0), // r2 = ctx->rx_queue_index
            instruction(0x18, 0x11, 0, map.as_raw_fd() as u32), // r1 = map
            0,
            instruction(0xb7, 0x03, 0, 2),  // r3 = XDP_PASS
            instruction(0x85, 0x00, 0, 51), // call bpf_redirect_map
            instruction(0x95, 0x00, 0, 0),  // exit
        ];
        let mut load = [0u64; 16];
        load[0] = pair(PROG_TYPE_XDP, program.len() as u32);
        load[1] = program.as_ptr() as u64;
        load[2] = c"Apache-2.0".as_ptr() as u64;
        load[5] = pair(0, XDP_HAS_FRAGS);
        load[8] = pair(0, ATTACH_XDP);
        let program = bpf(PROG_LOAD, load);
        let link = bpf(
            LINK_CREATE,
            words(&[program.as_raw_fd() as u32, ifindex, ATTACH_XDP, DRIVER_MODE]),
        );
        Self { map, _link: link }
    }

    /// Sends the packets of `queue` to a socket.
    pub(crate) fn insert(&self, queue: u32, socket: BorrowedFd<'_>) {
        let value = socket.as_raw_fd();
        let mut update = [0u64; 16];
        update[0] = self.map.as_raw_fd() as u64;
        update[1] = (&raw const queue) as u64;
        update[2] = (&raw const value) as u64;
        assert_eq!(
            call(MAP_UPDATE, update),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
    }
}

/// `struct bpf_insn`. The registers are the source in the high half of the byte, the destination in the low.
fn instruction(opcode: u8, registers: u8, offset: i16, immediate: u32) -> u64 {
    let [o0, o1] = offset.to_le_bytes();
    let [i0, i1, i2, i3] = immediate.to_le_bytes();
    u64::from_ne_bytes([opcode, registers, o0, o1, i0, i1, i2, i3])
}

fn pair(first: u32, second: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn words(values: &[u32]) -> [u64; 16] {
    let mut attributes = [0u64; 16];
    for (to, from) in attributes.iter_mut().zip(values.chunks(2)) {
        *to = pair(from[0], from.get(1).copied().unwrap_or(0));
    }
    attributes
}

fn bpf(command: libc::c_int, attributes: [u64; 16]) -> OwnedFd {
    let fd = call(command, attributes);
    assert!(
        fd >= 0,
        "bpf command {command}: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: the descriptor is new.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn call(command: libc::c_int, attributes: [u64; 16]) -> libc::c_long {
    // SAFETY: the attributes are zero where unused; the pointers in them outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    }
}
