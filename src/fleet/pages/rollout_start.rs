//! Starting a rollout: first the form, then the plan wave by wave, then the start.

use axum::extract::{Extension, Path};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::choice::{self, For};
use super::fields::{Fields, encoded, query};
use super::layout::{self, Place};
use super::parts::{counted, csrf, grouped, named, plain_commit, short};
use super::rollout_form;
use super::rollout_picture::after;
use super::rollouts::definition;
use super::site::{Got, Visitor};
use super::trouble::Trouble;
use crate::fleet::access::{Permission, Scope};
use crate::fleet::secret;
use crate::wire::operator_api::{Code, FleetView, RolloutView, StartRollout, WebhookView};

/// The form; once it is filled in, the plan.
pub(super) async fn page(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    visitor.needs(Permission::RollOut)?;
    let start = Start::of(&visitor, &fields, &fleet).await?;
    if fields.get("plan").is_none() {
        return Ok(start.shown(&start.form(None).await?));
    }
    let content = match start.asked(true).await {
        Ok(plan) => start.plan(&plan),
        Err(trouble) => {
            let content = start.form(Some(&trouble)).await?;
            return Ok(start.refused(&trouble, &content));
        }
    };
    Ok(start.shown(&content))
}

/// Starts the rollout, if the fleet is as it was when the plan was shown.
pub(super) async fn act(
    Extension(visitor): Extension<Visitor>,
    Extension(fields): Extension<Fields>,
    Path(fleet): Path<String>,
) -> Result<Response, Trouble> {
    let start = Start::of(&visitor, &fields, &fleet).await?;
    if !start.is_as_shown() {
        return Ok(start.changed());
    }
    match start.asked(false).await {
        Ok(rollout) => {
            let commit = rollout.release.as_deref().unwrap_or_default();
            let message = format!("Rollout {} of {} has started.", rollout.number, short(commit));
            Ok(visitor.done(&start.back(), message))
        }
        Err(trouble) => {
            let content = start.form(Some(&trouble)).await?;
            Ok(start.refused(&trouble, &content))
        }
    }
}

/// A rollout that is to start.
struct Start<'a> {
    visitor: &'a Visitor,
    fields: &'a Fields,
    fleet: Got<FleetView>,
    /// The rollout of the fleet that is not over.
    open: Option<RolloutView>,
}

impl<'a> Start<'a> {
    async fn of(visitor: &'a Visitor, fields: &'a Fields, fleet: &str) -> Result<Self, Trouble> {
        let path = format!("/fleets/{}", encoded(fleet));
        let fleet = visitor.get::<FleetView>(&path).await?;
        let current = format!("/fleets/{}/rollouts/current", fleet.value.number);
        let open = visitor.get::<RolloutView>(&current).await.ok().map(|got| got.value);
        let open = open.filter(|rollout| rollout.ended.is_none());
        Ok(Self { visitor, fields, fleet, open })
    }

    fn back(&self) -> String {
        format!("/fleets/{}/rollouts", self.fleet.value.number)
    }

    fn address(&self) -> String {
        format!("{}/start", self.back())
    }

    fn shown(&self, content: &Markup) -> Response {
        let fleet = &self.fleet.value;
        let title = format!("Start a rollout in {}", fleet.name);
        let place = Place::of_fleet(title, fleet.number, &fleet.name, "rollouts");
        layout::page(self.visitor, &place, content).into_response()
    }

    fn refused(&self, trouble: &Trouble, content: &Markup) -> Response {
        let mut response = self.shown(content);
        *response.status_mut() = trouble.status;
        response
    }

    /// Asks the API for the plan (`dry_run`), or to start.
    async fn asked(&self, dry_run: bool) -> Result<RolloutView, Trouble> {
        self.visitor.act(Method::POST, &self.path(), &self.request(dry_run)?, None).await
    }

    /// The path of the API for a start.
    fn path(&self) -> String {
        format!("/fleets/{}/rollouts", self.fleet.value.number)
    }

    fn request(&self, dry_run: bool) -> Result<StartRollout, Trouble> {
        Ok(StartRollout {
            release: self.fields.text("release"),
            definition: rollout_form::definition(self.fields)?,
            supersede: self.fields.get("supersede").is_some(),
            dry_run,
        })
    }

    /// Returns whether the fleet, and the rollout that this one replaces, are those of the plan.
    fn is_as_shown(&self) -> bool {
        let is_same_fleet = self.fields.get("etag") == Some(self.fleet.etag.as_str());
        let open = self.open.as_ref();
        // One that has ended since is replaced by none.
        let is_same_rollout = open.is_none() || self.fields.text("replaces") == number_of(open);
        // The user sends the form again, because no answer came: then the rollout that goes on is the one that it has
        // started. Another user may have started the same.
        let is_of_plan = |open: &RolloutView| {
            open.release.as_deref() == self.fields.get("release")
                && self.fields.text("defined") == digest(&open.definition)
        };
        let has_started =
            || self.request(false).is_ok_and(|request| self.visitor.has_done(&self.path(), &request));
        let is_repeat = open.is_some_and(is_of_plan) && has_started();
        is_same_fleet && (is_same_rollout || is_repeat || self.fields.get("supersede").is_none())
    }

