//! The per-CPU slot a walk works in: the BPF stack (512 bytes over all frames) is far too small for it.
//!
//! Everything is a `Cell`, because global functions, loop callbacks and their callers all hold a reference to the slot at the same time. A
//! slot belongs to one packet from the entry of a program to its exit: the programs run in softirq with bottom halves disabled, and nothing they
//! call delivers a packet synchronously to a device they are attached to (`bpf_clone_redirect` to a veth or tap only queues). Were
//! that ever broken, the outer packet would go on with the inner one's fields; its verdict would not be cached under another key, since the
//! key lives in the same slot.

use core::cell::Cell;

use oxbow_abi::{
    exact::Exact,
    field::{ETH_DST, IP6_LABEL},
    op::SUBS,
    rule::{OPERANDS, WideKey},
    topology::{PeerKey, STAGES},
    verdict::{Denied, FDB_SLOTS, GUARDS, PATH, Verdict, VerdictKey},
};
use oxbow_wire::{
    key::Words,
    parse::{Layout, VECTOR},
    tunnel::Outer,
};

use crate::{classify::Search, maps::OX_SCRATCH};

/// A field vector.
pub type Vector = [Cell<u32>; VECTOR];

/// Pipelines: index of [`Scratch::saved`] and [`Scratch::resume`], and the number in `NEXT`.
pub const INGRESS: u32 = 0;
/// See [`INGRESS`].
pub const EGRESS: u32 = 1;

/// What the walk does next: values of [`Scratch::phase`].
pub mod phase {
    /// Look the packet up in the table.
    pub const TABLE: u32 = 1;
    /// Run operations.
    pub const OPS: u32 = 2;
    /// Run a port security check, then go on with the operations.
    pub const CHECK: u32 = 3;
    /// Hand the packet to the outport (ingress) or deliver it (egress).
    pub const OUTPUT: u32 = 4;
    /// Take the next member of a group.
    pub const FAN_OUT: u32 = 5;
    /// Send it to another chassis.
    pub const REMOTE: u32 = 6;
    /// Deliver it to its local device.
    pub const DELIVER: u32 = 7;
    /// Nothing is left to do.
    pub const DONE: u32 = 8;
}

/// Values of [`Scratch::fan_active`].
pub mod fan {
    /// No fan-out.
    pub const NONE: u32 = 0;
    /// Members of a group are left.
    pub const GROUP: u32 = 1;
    /// The second chassis of a migrating port is left.
    pub const MIGRATION: u32 = 2;
}

/// A rule that was found.
#[repr(C)]
pub struct Found {
    /// Its block.
    pub block: Cell<u32>,
    /// Its logical flow.
    pub lflow: Cell<u32>,
    /// Its constants; two more so that a masked index is always inside.
    pub operand: [Cell<u32>; 8],
}

/// A place to go on at after a copy was sent.
#[repr(C)]
pub struct Resume {
    /// Is there one?
    pub active: Cell<u32>,
    /// Block and position in it.
    pub block: Cell<u32>,
    /// Position in the block.
    pub position: Cell<u32>,
    /// Logical flow whose operations these are.
    pub lflow: Cell<u32>,
    /// Its constants.
    pub operand: [Cell<u32>; 8],
    /// The packet as it was.
    pub word: Vector,
}

