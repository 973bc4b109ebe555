//! The Unix socket: bound once, its file removed with it, its peers known by their credentials.
//!
//! A peer that is neither in the list of users nor in that of groups is refused before its message is read.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};
use twinseal_api::v1::control_server::ControlServer;

use super::{MAX_MESSAGE, NodeHandle, Service};

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
