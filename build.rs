//! Lets the linker fold equal functions of the device's release binary into one.

use std::env;

#[expect(clippy::disallowed_methods, reason = "so cargo tells a build script what it builds")]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    // Only lld can. Rust links by it for this target where no other linker is asked for.
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let is_default = variable("TARGET") == "x86_64-unknown-linux-gnu" && variable("RUSTC_LINKER").is_empty();
    let is_lld = flags.contains("-fuse-ld=lld")
        || is_default && !flags.contains("linker") && !flags.contains("-fuse-ld");
    if variable("PROFILE") == "release" && is_lld {
        println!("cargo::rustc-link-arg-bin=cotter=-Wl,--icf=all");
    }
}
