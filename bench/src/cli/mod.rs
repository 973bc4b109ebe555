//! A module a subcommand: its arguments, and what it does with them.

pub(crate) mod compare;
pub(crate) mod count;
pub(crate) mod l2fwd;
pub(crate) mod load;
pub(crate) mod pipeline;
pub(crate) mod report;
pub(crate) mod rfc2544;
pub(crate) mod seal;
pub(crate) mod soak;
pub(crate) mod tables;

use std::fmt::Display;

use serde::Serialize;
use twinseal_bench::noop_aead::{self, NoopAead};
use twinseal_crypto::{CryptoError, Provider};

/// Prints results for people, or as JSON.
fn print(report: &(impl Serialize + Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

/// A number above zero.
fn positive(text: &str) -> anyhow::Result<f64> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| *number > 0.0 && number.is_finite())
        .ok_or_else(|| anyhow::anyhow!("give a number above 0"))
}

/// The provider of that name; besides the real ones there is [`noop_aead`](twinseal_bench::noop_aead).
fn provider(name: &str) -> Result<&'static dyn Provider, CryptoError> {
    match name {
        noop_aead::NAME => Ok(&NoopAead),
        name => twinseal_crypto::provider(name),
    }
}
