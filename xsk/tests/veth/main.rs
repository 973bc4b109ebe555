//! Sockets on real devices: veth pairs in a namespace of the test's own, with a real XDP program.

mod allocation;
mod bpf;
mod datapath;
mod jumbo;
mod lifecycle;
mod net;
mod packet;

use std::os::fd::AsRawFd;
use std::time::Duration;

use twinseal_xsk::{Frame, HugePages, Socket, SocketConfig, Umem, UmemConfig};

const FRAMES: u32 = 1024;

fn umem() -> Umem {
    Umem::new(&UmemConfig {
        frame_count: FRAMES,
        huge: HugePages::Never,
        ..Default::default()
    })
    .expect("memory")
}

fn config() -> SocketConfig {
    SocketConfig {
        rx_size: 256,
        tx_size: 256,
        fill_size: 256,
        completion_size: 256,
        ..Default::default()
    }
}

/// Receives `count` packets, or as many as come.
fn receive(socket: &mut Socket, umem: &mut Umem, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    while frames.len() < count {
        socket.wake_rx().expect("wake");
        if socket.receive(umem, count - frames.len(), |frame| frames.push(frame)) == 0
            && !packet::readable(socket.as_raw_fd(), Duration::from_secs(2))
        {
            break;
        }
    }
    frames
}

/// Sends everything and reclaims the chunks.
fn send(socket: &mut Socket, umem: &mut Umem, frames: &mut Vec<Frame>) {
    while !frames.is_empty() || socket.tx_pending() > 0 {
        socket.transmit(frames);
        socket.wake_tx().expect("wake");
        socket.complete(umem);
    }
}

fn frame(umem: &mut Umem, bytes: &[u8]) -> Frame {
    let mut frame = umem.alloc().expect("a free chunk");
    assert!(frame.copy_from(bytes));
    frame
}
