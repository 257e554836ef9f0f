//! Writes what packages ship beside the binaries: man pages and completions, from the definitions of the commands.
//!
//!     cargo run --example manual -- FOLDER
//!
//! makes `FOLDER/man1/cotter*.1`, `FOLDER/man8/cotter-fleet*.8` and, in `FOLDER/completions`, `cotter.bash`, `_cotter`,
//! `cotter.fish` and the same three for `cotter-fleet`.
//!
//! The pages of `cotter-fleet` are in section 8: in section 1, `cotter-fleet` is the page of `cotter fleet`.

use std::fs;
use std::io;
use std::path::Path;

use clap_mangen::Man;
use cotter::cli;

/// Writes all of it below `folder`, which is made.
pub(crate) fn write(folder: &Path) -> io::Result<()> {
    let pages = |section: &str| folder.join(format!("man{section}"));
    for section in ["1", "8"] {
        fs::create_dir_all(pages(section))?;
    }
    clap_mangen::generate_to(cli::definitions(), pages("1"))?;
    let mut server = cli::fleet_definitions();
    server.build();
    Man::new(server.clone()).section("8").generate_to(pages("8"))?;
    for verb in server.get_subcommands() {
        Man::new(verb.clone()).section("8").generate_to(pages("8"))?;
    }
    let completions = folder.join("completions");
    fs::create_dir_all(&completions)?;
    for command in [cli::definitions(), cli::fleet_definitions()] {
        let name = command.get_name().to_owned();
        let files =
            [("bash", format!("{name}.bash")), ("zsh", format!("_{name}")), ("fish", format!("{name}.fish"))];
        for (shell, file) in files {
            let script = cli::completion_for(shell, command.clone()).unwrap_or_default();
            fs::write(completions.join(file), script)?;
        }
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
