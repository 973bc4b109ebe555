//! A module a subcommand: its arguments, and what it does with them.

pub(crate) mod compare;
pub(crate) mod l2fwd;
pub(crate) mod pipeline;
pub(crate) mod report;
pub(crate) mod rfc2544;
pub(crate) mod seal;
pub(crate) mod soak;

use std::fmt::Display;

use serde::Serialize;

/// Prints results for people, or as JSON.
fn print(report: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
