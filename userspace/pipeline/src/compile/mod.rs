//! The compiler: keeps a [`Program`] equal to what the rows it was fed say.
//!
//! Feed it rows as they come, changed or gone, in any order, then [`Compiler::commit`]: the answer is what changed in the program. The cost of
//! a commit is that of the rows that changed and of the flows that named what changed.
//!
//! | changed | done again |
//! |---|---|
//! | a flow | that flow, on its datapaths; texts seen before are not parsed again |
//! | a port or group: new, gone, renamed, other key | flows that named it, resolved or not; sets it is in, by one element |
//! | a port bound or released | flows that asked whether it is resident |
//! | an address set's or port group's member | the set, by one element; flows that use its contents otherwise |
//! | a port's security | its sub-table rules |
//! | a datapath known or forgotten | its flows |

mod actions;
mod compiler;
mod elsewhere;
mod lowering;
mod matching;
mod port_security;
mod reach;
mod references;
mod row;
mod sets;
mod simplify;
mod texts;

#[cfg(test)]
mod tests;

pub use compiler::{Compiler, DatapathInfo, Options};
pub use elsewhere::{Blueprint, THIS_CHASSIS};
pub use oxbow_lflow::Vocabulary;
pub use port_security::{BadElement, Element};
pub use row::{FlowRow, Problem, SetChange, StageName};
