//! Writes docs/openapi-fleet.json, from the table of routes and src/fleet/operator_api/openapi.json.
//!
//!     cargo run --example openapi

use std::fs;
use std::path::Path;

use cotter::fleet::operator_api::openapi_document;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi-fleet.json");
    fs::write(path, openapi_document()?)?;
    Ok(())
}
