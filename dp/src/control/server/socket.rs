//! The Unix socket, bound once, its file removed with it; and the TCP port for TLS, if there is one.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener, UnixStream};
use tonic::transport::Server;
use twinseal_api::v1::control_server::ControlServer;

use super::{NodeHandle, Service};
use crate::control::access::Access;
use crate::control::access::guard::Guard;
use crate::control::access::listen::Incoming;
use crate::control::audit::Audit;

/// The socket and who may use it.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Where it is.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Who may do what on it, and over TLS.
    pub access: Access,
}

impl SocketConfig {
    /// Mode 0660, for root and the user of this process.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            mode: 0o660,
            access: Access::admins([0, rustix::process::geteuid().as_raw()]),
        }
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
    /// The TCP port.
    #[error("control.tls.listen: cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The description of the API is unsound: a fault of this program.
    #[error("reflection: {0}")]
    Reflection(String),
    /// The server failed.
    #[error("control server: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// A bound socket; its file goes with it.
pub struct Socket {
    listener: UnixListener,
    tcp: Option<TcpListener>,
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
        let tcp = match config.access.config().tls {
            Some(tls) => Some(listen(tls.listen).await?),
            None => None,
        };
        Ok(Self {
            listener,
            tcp,
            file,
            config,
        })
    }

    /// Serves until `shutdown`, and then until all that is under way is answered.
    pub async fn serve(
        self,
        node: NodeHandle,
        audit: Audit,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SocketError> {
        let Self {
            listener,
            tcp,
            file,
            config,
        } = self;
        let access = config.access;
        let limits = access.limits();
        let service = ControlServer::new(Service::new(node, audit))
            .max_decoding_message_size(limits.message_bytes);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(twinseal_api::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| SocketError::Reflection(error.to_string()))?;
        let incoming = Incoming::start(&access, listener, tcp);
        let served = Server::builder()
            // More than the guard lets pass: whoever asks for too much is told, and does not wait.
            .max_concurrent_streams(limits.streams.saturating_add(16))
            .http2_keepalive_interval(Some(limits.idle / 3))
            .http2_keepalive_timeout(Some(limits.idle / 3))
            .add_service(Guard::new(service, access.clone()))
            .add_service(Guard::new(reflection, access))
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await;
        drop(file);
        Ok(served?)
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, SocketError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| SocketError::Listen { address, source })
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
