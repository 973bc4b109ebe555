//! TAP ports: a device that the node makes, with the host itself as the only neighbour.
//!
//! Address resolution is off on the device, so the host sends every frame to the device's own hardware address and
//! takes every frame with that address. A TAP port costs a system call a packet; it is for hosts' own traffic and for
//! places without XDP, not for speed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::OFlags;
use twinseal_xsk::{Frame, Umem};

use super::netdev::{self, Netdev};
use super::{Outcome, PortError, Queue};
use crate::pipeline::{FRAME_HEADROOM, TAILROOM};
use crate::wire::ethernet;

/// One worker's descriptor of the device.
pub(crate) struct TapQueue {
    tap: File,
}

/// Makes the device with a queue for each worker and brings it up. Its MTU is at most what fits a frame of `frame_size`
/// octets, as a longer packet would be cut off.
pub(crate) fn open(
    name: &str,
    mtu: u16,
    workers: usize,
    frame_size: u32,
) -> Result<(Vec<TapQueue>, Outcome), PortError> {
    let mut queues = Vec::with_capacity(workers);
    for _ in 0..workers {
        let tun = rustix::fs::open(
            "/dev/net/tun",
            OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(|source| PortError::Device {
            netdev: name.to_owned(),
            call: "open(/dev/net/tun)",
            source: source.into(),
            fix: "load the module tun, and run with CAP_NET_ADMIN",
        })?;
        netdev::attach_tap(&tun, name, workers)?;
        queues.push(TapQueue { tap: tun.into() });
    }
    let around = FRAME_HEADROOM + ethernet::LEN + TAILROOM;
    netdev::raise_tap(name, mtu.min(frame_size as u16 - around as u16))?;
    let facts = Netdev::query(name)?;
    let outcome = Outcome {
        mac: facts.mac,
        mtu: facts.mtu,
        device_mtu: facts.mtu,
        offloads: !facts.wired,
        xdp: None,
        bind: Vec::new(),
        need_wakeup: false,
        peer: Some(facts.mac),
        ifindex: Some(facts.ifindex),
    };
    Ok((queues, outcome))
}

/// Sets a device's MTU, so that the host sends nothing larger.
pub(crate) fn set_mtu(name: &str, mtu: u16) -> Result<(), PortError> {
    netdev::set_mtu(name, mtu)
}

impl Queue for TapQueue {
    fn receive(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize {
        for received in 0..max {
            let Some(mut frame) = memory.alloc() else {
                return received;
            };
            let room = frame.tailroom();
            if !frame.append(room) {
                memory.free(frame);
                return received;
            }
            match self.tap.read(frame.data_mut()) {
                Ok(len) if len > 0 => {
                    frame.truncate(len);
                    frames.push(frame);
                }
                // Nothing there (EAGAIN), or the device is gone.
                _ => {
                    memory.free(frame);
                    return received;
                }
            }
        }
        max
    }

    fn transmit(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>) -> usize {
        let mut lost = 0;
        for frame in frames.drain(..) {
            if self.tap.write(frame.data()).is_err() {
                lost += 1;
            }
            memory.free(frame);
        }
        lost
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd())
    }

    fn close(self: Box<Self>, _: &mut Umem) -> usize {
        0
    }
}
