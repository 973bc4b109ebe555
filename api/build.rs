//! Generates the client and server from the protocol. protox parses it, so no protoc is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["twinseal/v1/control.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
