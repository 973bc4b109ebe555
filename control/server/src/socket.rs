//! The Unix socket, bound once, its file removed with it; and the TCP port for TLS, if there is one.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use tokio::net::{TcpListener, UnixStream};
use tonic::server::NamedService;
use tonic::transport::Server;
use twinseal_api::v1::control_server::ControlServer;

use crate::bound::Bound;
use crate::service::Service;
use twinseal_access::Access;
use twinseal_access::guard::Guard;
use twinseal_access::listen::Incoming;
use twinseal_node::audit::Audit;
use twinseal_node::handle::NodeHandle;
use twinseal_node::jsonl::Reopen;

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
pub(crate) struct Socket {
    bound: Bound,
    tcp: Option<TcpListener>,
    config: SocketConfig,
}

impl Socket {
    /// Binds the socket. The file of a daemon that is dead is replaced, and one that somebody removes is made again when
    /// files are to be opened anew.
    pub(crate) async fn bind(config: SocketConfig, reopen: Reopen) -> Result<Self, SocketError> {
        let bound = Bound::bind(&config.path, config.mode, reopen).await?;
        let tcp = match config.access.config().tls {
            Some(tls) => Some(listen(tls.listen).await?),
            None => None,
        };
        Ok(Self { bound, tcp, config })
    }

    /// Serves until `shutdown`, and then until all that is under way is answered.
    pub(crate) async fn serve(
        self,
        node: NodeHandle,
        audit: Audit,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SocketError> {
        let Self {
            mut bound,
            tcp,
            config,
        } = self;
        let file = bound.tell(node.clone());
        let access = config.access;
        let limits = access.limits();
        let service = ControlServer::new(Service::new(node, access.clone(), audit))
            .max_decoding_message_size(limits.message_bytes);
        let unsound =
            |error: tonic_reflection::server::Error| SocketError::Reflection(error.to_string());
        let new_reflection = reflection().build_v1().map_err(unsound)?;
        let old_reflection = reflection().build_v1alpha().map_err(unsound)?;
        let (mut health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<ControlServer<Service>>().await;
        let shutdown = async move {
            shutdown.await;
            // Whoever watches is told, and its stream ends: it would hold up the server's end.
            health.set_not_serving::<ControlServer<Service>>().await;
            for name in [ControlServer::<Service>::NAME, ""] {
                health.clear_service_status(name).await;
            }
        };
        let incoming = Incoming::start(&access, bound, tcp);
        let served = Server::builder()
            // More than the guard lets pass: whoever asks for too much is told, and does not wait.
            .max_concurrent_streams(limits.streams.saturating_add(16))
            .http2_keepalive_interval(Some(limits.idle / 3))
            .http2_keepalive_timeout(Some(limits.idle / 3))
            .add_service(Guard::new(service, access.clone()))
            .add_service(Guard::new(new_reflection, access.clone()))
            .add_service(Guard::new(old_reflection, access.clone()))
            .add_service(Guard::new(health_service, access))
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await;
        file.lock().unwrap_or_else(PoisonError::into_inner).remove();
        Ok(served?)
    }
}

/// Of all that this server has, and of what its errors have in their details.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(twinseal_api::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(twinseal_api::errors::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, SocketError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| SocketError::Listen { address, source })
}

/// Removes the socket of a dead daemon.
pub(super) async fn clear(path: &Path) -> Result<(), SocketError> {
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
