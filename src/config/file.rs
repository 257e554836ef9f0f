//! Reads the text of a settings file.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

/// Maximum number of bytes of a settings file.
const LONGEST_FILE: u64 = 1 << 20;

/// The customary name of a file with nothing in it.
const NOTHING: &str = "/dev/null";

/// Reads a regular file of a bounded size, or [`NOTHING`]. A pipe would be waited for, and other devices never end.
pub(super) fn text(path: &Path) -> Result<String, String> {
    if path == Path::new(NOTHING) {
        return Ok(String::new());
    }
    let meta = fs::metadata(path).map_err(|error| error.to_string())?;
    if !meta.is_file() {
        return Err("it is not a regular file; write the settings into one".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(LONGEST_FILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(format!("it has more than {LONGEST_FILE} bytes"));
    }
    Ok(text)
}
