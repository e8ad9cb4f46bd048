//! Ternary values: a value and a mask, and the algebra of sets of them.

use crate::constant::Integer;
use crate::expr::RelOp;
use crate::field::ones;
use std::fmt;

/// All values that equal `value` where `mask` has ones. `value & !mask == 0`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Masked {
    /// The bits required.
    pub value: u128,
    /// The bits looked at.
    pub mask: u128,
}

impl Masked {
    /// Every value.
    pub const ANY: Masked = Masked { value: 0, mask: 0 };

    /// The values that agree with `value` under `mask`.
    #[must_use]
    pub fn new(value: u128, mask: u128) -> Masked {
        Masked { value: value & mask, mask }
    }

    /// What equality of bits `offset .. offset + width` with a constant demands. Bits of the constant beyond `width` are
    /// ignored, as OVN ignores them: `reg0[0..3] == 0x12` is `reg0[0..3] == 2`.
    #[must_use]
    pub fn of_constant(constant: &Integer, offset: u8, width: u8) -> Masked {
        let mask = if constant.masked { constant.mask & ones(width) } else { ones(width) };
        Masked::new(constant.value << offset, mask << offset)
    }

    /// Whether `value` is one of them.
    #[must_use]
    pub fn matches(&self, value: u128) -> bool {
        value & self.mask == self.value
    }

    /// Whether every value of `other` is one of these.
    #[must_use]
    pub fn contains(&self, other: &Masked) -> bool {
        self.mask & other.mask == self.mask && other.value & self.mask == self.value
    }

    /// The values of both, or `None` when there are none.
    #[must_use]
    pub fn intersect(&self, other: &Masked) -> Option<Masked> {
        let common = self.mask & other.mask;
        (self.value & common == other.value & common)
            .then_some(Masked { value: self.value | other.value, mask: self.mask | other.mask })
    }

    /// The values of this one that are not of `hole`, as disjoint alternatives: one for each bit that only `hole` looks at.
    #[must_use]
    pub fn subtract(&self, hole: &Masked) -> Vec<Masked> {
        if self.intersect(hole).is_none() {
            return vec![*self];
        }
        let mut kept = *self;
        let mut open = hole.mask & !self.mask;
        let mut rest = Vec::with_capacity(open.count_ones() as usize);
        while open != 0 {
            let bit = 1u128 << (127 - open.leading_zeros());
            open ^= bit;
            let hole_bit = hole.value & bit;
            rest.push(Masked { value: kept.value | (hole_bit ^ bit), mask: kept.mask | bit });
            kept = Masked { value: kept.value | hole_bit, mask: kept.mask | bit };
        }
        rest
    }

    /// All values that are in some of `a` and in some of `b`.
    #[must_use]
    pub fn intersect_all(a: &[Masked], b: &[Masked]) -> Vec<Masked> {
        let mut out: Vec<Masked> = a.iter().flat_map(|x| b.iter().filter_map(|y| x.intersect(y))).collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// The values of bits `offset .. offset + width` for which `bits op bound` holds, as disjoint prefixes; `bound` is
    /// truncated to `width` bits. For `==` and the orderings only.
    #[must_use]
    pub fn range(op: RelOp, bound: u128, offset: u8, width: u8) -> Vec<Masked> {
        let all = ones(width);
        let bound = bound & all;
        let prefixes = |below: bool, bound: u128| {
            (0..width)
                .rev()
                .filter(|i| (bound >> i & 1 == 1) == below)
                .map(|i| {
                    let bit = 1u128 << i;
                    let mask = all & !(bit - 1);
                    Masked::new((bound ^ bit) << offset, mask << offset)
                })
                .collect()
        };
        match op {
            RelOp::Lt => prefixes(true, bound),
            RelOp::Gt => prefixes(false, bound),
            RelOp::Le if bound == all => vec![Masked::ANY],
            RelOp::Le => prefixes(true, bound + 1),
            RelOp::Ge if bound == 0 => vec![Masked::ANY],
            RelOp::Ge => prefixes(false, bound - 1),
            RelOp::Eq => vec![Masked::new(bound << offset, all << offset)],
            RelOp::Ne => Masked::ANY.subtract(&Masked::new(bound << offset, all << offset)),
        }
    }
}

impl fmt::Debug for Masked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}
