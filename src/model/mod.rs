//! The types that all rooms share. No I/O, no async, no clock, no JSON documents.
//!
//! Everything here is plain data that can be compared, printed and stored.

mod alert;
mod causes;
mod cloud_variable;
mod content_file;
mod counts;
mod download;
mod elapsed;
mod enrolment;
mod event;
mod evidence;
mod exposure;
mod facts;
mod fleet_ref;
mod forecast;
mod hardware;
mod healthcheck;
mod history;
mod host_error;
mod host_need;
mod id;
mod identity;
mod image;
mod introduction;
mod isolation;
mod label;
mod ledger;
mod limits;
mod log;
mod login;
mod moves;
mod names;
mod observed;
mod order;
mod platform;
mod policy;
pub mod quantity;
mod registry_prefix;
mod release;
mod release_limits;
mod release_status;
mod report;
mod service;
mod settings;
mod step;
mod succession;
mod tags;
mod target;
pub mod text;
mod vpn;
mod window;
mod zone;

pub use alert::Alert;
pub use causes::{Cause, innermost_cause, with_causes};
pub use cloud_variable::{
    Answered, AnsweredVariable, CLOUD_VARIABLES, CloudVariable, POLL_BOUNDS, POLL_INTERVAL, Standing, Takes,
};
pub use content_file::ContentFile;
pub use counts::{Attempted, ByService, Counts, Lasted};
pub use download::{Download, DownloadProgress, PullProgress, Transfer};
pub use elapsed::Elapsed;
pub use enrolment::{Admission, Enrolment};
pub use event::{Event, EventKind, Events};
pub use evidence::{Evidence, EvidenceBook, FailedProbe, LAST_LINES, LastEnd, last_lines};
pub use exposure::{EXPOSURE_REMEDY, exposed_host, exposure, is_loopback};
pub use facts::{Clock, Facts, FileLock, HeldPort, ImageSize, WindowState, runs};
pub use fleet_ref::{FLEET_ACCEPTS, FleetRef};
pub use forecast::{Forecast, ForeseenStage};
pub use hardware::{Hardware, Load, ReportedAccess};
pub use healthcheck::{Healthcheck, Probe};
pub use history::{Happening, History, What};
pub use host_error::{LockError, MountError, RangeTaken};
pub use host_need::HostNeed;
pub use id::{
    AppId, BadId, Commit, ContainerId, DeviceUuid, Id, Instance, Kind, NetworkId, NetworkName, ServiceName,
    SpecHash, VolumeName,
};
pub use identity::{Identity, Registration};
pub use image::{BadImage, ImageRef};
pub use introduction::{
    Access, ApiClient, ApiContainer, ApiKey, ApiView, DeviceFacts, Door, Introduction, Power,
};
pub use isolation::{DeviceRequest, Isolation, Logging, Namespace, Resolver};
pub use label::{is_own_label, is_yes};
pub use ledger::{AppLedger, ClockNote, Halt, Hold, Lease, Ledger, Rejection, Starts, Trial};
pub use limits::{DiskLimits, Limits};
pub use log::{
    LogCounts, LogCursor, LogCursors, LogLevel, LogLine, LogMessage, LogState, LogTime, LogUpload,
};
pub use login::{RegistryLogin, RegistryPass};
pub use moves::{LocalApp, LocalApps, Move, MoveOrder, Moves};
pub use observed::{
    ContainerState, Health, Observed, ObservedNetwork, ObservedService, ObservedVolume, OriginalNetwork,
    OwnVolume,
};
pub use order::{Answer, OfService, Order, Purge};
pub use platform::{BadPlatform, Platform};
pub use policy::{Policy, Switch, is_at_or_below};
pub use registry_prefix::{BadRegistry, REGISTRY_ACCEPTS, RegistryPrefix};
pub use release::{App, NetworkSpec, Release, ReleaseKey, Subnet, TrialSpec, UNNAMED, VolumeSpec};
pub use release_limits::ReleaseLimits;
pub use release_status::ReleaseStatus;
pub use report::{AppReport, CloudReport, MoveReport, Report, ServiceReport, ServiceStatus, UpdateStatus};
pub use service::{
    Condition, Device, Mount, MountOptions, MountSource, NetworkAttachment, NetworkMode, PortMapping,
    Protocol, RestartPolicy, ServiceSpec, Strategy, Ulimit,
};
pub use settings::PlanSettings;
pub use step::{FailedStep, Outcome, Plan, Reason, Step, Waiting};
pub use tags::{
    DeviceTag, LONGEST_SET_KEY, LONGEST_SET_VALUE, MOST_TAGS, TAG_KEY_ACCEPTS, TAG_VALUE_ACCEPTS, is_tag_key,
    is_tag_value, parse_tags,
};
pub use target::{Delivered, LeftAlone, Refusal, RefusedApp, StoredTarget, Target, TargetApp, WantedApp};
pub use vpn::{VpnAddresses, VpnOffer, VpnServer, VpnState, VpnTrouble, VpnWanted};
pub use window::{BadWindow, Window};
pub use zone::is_zone;
