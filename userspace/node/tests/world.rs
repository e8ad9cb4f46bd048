//! Feeding the compiler by changes must lead where feeding it everything leads.

use oxbow_node::dataplane::{LocalVif, LogicalPort, Peer};
use oxbow_node::rows::Uuid;
use oxbow_node::tunnels::Mesh;
use oxbow_node::view::{SbView, sb_tables};
use oxbow_node::world::World;
use oxbow_ovsdb::{Replica, Row, RowChange, RowDraft, TableDef};
use oxbow_pipeline::ir::{Dim, Program, Sub};
use oxbow_schema::sb;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

const US: Uuid = Uuid::from_u128(0xc1);
const THEM: Uuid = Uuid::from_u128(0xc2);

fn datapath(number: u8) -> Uuid {
    Uuid::from_u128(0xd0 + u128::from(number))
}

/// A change of the database or of what is local.
#[derive(Clone, Debug)]
enum Step {
    Port {
        number: u8,
        datapath: u8,
        key: u8,
        bound: u8,
        security: bool,
    },
    NoPort(u8),
    Group {
        row: u8,
        datapath: u8,
        key: u8,
        members: Vec<u8>,
    },
    NoGroup(u8),
    /// From one port, or from a group of them.
    Flow {
        number: u8,
        datapath: u8,
        group: bool,
        set: u8,
        port: Option<u8>,
    },
    NoFlow(u8),
    DpGroup(Vec<u8>),
    Fdb {
        datapath: u8,
        mac: u8,
        port: u8,
    },
    NoFdb(u8),
    AddressSet {
        row: u8,
        name: u8,
        members: Vec<u8>,
    },
    NoAddressSet(u8),
    PortGroup {
        row: u8,
        datapath: u8,
        members: Vec<u8>,
    },
    NoPortGroup(u8),
    Local(Vec<u8>),
    Serve(Vec<u8>),
    /// Two tunnels to the other chassis, of which this one is used; or none.
    Mesh(Option<u32>),
}

fn step() -> impl Strategy<Value = Step> {
    let few = || proptest::collection::vec(0u8..4, 0..4);
    prop_oneof![
        4 => (0u8..6, 0u8..3, 0u8..6, 0u8..3, any::<bool>())
            .prop_map(|(number, datapath, key, bound, security)| Step::Port { number, datapath, key, bound, security }),
        1 => (0u8..6).prop_map(Step::NoPort),
        3 => (0u8..4, 0u8..3, 0u8..2, few())
            .prop_map(|(row, datapath, key, members)| Step::Group { row, datapath, key, members }),
        1 => (0u8..4).prop_map(Step::NoGroup),
        3 => (0u8..6, 0u8..3, any::<bool>(), 0u8..2, proptest::option::of(0u8..6))
            .prop_map(|(number, datapath, group, set, port)| Step::Flow { number, datapath, group, set, port }),
        1 => (0u8..6).prop_map(Step::NoFlow),
        1 => proptest::collection::vec(0u8..3, 0..3).prop_map(Step::DpGroup),
        2 => (0u8..3, 0u8..3, 0u8..6).prop_map(|(datapath, mac, port)| Step::Fdb { datapath, mac, port }),
        1 => (0u8..3).prop_map(Step::NoFdb),
        2 => (0u8..3, 0u8..2, few()).prop_map(|(row, name, members)| Step::AddressSet { row, name, members }),
        1 => (0u8..3).prop_map(Step::NoAddressSet),
        2 => (0u8..3, 0u8..2, few()).prop_map(|(row, datapath, members)| Step::PortGroup { row, datapath, members }),
        1 => (0u8..3).prop_map(Step::NoPortGroup),
        2 => proptest::collection::vec(0u8..3, 0..3).prop_map(Step::Local),
        2 => few().prop_map(Step::Serve),
        1 => proptest::option::of(1u32..3).prop_map(Step::Mesh),
    ]
}

