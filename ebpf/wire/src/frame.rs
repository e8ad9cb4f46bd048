//! Where bytes come from.

/// A frame that can be read at any offset.
pub trait Frame {
    /// Length of the whole frame in bytes, parts that are not in linear memory included.
    fn len(&self) -> u32;

    /// Is there nothing at all?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The `N` bytes at `offset`, or nothing when the frame ends before.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// Takes steps until one says that it was the last, at most `limit`. The kernel programs do it by a helper, so that the verifier looks at one
    /// step only.
    #[inline(always)]
    fn repeat<S: Step<Self>>(&self, limit: u32, state: &mut S)
    where
        Self: Sized,
    {
        for _ in 0..limit {
            if !state.step(self) {
                break;
            }
        }
    }
}

/// One step of a loop over a frame.
pub trait Step<F> {
    /// Takes it; `false` = it was the last.
    fn step(&mut self, frame: &F) -> bool;
}

impl Frame for &[u8] {
    fn len(&self) -> u32 {
        u32::try_from(<[u8]>::len(self)).unwrap_or(u32::MAX)
    }

    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }
}

/// Two bytes of a header as the number they denote.
#[inline(always)]
pub const fn be16(a: u8, b: u8) -> u32 {
    (a as u32) << 8 | b as u32
}

/// Four bytes of a header as the number they denote.
#[inline(always)]
pub const fn be32(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// 802.1Q or 802.1ad (`eth_type` in host order).
#[inline(always)]
pub const fn is_vlan(eth_type: u32) -> bool {
    eth_type == 0x8100 || eth_type == 0x88a8
}
