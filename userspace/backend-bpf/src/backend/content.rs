//! What the kernel's maps hold, as text that does not depend on history: without indexes, versions and order, so that two nodes that should do the
//! same can be compared line by line, however they came there. What contradicts itself is told in lines of its own, which begin with `!`.

use super::Backend;
use crate::kernel::{MapFailure, Maps};
use oxbow_abi::op::SUBS;
use oxbow_abi::rule::{
    Answer, FILTERS, NEVER, Rule, RuleSlot, SHORT, TUPLE_OUTSIDE_KEY, TUPLE_SINGLE, TUPLE_WIDE, Tuple,
};
use oxbow_abi::topology::{Address, Chassis, MEMBER_CHASSIS, PORT_LOCAL, Port, PortKey, STAGES};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

/// Names a logical flow by its number.
pub type Flow<'a> = &'a dyn Fn(u32) -> String;

/// A tuple's rules: masked words and the slot in force.
type Rules = HashMap<u32, Vec<(Vec<u32>, RuleSlot)>>;

impl Backend {
    /// The content of the maps in the version in force, sorted.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn content(&self, flow: Flow<'_>) -> Result<Vec<String>, MapFailure> {
        let reader = Reader { maps: &self.instance.maps, version: self.version, flow, lines: BTreeSet::new() };
        reader.all()
    }
}

struct Reader<'a> {
    maps: &'a Maps,
    version: u32,
    flow: Flow<'a>,
    lines: BTreeSet<String>,
}

/// Of two slots by the version that they begin with, the newest that a packet of `version` may use.
fn newest<T>(slots: &[T; 2], from: impl Fn(&T) -> u32, version: u32) -> Option<&T> {
    slots.iter().filter(|slot| from(slot) != NEVER && from(slot) <= version).max_by_key(|slot| from(slot))
}

fn address(address: &Address) -> String {
    let bytes = address.bytes;
    match address.family {
        4 => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]).to_string(),
        6 => IpAddr::from(bytes).to_string(),
        _ => "none".to_owned(),
    }
}

fn words(words: &[u32]) -> String {
    words.iter().map(|word| format!("{word:08x}")).collect::<Vec<_>>().join(" ")
}

