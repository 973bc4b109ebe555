//! The gRPC server of a node: one file for each part of the service, and [`run`], which starts a node with its server.

#![forbid(unsafe_code)]

mod apply;
mod bound;
mod drain;
mod get;
mod ping;
mod replace;
mod run;
mod service;
mod socket;
mod status;
mod taps;
mod usage;
mod watch;

pub use run::{ControlError, NodeConfig, run};
pub use socket::{SocketConfig, SocketError};
