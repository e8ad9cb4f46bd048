//! Multicast groups: members in the order they came, so that one port more or less touches one or two chunks.

use oxbow_abi::rule::NEVER;
use oxbow_abi::topology::{CHUNK, Chunk, ChunkKey, MEMBER_CHASSIS, Members};
use oxbow_pipeline::ir::{DatapathKey, GroupKey, Location, PortKind, Program};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

const EMPTY: Members = Members { from: NEVER, count: 0, member: [0; CHUNK] };

/// Writes of a commit.
#[derive(Default)]
pub(super) struct GroupWrites {
    pub(super) chunks: Vec<(ChunkKey, Chunk)>,
    /// Chunks that only failed commits wrote and nobody wants any more: no version in force knows them.
    pub(super) stale: Vec<ChunkKey>,
    orders: Vec<((DatapathKey, GroupKey), Vec<u32>)>,
}

#[derive(Default)]
pub(super) struct Groups {
    dirty: BTreeSet<(DatapathKey, GroupKey)>,
    /// Members as the kernel has them, in order.
    order: FxHashMap<(DatapathKey, GroupKey), Vec<u32>>,
    kernel: FxHashMap<ChunkKey, Chunk>,
    gone: Vec<ChunkKey>,
    /// Chunks that a commit which has not succeeded yet may have written: they are written again whatever they should hold now.
    attempted: BTreeSet<ChunkKey>,
}

impl Groups {
    /// Chunks that the kernel has.
    pub(super) fn held(&self) -> usize {
        self.kernel.len()
    }

    pub(super) fn mark(&mut self, datapath: DatapathKey, group: GroupKey) {
        self.dirty.insert((datapath, group));
    }

    /// Whether the next writes may take members away that packets of versions from `oldest` on may be using.
    pub(super) fn overtakes(&self, oldest: u32) -> bool {
        self.dirty.iter().any(|&(datapath, group)| {
            let chunks = self.order.get(&(datapath, group)).map_or(0, |order| order.len().div_ceil(CHUNK));
            // One more: what was emptied is there until nobody can be using it.
            (0..=chunks as u32).any(|chunk| {
                let kernel = self.kernel.get(&ChunkKey { datapath: datapath.0, group: group.0, chunk });
                kernel.is_some_and(|chunk| {
                    let [a, b] = chunk.members.each_ref().map(|members| members.from);
                    a != NEVER && b != NEVER && a.max(b) > oldest
                })
            })
        })
    }

    pub(super) fn writes(&mut self, program: &Program, version: u32) -> GroupWrites {
        let mut writes = GroupWrites::default();
        for &(datapath, group) in &self.dirty {
            let wanted = members(program, datapath, group);
            let before = self.order.get(&(datapath, group)).map(Vec::as_slice).unwrap_or_default();
            let order = reorder(before, wanted);
            let first = ChunkKey { datapath: datapath.0, group: group.0, chunk: 0 };
            let attempted = self.attempted.range(first..=ChunkKey { chunk: u32::MAX, ..first }).last();
            let attempted = attempted.map_or(0, |key| key.chunk as usize + 1);
            let chunks = order.len().div_ceil(CHUNK).max(before.len().div_ceil(CHUNK)).max(attempted);
            for chunk in 0..chunks {
                let key = ChunkKey { datapath: datapath.0, group: group.0, chunk: chunk as u32 };
                let slice = |list: &[u32]| {
                    list.get(chunk * CHUNK..).map(|rest| rest[..rest.len().min(CHUNK)].to_vec()).unwrap_or_default()
                };
                let now = slice(&order);
                if self.kernel.contains_key(&key) && slice(before) == now && !self.attempted.contains(&key) {
                    continue;
                }
                if now.is_empty() && !self.kernel.contains_key(&key) {
                    // It may have no room in the map, so there is nothing to write over.
                    writes.stale.push(key);
                    continue;
                }
                self.attempted.insert(key);
                let mut next = Members { from: version, count: now.len() as u32, ..EMPTY };
                next.member[..now.len()].copy_from_slice(&now);
                let kept = self
                    .kernel
                    .get(&key)
                    .and_then(|chunk| chunk.members.into_iter().filter(|m| m.from < version).max_by_key(|m| m.from));
                writes.chunks.push((key, Chunk { members: [kept.unwrap_or(EMPTY), next] }));
            }
            writes.orders.push(((datapath, group), order));
        }
        writes
    }

    /// The version that has them is in force.
    pub(super) fn committed(&mut self, writes: GroupWrites) {
        for (key, chunk) in writes.chunks {
            if chunk.members[1].count == 0 {
                self.gone.push(key);
            }
            self.kernel.insert(key, chunk);
        }
        for (key, order) in writes.orders {
            if order.is_empty() {
                self.order.remove(&key);
            } else {
                self.order.insert(key, order);
            }
        }
        self.dirty.clear();
        self.attempted.clear();
    }

    /// After a grace period: empty chunks to remove from the kernel.
    pub(super) fn settle(&mut self) -> Vec<ChunkKey> {
        let mut gone = std::mem::take(&mut self.gone);
        gone.retain(|key| {
            self.kernel
                .get(key)
                .is_some_and(|chunk| chunk.members.iter().max_by_key(|m| rank(m)).is_some_and(|m| m.count == 0))
        });
        for key in &gone {
            self.kernel.remove(key);
        }
        gone
    }
}

