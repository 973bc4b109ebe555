//! Takes connections: over the Unix socket, and over TCP with TLS.
//!
//! Handshakes, TLS clients and clients of the socket have places of their own, each client a share of them, and admins
//! always get in. Somebody whom no rule knows, or who has its share already, has one of a few for a moment, so that they
//! can be told why they are turned away and no more. A handshake has a time to be done in, and a connection that is
//! silent for too long ends.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::displaced::{Lines, Sent};
use super::places::{Full, Place, Places};
use super::scrub::{Frames, Scrub};
use super::tls::{self, Trust};
use super::why::{self, Few};
use super::{Access, Peer, Role};
use twinseal_base::text::sentence;

/// Where clients of the Unix socket come from.
pub trait Listen: Send + 'static {
    /// The next of them.
    fn accept(&mut self) -> impl Future<Output = io::Result<UnixStream>> + Send;
}

/// Places for admins, besides those of all, on the socket and as many over TLS.
const ADMINS: usize = 8;
/// Handshakes at a time, if the process may have enough files open, and those of one address. They are many, since one that is
/// displaced before it is done may be an admin's.
const HANDSHAKES: usize = 512;
const HANDSHAKES_OF_ONE: usize = 8;
/// Places for those who are only told why they are turned away, of one of them, and for how long.
const TURNED_AWAY: usize = 16;
const TURNED_AWAY_OF_ONE: usize = 2;
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long a client that was refused may take to hear of it.
const PARTING: Duration = Duration::from_secs(1);
/// After a failure to accept, such as too many open files.
const BREATH: Duration = Duration::from_millis(100);

/// A connection that is served.
pub struct Conn {
    io: Io,
    visitor: Visitor,
    /// How long it may be silent; none: it has a moment, whatever is heard.
    idle: Option<Duration>,
    /// When that is over.
    silent: Pin<Box<Sleep>>,
    place: Place,
    frames: Frames,
    sent: Sent,
}

/// Who is on a connection.
#[derive(Clone)]
pub struct Visitor {
    pub(crate) peer: Arc<Peer>,
    /// What it is told in place of an answer.
    pub turned_away: Option<Arc<str>>,
    pub(crate) scrub: Arc<Scrub>,
}

enum Io {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// All connections, as long as this lives.
pub struct Incoming {
    connections: ReceiverStream<io::Result<Conn>>,
    /// Dropped with it, which ends them.
    _listeners: JoinSet<()>,
}

struct Door {
    access: Access,
    unix: Arc<Places>,
    tls: Arc<Places>,
    handshakes: Arc<Places>,
    turned_away: Arc<Places>,
    connections: mpsc::Sender<io::Result<Conn>>,
    logged: Mutex<Few>,
    displaced: Mutex<Lines>,
}

impl Incoming {
    /// Begins to take connections.
    pub fn start(access: &Access, unix: impl Listen, tcp: Option<TcpListener>) -> Self {
        let (connections, taken) = mpsc::channel(1);
        let limits = access.limits();
        let (share, room) = (limits.client_connections, limits.connections);
        let places = || Places::new(share as usize, room as usize, ADMINS);
        let door = Arc::new(Door {
            access: access.clone(),
            unix: places(),
            tls: places(),
            handshakes: Places::new(HANDSHAKES_OF_ONE, handshakes(), 0),
            turned_away: Places::new(TURNED_AWAY_OF_ONE, TURNED_AWAY, 0),
            connections,
            logged: Mutex::default(),
            displaced: Mutex::default(),
        });
        let mut listeners = JoinSet::new();
        listeners.spawn(accept_unix(Arc::clone(&door), unix));
        if let Some(tcp) = tcp {
            listeners.spawn(accept_tls(door, tcp));
        }
        Self {
            connections: ReceiverStream::new(taken),
            _listeners: listeners,
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.connections).poll_next(cx)
    }
}

/// A quarter of the files that the process may have open, so that handshakes never take those of others.
fn handshakes() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let quarter = limit.current.unwrap_or(u64::MAX) / 4;
    HANDSHAKES.min(usize::try_from(quarter).unwrap_or(HANDSHAKES))
}

async fn accept_unix(door: Arc<Door>, mut bound: impl Listen) {
    let mut logged = Lines::default();
    loop {
        let stream = match bound.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                troubled(&mut logged, "the control socket", &error);
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::debug!(%error, "a client went before it was looked at");
                continue;
            }
        };
        if !door.enter(Io::Unix(stream), peer).await {
            return;
        }
    }
}

