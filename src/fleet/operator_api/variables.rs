//! `/api/v1/variables`, and the variables of one fleet or device. No answer contains the value of a secret variable.

use axum::response::Response;
use serde::Deserialize;

use super::answer::{ApiError, Params, Path, SecretBody};
use super::desk::{Acting, Desk, Seen};
use super::devices::fleet_name;
use super::etag::{self, ETag};
use super::pages::{self, Page};
use crate::fleet::policy::{Change, Refusal, Variable, VariableChange, VariableHolder, Variables, World};
use crate::fleet::reach;
use crate::model::{DeviceUuid, ServiceName};
use crate::wire::operator_api::{ChangeVariables, Code, RestartView, VariableView, VariablesChanged};

/// Which variables are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// Those of this fleet.
    fleet: Option<String>,
    /// Those that reach this device: its own, and those of its fleet.
    device: Option<String>,
    /// Those that are for this service only.
    service: Option<String>,
    name: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// The place of a row in the list.
type Place = (VariableHolder, Option<ServiceName>, String);

pub(super) async fn list(records: Desk, Params(which): Params<Which>) -> Result<Response, ApiError> {
    let Which { fleet, device, service, name, limit, cursor } = which;
    // An empty one is none.
    let service = service.filter(|service| !service.is_empty());
    let after = pages::cursor(cursor.as_deref(), place)?;
    pages::page(&records, move |_, world| {
        let is_wanted = |(holder, of, variable): &(&VariableHolder, Option<&ServiceName>, &String)| {
            // What is for all services reaches this service of the device, too.
            let is_of = |of: &ServiceName| service.as_ref().is_none_or(|service| of.as_str() == *service);
            of.map_or(service.is_none() || device.is_some(), is_of)
                && name.as_ref().is_none_or(|name| name == *variable)
                && after.as_ref().is_none_or(|(h, s, n)| (*holder, *of, *variable) > (h, s.as_ref(), n))
        };
        let begin = after.as_ref().map(|(holder, ..)| holder);
        let holders = holders(world, fleet.as_deref(), device.as_deref())?;
        let rows = holders.as_ref().map_or_else(
            || Box::new(world.variable_holders(begin)) as Box<dyn Iterator<Item = _>>,
            |holders| Box::new(holders.iter().map(|holder| (holder, world.variables(holder)))),
        );
        let rows =
            rows.flat_map(|(holder, variables)| variables.iter().map(move |(s, n, v)| (holder, s, n, v)));
        let rows = rows.filter(|(holder, service, name, _)| is_wanted(&(holder, *service, name)));
        let winners =
            device.as_deref().map(|device| Winners::new(world, device, service.as_deref())).transpose()?;
        let row = |(holder, service, name, variable)| {
            let mut row = view(world, (holder, service, name), variable);
            row.overridden =
                winners.as_ref().is_some_and(|winners| winners.is_overridden(holder, service, name));
            (cursor_of(holder, service, name), row)
        };
        // The last one is the strongest: the one that was named.
        let of_one = holders.as_ref().and_then(|holders| holders.last());
        let etag = of_one.map(|holder| ETag::of_variables(world, holder));
        Ok(Page::of(rows.map(row), limit)?.tagged(etag))
    })
    .await
}

/// Returns the holders whose variables are listed, the weakest first; `None`: all.
fn holders(
    world: &Seen,
    fleet: Option<&str>,
    device: Option<&str>,
) -> Result<Option<Vec<VariableHolder>>, Refusal> {
    let fleet = fleet.map(|fleet| world.find_fleet(fleet)).transpose()?.map(|fleet| fleet.number);
    Ok(match (fleet, device) {
        (Some(fleet), None) => Some(vec![VariableHolder::Fleet(fleet)]),
        (_, Some(given)) => {
            let device = world.find_device(given)?;
            if fleet.is_some_and(|fleet| fleet != device.fleet) {
                return Err(Refusal::NoSuchDevice { given: given.to_owned() });
            }
            Some(vec![VariableHolder::Fleet(device.fleet), VariableHolder::Device(device.uuid.clone())])
        }
        (None, None) => None,
    })
}

/// Which variables of a device and its fleet win for the services of the device.
struct Winners<'a> {
    fleet: VariableHolder,
    of_fleet: &'a Variables,
    of_device: &'a Variables,
    /// Those of its target, or the one that was asked for.
    services: Vec<ServiceName>,
}

impl<'a> Winners<'a> {
    fn new(world: &'a Seen, device: &str, only: Option<&str>) -> Result<Self, Refusal> {
        let device = world.find_device(device)?;
        let fleet = VariableHolder::Fleet(device.fleet);
        let target = world.target_of(device).into_iter().flat_map(|release| release.content.services.keys());
        let services = match only {
            Some(only) => ServiceName::parse(only).into_iter().collect(),
            None => target.cloned().collect(),
        };
        let of_device = world.variables(&VariableHolder::Device(device.uuid.clone()));
        Ok(Self { of_fleet: world.variables(&fleet), fleet, of_device, services })
    }

    /// Returns whether no service gets this variable from here, because each has one of this name from a stronger level.
    fn is_overridden(&self, holder: &VariableHolder, service: Option<&ServiceName>, name: &str) -> bool {
        fn has(variables: &Variables, service: Option<&ServiceName>, name: &str) -> bool {
            variables.of(service).is_some_and(|map| map.contains_key(name))
        }
        let is_of_fleet = *holder == self.fleet;
        let is_beaten = |of: &ServiceName| {
            let by_device = has(self.of_device, Some(of), name) || has(self.of_device, None, name);
            match (is_of_fleet, service.is_some()) {
                (true, true) => by_device,
                (true, false) => by_device || has(self.of_fleet, Some(of), name),
                (false, true) => false,
                (false, false) => has(self.of_device, Some(of), name),
            }
        };
        match service {
            Some(service) => is_beaten(service),
            // A device without a target has no services.
            None if self.services.is_empty() => is_of_fleet && has(self.of_device, None, name),
            None => self.services.iter().all(is_beaten),
        }
    }
}

