//! The field vector: what a packet is while it walks.

use crate::ir::{Alternatives, Dim, Field, Program, Slice, width};

/// One value for each [`Field`], in host order, 0 where the packet has no such field. Names are tunnel keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    values: [u128; Field::ALL.len()],
}

impl Default for Fields {
    fn default() -> Self {
        Fields { values: [0; Field::ALL.len()] }
    }
}

/// Fields that are not in the packet but travel with it.
const METADATA: [Field; 12] = [
    Field::InPort,
    Field::OutPort,
    Field::RemoteOutPort,
    Field::XxReg0,
    Field::XxReg1,
    Field::XReg4,
    Field::Flags,
    Field::CtMark,
    Field::CtLabel,
    Field::CtState,
    Field::CtProto,
    Field::PktMark,
];

/// What a packet loses when it enters an egress pipeline (ovn-sb(5), "discards register data … and connection tracking state").
const LOST_BETWEEN_PIPELINES: [Field; 9] = [
    Field::XxReg0,
    Field::XxReg1,
    Field::XReg4,
    Field::CtMark,
    Field::CtLabel,
    Field::CtState,
    Field::CtProto,
    Field::CtTpSrc,
    Field::CtTpDst,
];

const fn ones(width: u8) -> u128 {
    if width >= 128 { u128::MAX } else { (1 << width) - 1 }
}

impl Fields {
    /// The field's value.
    #[must_use]
    pub fn get(&self, field: Field) -> u128 {
        self.values[overlaid(field) as usize]
    }

    /// Sets the field; bits beyond its width are ignored.
    pub fn set(&mut self, field: Field, value: u128) {
        let field = overlaid(field);
        self.values[field as usize] = value & ones(width(field));
    }

    /// `width` bits from `slice` upwards, right-aligned.
    #[must_use]
    pub fn bits(&self, slice: Slice, width: u8) -> u128 {
        (self.get(slice.field) >> slice.offset) & ones(width)
    }

    /// Sets `width` bits from `slice` upwards.
    pub fn set_bits(&mut self, slice: Slice, width: u8, value: u128) {
        let mask = ones(width) << slice.offset;
        let kept = self.get(slice.field) & !mask;
        self.set(slice.field, kept | ((value << slice.offset) & mask));
    }

    /// Whether every condition holds.
    #[must_use]
    pub fn satisfy(&self, dims: &[Dim], program: &Program) -> bool {
        dims.iter().all(|dim| {
            let value = self.get(dim.field);
            let holds = |m: &crate::ir::Masked| value & m.mask == m.value;
            match &dim.alternatives {
                Alternatives::List(list) => list.iter().any(holds),
                Alternatives::Set(id) => program.set(*id).is_some_and(|set| set.iter().any(holds)),
            }
        })
    }

    /// Takes over everything that is not in the packet.
    pub(crate) fn take_metadata(&mut self, from: &Fields) {
        for field in METADATA {
            self.set(field, from.get(field));
        }
    }

    /// Forgets what does not cross from ingress to egress.
    pub(crate) fn enter_egress(&mut self) {
        for field in LOST_BETWEEN_PIPELINES {
            self.set(field, 0);
        }
    }
}

/// The same storage under its first name.
const fn overlaid(field: Field) -> Field {
    match field {
        Field::InPortKey => Field::InPort,
        Field::OutPortKey => Field::OutPort,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_from_the_least_significant() {
        let mut f = Fields::default();
        // reg0 is the most significant word of xxreg0; reg0[15] is bit 111.
        f.set_bits(Slice { field: Field::XxReg0, offset: 111 }, 1, 1);
        assert_eq!(f.get(Field::XxReg0), 1 << 111);
        f.set_bits(Slice { field: Field::EthSrc, offset: 40 }, 8, 0xfff);
        assert_eq!(f.get(Field::EthSrc), 0xff00_0000_0000);
        assert_eq!(f.bits(Slice { field: Field::EthSrc, offset: 40 }, 1), 1);
    }
}
