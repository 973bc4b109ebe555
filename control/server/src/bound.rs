//! The bound Unix socket. Whoever removes its file, as a cleaner of `/run` does, locks every client out: that is told, and at
//! SIGHUP the socket is made again.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::socket::{SocketError, clear};
use twinseal_access::listen::Listen;
use twinseal_node::events::FaultKind;
use twinseal_node::handle::NodeHandle;
use twinseal_node::jsonl::Reopen;

/// How often the file is looked for.
const LOOK: Duration = Duration::from_secs(1);

/// A listener, and the file by which it is found.
pub(crate) struct Bound {
    listener: UnixListener,
    file: Arc<Mutex<File>>,
    mode: u32,
    reopen: Reopen,
    /// How often it had been asked when last looked.
    asked: u64,
    look: Interval,
    /// Whether it was told that the file is gone.
    told: bool,
    node: Option<NodeHandle>,
}

impl Listen for Bound {
    async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => return accepted.map(|(stream, _)| stream),
                _ = self.look.tick() => {}
            }
            self.look().await;
        }
    }
}

/// Removes the file unless somebody has put another in its place.
pub(crate) struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl File {
    fn is_there(&self) -> bool {
        std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| file.dev() == self.device && file.ino() == self.inode)
    }

    pub(crate) fn remove(&self) {
        if self.is_there()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Bound {
    /// Binds a socket. The file of a daemon that is dead is replaced.
    pub(crate) async fn bind(path: &Path, mode: u32, reopen: Reopen) -> Result<Self, SocketError> {
        let (listener, file) = bind(path, mode).await?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            listener,
            file: Arc::new(Mutex::new(file)),
            mode,
            asked: reopen.asked(),
            reopen,
            look,
            told: false,
            node: None,
        })
    }

    /// Has this node tell when the file is gone; the file goes with what this returns.
    pub(crate) fn tell(&mut self, node: NodeHandle) -> Arc<Mutex<File>> {
        self.node = Some(node);
        Arc::clone(&self.file)
    }

    fn file(&self) -> std::sync::MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&mut self) {
        let asked = self.reopen.asked();
        let ask = std::mem::replace(&mut self.asked, asked) != asked;
        let (path, there) = {
            let file = self.file();
            (file.path.clone(), file.is_there())
        };
        if there {
            self.told = false;
            return;
        }
        if ask {
            match bind(&path, self.mode).await {
                Ok((listener, file)) => {
                    tracing::info!(path = %path.display(), "the control socket is made again");
                    self.listener = listener;
                    *self.file() = file;
                    self.told = false;
                    return;
                }
                Err(error) => tracing::error!(%error, "the control socket cannot be made again"),
            }
        }
        if !std::mem::replace(&mut self.told, true) {
            let detail = format!(
                "the control socket {} was removed or replaced: nobody new can come in by it; send SIGHUP to have it made again",
                path.display()
            );
            tracing::error!("{detail}");
            if let Some(node) = &self.node {
                node.fault(FaultKind::ControlSocketGone, detail).await;
            }
        }
    }
}

async fn bind(path: &Path, mode: u32) -> Result<(UnixListener, File), SocketError> {
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
    let file = File {
        path: path.to_owned(),
        device: made.dev(),
        inode: made.ino(),
    };
    // Until here the umask decides who may connect; whoever does is judged by its credentials all the same.
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).map_err(io("set the mode"))?;
    Ok((listener, file))
}
