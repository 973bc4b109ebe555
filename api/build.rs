//! Generates the client and server from the protocol. protox parses it, so no protoc is needed.

use std::path::Path;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["twinseal/v1/control.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    let descriptor = Path::new(&std::env::var("OUT_DIR")?).join("control.binpb");
    std::fs::write(descriptor, files.encode_to_vec())?;
    tonic_prost_build::configure()
        // One order everywhere: equal messages encode equally.
        .btree_map(".")
        // Debug of a key must not show its secret: src/lib.rs has its own.
        .skip_debug([".twinseal.v1.Key"])
        .type_attribute(".twinseal.v1.Key.owner", "#[derive(Debug)]")
        .compile_fds(files)?;
    Ok(())
}
