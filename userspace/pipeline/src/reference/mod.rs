//! The reference interpreter: executes a packet by linear search and so defines what a program means.
//!
//! Nothing here is fast and nothing is clever. A backend is right when, for every program, world and packet, it sends the same frames to the
//! same places and drops for the same reasons as [`run`].

mod fields;
mod frame;
mod neighbor;
mod outcome;
mod rewrite;
mod walk;

pub use fields::Fields;
pub use frame::{Layout, TooShort, parse};
pub use outcome::{Arrival, Destination, Drop, Outcome, Output, Place, Reason, Step};
pub use rewrite::write_back;
pub use walk::{explain, run};

#[cfg(test)]
mod tests;
