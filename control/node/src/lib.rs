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
pub mod audit;
pub mod events;
pub mod handle;
pub mod health;
pub mod jsonl;
pub mod keys;
pub mod node;
pub mod parts;
pub mod pings;
pub mod ports;
pub mod requests;
pub mod state_dir;
pub mod taps;
pub mod usage;

mod asked;
mod burned;
mod commit;
mod compile;
mod confirm;
mod crowd;
mod devices;
mod down;
mod drain;
mod limits;
mod losses;
mod mtu;
mod netlink;
mod report;
mod requested;
mod resolve;
mod restore;
mod rollback;
mod said;
mod secrets;
mod store;
mod take_up;
#[cfg(test)]
mod tests;
mod unopened;
mod waiting;
mod warnings;