impl Reader<'_> {
    fn all(mut self) -> Result<Vec<String>, MapFailure> {
        let rules = self.rules()?;
        let mut used = BTreeSet::new();
        for (datapath, value) in self.maps.datapaths.snapshot()? {
            let Some(stages) = newest(&value.stages, |stages| stages.from, self.version) else { continue };
            let mut tables = Vec::new();
            for stage in 0..STAGES {
                tables.push((format!("ingress {stage}"), stages.ingress[stage]));
                tables.push((format!("egress {stage}"), stages.egress[stage]));
            }
            tables.extend((0..SUBS).map(|sub| (format!("port security {sub}"), stages.sub[sub])));
            for (place, table) in tables.into_iter().filter(|(_, table)| *table != 0) {
                self.table(&format!("datapath {datapath} {place}"), table, &rules, &mut used)?;
            }
            self.lines.insert(format!("datapath {datapath} flags {:#x}", value.flags));
        }
        for (tuple, rules) in &rules {
            if !used.contains(tuple) {
                self.lines.insert(format!("! {} rules in force of tuple {tuple}, which no table has", rules.len()));
            }
        }
        self.topology()?;
        Ok(self.lines.into_iter().collect())
    }

    /// The rules in force, by tuple.
    fn rules(&mut self) -> Result<Rules, MapFailure> {
        let version = self.version;
        let mut found = Rules::new();
        let mut take = |tuple: u32, key: &[u32], rule: &Rule| {
            let valid = |slot: &&RuleSlot| slot.from != NEVER && slot.from <= version && version < slot.until;
            if let Some(slot) = rule.slot.iter().filter(valid).max_by_key(|slot| slot.from) {
                found.entry(tuple).or_default().push((key.to_vec(), *slot));
            }
        };
        for (key, rule) in self.maps.rules.snapshot()? {
            take(key.tuple, &key.word, &rule);
        }
        for (key, rule) in self.maps.wide_rules.snapshot()? {
            take(key.tuple, &key.word, &rule);
        }
        Ok(found)
    }

    fn table(&mut self, place: &str, table: u32, rules: &Rules, used: &mut BTreeSet<u32>) -> Result<(), MapFailure> {
        let table = self.maps.tables.get(table)?;
        let Some(range) = newest(&table.range, |range| range.from, self.version) else { return Ok(()) };
        for index in range.first..range.first + range.count {
            let tuple = self.maps.tuples.get(index)?;
            used.insert(tuple.id);
            let none = Vec::new();
            let rules = rules.get(&tuple.id).unwrap_or(&none);
            self.audit(place, &tuple, rules);
            let used = usize::from(tuple.words);
            let shape: Vec<String> = tuple
                .word
                .iter()
                .zip(&tuple.mask)
                .take(used)
                .map(|(word, mask)| format!("{word}&{mask:08x}"))
                .collect();
            let flags = tuple.flags & (TUPLE_OUTSIDE_KEY | TUPLE_WIDE);
            for (key, slot) in rules {
                let what = self.answer(place, &slot.answer)?;
                let key = words(&key[..used.min(key.len())]);
                self.lines.insert(format!(
                    "{place} [{}] flags {flags} = {key} priority {} {what}",
                    shape.join(" "),
                    slot.priority
                ));
            }
        }
        Ok(())
    }

    /// What a tuple says of its rules must be so of each.
    fn audit(&mut self, place: &str, tuple: &Tuple, rules: &[(Vec<u32>, RuleSlot)]) {
        let mut wrong = Vec::new();
        for (key, slot) in rules {
            if slot.priority > u32::from(tuple.max_priority) {
                wrong.push(format!("priority {} above its tuple's {}", slot.priority, tuple.max_priority));
            }
            for n in 0..FILTERS {
                let (word, mask, value) = (tuple.filter_word[n], tuple.filter_mask[n], tuple.filter_value[n]);
                let at = tuple.word[..usize::from(tuple.words)].iter().position(|w| *w == word);
                if mask != 0 && at.and_then(|at| key.get(at)).is_none_or(|key| key & mask != value) {
                    wrong.push(format!("filter {word}&{mask:08x}={value:08x} keeps {} out", words(key)));
                }
            }
            if tuple.flags & TUPLE_SINGLE != 0 && (rules.len() != 1 || slot.answer != tuple.only) {
                wrong.push(format!("a tuple of a single rule has {}", rules.len()));
            }
        }
        self.lines.extend(wrong.into_iter().map(|text| format!("! {place}: {text}")));
    }

    fn answer(&self, place: &str, answer: &Answer) -> Result<String, MapFailure> {
        let flow = (self.flow)(answer.lflow);
        let operands = words(&answer.operand);
        if place.contains("port security") {
            return Ok(format!("result {} {operands}", answer.block));
        }
        if answer.block & SHORT != 0 {
            return Ok(format!("short {:#x} of {flow}", answer.block & !SHORT));
        }
        let (mut text, mut next) = (String::new(), answer.block);
        while next != 0 {
            let block = self.maps.blocks.get(next)?;
            for op in block.op.iter().take(block.len as usize) {
                text.push_str(&format!(
                    "{}({},{},{},{:x},{:x},{:x}) ",
                    op.code, op.dst, op.src, op.arg, op.a, op.b, op.c
                ));
            }
            next = block.next;
        }
        Ok(format!("{text}operands {operands} of {flow}"))
    }

    fn topology(&mut self) -> Result<(), MapFailure> {
        let ports: HashMap<PortKey, Port> = self.maps.ports.snapshot()?.into_iter().collect();
        for (key, port) in &ports {
            let chassis = self.chassis(port.chassis)?;
            let additional = self.chassis(port.additional)?;
            self.lines.insert(format!(
                "port {}/{} kind {} ifindex {} vlan {} chassis {chassis} additional {additional} flags {:#x} zone {}",
                key.datapath, key.port, port.kind, port.ifindex, port.vlan, port.flags, port.zone
            ));
        }
        for (key, vif) in self.maps.vifs.snapshot()? {
            let at = format!("vif {}.{}", key.ifindex, key.vlan);
            let (datapath, port) = (vif.datapath, vif.port);
            self.lines.insert(format!("{at} port {datapath}/{port} flags {:#x} zone {}", vif.flags, vif.zone));
            match ports.get(&PortKey { datapath, port }) {
                Some(port) if port.kind == PORT_LOCAL && port.ifindex == key.ifindex && port.guard == vif.guard => {}
                other => {
                    self.lines.insert(format!("! {at} is of port {datapath}/{port}, which is {other:?}"));
                }
            }
        }
        let mut groups: BTreeMap<(u32, u32), BTreeSet<String>> = BTreeMap::new();
        for (key, chunk) in self.maps.groups.snapshot()? {
            let Some(members) = newest(&chunk.members, |members| members.from, self.version) else { continue };
            for &member in members.member.iter().take(members.count as usize) {
                let name = match member & MEMBER_CHASSIS {
                    0 => format!("port {member}"),
                    _ => format!("chassis {}", self.chassis(member & !MEMBER_CHASSIS)?),
                };
                if !groups.entry((key.datapath, key.group)).or_default().insert(name.clone()) {
                    self.lines.insert(format!("! group {}/{} has {name} twice", key.datapath, key.group));
                }
            }
        }
        for ((datapath, group), members) in groups {
            let members: Vec<String> = members.into_iter().collect();
            self.lines.insert(format!("group {datapath}/{group}: {}", members.join(", ")));
        }
        for (key, index) in self.maps.peers.snapshot()? {
            let chassis = if key.remote.family == 0 { "ours".to_owned() } else { self.chassis(index)? };
            self.lines.insert(format!("peer {} -> {}: {chassis}", address(&key.local), address(&key.remote)));
        }
        Ok(())
    }

    /// A chassis by how it is reached.
    fn chassis(&self, index: u32) -> Result<String, MapFailure> {
        if index == 0 {
            return Ok("none".to_owned());
        }
        let Chassis { flags, ifindex, local, remote, mac, mtu, ttl, tos, .. } = self.maps.chassis.get(index)?;
        let mac: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let (local, remote) = (address(&local), address(&remote));
        Ok(format!("({local} {remote} flags {flags:#x} ifindex {ifindex} {mac} mtu {mtu} ttl {ttl} tos {tos})"))
    }
}