async fn accept_tls(door: Arc<Door>, listener: TcpListener) {
    let mut handshakes = JoinSet::new();
    let mut logged = Lines::default();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    troubled(&mut logged, "the TLS listener", &error);
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
            Some(_) = handshakes.join_next() => continue,
        };
        // Before it nobody is known. One that is done in time is not the one that has been silent longest.
        let from = network(address.ip());
        let Ok((mut place, displaced)) = door.handshakes.take(&from, true) else {
            continue;
        };
        if let Some(of) = displaced {
            door.crowded(&of, of == from);
        }
        let door = Arc::clone(&door);
        handshakes.spawn(async move {
            let shaken = tokio::select! {
                shaken = door.handshake(stream, address) => shaken,
                () = place.displaced() => return,
            };
            drop(place);
            match shaken {
                Ok((stream, peer)) => {
                    door.enter(Io::Tls(Box::new(stream)), peer).await;
                }
                Err(error) => door.refused_tls(address, &error),
            }
        });
    }
}

/// Says that nobody can come in, once a minute: it is tried again all the time.
fn troubled(logged: &mut Lines, listener: &str, error: &io::Error) {
    if logged.note(Instant::now().into_std(), listener).is_some() {
        tracing::warn!(%error, "{listener} takes no connection");
    }
}

/// Whom an address stands for: who has an IPv6 address has its /64.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let network = Ipv6Addr::from_bits(address.to_bits() >> 64 << 64);
            format!("{network}/64")
        }
    }
}

impl Door {
    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let rules = self.access.rules();
        let identity = rules.tls.as_ref();
        let identity = identity.ok_or_else(|| io::Error::other("TLS was switched off"))?;
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(Arc::clone(&identity.server));
        let patience = rules.config.limits.handshake;
        let accepted = acceptor.accept(stream).into_fallible();
        let accepted = tokio::time::timeout(patience, async {
            match accepted.await {
                Ok(stream) => Ok(stream),
                Err((error, stream)) => {
                    part(stream).await;
                    Err(error)
                }
            }
        });
        let stream = accepted.await??;
        let (_, session) = stream.get_ref();
        let chain: Vec<_> = session
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        let peer = Peer::Tls {
            address,
            names: chain.first().map_or_else(Vec::new, tls::names),
            trust: Trust::new(chain),
        };
        Ok((stream, peer))
    }

    /// Counts a client that was refused, and says why.
    fn refused_tls(&self, address: SocketAddr, error: &io::Error) {
        let why = why::handshake(error);
        let why = sentence(&why);
        self.log(&address, &why);
        let who = format!("a TLS client at {}: {why}", address.ip());
        self.refused("tls_refused", who);
    }

    /// The same of a handshake that ended for a younger one, of its own address or of others: an admin who comes from where
    /// an attacker does is to learn that from here.
    fn crowded(&self, address: &str, own: bool) {
        let why = match own {
            true => {
                format!("all {HANDSHAKES_OF_ONE} places of its address for handshakes were taken")
            }
            false => "all places for handshakes were taken, most by its address".to_owned(),
        };
        self.log(&address, &why);
        let who = format!("a TLS client at {address}: {why}");
        self.refused("too_many_handshakes", who);
    }

    fn log(&self, address: &dyn std::fmt::Display, why: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.admit() {
            tracing::info!(%address, %why, "a TLS client was refused");
        }
    }

    /// Has a connection served; `false` once nobody serves any more.
    async fn enter(&self, io: Io, peer: Peer) -> bool {
        let client = peer.identity();
        let places = match io {
            Io::Unix(_) => &self.unix,
            Io::Tls(_) => &self.tls,
        };
        let role = self.access.role(&peer);
        let taken = role.map(|role| places.take(&client, role == Role::Admin));
        let mut turned_away = None;
        let (place, idle) = match taken {
            Some(Ok((place, displaced))) => {
                if let Some(of) = displaced {
                    self.displaced(of);
                }
                (place, Some(self.access.limits().idle))
            }
            // Whoever has no role is told so by the guard.
            without => {
                if let Some(Err(full)) = without {
                    self.refused("too_many_connections", client.clone());
                    turned_away = Some(full.text(&client).into());
                }
                // Who came last is told.
                let Ok((place, _)) = self.turned_away.take(&client, true) else {
                    return true;
                };
                (place, None)
            }
        };
        let connection = Conn {
            io,
            visitor: Visitor {
                peer: Arc::new(peer),
                turned_away,
                scrub: Arc::default(),
            },
            frames: Frames::default(),
            sent: Sent::default(),
            idle,
            silent: Box::pin(tokio::time::sleep(idle.unwrap_or(LAST_WORDS))),
            place,
        };
        self.connections.send(Ok(connection)).await.is_ok()
    }

    /// A connection of this client ended for an admin's.
    fn displaced(&self, of: String) {
        let mut lines = self
            .displaced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match lines.note(std::time::Instant::now(), &of) {
            Some(1) => tracing::warn!(
                "{of} lost the connection that was silent longest, as an admin needed the place: use one for many requests, \
                 or raise control.limits.client_connections"
            ),
            Some(count) => tracing::warn!(
                "{of} lost {count} connections since this was logged last, as an admin needed their places"
            ),
            None => {}
        }
        self.refused("connection_displaced", of);
    }

    fn refused(&self, reason: &'static str, who: String) {
        self.access.0.clients.refused(reason, who);
    }
}