/// Steps that come as one update, and the order in which it tells of rows.
fn batch() -> impl Strategy<Value = (Vec<Step>, u64)> {
    (proptest::collection::vec(step(), 1..6), any::<u64>())
}

fn uuid(kind: u128, number: u8) -> Uuid {
    Uuid::from_u128(kind << 64 | u128::from(number))
}

struct State {
    replica: Replica,
    view: SbView,
    world: World,
    local: BTreeSet<Uuid>,
    serve: Vec<LocalVif>,
    mesh: Mesh,
    /// Rows before the batch that is being put together.
    before: BTreeMap<(&'static str, Uuid), RowChange>,
}

impl State {
    fn new() -> Self {
        let mut state = State {
            replica: Replica::new(sb::DATABASE),
            view: SbView::default(),
            world: World::default(),
            local: BTreeSet::new(),
            serve: Vec::new(),
            mesh: Mesh::default(),
            before: BTreeMap::new(),
        };
        for number in 0..3 {
            let draft = RowDraft::with_uuid(sb::datapath_binding::TABLE, datapath(number));
            state.put(draft.set(sb::datapath_binding::TUNNEL_KEY, i64::from(number) + 1));
        }
        state.follow(0);
        state
    }

    fn put(&mut self, draft: RowDraft) {
        let change = self.replica.put(draft);
        self.note(change);
    }

    fn remove(&mut self, table: &'static TableDef, uuid: Uuid) {
        let change = self.replica.remove(table, uuid);
        self.note(change);
    }

    /// Several changes of a row in one update are one.
    fn note(&mut self, change: Option<RowChange>) {
        let Some(change) = change else { return };
        let noted = self.before.entry((change.table.name, change.uuid));
        noted
            .and_modify(|noted| {
                noted.new.clone_from(&change.new);
                noted.changed = noted.changed.indexes().chain(change.changed.indexes()).collect();
            })
            .or_insert(change);
    }

    /// Removes those rows of a table that have what only one row may have, except the one that is to have it.
    fn take(&mut self, table: &'static TableDef, but: Uuid, has_it: impl Fn(&Row) -> bool) {
        let others = self.replica.rows(table).filter(|row| row.uuid() != but && has_it(row));
        for other in others.map(|row| row.uuid()).collect::<Vec<_>>() {
            self.remove(table, other);
        }
    }

    fn follow(&mut self, order: u64) {
        let mut changes: Vec<RowChange> = std::mem::take(&mut self.before).into_values().collect();
        changes.retain(|change| change.old != change.new);
        changes.sort_by_key(|change| {
            let mut hasher = std::hash::DefaultHasher::new();
            (order, change.table.name, change.uuid).hash(&mut hasher);
            hasher.finish()
        });
        for change in &changes {
            self.view.apply(change);
        }
        self.world.follow(&self.view, &changes);
    }

