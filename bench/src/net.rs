//! The three nodes of a path as benches need them: tables that all workers share, and each worker's own state.

use twinseal_crypto::{Provider, Suite};
use twinseal_fib::Fib;
use twinseal_forward::State;
use twinseal_forward::fixture::{Path, Scale};

use crate::routes::{Prefix, prefixes};
use crate::{BenchError, Size};

/// Where packets enter, in [`Net::tables`] and [`Net::workers`].
pub const A: usize = 0;
/// Where labels are swapped.
pub const TRANSIT: usize = 1;
/// Where packets leave.
pub const B: usize = 2;

/// How many of everything.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Workers of every node.
    pub workers: usize,
    /// Circuits from A to B.
    pub circuits: u32,
    /// Routes of A and of B.
    pub routes: u32,
}

impl Default for Extent {
    /// One of everything.
    fn default() -> Self {
        Self {
            workers: 1,
            circuits: 1,
            routes: 1,
        }
    }
}

/// Three nodes.
pub struct Net {
    /// Of A, the transit node and B.
    pub tables: [Fib; 3],
    /// A worker's states on A, the transit node and B.
    pub workers: Vec<[State; 3]>,
    /// Where packets go: to any address within any of these, or to one host if there are none.
    pub routes: Vec<Prefix>,
}

impl Net {
    /// Makes them.
    ///
    /// # Errors
    /// No memory, no key, or more workers than there are lanes for.
    pub fn new(provider: &dyn Provider, suite: Suite, extent: &Extent) -> Result<Self, BenchError> {
        let routes = match extent {
            Extent {
                circuits: 1,
                routes: 1,
                ..
            } => Vec::new(),
            extent => prefixes(extent.routes),
        };
        let scale = Scale {
            workers: extent.workers,
            circuits: extent.circuits,
            routes,
            // With every header, the largest packet fits.
            mtu: Size::MAX + 128,
        };
        let (Path { a, transit, b }, [further_a, further_transit, further_b]) =
            Path::scaled(provider, suite, &scale)?;
        let further = further_a.into_iter().zip(further_transit).zip(further_b);
        let first = [a.state, transit.state, b.state];
        Ok(Self {
            tables: [a.tables, transit.tables, b.tables],
            workers: std::iter::once(first)
                .chain(further.map(|((a, transit), b)| [a, transit, b]))
                .collect(),
            routes: scale.routes,
        })
    }
}
