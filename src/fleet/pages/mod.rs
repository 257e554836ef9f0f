//! The dashboard: pages for people, rendered here and sent as HTML.
//!
//! A page asks and acts through the operator API's own routes, inside the process ([`site`]). So permissions, the reach of
//! tokens, conditions and the audit trail are the API's, and a page cannot do what the API does not allow. Pages decide
//! nothing about policy. They work without JavaScript; with it they update by themselves and use dialogs.

mod actions;
mod assets;
mod audit;
mod audit_export;
mod choice;
mod compare;
mod device;
mod device_table;
mod fields;
mod fleet;
mod fleets;
mod guard;
mod history;
mod layout;
mod live;
mod logs;
mod new_fleet;
mod once;
mod pager;
mod panel;
mod parts;
mod policy;
mod query;
mod release;
mod release_compare;
mod releases;
mod rollout_form;
mod rollout_picture;
mod rollout_start;
mod rollouts;
mod session;
mod settings;
mod sign_in;
mod site;
mod trouble;
mod variables;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};

use super::courier::Courier;
use super::gate::Gate;
use super::records::Records;
use site::Site;

/// The pages for a signed-in user. Each asks the operator API for what it shows.
fn table() -> Vec<(&'static str, MethodRouter<Arc<Records>>)> {
    vec![
        ("/", get(async || Redirect::to("/fleets"))),
        ("/fleets", get(fleets::page)),
        ("/fleets/{fleet}", get(fleet::page)),
        ("/fleets/{fleet}/policy", get(policy::page).post(policy::act)),
        ("/fleets/{fleet}/actions/{action}", get(actions::page).post(actions::act)),
        ("/fleets/{fleet}/releases", get(releases::page)),
        ("/fleets/{fleet}/releases/{release}", get(release::page).post(release::act)),
        ("/fleets/{fleet}/rollouts", get(rollouts::page).post(rollouts::act)),
        ("/fleets/{fleet}/variables", get(variables::of_fleet).post(variables::change_fleet)),
        ("/devices/{device}", get(device::page)),
        ("/devices/{device}/variables", get(variables::of_device).post(variables::change_device)),
        ("/fleets/{fleet}/rollouts/start", get(rollout_start::page).post(rollout_start::act)),
        ("/new-fleet", get(new_fleet::page).post(new_fleet::act)),
        ("/devices/{device}/logs", get(logs::stream)),
        ("/audit", get(audit::page)),
        ("/audit/export", get(audit_export::download)),
        ("/settings", get(settings::page)),
        ("/settings/keys", get(settings::keys::page).post(settings::keys::act)),
        ("/settings/access", get(settings::access::page).post(settings::access::act)),
        ("/settings/webhooks", get(settings::webhooks::page).post(settings::webhooks::act)),
        ("/live", get(live::events)),
        ("/sign-out", post(sign_in::sign_out)),
    ]
}

/// The routes of the dashboard. `has_tls` says whether the server itself speaks TLS. `courier` sends tests to webhooks.
pub(super) fn routes(gate: &Arc<Gate>, has_tls: bool, courier: &Courier) -> Router<Arc<Records>> {
    let site = Arc::new(Site::new(gate, has_tls, courier));
    let of_users = table().into_iter().fold(Router::new(), |router, (path, way)| router.route(path, way));
    let of_users = of_users.route_layer(middleware::from_fn_with_state(Arc::clone(&site), guard::signed_in));
    let of_all = Router::new()
        .route("/sign-in", get(sign_in::page).post(sign_in::sign_in))
        .layer(axum::Extension(Arc::clone(&site)));
    of_users
        .merge(of_all)
        .route_layer(middleware::from_fn_with_state(has_tls, guard::with_headers))
        .route("/static/{file}", get(assets::file))
}