    fn apply(&mut self, step: &Step) {
        use sb::{address_set, fdb, logical_dp_group, logical_flow, multicast_group, port_binding as pb, port_group};
        match step {
            Step::Port { number, datapath: at, key, bound, security } => {
                let (uuid, at, key) = (uuid(1, *number), datapath(*at), i64::from(*key) + 1);
                self.take(pb::TABLE, uuid, |row| row.get(pb::DATAPATH) == at && row.get(pb::TUNNEL_KEY) == key);
                let chassis = [None, Some(US), Some(THEM)][usize::from(*bound)];
                let addresses: &[&str] = if *security { &["00:00:00:00:00:01 10.0.0.1"] } else { &[] };
                self.put(
                    RowDraft::with_uuid(pb::TABLE, uuid)
                        .set(pb::LOGICAL_PORT, format!("p{number}"))
                        .set(pb::DATAPATH, at)
                        .set(pb::TUNNEL_KEY, key)
                        .set(pb::CHASSIS, chassis)
                        .set(pb::PORT_SECURITY, addresses.iter().copied()),
                );
            }
            Step::NoPort(number) => self.remove(pb::TABLE, uuid(1, *number)),
            Step::Group { row, datapath: at, key, members } => {
                use multicast_group as t;
                let (uuid, at, key) = (uuid(2, *row), datapath(*at), 0x8000 + i64::from(*key));
                let name = format!("_MC_{key}");
                self.take(t::TABLE, uuid, |row| row.get(t::DATAPATH) == at && row.get(t::TUNNEL_KEY) == key);
                self.put(
                    RowDraft::with_uuid(t::TABLE, uuid)
                        .set(t::NAME, name)
                        .set(t::DATAPATH, at)
                        .set(t::TUNNEL_KEY, key)
                        .set(t::PORTS, members.iter().map(|member| self::uuid(1, *member))),
                );
            }
            Step::NoGroup(row) => self.remove(multicast_group::TABLE, uuid(2, *row)),
            Step::Flow { number, datapath: at, group, set, port } => {
                let from = port.map_or("@pg".to_owned(), |port| format!("\"p{port}\""));
                let draft = RowDraft::with_uuid(logical_flow::TABLE, uuid(3, *number))
                    .set(logical_flow::PIPELINE, "ingress")
                    .set(logical_flow::TABLE_ID, 0)
                    .set(logical_flow::PRIORITY, 100)
                    .set(logical_flow::MATCH, format!("eth.src == $as{set} && inport == {from}"))
                    .set(logical_flow::ACTIONS, format!("outport = \"p{number}\"; output;"));
                self.put(if *group {
                    draft.set(logical_flow::LOGICAL_DP_GROUP, Some(uuid(4, 0)))
                } else {
                    draft.set(logical_flow::LOGICAL_DATAPATH, Some(datapath(*at)))
                });
            }
            Step::NoFlow(number) => self.remove(logical_flow::TABLE, uuid(3, *number)),
            Step::DpGroup(members) => self.put(
                RowDraft::with_uuid(logical_dp_group::TABLE, uuid(4, 0))
                    .set(logical_dp_group::DATAPATHS, members.iter().map(|member| datapath(*member))),
            ),
            Step::Fdb { datapath: at, mac, port } => self.put(
                RowDraft::with_uuid(fdb::TABLE, uuid(5, *mac))
                    .set(fdb::DP_KEY, i64::from(*at) + 1)
                    .set(fdb::MAC, format!("00:00:00:00:00:{mac:02x}"))
                    .set(fdb::PORT_KEY, i64::from(*port) + 1),
            ),
            Step::NoFdb(mac) => self.remove(fdb::TABLE, uuid(5, *mac)),
            Step::AddressSet { row, name, members } => {
                let (uuid, name) = (uuid(6, *row), format!("as{name}"));
                self.take(address_set::TABLE, uuid, |row| row.get(address_set::NAME).as_str() == name);
                let members = members.iter().map(|member| format!("00:00:00:00:01:{member:02x}"));
                self.put(
                    RowDraft::with_uuid(address_set::TABLE, uuid)
                        .set(address_set::NAME, name.clone())
                        .set(address_set::ADDRESSES, members),
                );
            }
            Step::NoAddressSet(row) => self.remove(address_set::TABLE, uuid(6, *row)),
            Step::PortGroup { row, datapath, members } => {
                // The datapath's key and the group's name, as northd writes it.
                let (uuid, name) = (uuid(7, *row), format!("{}_pg", datapath + 1));
                self.take(port_group::TABLE, uuid, |row| row.get(port_group::NAME).as_str() == name);
                self.put(
                    RowDraft::with_uuid(port_group::TABLE, uuid)
                        .set(port_group::NAME, name.clone())
                        .set(port_group::PORTS, members.iter().map(|member| format!("p{member}"))),
                );
            }
            Step::NoPortGroup(row) => self.remove(port_group::TABLE, uuid(7, *row)),
            Step::Local(numbers) => self.local = numbers.iter().map(|number| datapath(*number)).collect(),
            Step::Serve(numbers) => {
                let vif = |number: &u8| LocalVif {
                    name: format!("p{number}"),
                    at: LogicalPort::default(),
                    ifindex: 10 + u32::from(*number),
                    vlan: 0,
                    localport: false,
                    zone: 0,
                };
                let unique: BTreeSet<u8> = numbers.iter().copied().collect();
                self.serve = unique.iter().map(vif).collect();
            }
            Step::Mesh(used) => {
                self.mesh = Mesh::default();
                if let Some(used) = used {
                    self.mesh.by_chassis.insert(THEM, *used);
                    self.mesh.peers.extend([peer(1), peer(2)]);
                }
            }
        }
    }

