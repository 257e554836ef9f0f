//! `cotter-fleet serve --check`: says what a server with these settings would do. It writes nothing, so it may run beside the
//! server.

use super::certificate::TlsFiles;
use super::server::{self, FleetError};
use super::store::{self, Found};
use super::store_error::FILE;
use super::{Config, database};

/// Returns what the server would listen on, and what it would serve, in words.
///
/// # Errors
///
/// As [`super::Server::open`], but for a folder that does not exist yet, and for an address that is in use. Blocks.
pub fn check(config: Config) -> Result<Vec<(&'static str, String)>, FleetError> {
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let mut facts = vec![("listens on", format!("{scheme}://{}", config.listen))];
    if let Some(files) = &config.tls {
        facts.push(("certificate", certificate(files)?));
    }
    let dir = config.data_dir.display().to_string();
    facts.push((
        "data folder",
        if config.data_dir.is_dir() { dir } else { format!("{dir}, which it creates") },
    ));
    facts.push((
        "records",
        match server::database(config.store, config.store_password_file.as_deref())? {
            Some(address) => {
                database::look(&address)?;
                format!("{address}, which answers")
            }
            None => {
                let file = config.data_dir.join(FILE);
                let file = file.display();
                match store::look(&config.data_dir)? {
                    Found::Nothing => format!("{file}: there are none yet"),
                    Found::InUse => format!("{file}: a server that runs has them open"),
                    Found::Unclosed => format!(
                        "{file}: they were not closed, e.g. by a power cut, and are checked at the start"
                    ),
                    Found::Records(count) => format!("{file}: {count}"),
                }
            }
        },
    ));
    facts.push(("connections", config.connections.to_string()));
    if config.paused {
        facts.push(("paused", "devices keep their targets".to_owned()));
    }
    Ok(facts)
}

fn certificate(files: &TlsFiles) -> Result<String, FleetError> {
    let path = files.cert.display().to_string();
    Ok(match files.read()?.expires() {
        Some(expires) => format!("{path}, until {expires}"),
        None => path,
    })
}
