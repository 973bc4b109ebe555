//! Generates the client and server from the protocol. protox parses it, so no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["twinseal/v1/control.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure()
        // One order everywhere: equal messages encode equally.
        .btree_map(".")
        // Debug of a key must not show its secret: src/lib.rs has its own.
        .skip_debug([".twinseal.v1.Key"])
        .type_attribute(".twinseal.v1.Key.owner", "#[derive(Debug)]")
        .compile_fds(files)?;
    Ok(())
}
