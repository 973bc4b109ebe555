use super::*;
use crate::ports::{Device, PortSpec, Queue, memory::End};
use crate::workers::{Idle, Pool, PoolConfig};
use twinseal_crypto::Lanes;
use twinseal_fib::{Fib, Port, PortRole};
use twinseal_forward::FRAME_HEADROOM;
use twinseal_forward::reason::DropReason;
use twinseal_wire::ethernet::Mac;
use twinseal_xsk::{HugePages, UmemConfig};

fn memory() -> Umem {
    Umem::new(&UmemConfig {
        frame_count: 64,
        frame_size: 2048,
        headroom: FRAME_HEADROOM as u32,
        jumbo_frames: 0,
        huge: HugePages::Never,
    })
    .unwrap()
}

/// Both ends of a worker's crossing.
fn both() -> (Arc<Crossing>, Exchange) {
    let event = || Arc::new(crate::workers::new_event().unwrap());
    let told = event();
    let crossing = Crossing::new(0, Arc::clone(&told));
    let workers = vec![(Arc::clone(&crossing), event())];
    (crossing, Exchange::new(Instant::now(), told, workers))
}

const PORT: Towards = Towards::Port(PortIndex(3));

#[test]
fn injected_packets_come_in_order_and_those_beyond_the_ring_are_refused() {
    let (crossing, mut exchange) = both();
    let mut memory = memory();
    assert!(!crossing.waiting());
    for n in 0..INJECTED {
        assert!(exchange.inject(0, PORT, &[n as u8; 20]));
    }
    assert!(!exchange.inject(0, PORT, &[0; 20]), "it is full");
    assert!(!exchange.inject(0, PORT, &[0; MESSAGE + 1]), "too long");
    assert!(!exchange.inject(1, PORT, &[0; 20]), "no such worker");
    let mut seen = 0;
    while crossing.waiting() {
        for (frame, towards) in crossing.take(Duration::ZERO, &mut memory) {
            assert_eq!((frame.data(), towards), (&[seen as u8; 20][..], PORT));
            memory.free(frame);
            seen += 1;
        }
    }
    assert_eq!(seen, INJECTED);
    assert!(
        exchange.inject(0, PORT, &[0; MESSAGE]),
        "there is room again"
    );
}

#[test]
fn a_worker_without_memory_leaves_them_for_later() {
    let (crossing, mut exchange) = both();
    let mut memory = memory();
    let held: Vec<_> = std::iter::from_fn(|| memory.alloc()).collect();
    assert!(exchange.inject(0, PORT, &[7; 20]));
    assert!(crossing.take(Duration::ZERO, &mut memory).is_empty());
    assert!(crossing.waiting());
    held.into_iter().for_each(|frame| memory.free(frame));
    for (frame, _) in crossing.take(Duration::ZERO, &mut memory) {
        assert_eq!(frame.data(), [7; 20]);
        memory.free(frame);
    }
    assert_eq!(memory.available(), memory.frame_count());
}

#[test]
fn requests_are_stamped_and_nothing_else_is() {
    let (crossing, mut exchange) = both();
    let mut memory = memory();
    let request = Echo::request(1, 2);
    let reply = Echo {
        kind: twinseal_wire::oam::ECHO_REPLY,
        ..request
    };
    let link = Towards::Link(LinkIndex(0));
    for (echo, towards) in [(request, link), (reply, link), (request, PORT)] {
        assert!(exchange.inject(0, towards, &echo.bytes()));
    }
    let taken = crossing.take(Duration::from_nanos(99), &mut memory);
    let stamp = |(frame, _): &(Frame, Towards)| Echo::of(frame.data()).map(|it| it.stamp.get());
    let stamps: Vec<_> = taken.iter().map(stamp).collect();
    assert_eq!(stamps, [Some(99), Some(0), Some(0)]);
    taken.into_iter().for_each(|(frame, _)| memory.free(frame));
}

#[test]
fn punted_packets_come_in_order_and_those_beyond_the_ring_are_refused() {
    let (crossing, mut exchange) = both();
    let came = CameBy {
        port: PortIndex(1),
        link: LinkIndex(2),
        circuit: None,
    };
    let mut put = 0;
    while crossing.punt(
        PuntKind::EchoReply,
        Duration::from_nanos(put),
        came,
        &[9; 100],
    ) {
        put += 1;
    }
    assert_eq!(put as usize, PUNTED);
    crossing.tell();
    exchange.wait(Duration::from_secs(3600));
    let mut next = 0;
    exchange.take(|kind, it| {
        assert_eq!((kind, it.came, it.worker), (PuntKind::EchoReply, came, 0));
        assert_eq!(it.at, Duration::from_nanos(next));
        assert_eq!(it.message.as_slice(), [9; KEPT]);
        next += 1;
    });
    assert_eq!(next, put);
    assert!(crossing.punt(PuntKind::EchoReply, Duration::ZERO, came, &[]));
}

/// A real worker, asleep as it has nothing to do.
#[test]
fn a_worker_that_sleeps_is_woken_and_sends() {
    let wire = "exchange::tests::woken";
    let (_, owners) = Lanes::split(1, 1).unwrap();
    let mut pool = Pool::start(
        PoolConfig {
            cpus: vec![None],
            frames: 256,
            frame_size: 2048,
            jumbo_frames: 0,
            huge_pages: HugePages::Never,
            ring: 64,
            idle: Idle::Sleep,
            slice: crate::workers::DEFAULT_SLICE,
            lanes: 1,
        },
        owners,
    )
    .unwrap();
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let device = Device::Memory {
        wire: wire.to_owned(),
        mac,
    };
    let spec = PortSpec {
        device,
        mtu: 0,
        edge: false,
    };
    let index = PortIndex(0);
    pool.add_port(index, &spec, &[]).unwrap();
    let mut tables = Fib::default();
    tables.generation = 1;
    tables.ports = vec![Some(Port {
        role: PortRole::Underlay,
        mac,
        more_macs: Vec::new(),
        mtu: 1500,
        finishes: false,
        device_mtu: 1500,
        peer: None,
        sources: Arc::default(),
        since: 0,
    })];
    pool.publish(tables);
    let mut exchange = pool.exchange().expect("it was not taken");
    assert!(pool.exchange().is_none());
    let end = End::open(wire, 1).unwrap();
    let (mut queue, mut memory, mut frames) = (end.queue(0), memory(), Vec::new());
    for n in 0..50u8 {
        assert!(exchange.inject(0, Towards::Port(index), &[n; 60]));
        // Nothing else wakes the worker but its own sleep's end, after which it would look as well: that it is at once, no
        // test can say without a clock. That it comes at all, and whole, is told here.
        while queue.receive(&mut memory, &mut frames, 1) == 0 {
            if queue.arm() {
                let fd = queue.wait_fd().expect("it has one");
                poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None).unwrap();
            }
        }
        for frame in frames.drain(..) {
            assert_eq!(frame.data(), [n; 60]);
            memory.free(frame);
        }
    }
    // A port that is not there costs a drop, and nothing else.
    assert!(exchange.inject(0, Towards::Port(PortIndex(9)), &[0; 60]));
    let gone = |pool: &Pool| {
        let drops = pool.drops();
        let found = drops
            .iter()
            .find(|(name, _)| *name == DropReason::PortGone.name());
        found.map_or(0, |(_, count)| *count)
    };
    while gone(&pool) == 0 {
        std::thread::yield_now();
    }
    let sent = pool.stats().ports[0].sent_packets;
    assert_eq!(sent, 50);
    pool.stop();
}
