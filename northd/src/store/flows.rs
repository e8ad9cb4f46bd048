//! Logical flows: interned once, counted per datapath, grouped by the set of datapaths they are on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::Location;

use oxbow_ovsdb::{Text, Uuid};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::profile::{Stage, StagePlace};

/// A flow in the interner. Numbers of flows that nobody wants are used again.
pub(crate) type FlowId = u32;
/// A datapath in the store.
pub(crate) type DatapathId = u32;

/// What a logical flow says, on whatever datapaths.
#[derive(Clone, Debug)]
pub(crate) struct FlowContent {
    pub(crate) stage: Stage,
    pub(crate) place: StagePlace,
    pub(crate) priority: u16,
    pub(crate) matches: Box<str>,
    pub(crate) actions: Box<str>,
    /// `tags:in_out_port`: the only port that the match is about.
    pub(crate) in_out_port: Option<Text>,
    pub(crate) meter: Option<Text>,
    /// `external_ids:source`: the line that first wrote the flow.
    pub(crate) source: &'static Location<'static>,
}

/// What makes two flows the same row: everything but hint, source and tags. 128 bits, so that equal hashes are equal flows.
pub(crate) fn flow_hash(
    pipeline: &str,
    table: i64,
    priority: i64,
    matches: &str,
    actions: &str,
    meter: Option<&str>,
) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, pipeline, table, priority, matches, actions, meter).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(1)) << 64 | u128::from(half(2))
}

#[derive(Debug)]
struct Interned {
    hash: u128,
    content: FlowContent,
}

/// Gives each distinct flow a number.
#[derive(Debug, Default)]
pub(crate) struct FlowInterner {
    by_hash: FxHashMap<u128, FlowId>,
    flows: Vec<Option<Interned>>,
    free: Vec<FlowId>,
    /// Flows interned since the last sweep: some may not have been wanted in the end.
    fresh: Vec<FlowId>,
}

impl FlowInterner {
    pub(crate) fn intern(&mut self, hash: u128, content: impl FnOnce() -> FlowContent) -> FlowId {
        if let Some(&id) = self.by_hash.get(&hash) {
            return id;
        }
        let interned = Some(Interned { hash, content: content() });
        let id = match self.free.pop() {
            Some(id) => {
                self.flows[id as usize] = interned;
                id
            }
            None => {
                self.flows.push(interned);
                (self.flows.len() - 1) as FlowId
            }
        };
        self.by_hash.insert(hash, id);
        self.fresh.push(id);
        id
    }

    pub(crate) fn content(&self, id: FlowId) -> Option<&FlowContent> {
        self.flows.get(id as usize)?.as_ref().map(|i| &i.content)
    }

    pub(crate) fn hash(&self, id: FlowId) -> Option<u128> {
        self.flows.get(id as usize)?.as_ref().map(|i| i.hash)
    }

    pub(crate) fn by_hash(&self, hash: u128) -> Option<FlowId> {
        self.by_hash.get(&hash).copied()
    }

    fn forget(&mut self, id: FlowId) {
        if let Some(interned) = self.flows.get_mut(id as usize).and_then(Option::take) {
            self.by_hash.remove(&interned.hash);
            self.free.push(id);
        }
    }
}

/// One datapath a flow is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    datapath: DatapathId,
    /// Stage hints of the units that want it here, least first would be chance: kept with a count each.
    hint: u32,
    count: u32,
}

#[derive(Clone, Debug, Default)]
struct FlowState {
    members: Vec<Member>,
    /// Sum of the datapaths' hashes: equal sets have equal sums, and one datapath more or less is one addition.
    sum: u128,
}

/// Which flows are on which datapaths.
#[derive(Debug, Default)]
pub(crate) struct FlowStore {
    states: Vec<FlowState>,
    datapaths: Vec<Uuid>,
    datapath_ids: FxHashMap<Uuid, DatapathId>,
    dirty: FxHashSet<u128>,
    maybe_unwanted: Vec<FlowId>,
    /// How many flows want each set of two or more datapaths.
    groups: FxHashMap<u128, FxHashSet<FlowId>>,
}

impl FlowStore {
    /// Replaces what a unit wants: both lists are sorted by flow.
    pub(crate) fn replace(
        &mut self,
        interner: &FlowInterner,
        old: Option<(Uuid, &[(FlowId, u32)])>,
        new: Option<(Uuid, &[(FlowId, u32)])>,
    ) {
        let (old_datapath, old_flows) = old.unwrap_or((Uuid::ZERO, &[]));
        let (new_datapath, new_flows) = new.unwrap_or((Uuid::ZERO, &[]));
        let same = old_datapath == new_datapath;
        // Additions first, so that a flow that only changed its hint is never without datapath.
        for flow in new_flows {
            if !same || old_flows.binary_search(flow).is_err() {
                self.add(interner, flow.0, new_datapath, flow.1);
            }
        }
        for flow in old_flows {
            if !same || new_flows.binary_search(flow).is_err() {
                self.remove(interner, flow.0, old_datapath, flow.1);
            }
        }
    }

