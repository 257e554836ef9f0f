//! The table of routes: for each method its permission, its words in the audit trail, and its handler.

use super::needs::Method::{Delete, Get, Patch, Post};
use super::way::{Route, way};
use super::{
    audit, backup, barred, chosen, devices, exchange, fleets, keys, logs, metrics, migration, openapi,
    overview, release_rows, releases, rollouts, users, variables, webhooks,
};
use crate::fleet::access::Permission::{
    Administer, Audit, Devices, Fleets, Keys, Release, RollOut, See, Variables,
};

/// The routes below `/api/v1`.
pub(in crate::fleet) fn table() -> Vec<Route> {
    let own = || vec![("/openapi.json", vec![way(Get, See, "read this API's document", openapi)])];
    [
        of_fleets(),
        of_rollouts(),
        of_devices(),
        of_releases(),
        of_variables(),
        of_webhooks(),
        of_access(),
        own(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The routes of Prometheus, which are at the root of the server.
pub(in crate::fleet) fn table_of_metrics() -> Vec<Route> {
    vec![
        ("/metrics", vec![way(Get, See, "read metrics", metrics::page).of_the_server()]),
        ("/metrics/targets", vec![way(Get, See, "list devices to scrape", metrics::targets).of_the_server()]),
    ]
}

/// The routes for the dashboard alone.
pub(super) fn table_of_pages() -> Vec<Route> {
    vec![
        ("/pages/devices", vec![way(Get, See, "list devices", overview::devices)]),
        ("/pages/moves", vec![way(Get, See, "preview a change of a fleet", overview::moves)]),
        ("/pages/releases", vec![way(Get, See, "list the releases of a fleet", release_rows::list)]),
        ("/pages/pin", vec![way(Post, RollOut, "pin devices", chosen::pin).of_one()]),
        ("/pages/track-fleet", vec![way(Post, RollOut, "unpin devices", chosen::track).of_one()]),
        ("/pages/tags", vec![way(Post, Devices, "tag devices", chosen::tag).of_one()]),
        ("/pages/move", vec![way(Post, Devices, "move devices", chosen::move_to).of_one()]),
    ]
}

fn of_fleets() -> Vec<Route> {
    vec![
        (
            "/fleets",
            vec![
                way(Get, See, "list fleets", fleets::list),
                way(Post, Fleets, "create a fleet", fleets::create).of_the_server(),
            ],
        ),
        (
            "/fleets/{fleet}",
            vec![
                way(Get, See, "show a fleet", fleets::show).of_one(),
                way(Patch, Fleets, "change a fleet", fleets::patch).of_one(),
            ],
        ),
        ("/fleets/{fleet}/rename", vec![way(Post, Fleets, "rename a fleet", fleets::rename).of_one()]),
        ("/fleets/{fleet}/delete", vec![way(Post, Fleets, "delete a fleet", fleets::delete).of_one()]),
        ("/fleets/{fleet}/pin", vec![way(Post, RollOut, "pin a fleet", fleets::pin).of_one()]),
        (
            "/fleets/{fleet}/track-latest",
            vec![way(Post, RollOut, "let a fleet track its latest release", fleets::track_latest).of_one()],
        ),
        (
            "/fleets/{fleet}/provisioning-keys",
            vec![
                way(Get, See, "list provisioning keys", keys::list),
                way(Post, Keys, "create a provisioning key", keys::create),
            ],
        ),
        (
            "/fleets/{fleet}/provisioning-keys/{key}/revoke",
            vec![way(Post, Keys, "revoke a provisioning key", keys::revoke)],
        ),
        (
            "/fleets/{fleet}/releases",
            vec![
                way(Get, See, "list the releases of a fleet", releases::list_of),
                way(Post, Release, "create a release", releases::create),
            ],
        ),
    ]
}

fn of_rollouts() -> Vec<Route> {
    vec![
        ("/rollouts", vec![way(Get, See, "list the rollouts of all fleets", rollouts::list_all)]),
        (
            "/fleets/{fleet}/rollouts",
            vec![
                way(Get, See, "list the rollouts of a fleet", rollouts::list),
                way(Post, RollOut, "start a rollout", rollouts::start),
            ],
        ),
        (
            "/fleets/{fleet}/rollouts/current",
            vec![way(Get, See, "show the newest rollout of a fleet", rollouts::show)],
        ),
        (
            "/fleets/{fleet}/rollouts/current/pause",
            vec![way(Post, RollOut, "pause a rollout", rollouts::pause)],
        ),
        (
            "/fleets/{fleet}/rollouts/current/resume",
            vec![way(Post, RollOut, "resume a rollout", rollouts::resume)],
        ),
        (
            "/fleets/{fleet}/rollouts/current/approve",
            vec![way(Post, RollOut, "approve the next wave of a rollout", rollouts::approve)],
        ),
        (
            "/fleets/{fleet}/rollouts/current/abort",
            vec![way(Post, RollOut, "abort a rollout", rollouts::abort)],
        ),
        (
            "/fleets/{fleet}/rollouts/current/pull-back",
            vec![way(Post, RollOut, "pull back a rollout", rollouts::pull_back)],
        ),
        (
            "/fleets/{fleet}/rollouts/current/complete",
            vec![way(Post, RollOut, "complete a rollout", rollouts::complete)],
        ),
    ]
}

fn of_devices() -> Vec<Route> {
    vec![
        ("/devices", vec![way(Get, See, "list devices", devices::list)]),
        ("/devices/pin", vec![way(Post, RollOut, "pin devices", devices::pin_many)]),
        ("/devices/track-fleet", vec![way(Post, RollOut, "unpin devices", devices::track_many)]),
        ("/devices/tags", vec![way(Post, Devices, "tag devices", devices::tag_many)]),
        (
            "/devices/migrate",
            vec![way(Post, Administer, "send devices to another server", migration::migrate).of_the_server()],
        ),
        ("/devices/delete", vec![way(Post, Devices, "delete devices", devices::delete_many)]),
        (
            "/devices/{device}",
            vec![
                way(Get, See, "show a device", devices::show).of_one(),
                way(Delete, Devices, "delete a device", devices::delete).of_one(),
            ],
        ),
        ("/devices/{device}/logs", vec![way(Get, See, "read the logs of a device", logs::show)]),
        ("/devices/{device}/pin", vec![way(Post, RollOut, "pin a device", devices::pin).of_one()]),
        (
            "/devices/{device}/track-fleet",
            vec![way(Post, RollOut, "unpin a device", devices::track_fleet).of_one()],
        ),
        ("/devices/{device}/tags", vec![way(Post, Devices, "tag a device", devices::tag).of_one()]),
        ("/devices/{device}/move", vec![way(Post, Devices, "move a device", devices::move_to).of_one()]),
        ("/devices/{device}/rename", vec![way(Post, Devices, "rename a device", devices::rename).of_one()]),
        ("/barred-devices", vec![way(Get, See, "list deleted devices", barred::list)]),
        ("/barred-devices/{device}/allow", vec![way(Post, Devices, "allow a deleted device", barred::allow)]),
    ]
}

fn of_releases() -> Vec<Route> {
    vec![
        ("/releases", vec![way(Get, See, "list releases", releases::list)]),
        (
            "/releases/{release}",
            vec![
                way(Get, See, "show a release", releases::show).of_one(),
                way(Patch, Release, "change a release", releases::patch).of_one(),
                way(Delete, Release, "delete a release", releases::delete).of_one(),
            ],
        ),
    ]
}

fn of_variables() -> Vec<Route> {
    vec![
        ("/variables", vec![way(Get, See, "list variables", variables::list).of_one()]),
        (
            "/fleets/{fleet}/variables",
            vec![way(Post, Variables, "change variables of a fleet", variables::change_fleet).of_one()],
        ),
        (
            "/devices/{device}/variables",
            vec![way(Post, Variables, "change variables of a device", variables::change_device).of_one()],
        ),
    ]
}

fn of_webhooks() -> Vec<Route> {
    vec![
        (
            "/webhooks",
            vec![
                way(Get, Administer, "list webhooks", webhooks::list).of_the_server(),
                way(Post, Administer, "create a webhook", webhooks::create).of_the_server(),
            ],
        ),
        (
            "/webhooks/{webhook}",
            vec![
                way(Get, Administer, "show a webhook", webhooks::show).of_the_server(),
                way(Delete, Administer, "delete a webhook", webhooks::delete).of_the_server(),
            ],
        ),
        (
            "/webhooks/{webhook}/test",
            vec![way(Post, Administer, "test a webhook", webhooks::test).of_the_server()],
        ),
    ]
}

fn of_access() -> Vec<Route> {
    vec![
        (
            "/users",
            vec![
                way(Get, Administer, "list users", users::list).of_the_server(),
                way(Post, Administer, "add a user", users::add).of_the_server(),
            ],
        ),
        ("/users/{user}", vec![way(Get, Administer, "show a user", users::show).of_one().of_the_server()]),
        (
            "/users/{user}/disable",
            vec![way(Post, Administer, "disable a user", users::disable).of_one().of_the_server()],
        ),
        (
            "/users/{user}/enable",
            vec![way(Post, Administer, "enable a user", users::enable).of_one().of_the_server()],
        ),
        (
            "/tokens",
            vec![
                way(Get, Administer, "list tokens", users::list_tokens).of_the_server(),
                way(Post, Administer, "create a token", users::create_token).of_the_server(),
            ],
        ),
        (
            "/tokens/{token}",
            vec![way(Get, Administer, "show a token", users::show_token).of_one().of_the_server()],
        ),
        (
            "/tokens/{token}/revoke",
            vec![way(Post, Administer, "revoke a token", users::revoke_token).of_one().of_the_server()],
        ),
        ("/whoami", vec![way(Get, See, "ask for its own token", users::whoami)]),
        ("/backup", vec![way(Get, Administer, "back up all records", backup::download).of_the_server()]),
        ("/export", vec![way(Get, See, "export", exchange::plain)]),
        (
            "/export/secrets",
            vec![way(Get, Administer, "export with secrets", exchange::with_secrets).of_the_server()],
        ),
        ("/import", vec![way(Post, Administer, "import", exchange::import).of_the_server()]),
        ("/audit", vec![way(Get, Audit, "read the audit trail", audit::list)]),
    ]
}
