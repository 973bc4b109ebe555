//! Tests of what needs no daemon: compilation, health, usage, warnings.

mod compile;
mod health;
mod lives;
mod mtu;
mod own;
mod properties;
mod usage;
mod warnings;

use twinseal_api::v1;
use twinseal_model::state::State;
use twinseal_model::testing::*;
