//! The devices of a fleet: searched, sorted, chosen, page by page.

use maud::{Markup, html};

use super::fields::encoded;
use super::fleets::bar;
use super::parts::{age, commit, grouped, icon, named, sign, state, state_words, tone};
use super::query::TableQuery;
use super::site::Visitor;
use crate::fleet::access::Permission;
use crate::fleet::operator_api::{DeviceRow, DeviceRows};
use crate::model::text::one_line;
use crate::wire::operator_api::{DeviceRollout, DeviceState, DeviceView, FleetView};

/// Maximum number of tags of a device that a row shows.
const TAGS: usize = 3;

pub(super) fn shown(visitor: &Visitor, fleet: &FleetView, asked: &TableQuery, rows: &DeviceRows) -> Markup {
    let may_act = visitor.may(Permission::RollOut);
    html! {
        section.stack aria-labelledby="devices-title" {
            h2.visually-hidden #devices-title { "Devices" }
            div #states data-live-part { (states(fleet, asked, rows)) }
            (search(fleet, asked))
            form.card.table-card #devices-form method="get" action={ "/fleets/" (fleet.number) "/actions/pin" } data-dialog {
                @for (name, value) in asked.fields().into_iter().filter(|(name, _)| !["after", "sort"].contains(name)) {
                    @if !value.is_empty() { input type="hidden" name=(name) value=(value); }
                }
                input type="hidden" name="back" value=(asked.address(fleet.number));
                @if may_act { (toolbar(visitor, fleet, rows)) }
                div #devices data-live-part { (table(fleet, asked, rows, may_act)) }
            }
        }
    }
}

/// How many devices are in each state, each a link to these.
fn states(fleet: &FleetView, asked: &TableQuery, rows: &DeviceRows) -> Markup {
    let chip = |word: &str, shape: Markup, tone: &str, words: &str, count: usize| {
        let is_chosen = asked.state == word;
        let state = if is_chosen { String::new() } else { word.to_owned() };
        let address = TableQuery { state, ..asked.at_start() }.address(fleet.number);
        html! {
            a.chip.(tone) href=(address) aria-current=[is_chosen.then_some("true")] data-keep {
                (shape) strong { (grouped(count)) } " " (words)
            }
        }
    };
    html! {
        (bar(&rows.states, rows.devices))
        nav.chips aria-label="States" {
            (chip("", html! {}, "all", "All", rows.devices))
            @for known in DeviceState::ALL {
                @if let Some(count) = rows.states.get(&known).copied().or((asked.state == known.as_str()).then_some(0)) {
                    (chip(known.as_str(), sign(known.as_str()), tone(known), state_words(known), count))
                }
            }
            @if rows.pinned > 0 || asked.state == "pinned" {
                (chip("pinned", icon("pin"), "idle", "Pinned", rows.pinned))
            }
        }
    }
}

/// The fields to search by.
pub(super) fn search(fleet: &FleetView, asked: &TableQuery) -> Markup {
    html! {
        form.search method="get" action={ "/fleets/" (fleet.number) } role="search" aria-label="Devices" {
            div.field {
                label for="name" { "Name or UUID" }
                input #name type="search" name="name" value=(asked.name) placeholder="north" spellcheck="false";
            }
            div.field.wide-field {
                label for="filter" { "Tags" }
                input #filter type="search" name="filter" value=(asked.filter) placeholder="site=north,!beta" spellcheck="false"
                    aria-describedby="filter-help";
                span.visually-hidden #filter-help { "Conditions with commas between them: key=value, key!=value, key, or !key" }
            }
            @for (name, value) in [("state", &asked.state), ("sort", &asked.sort)] {
                @if !value.is_empty() { input type="hidden" name=(name) value=(value); }
            }
            button type="submit" { "Filter" }
            @if asked.is_narrowed() { a.clear href={ "/fleets/" (fleet.number) } { "Clear" } }
        }
    }
}

