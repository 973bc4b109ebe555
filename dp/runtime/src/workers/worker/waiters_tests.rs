use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use crossbeam::channel::{self, Receiver};
use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};

use super::super::Command;
use super::*;
use crate::ports::memory::{End, EndQueue};
use crate::workers::exchange::Crossing;
use crate::workers::stats::WorkerCounters;
use crate::workers::{Idle, new_event};
use twinseal_fib::publish::Publisher;
use twinseal_forward::fixture::{EDGE, Node, Path, host_frame_v4, host_mac, mac};

/// A worker without a thread, with one edge port that leads to its own hosts, none of which is known.
struct Bench {
    worker: Worker,
    wire: EndQueue,
    publisher: Publisher,
    tables: Fib,
    requests: Receiver<NeighbourRequest>,
    requested: UnixDatagram,
    _commands: channel::Sender<Command>,
}

impl Bench {
    fn new(name: &str) -> Self {
        let path = Path::new(provider(DEFAULT_PROVIDER).unwrap(), Suite::Aes256Gcm).unwrap();
        let Node {
            state,
            mut tables,
            memory,
            ..
        } = path.b;
        tables.neighbours = Arc::default();
        (tables.generation, port(&mut tables).since) = (1, 1);
        let publisher = Publisher::new(tables.clone());
        let (commands, inbox) = channel::unbounded();
        let (ask, requests) = channel::bounded(8);
        let (tell, requested) = UnixDatagram::pair().unwrap();
        requested.set_nonblocking(true).unwrap();
        let wires = WorkerChannels {
            number: 0,
            commands: inbox,
            event: Arc::new(new_event().unwrap()),
            requests: ask,
            requested: Arc::new(tell),
            cells: Arc::new(WorkerCounters::default()),
            crossing: Crossing::new(0, Arc::new(new_event().unwrap())),
            began: Instant::now(),
        };
        let mut worker = Worker::new(state, memory, publisher.reader(), wires, Idle::Sleep);
        let end = || End::open(&format!("{name}-{}", std::process::id()), 1).unwrap();
        worker.queues.push((EDGE, Box::new(end().queue(0))));
        Self {
            worker,
            wire: end().queue(0),
            publisher,
            tables,
            requests,
            requested,
            _commands: commands,
        }
    }

    /// A host sends a packet to a host.
    fn send(&self) {
        let mut frame = host_frame_v4(100, 7);
        frame[..6].copy_from_slice(&mac(3, EDGE).0);
        assert!(self.wire.send(&frame));
    }

    /// The worker finds other tables, in which the host is known.
    fn publish(&mut self, change: impl FnOnce(&mut Fib)) {
        let host = Awaited::default().neighbour;
        let address = ip::mapped([10, 2, 0, 2].into());
        let known = (
            twinseal_fib::NeighbourKey { address, ..host },
            host_mac(3).into(),
        );
        self.tables.generation += 1;
        self.tables.neighbours = Arc::new([known].into_iter().collect());
        change(&mut self.tables);
        self.publisher.publish(self.tables.clone());
    }

    fn forward(&mut self) {
        self.worker.forward::<false>();
    }

    /// The hardware addresses that frames left to.
    fn left(&self) -> Vec<Mac> {
        let to = |octets: &[u8]| Mac(octets[..6].try_into().unwrap());
        std::iter::from_fn(|| self.wire.receive_one(to)).collect()
    }

    fn gone(&self) -> u64 {
        self.worker.state.drops.get(DropReason::PortGone)
    }
}

fn port(tables: &mut Fib) -> &mut twinseal_fib::Port {
    tables.ports[usize::from(EDGE.0)].as_mut().unwrap()
}

#[test]
fn a_neighbour_is_asked_for_at_once_and_the_frame_leaves_when_it_is_known() {
    let mut bench = Bench::new("at-once");
    bench.send();
    bench.forward();
    // Before the worker keeps house, or sleeps.
    let asked = NeighbourRequest {
        port: EDGE,
        since: 1,
        address: [10, 2, 0, 2].into(),
    };
    assert_eq!(bench.requests.try_iter().collect::<Vec<_>>(), [asked]);
    assert!(bench.requested.recv(&mut [0]).is_ok(), "it is told");
    bench.send();
    bench.forward();
    assert_eq!(bench.requests.len(), 0, "once is enough");
    assert!(bench.left().is_empty());
    bench.publish(|_| ());
    bench.forward();
    assert_eq!(bench.left(), [host_mac(3); 2]);
    assert_eq!(bench.gone(), 0);
}

#[test]
fn what_waits_for_a_port_does_not_leave_by_the_next_of_its_index() {
    // Another VRF's, or another port; closed, or as the tables tell.
    let mut bench = Bench::new("reborn");
    bench.send();
    bench.forward();
    bench.publish(|tables| port(tables).since = 2);
    bench.forward();
    assert_eq!((bench.left(), bench.gone()), (vec![], 1));

    let mut bench = Bench::new("closed");
    bench.send();
    bench.forward();
    let (reply, answer) = channel::bounded(1);
    bench
        .worker
        .handle_command(Command::Close { index: EDGE, reply });
    assert_eq!((answer.try_recv(), bench.gone()), (Ok(()), 1));
    bench.publish(|tables| port(tables).since = 2);
    bench.forward();
    assert_eq!((bench.left(), bench.gone()), (vec![], 1));
}

#[test]
fn what_came_by_a_port_before_it_was_another_vrfs_goes_nowhere() {
    let mut bench = Bench::new("came-before");
    bench.forward();
    bench.send();
    bench.publish(|tables| port(tables).since = 2);
    bench.forward();
    assert_eq!((bench.left(), bench.gone()), (vec![], 1));
    bench.send();
    bench.forward();
    assert_eq!((bench.left(), bench.gone()), (vec![host_mac(3)], 1));
    // Tables that come when it is received already.
    bench.send();
    let Worker {
        queues,
        memory,
        received,
        ..
    } = &mut bench.worker;
    assert_eq!(queues[0].1.receive(memory, received, BATCH), 1);
    bench.publish(|tables| port(tables).since = 3);
    bench.worker.process::<false>(EDGE);
    bench.worker.send::<false>();
    assert_eq!((bench.left(), bench.gone()), (vec![], 2));
    // Tables that change something else concern nobody.
    bench.send();
    bench.publish(|_| ());
    bench.forward();
    assert_eq!((bench.left(), bench.gone()), (vec![host_mac(3)], 2));
}