impl Full {
    fn text(self, client: &str) -> String {
        match self {
            Self::Share(share) => format!(
                "{client} has {share} connections open: use one for many requests, close some, or raise control.limits.client_connections"
            ),
            Self::Room(room) => format!(
                "all {room} places for connections are taken: try again, have other clients close some, or raise control.limits.connections; admins always get in"
            ),
        }
    }
}

/// Ends a connection so that the client hears why: what it has sent already is read first, for a socket that is closed with
/// unread bytes tells its peer of nothing but a reset.
async fn part(mut stream: TcpStream) {
    let mut waste = [0; 1024];
    let _ = stream.shutdown().await;
    let read = async {
        for _ in 0..64 {
            if !matches!(stream.read(&mut waste).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PARTING, read).await;
}

impl Connected for Conn {
    type ConnectInfo = Visitor;

    fn connect_info(&self) -> Visitor {
        self.visitor.clone()
    }
}

impl Conn {
    fn alive(&mut self) {
        self.place.heard();
        if let Some(idle) = self.idle {
            self.silent.as_mut().reset(Instant::now() + idle);
        }
    }

    /// Whether it has been silent for too long.
    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let silent = self.silent.as_mut().poll(cx);
        silent.map(|()| io::ErrorKind::TimedOut.into())
    }

    /// Tells the client that its place is needed, if there is room for that now: nobody waits for it.
    fn say_why(&mut self, cx: &mut Context<'_>) {
        let Some(frame) = self.sent.last() else {
            return;
        };
        // It ends whatever comes of this.
        let _ = match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_write(cx, &frame),
            Io::Tls(io) => Pin::new(io).poll_write(cx, &frame),
        };
        let _ = match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        };
    }

    /// Whether it ends however much is read and written: somebody else has its place, or its moment is over.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.place.poll_displaced(cx).is_ready() {
            self.say_why(cx);
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        match self.idle {
            Some(_) => Poll::Pending,
            None => self.poll_silent(cx),
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(over) = self.poll_over(cx) {
            return Poll::Ready(Err(over));
        }
        let conn = &mut *self;
        if conn.frames.pad(&conn.visitor.scrub, cx, buffer) {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = match &mut conn.io {
            Io::Unix(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        };
        match read {
            Poll::Ready(read) => {
                conn.frames.pass(&buffer.filled()[before..]);
                self.alive();
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_silent(cx).map(Err),
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(over) = self.poll_over(cx) {
            return Poll::Ready(Err(over));
        }
        let written = match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_write(cx, octets),
            Io::Tls(io) => Pin::new(io).poll_write(cx, octets),
        };
        match written {
            // A client that takes nothing is silent too.
            Poll::Pending => self.poll_silent(cx).map(Err),
            Poll::Ready(Ok(written)) => {
                self.sent.pass(octets.get(..written).unwrap_or_default());
                Poll::Ready(Ok(written))
            }
            failed => failed,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(over) = self.poll_over(cx) {
            return Poll::Ready(Err(over));
        }
        let written = match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_write_vectored(cx, octets),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, octets),
        };
        match written {
            // A client that takes nothing is silent too.
            Poll::Pending => self.poll_silent(cx).map(Err),
            Poll::Ready(Ok(written)) => {
                let mut left = written;
                for part in octets {
                    let here = part.len().min(left);
                    self.sent.pass(&part[..here]);
                    left -= here;
                }
                Poll::Ready(Ok(written))
            }
            failed => failed,
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Unix(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }
}