/// Working memory of one packet.
#[repr(C)]
pub struct Scratch {
    /// The field vector.
    pub word: Vector,
    /// The field vector of what the packet in the buffer holds now: write-back makes it equal to `word`.
    pub packet: Vector,
    /// The packet as it was handed to a group.
    pub group: Vector,
    /// `SAVE`, one for each pipeline.
    pub saved: [Vector; 2],
    /// `OUTPUT_COPY`, one for each pipeline.
    pub resume: [Resume; 2],
    /// A look-up in a table.
    pub search: Search,
    /// The rule of a table and the rule of a sub-table.
    pub found: [Found; 2],
    /// Key under which the walk's outcome is cached.
    pub key: Cell<VerdictKey>,
    /// Addresses of a tunnel frame.
    pub peer: Cell<PeerKey>,
    /// Verdict being built.
    pub verdict: Cell<Verdict>,
    /// What a hit is to do, when no place of the exact-match cache is given to it.
    pub exact: Cell<Exact>,
    /// Counts flows that found all places of their set taken.
    pub exact_turn: Cell<u32>,
    /// Denied verdict being built.
    pub denied: Cell<Denied>,
    /// Wide rule key being gathered.
    pub wide: Cell<WideKey>,
    /// Outer headers, or a packet body, being built.
    pub outer: Cell<Outer>,
    /// Where headers are.
    pub layout: Cell<Layout>,
    /// Policy version of this packet.
    pub version: Cell<u32>,
    /// Tunnel key of the datapath.
    pub datapath: Cell<u32>,
    /// Stage map of the datapath: ingress from 0, egress from 64.
    pub stages: [Cell<u32>; 128],
    /// Its sub-tables.
    pub sub: [Cell<u32>; SUBS],
    /// The datapath whose `stages` and `sub` these are, from whatever packet they were loaded for.
    pub staged: Cell<u32>,
    /// The version they are of; 0 = none.
    pub staged_version: Cell<u32>,
    /// The datapath's guard.
    pub staged_guard: Cell<u32>,
    /// What next: [`phase`].
    pub phase: Cell<u32>,
    /// [`INGRESS`] or [`EGRESS`].
    pub pipeline: Cell<u32>,
    /// Index of the table.
    pub table: Cell<u32>,
    /// Tables passed by this copy.
    pub steps: Cell<u32>,
    /// Block and position of the operation to run next.
    pub block: Cell<u32>,
    /// Position in the block.
    pub position: Cell<u32>,
    /// `SAVE` is open, for each pipeline.
    pub saving: [Cell<u32>; 2],
    /// A port security check: sub-table, then where the result goes.
    pub check_table: Cell<u32>,
    /// The sub-table is the second one.
    pub check_second: Cell<u32>,
    /// The short list to go on with; 0 = operations.
    pub check_then: Cell<u32>,
    /// Word that takes the result.
    pub check_word: Cell<u32>,
    /// Its bit.
    pub check_bit: Cell<u32>,
    /// Local port the copy goes to: device.
    pub out_ifindex: Cell<u32>,
    /// Tag to push.
    pub out_vlan: Cell<u32>,
    /// Fan-out: [`fan`].
    pub fan_active: Cell<u32>,
    /// Rank of the members whose turn it is: 0 = local ports, then chassis as `tunnel::rank` has them.
    pub fan_rank: Cell<u32>,
    /// Ranks that the group has, one bit each.
    pub fan_ranks: Cell<u32>,
    /// Tunnel key of the group.
    pub fan_group: Cell<u32>,
    /// Chunk.
    pub fan_chunk: Cell<u32>,
    /// Member in it.
    pub fan_member: Cell<u32>,
    /// Copies left.
    pub budget: Cell<u32>,
    /// Outer headers that the buffer carries at the moment because copies of it were tunnelled.
    pub encapsulated: Cell<u32>,
    /// Outer headers were taken off again once.
    pub stripped: Cell<u32>,
    /// UDP source port of the copies.
    pub enc_port: Cell<u32>,
    /// Tags that were outside the payload before that, outermost first.
    pub enc_tag: [Cell<u32>; 2],
    /// How many.
    pub enc_tags: Cell<u32>,
    /// Offset of the frame in the buffer: outer headers to be stripped before anything is delivered (tunnel frames).
    pub base: Cell<u32>,
    /// Tag of the nested port the frame came by, with the present bit.
    pub nested: Cell<u32>,
    /// Chassis to tunnel to.
    pub send_chassis: Cell<u32>,
    /// OVN's option, when a cached verdict says to tunnel.
    pub send_option: Cell<u32>,
    /// The frame came by tunnel.
    pub tunnelled: Cell<u32>,
    /// The walk may be cached.
    pub cacheable: Cell<u32>,
    /// Copies sent and kept.
    pub outputs: Cell<u32>,
    /// `nd_na` ran: 1, or 2 for an advertisement to all nodes; bit 7 the router flag.
    pub advert: Cell<u32>,
    /// Reason of the last drop.
    pub reason: Cell<u32>,
    /// Logical flow of the last drop.
    pub reason_lflow: Cell<u32>,
    /// The frame is dropped by a cached denial.
    pub denied_hit: Cell<u32>,
    /// What the program returns.
    pub action: Cell<i32>,
    /// Guards so far.
    pub guards: Cell<u32>,
    /// Guards.
    pub guard: [Cell<u32>; GUARDS],
    /// FDB generations so far: slots.
    pub fdb: [Cell<u32>; FDB_SLOTS],
    /// What they held.
    pub fdb_generation: [Cell<u32>; FDB_SLOTS],
    /// Logical flows passed.
    pub path_len: Cell<u32>,
    /// Logical flows, rounded up to a power of two.
    pub path: [Cell<u32>; 32],
}

const _: () = assert!(PATH <= 32 && OPERANDS <= 8 && STAGES <= 64);

// SAFETY: a per-CPU slot is only ever touched by the CPU it belongs to (see the module's comment on nesting).
unsafe impl Sync for Scratch {}

