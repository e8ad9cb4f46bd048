//! Actions as operations of the kernel.

use super::location::{Piece, outside_key, pieces};
use oxbow_abi::op::{
    ARG_OUTSIDE_KEY, CHECK_IN_PORT_SEC, CHECK_OUT_PORT_SEC, DEC_TTL, DROP, EXCHANGE, GET_FDB, LOOKUP_FDB, MAX_OPS,
    MOVE, ND_NA, NEXT, OUTPUT_COPY, OUTPUT_END, Op, PUNT, PUT_FDB, RESTORE, SAVE, SET, SET_OPERAND,
};
use oxbow_abi::reason::Reason;
use oxbow_abi::rule::OPERANDS;
use oxbow_lflow::context::Pipeline;
use oxbow_lflow::field::Field;
use oxbow_pipeline::ir::{Act, Cause, Direction, Punt, Slice};

/// A list of operations with the constants that its rules bring along.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The operations; [`SET_OPERAND`] refers to `operand`.
    pub ops: Vec<Op>,
    /// The constants; unused ones are zero.
    pub operand: [u32; OPERANDS],
    operands: usize,
}

/// Actions could not be turned into operations.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// The kernel's field vector does not carry the field.
    #[error("field {0} is not supported by the eBPF backend")]
    Field(Field),
    /// The two sides of a move overlap.
    #[error("a move between overlapping bits of {0} is not supported")]
    Overlap(Field),
    /// The list is too long.
    #[error("{ops} operations, more than the {MAX_OPS} that one rule may take")]
    TooLong {
        /// How many.
        ops: usize,
    },
    /// Copies within copies.
    #[error("copies nested deeper than one level are not supported")]
    Nested,
    /// A copy goes on to another table.
    #[error("a clone that continues in another table is not supported unless it is the last action")]
    NextInClone,
}

/// Turns a list into operations.
pub fn compile(acts: &[Act]) -> Result<Compiled, ActError> {
    let mut compiled = Compiled::default();
    compiled.list(acts, false)?;
    if compiled.ops.len() as u32 > MAX_OPS {
        return Err(ActError::TooLong { ops: compiled.ops.len() });
    }
    Ok(compiled)
}

impl Compiled {
    /// One operation without operands.
    pub fn only(op: Op) -> Self {
        Self { ops: vec![op], ..Self::default() }
    }

    fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// `copy`: inside a saved section, where nothing is terminal.
    fn list(&mut self, acts: &[Act], copy: bool) -> Result<(), ActError> {
        for (n, act) in acts.iter().enumerate() {
            let last = n + 1 == acts.len();
            match act {
                Act::Set { dst, width, value } => self.set(*dst, *width, *value)?,
                Act::Move { dst, src, width } => self.relocate(*dst, *src, *width)?,
                Act::Exchange { a, b, width } => self.exchange(*a, *b, *width)?,
                Act::DecTtl => self.push(Op { code: DEC_TTL, ..Op::default() }),
                Act::Next { .. } if copy => return Err(ActError::NextInClone),
                Act::Next { pipeline, stage } => {
                    let dst = match pipeline {
                        Pipeline::Ingress => 0,
                        Pipeline::Egress => 1,
                    };
                    self.push(Op { code: NEXT, dst, a: u32::from(*stage), ..Op::default() });
                    return Ok(());
                }
                Act::Output if last && !copy => self.push(Op { code: OUTPUT_END, ..Op::default() }),
                Act::Output => self.push(Op { code: OUTPUT_COPY, ..Op::default() }),
                Act::Drop(cause) => {
                    let reason = match cause {
                        Cause::LogicalFlow => Reason::LogicalFlow,
                        Cause::Unsupported => Reason::UnsupportedAction,
                        Cause::TableClosed => Reason::TableClosed,
                    };
                    // In a copy: what is dropped is the copy, and the list goes on behind it.
                    if !copy {
                        self.push(Op { code: DROP, a: reason as u32, ..Op::default() });
                    }
                    return Ok(());
                }
                Act::Clone(nested) if last && !copy => return self.list(nested, false),
                Act::Clone(nested) => self.saved(copy, |this| this.list(nested, true))?,
                Act::CheckPortSecurity { direction, dst } => {
                    let code = match direction {
                        Direction::In => CHECK_IN_PORT_SEC,
                        Direction::Out => CHECK_OUT_PORT_SEC,
                    };
                    let (word, bit) = bit(*dst)?;
                    self.push(Op { code, dst: word, c: bit, ..Op::default() });
                }
                Act::PutFdb { port, mac } => {
                    self.push(Op { code: PUT_FDB, dst: first(*port)?, src: first(*mac)?, ..Op::default() });
                }
                Act::LookupFdb { dst, port, mac } => {
                    let (word, bit) = bit(*dst)?;
                    let b = u32::from(first(*port)?);
                    self.push(Op { code: LOOKUP_FDB, dst: word, src: first(*mac)?, b, c: bit, ..Op::default() });
                }
                Act::GetFdb { dst, mac } => {
                    self.push(Op { code: GET_FDB, dst: first(*dst)?, src: first(*mac)?, ..Op::default() });
                }
                Act::NdNa { router, acts: nested } => {
                    let op = Op { code: ND_NA, a: u32::from(*router), ..Op::default() };
                    if last && !copy {
                        self.push(op);
                        return self.list(nested, false);
                    }
                    self.saved(copy, |this| {
                        this.push(op);
                        this.list(nested, true)
                    })?;
                }
                Act::Punt(kind) => {
                    let a = match kind {
                        Punt::ServiceCheck => 1,
                    };
                    self.push(Op { code: PUNT, a, ..Op::default() });
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn saved(&mut self, copy: bool, body: impl FnOnce(&mut Self) -> Result<(), ActError>) -> Result<(), ActError> {
        if copy {
            return Err(ActError::Nested);
        }
        self.push(Op { code: SAVE, ..Op::default() });
        body(self)?;
        self.push(Op { code: RESTORE, ..Op::default() });
        Ok(())
    }

    /// The operand that holds a constant; a neighbor advertisement names its addresses twice. `None` when there is no room.
    fn operand(&mut self, bits: u32) -> Option<u8> {
        if let Some(known) = self.operand[..self.operands].iter().position(|&operand| operand == bits) {
            return Some(known as u8);
        }
        let new = self.operands;
        *self.operand.get_mut(new)? = bits;
        self.operands += 1;
        Some(new as u8)
    }

    /// Constants that tell rules of one kind apart (ports, addresses) become operands while there is room; small ones stay in the block.
    fn set(&mut self, dst: Slice, width: u8, value: u128) -> Result<(), ActError> {
        for part in parts(dst, width)? {
            let a = part.mask();
            let bits = (value >> part.from) as u32 & part.ones();
            let telling = part.width >= 16 && bits > u32::from(u8::MAX);
            if let Some(arg) = telling.then(|| self.operand(bits)).flatten() {
                self.push(Op { code: SET_OPERAND, dst: part.word, arg, a, c: u32::from(part.shift), ..Op::default() });
            } else {
                self.push(Op { code: SET, dst: part.word, a, b: bits << part.shift, ..Op::default() });
            }
        }
        Ok(())
    }

    fn relocate(&mut self, dst: Slice, src: Slice, width: u8) -> Result<(), ActError> {
        let pairs = aligned(dst, src, width)?;
        let overlap = pairs.len() > 1 && pairs.iter().any(|(d, _)| pairs.iter().any(|(_, s)| s.word == d.word));
        if overlap {
            return Err(ActError::Overlap(dst.field));
        }
        for (d, s) in pairs {
            let arg = if outside_key(s.word, s.mask()) { ARG_OUTSIDE_KEY } else { 0 };
            let (b, c) = (u32::from(s.shift), u32::from(d.shift));
            self.push(Op { code: MOVE, dst: d.word, src: s.word, arg, a: d.mask(), b, c });
        }
        Ok(())
    }

    fn exchange(&mut self, x: Slice, y: Slice, width: u8) -> Result<(), ActError> {
        for (d, s) in aligned(x, y, width)? {
            let outside = outside_key(s.word, s.mask()) || outside_key(d.word, d.mask());
            let arg = if outside { ARG_OUTSIDE_KEY } else { 0 };
            let (b, c) = (u32::from(s.shift), u32::from(d.shift));
            self.push(Op { code: EXCHANGE, dst: d.word, src: s.word, arg, a: d.ones(), b, c });
        }
        Ok(())
    }
}

/// Some bits in one word, and which bits of the value they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    word: u8,
    shift: u8,
    width: u8,
    /// Lowest bit, counted from the slice's.
    from: u8,
}

impl Part {
    fn ones(self) -> u32 {
        if self.width == 32 { u32::MAX } else { (1 << self.width) - 1 }
    }

    fn mask(self) -> u32 {
        self.ones() << self.shift
    }
}

/// The words that a slice of a field covers.
fn parts(slice: Slice, width: u8) -> Result<Vec<Part>, ActError> {
    let places = pieces(slice.field).ok_or(ActError::Field(slice.field))?;
    let (low, high) = (slice.offset, slice.offset + width);
    Ok(places
        .iter()
        .filter_map(|p: &Piece| {
            let from = low.max(p.offset);
            let to = high.min(p.offset + p.width);
            (from < to).then(|| Part {
                word: p.word,
                shift: p.shift + (from - p.offset),
                width: to - from,
                from: from - low,
            })
        })
        .collect())
}

/// The same bits of two slices, cut so that each pair is within one word on both sides.
fn aligned(x: Slice, y: Slice, width: u8) -> Result<Vec<(Part, Part)>, ActError> {
    let (xs, ys) = (parts(x, width)?, parts(y, width)?);
    let mut pairs = Vec::new();
    for a in &xs {
        for b in &ys {
            let from = a.from.max(b.from);
            let to = (a.from + a.width).min(b.from + b.width);
            if from < to {
                let cut = |p: &Part| Part { word: p.word, shift: p.shift + (from - p.from), width: to - from, from };
                pairs.push((cut(a), cut(b)));
            }
        }
    }
    Ok(pairs)
}

fn first(field: Field) -> Result<u8, ActError> {
    pieces(field).and_then(|p| p.first()).map(|p| p.word).ok_or(ActError::Field(field))
}

fn bit(slice: Slice) -> Result<(u8, u32), ActError> {
    parts(slice, 1)?.first().map(|p| (p.word, u32::from(p.shift))).ok_or(ActError::Field(slice.field))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_abi::field as f;

    fn slice(field: Field, offset: u8) -> Slice {
        Slice { field, offset }
    }

    #[test]
    fn rules_that_differ_in_ports_share_their_operations() {
        let rule = |port: u128| {
            let set = Act::Set { dst: slice(Field::OutPort, 0), width: 32, value: port };
            compile(&[set, Act::Output]).unwrap()
        };
        let (a, b) = (rule(1000), rule(2000));
        assert_eq!(a.ops, b.ops);
        assert_eq!((a.operand[0], b.operand[0]), (1000, 2000));
    }

    #[test]
    fn register_bits_and_wide_moves_land_in_their_words() {
        // reg0[3] = 1: bit 99 of xxreg0.
        let set = compile(&[Act::Set { dst: slice(Field::XxReg0, 96 + 3), width: 1, value: 1 }]).unwrap();
        assert_eq!(set.ops, [Op { code: SET, dst: f::REG, a: 8, b: 8, ..Op::default() }]);
        // xxreg1 = ip6.src
        let moves =
            compile(&[Act::Move { dst: slice(Field::XxReg1, 0), src: slice(Field::Ip6Src, 0), width: 128 }]).unwrap();
        let words: Vec<(u8, u8)> = moves.ops.iter().map(|op| (op.dst, op.src)).collect();
        assert_eq!(words, [(4, 25), (5, 26), (6, 27), (7, 28)]);
        // arp.tha = arp.sha reads what the verdict key has not.
        let arp =
            compile(&[Act::Move { dst: slice(Field::ArpTha, 0), src: slice(Field::ArpSha, 0), width: 48 }]).unwrap();
        assert!(arp.ops.iter().all(|op| op.arg == ARG_OUTSIDE_KEY) && arp.ops.len() == 2);
    }

    #[test]
    fn a_move_across_words_is_cut_and_an_overlapping_one_refused() {
        // reg0..reg1 bits 16..48 of xreg0 = eth.dst's lower 32 bits.
        let moves =
            compile(&[Act::Move { dst: slice(Field::XxReg0, 80), src: slice(Field::EthDst, 0), width: 32 }]).unwrap();
        assert_eq!(moves.ops.len(), 2);
        assert_eq!((moves.ops[0].dst, moves.ops[0].a, moves.ops[0].b), (f::REG, 0xffff, 16));
        assert_eq!((moves.ops[1].dst, moves.ops[1].a, moves.ops[1].c), (f::REG + 1, 0xffff_0000, 16));
        let overlap = Act::Move { dst: slice(Field::XxReg0, 32), src: slice(Field::XxReg0, 0), width: 64 };
        assert_eq!(compile(&[overlap]), Err(ActError::Overlap(Field::XxReg0)));
    }

    #[test]
    fn a_clone_with_actions_after_it_is_saved_and_the_last_one_is_inlined() {
        let flood = |port| [Act::Set { dst: slice(Field::OutPort, 0), width: 32, value: port }, Act::Output];
        let mut acts = vec![Act::Clone(flood(0x8001).into())];
        let codes = |acts: &[Act]| compile(acts).unwrap().ops.iter().map(|op| op.code).collect::<Vec<_>>();
        assert_eq!(codes(&acts), [SET_OPERAND, OUTPUT_END]);
        acts.extend(flood(0x8002));
        assert_eq!(codes(&acts), [SAVE, SET_OPERAND, OUTPUT_COPY, RESTORE, SET_OPERAND, OUTPUT_END]);
    }
}
