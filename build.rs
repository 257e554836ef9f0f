//! How the release binary is linked: small in the file, and smaller still in memory.

use std::env;

#[expect(clippy::disallowed_methods, reason = "so cargo tells a build script what it builds")]
fn main() {
    let of = |name: &str| env::var(name).unwrap_or_default();
    // By its whole path: a folder that was moved has other words for the linker.
    println!("cargo::rerun-if-changed={}/linker", of("CARGO_MANIFEST_DIR"));
    // lld is the linker of this target where no other one is asked for. GNU's would need many minutes for a
    // script of a thousand patterns, and does not fold functions: it links as ever.
    let flags = of("CARGO_ENCODED_RUSTFLAGS");
    let is_own = of("TARGET") == "x86_64-unknown-linux-gnu" && of("RUSTC_LINKER").is_empty();
    let is_lld =
        flags.contains("-fuse-ld=lld") || is_own && !flags.contains("linker") && !flags.contains("-fuse-ld");
    if of("PROFILE") != "release" || !is_lld {
        return;
    }
    let link = |word: &str| println!("cargo::rustc-link-arg-bin=cotter={word}");
    for script in ["agent.ld", "no-unwinding.ld"] {
        link("-T");
        link(&format!("{}/linker/{script}", of("CARGO_MANIFEST_DIR")));
    }
    link("-Wl,--no-eh-frame-hdr");
    // Functions with the same code become one.
    link("-Wl,--icf=all");
}
