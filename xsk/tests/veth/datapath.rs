//! Packets in and out, with their content checked by an AF_PACKET socket at the other end.

use twinseal_xsk::{
    Amount, BusyPoll, Closed, Frame, HugePages, Pages, Socket, SocketConfig, Umem, UmemConfig,
    Wake, XskError,
};

use crate::bpf::Redirect;
use crate::net::{ifindex, in_namespace, ip, veth};
use crate::packet::{Wire, packet};
use crate::{FRAMES, config, frame, receive, send, umem};

#[test]
fn receives_what_was_sent() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        assert_eq!(socket.fill(&mut umem, 200), 200);
        assert_eq!(
            (socket.held(), umem.available()),
            (200, FRAMES as usize - 200)
        );
        let redirect = Redirect::attach(ifindex("a"), 1);
        redirect.insert(0, socket.fd());
        let wire = Wire::open(ifindex("b"));

        let sent: Vec<_> = (0..100).map(|i| packet(i, 60 + 14 * i as usize)).collect();
        sent.iter().for_each(|bytes| wire.send(bytes));
        let got = receive(&mut socket, &mut umem, 100);
        assert_eq!(got.len(), 100);
        for (frame, bytes) in got.iter().zip(&sent) {
            assert_eq!(frame.data(), bytes);
            assert_eq!(frame.headroom(), 256);
            assert_eq!(frame.umem_id(), umem.id());
        }
        assert_eq!(socket.held(), 100);
        let positions = socket.positions();
        assert_eq!((positions.rx.producer, positions.rx.consumer), (100, 100));
        assert_eq!(
            (positions.fill.producer, positions.fill.consumer),
            (200, 100)
        );
        assert_eq!(socket.fill_pending(), 100);
        assert_eq!(socket.counters(), Default::default());

        got.into_iter().for_each(|frame| umem.free(frame));
        assert_eq!(
            socket.close(&mut umem),
            Closed {
                returned: 100,
                kept: 0
            }
        );
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn sends_more_than_one_kernel_batch() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        let wire = Wire::open(ifindex("b"));

        let sent: Vec<_> = (0..200).map(|i| packet(i, 60 + 7 * i as usize)).collect();
        let mut frames: Vec<_> = sent.iter().map(|bytes| frame(&mut umem, bytes)).collect();
        assert_eq!(socket.transmit(&mut frames), 200);
        assert!(frames.is_empty());
        assert_eq!((socket.tx_pending(), socket.held()), (200, 200));
        assert_eq!(socket.wake_tx().expect("wake"), Wake::Done);
        assert_eq!(socket.tx_pending(), 0);
        for bytes in &sent {
            assert_eq!(wire.receive().as_ref(), Some(bytes));
        }
        assert_eq!(socket.complete(&mut umem), 200);
        assert_eq!((socket.held(), umem.outstanding()), (0, 0));
        assert_eq!(socket.positions().completion.consumer, 200);
        assert_eq!(socket.wake_tx().expect("wake"), Wake::NotNeeded);
        assert_eq!(
            socket.close(&mut umem),
            Closed {
                returned: 0,
                kept: 0
            }
        );
    });
}

#[test]
fn frames_that_the_ring_does_not_take_stay() {
    in_namespace(|| {
        veth("a", "b", 1);
        let (mut umem, mut other) = (umem(), umem());
        let config = SocketConfig {
            tx_size: 4,
            ..config()
        };
        let mut socket = Socket::open(&umem, "a", 0, &config).expect("socket");
        let mut frames: Vec<_> = (0..6).map(|i| frame(&mut umem, &packet(i, 60))).collect();
        frames.insert(1, frame(&mut other, &packet(77, 60)));
        frames.insert(2, umem.alloc().expect("an empty frame"));

        assert_eq!(socket.transmit(&mut frames), 4);
        let left: Vec<_> = frames
            .iter()
            .map(|frame| (frame.umem_id(), frame.len()))
            .collect();
        assert_eq!(
            left,
            [
                (other.id(), 60),
                (umem.id(), 0),
                (umem.id(), 60),
                (umem.id(), 60)
            ]
        );
        assert_eq!(socket.counters().tx_refused, 2);
        assert_eq!(socket.fill(&mut other, 10), 0);
        assert_eq!(
            socket.complete(&mut other) + socket.receive(&mut other, 1, drop),
            0
        );
        assert_eq!(socket.counters().wrong_umem, 3);

        assert_eq!(
            socket.close(&mut umem),
            Closed {
                returned: 4,
                kept: 0
            }
        );
        assert_eq!(umem.outstanding(), 3);
    });
}

