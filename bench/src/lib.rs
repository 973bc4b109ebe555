//! Benchmarks of Twinseal.