    /// What the program says, without the numbers that depend on history.
    fn told(&self, world: &World) -> Vec<String> {
        let program = world.compiler().program();
        let mut told: Vec<String> = program.ports().map(|port| format!("{port:?}")).collect();
        told.extend(program.groups().map(|group| format!("{group:?}")));
        told.extend(program.all_chassis().map(|chassis| format!("{chassis:?}")));
        told.extend(program.fdb_entries().map(|entry| format!("{entry:?}")));
        told.extend(
            program.datapaths().map(|(key, datapath)| format!("{key:?} {} {}", datapath.name, datapath.router)),
        );
        let mut rules: Vec<String> = Vec::new();
        for table in program.tables() {
            for rule in program.rules(table) {
                let row = world.compiler().flow(rule.lflow).map(|row| row.uuid);
                let dims: Vec<String> = rule.dims.iter().map(|dim| condition(program, dim)).collect();
                rules.push(format!("{table:?} {row:?} {} {} {:?}", rule.priority, dims.join(" "), rule.acts));
            }
        }
        for (datapath, _) in program.datapaths() {
            for sub in [Sub::In, Sub::InNd, Sub::Out] {
                rules.extend(program.sub_rules(datapath, sub).map(|rule| {
                    let dims: Vec<String> = rule.dims.iter().map(|dim| condition(program, dim)).collect();
                    format!("{datapath:?} {sub:?} {} {} {:?}", rule.priority, dims.join(" "), rule.result)
                }));
            }
        }
        rules.sort();
        told.extend(rules);
        told
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        self.world.place(&self.view, &self.local, &self.serve, &self.mesh, Some(US));
        let rows: Vec<_> = sb_tables().into_iter().flat_map(|table| self.replica.rows(table)).collect();
        let mut view = SbView::default();
        for row in &rows {
            let changed = row.columns().map(|(column, _)| column.index()).collect();
            let new = Some(Arc::clone(row));
            view.apply(&RowChange { table: row.table(), uuid: row.uuid(), old: None, new, changed });
        }
        let mut fresh = World::from_rows(&view, rows);
        fresh.place(&view, &self.local, &self.serve, &self.mesh, Some(US));
        prop_assert_eq!(self.told(&self.world), self.told(&fresh));
        Ok(())
    }
}

fn peer(index: u32) -> Peer {
    Peer {
        index,
        chassis: "them".into(),
        local: IpAddr::from([192, 0, 2, 1]),
        remote: IpAddr::from([192, 0, 2, 10 + index as u8]),
        vxlan: false,
        csum: true,
        tos_inherit: false,
        tos: 0,
        df: true,
        hop: None,
        ofport: None,
        options: BTreeMap::new(),
    }
}

/// A condition, with the members of its set.
fn condition(program: &Program, dim: &Dim) -> String {
    let alternatives: BTreeSet<String> = program.alternatives(dim).map(|masked| format!("{masked:?}")).collect();
    format!("{:?}: {alternatives:?}", dim.field)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_lead_where_everything_anew_leads(batches in proptest::collection::vec(batch(), 1..20)) {
        let mut state = State::new();
        for (steps, order) in &batches {
            steps.iter().for_each(|step| state.apply(step));
            state.follow(*order);
            state.check()?;
        }
    }
}
