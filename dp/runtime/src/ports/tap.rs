//! TAP ports: a device that the node makes, with the host itself as the only neighbour.
//!
//! Address resolution is off on the device, so the host sends every frame to the device's own hardware address and
//! takes every frame with that address. A TAP port costs a system call a packet; it is for hosts' own traffic and for
//! places without XDP, not for speed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use twinseal_xsk::{Amount, Frame, Umem};

use super::netdev::{self, Netdev};
use super::{Outcome, PortError, Queue};
use twinseal_forward::{FRAME_HEADROOM, TAILROOM};
use twinseal_wire::ethernet;

/// One worker's descriptor of the device.
pub(crate) struct TapQueue {
    tap: File,
    dead: bool,
    read_errors: u64,
    write_errors: u64,
    poll_errors: u64,
}

impl TapQueue {
    fn new(tap: File) -> Self {
        Self {
            tap,
            dead: false,
            read_errors: 0,
            write_errors: 0,
            poll_errors: 0,
        }
    }

    /// A descriptor whose device was deleted has none for good (EBADFD). A device that is only down answers otherwise.
    fn look(&mut self, error: &io::Error) {
        self.dead |= error.raw_os_error() == Some(libc::EBADFD);
    }
}

/// Why a device of this name could not be made, as far as can be known without making it.
pub(crate) fn check(name: &str) -> Result<(), PortError> {
    open_tun(name)?;
    match Netdev::query(name) {
        // One that somebody made for this may be taken.
        Ok(device) if !device.tun => Err(PortError::Device {
            netdev: name.to_owned(),
            call: "TUNSETIFF",
            source: io::ErrorKind::AlreadyExists.into(),
            fix: "it is a device of another kind: give the TAP device a name that none has",
        }),
        Ok(_) | Err(PortError::NoDevice { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_tun(name: &str) -> Result<OwnedFd, PortError> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty());
    let call = "open(/dev/net/tun)";
    tun.map_err(|source| {
        PortError::of(call, source.into(), |source| PortError::Device {
            netdev: name.to_owned(),
            call,
            source,
            fix: "load the module tun, and run with CAP_NET_ADMIN",
        })
    })
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
        let tun = open_tun(name)?;
        netdev::attach_tap(&tun, name, workers)?;
        queues.push(TapQueue::new(tun.into()));
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
pub fn set_mtu(name: &str, mtu: u16) -> Result<(), PortError> {
    netdev::set_mtu(name, mtu)
}

impl Queue for TapQueue {
    fn receive(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize {
        if self.dead {
            return 0;
        }
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
                read => {
                    memory.free(frame);
                    if let Err(error) = read
                        && !matches!(
                            error.kind(),
                            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                        )
                    {
                        self.read_errors += 1;
                        self.look(&error);
                    }
                    return received;
                }
            }
        }
        max
    }

    fn transmit(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>) -> Amount {
        let mut lost = Amount::default();
        for frame in frames.drain(..) {
            if self.dead {
                lost = lost.and(frame.len());
            } else if let Err(error) = self.tap.write(frame.data()) {
                lost = lost.and(frame.len());
                self.write_errors += 1;
                self.look(&error);
            }
            memory.free(frame);
        }
        lost
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.dead).then(|| self.tap.as_fd())
    }

    fn is_dead(&self) -> bool {
        self.dead
    }

    fn poll_failed(&mut self) {
        self.poll_errors += 1;
        self.dead = true;
    }

    fn kernel_counters(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("read_errors", self.read_errors),
            ("write_errors", self.write_errors),
            ("poll_errors", self.poll_errors),
        ]
    }

    fn close(self: Box<Self>, _: &mut Umem) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use twinseal_lab::Lab;
    use twinseal_xsk::{HugePages, UmemConfig};

    use super::*;

    /// Over and over a worker would be woken and find nothing.
    #[test]
    fn a_queue_whose_device_was_deleted_wakes_nobody() {
        let tun = std::path::Path::new("/dev/net/tun").exists();
        let able = Lab::available().map_err(|why| why.to_string());
        let able = able.and(
            tun.then_some(())
                .ok_or("there is no /dev/net/tun".to_owned()),
        );
        if let Err(why) = able {
            eprintln!("SKIPPED: {why}");
            return;
        }
        let lab = Lab::new("tap").expect("a lab");
        let space = lab.namespace("a").expect("a namespace");
        let opened = space.run(|| open("t0", 1400, 2, 2048)).expect("a thread");
        let (mut queues, _) = opened.expect("a TAP");
        let mut memory = Umem::new(&UmemConfig {
            frame_count: 64,
            frame_size: 2048,
            headroom: FRAME_HEADROOM as u32,
            jumbo_frames: 0,
            huge: HugePages::Never,
        })
        .expect("packet memory");
        let mut frames = Vec::new();
        let free = memory.available();
        assert!(queues.iter().all(|queue| !queue.is_dead()));
        space.delete_link("t0").expect("it is there");
        // One finds out as it reads, the other as it waits.
        assert_eq!(queues[0].receive(&mut memory, &mut frames, 8), 0);
        let mut fds = [PollFd::from_borrowed_fd(
            queues[1].wait_fd().expect("something to wait for"),
            PollFlags::IN,
        )];
        poll(&mut fds, Some(&Timespec::default())).expect("a poll");
        assert!(fds[0].revents().contains(PollFlags::ERR));
        queues[1].poll_failed();
        for queue in &mut queues {
            assert!(queue.is_dead() && queue.wait_fd().is_none());
            assert_eq!(queue.receive(&mut memory, &mut frames, 8), 0);
            frames.extend(memory.alloc());
            assert_eq!(queue.transmit(&mut memory, &mut frames).packets, 1);
        }
        assert_eq!(memory.available(), free, "no frame is lost");
    }
}
