//! Any octets as an `ApplyRequest`: decoded, parsed and checked as a transaction.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| twinseal_model::fuzz_decode(input));
