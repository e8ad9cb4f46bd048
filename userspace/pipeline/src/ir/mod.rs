//! The intermediate representation: rules over fields, and the physical world they send packets into. Plain data.
//!
//! A *table* ([`TableId`]) belongs to one logical datapath and is a set of [`Rule`]s; of those that match a packet the one with
//! the highest priority is executed. Port security lives in sub-tables of [`SubRule`]s that [`Act::CheckPortSecurity`] consults.
//! Names are gone at this level: `inport` and `outport` hold tunnel keys ([`Field::InPort`] and [`Field::OutPort`] are 32 bits wide
//! here), address sets and port groups are sets of masked values ([`SetId`]).

mod act;
mod changes;
mod key;
mod problem;
mod program;
mod rule;
mod world;

pub use act::{Act, Bit, Cause, Direction, Punt, Slice};
pub use changes::Changes;
pub use key::{ChassisId, DatapathKey, FlowUuid, GroupKey, LflowId, Mac, PortKey, RuleId, SetId};
pub use oxbow_lflow::context::Pipeline;
pub use oxbow_lflow::field::Field;
pub use oxbow_lflow::normal::Masked;
pub use problem::{Consequence, Problem};
pub use program::{Datapath, Program, Stages};
pub use rule::{Alternatives, Dim, Rule, Sub, SubResult, SubRule, TableId};
pub use world::{Chassis, Encap, EncapKind, Group, Location, LogicalPort, PortKind};

/// Stages a pipeline may have at most; 26.03 uses 34.
pub const MAX_STAGES: u8 = 48;

/// Width in bits of a field in the IR: that of the language, and 32 for the two that hold tunnel keys.
#[must_use]
pub const fn width(field: Field) -> u8 {
    match field {
        Field::InPort | Field::OutPort | Field::RemoteOutPort => 32,
        other => other.width(),
    }
}
