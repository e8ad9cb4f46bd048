//! Values of the ABI as aya's map wrappers want them.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A key or value of a map: any type whose layout `zerocopy` has proved free of padding and of invalid bit patterns.
///
/// aya's `Pod` is a bare promise; here the promise is derived.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<T>(pub T);

// SAFETY: `FromBytes` and `IntoBytes` say that every bit pattern is a value and that no byte of a value is padding, which is what
// `Pod` asks for; `repr(transparent)` keeps the layout.
unsafe impl<T: Copy + FromBytes + IntoBytes + Immutable + 'static> aya::Pod for Plain<T> {}
