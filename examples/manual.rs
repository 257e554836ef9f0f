//! Writes what packages ship beside the binary: man pages and completions, from the definitions of the commands.
//!
//!     cargo run --example manual -- FOLDER
//!
//! makes `FOLDER/man1/cotter*.1` and `FOLDER/completions/{cotter.bash,_cotter,cotter.fish}`.

use std::fs;
use std::io;
use std::path::Path;

/// Writes all of it below `folder`, which is made.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let pages = folder.join("man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(cotter::cli::definitions(), &pages)?;
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for (shell, name) in [("bash", "cotter.bash"), ("zsh", "_cotter"), ("fish", "cotter.fish")] {
        fs::write(completions.join(name), cotter::cli::completion_for(shell).unwrap_or_default())?;
    }
    Ok(())
}

#[allow(dead_code, reason = "the test of this file calls what it needs itself")]
fn main() -> io::Result<()> {
    match std::env::args_os().nth(1) {
        Some(folder) => write(Path::new(&folder)),
        None => Err(io::Error::other("say where to: cargo run --example manual -- FOLDER")),
    }
}
