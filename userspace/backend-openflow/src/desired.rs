//! What every flow and group should be, by whose wish, and what the switch has been given.
//!
//! Several rules may wish for a flow with the same table, priority and match: a member of several conjunctions is one flow that names them all; where
//! a rule with actions and members of conjunctions meet, the rule wins (whatever packet it is about, it matches that rule, and which of equal
//! priorities is taken is not defined in OVN); of several rules the one of the smallest logical flow, as in the reference interpreter.

use oxbow_pipeline::ir::{ChassisId, DatapathKey, GroupKey, LflowId, Mac, PortKey, RuleId};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// What tells a flow from others. Ordered by table, falling priority, match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct FlowKey {
    table: u8,
    /// 65535 less the priority.
    inverse: u16,
    matches: Arc<str>,
}

impl FlowKey {
    pub(crate) fn new(table: u8, priority: u16, matches: &str) -> Self {
        FlowKey { table, inverse: u16::MAX - priority, matches: matches.into() }
    }

    /// `table=…,priority=…,MATCH`.
    pub(crate) fn text(&self) -> String {
        let FlowKey { table, inverse, matches } = self;
        let comma = if matches.is_empty() { "" } else { "," };
        format!("table={table},priority={}{comma}{matches}", u16::MAX - inverse)
    }
}

/// Who wishes for a flow or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// What every bridge has.
    Fixed,
    /// A rule of a table or a sub-table.
    Rule(RuleId),
    /// A datapath.
    Datapath(DatapathKey),
    /// A tunnel to a chassis.
    Chassis(ChassisId),
    /// A port.
    Port(DatapathKey, PortKey),
    /// A multicast group.
    Group(DatapathKey, GroupKey),
    /// A confirmed address.
    Address(DatapathKey, Mac),
}

/// What a flow does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A list of actions.
    Acts(Arc<str>),
    /// A part of a conjunction.
    Member {
        /// Which.
        id: u32,
        /// Which condition, from 1.
        n: u8,
        /// Of how many.
        of: u8,
    },
}

/// A wish.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) owner: Owner,
    /// The logical flow, 0 for none.
    pub(crate) lflow: LflowId,
    pub(crate) cookie: u64,
    pub(crate) body: Body,
}

/// A flow's cookie and actions.
type Content = (u64, Arc<str>);

#[derive(Debug, Default)]
struct Slot {
    wishes: SmallVec<[Wish; 1]>,
    /// What the switch has, as far as is known.
    given: Option<Content>,
}

impl Slot {
    fn content(&self) -> Option<Content> {
        let acts = self.wishes.iter().filter_map(|wish| match &wish.body {
            Body::Acts(text) => Some((wish.lflow, wish.owner, wish.cookie, text)),
            Body::Member { .. } => None,
        });
        if let Some((_, _, cookie, text)) = acts.min_by_key(|(lflow, owner, ..)| (*lflow, *owner)) {
            return Some((cookie, Arc::clone(text)));
        }
        let mut members: Vec<(u32, u8, u8, u64)> = self
            .wishes
            .iter()
            .filter_map(|wish| match wish.body {
                Body::Member { id, n, of } => Some((id, n, of, wish.cookie)),
                Body::Acts(_) => None,
            })
            .collect();
        members.sort_unstable();
        members.dedup();
        let cookie = members.first()?.3;
        let mut text = String::new();
        for (id, n, of, _) in members {
            let comma = if text.is_empty() { "" } else { "," };
            let written = write!(text, "{comma}conjunction({id},{n}/{of})");
            debug_assert!(written.is_ok(), "writing to a string does not fail");
        }
        Some((cookie, text.into()))
    }
}

/// A line of a bundle, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) text: String,
    pub(crate) about: About,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Writes a flow.
    Write(FlowKey),
    /// Deletes a flow.
    Delete(FlowKey),
    /// Writes or deletes a group.
    Group(u32),
    /// Deletes what was learned, or what the model does not know of.
    Other,
}

