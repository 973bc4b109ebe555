//! Takes connections: over the Unix socket, and over TCP with TLS.
//!
//! A connection has a place among those that the node serves at a time; somebody whom no rule knows has one of a few, so
//! that they can be told why they are refused and no more. A handshake has a time to be done in, and a connection that
//! is silent for too long ends.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::tls::{self, Trust};
use super::why::{self, Few};
use super::{Access, Peer};
use crate::control::server::Bound;

/// Places for peers whom no rule knows.
const STRANGERS: usize = 8;
/// How long a client that was refused may take to hear of it.
const PARTING: Duration = Duration::from_secs(1);
/// After a failure to accept, such as too many open files.
const BREATH: Duration = Duration::from_millis(100);

/// A connection that is served.
pub struct Conn {
    io: Io,
    peer: Arc<Peer>,
    idle: Duration,
    /// When it has been silent for too long.
    silent: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
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
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    connections: mpsc::Sender<io::Result<Conn>>,
    logged: Mutex<Few>,
}

impl Incoming {
    /// Begins to take connections.
    pub(in crate::control) fn start(
        access: &Access,
        unix: Bound,
        tcp: Option<TcpListener>,
    ) -> Self {
        let (connections, taken) = mpsc::channel(1);
        let places = access.limits().connections;
        let door = Arc::new(Door {
            access: access.clone(),
            places: Arc::new(Semaphore::new(places as usize)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            connections,
            logged: Mutex::default(),
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

async fn accept_unix(door: Arc<Door>, mut bound: Bound) {
    loop {
        let stream = match bound.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket takes no connection");
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
        let places = match door.access.role(&peer) {
            Some(_) => &door.places,
            None => &door.strangers,
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            door.full(&peer.identity());
            continue;
        };
        if !door.enter(Io::Unix(stream), peer, place).await {
            return;
        }
    }
}

async fn accept_tls(door: Arc<Door>, listener: TcpListener) {
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the TLS listener takes no connection");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
            Some(_) = handshakes.join_next() => continue,
        };
        // Before the handshake nobody is known: it costs us more than them, so it has a place already.
        let Ok(place) = Arc::clone(&door.places).try_acquire_owned() else {
            door.full("TLS clients");
            continue;
        };
        let door = Arc::clone(&door);
        handshakes.spawn(async move {
            match door.handshake(stream, address).await {
                Ok((stream, peer)) => {
                    door.enter(Io::Tls(Box::new(stream)), peer, place).await;
                }
                Err(error) => door.refused(address, &error),
            }
        });
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
    fn refused(&self, address: SocketAddr, error: &io::Error) {
        let why = why::handshake(error);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.admit() {
            tracing::info!(%address, why, "a TLS client was refused");
        }
        let who = format!("a TLS client at {}: {why}", address.ip());
        self.access.0.clients.refused("tls_refused", who);
    }

    /// Has a connection served; `false` once nobody serves any more.
    async fn enter(&self, io: Io, peer: Peer, place: OwnedSemaphorePermit) -> bool {
        let idle = self.access.limits().idle;
        let connection = Conn {
            io,
            peer: Arc::new(peer),
            idle,
            silent: Box::pin(tokio::time::sleep(idle)),
            _place: place,
        };
        self.connections.send(Ok(connection)).await.is_ok()
    }

    fn full(&self, who: &str) {
        let clients = &self.access.0.clients;
        clients.refused("too_many_connections", who.to_owned());
    }
}

/// Ends a connection so that the client hears why: what it has sent already is read first, for a socket that is closed with
/// unread octets tells its peer of nothing but a reset.
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
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl Conn {
    fn alive(&mut self) {
        let silent = Instant::now() + self.idle;
        self.silent.as_mut().reset(silent);
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        };
        match read {
            Poll::Ready(read) => {
                self.alive();
                Poll::Ready(read)
            }
            Poll::Pending => match self.silent.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_write(cx, octets),
            Io::Tls(io) => Pin::new(io).poll_write(cx, octets),
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
        match &mut self.io {
            Io::Unix(io) => Pin::new(io).poll_write_vectored(cx, octets),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, octets),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Unix(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }
}
