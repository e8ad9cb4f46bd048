//! The desired contents of the maps and the difference to what the kernel holds. No kernel calls: a commit takes the writes that this
//! module lists and performs them.

mod allocator;
mod blocks;
mod guards;
mod tables;

pub use allocator::{Exhausted, Indexes, Ranges};
pub use blocks::Blocks;
pub use guards::{Guards, Scope};
pub use tables::{Placement, RuleWrite, TableWrites, Tables};
