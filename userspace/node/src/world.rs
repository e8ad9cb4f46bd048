//! From rows to the compiler: logical flows, ports, groups, sets, chassis and learned addresses, incrementally.
//!
//! Only local datapaths are made known to the compiler; flows of the others wait in it.

use crate::config::EncapKind;
use crate::dataplane::{FdbAddress, LocalVif};
use crate::named_set::NamedSet;
use crate::rows::{PortBinding, Uuid};
use crate::stage_names::{self, StageNames};
use crate::tunnels::Mesh;
use crate::view::SbView;
use oxbow_ovsdb::{Datum, Row, RowChange, Transaction};
use oxbow_pipeline::compile::{Compiler, DatapathInfo, FlowRow, SetChange};
use oxbow_pipeline::ir::{
    Changes, Chassis, ChassisId, DatapathKey, Encap, EncapKind as IrEncapKind, FlowUuid, Group, GroupKey, Location,
    LogicalPort, Mac, Pipeline, PortKey, PortKind,
};
use oxbow_schema::sb;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// The compiler and what it was fed.
#[derive(Default)]
pub struct World {
    compiler: Compiler,
    /// Members of datapath groups.
    dp_groups: HashMap<Uuid, Vec<Uuid>>,
    /// Flows that refer to a datapath group, and the rows as last fed.
    flows_by_group: HashMap<Uuid, HashSet<Uuid>>,
    flow_rows: HashMap<Uuid, Arc<Row>>,
    /// In order, so that the same rows make the same numbers.
    dirty_flows: BTreeSet<Uuid>,
    /// Multicast groups by row, and by datapath.
    groups: HashMap<Uuid, Arc<Row>>,
    groups_by_datapath: HashMap<Uuid, BTreeSet<Uuid>>,
    stage_names: StageNames,
    fed_groups: HashMap<Uuid, (DatapathKey, GroupKey)>,
    dirty_groups: BTreeSet<Uuid>,
    fed_ports: HashMap<Uuid, LogicalPort>,
    dirty_ports: BTreeSet<Uuid>,
    every_port: bool,
    local: BTreeMap<Uuid, DatapathKey>,
    peers: BTreeMap<u32, Chassis>,
    /// Peers by chassis, and by encapsulation ([`Mesh`]).
    ways: (BTreeMap<Uuid, u32>, BTreeMap<Uuid, u32>),
    fdb: BTreeMap<FdbAddress, u32>,
    fdb_changed: bool,
    /// What was bound here at the last [`World::place`].
    here: HashMap<String, LocalVif>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("ports", &self.fed_ports.len()).field("flows", &self.flow_rows.len()).finish()
    }
}

