//! A node: a desired state becomes the tables, ports and keys of its workers, and what became of it is reported.
//!
//! ```text
//! handle -> node -> apply (judged by twinseal-model) -> keys, ports -> compile -> Pool::publish
//!                 \-> netlink, resolve: what the kernel knows of neighbours, addresses and carrier
//!                 \-> health: events; usage: accounting; report: Get and Stats
//! ```
//!
//! All of it runs on one thread; servers reach the [`Node`](node::Node) by a channel, the [`handle`].

#![forbid(unsafe_code)]

pub mod accounts;
pub mod apply;
pub mod asked;
pub mod audit;
pub mod burned;
pub mod commit;
pub mod compile;
pub mod confirm;
pub mod crowd;
pub mod devices;
pub mod down;
pub mod drain;
pub mod events;
pub mod handle;
pub mod health;
pub mod keys;
pub mod limits;
pub mod lines;
pub mod losses;
pub mod mtu;
pub mod netlink;
pub mod node;
pub mod parts;
pub mod ports;
pub mod report;
pub mod requested;
pub mod requests;
pub mod resolve;
pub mod restore;
pub mod rollback;
pub mod said;
pub mod secrets;
pub mod state_dir;
pub mod store;
pub mod take_up;
pub mod taps;
#[cfg(test)]
mod tests;
pub mod unopened;
pub mod usage;
pub mod waiting;
mod warnings;
