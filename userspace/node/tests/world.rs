//! Feeding the compiler by changes must lead where feeding it everything leads.

use oxbow_node::dataplane::{LocalVif, LogicalPort, Peer};
use oxbow_node::rows::Uuid;
use oxbow_node::tunnels::Mesh;
use oxbow_node::view::{SbView, sb_tables};
use oxbow_node::world::World;
use oxbow_ovsdb::{Replica, RowChange, RowDraft};
use oxbow_pipeline::ir::{Dim, Program, Sub};
use oxbow_schema::sb;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

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
        datapath: u8,
        members: Vec<u8>,
    },
    NoGroup(u8),
    /// From one port, or from a group of them.
    Flow {
        number: u8,
        datapath: u8,
        group: bool,
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
    AddressSet(Vec<u8>),
    NoAddressSet,
    PortGroup {
        row: u8,
        members: Vec<u8>,
    },
    NoPortGroup(u8),
    Local(Vec<u8>),
    Serve(Vec<u8>),
    Mesh(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let few = || proptest::collection::vec(0u8..4, 0..4);
    prop_oneof![
        4 => (0u8..6, 0u8..3, 0u8..6, 0u8..3, any::<bool>())
            .prop_map(|(number, datapath, key, bound, security)| Step::Port { number, datapath, key, bound, security }),
        1 => (0u8..6).prop_map(Step::NoPort),
        2 => (0u8..3, few()).prop_map(|(datapath, members)| Step::Group { datapath, members }),
        1 => (0u8..3).prop_map(Step::NoGroup),
        3 => (0u8..6, 0u8..3, any::<bool>(), proptest::option::of(0u8..6))
            .prop_map(|(number, datapath, group, port)| Step::Flow { number, datapath, group, port }),
        1 => (0u8..6).prop_map(Step::NoFlow),
        1 => proptest::collection::vec(0u8..3, 0..3).prop_map(Step::DpGroup),
        2 => (0u8..3, 0u8..3, 0u8..6).prop_map(|(datapath, mac, port)| Step::Fdb { datapath, mac, port }),
        1 => (0u8..3).prop_map(Step::NoFdb),
        2 => few().prop_map(Step::AddressSet),
        1 => Just(Step::NoAddressSet),
        2 => (0u8..2, few()).prop_map(|(row, members)| Step::PortGroup { row, members }),
        1 => (0u8..2).prop_map(Step::NoPortGroup),
        2 => proptest::collection::vec(0u8..3, 0..3).prop_map(Step::Local),
        2 => few().prop_map(Step::Serve),
        1 => any::<bool>().prop_map(Step::Mesh),
    ]
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
        };
        for number in 0..3 {
            let draft = RowDraft::with_uuid(sb::datapath_binding::TABLE, datapath(number));
            let change = state.replica.put(draft.set(sb::datapath_binding::TUNNEL_KEY, i64::from(number) + 1));
            state.follow(change);
        }
        state
    }

    fn follow(&mut self, change: Option<RowChange>) {
        if let Some(change) = change {
            self.view.apply(&change);
            self.world.follow(&self.view, &[change]);
        }
    }

    fn apply(&mut self, step: &Step) {
        use sb::{address_set, fdb, logical_dp_group, logical_flow, multicast_group, port_binding as pb, port_group};
        let change = match step {
            Step::Port { number, datapath: at, key, bound, security } => {
                // Keys are unique in a datapath: the server's index sees to it.
                let (at, key) = (datapath(*at), i64::from(*key) + 1);
                let clash = |row: &oxbow_ovsdb::Row| {
                    row.get(pb::DATAPATH) == at && row.get(pb::TUNNEL_KEY) == key && row.uuid() != uuid(1, *number)
                };
                if self.replica.rows(pb::TABLE).any(|row| clash(row)) {
                    return;
                }
                let chassis = [None, Some(US), Some(THEM)][usize::from(*bound)];
                let addresses: &[&str] = if *security { &["00:00:00:00:00:01 10.0.0.1"] } else { &[] };
                let draft = RowDraft::with_uuid(pb::TABLE, uuid(1, *number))
                    .set(pb::LOGICAL_PORT, format!("p{number}"))
                    .set(pb::DATAPATH, at)
                    .set(pb::TUNNEL_KEY, key)
                    .set(pb::CHASSIS, chassis)
                    .set(pb::PORT_SECURITY, addresses.iter().copied());
                self.replica.put(draft)
            }
            Step::NoPort(number) => self.replica.remove(pb::TABLE, uuid(1, *number)),
            Step::Group { datapath: at, members } => self.replica.put(
                RowDraft::with_uuid(multicast_group::TABLE, uuid(2, *at))
                    .set(multicast_group::NAME, "_MC_flood")
                    .set(multicast_group::DATAPATH, datapath(*at))
                    .set(multicast_group::TUNNEL_KEY, 0x8000)
                    .set(multicast_group::PORTS, members.iter().map(|member| uuid(1, *member))),
            ),
            Step::NoGroup(at) => self.replica.remove(multicast_group::TABLE, uuid(2, *at)),
            Step::Flow { number, datapath: at, group, port } => {
                let from = port.map_or("@pg".to_owned(), |port| format!("\"p{port}\""));
                let draft = RowDraft::with_uuid(logical_flow::TABLE, uuid(3, *number))
                    .set(logical_flow::PIPELINE, "ingress")
                    .set(logical_flow::TABLE_ID, 0)
                    .set(logical_flow::PRIORITY, 100)
                    .set(logical_flow::MATCH, format!("eth.src == $as && inport == {from}"))
                    .set(logical_flow::ACTIONS, format!("outport = \"p{number}\"; output;"));
                self.replica.put(if *group {
                    draft.set(logical_flow::LOGICAL_DP_GROUP, Some(uuid(4, 0)))
                } else {
                    draft.set(logical_flow::LOGICAL_DATAPATH, Some(datapath(*at)))
                })
            }
            Step::NoFlow(number) => self.replica.remove(logical_flow::TABLE, uuid(3, *number)),
            Step::DpGroup(members) => self.replica.put(
                RowDraft::with_uuid(logical_dp_group::TABLE, uuid(4, 0))
                    .set(logical_dp_group::DATAPATHS, members.iter().map(|member| datapath(*member))),
            ),
            Step::Fdb { datapath: at, mac, port } => self.replica.put(
                RowDraft::with_uuid(fdb::TABLE, uuid(5, *mac))
                    .set(fdb::DP_KEY, i64::from(*at) + 1)
                    .set(fdb::MAC, format!("00:00:00:00:00:{mac:02x}"))
                    .set(fdb::PORT_KEY, i64::from(*port) + 1),
            ),
            Step::NoFdb(mac) => self.replica.remove(fdb::TABLE, uuid(5, *mac)),
            Step::AddressSet(members) => self.replica.put(
                RowDraft::with_uuid(address_set::TABLE, uuid(6, 0))
                    .set(address_set::NAME, "as")
                    .set(address_set::ADDRESSES, members.iter().map(|member| format!("00:00:00:00:01:{member:02x}"))),
            ),
            Step::NoAddressSet => self.replica.remove(address_set::TABLE, uuid(6, 0)),
            Step::PortGroup { row, members } => self.replica.put(
                // The datapath's key and the group's name, as northd writes it.
                RowDraft::with_uuid(port_group::TABLE, uuid(7, *row))
                    .set(port_group::NAME, format!("{}_pg", row + 1))
                    .set(port_group::PORTS, members.iter().map(|member| format!("p{member}"))),
            ),
            Step::NoPortGroup(row) => self.replica.remove(port_group::TABLE, uuid(7, *row)),
            Step::Local(numbers) => {
                self.local = numbers.iter().map(|number| datapath(*number)).collect();
                None
            }
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
                None
            }
            Step::Mesh(is_there) => {
                self.mesh = Mesh::default();
                if *is_there {
                    self.mesh.by_chassis.insert(THEM, 1);
                    self.mesh.peers.push(Peer {
                        index: 1,
                        chassis: "them".into(),
                        local: IpAddr::from([192, 0, 2, 1]),
                        remote: IpAddr::from([192, 0, 2, 2]),
                        vxlan: false,
                        csum: true,
                        tos_inherit: false,
                        tos: 0,
                        df: true,
                        hop: None,
                        ofport: None,
                        options: BTreeMap::new(),
                    });
                }
                None
            }
        };
        self.follow(change);
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
        let mut fresh = World::from_rows(&self.view, rows);
        fresh.place(&self.view, &self.local, &self.serve, &self.mesh, Some(US));
        prop_assert_eq!(self.told(&self.world), self.told(&fresh));
        Ok(())
    }
}

/// A condition, with the members of its set.
fn condition(program: &Program, dim: &Dim) -> String {
    let alternatives: BTreeSet<String> = program.alternatives(dim).map(|masked| format!("{masked:?}")).collect();
    format!("{:?}: {alternatives:?}", dim.field)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_lead_where_everything_anew_leads(steps in proptest::collection::vec(step(), 1..40)) {
        let mut state = State::new();
        for step in &steps {
            state.apply(step);
            state.check()?;
        }
    }
}
