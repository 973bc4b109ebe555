//! The Twinseal dataplane.
//!
//! Arrows point down only: `cli` → `control` → `tables` ← `pipeline` ← `workers` → `ports`. `pipeline` is pure: a batch
//! of frames, a table snapshot and a worker's state in; the same frames with dispositions out.

pub mod cli;
pub mod config;
pub mod control;
pub mod fixture;
pub mod pipeline;
pub mod ports;
pub mod private;
pub mod tables;
pub mod text;
pub mod time;
pub mod wire;
pub mod workers;
