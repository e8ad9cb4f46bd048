//! The per-CPU slot a walk works in: the BPF stack is far too small for it.

/// Working memory of one packet.
#[repr(C)]
pub struct Scratch {
    /// The field vector, padded so that an index masked with 63 is always inside.
    pub word: [u32; 64],
}
