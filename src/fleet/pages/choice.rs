//! The menu of releases, and whom a choice would move.

use maud::{Markup, html};

use super::parts::{age, counted, flags, grouped, named, plain_commit, short};
use super::site::Visitor;
use super::trouble::Trouble;
use crate::fleet::operator_api::{Moves, ReleaseRows};
use crate::model::ReleaseStatus;
use crate::wire::operator_api::ReleaseView;

/// Maximum number of releases in a menu. Older ones are chosen on their own pages.
const MOST: usize = 200;

/// What a menu is for: a fleet takes only what it could track, a device or a rollout also a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Fleet,
    Devices,
    Rollout,
}

/// Reads the newest releases of a fleet, for a menu.
pub(super) async fn releases(visitor: &Visitor, fleet: u64) -> Result<ReleaseRows, Trouble> {
    let path = format!("/pages/releases?fleet={fleet}&limit={MOST}");
    Ok(visitor.get::<ReleaseRows>(&path).await?.value)
}

/// A list of releases to choose one from. Releases that cannot be chosen are disabled; their flags show why.
pub(super) fn menu(releases: &ReleaseRows, what: For, chosen: Option<&str>) -> Markup {
    let is_listed = |chosen: &&str| releases.rows.iter().any(|release| release.commit == **chosen);
    let older = chosen.filter(|chosen| !is_listed(chosen));
    html! {
        fieldset.menu-of-releases {
            legend.visually-hidden { "Release" }
            @if let Some(older) = older {
                label.option {
                    input type="radio" name="release" value=(older) required checked;
                    (plain_commit(Some(older)))
                    span.muted { "an older release" }
                }
            }
            @for release in &releases.rows {
                @let is_open = is_open(release, what);
                label.option.off[!is_open] {
                    input type="radio" name="release" value=(release.commit) disabled[!is_open] required
                        checked[chosen == Some(release.commit.as_str())];
                    code.commit title=(release.commit) { (short(&release.commit)) }
                    span.muted { (age(release.start_timestamp)) }
                    (flags(release))
                    @if release.running_devices > 0 {
                        span.muted.right { (counted(release.running_devices, "device")) }
                    }
                }
            }
            @if releases.releases > releases.rows.len() {
                p.muted { "These are the newest " (releases.rows.len()) ". An older one is chosen on its own page." }
            }
        }
    }
}

fn is_open(release: &ReleaseView, what: For) -> bool {
    let is_whole = release.status == ReleaseStatus::Success && !release.is_invalidated;
    match what {
        For::Fleet => is_whole && release.is_final,
        For::Devices => is_whole,
        For::Rollout => is_whole && !release.is_fleet_target,
    }
}

/// A preview of the devices that a change would move to another release.
pub(super) fn preview(moves: &Moves, of: &str) -> Markup {
    html! {
        div.preview {
            p.big {
                @if moves.moved == 0 { "No device gets another release" }
                @else { (counted(moves.moved, "device")) " of " (grouped(moves.devices)) " " (of) }
                @if moves.moved > 0 {
                    @if moves.to.is_some() { " will run " (plain_commit(moves.to.as_deref())) } @else { " will get another release" }
                }
            }
            @if !moves.rows.is_empty() {
                table.moves {
                    thead { tr { th scope="col" { "Device" } th scope="col" { "From" } th scope="col" { "To" } } }
                    tbody {
                        @for row in &moves.rows {
                            tr {
                                th scope="row" { (named(&row.name)) }
                                td { (plain_commit(row.before.as_deref())) }
                                td { (plain_commit(row.after.as_deref())) }
                            }
                        }
                    }
                }
                @if moves.moved > moves.rows.len() {
                    p.muted { "And " (counted(moves.moved - moves.rows.len(), "more device")) "." }
                }
            }
        }
    }
}
