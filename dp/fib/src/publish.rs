//! Publication: the control thread stores a new snapshot, workers pick it up at their next batch, and the old one is
//! freed by the control thread, never by a worker.
//!
//! A worker's [`Reader`] is an arc-swap cache: while nothing was published, taking the snapshot is one load and one
//! compare. The publisher keeps a reference to every snapshot that a worker may still hold, so a worker's is never the
//! last one and never pays for the deallocation.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use super::Fib;

/// The control thread's end.
pub struct Publisher {
    current: Arc<ArcSwap<Fib>>,
    /// Snapshots that workers may still hold.
    retired: Vec<Arc<Fib>>,
}

/// A worker's end.
pub struct Reader {
    cache: Cache<Arc<ArcSwap<Fib>>, Arc<Fib>>,
}

impl Publisher {
    /// Starts with these tables.
    pub fn new(tables: Fib) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(tables)),
            retired: Vec::new(),
        }
    }

    /// Another worker's end.
    pub fn reader(&self) -> Reader {
        Reader {
            cache: Cache::new(Arc::clone(&self.current)),
        }
    }

    /// Makes these the tables of every batch that begins from now on.
    pub fn publish(&mut self, tables: Fib) {
        self.retired.push(self.current.swap(Arc::new(tables)));
        self.reclaim();
    }

    /// Frees the snapshots that no worker holds any more; to be called now and then, as nothing else frees the last.
    pub fn reclaim(&mut self) {
        // A count of one is this vector's own: no reader has it, and none can get it again.
        self.retired.retain(|tables| Arc::strong_count(tables) > 1);
    }

    /// How many old snapshots workers still hold: zero once each has begun a batch since the last publication.
    pub fn retired(&self) -> usize {
        self.retired.len()
    }
}

impl Reader {
    /// The newest tables. Call once a batch: it is also how the worker lets go of the last ones.
    #[inline]
    pub fn tables(&mut self) -> &Fib {
        self.cache.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_whole_generations_in_order_and_the_publisher_frees() {
        let mut publisher = Publisher::new(Fib::default());
        let mut reader = publisher.reader();
        assert_eq!(reader.tables().generation, 0);
        let worker = std::thread::spawn({
            let mut reader = publisher.reader();
            move || {
                let mut last = 0;
                while last < 1000 {
                    let tables = reader.tables();
                    assert!(tables.generation >= last);
                    assert_eq!(tables.links.count(), 0);
                    last = tables.generation;
                }
            }
        });
        for generation in 1..=1000 {
            publisher.publish(Fib {
                generation,
                ..Fib::default()
            });
        }
        worker.join().unwrap();
        assert!(publisher.retired() >= 1, "the idle reader holds the first");
        assert_eq!(reader.tables().generation, 1000);
        publisher.reclaim();
        assert_eq!(publisher.retired(), 0);
    }
}
