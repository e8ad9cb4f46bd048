//! Tuple-space search: a table is a list of tuples (masks) in falling order of their highest priority; a tuple and the packet's
//! masked words make the key of one hash map that holds the rules of every table.
//!
//! # Versions
//! A commit makes version `v + 1` of the whole policy. Everything here that a commit may change holds two slots, and a packet
//! that read version `v` once at its start uses, everywhere, the newest slot whose `from` is not after `v`
//! (and, for a rule, whose `until` is after `v`). A commit writes the slot that no packet can be using any more, then raises
//! [`crate::stats::State::version`]; where the slot that it would write may still be in use, it waits first until it is not.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Words in the key of the common class (with the tuple's number: 32 bytes).
pub const NARROW: usize = 7;
/// Words in the key of the wide class (with the tuple's number: 64 bytes), for IPv6 pairs and neighbor discovery.
pub const WIDE: usize = 15;
/// Most tuples a table may have; the compiler refuses more by name.
pub const MAX_TUPLES: u32 = 256;
/// A rule slot with `from == NEVER` is empty.
pub const NEVER: u32 = u32::MAX;

/// Where a table's tuples stand in the tuple array, from one version on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TupleRange {
    /// First version this holds for; [`NEVER`] = empty slot.
    pub from: u32,
    /// Index of the first [`Tuple`].
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// Map `OX_TABLES`, array: one logical table of one datapath. Index 0 is never used (0 = no such table).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Table {
    /// The two versions.
    pub range: [TupleRange; 2],
}

/// [`Tuple::flags`]: the tuple looks at a word that is not in the verdict key; a walk through it is not cached.
pub const TUPLE_OUTSIDE_KEY: u8 = 1;
/// [`Tuple::flags`]: rules are in the wide map.
pub const TUPLE_WIDE: u8 = 2;

/// [`Tuple::flags`]: the tuple has one rule, all of whose words are in the filters: a packet that passes them matches, and `Tuple::only` says what.
pub const TUPLE_SINGLE: u8 = 4;

/// Filters of a tuple.
pub const FILTERS: usize = 3;

/// What a rule does, without when: what a [`RuleSlot`] and a tuple with a single rule have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Answer {
    /// Index of the [`crate::op::Block`], or [`SHORT`]; for a sub-table (port security) one of `crate::op::SUB_*`.
    pub block: u32,
    /// Index of the logical flow in `OX_LFLOWS` (counters) and in user space's table of names.
    pub lflow: u32,
    /// Constants that the block's operations refer to, so that rules that differ only in constants share a block.
    pub operand: [u32; OPERANDS],
}

/// Bit of [`Answer::block`]: no block, but one of the short lists that most rules have: [`goto`], [`output`], [`send`], [`check`].
pub const SHORT: u32 = 1 << 31;
/// Which short list: in bits 28 to 30.
pub const SHORT_SHIFT: u32 = 28;
/// See [`goto`].
pub const SHORT_GOTO: u32 = 0;
/// See [`output`].
pub const SHORT_OUTPUT: u32 = 1;
/// See [`send`].
pub const SHORT_SEND: u32 = 2;
/// See [`check`].
pub const SHORT_CHECK: u32 = 3;
/// Where [`check`] keeps which sub-table, the bit and the word.
pub const CHECK_SUB_SHIFT: u32 = 9;
/// See [`CHECK_SUB_SHIFT`].
pub const CHECK_BIT_SHIFT: u32 = 11;
/// See [`CHECK_SUB_SHIFT`].
pub const CHECK_WORD_SHIFT: u32 = 16;

/// `next(pipeline, table);`: stage in the lowest 8 bits, pipeline (0 = ingress, 1 = egress) in bit 8.
pub const fn goto(pipeline: u32, stage: u32) -> u32 {
    SHORT | SHORT_GOTO << SHORT_SHIFT | (pipeline & 1) << 8 | stage & 0xff
}

/// `output;`
pub const fn output() -> u32 {
    SHORT | SHORT_OUTPUT << SHORT_SHIFT
}

/// `outport = …; output;`: tunnel key of the port or group in the lower half.
pub const fn send(outport: u16) -> u32 {
    SHORT | SHORT_SEND << SHORT_SHIFT | outport as u32
}

/// `R = check_…_port_sec(); next(pipeline, table);`: as [`goto`], and sub-table, bit and word of R.
pub const fn check(sub: usize, word: u8, bit: u32, pipeline: u32, stage: u32) -> u32 {
    let place = (sub as u32 & 3) << CHECK_SUB_SHIFT | (bit & 31) << CHECK_BIT_SHIFT | (word as u32) << CHECK_WORD_SHIFT;
    goto(pipeline, stage) & 0x1ff | place | SHORT | SHORT_CHECK << SHORT_SHIFT
}

/// Map `OX_TUPLES`, array: a mask over the field vector.
///
/// What stands before `word` is all that is read of a tuple that a packet cannot match, or that has a single rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tuple {
    /// Number of the tuple, unique over all tables: first word of its rules' keys.
    pub id: u32,
    /// Highest priority among its rules: the search stops once it has found a better one.
    pub max_priority: u16,
    /// How many of `word`/`mask` are used: at most [`NARROW`], or [`WIDE`] when [`TUPLE_WIDE`] is set.
    pub words: u8,
    /// `TUPLE_*` flags.
    pub flags: u8,
    /// Words that the filters look at.
    pub filter_word: [u8; 4],
    /// Bits in which all rules of the tuple agree. A packet that differs there matches none of them, so nothing is looked up. Only bits
    /// of the verdict key: what a filter decides is as cacheable as the rest.
    pub filter_mask: [u32; FILTERS],
    /// What they are.
    pub filter_value: [u32; FILTERS],
    /// [`TUPLE_SINGLE`]: the rule; its priority is `max_priority`.
    pub only: Answer,
    /// Index into the field vector of each key word.
    pub word: [u8; 16],
    /// Mask of each key word.
    pub mask: [u32; 16],
}

/// Key of map `OX_RULES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NarrowKey {
    /// [`Tuple::id`].
    pub tuple: u32,
    /// Masked words in the tuple's order, the rest zero.
    pub word: [u32; NARROW],
}

/// Key of map `OX_RULES_WIDE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct WideKey {
    /// [`Tuple::id`].
    pub tuple: u32,
    /// Masked words in the tuple's order, the rest zero.
    pub word: [u32; WIDE],
}

/// Number of operands a rule hands to its block.
pub const OPERANDS: usize = 6;

/// One version of one rule.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RuleSlot {
    /// First version in which the rule is valid; [`NEVER`] = empty slot.
    pub from: u32,
    /// First version in which it is not valid any more; [`NEVER`] = open.
    pub until: u32,
    /// Priority, 0‥65535 (ovn-sb(5)).
    pub priority: u32,
    /// What it does.
    pub answer: Answer,
}

impl RuleSlot {
    /// A slot that is valid in no version.
    pub const EMPTY: Self =
        Self { from: NEVER, until: 0, priority: 0, answer: Answer { block: 0, lflow: 0, operand: [0; OPERANDS] } };
}

/// Value of maps `OX_RULES` and `OX_RULES_WIDE` (hash maps without preallocation: a replaced value stays readable until the
/// readers' RCU section ends).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rule {
    /// The two versions.
    pub slot: [RuleSlot; 2],
}

const _: () = assert!(size_of::<Tuple>() == 148);
const _: () = assert!(size_of::<NarrowKey>() == 32);
const _: () = assert!(size_of::<WideKey>() == 64);
const _: () = assert!(size_of::<Rule>() == 88);
