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

    /// A window of `N` bytes at `offset`, or nothing when the frame ends before.
    type View<const N: usize>: View;

    /// Opens a window: the bounds are checked once, the fields in it are read at constant offsets.
    fn view<const N: usize>(&self, offset: u32) -> Option<Self::View<N>>;

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

/// Fields of a header, at constant offsets in bytes; one outside the window reads as zero on the host and is refused by the verifier.
pub trait View {
    /// A byte.
    fn byte<const AT: usize>(&self) -> u32;
    /// 16 bits in network order, as the number they denote.
    fn half<const AT: usize>(&self) -> u32;
    /// 32 bits in network order, as the number they denote.
    fn word<const AT: usize>(&self) -> u32;
}

impl<const N: usize> View for [u8; N] {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u32 {
        self.get(AT).map_or(0, |&byte| u32::from(byte))
    }

    #[inline(always)]
    fn half<const AT: usize>(&self) -> u32 {
        match self.get(AT..AT + 2) {
            Some(&[a, b]) => be16(a, b),
            _ => 0,
        }
    }

    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        match self.get(AT..AT + 4) {
            Some(&[a, b, c, d]) => be32(a, b, c, d),
            _ => 0,
        }
    }
}

/// One step of a loop over a frame.
pub trait Step<F> {
    /// Takes it; `false` = it was the last.
    fn step(&mut self, frame: &F) -> bool;
}

impl Frame for &[u8] {
    type View<const N: usize> = [u8; N];

    fn view<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.load(offset)
    }

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