/// Empty slots rank below every version.
fn rank(members: &Members) -> u64 {
    if members.from == NEVER { 0 } else { u64::from(members.from) + 1 }
}

/// Ports of this chassis and chassis with ports: everybody who gets a copy. Ports of kinds that are not served are members too, wherever they
/// are: that they get none is counted, copy by copy.
fn members(program: &Program, datapath: DatapathKey, group: GroupKey) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let Some(group) = program.group(datapath, group) else { return found };
    for &key in &group.members {
        let Some(port) = program.port(datapath, key) else { continue };
        if !port.kind.is_served() {
            found.insert(key.0);
            continue;
        }
        match port.location {
            Location::Local { .. } => {
                found.insert(key.0);
            }
            Location::Remote { chassis } if port.kind == PortKind::Vif => {
                found.insert(MEMBER_CHASSIS | chassis.0);
            }
            Location::Remote { .. } | Location::Unbound => {}
        }
        found.extend(port.additional.iter().map(|chassis| MEMBER_CHASSIS | chassis.0));
    }
    found
}

/// The members wanted, keeping as many as possible where they are: what goes is replaced by what comes, then by what stands last.
fn reorder(before: &[u32], mut wanted: BTreeSet<u32>) -> Vec<u32> {
    let mut order: Vec<Option<u32>> = before.iter().map(|member| wanted.remove(member).then_some(*member)).collect();
    let mut coming = wanted.into_iter();
    for place in order.iter_mut().filter(|place| place.is_none()) {
        *place = coming.next();
    }
    order.extend(coming.map(Some));
    let mut at = 0;
    while at < order.len() {
        if order[at].is_some() {
            at += 1;
        } else {
            let last = order.pop().flatten();
            if at < order.len() {
                order[at] = last;
            }
        }
    }
    order.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_pipeline::ir::{Group, LogicalPort, PortKey};

    #[test]
    fn members_stay_where_they_are() {
        let set = |list: &[u32]| list.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(reorder(&[], set(&[3, 1, 2])), [1, 2, 3]);
        assert_eq!(reorder(&[1, 2, 3], set(&[1, 2, 3, 4])), [1, 2, 3, 4]);
        assert_eq!(reorder(&[1, 2, 3, 4], set(&[1, 3, 4])), [1, 4, 3]);
        assert_eq!(reorder(&[1, 2, 3], set(&[1, 9, 3])), [1, 9, 3]);
        assert_eq!(reorder(&[1, 2, 3], set(&[])), [] as [u32; 0]);
        assert_eq!(reorder(&[1, 2, 3, 4, 5], set(&[5])), [5]);
    }

    /// A group of that many local ports, from 1.
    fn program(ports: u32) -> Program {
        let datapath = DatapathKey(1);
        let mut program = Program::default();
        for key in 1..=ports {
            let port = LogicalPort {
                datapath,
                key: PortKey(key),
                name: format!("p{key}").into(),
                kind: PortKind::Vif,
                location: Location::Local { ifindex: key, tag: None },
                additional: Vec::new(),
                port_security: Vec::new(),
            };
            program.put_port((datapath, PortKey(key)), Some(port.into()));
        }
        let members = (1..=ports).map(PortKey).collect();
        let group = Group { datapath, key: GroupKey(0x8000), name: "_MC_flood".into(), members };
        program.put_group((datapath, GroupKey(0x8000)), Some(group.into()));
        program
    }

    /// Members that a packet of a version meets, as the programs read them.
    fn met(kernel: &FxHashMap<ChunkKey, Chunk>, version: u32) -> Vec<u32> {
        let mut found = Vec::new();
        for chunk in 0.. {
            let Some(value) = kernel.get(&ChunkKey { datapath: 1, group: 0x8000, chunk }) else { break };
            let newest = value.members.iter().filter(|m| m.from <= version).max_by_key(|m| m.from);
            let Some(members) = newest else { break };
            found.extend_from_slice(&members.member[..members.count as usize]);
            if (members.count as usize) < CHUNK {
                break;
            }
        }
        found
    }

    #[test]
    fn what_a_failed_commit_wrote_is_written_over_by_the_next_one() {
        let mut groups = Groups::default();
        let mut kernel: FxHashMap<ChunkKey, Chunk> = FxHashMap::default();
        let (key, full) = ((DatapathKey(1), GroupKey(0x8000)), CHUNK as u32);
        groups.mark(key.0, key.1);
        let writes = groups.writes(&program(full), 1);
        kernel.extend(writes.chunks.iter().copied());
        groups.committed(writes);
        // Ten ports more, in a commit that fails after its writes; then they are gone again before the next one.
        groups.mark(key.0, key.1);
        kernel.extend(groups.writes(&program(full + 10), 2).chunks);
        let writes = groups.writes(&program(full), 2);
        assert_eq!(writes.stale.len(), 1, "the chunk that only the failed commit wrote makes room");
        for key in &writes.stale {
            kernel.remove(key);
        }
        kernel.extend(writes.chunks.iter().copied());
        groups.committed(writes);
        let all: Vec<u32> = (1..=full).collect();
        assert_eq!((met(&kernel, 1), met(&kernel, 2)), (all.clone(), all));
        for gone in groups.settle() {
            kernel.remove(&gone);
        }
        assert_eq!(kernel.len(), 1);
    }
}
