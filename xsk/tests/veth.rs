//! Sockets on real devices: veth pairs in a namespace of the test's own, with a real XDP program.

mod common;

use std::os::fd::AsRawFd;
use std::time::Duration;

use common::bpf::Redirect;
use common::packet::{Wire, packet, readable};
use common::{ifindex, in_namespace, ip, veth};
use twinseal_xsk::{
    BindMode, BusyPoll, Closed, Frame, HugePages, Socket, SocketConfig, Umem, UmemConfig, Wake,
    XskError, ZeroCopy,
};

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
            && !readable(socket.as_raw_fd(), Duration::from_secs(2))
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
fn says_how_it_is_bound() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        for bind in [BindMode::Auto, BindMode::Copy] {
            let socket =
                Socket::open(&umem, "a", 0, &SocketConfig { bind, ..config() }).expect("socket");
            assert_eq!(socket.mode().bind, ZeroCopy::Copy, "veth has no zero-copy");
            assert!(socket.mode().need_wakeup && !socket.mode().multi_buffer);
            socket.close(&mut umem);
        }
        let config = SocketConfig {
            bind: BindMode::ZeroCopy,
            ..config()
        };
        let error = Socket::open(&umem, "a", 0, &config).expect_err("veth has no zero-copy");
        assert!(
            matches!(&error, XskError::DriverCannot { name, .. } if name == "a"),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("'copy'"),
            "says what to do: {error}"
        );
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
fn close_returns_the_frames_of_every_ring_and_frees_the_queue() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let redirect = Redirect::attach(ifindex("a"), 1);
        for round in 0..5 {
            let mut socket =
                Socket::open(&umem, "a", 0, &config()).expect("the queue is free again");
            redirect.insert(0, socket.fd());
            socket.fill(&mut umem, 50);
            let wire = Wire::open(ifindex("b"));
            (0..20).for_each(|i| wire.send(&packet(i, 100)));
            let mut frames: Vec<_> = (0..30).map(|i| frame(&mut umem, &packet(i, 100))).collect();
            socket.transmit(&mut frames);
            socket.wake_tx().expect("wake");
            frames.extend((0..10).map(|i| frame(&mut umem, &packet(i, 100))));
            socket.transmit(&mut frames);
            let positions = socket.positions();
            let filled = [
                positions.rx,
                positions.tx,
                positions.fill,
                positions.completion,
            ]
            .map(|ring| ring.filled());
            assert_eq!(filled, [20, 10, 30, 30], "round {round}");
            assert_eq!(umem.outstanding(), 90);
            assert_eq!(
                socket.close(&mut umem),
                Closed {
                    returned: 90,
                    kept: 0
                }
            );
            assert_eq!(umem.available(), FRAMES as usize);
        }
    });
}

#[test]
fn close_keeps_the_frames_while_the_socket_is_open_elsewhere() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        socket.fill(&mut umem, 7);
        let duplicate = socket.fd().try_clone_to_owned().expect("dup");
        assert_eq!(
            socket.close(&mut umem),
            Closed {
                returned: 0,
                kept: 7
            }
        );
        assert_eq!(umem.outstanding(), 7);
        drop(duplicate);
    });
}

#[test]
fn a_busy_queue_is_refused() {
    in_namespace(|| {
        veth("a", "b", 1);
        let (umem, other) = (umem(), umem());
        let socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        let error = Socket::open(&other, "a", 0, &config()).expect_err("busy");
        assert!(
            matches!(error, XskError::QueueBusy { queue: 0, .. }),
            "{error:?}"
        );
        drop(socket);
        Socket::open(&other, "a", 0, &config()).expect("free again");
    });
}

#[test]
fn says_what_is_wrong_with_a_request() {
    in_namespace(|| {
        veth("a", "b", 2);
        let umem = umem();
        let open = |name: &str, queue, config: &SocketConfig| {
            Socket::open(&umem, name, queue, config).expect_err("a bad request")
        };
        let error = open("a", 2, &config());
        assert!(
            matches!(
                error,
                XskError::NoSuchQueue {
                    queue: 2,
                    queues: 2,
                    ..
                }
            ),
            "{error:?}"
        );
        for name in [
            "nothing",
            "",
            "a\0b",
            "a-name-longer-than-the-kernel-allows",
        ] {
            let error = open(name, 0, &config());
            assert!(
                matches!(&error, XskError::NoSuchDevice { name: n } if n == name),
                "{error:?}"
            );
        }
        for value in [0, 3, 1 << 21] {
            let error = open(
                "a",
                0,
                &SocketConfig {
                    tx_size: value,
                    ..config()
                },
            );
            assert!(
                matches!(error, XskError::BadRingSize { value: v, .. } if v == value),
                "{error:?}"
            );
            assert!(error.to_string().contains("tx ring"), "{error}");
        }
    });
}

#[test]
fn a_device_that_is_down_or_gone_is_told_apart() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
        socket.fill(&mut umem, 5);
        let mut frames = vec![frame(&mut umem, &packet(1, 100))];
        socket.transmit(&mut frames);
        ip("link set dev a down");
        assert_eq!(socket.wake_tx().expect("not fatal"), Wake::Down);
        ip("link set dev a up");
        assert_eq!(socket.wake_tx().expect("wake"), Wake::Done);
        assert_eq!(socket.complete(&mut umem), 1);

        frames.push(frame(&mut umem, &packet(2, 100)));
        socket.transmit(&mut frames);
        ip("link delete dev a");
        let error = socket.wake_tx().expect_err("gone");
        assert!(
            matches!(&error, XskError::DeviceGone { name } if name == "a"),
            "{error:?}"
        );
        assert_eq!(
            socket.close(&mut umem),
            Closed {
                returned: 6,
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
        socket.close(&mut umem);
    });
}

#[test]
fn says_which_privilege_is_missing() {
    in_namespace(|| {
        veth("a", "b", 1);
        let umem = umem();
        common::drop_capabilities(1 << 14); // CAP_IPC_LOCK
        let limit = libc::rlimit {
            rlim_cur: 1 << 16,
            rlim_max: libc::RLIM_INFINITY,
        };
        // SAFETY: points to a limit that outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } != 0 {
            eprintln!(
                "SKIPPED: cannot set the locked-memory limit: {}",
                std::io::Error::last_os_error()
            );
            return;
        }
        let error = Socket::open(&umem, "a", 0, &config()).expect_err("too much to pin");
        assert!(
            matches!(error, XskError::MemoryLock { bytes } if bytes == 2048 * FRAMES as usize),
            "{error:?}"
        );

        common::drop_capabilities(1 << 13); // CAP_NET_RAW
        let error = Socket::open(&umem, "a", 0, &config()).expect_err("no privilege");
        assert!(matches!(error, XskError::NoPermission { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}