/// All wishes.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    flows: FxHashMap<FlowKey, Slot>,
    owned: FxHashMap<Owner, FxHashSet<FlowKey>>,
    dirty: BTreeSet<FlowKey>,
    groups: BTreeMap<u32, Arc<str>>,
    groups_given: BTreeMap<u32, Arc<str>>,
    groups_dirty: BTreeSet<u32>,
    /// Learned addresses that are to be forgotten: what deletes them.
    forget: BTreeSet<String>,
    under_way: UnderWay,
}

/// What the switch is being told, and has perhaps not taken yet; wishes go on changing meanwhile.
#[derive(Debug, Default)]
struct UnderWay {
    flows: Vec<(FlowKey, Option<Content>)>,
    groups: Vec<(u32, Option<Arc<str>>)>,
    forget: BTreeSet<String>,
}

impl Desired {
    /// A wish for a flow.
    pub(crate) fn wish(&mut self, key: FlowKey, wish: Wish) {
        self.owned.entry(wish.owner).or_default().insert(key.clone());
        self.flows.entry(key.clone()).or_default().wishes.push(wish);
        self.dirty.insert(key);
    }

    /// One wish of an owner for a flow is gone.
    pub(crate) fn unwish(&mut self, owner: Owner, key: &FlowKey, body: &Body) {
        let Some(slot) = self.flows.get_mut(key) else { return };
        let Some(at) = slot.wishes.iter().position(|wish| wish.owner == owner && wish.body == *body) else { return };
        slot.wishes.remove(at);
        let other = slot.wishes.iter().any(|wish| wish.owner == owner);
        self.dirty.insert(key.clone());
        if !other && let Some(keys) = self.owned.get_mut(&owner) {
            keys.remove(key);
        }
    }

    /// All wishes of an owner for flows are gone.
    pub(crate) fn withdraw(&mut self, owner: Owner) {
        for key in self.owned.remove(&owner).unwrap_or_default() {
            if let Some(slot) = self.flows.get_mut(&key) {
                slot.wishes.retain(|wish| wish.owner != owner);
            }
            self.dirty.insert(key);
        }
    }

    /// Puts a group in place, or takes it away.
    pub(crate) fn set_group(&mut self, id: u32, buckets: Option<String>) {
        match buckets {
            Some(buckets) => {
                self.groups.insert(id, buckets.into());
            }
            None => {
                self.groups.remove(&id);
            }
        }
        self.groups_dirty.insert(id);
    }

    /// Learned addresses are to be forgotten, by this line.
    pub(crate) fn forget(&mut self, line: String) {
        self.forget.insert(line);
    }

    /// Owners of the wishes for a flow.
    pub(crate) fn owners(&self, key: &FlowKey) -> Vec<Owner> {
        self.flows.get(key).map(|slot| slot.wishes.iter().map(|wish| wish.owner).collect()).unwrap_or_default()
    }

    /// What has to be told to the switch: groups that come before the flows that use them, flows, groups that go after them.
    fn differences(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut gone = Vec::new();
        for id in &self.groups_dirty {
            let (wanted, given) = (self.groups.get(id), self.groups_given.get(id));
            if wanted == given {
                continue;
            }
            match wanted {
                Some(buckets) => lines.push(group_line(*id, buckets)),
                None => gone.push(group_gone(*id)),
            }
        }
        for key in &self.dirty {
            let Some(slot) = self.flows.get(key) else { continue };
            let wanted = slot.content();
            if wanted == slot.given {
                continue;
            }
            lines.push(match wanted {
                Some(content) => flow_line(key, &content),
                None => Line { text: format!("flow delete_strict {}", key.text()), about: About::Delete(key.clone()) },
            });
        }
        lines.extend(self.forget.iter().map(|text| Line { text: text.clone(), about: About::Other }));
        lines.extend(gone);
        lines
    }

