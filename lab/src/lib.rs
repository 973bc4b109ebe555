//! Throw-away networks of namespaces, veths and impairments.
//!
//! A [`Lab`] makes namespaces, veth pairs and bridges and takes them down again. Beside it are what tests, the demo and
//! benches put into such a network: a [`ping`], packet [`capture`] and [`inject`]ion, a wire that loses and damages
//! packets ([`impair`], [`wire`]) and a [`traffic`] generator with exact accounting. It needs root and a kernel with
//! network namespaces and veth, and no tool besides: neither `ip` nor `ethtool`, `ping` or `tcpdump`.
//!
//! ```no_run
//! use twinseal_lab::{Lab, VethConfig, ping, PingConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lab = Lab::new("demo")?;
//! let (a, b) = (lab.namespace("host-a")?, lab.namespace("host-b")?);
//! let veth = VethConfig::new((&a, "eth0"), (&b, "eth0"));
//! lab.veth(&veth.addresses(&["10.0.0.1/24".parse()?], &["10.0.0.2/24".parse()?]))?;
//! let result = ping(&a, "10.0.0.2".parse()?, &PingConfig::default())?;
//! assert_eq!(result.received, result.sent);
//! # Ok(())
//! # }
//! ```

pub mod capture;
pub mod frame;
pub mod impair;
pub mod inject;
pub mod traffic;
pub mod wire;

mod change;
mod error;
mod ethtool;
mod interface;
mod journal;
mod lab;
mod namespace;
mod netlink;
mod packet;
mod ping;
mod process;
mod sys;

pub use error::LabError;
pub use interface::{Interface, InterfaceStats, Route};
pub use ipnet::IpNet;
pub use lab::{Lab, VethConfig};
pub use namespace::{Entered, Namespace};
pub use ping::{IcmpError, PingConfig, PingResult, ping};
pub use process::Process;
