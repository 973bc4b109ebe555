//! Ping: echo requests to the other end of a link or circuit.
//!
//! A thread of its own has the node's end of the workers' [exchange](twinseal_runtime::workers::exchange): it gives workers the
//! requests as they become due, and takes the replies that they have left. The far end's worker answers; times are taken by the
//! workers, so neither this thread nor the control thread is in them.

mod sessions;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use twinseal_api::v1::{self, ping_request::Target};

use crate::node::Node;
use crate::taps::Bound;
pub use sessions::Pinged;
use sessions::{ALL, CLIENT, Full, Sessions, Wanted};
use twinseal_forward::punt::Towards;
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::{CircuitName, LinkName};
use twinseal_runtime::workers::exchange::{Exchange, Waker};

/// Requests of a session; what is asked beyond is held to this, as with taps.
const COUNT: Bound = Bound {
    least: 1,
    most: 1000,
    usual: 5,
};
/// Milliseconds between them: an end answers a hundred a second of each link and circuit.
const INTERVAL: Bound = Bound {
    least: 20,
    most: 60_000,
    usual: 1000,
};
/// Milliseconds that each is waited for.
const TIMEOUT: Bound = Bound {
    least: 1,
    most: 10_000,
    usual: 1000,
};
/// How long the thread waits when there is nothing to do.
const IDLE: Duration = Duration::from_secs(3600);

/// A session that has begun.
pub struct Pinging {
    /// What it is held to.
    pub limits: v1::PingLimits,
    /// What becomes of each request; it ends with the last.
    pub results: Receiver<Pinged>,
}

/// The sessions and their thread.
pub(super) struct Pings {
    shared: Arc<Shared>,
    waker: Waker,
    /// The workers' clock's zero.
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    sessions: Mutex<Sessions>,
    stop: AtomicBool,
}

impl Shared {
    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // Nothing that holds it can leave it half changed.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pings {
    /// Starts the thread. `None`, with a line in the log, if it cannot be started; pings are refused then.
    pub(super) fn start(exchange: Exchange) -> Option<Self> {
        let shared = Arc::<Shared>::default();
        let began = Instant::now().checked_sub(exchange.now())?;
        let waker = exchange.waker();
        let thread = std::thread::Builder::new().name("pings".to_owned());
        let thread = thread.spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared, exchange)
        });
        match thread {
            Ok(thread) => Some(Self {
                shared,
                waker,
                began,
                thread: Some(thread),
            }),
            Err(error) => {
                tracing::error!(%error, "the thread of pings can't be started: Ping is refused");
                None
            }
        }
    }

    fn begin(&self, client: &str, wanted: Wanted) -> Result<Receiver<Pinged>, Full> {
        let now = self.began.elapsed();
        let results = self.shared.sessions().begin(client, wanted, now)?;
        self.waker.wake();
        Ok(results)
    }
}

impl Drop for Pings {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of pings panicked");
        }
    }
}

fn run(shared: &Shared, mut exchange: Exchange) {
    let workers = exchange.workers();
    while !shared.stop.load(Relaxed) {
        let now = exchange.now();
        let next = {
            let mut sessions = shared.sessions();
            exchange.take(|_, punted| sessions.heard(punted));
            sessions.tend(now, workers, &mut |worker, towards, message| {
                exchange.inject(worker, towards, message)
            })
        };
        let wait = next.map_or(IDLE, |next| next.saturating_sub(exchange.now()));
        exchange.wait(wait.min(IDLE));
    }
    // Whoever waits for results sees the end.
    *shared.sessions() = Sessions::default();
}

impl Node {
    /// Begins to ask the other end of a link or circuit for echoes.
    pub(super) fn ping(
        &mut self,
        request: &v1::PingRequest,
        client: &str,
    ) -> Result<Pinging, Refused> {
        let towards = self.pinged(request)?;
        let limits = v1::PingLimits {
            count: COUNT.hold(request.count),
            interval_ms: INTERVAL.hold(request.interval_ms),
            timeout_ms: TIMEOUT.hold(request.timeout_ms),
        };
        let wanted = Wanted {
            towards,
            count: limits.count,
            interval: Duration::from_millis(limits.interval_ms.into()),
            timeout: Duration::from_millis(limits.timeout_ms.into()),
        };
        let about = |why: String, fix| Refused::about("ping", Code::NoRoom, "", why, fix);
        let Some(pings) = &self.pings else {
            let why = "the thread of pings could not be started".to_owned();
            return Err(about(why, "see the program's log, and restart the node"));
        };
        let fix = "end one of them, or wait until it is over";
        let results = pings.begin(client, wanted).map_err(|full| match full {
            Full::Client => about(format!("{CLIENT} pings of this client are under way"), fix),
            Full::All => about(format!("{ALL} pings are under way"), fix),
        })?;
        Ok(Pinging { limits, results })
    }

    fn pinged(&self, request: &v1::PingRequest) -> Result<Towards, Refused> {
        let (kind, name, found) = match &request.target {
            Some(Target::Link(name)) => {
                let link = LinkName::new(name).and_then(|name| self.compiler.link_index(&name));
                ("link", name, link.map(Towards::Link))
            }
            Some(Target::Circuit(name)) => {
                let circuit = CircuitName::new(name);
                let circuit = circuit.and_then(|name| self.compiler.circuit_index(&name));
                ("circuit", name, circuit.map(Towards::Circuit))
            }
            None => {
                let why = "it names neither a link nor a circuit".to_owned();
                let fix = "give one of the two";
                return Err(Refused::about("ping", Code::Invalid, "target", why, fix));
            }
        };
        found.ok_or_else(|| crate::taps::missing("ping", kind, kind, name))
    }
}