impl World {
    /// A world into which every row of a replica has been fed.
    pub fn from_rows<'a>(view: &SbView, rows: impl IntoIterator<Item = &'a Arc<Row>>) -> Self {
        let mut world = World::default();
        let changes: Vec<RowChange> = rows
            .into_iter()
            .map(|row| RowChange {
                table: row.table(),
                uuid: row.uuid(),
                old: None,
                new: Some(Arc::clone(row)),
                changed: row.columns().map(|(column, _)| column.index()).collect(),
            })
            .collect();
        world.follow(view, &changes);
        world
    }

    /// Takes a batch of changes over. `view` has them already.
    pub fn follow(&mut self, view: &SbView, changes: &[RowChange]) {
        for change in changes {
            let (table, uuid) = (change.table, change.uuid);
            if table == sb::logical_dp_group::TABLE {
                match change.new.as_deref() {
                    Some(row) => {
                        self.dp_groups.insert(uuid, row.get(sb::logical_dp_group::DATAPATHS).iter().collect());
                    }
                    None => {
                        self.dp_groups.remove(&uuid);
                    }
                }
                self.dirty_flows.extend(self.flows_by_group.get(&uuid).into_iter().flatten());
            } else if table == sb::logical_flow::TABLE {
                self.follow_flow(change);
            } else if table == sb::multicast_group::TABLE {
                if let Some(old) = change.old.as_deref()
                    && let Some(set) = self.groups_by_datapath.get_mut(&old.get(sb::multicast_group::DATAPATH))
                {
                    set.remove(&uuid);
                }
                match &change.new {
                    Some(row) => {
                        self.groups_by_datapath.entry(row.get(sb::multicast_group::DATAPATH)).or_default().insert(uuid);
                        self.groups.insert(uuid, Arc::clone(row));
                    }
                    None => {
                        self.groups.remove(&uuid);
                    }
                }
                self.dirty_groups.insert(uuid);
            } else if table == sb::fdb::TABLE {
                self.fdb_changed = true;
            } else if table == sb::port_binding::TABLE {
                self.dirty_ports.insert(uuid);
                let rows = [change.old.as_deref(), change.new.as_deref()];
                for datapath in rows.into_iter().flatten().map(|row| row.get(sb::port_binding::DATAPATH)) {
                    self.dirty_groups.extend(self.groups_by_datapath.get(&datapath).into_iter().flatten());
                }
            }
        }
        self.follow_sets(changes);
        let dirty = std::mem::take(&mut self.dirty_flows);
        for uuid in dirty {
            if let Some(row) = self.flow_rows.get(&uuid) {
                let flow = flow_row(row, view, &self.dp_groups, &mut self.stage_names);
                self.compiler.set_flow(flow);
            }
        }
    }

    fn follow_flow(&mut self, change: &RowChange) {
        use sb::logical_flow as t;
        let uuid = change.uuid;
        if let Some(group) = change.old.as_deref().and_then(|row| row.get(t::LOGICAL_DP_GROUP))
            && let Some(flows) = self.flows_by_group.get_mut(&group)
        {
            flows.remove(&uuid);
            if flows.is_empty() {
                self.flows_by_group.remove(&group);
            }
        }
        match &change.new {
            Some(row) => {
                if let Some(group) = row.get(t::LOGICAL_DP_GROUP) {
                    self.flows_by_group.entry(group).or_default().insert(uuid);
                }
                self.flow_rows.insert(uuid, Arc::clone(row));
                self.dirty_flows.insert(uuid);
            }
            None => {
                self.flow_rows.remove(&uuid);
                self.dirty_flows.remove(&uuid);
                self.compiler.remove_flow(FlowUuid(uuid.as_u128()));
            }
        }
    }

    /// Rows of Address_Set and Port_Group, which the compiler knows by their names alone: what gives a name up comes before what takes one.
    fn follow_sets(&mut self, changes: &[RowChange]) {
        let sets: Vec<NamedSet> = changes.iter().filter_map(NamedSet::read).collect();
        for set in sets.iter().filter(|set| !set.keeps_its_name()) {
            if let Some((name, _)) = &set.before {
                set.table.set(&mut self.compiler, name, None);
            }
        }
        for set in &sets {
            match (&set.before, &set.after) {
                (Some((_, before)), Some((name, after))) if set.keeps_its_name() => {
                    let removed: Vec<&str> = before.difference(after).map(String::as_str).collect();
                    let added: Vec<&str> = after.difference(before).map(String::as_str).collect();
                    let change = SetChange { removed: &removed, added: &added };
                    set.table.change(&mut self.compiler, name, change);
                }
                (_, Some((name, after))) => set.table.set(&mut self.compiler, name, Some(after)),
                (_, None) => {}
            }
        }
    }

    /// Brings what is not in single rows up to date: which datapaths are local, where every port is, who the peers are, which addresses
    /// are known. Returns what changed in the program since the last call.
    pub fn place(
        &mut self,
        view: &SbView,
        local: &BTreeSet<Uuid>,
        serve: &[LocalVif],
        mesh: &Mesh,
        us: Option<Uuid>,
    ) -> Changes {
        self.place_peers(mesh);
        self.place_datapaths(view, local);
        self.place_ports(view, serve, mesh, us);
        self.place_groups(view);
        self.place_fdb(view);
        self.compiler.commit()
    }

    fn place_datapaths(&mut self, view: &SbView, local: &BTreeSet<Uuid>) {
        let wanted: BTreeMap<Uuid, DatapathKey> =
            local.iter().filter_map(|uuid| Some((*uuid, DatapathKey(view.datapaths.get(uuid)?.tunnel_key)))).collect();
        if wanted == self.local {
            return;
        }
        for (uuid, key) in &self.local {
            if wanted.get(uuid) != Some(key) {
                self.compiler.set_datapath(*key, None);
                self.dirty_ports
                    .extend(self.fed_ports.iter().filter(|(_, port)| port.datapath == *key).map(|(uuid, _)| *uuid));
                self.dirty_groups.extend(self.groups_by_datapath.get(uuid).into_iter().flatten());
            }
        }
        for (uuid, key) in &wanted {
            if self.local.get(uuid) != Some(key)
                && let Some(row) = view.datapaths.get(uuid)
            {
                let ids = &row.external_ids;
                let name = ids.get("name2").or_else(|| ids.get("name")).map_or("", String::as_str);
                let router = ids.contains_key("logical-router");
                self.compiler.set_datapath(*key, Some(DatapathInfo { name: name.into(), router }));
                self.dirty_ports.extend(view.ports_of(*uuid).map(|port| port.uuid));
                self.dirty_groups.extend(self.groups_by_datapath.get(uuid).into_iter().flatten());
            }
        }
        self.local = wanted;
        self.fdb_changed = true;
    }

    fn place_peers(&mut self, mesh: &Mesh) {
        let wanted: BTreeMap<u32, Chassis> = mesh
            .peers
            .iter()
            .map(|peer| {
                let kind = if peer.vxlan { IrEncapKind::Vxlan } else { IrEncapKind::Geneve };
                let encap = Some(Encap { kind, address: peer.remote, checksum: peer.csum });
                (peer.index, Chassis { id: ChassisId(peer.index), name: peer.chassis.as_str().into(), encap })
            })
            .collect();
        // Which of a chassis' tunnels is meant may change while all tunnels stay.
        if mesh.by_chassis != self.ways.0 || mesh.by_encap != self.ways.1 {
            self.ways = (mesh.by_chassis.clone(), mesh.by_encap.clone());
            self.every_port = true;
        }
        if wanted == self.peers {
            return;
        }
        for index in self.peers.keys().filter(|index| !wanted.contains_key(index)) {
            self.compiler.remove_chassis(ChassisId(*index));
        }
        for (index, chassis) in &wanted {
            if self.peers.get(index) != Some(chassis) {
                self.compiler.set_chassis(chassis.clone());
            }
        }
        self.peers = wanted;
        self.every_port = true;
    }

    fn place_ports(&mut self, view: &SbView, serve: &[LocalVif], mesh: &Mesh, us: Option<Uuid>) {
        let here: HashMap<String, LocalVif> = serve.iter().map(|vif| (vif.name.clone(), vif.clone())).collect();
        if here != self.here {
            let names = self.here.keys().chain(here.keys());
            for name in names.filter(|name| self.here.get(*name) != here.get(*name)) {
                if let Some(port) = crate::vif::Ports::by_name(view, name) {
                    self.dirty_ports.insert(port.uuid);
                }
            }
            self.here = here;
        }
        if std::mem::take(&mut self.every_port) {
            self.dirty_ports.extend(self.fed_ports.keys());
            for datapath in self.local.keys() {
                self.dirty_ports.extend(view.ports_of(*datapath).map(|port| port.uuid));
            }
        }
        let dirty = std::mem::take(&mut self.dirty_ports);
        let mut fresh = Vec::new();
        for uuid in dirty {
            let wanted = view.ports.get(&uuid).and_then(|port| self.logical_port(view, port, mesh, us));
            let fed = self.fed_ports.get(&uuid);
            if fed == wanted.as_ref() {
                continue;
            }
            let moved = fed
                .filter(|fed| wanted.as_ref().is_none_or(|port| (port.datapath, port.key) != (fed.datapath, fed.key)));
            if let Some(fed) = moved {
                self.compiler.remove_port(fed.datapath, fed.key);
            }
            match wanted {
                Some(port) => fresh.push((uuid, port)),
                None => {
                    self.fed_ports.remove(&uuid);
                }
            }
        }
        // After every removal: a key that moved from one port to another is then the new one's.
        for (uuid, port) in fresh {
            self.compiler.set_port(port.clone());
            self.fed_ports.insert(uuid, port);
        }
    }

    fn logical_port(&self, view: &SbView, port: &PortBinding, mesh: &Mesh, us: Option<Uuid>) -> Option<LogicalPort> {
        let datapath = *self.local.get(&port.datapath)?;
        let remote = |chassis: &Uuid| mesh.by_chassis.get(chassis).map(|index| ChassisId(*index));
        let by_encap = |encap: &Uuid| mesh.by_encap.get(encap).map(|index| ChassisId(*index));
        let main = port.chassis.filter(|chassis| Some(*chassis) != us);
        let main = main.and_then(|chassis| port.encap.as_ref().and_then(by_encap).or_else(|| remote(&chassis)));
        let others = port.additional_chassis.iter().filter(|chassis| Some(**chassis) != us);
        let mut additional: Vec<ChassisId> = others
            .filter_map(|chassis| {
                let own = |encap: &&Uuid| view.chassis.get(chassis).is_some_and(|row| row.encaps.contains(*encap));
                port.additional_encap.iter().find(own).and_then(by_encap).or_else(|| remote(chassis))
            })
            .collect();
        let location = match (self.here.get(&port.logical_port), main) {
            (Some(vif), main) => {
                additional.extend(main);
                Location::Local { ifindex: vif.ifindex, tag: (vif.vlan != 0).then_some(vif.vlan) }
            }
            (None, Some(chassis)) => Location::Remote { chassis },
            (None, None) => Location::Unbound,
        };
        additional.sort();
        additional.dedup();
        let port_security =
            view.port_security.get(&port.uuid).into_iter().flatten().map(|text| text.as_str().into()).collect();
        Some(LogicalPort {
            datapath,
            key: PortKey(port.tunnel_key),
            name: port.logical_port.as_str().into(),
            kind: PortKind::from_type(&port.kind),
            location,
            additional,
            port_security,
        })
    }

    fn place_groups(&mut self, view: &SbView) {
        use sb::multicast_group as t;
        let mut fresh = Vec::new();
        for uuid in std::mem::take(&mut self.dirty_groups) {
            let wanted = self.groups.get(&uuid).and_then(|row| {
                let datapath = *self.local.get(&row.get(t::DATAPATH))?;
                let key = GroupKey(u32::try_from(row.get(t::TUNNEL_KEY)).ok()?);
                let ports = row.get(t::PORTS);
                let of = row.get(t::DATAPATH);
                let mut members: Vec<PortKey> = ports
                    .iter()
                    .filter_map(|port| view.ports.get(&port))
                    .filter(|port| port.datapath == of)
                    .map(|port| PortKey(port.tunnel_key))
                    .collect();
                members.sort();
                members.dedup();
                Some(Group { datapath, key, name: row.get(t::NAME).as_str().into(), members })
            });
            let place = wanted.as_ref().map(|group| (group.datapath, group.key));
            if let Some(old) = self.fed_groups.remove(&uuid)
                && Some(old) != place
            {
                self.compiler.remove_group(old.0, old.1);
            }
            fresh.extend(wanted.map(|group| (uuid, group)));
        }
        // After every removal: a key that moved from one row to another is then the new one's.
        for (uuid, group) in fresh {
            self.fed_groups.insert(uuid, (group.datapath, group.key));
            self.compiler.set_group(group);
        }
    }

    fn place_fdb(&mut self, view: &SbView) {
        if !std::mem::take(&mut self.fdb_changed) {
            return;
        }
        let local: BTreeSet<u32> = self.local.values().map(|key| key.0).collect();
        let mut wanted = view.fdb_table();
        wanted.retain(|address, _| local.contains(&address.datapath));
        let (set, drop) = crate::fdb::differences(&self.fdb, &wanted);
        for (address, port) in set {
            self.compiler.set_fdb(DatapathKey(address.datapath), mac(address.mac), Some(PortKey(port)));
        }
        for address in drop {
            self.compiler.set_fdb(DatapathKey(address.datapath), mac(address.mac), None);
        }
        self.fdb = wanted;
    }

    /// Whether stages have names that nobody has told yet.
    pub fn lacks_stage_names(&self) -> bool {
        self.stage_names.is_incomplete()
    }

    /// Asks for them.
    pub fn ask_stage_names(&mut self, view: &SbView, transaction: &mut Transaction) {
        if self.stage_names.is_incomplete() {
            let groups = &self.dp_groups;
            let rows = &self.flow_rows;
            let is_at = |place, uuid| rows.get(&uuid).and_then(|row| place_of(row, view, groups)) == Some(place);
            let flows = rows.iter().filter_map(|(uuid, row)| Some((place_of(row, view, groups)?, *uuid)));
            self.stage_names.ask(is_at, flows, transaction);
        }
    }

    /// What was answered: rows with their external_ids. A row that is gone says nothing, and another one is asked.
    pub fn stage_names_told(&mut self, view: &SbView, answers: &[(Uuid, Option<Datum>)]) {
        for (flow, external_ids) in answers {
            if let (Some(row), Some(external_ids)) = (self.flow_rows.get(flow), external_ids)
                && let Some(place) = place_of(row, view, &self.dp_groups)
            {
                self.stage_names.told(place, external_ids);
            }
        }
    }

    /// Another northd writes the flows.
    pub fn ask_stage_names_anew(&mut self) {
        self.stage_names.ask_anew();
    }

    /// The compiler, for its program, problems and names.
    pub fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    /// The name of a local logical port by its keys.
    pub fn port_name(&self, datapath: u32, port: u32) -> Option<Arc<str>> {
        self.compiler.program().port(DatapathKey(datapath), PortKey(port)).map(|port| Arc::clone(&port.name))
    }

    /// Datapath keys that are local.
    pub fn local(&self) -> &BTreeMap<Uuid, DatapathKey> {
        &self.local
    }
}

