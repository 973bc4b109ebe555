//! Open ports that a transaction wants otherwise, and that can only be closed first. It is the last that is done before
//! tables are published; if it fails all the same, what it cost is told.

use std::fmt;
use std::time::{Duration, Instant};

use super::Ports;
use super::prepare::Prepared;
use super::refused::cannot_open;
use crate::events::{Events, FaultKind};
use crate::netlink::View;
use twinseal_model::refusal::Refused;
use twinseal_model::state::{Port, PortName};
use twinseal_model::transaction::Touched;
use twinseal_runtime::ports::PortError;
use twinseal_runtime::workers::Pool;

/// Why a port is closed that is about to be opened.
const CLOSED: &str = "a transaction changes it";

/// A port that was closed and opened anew.
pub(super) struct Reopened {
    name: PortName,
    /// What it was.
    before: Port,
    closed: Duration,
}

/// What a refused transaction cost a port.
struct Interrupted {
    name: PortName,
    closed: Duration,
    /// Whether it is as it was.
    again: Result<(), PortError>,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ms) = (&self.name, self.closed.as_millis());
        write!(
            f,
            "port {name:?} was closed for a transaction that is refused"
        )?;
        match &self.again {
            Ok(()) => write!(f, ", and is open again as it was after {ms} ms"),
            Err(error) => write!(f, ", and cannot be opened again as it was: {error}"),
        }
    }
}

impl Ports {
    /// Closes the open ports that wait for it, and opens them as they are to be. On failure all are as before, or wait for
    /// their devices, and the refusal says what that cost them.
    pub(crate) fn reopen_live(
        &mut self,
        pool: &Pool,
        touched: &Touched,
        view: &View,
        prepared: &mut Prepared,
        events: &Events,
    ) -> Result<(), Refused> {
        for (name, port) in std::mem::take(&mut prepared.waiting) {
            let Some(before) = self.handles.get(&name).map(|handle| handle.port.clone()) else {
                continue;
            };
            let begin = Instant::now();
            tracing::info!(port = %name, why = CLOSED, "the port is closed, to be opened anew");
            self.let_go(pool, &name, CLOSED.into());
            let opened = self.open_again(pool, &name, &port, view);
            let closed = begin.elapsed();
            if opened.is_ok() {
                tracing::info!(port = %name, closed_ms = closed.as_millis(), "the port is open as the transaction has it");
            }
            prepared.reopened.push(Reopened {
                name: name.clone(),
                before,
                closed,
            });
            let Err(error) = opened else {
                continue;
            };
            let mut reason = cannot_open(&name, touched, &error);
            for told in self.restore(pool, prepared, view, events) {
                reason.reason = format!("{}; {told}", reason.reason);
            }
            let mut refused = Refused::default();
            refused.push(reason);
            return Err(refused);
        }
        Ok(())
    }

    /// Opens ports as they were; tells, and returns, what it cost them.
    pub(super) fn restore(
        &mut self,
        pool: &Pool,
        prepared: &mut Prepared,
        view: &View,
        events: &Events,
    ) -> Vec<String> {
        let mut told = Vec::new();
        for was in std::mem::take(&mut prepared.reopened).into_iter().rev() {
            let Reopened {
                name,
                before,
                closed,
            } = was;
            let begin = Instant::now();
            if self.carries(&name) {
                self.park(pool, &name, "its transaction is refused".into());
            }
            let again = self.open_again(pool, &name, &before, view);
            if let Err(error) = &again {
                if let Some(handle) = self.handles.get_mut(&name) {
                    handle.port = before;
                }
                self.wait_for_device(&name, error, Instant::now());
            }
            let interrupted = Interrupted {
                closed: closed + begin.elapsed(),
                name,
                again,
            }
            .to_string();
            tracing::error!("{interrupted}");
            events.fault(FaultKind::PortInterrupted, interrupted.clone());
            told.push(interrupted);
        }
        told
    }
}
