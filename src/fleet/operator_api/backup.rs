//! `/api/v1/backup`: a copy of all records at one moment.

use axum::response::Response;

use super::desk::Desk;
use super::stream::{Broken, Lines, json_lines};
use crate::fleet::access::Which;
use crate::fleet::backup::Writer;
use crate::fleet::clock;
use crate::fleet::policy::Change;

/// Records of the audit trail that are read at once.
const OF_THE_TRAIL: usize = 1000;

/// Bytes after which the token is checked again.
const BETWEEN_CHECKS: usize = 64 * 1024;

/// Sends a backup of the records as they are now. It is made while it is sent, so it takes little memory. An answer that ends
/// early has no last line, and so is no good backup.
pub(super) async fn download(desk: Desk) -> Response {
    json_lines(move |lines| write(&desk, lines))
}

/// Writes until the end, or until the client has gone. The audit trail is as old as the other records.
fn write(desk: &Desk, to: &mut Lines) -> Result<(), Broken> {
    let world = desk.world();
    let (mut writer, head) = Writer::begin(clock::now())?;
    to.take(&head);
    let mut sent = 0;
    let mut take = |record: &Change| {
        let line = writer.record(record)?;
        sent += line.len();
        if sent >= BETWEEN_CHECKS {
            // The client may take long to read, and its token may end meanwhile.
            desk.check_token()?;
            sent = 0;
        }
        Ok::<_, Broken>(to.take(&line))
    };
    for record in world.records() {
        if !take(&record)? {
            return Ok(());
        }
    }
    let mut below = Some(world.audited() + 1);
    while let Some(number) = below {
        let page = desk.audit_page(&Which::default(), number, OF_THE_TRAIL)?;
        for entry in page.entries {
            if !take(&entry.into())? {
                return Ok(());
            }
        }
        below = page.below;
    }
    desk.check_token()?;
    to.take(&writer.end());
    Ok(())
}
