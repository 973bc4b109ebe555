//! The bare forwarder: frames in at one device, out at the other with other hardware addresses, and nothing else.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twinseal_ebpf::{Role, Steering, XdpMode};
use twinseal_forward::fixture::{EAST, WEST, mac};
use twinseal_lab::Namespace;
use twinseal_wire::ethernet::Mac;
use twinseal_xsk::{BindMode, Frame, Socket, SocketConfig, Umem, UmemConfig};

use super::Error;
use super::load::{NODE_THREAD, pin};

/// As a daemon has by default.
const FRAMES: u32 = 16384;
const RING: u32 = 2048;
/// Frames that are taken at a time.
const BATCH: usize = 64;
/// The core of the node.
pub(super) const CPU: usize = 1;

/// How the forwarder passes the time without frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Idle {
    /// It looks again and again.
    Spin,
    /// It sleeps in poll(2).
    Sleep,
}

/// A forwarder in a thread of its own.
pub(super) struct Bare {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Bare {
    pub(super) fn start(
        node: &Namespace,
        west: &'static str,
        east: &'static str,
        mode: XdpMode,
    ) -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let (node, stopped) = (node.clone(), Arc::clone(&stop));
        let (ready, opened) = std::sync::mpsc::channel();
        let named = std::thread::Builder::new().name(NODE_THREAD.into());
        let thread = named.spawn(move || {
            let _inside = node.enter()?;
            pin(CPU)?;
            let mut forwarder = Forwarder::open(west, east, mode, BindMode::Copy)?;
            forwarder.rewrite = Some([
                addresses(mac(1, WEST), mac(2, WEST)),
                addresses(mac(3, WEST), mac(2, EAST)),
            ]);
            let _ = ready.send(());
            forwarder.run(Idle::Sleep, &stopped)?;
            forwarder.close();
            Ok(())
        });
        let thread = thread.map_err(|source| Error::System {
            doing: "starting the forwarder's thread",
            source,
        })?;
        // An error means that it ended, and `stop` tells why.
        let failed = opened.recv().is_err();
        let bare = Self { stop, thread };
        if failed {
            bare.stop()?;
            return Err(Error::Panicked);
        }
        Ok(bare)
    }

    pub(super) fn drops(&self) -> String {
        "no drops are counted".into()
    }

    pub(super) fn stop(self) -> Result<(), Error> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| Error::Panicked)?
    }
}

/// The forwarder itself.
pub struct Forwarder {
    // The programs go first: no frame is steered at a socket that is not there.
    programs: Vec<Steering>,
    memory: Umem,
    sockets: [Socket; 2],
    frames: Vec<Frame>,
    /// Destination and source of what each socket sends; if none, frames stay as they are, as on a wire.
    rewrite: Option<[[u8; 12]; 2]>,
}

impl Forwarder {
    /// Takes over two devices of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Steering`].
    pub fn open(west: &str, east: &str, mode: XdpMode, bind: BindMode) -> Result<Self, Error> {
        let mut memory = Umem::new(&UmemConfig {
            frame_count: FRAMES,
            ..UmemConfig::default()
        })?;
        let config = SocketConfig {
            bind,
            rx_size: RING,
            tx_size: RING,
            fill_size: RING,
            completion_size: RING,
            ..SocketConfig::default()
        };
        let mut programs = Vec::new();
        let mut open = |name: &str| {
            let mut socket = Socket::open(&memory, name, 0, &config)?;
            socket.fill(&mut memory, RING as usize);
            // A bridge takes all frames but those to its own address, which nobody here sends to.
            let mut program = Steering::attach(name, Role::Bridge { mac: [0x06; 6] }, mode)?;
            program.register(0, socket.as_fd())?;
            programs.push(program);
            Ok::<_, Error>(socket)
        };
        let sockets = [open(west)?, open(east)?];
        Ok(Self {
            programs,
            memory,
            sockets,
            frames: Vec::with_capacity(BATCH),
            rewrite: None,
        })
    }

    /// Forwards until `stop`.
    ///
    /// # Errors
    /// [`Error::Socket`] if a device is gone.
    pub fn run(&mut self, idle: Idle, stop: &AtomicBool) -> Result<(), Error> {
        let mut empty = 0;
        while !stop.load(Relaxed) {
            let any = self.turn(0, 1)? + self.turn(1, 0)?;
            empty = if any > 0 { 0 } else { empty + 1 };
            if idle == Idle::Sleep && empty >= 64 {
                self.sleep();
                empty = 0;
            }
        }
        Ok(())
    }

    fn turn(&mut self, from: usize, to: usize) -> Result<usize, Error> {
        let Self {
            memory,
            sockets,
            frames,
            rewrite,
            ..
        } = self;
        let received = sockets[from].receive(memory, BATCH, |frame| frames.push(frame));
        if received == 0 {
            return Ok(0);
        }
        if let Some(rewrite) = rewrite {
            for frame in frames.iter_mut() {
                if let Some((addresses, _)) = frame.data_mut().split_first_chunk_mut() {
                    *addresses = rewrite[to];
                }
            }
        }
        sockets[to].transmit(frames);
        sockets[to].wake_tx()?;
        sockets[to].complete(memory);
        frames.drain(..).for_each(|frame| memory.free(frame));
        sockets[from].fill(memory, usize::MAX);
        sockets[from].wake_rx()?;
        Ok(received)
    }

    fn sleep(&self) {
        let limit = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut fds = self
            .sockets
            .each_ref()
            .map(|socket| PollFd::from_borrowed_fd(socket.fd(), PollFlags::IN));
        // Interrupted or not, the loop looks again.
        let _ = poll(&mut fds, Some(&limit));
    }

    /// Gives the devices back.
    pub fn close(self) {
        drop(self.programs);
        let mut memory = self.memory;
        for socket in self.sockets {
            socket.close(&mut memory);
        }
    }
}

/// The head of an Ethernet header.
fn addresses(destination: Mac, source: Mac) -> [u8; 12] {
    let mut addresses = [0; 12];
    addresses[..6].copy_from_slice(&destination.0);
    addresses[6..].copy_from_slice(&source.0);
    addresses
}
