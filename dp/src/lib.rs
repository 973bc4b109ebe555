//! The Twinseal dataplane and its program.
