//! SIGINT, SIGTERM and SIGHUP.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Yields the name of the first signal that stops; the second ends the process. At SIGHUP it calls `hangup`.
///
/// They are watched by a thread of their own, so that the second one works also when the control thread is stuck.
///
/// # Errors
/// If the signals or the thread cannot be had.
pub fn watch(hangup: impl Fn() + Send + 'static) -> io::Result<oneshot::Receiver<&'static str>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate, mut hung_up) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    let (first, stop) = oneshot::channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let mut next = async || {
                    loop {
                        tokio::select! {
                            _ = interrupt.recv() => return ("SIGINT", libc::SIGINT),
                            _ = terminate.recv() => return ("SIGTERM", libc::SIGTERM),
                            _ = hung_up.recv() => hangup(),
                        }
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
