//! The control plane of Twinseal, and what its program is made of: `cli` → `config` → `control`. The dataplane is in
//! crates of its own: `twinseal-runtime` and those below it.

pub mod cli;
pub mod config;
pub mod control;
pub mod private;
pub mod text;
pub mod time;
