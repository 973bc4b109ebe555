//! The way to the node.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use twinseal_api::v1::control_client::ControlClient;

use crate::config::SOCKET_DIR;

pub(super) type Client = ControlClient<Channel>;

/// Connects to the socket that is named, or to the only one there is.
pub(super) async fn connect(socket: Option<PathBuf>) -> anyhow::Result<Client> {
    let socket = match socket.or_else(|| std::env::var_os("TWINSEAL_SOCKET").map(PathBuf::from)) {
        Some(socket) => socket,
        None => only_socket(Path::new(SOCKET_DIR))?,
    };
    let text = socket
        .to_str()
        .context("the socket's path is not UTF-8: give the node another in control.socket")?;
    let channel = Endpoint::from_shared(format!("unix:{text}"))?
        .connect()
        .await
        .map_err(|error| unreachable(&socket, &error))?;
    // A node may have a million routes, and it is the user's own.
    Ok(ControlClient::new(channel).max_decoding_message_size(usize::MAX))
}

fn only_socket(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let mut sockets: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "sock"))
        .collect();
    sockets.sort();
    match sockets.len() {
        0 => bail!(
            "no node's socket is in {}: start a node, or name its socket with --socket",
            folder.display()
        ),
        1 => Ok(sockets.remove(0)),
        _ => {
            let names: Vec<_> = sockets
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            bail!(
                "several nodes have sockets: name one with --socket: {}",
                names.join(", ")
            )
        }
    }
}

fn unreachable(socket: &Path, error: &tonic::transport::Error) -> anyhow::Error {
    let socket = socket.display();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::NotFound => {
                    anyhow!(
                        "there is no socket {socket}: start the node, or name its socket with --socket"
                    )
                }
                io::ErrorKind::ConnectionRefused => {
                    anyhow!("nobody serves {socket}: the node has ended; start it again")
                }
                io::ErrorKind::PermissionDenied => anyhow!(
                    "this user may not open {socket}: run as root, or have the user in the socket's group and in the \
                     node's control.allow_users"
                ),
                _ => anyhow!("cannot connect to {socket}: {error}"),
            };
        }
        cause = error.source();
    }
    anyhow!("cannot connect to {socket}: {error}")
}

/// What a failed call means to the user.
pub(super) fn explain(status: &Status) -> anyhow::Error {
    match status.code() {
        Code::Unavailable | Code::Cancelled => {
            anyhow!("the node went away: {}; see its log", status.message())
        }
        Code::Unimplemented => {
            anyhow!("the node does not know this call: it is of another version than this program")
        }
        // The transport reports a connection that broke in a call so.
        Code::Unknown if status.source().is_some() => {
            anyhow!("the node went away: {}; see its log", status.message())
        }
        _ => anyhow!("{}", status.message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_only_socket_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let error = |dir: &Path| only_socket(dir).unwrap_err().to_string();
        assert!(error(dir.path()).contains("--socket"));
        assert!(error(&dir.path().join("none")).contains("--socket"));
        std::fs::write(dir.path().join("a.sock"), "").unwrap();
        std::fs::write(dir.path().join("a.pid"), "").unwrap();
        assert_eq!(only_socket(dir.path()).unwrap(), dir.path().join("a.sock"));
        std::fs::write(dir.path().join("b.sock"), "").unwrap();
        let several = error(dir.path());
        assert!(
            several.contains("a.sock") && several.contains("b.sock"),
            "{several}"
        );
    }

    #[tokio::test]
    async fn says_why_a_node_cannot_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.sock");
        let error = async || connect(Some(path.clone())).await.unwrap_err().to_string();
        let none = error().await;
        assert!(
            none.contains("there is no socket") && none.contains("n.sock"),
            "{none}"
        );
        // A listener that is closed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let dead = error().await;
        assert!(dead.contains("start it again"), "{dead}");
    }
}
