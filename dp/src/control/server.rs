//! The gRPC server on a Unix socket.
//!
//! Whoever connects is known by its process credentials. A peer that is neither in the list of users nor in that of
//! groups is refused before its message is read.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Request, Response, Status};
use twinseal_api::v1;
use twinseal_api::v1::control_server::{Control, ControlServer};

use super::health::{event, fault};
use super::node::{NodeHandle, Stopped};
use super::refusal::{Kind, Refused, text};

/// Largest message, in octets: some 700,000 routes.
pub const MAX_MESSAGE: usize = 64 << 20;
/// Refusals travel in HTTP headers, of which clients take 16 KiB: octets of the encoded details, and of the text.
const MAX_DETAILS: usize = 6 << 10;
const MAX_TEXT: usize = 1 << 10;

/// The socket and who may use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketConfig {
    /// Where it is.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Users whose processes may connect.
    pub allowed_uids: Vec<u32>,
    /// Groups whose processes may connect, if it is their primary group.
    pub allowed_gids: Vec<u32>,
}

impl SocketConfig {
    /// Mode 0660, for root and the user of this process.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        // SAFETY: geteuid has no preconditions and cannot fail.
        let own = unsafe { libc::geteuid() };
        let mut allowed_uids = vec![0, own];
        allowed_uids.dedup();
        Self {
            path: path.into(),
            mode: 0o660,
            allowed_uids,
            allowed_gids: Vec::new(),
        }
    }

    fn allows(&self, uid: u32, gid: u32) -> bool {
        self.allowed_uids.contains(&uid) || self.allowed_gids.contains(&gid)
    }
}

/// Why the socket could not be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another daemon answers there.
    #[error("another daemon serves {}: stop it, or give this node another socket", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else stands there.
    #[error("{} is not a socket: remove it, or give the node another socket", .path.display())]
    NotASocket {
        /// What stands there.
        path: PathBuf,
    },
    /// A call failed.
    #[error("control socket {}: cannot {call}: {source}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        call: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The server failed.
    #[error("control server: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// A bound socket; its file goes with it.
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
    config: SocketConfig,
}

/// Removes the file unless somebody has put another in its place.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| file.dev() == self.device && file.ino() == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

impl Socket {
    /// Binds the socket. The file of a daemon that is dead is replaced.
    pub async fn bind(config: SocketConfig) -> Result<Self, SocketError> {
        let path = config.path.as_path();
        let io = |call| {
            move |source| SocketError::Io {
                path: path.to_owned(),
                call,
                source,
            }
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::create_dir_all(folder).map_err(io("make its folder"))?;
        }
        clear(path).await?;
        let listener = UnixListener::bind(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => SocketError::InUse {
                path: path.to_owned(),
            },
            _ => io("bind")(source),
        })?;
        let made = std::fs::symlink_metadata(path).map_err(io("look at it"))?;
        let file = SocketFile {
            path: path.to_owned(),
            device: made.dev(),
            inode: made.ino(),
        };
        // Until here the umask decides who may connect; whoever does is judged by its credentials all the same.
        let mode = std::fs::Permissions::from_mode(config.mode);
        std::fs::set_permissions(path, mode).map_err(io("set the mode"))?;
        Ok(Self {
            listener,
            file,
            config,
        })
    }

    /// Serves until `shutdown`, and then until all that is under way is answered.
    pub async fn serve(
        self,
        node: NodeHandle,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SocketError> {
        let Self {
            listener,
            file,
            config,
        } = self;
        let config = Arc::new(config);
        let service = ControlServer::new(Service { node }).max_decoding_message_size(MAX_MESSAGE);
        let service = InterceptedService::new(service, move |request| admit(&config, request));
        let served = Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
            .await;
        drop(file);
        Ok(served?)
    }
}

/// Binds the socket and serves `node` on it until `shutdown`.
pub async fn serve(
    node: NodeHandle,
    config: SocketConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), SocketError> {
    Socket::bind(config).await?.serve(node, shutdown).await
}

/// Removes the socket of a dead daemon.
async fn clear(path: &Path) -> Result<(), SocketError> {
    let io = |call| {
        move |source| SocketError::Io {
            path: path.to_owned(),
            call,
            source,
        }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at it")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io("remove what a dead daemon left"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io("see whether another daemon serves it")(error)),
        Ok(_) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
    }
}

