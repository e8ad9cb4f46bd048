//! The loaded programs with maps that a test fills by hand, in a namespace of its own.

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use oxbow_abi::exact::{Exact, WAYS};
use oxbow_abi::learning::{Fdb, FdbKey};
use oxbow_abi::monitor::{Listen, Pace, Seen};
use oxbow_abi::op::{self, Block, Op};
use oxbow_abi::reason::Reason;
use oxbow_abi::rule::{Answer, NEVER, NarrowKey, Rule, RuleSlot, TUPLE_WIDE, Table, Tuple, TupleRange, WideKey};
use oxbow_abi::stats::{Counter, State};
use oxbow_abi::topology::{
    Chassis, Chunk, ChunkKey, Datapath, Members, PORT_LOCAL, PORT_REMOTE, PeerKey, Port, PortKey, STAGES, Stages, Vif,
    VifKey,
};
use oxbow_abi::verdict::{Denied, Verdict, VerdictKey};
use oxbow_backend_bpf::Plain;
use oxbow_testkit::link::veth;
use oxbow_testkit::netns::Netns;
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use zerocopy::FromBytes as _;

/// The switch of every test.
pub(crate) const SWITCH: u32 = 7;
/// `TC_ACT_UNSPEC`: on to the next program, then the host.
pub(crate) const PASS: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
pub(crate) const SHOT: u32 = 2;
/// `TC_ACT_REDIRECT`.
pub(crate) const REDIRECT: u32 = 7;

/// Sets of each CPU in its exact-match cache, unless a test says otherwise.
const EXACT_SETS: u32 = 64;

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Ran {
    /// What the program returned.
    pub(crate) action: u32,
    /// The packet afterwards.
    pub(crate) data: Vec<u8>,
    /// Nanoseconds per run.
    pub(crate) ns: f64,
}

/// The programs and their maps.
pub(crate) struct Rig {
    ebpf: Ebpf,
    pub(crate) hv: Netns,
    next_tuple: u32,
    next_block: u32,
    next_table: u32,
    /// Tuples of each table in the order they were added: they are written anew on each change.
    tables: std::collections::BTreeMap<(u8, u8), Vec<Tuple>>,
    tuple_slots: u32,
    stages: Stages,
}

/// A match on words under masks, and the value.
pub(crate) type Match<'a> = &'a [(u8, u32, u32)];

/// The numbers of the running kernel's release.
pub(crate) fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

impl Rig {
    /// Loads the object.
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    /// Loads the object with globals overridden.
    pub(crate) fn with(globals: &[(&str, u32)]) -> Self {
        let hv = Netns::with_own_sys("dp").unwrap();
        let path = oxbow_testkit::artifacts::require_ebpf_object().unwrap();
        let object = std::fs::read(path).unwrap();
        let cpus = u32::try_from(aya::util::nr_cpus().unwrap()).unwrap();
        let globals: Vec<(String, u32)> = globals.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        let ebpf = hv
            .enter(move || {
                let pins = std::path::Path::new("/sys/fs/bpf/oxbow-test");
                std::fs::create_dir(pins).unwrap();
                let mut loader = EbpfLoader::new();
                loader.default_map_pin_directory(pins);
                for (name, size) in [
                    ("OX_VIFS", 64),
                    ("OX_PORTS", 1024),
                    ("OX_GROUPS", 64),
                    ("OX_CHASSIS", 16),
                    ("OX_PEERS", 16),
                    ("OX_DATAPATHS", 16),
                    ("OX_TABLES", 256),
                    ("OX_TUPLES", 4096),
                    ("OX_RULES", 16384),
                    ("OX_RULES_WIDE", 1024),
                    ("OX_BLOCKS", 512),
                    ("OX_VERDICTS", 4096),
                    ("OX_DENIED", 1024),
                    ("OX_EXACT_TAGS", EXACT_SETS * cpus),
                    ("OX_EXACT", EXACT_SETS * cpus * WAYS),
                    ("OX_GUARDS", 64),
                    ("OX_FDB", 1024),
                    ("OX_LFLOWS", 1024),
                    ("OX_BUCKETS", 256),
                    ("OX_EVENTS", 65536),
                    ("OX_MONITOR", 65536),
                ] {
                    loader.map_max_entries(name, size);
                }
                loader.override_global("OX_EXACT_SETS", &EXACT_SETS, true);
                for (name, value) in &globals {
                    loader.override_global(name, value, true);
                }
                let mut ebpf = loader.load(&object).unwrap();
                for name in ["oxbow_vif", "oxbow_underlay"] {
                    let program: &mut SchedClassifier = ebpf.program_mut(name).unwrap().try_into().unwrap();
                    if let Err(error) = program.load() {
                        panic!("{name}: {error:#?}");
                    }
                }
                ebpf
            })
            .unwrap();
        let empty = Stages {
            from: 1,
            reserved: 0,
            ingress: [0; STAGES],
            egress: [0; STAGES],
            sub: [0; op::SUBS],
            reserved2: [0; 2],
        };
        let mut rig = Self {
            ebpf,
            hv,
            next_tuple: 1,
            next_block: 1,
            next_table: 1,
            tables: std::collections::BTreeMap::new(),
            tuple_slots: 1,
            stages: empty,
        };
        rig.state(State { version: 1, flags: 0, fan_out_budget: 1000, epoch: 1, ..State::default() });
        rig.put_datapath();
        rig
    }

