//! Suites, AEAD providers, keys, lanes, replay windows and key derivation.
