//! The `twinseal` program. All of it is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    twinseal::cli::main()
}
