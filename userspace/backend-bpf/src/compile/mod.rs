//! From the pipeline's rules to keys and operations. Pure.

mod acts;
pub mod location;
mod matching;
mod short;

pub use acts::{ActError, Compiled, compile};
pub use location::{Piece, outside_key, pieces, within_key};
pub use matching::{Key, MAX_KEYS, MatchError, Shape, keys};
pub use short::short;
