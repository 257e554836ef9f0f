//! The fleet server: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    cotter::cli::fleet_main()
}