    /// The switch is being told what differs: the lines that do it. Ends with [`Desired::end`].
    pub(crate) fn begin(&mut self) -> Vec<Line> {
        let lines = self.differences();
        let flows = std::mem::take(&mut self.dirty).into_iter();
        let content = |key: &FlowKey| self.flows.get(key).and_then(Slot::content);
        self.under_way = UnderWay {
            flows: flows.map(|key| (key.clone(), content(&key))).collect(),
            groups: std::mem::take(&mut self.groups_dirty)
                .into_iter()
                .map(|id| (id, self.groups.get(&id).cloned()))
                .collect(),
            forget: std::mem::take(&mut self.forget),
        };
        lines
    }

    /// As [`Desired::begin`], when it is not known what the switch holds: it is being told all of it.
    pub(crate) fn begin_anew(&mut self) {
        self.dirty.extend(self.flows.keys().cloned());
        self.groups_dirty.extend(self.groups.keys().chain(self.groups_given.keys()));
        self.begin();
    }

    /// Lines that delete learned addresses, among what the switch is being told.
    pub(crate) fn forgets(&self) -> &BTreeSet<String> {
        &self.under_way.forget
    }

    /// The switch has taken what it was told, or has not: then it is a difference again.
    pub(crate) fn end(&mut self, is_taken: bool) {
        let UnderWay { flows, groups, forget } = std::mem::take(&mut self.under_way);
        if !is_taken {
            self.dirty.extend(flows.into_iter().map(|(key, _)| key));
            self.groups_dirty.extend(groups.into_iter().map(|(id, _)| id));
            self.forget.extend(forget);
            return;
        }
        for (key, content) in flows {
            if let Some(slot) = self.flows.get_mut(&key) {
                slot.given = content;
                if slot.given.is_none() && slot.wishes.is_empty() {
                    self.flows.remove(&key);
                }
            }
        }
        for (id, buckets) in groups {
            match buckets {
                Some(buckets) => self.groups_given.insert(id, buckets),
                None => self.groups_given.remove(&id),
            };
        }
    }

    /// All flows as they should be: `cookie=…,table=…,priority=…,MATCH,actions=…`, sorted.
    pub(crate) fn flow_texts(&self) -> Vec<(FlowKey, String)> {
        let mut keys: Vec<(&FlowKey, Content)> =
            self.flows.iter().filter_map(|(key, slot)| Some((key, slot.content()?))).collect();
        keys.sort_unstable_by(|a, b| a.0.cmp(b.0));
        keys.into_iter().map(|(key, content)| (key.clone(), flow_text(key, &content))).collect()
    }

    /// A flow as it should be, as ovs-ofctl(8) reads it.
    pub(crate) fn text(&self, key: &FlowKey) -> Option<String> {
        self.flows.get(key)?.content().map(|content| flow_text(key, &content))
    }

    /// All groups as they should be, by number: `type=all,bucket=…`.
    pub(crate) fn groups(&self) -> &BTreeMap<u32, Arc<str>> {
        &self.groups
    }

    /// How many flows and groups there should be.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.flows.values().filter(|slot| !slot.wishes.is_empty()).count(), self.groups.len())
    }
}

/// A flow as ovs-ofctl(8) reads it.
fn flow_text(key: &FlowKey, (cookie, actions): &Content) -> String {
    format!("cookie={cookie:#x},{},actions={actions}", key.text())
}

fn flow_line(key: &FlowKey, content: &Content) -> Line {
    Line { text: format!("flow add {}", flow_text(key, content)), about: About::Write(key.clone()) }
}

/// The line that makes a group so.
pub(crate) fn group_line(id: u32, buckets: &str) -> Line {
    Line { text: format!("group add_or_mod group_id={id},{buckets}"), about: About::Group(id) }
}

