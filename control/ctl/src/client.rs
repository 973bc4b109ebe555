//! The way to the node.

use std::error::Error;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tonic::{Code, Status};
pub use twinseal_api::client::Client;
use twinseal_api::client::{Address, Error as CallError, Tls, untrusted};

use twinseal_base::text::word;
use twinseal_base::{SOCKET_DIR, private};

/// How long a call goes on trying to reach a node that went away: a planned restart takes one second on a busy machine, and
/// a user waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The heading of options that say where the node is.
const REACH: &str = "Reaching the node";

/// How to reach a node.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Target {
    /// The node's control socket. Else TWINSEAL_SOCKET says; else the only one in /run/twinseal.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "tls", help_heading = REACH)]
    pub(super) socket: Option<PathBuf>,
    /// The node's TLS port instead: HOST:PORT.
    #[arg(long, global = true, value_name = "HOST:PORT", help_heading = REACH)]
    tls: Option<String>,
    /// Who issued the node's certificate, PEM.
    #[arg(long, global = true, value_name = "FILE", help_heading = REACH)]
    tls_ca: Option<PathBuf>,
    /// Our certificate, with those between it and its issuer, PEM.
    #[arg(long, global = true, value_name = "FILE", help_heading = REACH)]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM, its owner's alone (mode 0600).
    #[arg(long, global = true, value_name = "FILE", help_heading = REACH)]
    tls_key: Option<PathBuf>,
    /// The DNS name or address in the node's certificate, if it is not HOST.
    #[arg(long, global = true, value_name = "NAME", help_heading = REACH)]
    tls_name: Option<String>,
}

impl Target {
    /// Connects to the node.
    pub async fn connect(self) -> anyhow::Result<Client> {
        match self.tls.clone() {
            None => connect(self.socket).await,
            Some(address) => self.connect_tls(&address).await,
        }
    }

    async fn connect_tls(&self, address: &str) -> anyhow::Result<Client> {
        let read = |option: &str, path: &Option<PathBuf>| {
            let path = path
                .as_ref()
                .with_context(|| format!("--tls needs {option}: both ends show certificates"))?;
            std::fs::read(path).with_context(|| format!("{option}: cannot read {}", path.display()))
        };
        let ca = read("--tls-ca", &self.tls_ca)?;
        let certificate = read("--tls-cert", &self.tls_cert)?;
        let key = self.tls_key.as_ref();
        let key = key.context("--tls needs --tls-key: both ends show certificates")?;
        let key = private::read(key).map_err(|error| anyhow!("--tls-key: {error}"))?;
        let tls = Tls {
            address: address.to_owned(),
            ca,
            certificate,
            key,
            name: self.tls_name.clone(),
        };
        let client = Client::connect(Address::Tls(Box::new(tls))).await;
        let mut client = client.map_err(|error| match &error {
            CallError::Connect { source, .. } => {
                let mut text = error.to_string();
                let mut cause = source.source();
                while let Some(error) = cause {
                    text += &format!(": {error}");
                    cause = error.source();
                }
                anyhow!("{text}")
            }
            _ => anyhow!("--tls {error}"),
        })?;
        client.set_patience(PATIENCE);
        client.on_waiting(tell_waiting);
        Ok(client)
    }
}

/// A user sees what a call waits for.
fn tell_waiting(why: &str, patience: Duration) {
    eprintln!(
        "twinseal: the node went away ({why}): waiting up to {:.0} s for it to come back",
        patience.as_secs_f64()
    );
}

/// Connects to the socket that is named, or to the only one there is.
pub async fn connect(socket: Option<PathBuf>) -> anyhow::Result<Client> {
    let socket = match socket.or_else(|| std::env::var_os("TWINSEAL_SOCKET").map(PathBuf::from)) {
        Some(socket) => socket,
        None => only_socket(Path::new(SOCKET_DIR))?,
    };
    let mut client = Client::connect(Address::socket(&socket))
        .await
        .map_err(|error| unreachable(&socket, &error))?;
    client.set_patience(PATIENCE);
    client.on_waiting(tell_waiting);
    Ok(client)
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

/// Whether a file is a socket; `true` if that cannot be known.
fn is_socket(path: &Path) -> bool {
    let about = std::fs::metadata(path);
    about.map_or(true, |about| about.file_type().is_socket())
}

fn unreachable(path: &Path, error: &CallError) -> anyhow::Error {
    let socket = path.display();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                io::ErrorKind::NotFound => {
                    anyhow!(
                        "there is no socket {socket}: start the node, or name its socket with --socket"
                    )
                }
                io::ErrorKind::ConnectionRefused if !is_socket(path) => {
                    anyhow!("{socket} is no socket: name the node's with --socket")
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
    anyhow!("{error}")
}

/// What a failed call means to the user.
pub(super) fn explain(status: &Status) -> anyhow::Error {
    if let Some(reason) = untrusted(status) {
        return anyhow!("{reason}");
    }
    match status.code() {
        Code::Unavailable | Code::Cancelled => {
            anyhow!("the node went away: {}; see its log", status.message())
        }
        Code::Unimplemented => {
            anyhow!("the node does not know this call: it is of another version than this program")
        }
        // The transport reports a connection that broke in a call so.
        Code::Unknown if status.source().is_some() => ended(status),
        _ => anyhow!("{}", status.message()),
    }
}

/// That a connection ended in a call: for the reason that the node gave, as far as the transport hands that on.
fn ended(status: &Status) -> anyhow::Error {
    let mut last = None;
    let mut cause = status.source();
    while let Some(error) = cause {
        last = Some(error.to_string());
        cause = error.source();
    }
    let last = last.unwrap_or_default();
    // HTTP/2's GOAWAY, as `h2` writes it: its text in brackets, as a literal of bytes.
    let given = last.split_once(" (b\"");
    match given.and_then(|(_, text)| text.strip_suffix("\")")) {
        Some(why) => anyhow!("the node ended the connection: {}", word(why)),
        None => anyhow!(
            "the node ended the connection, or is gone: its log says why, at level info ({})",
            word(&last)
        ),
    }
}

/// The same of a call that the client made for us. Refusals are for who asked.
pub fn advise(error: CallError) -> anyhow::Error {
    match error {
        CallError::Gone(status) | CallError::Call(status) => explain(&status),
        error => anyhow!("{error}"),
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

    #[test]
    fn why_a_connection_ended_is_told_as_the_node_gave_it() {
        let told = |error: &str| {
            let mut status = Status::unknown("h2 protocol error: http2 error");
            status.set_source(std::sync::Arc::new(io::Error::other(error.to_owned())));
            explain(&status).to_string()
        };
        assert_eq!(
            told("connection error received: detected excessive load (b\"its place was needed\")"),
            "the node ended the connection: its place was needed"
        );
        let broken = told("stream closed because of a broken pipe");
        assert!(
            broken.contains("its log says why") && broken.contains("broken pipe"),
            "{broken}"
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
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        let file = error().await;
        assert!(file.contains("n.sock is no socket: name"), "{file}");
    }
}