fn toolbar(visitor: &Visitor, fleet: &FleetView, rows: &DeviceRows) -> Markup {
    let act = |action: &str, words: &str| {
        html! {
            button type="submit" formaction={ "/fleets/" (fleet.number) "/actions/" (action) } { (words) }
        }
    };
    html! {
        div.toolbar {
            label.check {
                input type="checkbox" name="all" value="1" #all;
                span { "All " span #selected-count data-live-part { (grouped(rows.selected)) } " of this selection" }
            }
            span.muted #chosen role="status" { }
            details.menu.actions data-menu {
                summary.button { "Actions" }
                div.sheet {
                    (act("pin", "Pin to release…"))
                    (act("track", "Track fleet…"))
                    @if visitor.may(Permission::Devices) {
                        (act("tag", "Tag…"))
                        (act("move", "Move to fleet…"))
                    }
                }
            }
        }
    }
}

fn table(fleet: &FleetView, asked: &TableQuery, rows: &DeviceRows, may_act: bool) -> Markup {
    if rows.rows.is_empty() {
        return html! {
            div.nothing {
                p { strong { "No device matches." } }
                p { a href={ "/fleets/" (fleet.number) } { "Show all " (grouped(rows.devices)) } }
            }
        };
    }
    html! {
        table.devices {
            thead {
                tr {
                    @if may_act {
                        th.pick scope="col" { input type="checkbox" #page-all aria-label="Choose all devices of this page" hidden; }
                    }
                    (head(fleet, asked, "name", "Device"))
                    (head(fleet, asked, "state", "State"))
                    (head(fleet, asked, "policy", "Release policy"))
                    th scope="col" { "Target" }
                    th scope="col" { "Running" }
                    th scope="col" { "Tags" }
                    (head(fleet, asked, "seen", "Last seen"))
                }
            }
            tbody {
                @for row in &rows.rows { (row_of(fleet, row, may_act)) }
            }
        }
        (pager(fleet, asked, rows))
    }
}

fn head(fleet: &FleetView, asked: &TableQuery, column: &str, words: &str) -> Markup {
    let current = if asked.sort.is_empty() { "name" } else { &asked.sort };
    let (order, next) = match current.strip_prefix('-') {
        Some(reversed) if reversed == column => (Some("descending"), column.to_owned()),
        None if current == column => (Some("ascending"), format!("-{column}")),
        Some(_) | None => (None, column.to_owned()),
    };
    let address = TableQuery { sort: next, ..asked.at_start() }.address(fleet.number);
    html! {
        th scope="col" aria-sort=[order] { a href=(address) data-keep { (words) } }
    }
}

fn row_of(fleet: &FleetView, row: &DeviceRow, may_act: bool) -> Markup {
    let DeviceRow { device, rollout } = row;
    let number = fleet.number.to_string();
    html! {
        tr {
            @if may_act {
                td.pick {
                    input type="checkbox" name="device" value=(device.uuid) aria-label={ "Choose " (one_line(&device.name)) };
                }
            }
            th scope="row" {
                a.name href={ "/devices/" (device.uuid) } { (named(&device.name)) }
                span.uuid title=(device.uuid) { (&device.uuid[..7.min(device.uuid.len())]) }
                (online(device))
            }
            td data-label="State" {
                (state(device.state))
                @if !device.why.is_empty() { p.why { (one_line(&device.why)) } }
            }
            td data-label="Policy" { (policy(device, rollout.as_ref())) }
            td data-label="Target" { (commit(&number, device.target.as_deref())) }
            td data-label="Running" { (commit(&number, device.running.as_deref())) }
            td data-label="Tags" { (tags(fleet, device)) }
            td data-label="Seen" {
                @if let Some(seen) = device.last_seen { (age(seen)) } @else { span.muted { "never" } }
            }
        }
    }
}

pub(super) fn online(device: &DeviceView) -> Markup {
    match device.is_online {
        true => html! { span.online { "Online" } },
        false => html! { span.online.not { "Offline" } },
    }
}

/// What decides the target of a device.
pub(super) fn policy(device: &DeviceView, rollout: Option<&DeviceRollout>) -> Markup {
    let wave = rollout.and_then(|rollout| rollout.wave.filter(|_| rollout.why.is_empty()));
    match (device.pin.is_some(), wave) {
        (true, _) => html! { span.policy.pinned { (icon("pin")) "Pinned" } },
        (false, Some(wave)) => html! { span.policy { (icon("wave")) "Rollout wave " (wave) } },
        (false, None) => html! { span.policy { (icon("follow")) "Following" } },
    }
}

fn tags(fleet: &FleetView, device: &DeviceView) -> Markup {
    let more = device.tags.len().saturating_sub(TAGS);
    html! {
        @for (key, value) in device.tags.iter().take(TAGS) {
            a.tag title={ (one_line(key)) "=" (one_line(value)) } href={ "/fleets/" (fleet.number) "?filter=" (encoded(&format!("{key}={value}"))) } { (tag_words(key, value)) }
        }
        @if more > 0 { a.tag href={ "/devices/" (device.uuid) } { "+" (more) } }
    }
}

/// A tag as text.
pub(super) fn tag_words(key: &str, value: &str) -> Markup {
    html! { bdi { (one_line(key)) @if !value.is_empty() { "=" (one_line(value)) } } }
}

fn pager(fleet: &FleetView, asked: &TableQuery, rows: &DeviceRows) -> Markup {
    let link = |cursor: &Option<String>, words: &str, rel: &str| {
        cursor.as_ref().map_or_else(
            || html! { span.off { (words) } },
            |after| {
                let address = TableQuery { after: after.clone(), ..asked.clone() }.address(fleet.number);
                html! { a href=(address) rel=(rel) data-keep { (words) } }
            },
        )
    };
    let last = rows.first + rows.rows.len() - 1;
    html! {
        nav.pager aria-label="Pages" {
            span.muted { (grouped(rows.first)) "–" (grouped(last)) " of " (grouped(rows.selected)) }
            (link(&rows.before, "Previous", "prev"))
            (link(&rows.next, "Next", "next"))
        }
    }
}