impl Scratch {
    /// The slot of this CPU.
    #[inline(always)]
    pub fn get() -> Option<&'static Self> {
        // SAFETY: the map's value has this layout and lives as long as the program; all fields are cells.
        OX_SCRATCH.get_ptr_mut(0).map(|slot| unsafe { &*slot.cast_const() })
    }

    /// The key of this packet.
    #[inline(always)]
    pub fn key(&self) -> &VerdictKey {
        // SAFETY: the slot belongs to this CPU; a key is only written through `new_key`, before it is read.
        unsafe { &*self.key.as_ptr() }
    }

    /// The key with these two words and nothing else yet, to be filled.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the slot is a cell; see its SAFETY comments")]
    pub fn new_key(&self, datapath: u32, ports: u32) -> &mut Words {
        // SAFETY: the slot belongs to this CPU and no other reference to this field is alive; a `VerdictKey` is these words (asserted in `wire`).
        let key = unsafe { &mut *self.key.as_ptr().cast::<Words>() };
        *key = [0; 16];
        key[0] = datapath;
        key[1] = ports;
        key
    }

    /// The pair of addresses of a tunnel frame.
    #[inline(always)]
    pub fn peer_key(&self) -> &PeerKey {
        // SAFETY: the slot belongs to this CPU.
        unsafe { &*self.peer.as_ptr() }
    }

    /// A word of the field vector; the index is taken modulo the vector's size.
    #[inline(always)]
    pub fn word(&self, index: u32) -> &Cell<u32> {
        at(&self.word, index)
    }

    /// Records a guard that the verdict rests on.
    #[inline(always)]
    pub fn rest_on(&self, guard: u32) {
        if guard == 0 {
            return;
        }
        let n = self.guards.get();
        if n as usize >= GUARDS {
            self.cacheable.set(0);
            return;
        }
        self.guard[masked::<{ GUARDS as i32 - 1 }>(n)].set(guard);
        self.guards.set(n + 1);
    }

    /// Records an FDB generation that was read.
    #[inline(always)]
    pub fn rest_on_fdb(&self, slot: u32, generation: u32) {
        let [a, b] = &self.fdb;
        if a.get() == slot || b.get() == slot {
            // Read before and perhaps moved since: the older reading stays, so the verdict is stale from birth.
        } else if a.get() == 0 {
            a.set(slot);
            self.fdb_generation[0].set(generation);
        } else if b.get() == 0 {
            b.set(slot);
            self.fdb_generation[1].set(generation);
        } else {
            self.cacheable.set(0);
        }
    }
}

/// An index made provable: `index & mask`, in one instruction that the compiler cannot move away from the access. (6.1 forgets bounds of
/// spilled 32-bit values, and the compiler drops a mask that it can prove useless.)
#[inline(always)]
pub fn masked<const MASK: i32>(index: u32) -> usize {
    let mut index = u64::from(index);
    // SAFETY: one register, no memory.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) index, const MASK, options(pure, nomem, nostack)) };
    // SAFETY: the instruction above made it so; the compiler may rely on it and leave bounds checks out.
    unsafe { core::hint::assert_unchecked(index <= MASK as u64) };
    index as usize
}

/// An index below `LIMIT`, in a form that every verifier follows; `MASK` is the next power of two, less one.
///
/// The comparison must stay one of order. Told that the mask was applied, the compiler would turn "15 or more" into "equal to 15", from which
/// the verifier of 6.1 learns nothing; so it is not told.
#[inline(always)]
pub fn below<const LIMIT: usize, const MASK: i32>(index: u32) -> Option<usize> {
    let mut index = u64::from(index);
    // SAFETY: one register, no memory.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) index, const MASK, options(pure, nomem, nostack)) };
    let index = index as usize;
    if index < LIMIT { Some(index) } else { None }
}

/// A word of a vector.
#[inline(always)]
pub fn at(vector: &Vector, index: u32) -> &Cell<u32> {
    let index = masked::<{ VECTOR as i32 - 1 }>(index);
    // SAFETY: the index is below VECTOR.
    unsafe { vector.get_unchecked(index) }
}

/// Copies a vector.
#[inline(always)]
pub fn copy(to: &Vector, from: &Vector) {
    let mut word = 0;
    while word < oxbow_abi::field::WORDS {
        to[word].set(from[word].get());
        word += 1;
    }
}

/// Copies the words that stand for something in the packet.
#[inline(always)]
pub fn copy_headers(to: &Vector, from: &Vector) {
    let mut word = usize::from(ETH_DST);
    while word <= usize::from(IP6_LABEL) {
        to[word].set(from[word].get());
        word += 1;
    }
}