fn admit(config: &SocketConfig, request: Request<()>) -> Result<Request<()>, Status> {
    let peer = request
        .extensions()
        .get::<UdsConnectInfo>()
        .and_then(|info| info.peer_cred);
    match peer {
        Some(peer) if config.allows(peer.uid(), peer.gid()) => Ok(request),
        Some(peer) => {
            let (uid, gid) = (peer.uid(), peer.gid());
            tracing::warn!(uid, gid, pid = peer.pid(), "a peer was refused");
            Err(Status::permission_denied(format!(
                "user {uid} (group {gid}) may not control this node: add it to control.allow_users or control.allow_groups"
            )))
        }
        None => Err(Status::permission_denied("your process is not known")),
    }
}

struct Service {
    node: NodeHandle,
}

#[tonic::async_trait]
impl Control for Service {
    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let applied = self.node.apply(request.into_inner()).await?;
        let generation = applied.map_err(|refused| status(&refused))?;
        Ok(Response::new(v1::ApplyResponse { generation }))
    }

    async fn get(&self, _: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        Ok(Response::new(self.node.get().await?))
    }

    async fn stats(
        &self,
        _: Request<v1::StatsRequest>,
    ) -> Result<Response<v1::StatsResponse>, Status> {
        Ok(Response::new(self.node.stats().await?))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let events = self.node.subscribe().await?;
        Ok(Response::new(Box::pin(stream(events))))
    }
}

/// The events, and in the place of lost ones their number.
fn stream(
    events: broadcast::Receiver<v1::Event>,
) -> impl Stream<Item = Result<v1::Event, Status>> + Send {
    futures::stream::unfold(events, |mut events| async {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(lost)) => event(fault(
                "events_lost",
                format!("{lost} events were lost: this reader is too slow"),
            )),
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), events))
    })
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

/// A refusal as a status: its message says it to people, its details to programs. Both are cut to what fits.
fn status(refused: &Refused) -> Status {
    let code = match refused.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
    };
    let mut items = Vec::new();
    let mut size = 0;
    for item in refused.items() {
        size += item.encoded_len() + 4;
        if size > MAX_DETAILS {
            break;
        }
        items.push(item.clone());
    }
    let left = refused.items().len() - items.len() + refused.more();
    if left > 0 {
        items.push(v1::RefusedItem {
            change: -1,
            item: "transaction".to_owned(),
            field: String::new(),
            reason: format!("{left} more refusals did not fit"),
            fix: "mend those above first".to_owned(),
        });
    }
    let details = v1::Refusal {
        items: items.clone(),
    };
    let mut message = String::new();
    for item in &items {
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&text(item));
    }
    if message.len() > MAX_TEXT {
        message.truncate(message.floor_char_boundary(MAX_TEXT));
        message.push_str("... and more");
    }
    Status::with_details(code, message, details.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use twinseal_api::v1::event::Event as EventKind;

    use super::super::health::Events;
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_is_told_how_much_it_lost() {
        let events = Events::default();
        let mut stream = std::pin::pin!(stream(events.subscribe()));
        for n in 0..5000 {
            events.emit(fault("test", n.to_string()));
        }
        drop(events);
        let mut received = Vec::new();
        while let Some(event) = stream.next().await {
            let Some(EventKind::Fault(fault)) = event.expect("no error").event else {
                panic!("only faults were sent");
            };
            received.push((fault.kind, fault.detail));
        }
        let (kind, detail) = &received[0];
        assert_eq!(kind, "events_lost");
        assert!(
            detail.starts_with(&format!("{} events", 5000 - (received.len() - 1))),
            "{detail}"
        );
        assert_eq!(
            received.last(),
            Some(&("test".to_owned(), "4999".to_owned()))
        );
    }

    #[test]
    fn statuses_fit_a_header() {
        let long = "x".repeat(3000);
        let mut refused = Refused::default();
        for change in 0..2000 {
            let item = v1::RefusedItem {
                change,
                item: format!("route {long}"),
                ..Default::default()
            };
            refused.push(Kind::Precondition, item);
        }
        let status = status(&refused);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.details().len() < MAX_DETAILS + 200);
        let refusal = v1::Refusal::decode(status.details()).expect("a refusal");
        assert_eq!((refusal.items.len(), refusal.items[2].change), (3, -1));
        assert!(
            refusal.items[2].reason.starts_with("1998 more"),
            "{refusal:?}"
        );
        assert!(
            status.message().len() < MAX_TEXT + 100,
            "{}",
            status.message().len()
        );
    }
}
