//! Opening, closing, and what can be wrong with it.

use std::sync::atomic::{AtomicBool, Ordering};

use twinseal_xsk::{BindMode, Closed, Socket, SocketConfig, Wake, XskError, ZeroCopy};

use crate::bpf::Redirect;
use crate::net::{drop_capabilities, ifindex, in_namespace, ip, veth};
use crate::packet::{Wire, packet};
use crate::{FRAMES, config, frame, receive, umem};

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
fn abandon_waits_for_nothing_and_the_queue_is_free_again() {
    in_namespace(|| {
        veth("a", "b", 1);
        for round in 0..5 {
            let mut umem = umem();
            let mut socket =
                Socket::open(&umem, "a", 0, &config()).expect("the queue is free again");
            socket.fill(&mut umem, 50);
            // As while another process is being started.
            let held = (round % 2 == 1).then(|| socket.fd().try_clone_to_owned());
            let closed = socket.abandon(&mut umem);
            assert_eq!(closed.returned + closed.kept, 50, "round {round}");
            assert_eq!(umem.outstanding(), closed.kept);
            if held.is_some() {
                assert_eq!(closed.kept, 50, "the kernel has them still");
            }
        }
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
fn after_close_nobody_writes_into_the_chunks() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let redirect = Redirect::attach(ifindex("a"), 1);
        let wire = Wire::open(ifindex("b"));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    wire.send(&packet(1, 1000));
                }
            });
            let _stop = StopOnDrop(&stop);
            for _ in 0..10 {
                let mut socket = Socket::open(&umem, "a", 0, &config()).expect("socket");
                socket.fill(&mut umem, 256);
                redirect.insert(0, socket.fd());
                let frames = receive(&mut socket, &mut umem, 100);
                assert_eq!(frames.len(), 100, "traffic flows");
                frames.into_iter().for_each(|frame| umem.free(frame));
                socket.fill(&mut umem, 256);
                let held = socket.held();
                assert_eq!(
                    socket.close(&mut umem),
                    Closed {
                        returned: held,
                        kept: 0
                    }
                );

                let mut all: Vec<_> = std::iter::from_fn(|| umem.alloc()).collect();
                assert_eq!(all.len(), FRAMES as usize);
                for frame in &mut all {
                    assert!(frame.copy_from(&[0x5a; 1500]));
                }
                wire.send(&packet(2, 1000));
                std::thread::sleep(std::time::Duration::from_millis(5));
                assert!(all.iter().all(|frame| frame.data() == [0x5a; 1500]));
                all.into_iter().for_each(|frame| umem.free(frame));
            }
        });
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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

/// In a process of its own, of which it takes nearly all descriptors.
#[test]
fn too_many_open_files_are_told_as_that() {
    const FEW: &str = "TWINSEAL_TEST_FEW_FILES";
    if std::env::var_os(FEW).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().expect("a program"));
        child.args([
            "--exact",
            "lifecycle::too_many_open_files_are_told_as_that",
            "--nocapture",
        ]);
        let status = child.env(FEW, "").status().expect("it runs");
        assert!(status.success());
        return;
    }
    in_namespace(|| {
        veth("a", "b", 1);
        let umem = umem();
        // SAFETY: takes no pointers; the copy is closed at once.
        let next = unsafe {
            let next = libc::dup(0);
            libc::close(next);
            next as libc::rlim_t
        };
        for spare in 0..16 {
            let limit = libc::rlimit {
                rlim_cur: next + spare,
                rlim_max: 1024,
            };
            // SAFETY: points to a limit that outlives the call.
            let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            if set != 0 {
                let why = std::io::Error::last_os_error();
                eprintln!("SKIPPED: cannot set the limit of open files: {why}");
                return;
            }
            match Socket::open(&umem, "a", 0, &config()) {
                Ok(_) => {
                    assert!(spare >= 2, "it has two descriptors");
                    return;
                }
                Err(XskError::TooManyFiles { .. }) => {}
                Err(other) => panic!("{spare}: {other}"),
            }
        }
        panic!("it opens never");
    });
}

#[test]
fn says_which_privilege_is_missing() {
    in_namespace(|| {
        veth("a", "b", 1);
        let umem = umem();
        drop_capabilities(1 << 14); // CAP_IPC_LOCK
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

        drop_capabilities(1 << 13); // CAP_NET_RAW
        let error = Socket::open(&umem, "a", 0, &config()).expect_err("no privilege");
        assert!(matches!(error, XskError::NoPermission { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_RAW"), "{error}");
    });
}
