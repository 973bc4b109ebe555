//! SIGINT and SIGTERM.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Yields the name of the first signal; the second ends the process.
///
/// They are watched by a thread of their own, so that the second one works also when the control thread is stuck.
pub(super) fn watch() -> io::Result<oneshot::Receiver<&'static str>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let (first, stop) = oneshot::channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let mut next = async || {
                    tokio::select! {
                        _ = interrupt.recv() => ("SIGINT", libc::SIGINT),
                        _ = terminate.recv() => ("SIGTERM", libc::SIGTERM),
                    }
                };
                // Nobody listens any more: the node has ended by itself.
                let _ = first.send(next().await.0);
                let (name, number) = next().await;
                eprintln!("twinseal: {name} again: ending at once");
                // As a shell reports a process that a signal ended.
                std::process::exit(128 + number);
            });
        })?;
    Ok(stop)
}
