//! Real daemons in namespaces of their own, and a controller of them: what the demo, end-to-end tests and benchmarks stand on.
//!
//! [`plan`] is what the routers are told and [`controller`] tells them, as any external controller would; [`kernel`] is the path
//! between them.

#![forbid(unsafe_code)]

pub mod controller;
pub mod daemon;
pub mod drops;
pub mod items;
pub mod kernel;
pub mod plan;
