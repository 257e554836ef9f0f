//! `cotter device tag`: sets and removes tags of a device, or of all that match a filter.

use std::collections::BTreeMap;

use clap::Args;

use super::client::{Client, FILTER, Plain};
use super::device_list;
use super::exit::Usage;
use super::print;
use crate::wire::operator_api::{BulkView, DeviceView, TagDevice, TagMany};

/// Which devices a command is for: all that match.
#[derive(Debug, Args)]
pub(super) struct Bulk {
    #[arg(long, help = FILTER)]
    pub(super) filter: Option<String>,
    /// Only devices of this fleet
    #[arg(long, requires = "filter")]
    pub(super) fleet: Option<String>,
    /// Shows which devices would be changed, and changes none
    #[arg(long, requires = "filter")]
    pub(super) dry_run: bool,
}

/// Arguments of `cotter device tag`.
#[derive(Debug, Args)]
pub(super) struct Tag {
    /// The device (not with --filter), then the tags to set: name or uuid of the device, or the first 4 or more digits of
    /// the uuid
    #[arg(value_name = "DEVICE KEY=VALUE")]
    names: Vec<String>,
    /// Tag to remove; may be repeated
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    #[command(flatten)]
    bulk: Bulk,
    #[command(flatten)]
    plain: Plain,
}

/// Changes the tags. Prints many devices; returns a single one, and whether it is wanted as JSON.
pub(super) async fn run(
    Tag { names, remove, bulk, plain }: Tag,
) -> anyhow::Result<Option<(DeviceView, bool)>> {
    let nothing = || Usage("give tags to set, KEY=VALUE, or to remove, --remove KEY".to_owned());
    let Some(filter) = bulk.filter else {
        let Some((device, set)) = names.split_first() else {
            return Err(Usage("give a device and its tags, or --filter and tags".to_owned()).into());
        };
        let body = TagDevice { set: pairs(set)?, remove };
        if body.set.is_empty() && body.remove.is_empty() {
            return Err(nothing().into());
        }
        let client = Client::new(plain.connection)?;
        return Ok(Some((client.post(&["devices", device, "tags"], &body).await?, plain.json)));
    };
    let body = TagMany { filter, fleet: bulk.fleet, set: pairs(&names)?, remove, dry_run: bulk.dry_run };
    if body.set.is_empty() && body.remove.is_empty() {
        return Err(nothing().into());
    }
    let view: BulkView = Client::new(plain.connection)?.post(&["devices", "tags"], &body).await?;
    if plain.json {
        return print::json("bulk", &view).map(|()| None);
    }
    let rows = view.devices.iter().map(|device| {
        let tags = device.tags.as_ref().map(device_list::tags);
        [
            print::short(Some(&device.uuid)),
            device.name.clone(),
            device.fleet.clone(),
            print::or_dash(tags.as_deref()),
        ]
    });
    print::table(["UUID", "NAME", "FLEET", "TAGS ARE"], rows, "no device")?;
    if view.dry_run {
        print::note("nothing was changed: this was a dry run");
    }
    Ok(None)
}

fn pairs(tags: &[String]) -> Result<BTreeMap<String, String>, Usage> {
    let mut pairs = BTreeMap::new();
    for tag in tags {
        let Some((key, value)) = tag.split_once('=') else {
            return Err(Usage(format!("{tag:?} is not a tag; write KEY=VALUE (VALUE may be empty)")));
        };
        if pairs.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(Usage(format!("the tag {key:?} is set twice: set it once")));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_is_given_twice_is_named() {
        let given = ["ring=a", "site=x", "ring=b"].map(str::to_owned);
        assert_eq!(
            pairs(&given).map_err(|Usage(why)| why),
            Err("the tag \"ring\" is set twice: set it once".into())
        );
        assert_eq!(pairs(&given[..2]).map(|pairs| pairs.len()).map_err(|Usage(why)| why), Ok(2));
    }
}
