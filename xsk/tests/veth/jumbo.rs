//! Packets larger than a chunk, in jumbo frames.

use twinseal_xsk::{Amount, Frame, HugePages, Socket, SocketConfig, Umem, UmemConfig};

use crate::bpf::Redirect;
use crate::net::{ifindex, in_namespace, ip, veth};
use crate::packet::{Wire, packet};
use crate::{config, receive, send};

const MTU: usize = 9000;
/// Around what one, two, ... received chunks hold, and the ends of what can be.
const LENGTHS: [usize; 16] = [
    60, 1791, 1792, 1793, 2048, 3583, 3584, 3585, 4096, 5376, 5377, 7168, 7169, 8960, 8961, 9014,
];

fn umem(frame_size: u32, jumbo_frames: u32) -> Umem {
    Umem::new(&UmemConfig {
        frame_count: 512,
        frame_size,
        jumbo_frames,
        huge: HugePages::Never,
        ..UmemConfig::default()
    })
    .expect("memory")
}

/// A socket on `a`, the one end of a pair with a large MTU, and the other end.
fn open(umem: &mut Umem) -> (Socket, Redirect, Wire) {
    veth("a", "b", 1);
    for name in ["a", "b"] {
        ip(&format!("link set dev {name} mtu {MTU}"));
    }
    let config = SocketConfig {
        multi_buffer: true,
        ..config()
    };
    let mut socket = Socket::open(umem, "a", 0, &config).expect("socket");
    assert!(socket.mode().multi_buffer);
    socket.fill(umem, 200);
    let redirect = Redirect::attach(ifindex("a"), 1);
    redirect.insert(0, socket.fd());
    (socket, redirect, Wire::open(ifindex("b")))
}

#[test]
fn passes_packets_of_every_size_both_ways_in_one_piece() {
    for frame_size in [2048, 4096] {
        in_namespace(move || {
            let mut umem = umem(frame_size, 32);
            let (mut socket, _redirect, wire) = open(&mut umem);
            let sent: Vec<_> = (0..).zip(LENGTHS).map(|(i, len)| packet(i, len)).collect();
            sent.iter().for_each(|bytes| wire.send(bytes));
            let mut got = receive(&mut socket, &mut umem, sent.len());
            let one_chunk = frame_size as usize - 256;
            for (frame, bytes) in got.iter().zip(&sent) {
                assert!(frame.data() == bytes, "{} bytes", bytes.len());
                assert_eq!(frame.is_jumbo(), bytes.len() > one_chunk);
            }
            assert_eq!(got.len(), sent.len());
            assert_eq!(socket.counters(), Default::default());

            // Headers come off and go on, so that parts begin at odd places.
            for (nth, frame) in got.iter_mut().enumerate() {
                let n = nth * 13 % 46;
                assert!(frame.trim_front(n) && frame.prepend(n));
            }
            send(&mut socket, &mut umem, &mut got);
            for bytes in &sent {
                let back = wire.receive();
                assert!(back.as_ref() == Some(bytes), "{} bytes", bytes.len());
            }
            socket.complete(&mut umem);
            assert_eq!(umem.jumbos_available(), 32);
            socket.close(&mut umem);
            assert_eq!(umem.outstanding(), 0);
        });
    }
}

#[test]
fn what_finds_no_jumbo_frame_is_dropped_and_counted() {
    in_namespace(|| {
        let mut umem = umem(2048, 2);
        let (mut socket, _redirect, wire) = open(&mut umem);
        for (i, len) in (0..).zip([9000, 100, 9000, 9000, 200]) {
            wire.send(&packet(i, len));
        }
        let got = receive(&mut socket, &mut umem, 4);
        let lengths: Vec<_> = got.iter().map(Frame::len).collect();
        assert_eq!(lengths, [9000, 100, 9000, 200]);
        assert_eq!(socket.counters().rx_multi_buffer, 1);
        got.into_iter().for_each(|frame| umem.free(frame));
        assert_eq!(umem.jumbos_available(), 2);
        socket.close(&mut umem);
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn a_socket_for_single_chunks_refuses_jumbo_frames() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem(2048, 2);
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        let mut jumbo = umem.alloc_jumbo().expect("a jumbo frame");
        assert!(jumbo.copy_from(&packet(1, 3000)));
        let mut small = umem.alloc_jumbo().expect("another");
        assert!(small.copy_from(&packet(2, 300)));
        let mut frames = vec![jumbo, small];
        // A small packet in a jumbo frame is one part, and leaves.
        assert_eq!(socket.transmit(&mut frames), 1);
        socket.wake_tx().expect("wake");
        assert_eq!(socket.complete(&mut umem), 1);
        assert_eq!(socket.counters().tx_refused, 1);
        assert_eq!(umem.jumbos_available(), 1);
        frames.drain(..).for_each(|frame| umem.free(frame));
        socket.close(&mut umem);
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn a_ring_takes_a_packet_whole_or_not() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem(2048, 4);
        let config = SocketConfig {
            tx_size: 8,
            multi_buffer: true,
            ..config()
        };
        let mut socket = Socket::open(&umem, "a", 0, &config).expect("socket");
        let mut frames: Vec<_> = (0..3)
            .map(|i| {
                let mut frame = umem.alloc_jumbo().expect("a jumbo frame");
                assert!(frame.copy_from(&packet(i, 5000)));
                frame
            })
            .collect();
        // Three parts each: two packets and not a part of the third.
        assert_eq!(socket.transmit(&mut frames), 2);
        assert_eq!(
            (frames.len(), socket.tx_pending(), socket.held()),
            (1, 6, 6)
        );
        let octets = (0..2).map(|i| packet(i, 5000).len() as u64).sum();
        let waiting = Amount {
            packets: 2,
            bytes: octets,
        };
        assert_eq!((socket.waiting(), socket.not_sent()), (waiting, waiting));
        // Nobody took them: they come back when the socket closes.
        socket.close(&mut umem);
        assert_eq!(umem.jumbos_available(), 3);
        frames.drain(..).for_each(|frame| umem.free(frame));
        assert_eq!(umem.outstanding(), 0);
    });
}
