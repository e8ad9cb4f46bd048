//! Operations: what a rule does to the field vector, and where the packet goes next.
//!
//! A [`Block`] is an immutable list of operations, interned by user space and shared by every rule with the same list. A block is never
//! rewritten while a rule of a version in use refers to it. Execution ends at the first terminal operation ([`NEXT`], [`OUTPUT_END`], [`DROP`])
//! or at the end of the block (an OVN action list that ends without `next` or `output` drops the packet: [`crate::reason::Reason::ActionsEnd`]).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Operations in a block; longer lists go on in [`Block::next`].
pub const BLOCK_OPS: usize = 15;
/// Most operations that one rule may execute, over all its blocks.
pub const MAX_OPS: u32 = 120;

/// One operation, 16 bytes. The meaning of the fields is with each opcode.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Op {
    /// Opcode: a constant of this module.
    pub code: u8,
    /// Destination word in the field vector.
    pub dst: u8,
    /// Source word in the field vector, or an index, by opcode.
    pub src: u8,
    /// Opcode's own small argument: bit shifts (`dst_shift`, 5 bits) or operand number.
    pub arg: u8,
    /// Mask, or opcode's own argument.
    pub a: u32,
    /// Value, or opcode's own argument.
    pub b: u32,
    /// Opcode's own argument.
    pub c: u32,
}

/// Map `OX_BLOCKS`, array. Index 0 is never used.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Block {
    /// How many of `op` are used.
    pub len: u32,
    /// Index of the block that goes on after this one, 0 = none.
    pub next: u32,
    /// Reserved, zero.
    pub reserved: [u32; 2],
    /// The operations.
    pub op: [Op; BLOCK_OPS],
}

/// Bit of [`Op::arg`] of [`MOVE`] and [`EXCHANGE`]: the operation reads a word that is not in the verdict key; the walk is not cached.
pub const ARG_OUTSIDE_KEY: u8 = 0x80;

/// `word[dst] = (word[dst] & !a) | (b & a)`.
pub const SET: u8 = 1;
/// `word[dst] = (word[dst] & !a) | ((operand[arg] << c) & a)`.
pub const SET_OPERAND: u8 = 2;
/// Copy bits: `word[dst] = (word[dst] & !a) | (((word[src] >> b) << c) & a)`: `b` source shift, `c` destination shift, `a` the mask in place.
pub const MOVE: u8 = 3;
/// Exchange bits: those of `word[dst]` under the mask `a << c` with those of `word[src]` under `a << b`.
pub const EXCHANGE: u8 = 4;
/// Decrement TTL or hop limit; a packet whose TTL is 0 or 1 before is dropped ([`crate::reason::Reason::TtlExceeded`]).
pub const DEC_TTL: u8 = 5;

/// Terminal. Go to stage `a` of pipeline `dst` (0 = ingress, 1 = egress) of the same datapath.
pub const NEXT: u8 = 16;
/// Terminal. OVN's `output` as the last thing: in ingress hand the packet to the port or group in [`crate::field::OUTPORT`], in egress deliver it.
pub const OUTPUT_END: u8 = 17;
/// `output` with operations after it: the packet is handed over as a copy and the list goes on with the packet as it was.
pub const OUTPUT_COPY: u8 = 18;
/// Terminal. Drop with reason number `a` (`crate::reason::Reason`).
pub const DROP: u8 = 19;
/// Save the packet and its field vector (OVN's `clone { … }`, nested actions): operations up to [`RESTORE`] work on a copy.
pub const SAVE: u8 = 20;
/// End of a saved section: the vector is as it was at [`SAVE`].
pub const RESTORE: u8 = 21;

/// Port security of ingress: look the sub-table [`SUB_IN_PORT_SEC`] up (and what it refers to); bit `c` of `word[dst]` = 1 when the packet violates it.
pub const CHECK_IN_PORT_SEC: u8 = 32;
/// Port security of egress, likewise in [`SUB_OUT_PORT_SEC`].
pub const CHECK_OUT_PORT_SEC: u8 = 33;
/// `put_fdb(P, E)`: learn the address in `word[src]‥word[src + 1]` at the port in `word[dst]`.
pub const PUT_FDB: u8 = 34;
/// `R = lookup_fdb(P, E)`: bit `c` of `word[dst]` = 1 when the address in `word[src]‥` is known at the port in `word[b]`.
pub const LOOKUP_FDB: u8 = 35;
/// `outport = get_fdb(E)`: the port at which the address in `word[src]‥` was learned, 0 when unknown (the caller names it "none": `b` is stored then).
pub const GET_FDB: u8 = 36;
/// `nd_na`/`nd_na_router { … }` as the last action: turn the neighbor solicitation into an advertisement (fields preset as ovn-sb(5) says;
/// `a` = 1 sets the router flag), the operations that follow edit it. Not a solicitation: [`crate::reason::Reason::NotNeighborSolicit`].
pub const ND_NA: u8 = 37;
/// `arp { … }` and its like are handed to user space: `a` = kind. Reserved for the next phase; executes as a drop with its reason.
pub const PUNT: u8 = 48;
/// First of the opcodes reserved for connection tracking and NAT.
pub const CT_FIRST: u8 = 64;

/// Sub-table numbers of a datapath ([`crate::topology::Stages::sub`]): ingress port security on addresses.
pub const SUB_IN_PORT_SEC: usize = 0;
/// Ingress port security on ARP and neighbor discovery contents.
pub const SUB_IN_PORT_SEC_ND: usize = 1;
/// Egress port security.
pub const SUB_OUT_PORT_SEC: usize = 2;
/// How many sub-tables a datapath has.
pub const SUBS: usize = 4;

/// [`crate::rule::RuleSlot::block`] in a sub-table: the check passes.
pub const SUB_PASS: u32 = 0;
/// The check fails.
pub const SUB_FAIL: u32 = 1;
/// Go on in the sub-table named by operand 0 (one more look-up at most). A miss passes.
pub const SUB_GOTO: u32 = 2;

const _: () = assert!(size_of::<Op>() == 16);
const _: () = assert!(size_of::<Block>() == 256);