    async fn form(&self, trouble: Option<&Trouble>) -> Result<Markup, Trouble> {
        let releases = choice::releases(self.visitor, self.fleet.value.number).await?;
        let webhooks = self.webhooks().await?;
        Ok(html! {
            section.card.panel data-panel {
                h1 #dialog-title { "Start a rollout in " (named(&self.fleet.value.name)) }
                @if let Some(trouble) = trouble { (layout::failure(trouble)) }
                form method="get" action=(self.address()) data-dialog {
                    input type="hidden" name="plan" value="1";
                    p.label { "Release" }
                    (choice::menu(&releases, For::Rollout, self.fields.get("release")))
                    (rollout_form::shown(self.fields, webhooks.as_deref()))
                    @if let Some(open) = &self.open {
                        label.check {
                            input type="checkbox" name="supersede" value="1" checked[self.fields.get("supersede").is_some()];
                            span { "Replace rollout " (open.number) ", which is " (open.phase) }
                        }
                    }
                    div.buttons {
                        button.primary type="submit" { "Show the plan" }
                        a.button href=(self.back()) data-close { "Cancel" }
                    }
                }
            }
        })
    }

    /// Returns the names of the webhooks, if the user may see them.
    async fn webhooks(&self) -> Result<Option<Vec<String>>, Trouble> {
        if !self.visitor.may(Permission::Administer) || *self.visitor.caller.scope != Scope::All {
            return Ok(None);
        }
        let webhooks = self.visitor.get::<Vec<WebhookView>>("/webhooks").await?.value;
        Ok(Some(webhooks.into_iter().map(|webhook| webhook.name).collect()))
    }

    fn plan(&self, plan: &RolloutView) -> Markup {
        let again = query(self.fields.without(&["plan", "csrf", "etag", "replaces", "defined"]));
        html! {
            section.card.panel data-panel {
                h1 #dialog-title { "Roll out " (plain_commit(plan.release.as_deref())) " to " (named(&self.fleet.value.name)) }
                (waves(plan))
                (self.notes(plan))
                details.evidence { summary { "Definition" } (definition(&plan.definition)) }
                form method="post" action=(self.address()) data-dialog {
                    (csrf(&self.visitor.csrf))
                    @for (name, value) in self.fields.without(&["csrf", "etag", "replaces", "defined"]) {
                        input type="hidden" name=(name) value=(value);
                    }
                    input type="hidden" name="etag" value=(self.fleet.etag);
                    input type="hidden" name="replaces" value=(number_of(self.open.as_ref()));
                    input type="hidden" name="defined" value=(digest(&plan.definition));
                    div.buttons {
                        button.primary type="submit" { "Start rollout" }
                        a.button href={ (self.address()) "?" (again) } data-dialog { "Change it" }
                        a.button href=(self.back()) data-close { "Cancel" }
                    }
                }
            }
        }
    }

    fn notes(&self, plan: &RolloutView) -> Markup {
        let all = self.fleet.value.devices;
        let others = all.saturating_sub(usize::try_from(plan.devices).unwrap_or(usize::MAX));
        let is_pull_back = plan.definition["on_halt"] == "pull-back";
        html! {
            @if others > 0 {
                p.note { "Not part of it: " (counted(others, "device")) ", because of a pin of its own, the tag rollout=never, or the filter." }
            }
            p.note {
                "If too many devices fail, it halts: no further device gets the release"
                @if is_pull_back { ", and those that have it go back" } @else { ", and those that have it keep it" } "."
            }
            @if let Some(open) = &self.open {
                p.why-box {
                    "This ends rollout " (open.number) ". Its "
                    (counted(usize::try_from(open.tally.exposed).unwrap_or(usize::MAX), "exposed device"))
                    " will follow the target of the fleet, until this rollout reaches them."
                }
            }
        }
    }

    fn changed(&self) -> Response {
        let trouble = Trouble::new(Code::PreconditionFailed, "").as_changed("fleet or its rollout");
        let again = query(self.fields.without(&["csrf", "etag", "replaces", "defined"]));
        let content = html! {
            section.card.panel data-panel {
                h1 #dialog-title { "Another user changed this first" }
                (layout::failure(&trouble))
                div.buttons {
                    a.button.primary href={ (self.address()) "?" (again) } data-dialog { "Preview it again" }
                    a.button href=(self.back()) data-close { "Leave it" }
                }
            }
        };
        self.refused(&trouble, &content)
    }
}

/// Identifies a definition in the form of its plan.
fn digest(definition: &Value) -> String {
    secret::hex(&Sha256::digest(definition.to_string()))
}

/// The number of a rollout as text; empty for none.
fn number_of(rollout: Option<&RolloutView>) -> String {
    rollout.map(|rollout| rollout.number.to_string()).unwrap_or_default()
}

/// The waves of a plan: which devices, how many, and when.
fn waves(plan: &RolloutView) -> Markup {
    let many = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let confirm = plan.definition["confirm"].as_str();
    html! {
        div.preview {
            p.big { (counted(many(plan.devices), "device")) " in " (counted(plan.waves.len(), "wave")) }
            table.moves {
                thead { tr { th scope="col" { "Wave" } th scope="col" { "Devices" } th scope="col" { "Begins" } } }
                tbody {
                    @for (index, wave) in plan.waves.iter().enumerate() {
                        tr {
                            th scope="row" { (index + 1) ": " (named(&wave.wave)) }
                            td {
                                (grouped(many(wave.devices)))
                                @if wave.reachable < wave.devices { span.muted { ", " (grouped(many(wave.reachable))) " reachable" } }
                            }
                            td { @if wave.earliest_s == 0 { "at once" } @else { "after " (after(wave.earliest_s)) " at the earliest" } }
                        }
                    }
                }
            }
            @if let Some(confirm) = confirm { p.muted { "Each wave also waits for the webhook " (named(confirm)) "." } }
        }
    }
}
