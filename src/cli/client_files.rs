//! The files of a client: the token, and certificates of an authority.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::client_error::ClientError;

/// Maximum number of bytes of a file with certificates.
const LARGEST_AUTHORITY: u64 = 1 << 20;

pub(super) fn read_authority(path: &Path) -> Result<Vec<u8>, ClientError> {
    let wrong = |why: String| ClientError::NoAuthority { path: path.to_owned(), why };
    let mut pem = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST_AUTHORITY).read_to_end(&mut pem));
    read.map_err(|error| wrong(error.to_string()))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong("it has no certificate".to_owned()));
    }
    Ok(pem)
}

pub(super) fn read_token(path: &Path) -> Result<String, ClientError> {
    let no_token = |source| ClientError::NoToken { path: path.to_owned(), source };
    let token = std::fs::read_to_string(path).map_err(no_token)?;
    let mode = std::fs::metadata(path).map_err(no_token)?.mode();
    // The mode of a pipe, which a shell makes for <(command), says nothing about who can read it.
    if path.is_file() && mode & 0o007 != 0 {
        let why = format!(
            "every user can read it (mode {:o}) and control the fleet with it; chmod 600 it",
            mode & 0o777
        );
        return Err(no_token(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why)));
    }
    let token = token.trim();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        let source =
            std::io::Error::new(std::io::ErrorKind::InvalidData, "its content is not a token: one word");
        return Err(ClientError::NoToken { path: path.to_owned(), source });
    }
    Ok(token.to_owned())
}