    fn array<T: Copy + 'static>(&mut self, name: &str) -> Array<&mut MapData, Plain<T>>
    where
        Plain<T>: aya::Pod,
    {
        Array::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    fn hash<K: Copy + 'static, V: Copy + 'static>(&mut self, name: &str) -> HashMap<&mut MapData, Plain<K>, Plain<V>>
    where
        Plain<K>: aya::Pod,
        Plain<V>: aya::Pod,
    {
        HashMap::try_from(self.ebpf.map_mut(name).unwrap()).unwrap()
    }

    /// Sets version and knobs.
    pub(crate) fn state(&mut self, state: State) {
        let old: State = self.array("OX_STATE").get(&0, 0).unwrap().0;
        let state = State { vifs: state.vifs.max(old.vifs), epoch: state.epoch.max(old.epoch), ..state };
        self.array("OX_STATE").set(0, Plain(state), 0).unwrap();
    }

    /// Raises a guard, and says so.
    pub(crate) fn guard(&mut self, index: u32, version: u32) {
        self.array("OX_GUARDS").set(index, Plain(version), 0).unwrap();
        let mut state: State = self.array("OX_STATE").get(&0, 0).unwrap().0;
        state.epoch += 1;
        self.state(state);
    }

    fn put_datapath(&mut self) {
        let none = Stages { from: NEVER, ..self.stages };
        let datapath = Datapath { guard: 1, flags: 0, stages: [self.stages, none] };
        self.hash("OX_DATAPATHS").insert(Plain(SWITCH), Plain(datapath), 0).unwrap();
    }

    /// Forgets a datapath.
    pub(crate) fn remove_datapath(&mut self, datapath: u32) {
        self.hash::<u32, Datapath>("OX_DATAPATHS").remove(&Plain(datapath)).unwrap();
    }

    /// A device pair; frames that the programs send to `near` come out at `far`, in the namespace of the programs as well.
    pub(crate) fn device(&mut self, near: &str, far: &str) -> u32 {
        veth(&self.hv, near, &self.hv, far).unwrap();
        // Until the kernel has noticed the carrier it drops what is sent to a device.
        wait_until(&format!("{near} is up"), PATIENCE, || {
            let state = self.hv.run("cat", &[&format!("/sys/class/net/{near}/operstate")])?;
            Ok(Look::when(state.trim() == "up", || state))
        })
        .unwrap();
        let name = near.to_owned();
        self.hv.enter(move || nix::net::if_::if_nametoindex(name.as_str()).unwrap()).unwrap()
    }

    /// Index of a device.
    pub(crate) fn index(&self, name: &str) -> u32 {
        self.hv.enter(|| nix::net::if_::if_nametoindex(name).unwrap()).unwrap()
    }

    /// Attaches a program to the ingress of a device.
    pub(crate) fn attach(&mut self, device: &str, program: &str) {
        let Self { ebpf, hv, .. } = self;
        hv.enter(|| {
            let program: &mut SchedClassifier = ebpf.program_mut(program).unwrap().try_into().unwrap();
            if kernel() < (6, 6) {
                // No tcx: a filter, which needs its queueing discipline.
                aya::programs::tc::qdisc_add_clsact(device).unwrap();
            }
            program.attach(device, aya::programs::TcAttachType::Ingress).unwrap();
        })
        .unwrap();
    }

    /// Instructions that the verifier looked at.
    pub(crate) fn verified(&self, program: &str) -> u32 {
        let program: &SchedClassifier = self.ebpf.program(program).unwrap().try_into().unwrap();
        program.info().unwrap().verified_instruction_count().unwrap()
    }

    /// Programs a device.
    pub(crate) fn vif(&mut self, ifindex: u32, vlan: u32, port: u32, flags: u32) {
        let vif = Vif { datapath: SWITCH, port, guard: 10 + port % 32, flags, zone: 0, reserved: 0 };
        self.hash("OX_VIFS").insert(Plain(VifKey { ifindex, vlan }), Plain(vif), 0).unwrap();
        self.vifs_changed();
    }

    /// Takes a device's port away.
    pub(crate) fn forget_vif(&mut self, ifindex: u32) {
        self.hash::<VifKey, Vif>("OX_VIFS").remove(&Plain(VifKey { ifindex, vlan: 0 })).unwrap();
        self.vifs_changed();
    }

    fn vifs_changed(&mut self) {
        let mut state: State = self.array("OX_STATE").get(&0, 0).unwrap().0;
        state.vifs += 1;
        self.state(state);
    }

    /// A port of any kind.
    pub(crate) fn port(&mut self, port: u32, value: Port) {
        self.hash("OX_PORTS").insert(Plain(PortKey { datapath: SWITCH, port }), Plain(value), 0).unwrap();
    }

    /// A port on a local device.
    pub(crate) fn local(&mut self, port: u32, ifindex: u32, vlan: u32) {
        self.port(port, Port { kind: PORT_LOCAL, ifindex, vlan, guard: 10 + port % 32, ..Port::default() });
    }

    /// A port on another chassis.
    pub(crate) fn remote(&mut self, port: u32, chassis: u32) {
        self.port(port, Port { kind: PORT_REMOTE, chassis, guard: 10 + port % 32, ..Port::default() });
    }

    /// A chassis.
    pub(crate) fn chassis(&mut self, index: u32, chassis: Chassis) {
        self.array("OX_CHASSIS").set(index, Plain(chassis), 0).unwrap();
    }

    /// Frames from there to here are ours.
    pub(crate) fn peer(&mut self, key: PeerKey, chassis: u32) {
        self.hash("OX_PEERS").insert(Plain(key), Plain(chassis), 0).unwrap();
    }

    /// A group of one chunk.
    pub(crate) fn group(&mut self, group: u32, list: &[u32]) {
        for (chunk, list) in list.chunks(oxbow_abi::topology::CHUNK).enumerate() {
            let mut members = Members { from: 1, count: list.len() as u32, member: [0; oxbow_abi::topology::CHUNK] };
            members.member[..list.len()].copy_from_slice(list);
            let none = Members { from: NEVER, count: 0, ..members };
            let key = ChunkKey { datapath: SWITCH, group, chunk: chunk as u32 };
            self.hash("OX_GROUPS").insert(Plain(key), Plain(Chunk { members: [members, none] }), 0).unwrap();
        }
    }

    /// Interns a list of operations, over several blocks if it is long.
    pub(crate) fn block(&mut self, ops: &[Op]) -> u32 {
        let first = self.next_block;
        let chunks: Vec<&[Op]> = if ops.is_empty() { vec![ops] } else { ops.chunks(op::BLOCK_OPS).collect() };
        self.next_block += chunks.len() as u32;
        for (n, chunk) in chunks.iter().enumerate() {
            let mut block = Block { len: chunk.len() as u32, ..Block::default() };
            block.op[..chunk.len()].copy_from_slice(chunk);
            if n + 1 < chunks.len() {
                block.next = first + n as u32 + 1;
            }
            self.array("OX_BLOCKS").set(first + n as u32, Plain(block), 0).unwrap();
        }
        first
    }

    /// Adds a rule to a stage (pipeline 0 or 1; 2 = sub-table number `stage`), valid from version 1 on.
    pub(crate) fn rule(&mut self, table: (u8, u8), priority: u16, matches: Match<'_>, ops: &[Op], lflow: u32) -> u32 {
        let block = self.block(ops);
        self.slots(
            table,
            priority,
            matches,
            0,
            [
                RuleSlot {
                    from: 1,
                    until: NEVER,
                    priority: priority.into(),
                    answer: Answer { block, lflow, operand: [0; 6] },
                },
                RuleSlot::EMPTY,
            ],
        )
    }

    /// Adds a rule with the slots given; the result is the tuple's number.
    pub(crate) fn slots(
        &mut self,
        table: (u8, u8),
        priority: u16,
        matches: Match<'_>,
        flags: u8,
        slot: [RuleSlot; 2],
    ) -> u32 {
        let mut tuple = Tuple { id: 0, max_priority: priority, words: matches.len() as u8, flags, ..Tuple::default() };
        let wide = matches.len() > oxbow_abi::rule::NARROW;
        if wide {
            tuple.flags |= TUPLE_WIDE;
        }
        let mut value = [0u32; 16];
        for (n, &(word, mask, key)) in matches.iter().enumerate() {
            tuple.word[n] = word;
            tuple.mask[n] = mask;
            value[n] = key & mask;
        }
        let list = self.tables.entry(table).or_default();
        let same = |t: &&mut Tuple| (t.word, t.mask, t.flags) == (tuple.word, tuple.mask, tuple.flags);
        let id = if let Some(existing) = list.iter_mut().find(same) {
            existing.max_priority = existing.max_priority.max(priority);
            existing.id
        } else {
            tuple.id = self.next_tuple;
            self.next_tuple += 1;
            list.push(tuple);
            tuple.id
        };
        list.sort_by_key(|t| std::cmp::Reverse(t.max_priority));
        if wide {
            let mut word = [0; oxbow_abi::rule::WIDE];
            word.copy_from_slice(&value[..oxbow_abi::rule::WIDE]);
            self.hash("OX_RULES_WIDE").insert(Plain(WideKey { tuple: id, word }), Plain(Rule { slot }), 0).unwrap();
        } else {
            let mut word = [0; oxbow_abi::rule::NARROW];
            word.copy_from_slice(&value[..oxbow_abi::rule::NARROW]);
            self.hash("OX_RULES").insert(Plain(NarrowKey { tuple: id, word }), Plain(Rule { slot }), 0).unwrap();
        }
        self.write_table(table);
        id
    }

    fn write_table(&mut self, table: (u8, u8)) {
        let list = self.tables.get(&table).cloned().unwrap_or_default();
        let first = self.tuple_slots;
        for (n, tuple) in list.iter().enumerate() {
            self.array("OX_TUPLES").set(first + n as u32, Plain(*tuple), 0).unwrap();
        }
        self.tuple_slots += list.len() as u32;
        let (pipeline, stage) = (table.0, usize::from(table.1));
        let place = match pipeline {
            0 => &mut self.stages.ingress[stage],
            1 => &mut self.stages.egress[stage],
            _ => &mut self.stages.sub[stage],
        };
        if *place == 0 {
            *place = self.next_table;
            self.next_table += 1;
        }
        let index = *place;
        let range = TupleRange { from: 1, first, count: list.len() as u32 };
        let none = TupleRange { from: NEVER, first: 0, count: 0 };
        self.array("OX_TABLES").set(index, Plain(Table { range: [range, none] }), 0).unwrap();
        self.put_datapath();
    }

    /// Runs `oxbow_vif` as if `frame` had come by the device.
    pub(crate) fn vif_run(&mut self, ifindex: u32, frame: &[u8]) -> Ran {
        self.run("oxbow_vif", ifindex, frame, 1, 0)
    }

    /// Runs `oxbow_underlay`.
    pub(crate) fn underlay_run(&mut self, ifindex: u32, frame: &[u8]) -> Ran {
        self.run("oxbow_underlay", ifindex, frame, 1, 0)
    }

    /// Runs a program `repeat` times; `gso` is the segment size of a super-packet.
    pub(crate) fn run(&mut self, program: &str, ifindex: u32, frame: &[u8], repeat: u32, gso: u32) -> Ran {
        let Self { ebpf, hv, .. } = self;
        let program: &SchedClassifier = ebpf.program(program).unwrap().try_into().unwrap();
        // struct __sk_buff: ifindex at 40, gso_size at 176.
        let mut context = [0u8; 192];
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        context[176..180].copy_from_slice(&gso.to_ne_bytes());
        let mut data = vec![0u8; frame.len() + 4096];
        let ran = hv
            .enter(|| {
                program
                    .test_run(TestRunOptions {
                        data_in: Some(frame),
                        data_out: Some(&mut data),
                        ctx_in: Some(&context),
                        repeat,
                        ..Default::default()
                    })
                    .unwrap()
            })
            .unwrap();
        data.truncate(ran.data_size_out as usize);
        Ran { action: ran.return_value, data, ns: ran.duration.as_nanos() as f64 }
    }

    fn counter(&self, map: &str, index: u32) -> Counter {
        let map: PerCpuArray<&MapData, Plain<Counter>> = PerCpuArray::try_from(self.ebpf.map(map).unwrap()).unwrap();
        map.get(&index, 0).unwrap().iter().fold(Counter::default(), |sum, one| Counter {
            packets: sum.packets + one.0.packets,
            bytes: sum.bytes + one.0.bytes,
        })
    }

    /// Packets dropped for a reason.
    pub(crate) fn drops(&self, reason: Reason) -> u64 {
        self.counter("OX_DROPS", reason as u32).packets
    }

    /// All drops, for messages.
    pub(crate) fn all_drops(&self) -> Vec<(&'static str, u64)> {
        Reason::ALL.iter().map(|&r| (r.text(), self.drops(r))).filter(|&(_, n)| n != 0).collect()
    }

    /// Packets of a total.
    pub(crate) fn total(&self, index: u32) -> u64 {
        self.counter("OX_TOTALS", index).packets
    }

    /// Packets of a logical flow.
    pub(crate) fn lflow(&self, index: u32) -> u64 {
        self.counter("OX_LFLOWS", index).packets
    }

    /// All cached verdicts.
    pub(crate) fn verdicts(&mut self) -> Vec<(VerdictKey, Verdict)> {
        let map = self.hash::<VerdictKey, Verdict>("OX_VERDICTS");
        map.iter().map(|entry| entry.map(|(k, v)| (k.0, v.0)).unwrap()).collect()
    }

    /// Empties the verdict cache.
    pub(crate) fn forget_verdicts(&mut self) {
        for (key, _) in self.verdicts() {
            self.hash::<VerdictKey, Verdict>("OX_VERDICTS").remove(&Plain(key)).unwrap();
        }
    }

    /// What CPUs keep of it.
    pub(crate) fn kept(&mut self) -> Vec<Exact> {
        let map = self.array::<Exact>("OX_EXACT");
        (0..map.len()).map(|n| map.get(&n, 0).unwrap().0).filter(|entry| entry.kind != 0).collect()
    }

    /// All denied flows.
    pub(crate) fn denied(&mut self) -> Vec<(VerdictKey, Denied)> {
        let map = self.hash::<VerdictKey, Denied>("OX_DENIED");
        map.iter().map(|entry| entry.map(|(k, v)| (k.0, v.0)).unwrap()).collect()
    }

    /// An entry of the MAC table.
    pub(crate) fn fdb(&mut self, key: FdbKey) -> Option<Fdb> {
        self.hash::<FdbKey, Fdb>("OX_FDB").get(&Plain(key), 0).ok().map(|v| v.0)
    }

    /// Says what listeners want told.
    pub(crate) fn listen(&mut self, listen: Listen) {
        self.array("OX_LISTEN").set(0, Plain(listen), 0).unwrap();
    }

    /// What listeners were told since the last call.
    pub(crate) fn seen(&mut self) -> Vec<Seen> {
        let map: &mut Map = self.ebpf.map_mut("OX_MONITOR").unwrap();
        let mut ring = RingBuf::try_from(map).unwrap();
        let mut all = Vec::new();
        while let Some(record) = ring.next() {
            all.push(Seen::read_from_bytes(&record).unwrap());
        }
        all
    }

    /// Records that were not told since the load, over all CPUs.
    pub(crate) fn untold(&self) -> u64 {
        let map: PerCpuArray<&MapData, Plain<Pace>> = PerCpuArray::try_from(self.ebpf.map("OX_PACE").unwrap()).unwrap();
        map.get(&0, 0).unwrap().iter().map(|pace| pace.0.lost).sum()
    }

    /// The events since the last call.
    pub(crate) fn events(&mut self) -> Vec<Vec<u8>> {
        let map: &mut Map = self.ebpf.map_mut("OX_EVENTS").unwrap();
        let mut ring = RingBuf::try_from(map).unwrap();
        let mut all = Vec::new();
        while let Some(event) = ring.next() {
            all.push(event.to_vec());
        }
        all
    }
}

/// `word[dst] = value` under a mask.
pub(crate) fn set(dst: u8, mask: u32, value: u32) -> Op {
    Op { code: op::SET, dst, a: mask, b: value, ..Op::default() }
}

/// `next` into a stage of a pipeline.
pub(crate) fn next(pipeline: u8, stage: u32) -> Op {
    Op { code: op::NEXT, dst: pipeline, a: stage, ..Op::default() }
}

/// `output;` at the end.
pub(crate) fn output() -> Op {
    Op { code: op::OUTPUT_END, ..Op::default() }
}