/// The line that deletes a group.
pub(crate) fn group_gone(id: u32) -> Line {
    Line { text: format!("group delete group_id={id}"), about: About::Group(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(rule: u32, lflow: u32, body: Body) -> Wish {
        Wish { owner: Owner::Rule(RuleId(rule)), lflow: LflowId(lflow), cookie: u64::from(lflow), body }
    }

    fn given(desired: &mut Desired) {
        desired.begin();
        desired.end(true);
    }

    fn texts(desired: &Desired) -> Vec<String> {
        desired.differences().into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn only_differences_are_told() {
        let mut desired = Desired::default();
        let key = FlowKey::new(8, 100, "metadata=0x1");
        desired.wish(key.clone(), wish(1, 7, Body::Acts("drop".into())));
        desired.set_group(5, Some("type=all,bucket=bucket_id:1,actions=drop".into()));
        let added = "flow add cookie=0x7,table=8,priority=100,metadata=0x1,actions=drop";
        let group = "group add_or_mod group_id=5,type=all,bucket=bucket_id:1,actions=drop";
        assert_eq!(texts(&desired), [group, added]);
        // Until the switch has taken them they stay differences.
        assert_eq!(texts(&desired), [group, added]);
        desired.begin();
        assert!(texts(&desired).is_empty(), "it is on its way");
        desired.end(false);
        assert_eq!(texts(&desired), [group, added]);
        given(&mut desired);
        assert!(texts(&desired).is_empty());
        desired.withdraw(Owner::Rule(RuleId(1)));
        desired.wish(key.clone(), wish(2, 7, Body::Acts("drop".into())));
        assert!(texts(&desired).is_empty(), "the same flow by another rule's wish");
        desired.withdraw(Owner::Rule(RuleId(2)));
        desired.set_group(5, None);
        assert_eq!(
            texts(&desired),
            ["flow delete_strict table=8,priority=100,metadata=0x1", "group delete group_id=5"]
        );
        given(&mut desired);
        assert!(texts(&desired).is_empty() && desired.flow_texts().is_empty() && desired.flows.is_empty());
    }

    #[test]
    fn what_changes_while_the_switch_is_told_is_a_difference_from_what_it_was_told() {
        let mut desired = Desired::default();
        let key = FlowKey::new(8, 100, "metadata=0x1");
        desired.wish(key.clone(), wish(1, 7, Body::Acts("drop".into())));
        assert_eq!(desired.begin().len(), 1);
        // Gone again before it is in force: it has to be deleted.
        desired.withdraw(Owner::Rule(RuleId(1)));
        desired.end(true);
        assert_eq!(texts(&desired), ["flow delete_strict table=8,priority=100,metadata=0x1"]);
        // And wanted again before that is: nothing is to be done, unless it was done.
        desired.begin();
        desired.wish(key.clone(), wish(1, 7, Body::Acts("drop".into())));
        desired.end(true);
        assert_eq!(texts(&desired), ["flow add cookie=0x7,table=8,priority=100,metadata=0x1,actions=drop"]);
        given(&mut desired);
        assert!(texts(&desired).is_empty());
    }

    #[test]
    fn rules_that_share_a_match_are_one_flow() {
        let mut desired = Desired::default();
        let key = FlowKey::new(9, 5, "metadata=0x1,ip,ip_src=10.0.0.1");
        desired.wish(key.clone(), wish(1, 1, Body::Member { id: 32, n: 1, of: 2 }));
        desired.wish(key.clone(), wish(2, 2, Body::Member { id: 16, n: 2, of: 2 }));
        let actions = |desired: &Desired| desired.flow_texts()[0].1.split("actions=").nth(1).map(str::to_owned);
        assert_eq!(actions(&desired).as_deref(), Some("conjunction(16,2/2),conjunction(32,1/2)"));
        desired.wish(key.clone(), wish(4, 4, Body::Acts("resubmit(,10)".into())));
        desired.wish(key.clone(), wish(5, 3, Body::Acts("drop".into())));
        assert_eq!(actions(&desired).as_deref(), Some("drop"), "the smaller logical flow");
        desired.unwish(Owner::Rule(RuleId(5)), &key, &Body::Acts("drop".into()));
        desired.withdraw(Owner::Rule(RuleId(4)));
        desired.unwish(Owner::Rule(RuleId(2)), &key, &Body::Member { id: 16, n: 2, of: 2 });
        assert_eq!(actions(&desired).as_deref(), Some("conjunction(32,1/2)"));
    }
}