#[test]
fn a_frame_received_on_one_device_leaves_on_another_without_a_copy() {
    in_namespace(|| {
        veth("a", "b", 1);
        veth("c", "d", 1);
        let mut umem = umem();
        let mut left = Socket::open(&umem, "a", 0, &config()).expect("socket");
        let mut right =
            Socket::open(&umem, "c", 0, &config()).expect("the same memory on a second device");
        let redirects = [
            Redirect::attach(ifindex("a"), 1),
            Redirect::attach(ifindex("c"), 1),
        ];
        redirects[0].insert(0, left.fd());
        redirects[1].insert(0, right.fd());
        left.fill(&mut umem, 64);
        right.fill(&mut umem, 64);
        let (near, far) = (Wire::open(ifindex("b")), Wire::open(ifindex("d")));

        for round in 0..20 {
            let (there, back) = (packet(2 * round, 1000), packet(2 * round + 1, 300));
            near.send(&there);
            let mut frames = receive(&mut left, &mut umem, 1);
            let address = frames[0].data().as_ptr();
            assert!(frames[0].prepend(4));
            frames[0].data_mut().copy_within(4..16, 0);
            frames[0].data_mut()[12..16].copy_from_slice(&[0x88, 0xb5, 7, 7]);
            assert_eq!(
                frames[0].data()[4..].as_ptr(),
                address,
                "the bytes did not move"
            );
            send(&mut right, &mut umem, &mut frames);
            let got = far.receive().expect("forwarded");
            assert_eq!(
                (&got[..12], &got[12..16], &got[16..]),
                (&there[..12], &[0x88, 0xb5, 7, 7][..], &there[12..])
            );

            far.send(&back);
            let mut frames = receive(&mut right, &mut umem, 1);
            send(&mut left, &mut umem, &mut frames);
            assert_eq!(near.receive(), Some(back));
            left.fill(&mut umem, 1);
            right.fill(&mut umem, 1);
        }

        // Closing one leaves the other as it is.
        assert_eq!(
            left.close(&mut umem),
            Closed {
                returned: 64,
                kept: 0
            }
        );
        far.send(&packet(99, 99));
        let mut frames = receive(&mut right, &mut umem, 1);
        assert_eq!(frames[0].data(), packet(99, 99));
        umem.free(frames.remove(0));
        right.close(&mut umem);
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn each_queue_has_its_socket() {
    in_namespace(|| {
        veth("a", "b", 2);
        let mut umem = umem();
        let sockets =
            [0, 1].map(|queue| Socket::open(&umem, "a", queue, &config()).expect("socket"));
        assert_eq!(sockets.each_ref().map(Socket::queue), [0, 1]);
        assert_eq!(sockets[0].ifindex(), ifindex("a"));
        for mut socket in sockets {
            let wire = Wire::open(ifindex("b"));
            let mut frames = vec![frame(&mut umem, &packet(socket.queue(), 80))];
            send(&mut socket, &mut umem, &mut frames);
            assert_eq!(wire.receive(), Some(packet(socket.queue(), 80)));
            socket.close(&mut umem);
        }
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn works_on_another_thread_and_without_need_wakeup() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let config = SocketConfig {
            need_wakeup: false,
            ..config()
        };
        let mut socket = Socket::open(&umem, "a", 0, &config).expect("socket");
        assert!(!socket.mode().need_wakeup);
        let wire = Wire::open(ifindex("b"));
        std::thread::spawn(move || {
            let mut frames = vec![frame(&mut umem, &packet(5, 500))];
            assert_eq!(socket.wake_rx().expect("wake"), Wake::NotNeeded);
            send(&mut socket, &mut umem, &mut frames);
            socket.close(&mut umem);
            assert_eq!(umem.outstanding(), 0);
        })
        .join()
        .expect("no panic");
        assert_eq!(wire.receive(), Some(packet(5, 500)));
    });
}

#[test]
fn drops_packets_over_several_chunks_whole() {
    in_namespace(|| {
        veth("a", "b", 1);
        ip("link set dev a mtu 6000");
        ip("link set dev b mtu 6000");
        let mut umem = umem();
        let config = SocketConfig {
            multi_buffer: true,
            ..config()
        };
        let mut socket = Socket::open(&umem, "a", 0, &config).expect("socket");
        assert!(socket.mode().multi_buffer);
        socket.fill(&mut umem, 100);
        let redirect = Redirect::attach(ifindex("a"), 1);
        redirect.insert(0, socket.fd());
        let wire = Wire::open(ifindex("b"));

        for (i, len) in [100, 5000, 3000, 200, 1792, 1793, 300]
            .into_iter()
            .enumerate()
        {
            wire.send(&packet(i as u32, len));
        }
        let got = receive(&mut socket, &mut umem, 4);
        let lengths: Vec<_> = got.iter().map(Frame::len).collect();
        assert_eq!(lengths, [100, 200, 1792, 300]);
        assert_eq!(got[3].data(), packet(6, 300));
        assert_eq!(socket.counters().rx_multi_buffer, 3);
        got.into_iter().for_each(|frame| umem.free(frame));
        // 3 + 2 + 2 chunks went back to the pool, 4 were handed out and freed.
        assert_eq!((socket.held(), umem.outstanding()), (100 - 11, 100 - 11));
        socket.close(&mut umem);
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn busy_polls() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let config = SocketConfig {
            busy_poll: Some(BusyPoll {
                usecs: 20,
                budget: 64,
            }),
            ..config()
        };
        let mut socket = Socket::open(&umem, "a", 0, &config).expect("socket");
        socket.fill(&mut umem, 32);
        let redirect = Redirect::attach(ifindex("a"), 1);
        redirect.insert(0, socket.fd());
        assert_eq!(
            socket.wake_rx().expect("wake"),
            Wake::Done,
            "polling is by this call"
        );
        let wire = Wire::open(ifindex("b"));
        wire.send(&packet(1, 64));
        let mut frames = receive(&mut socket, &mut umem, 1);
        assert_eq!(frames[0].data(), packet(1, 64));
        send(&mut socket, &mut umem, &mut frames);
        assert_eq!(wire.receive(), Some(packet(1, 64)));
        socket.close(&mut umem);
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn the_kernel_counts_what_it_drops() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let config = SocketConfig {
            rx_size: 4,
            ..config()
        };
        let mut socket = Socket::open(&umem, "a", 0, &config).expect("socket");
        let redirect = Redirect::attach(ifindex("a"), 1);
        redirect.insert(0, socket.fd());
        let wire = Wire::open(ifindex("b"));
        let before = socket.statistics().expect("statistics");
        assert_eq!((before.rx_dropped, before.rx_ring_full), (0, 0));

        wire.send(&packet(0, 100));
        let nothing_to_receive_into = socket.statistics().expect("statistics");
        assert_eq!(nothing_to_receive_into.rx_dropped, 1);
        assert!(nothing_to_receive_into.rx_fill_ring_empty_descs > 0);

        socket.fill(&mut umem, 32);
        (1..=10).for_each(|i| wire.send(&packet(i, 100)));
        assert_eq!(socket.statistics().expect("statistics").rx_ring_full, 6);
        let got = receive(&mut socket, &mut umem, 4);
        assert_eq!(
            got.iter().map(|frame| frame.data()[17]).collect::<Vec<_>>(),
            [1, 2, 3, 4]
        );
        got.into_iter().for_each(|frame| umem.free(frame));

        // The kernel took a chunk for the fifth packet before it found the rx ring full. It keeps that one outside
        // every ring, yet it comes back.
        let held = socket.held();
        assert_eq!(
            socket.close(&mut umem),
            Closed {
                returned: held,
                kept: 0
            }
        );
        assert_eq!(umem.outstanding(), 0);
    });
}

#[test]
fn packets_that_the_device_drops_are_completed_too() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        ip("link set dev b down"); // no carrier on a
        let mut frames: Vec<_> = (0..40).map(|i| frame(&mut umem, &packet(i, 100))).collect();
        send(&mut socket, &mut umem, &mut frames);
        assert_eq!((umem.outstanding(), socket.held()), (0, 0));
        assert_eq!(socket.counters().tx_dropped, 40);
        let lost = |packets, bytes| Amount { packets, bytes };
        let octets: u64 = (0..40).map(|i| packet(i, 100).len() as u64).sum();
        assert_eq!(socket.not_sent(), lost(40, octets));
        ip("link set dev b up");
        let one = packet(1, 200);
        let mut frames = vec![frame(&mut umem, &one)];
        send(&mut socket, &mut umem, &mut frames);
        assert_eq!(socket.counters().tx_dropped, 40);
        assert_eq!(socket.not_sent(), lost(40, octets));
        // What waits in the ring is not sent either.
        ip("link set dev a down");
        let mut frames = vec![frame(&mut umem, &one)];
        socket.transmit(&mut frames);
        assert_eq!(socket.wake_tx().expect("it may come up"), Wake::Down);
        assert_eq!(socket.waiting(), lost(1, one.len() as u64));
        assert_eq!(socket.not_sent(), lost(41, octets + one.len() as u64));
        ip("link set dev a up");
        send(&mut socket, &mut umem, &mut frames);
        assert_eq!(socket.not_sent().packets - socket.counters().tx_dropped, 0);
        socket.close(&mut umem);
    });
}

#[test]
fn works_on_huge_pages() {
    in_namespace(|| {
        veth("a", "b", 1);
        let want = UmemConfig {
            frame_count: 64,
            frame_size: 4096,
            headroom: 400,
            jumbo_frames: 0,
            huge: HugePages::Require,
        };
        let mut umem = match Umem::new(&want) {
            Ok(umem) => umem,
            Err(error @ XskError::NoHugePages { .. }) => return eprintln!("SKIPPED: {error}"),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(umem.pages(), Pages::Huge);
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        assert_eq!(socket.fill(&mut umem, 64), 64);
        let redirect = Redirect::attach(ifindex("a"), 1);
        redirect.insert(0, socket.fd());
        let wire = Wire::open(ifindex("b"));
        wire.send(&packet(1, 1500));
        let mut frames = receive(&mut socket, &mut umem, 1);
        assert_eq!(
            (frames[0].data(), frames[0].headroom()),
            (&packet(1, 1500)[..], 400)
        );
        send(&mut socket, &mut umem, &mut frames);
        assert_eq!(wire.receive(), Some(packet(1, 1500)));
        socket.close(&mut umem);
        assert_eq!(umem.outstanding(), 0);
    });
}