fn view(
    world: &World,
    (holder, service, name): (&VariableHolder, Option<&ServiceName>, &String),
    Variable { value, is_secret }: &Variable,
) -> VariableView {
    let device = match holder {
        VariableHolder::Device(uuid) => world.device(uuid),
        VariableHolder::Fleet(_) => None,
    };
    let fleet = match holder {
        VariableHolder::Fleet(number) => Some(*number),
        VariableHolder::Device(_) => device.map(|device| device.fleet),
    };
    VariableView {
        name: name.clone(),
        value: (!is_secret).then(|| value.clone()),
        secret: *is_secret,
        fleet: fleet.map_or_else(String::new, |fleet| fleet_name(world, fleet)),
        device: device.map(|device| device.uuid.to_string()),
        device_name: device.map(|device| device.name.clone()),
        service: service.map(ToString::to_string),
        overridden: false,
    }
}

fn cursor_of(holder: &VariableHolder, service: Option<&ServiceName>, name: &str) -> String {
    let service = service.map_or("", ServiceName::as_str);
    match holder {
        VariableHolder::Fleet(number) => format!("fleet/{number}/{service}/{name}"),
        VariableHolder::Device(uuid) => format!("device/{uuid}/{service}/{name}"),
    }
}

fn place(cursor: &str) -> Option<Place> {
    let mut parts = cursor.splitn(4, '/');
    let (kind, id, service, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let holder = match kind {
        "fleet" => VariableHolder::Fleet(id.parse().ok()?),
        "device" => VariableHolder::Device(DeviceUuid::parse(id).ok()?),
        _ => return None,
    };
    let service = match service {
        "" => None,
        service => Some(ServiceName::parse(service).ok()?),
    };
    Some((holder, service, name.to_owned()))
}

pub(super) async fn change_fleet(
    records: Desk,
    Path(fleet): Path<String>,
    SecretBody(asked): SecretBody<ChangeVariables>,
) -> Result<Response, ApiError> {
    change(&records, asked, move |world, change| {
        let fleet = world.find_fleet(&fleet)?;
        let holder = VariableHolder::Fleet(fleet.number);
        world.expects(&ETag::of_variables(world, &holder))?;
        Ok((holder, world.change_fleet_variables(fleet, change)?))
    })
    .await
}

pub(super) async fn change_device(
    records: Desk,
    Path(device): Path<String>,
    SecretBody(asked): SecretBody<ChangeVariables>,
) -> Result<Response, ApiError> {
    change(&records, asked, move |world, change| {
        let device = world.find_device(&device)?;
        let holder = VariableHolder::Device(device.uuid.clone());
        world.expects(&ETag::of_variables(world, &holder))?;
        Ok((holder, world.change_device_variables(device, change)?))
    })
    .await
}

async fn change(
    records: &Desk,
    asked: ChangeVariables,
    act: impl FnOnce(&Acting<'_>, &VariableChange) -> Result<(VariableHolder, Vec<Change>), Refusal>
    + Send
    + 'static,
) -> Result<Response, ApiError> {
    let ChangeVariables { service, set, secret, remove, dry_run } = asked;
    if set.is_empty() && remove.is_empty() {
        return Err(ApiError::with_remedy(
            Code::BadRequest,
            "no variable is named",
            "give set, remove, or both",
        ));
    }
    let twice = remove.iter().find(|name| set.contains_key(*name));
    if let Some(name) = twice.map(|name| World::shown_variable(name)) {
        return Err(ApiError::with_remedy(
            Code::BadRequest,
            format_args!("{name} is in set and in remove"),
            "name it once",
        ));
    }
    let service = service.as_deref().map(service_name).transpose()?;
    let names = set.keys().chain(&remove).cloned().collect();
    let named = reach::Named { names, service: service.clone() };
    let change = VariableChange { service, set, is_secret: secret, remove: remove.into_iter().collect() };
    let act = move |world: &Acting<'_>| {
        let (holder, changes) = act(world, &change)?;
        let before = World::clone(world);
        let mut after = before.clone();
        changes.iter().for_each(|change| after.apply(change.clone()));
        let worlds = (before, after, holder);
        Ok((worlds, if dry_run { Vec::new() } else { changes }))
    };
    let (before, after, holder) = records.act_unkept(act).await?;
    // Not in the act, so that no other act waits for it.
    let etag = ETag::of_variables(&after, &holder);
    let answer = pages::beside(records, move |_, _| {
        let restarts = reach::restarts(&before, &after, &holder, &named);
        let row = |restart: &reach::Restart| RestartView {
            uuid: restart.uuid.to_string(),
            name: restart.name.clone(),
            services: restart.services.iter().map(ToString::to_string).collect(),
        };
        let rows = restarts.iter().filter(|_| dry_run).map(row).collect();
        Ok(VariablesChanged { dry_run, devices: restarts.len(), restarts: rows })
    });
    let answer = answer.await?;
    Ok(if dry_run { answer } else { etag::with(&etag, answer) })
}

fn service_name(given: &str) -> Result<ServiceName, ApiError> {
    // The text may be a secret in the wrong place.
    let why = "service is not the name of a service; what was given is not shown, because it may be secret";
    ServiceName::parse(given).map_err(|_| ApiError::bad_request(why))
}
