//! Turns the CRI's wire definition into Rust, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let definition = "src/cri/wire/runtime.proto";
    println!("cargo::rerun-if-changed={definition}");
    let files = protox::compile([definition], ["src/cri/wire"])?;
    // Lists in one order always.
    tonic_prost_build::configure().btree_map(".").skip_debug(["runtime.v1.AuthConfig"]).compile_fds(files)?;
    Ok(())
}