    fn add(&mut self, interner: &FlowInterner, flow: FlowId, datapath: Uuid, hint: u32) {
        let datapath_id = self.datapath_id(datapath);
        if self.states.len() <= flow as usize {
            self.states.resize_with(flow as usize + 1, FlowState::default);
        }
        let state = &mut self.states[flow as usize];
        match state.members.binary_search_by_key(&(datapath_id, hint), |m| (m.datapath, m.hint)) {
            Ok(at) => state.members[at].count += 1,
            Err(at) => {
                let others = state.members.iter().any(|m| m.datapath == datapath_id);
                state.members.insert(at, Member { datapath: datapath_id, hint, count: 1 });
                if !others {
                    let old = state.sum;
                    state.sum = old.wrapping_add(datapath_hash(datapath));
                    let new = state.sum;
                    self.regroup(flow, old, new);
                }
                self.dirty.extend(interner.hash(flow));
            }
        }
    }

    fn remove(&mut self, interner: &FlowInterner, flow: FlowId, datapath: Uuid, hint: u32) {
        let datapath_id = self.datapath_id(datapath);
        let Some(state) = self.states.get_mut(flow as usize) else { return };
        let Ok(at) = state.members.binary_search_by_key(&(datapath_id, hint), |m| (m.datapath, m.hint)) else { return };
        state.members[at].count -= 1;
        if state.members[at].count > 0 {
            return;
        }
        state.members.remove(at);
        if state.members.is_empty() {
            self.maybe_unwanted.push(flow);
        }
        if !state.members.iter().any(|m| m.datapath == datapath_id) {
            let old = state.sum;
            state.sum = old.wrapping_sub(datapath_hash(datapath));
            let new = state.sum;
            self.regroup(flow, old, new);
        }
        self.dirty.extend(interner.hash(flow));
    }

    fn regroup(&mut self, flow: FlowId, old: u128, new: u128) {
        if let Some(flows) = self.groups.get_mut(&old) {
            flows.remove(&flow);
            if flows.is_empty() {
                self.groups.remove(&old);
            }
        }
        if new != 0 {
            self.groups.entry(new).or_default().insert(flow);
        }
    }

    /// Whether some flow is on exactly the set of datapaths that has this hash.
    pub(crate) fn wants_group(&self, sum: u128) -> bool {
        self.groups.contains_key(&sum)
    }

    /// Says that every flow on exactly this set has to be compared again.
    pub(crate) fn mark_group(&mut self, interner: &FlowInterner, sum: u128) {
        let flows = self.groups.get(&sum).into_iter().flatten();
        self.dirty.extend(flows.filter_map(|flow| interner.hash(*flow)));
    }

    /// Forgets the flows that nobody wants. Their hashes stay marked, so that the reconciler deletes the rows.
    pub(crate) fn sweep(&mut self, interner: &mut FlowInterner) {
        let mut candidates = std::mem::take(&mut interner.fresh);
        candidates.append(&mut self.maybe_unwanted);
        for id in candidates {
            if self.states.get(id as usize).is_none_or(|s| s.members.is_empty()) {
                interner.forget(id);
            }
        }
    }

    fn datapath_id(&mut self, datapath: Uuid) -> DatapathId {
        if let Some(&id) = self.datapath_ids.get(&datapath) {
            return id;
        }
        let id = self.datapaths.len() as DatapathId;
        self.datapaths.push(datapath);
        self.datapath_ids.insert(datapath, id);
        id
    }

    /// The logical switch of a datapath.
    pub(crate) fn datapath(&self, id: DatapathId) -> Uuid {
        self.datapaths[id as usize]
    }

    /// The datapaths a flow is on, each once, ascending.
    pub(crate) fn datapaths(&self, flow: FlowId) -> impl Iterator<Item = DatapathId> {
        let members = self.states.get(flow as usize).map_or(&[][..], |s| &s.members);
        members.chunk_by(|a, b| a.datapath == b.datapath).map(|same| same[0].datapath)
    }

    /// The hash of the set of datapaths a flow is on.
    pub(crate) fn datapath_sum(&self, flow: FlowId) -> u128 {
        self.states.get(flow as usize).map_or(0, |s| s.sum)
    }

    /// The stage hint of a flow: the least that somebody gives it. 0 for none.
    pub(crate) fn hint(&self, flow: FlowId) -> u32 {
        self.states.get(flow as usize).and_then(|s| s.members.iter().map(|m| m.hint).min()).unwrap_or(0)
    }

    /// Says that the flow with this hash has to be compared again.
    pub(crate) fn mark(&mut self, hash: u128) {
        self.dirty.insert(hash);
    }

    /// Marks every flow of the interner.
    pub(crate) fn mark_all(&mut self, interner: &FlowInterner) {
        self.dirty.extend(interner.by_hash.keys().copied());
    }

    /// The marked flows in order; none stays marked.
    pub(crate) fn take_dirty(&mut self) -> Vec<u128> {
        let mut hashes: Vec<u128> = self.dirty.drain().collect();
        hashes.sort_unstable();
        hashes
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// How many flows are wanted.
    pub(crate) fn len(&self) -> usize {
        self.states.iter().filter(|s| !s.members.is_empty()).count()
    }
}

/// The contribution of a datapath to the hash of a set.
pub(crate) fn datapath_hash(datapath: Uuid) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, datapath.as_u128()).hash(&mut hasher);
        hasher.finish()
    };
    u128::from(half(1)) << 64 | u128::from(half(2))
}
