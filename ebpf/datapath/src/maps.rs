//! Every map of the programs. Names, keys and values are the contract in `oxbow-abi`; all but the last two are pinned by name, and
//! the loader may override each size (`EbpfLoader::map_max_entries`): what stands here are defaults for a mid-sized hypervisor.
//!
//! Maps whose values are replaced while packets read them are hashes without preallocation: a value is replaced as a whole, and the old one stays readable
//! (what it may become meanwhile: `DESIGN.md`, Races). Arrays are only written where no packet of a version in use looks (see `oxbow_abi::rule`), or word by word.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use oxbow_abi::{
    exact::Exact,
    learning::{FDB_GENERATIONS, Fdb, FdbKey},
    monitor::{Listen, Pace},
    op::Block,
    reason::REASONS,
    rule::{NarrowKey, Rule, Table, Tuple, WideKey},
    stats::{Bucket, Counter, State, total},
    topology::{Chassis, Chunk, ChunkKey, Datapath, PeerKey, Port, PortKey, Vif, VifKey},
    verdict::{Denied, Verdict, VerdictKey},
};

use crate::{
    scratch::Scratch,
    vif::{KNOWN_VIFS, KnownVif},
};

/// The policy version in force and the knobs.
#[map]
pub static OX_STATE: Array<State> = Array::pinned(1, 0);
/// Where frames enter.
#[map]
pub static OX_VIFS: HashMap<VifKey, Vif> = HashMap::pinned(8192, BPF_F_NO_PREALLOC);
/// Logical ports.
#[map]
pub static OX_PORTS: HashMap<PortKey, Port> = HashMap::pinned(65_536, BPF_F_NO_PREALLOC);
/// Multicast groups, in chunks.
#[map]
pub static OX_GROUPS: HashMap<ChunkKey, Chunk> = HashMap::pinned(65_536, BPF_F_NO_PREALLOC);
/// Other chassis.
#[map]
pub static OX_CHASSIS: Array<Chassis> = Array::pinned(8192, 0);
/// Address pairs that may tunnel to us.
#[map]
pub static OX_PEERS: HashMap<PeerKey, u32> = HashMap::pinned(16_384, BPF_F_NO_PREALLOC);
/// Logical datapaths: stage maps.
#[map]
pub static OX_DATAPATHS: HashMap<u32, Datapath> = HashMap::pinned(8192, BPF_F_NO_PREALLOC);
/// Logical tables: ranges of tuples.
#[map]
pub static OX_TABLES: Array<Table> = Array::pinned(131_072, 0);
/// Masks.
#[map]
pub static OX_TUPLES: Array<Tuple> = Array::pinned(65_536, 0);
/// Rules with keys of up to seven words.
#[map]
pub static OX_RULES: HashMap<NarrowKey, Rule> = HashMap::pinned(262_144, BPF_F_NO_PREALLOC);
/// Rules with keys of up to fifteen words.
#[map]
pub static OX_RULES_WIDE: HashMap<WideKey, Rule> = HashMap::pinned(65_536, BPF_F_NO_PREALLOC);
/// Lists of operations.
#[map]
pub static OX_BLOCKS: Array<Block> = Array::pinned(32_768, 0);
/// What whole walks came to.
#[map]
pub static OX_VERDICTS: LruHashMap<VerdictKey, Verdict> = LruHashMap::pinned(65_536, 0);
/// What each CPU keeps of them. Mapped by user space, which reads the hits that are not in the verdicts yet; its pages also put the entries on cache lines.
#[map]
pub static OX_EXACT: Array<Exact> = Array::pinned(1, BPF_F_MMAPABLE);
/// Their tags, eight in a word: few enough to stay in a CPU's nearest caches.
#[map]
pub static OX_EXACT_TAGS: Array<u64> = Array::pinned(1, 0);
/// Walks that ended in a drop; apart, so that a flood of denied packets evicts no good flow.
#[map]
pub static OX_DENIED: LruHashMap<VerdictKey, Denied> = LruHashMap::pinned(8192, 0);
/// Versions in which things last changed.
#[map]
pub static OX_GUARDS: Array<u32> = Array::pinned(131_072, 0);
/// The MAC table.
#[map]
pub static OX_FDB: HashMap<FdbKey, Fdb> = HashMap::pinned(65_536, BPF_F_NO_PREALLOC);
/// Generations of addresses in the MAC table; mapped by user space, which adds to them atomically as the programs do.
#[map]
pub static OX_FDB_GENERATIONS: Array<u32> = Array::pinned(FDB_GENERATIONS, BPF_F_MMAPABLE);
/// Drops per reason.
#[map]
pub static OX_DROPS: PerCpuArray<Counter> = PerCpuArray::pinned(REASONS, 0);
/// Packets per logical flow, walked or dropped; hits are attributed by user space.
#[map]
pub static OX_LFLOWS: PerCpuArray<Counter> = PerCpuArray::pinned(131_072, 0);
/// Totals.
#[map]
pub static OX_TOTALS: PerCpuArray<Counter> = PerCpuArray::pinned(total::COUNT, 0);
/// Token buckets.
#[map]
pub static OX_BUCKETS: LruHashMap<u64, Bucket> = LruHashMap::pinned(16_384, 0);
/// Events to user space.
#[map]
pub static OX_EVENTS: RingBuf = RingBuf::pinned(1 << 20, 0);
/// Packets, to those who listen.
#[map]
pub static OX_MONITOR: RingBuf = RingBuf::pinned(1 << 19, 0);
/// What they want told.
#[map]
pub static OX_LISTEN: Array<Listen> = Array::pinned(1, 0);
/// How fast each CPU tells.
#[map]
pub static OX_PACE: PerCpuArray<Pace> = PerCpuArray::pinned(1, 0);
/// What this CPU last found in `OX_VIFS`, by the lower bits of the interface index: a tenth of the cost of a hash look-up.
#[map]
pub static OX_VIF_CACHE: PerCpuArray<KnownVif> = PerCpuArray::with_max_entries(KNOWN_VIFS, 0);
/// The slot a walk works in.
#[map]
pub static OX_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
