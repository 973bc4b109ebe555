//! The `twinseal` program. All of it is in the library's `cli` module.

/// Secrets pass through buffers of libraries that do not wipe them.
#[global_allocator]
static ALLOCATOR: twinseal_crypto::Wiping = twinseal_crypto::Wiping;

fn main() -> std::process::ExitCode {
    twinseal::cli::main()
}
