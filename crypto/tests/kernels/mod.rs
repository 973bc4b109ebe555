//! What tests of the kernel begin with: its forms, and keys.

#![allow(unreachable_pub, reason = "a module of test programs")]

use twinseal_crypto::{Key, Provider, Suite, all_forms};

/// The kernel's name as a provider.
pub const NAME: &str = "twinseal";

/// The kernel in each form that runs here, with a library to compare it with.
pub fn pairs() -> Vec<(&'static dyn Provider, &'static dyn Provider)> {
    let (kernels, libraries): (Vec<_>, Vec<_>) =
        all_forms().into_iter().partition(|p| p.name() == NAME);
    if kernels.is_empty() {
        eprintln!("SKIPPED: this CPU cannot run the kernel");
    }
    kernels.into_iter().map(|it| (it, libraries[0])).collect()
}

/// Eight keys for each suite.
pub struct Keys(Vec<Key>);

impl Keys {
    /// The same for every provider.
    pub fn new(provider: &dyn Provider) -> Self {
        let keys = Suite::ALL.into_iter().flat_map(|suite| {
            (0..8).map(move |key| {
                let bytes: Vec<_> = (0..suite.key_len())
                    .map(|at| (at as u8 + 1).wrapping_mul(17 + 2 * key))
                    .collect();
                provider.key(suite, &bytes).unwrap()
            })
        });
        Self(keys.collect())
    }

    /// One of a suite's eight.
    pub fn get(&self, suite: Suite, key: u8) -> &Key {
        &self.0[(suite as usize - 1) * 8 + usize::from(key)]
    }
}
