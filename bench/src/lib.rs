//! Benchmarks of Twinseal.
//!
//! What the pure pipeline costs a packet, with no kernel: [`net`] makes three nodes of any extent, [`harness`] makes packets
//! ready for one role and runs them, [`aead_only`] repeats only their AEAD calls, [`report`] puts both together, and several
//! workers beside them. [`seal`] measures the AEADs alone, provider against provider. The program `twinseal-bench` and
//! the criterion benches stand on it.
//!
//! What networks do: [`generator`] sends and receives test packets over AF_XDP, [`testbed`] is a network of real daemons
//! to send them through, [`rfc2544`] measures it, or real devices, and [`soak`] keeps it busy for hours. [`l2fwd`]
//! measures a transit node on veths beside a forwarder that does nothing else.

pub mod aead_only;
pub mod compare;
pub mod cpu;
pub mod generator;
pub mod harness;
pub mod l2fwd;
pub mod load;
pub mod machine;
pub mod net;
pub mod noop_aead;
pub mod page;
pub mod report;
pub mod rfc2544;
pub mod routes;
mod sample;
mod scaling;
pub mod seal;
mod size;
pub mod soak;
pub mod tables;
pub mod testbed;

pub use harness::{BenchError, Harness, ROUND, Role};
pub use machine::Machine;
pub use report::{Line, Report};
pub use sample::Sample;
pub use size::Size;
