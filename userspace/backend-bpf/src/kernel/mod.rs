//! The kernel side: loading the object, pins, attaching, writing maps, waiting for grace periods, events and counters.

mod at_once;
mod attach;
mod counters;
mod dry_run;
mod events;
mod exact;
mod generations;
mod grace;
mod instance;
mod link;
mod map;
mod monitor;
mod pins;
mod sizes;

pub use attach::{AttachError, Attachment, Hook, HookChoice, Role};
pub use counters::{Counters, DropCount};
pub use dry_run::{DryOutcome, DryRun, DryRunError};
pub use events::{Event, Events};
pub use exact::ExactCaches;
pub use generations::Generations;
pub use grace::GracePeriod;
pub use instance::{Config, Instance, LoadError, Maps};
pub use map::{HashTable, MapFailure, Slots, Value};
pub use monitor::Monitor;
pub use pins::{Pins, PinsError, is_private};
pub use sizes::{MAPS, SizeError, Sizes, VERDICTS_DEFAULT};