/// The kinds of encapsulation that the pipeline knows.
pub fn ir_kind(kind: EncapKind) -> Option<IrEncapKind> {
    match kind {
        EncapKind::Geneve => Some(IrEncapKind::Geneve),
        EncapKind::Vxlan => Some(IrEncapKind::Vxlan),
        EncapKind::Stt => None,
    }
}

fn mac(bytes: [u8; 6]) -> Mac {
    Mac(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The stage of a flow; `None` while its datapath is not known.
fn place_of(row: &Row, view: &SbView, groups: &HashMap<Uuid, Vec<Uuid>>) -> Option<stage_names::Place> {
    use sb::logical_flow as t;
    let group = row.get(t::LOGICAL_DP_GROUP).and_then(|group| groups.get(&group));
    let mut datapaths = row.get(t::LOGICAL_DATAPATH).into_iter().chain(group.into_iter().flatten().copied());
    let datapath = datapaths.find_map(|uuid| view.datapaths.get(&uuid))?;
    Some((datapath.external_ids.contains_key("logical-router"), pipeline(row), stage(row)))
}

fn pipeline(row: &Row) -> Pipeline {
    if row.get(sb::logical_flow::PIPELINE).as_str() == "egress" { Pipeline::Egress } else { Pipeline::Ingress }
}

/// A stage or priority out of range is refused by the schema; it ends up where nothing leads to.
fn stage(row: &Row) -> u8 {
    u8::try_from(row.get(sb::logical_flow::TABLE_ID)).unwrap_or(u8::MAX)
}

fn flow_row(row: &Row, view: &SbView, groups: &HashMap<Uuid, Vec<Uuid>>, names: &mut StageNames) -> FlowRow {
    use sb::logical_flow as t;
    let key = |uuid: &Uuid| view.datapaths.get(uuid).map(|row| DatapathKey(row.tunnel_key));
    let mut datapaths: Vec<DatapathKey> = row.get(t::LOGICAL_DATAPATH).iter().filter_map(key).collect();
    if let Some(group) = row.get(t::LOGICAL_DP_GROUP) {
        datapaths.extend(groups.get(&group).into_iter().flatten().filter_map(key));
    }
    datapaths.sort();
    datapaths.dedup();
    let shared = || place_of(row, view, groups).map(|place| names.name(place, row.uuid()));
    FlowRow {
        uuid: FlowUuid(row.uuid().as_u128()),
        datapaths,
        pipeline: pipeline(row),
        stage: stage(row),
        priority: u16::try_from(row.get(t::PRIORITY)).unwrap_or(0),
        matches: row.get(t::MATCH).as_str().into(),
        actions: row.get(t::ACTIONS).as_str().into(),
        stage_name: stage_names::of_row(row).or_else(shared).unwrap_or_default(),
    }
}
