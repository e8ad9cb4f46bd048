//! The state machine against a small world of rows that applies what it asks for.

use super::*;
use crate::claim::Me;
use crate::rows::StringMap;

mod waiting;

const US: Uuid = Uuid::from_u128(0xa1);
const OTHER: Uuid = Uuid::from_u128(0xa2);
const DATAPATH: Uuid = Uuid::from_u128(0xd1);

struct World {
    vifs: Vifs,
    chassis: Option<Uuid>,
    encaps: BTreeMap<String, Uuid>,
    interfaces: Vec<VifInterface>,
    ports: Vec<PortBinding>,
    has_ports: bool,
    has_data: bool,
    served: Option<Served>,
    held: Option<Served>,
    taken_over: BTreeSet<u32>,
    now: u64,
    log: Vec<String>,
}

impl Ports for Vec<PortBinding> {
    fn by_name(&self, name: &str) -> Option<&PortBinding> {
        self.iter().find(|port| port.logical_port == name)
    }
    fn children(&self, parent: &str) -> Vec<&PortBinding> {
        self.iter().filter(|port| port.parent_port.as_deref() == Some(parent)).collect()
    }
    fn bound_to(&self, chassis: Uuid) -> Vec<&PortBinding> {
        self.iter().filter(|port| port.chassis == Some(chassis) || port.additional_chassis.contains(&chassis)).collect()
    }
    fn gateways(&self) -> Vec<&PortBinding> {
        self.iter().filter(|port| port.kind.ends_with("gateway")).collect()
    }
    fn datapath_key(&self, datapath: Uuid) -> Option<u32> {
        (datapath == DATAPATH).then_some(7)
    }
}

fn port(name: &str) -> PortBinding {
    let number = name.bytes().fold(0u128, |sum, byte| sum * 256 + u128::from(byte));
    PortBinding {
        uuid: Uuid::from_u128(number),
        logical_port: name.into(),
        datapath: DATAPATH,
        tunnel_key: 1,
        up: Some(false),
        ..Default::default()
    }
}

fn interface(name: &str, id: &str, age: u64) -> VifInterface {
    let number = name.bytes().fold(1u128, |sum, byte| sum * 256 + u128::from(byte));
    VifInterface {
        row: Interface {
            uuid: Uuid::from_u128(number),
            name: name.into(),
            external_ids: StringMap::from([("iface-id".to_owned(), id.to_owned())]),
            ofport: Some(age as i64 + 1),
            ..Default::default()
        },
        ifindex: Some(age as u32 + 10),
        age,
    }
}

impl World {
    fn new(ports: Vec<PortBinding>, interfaces: Vec<VifInterface>) -> Self {
        World {
            vifs: Vifs::default(),
            chassis: Some(US),
            encaps: BTreeMap::new(),
            interfaces,
            ports,
            has_ports: true,
            has_data: true,
            served: Some(Served::Yes),
            held: Some(Served::Yes),
            taken_over: BTreeSet::new(),
            now: 100_000,
            log: Vec::new(),
        }
    }

    fn look(&mut self) -> Outcome {
        let (served, held) = (self.served.clone(), self.held.clone());
        let has_data = self.has_data;
        self.vifs.pass(&Inputs {
            me: Me { system_id: "hv1", hostname: "host1" },
            chassis: self.chassis,
            encaps: &self.encaps,
            interfaces: &self.interfaces,
            ports: &self.ports,
            has_ports: self.has_ports,
            has_data: &|_| has_data,
            served: &|_| served.clone(),
            held: &|_| held.clone(),
            zone: &|_| 5,
            taken_over: &self.taken_over,
            now_ms: self.now,
            wall_ms: 1_700_000_000_000 + self.now,
        })
    }

    /// One pass, and the databases take what it wrote.
    fn step(&mut self) -> Outcome {
        let out = self.look();
        for note in &out.notes {
            self.log.push(note.text.clone());
        }
        let names: BTreeMap<Uuid, String> =
            self.ports.iter().map(|port| (port.uuid, port.logical_port.clone())).collect();
        self.vifs.claims_sent(&out, &|uuid| names.get(&uuid).cloned(), self.now);
        for write in &out.ports {
            let port = self.ports.iter_mut().find(|port| port.uuid == write.port).expect("a known port");
            assert_eq!(port.chassis, write.expected_chassis);
            if let Some(chassis) = write.chassis {
                port.chassis = chassis;
            }
            if let Some(all) = &write.additional_chassis {
                port.additional_chassis = all.clone();
            }
            if let Some(encap) = write.encap {
                port.encap = encap;
            }
            if let Some(all) = &write.additional_encap {
                port.additional_encap = all.clone();
            }
            if let Some(write) = &write.options {
                assert_eq!(port.options, write.expected);
                port.options = write.options.clone();
            }
            if let Some(up) = write.up {
                port.up = Some(up);
            }
            if write.clear_virtual_parent {
                port.virtual_parent = None;
            }
        }
        for write in &out.interfaces {
            let row =
                &mut self.interfaces.iter_mut().find(|i| i.row.uuid == write.interface).expect("a known interface").row;
            for key in &write.remove {
                row.external_ids.remove(key);
            }
            row.external_ids.extend(write.set.clone());
        }
        out
    }

    /// Steps until nothing is written any more.
    fn settle(&mut self) -> Outcome {
        for _ in 0..20 {
            let before = (self.ports.clone(), self.interfaces.clone());
            let out = self.step();
            if before == (self.ports.clone(), self.interfaces.clone()) {
                assert_eq!((&out.ports[..], &out.interfaces[..]), (&[][..], &[][..]));
                return out;
            }
        }
        panic!("does not settle: {:#?}", self.log);
    }

    fn phase(&mut self, name: &str) -> Phase {
        self.look().states[name].phase.clone()
    }

    fn id(&self, index: usize, key: &str) -> Option<&str> {
        self.interfaces[index].row.external_ids.get(key).map(String::as_str)
    }
}

#[test]
fn a_vif_goes_through_its_phases_in_order() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    (world.has_data, world.served, world.chassis) = (false, None, None);
    assert_eq!(world.step().states["tap0"].phase, Phase::NoChassis);
    assert_eq!(world.ports[0].chassis, None);
    world.chassis = Some(US);
    let out = world.step();
    assert_eq!(out.states["tap0"].phase, Phase::Claimed);
    assert!(out.serve.is_empty(), "nothing is served before the claim is in the database");
    assert_eq!(world.ports[0].chassis, Some(US));
    assert_eq!(world.step().states["tap0"].phase, Phase::WaitingData);
    world.has_data = true;
    let out = world.step();
    assert_eq!(out.states["tap0"].phase, Phase::Programming);
    assert_eq!(out.serve.len(), 1);
    assert_eq!((out.serve[0].at, out.serve[0].ifindex, out.serve[0].zone), (LogicalPortOf(7, 1).into(), 11, 5));
    assert!(out.is_any_under_way());
    assert_eq!((world.ports[0].up, world.id(0, "ovn-installed")), (Some(false), None));
    world.served = Some(Served::Yes);
    let out = world.step();
    assert_eq!(out.states["tap0"].phase, Phase::MarkingUp);
    assert_eq!((world.ports[0].up, world.id(0, "ovn-installed")), (Some(true), Some("true")));
    assert_eq!(world.id(0, "ovn-installed-ts"), Some("1700000100000"));
    let out = world.settle();
    assert_eq!(out.states["tap0"].phase, Phase::Installed);
    assert!(!out.is_any_under_way());
}

struct LogicalPortOf(u32, u32);
impl From<LogicalPortOf> for crate::dataplane::LogicalPort {
    fn from(LogicalPortOf(datapath, port): LogicalPortOf) -> Self {
        crate::dataplane::LogicalPort { datapath, port }
    }
}

#[test]
fn stale_marks_of_a_former_life_go_before_new_ones_come() {
    let mut world = World::new(vec![PortBinding { up: Some(true), ..port("lp") }], vec![interface("tap0", "lp", 1)]);
    world.interfaces[0].row.external_ids.insert("ovn-installed".into(), "true".into());
    world.interfaces[0].row.external_ids.insert("ovn-installed-ts".into(), "1".into());
    world.step();
    assert_eq!(
        (world.ports[0].up, world.id(0, "ovn-installed"), world.id(0, "ovn-installed-ts")),
        (Some(false), None, None)
    );
    world.settle();
    assert_eq!((world.ports[0].up, world.id(0, "ovn-installed")), (Some(true), Some("true")));
    assert_ne!(world.id(0, "ovn-installed-ts"), Some("1"));
}

#[test]
fn a_restart_with_pins_writes_nothing() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.settle();
    let (ports, interfaces) = (world.ports.clone(), world.interfaces.clone());
    world.vifs = Vifs::default();
    world.taken_over = [11].into();
    world.served = None;
    world.now += 60_000;
    // The server has not been asked for the port yet.
    let rows = std::mem::take(&mut world.ports);
    world.has_ports = false;
    assert_eq!(world.step().states["tap0"].phase, Phase::NoPort);
    assert_eq!(interfaces, world.interfaces);
    world.ports = rows;
    // It has sent the port, and not yet what belongs to its datapath.
    world.has_data = false;
    assert_eq!(world.step().states["tap0"].phase, Phase::WaitingData);
    assert_eq!((&ports, &interfaces), (&world.ports, &world.interfaces));
    (world.has_ports, world.has_data) = (true, true);
    let out = world.step();
    assert_eq!(out.states["tap0"].phase, Phase::Programming);
    assert_eq!((&ports, &interfaces), (&world.ports, &world.interfaces));
    assert!(out.is_any_under_way(), "nb_cfg waits until it is reconciled");
    world.served = Some(Served::Yes);
    world.settle();
    assert_eq!((ports, interfaces), (world.ports.clone(), world.interfaces.clone()));
    // The same restart after a reboot: nothing was pinned, so the port was not working.
    world.vifs = Vifs::default();
    world.taken_over.clear();
    world.served = None;
    world.step();
    assert_eq!((world.ports[0].up, world.id(0, "ovn-installed")), (Some(false), None));
}

#[test]
fn a_database_without_the_up_column_is_left_alone() {
    let mut world = World::new(vec![PortBinding { up: None, ..port("lp") }], vec![interface("tap0", "lp", 1)]);
    assert_eq!(world.settle().states["tap0"].phase, Phase::Installed);
    assert_eq!((world.ports[0].up, world.id(0, "ovn-installed")), (None, Some("true")));
}

#[test]
fn a_vif_is_let_go_when_its_interface_device_or_name_goes() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 4] = [
        ("row gone", |world| world.interfaces.clear()),
        ("ofport -1", |world| world.interfaces[0].row.ofport = Some(-1)),
        ("iface-id gone", |world| {
            world.interfaces[0].row.external_ids.remove("iface-id");
        }),
        ("device gone", |world| world.interfaces[0].ifindex = None),
    ];
    for (what, change) in changes {
        let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
        world.settle();
        assert_eq!(world.ports[0].chassis, Some(US));
        change(&mut world);
        let out = world.settle();
        assert_eq!((world.ports[0].chassis, world.ports[0].up), (None, Some(false)), "{what}");
        assert!(out.serve.is_empty(), "{what}");
    }
}

#[test]
fn a_changed_iface_id_releases_one_port_and_claims_the_other() {
    let mut world = World::new(vec![port("a"), port("b")], vec![interface("tap0", "a", 1)]);
    world.settle();
    world.interfaces[0].row.external_ids.insert("iface-id".into(), "b".into());
    world.settle();
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (None, Some(false)));
    assert_eq!((world.ports[1].chassis, world.ports[1].up), (Some(US), Some(true)));
}

#[test]
fn the_newest_of_two_interfaces_wins_and_the_other_is_reported() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.settle();
    world.interfaces.push(interface("tap1", "lp", 2));
    let out = world.settle();
    assert_eq!(out.states["tap1"].phase, Phase::Installed);
    assert_eq!(out.states["tap0"].phase, Phase::Superseded("tap1".into()));
    assert_eq!((world.id(0, "ovn-installed"), world.id(1, "ovn-installed")), (None, Some("true")));
    assert!(world.id(0, REASON_KEY).is_some_and(|reason| reason.contains("tap1")));
    assert_eq!(out.serve.iter().map(|vif| vif.ifindex).collect::<Vec<_>>(), [12]);
    // It goes: the older one comes back.
    world.interfaces.pop();
    let out = world.settle();
    assert_eq!(out.states["tap0"].phase, Phase::Installed);
    assert_eq!(world.id(0, REASON_KEY), None);
    // A newer one without a device does not count.
    let mut late = interface("tap2", "lp", 3);
    late.row.ofport = Some(-1);
    world.interfaces.push(late);
    assert_eq!(world.settle().states["tap0"].phase, Phase::Installed);
}

#[test]
fn requested_chassis_decides_and_moving_it_releases() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.ports[0].options.insert("requested-chassis".into(), "hv2".into());
    world.settle();
    assert_eq!(world.ports[0].chassis, None);
    assert!(
        world.log.iter().any(|line| line == "Not claiming lport lp, chassis hv1 requested-chassis hv2"),
        "{:?}",
        world.log
    );
    world.ports[0].options.insert("requested-chassis".into(), "host1".into());
    world.settle();
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(US), Some(true)));
    world.ports[0].options.insert("requested-chassis".into(), "hv2".into());
    world.settle();
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (None, Some(false)));
    assert_eq!(world.id(0, "ovn-installed"), None);
    // The other chassis has it already: its columns are its own business.
    world.ports[0].chassis = Some(OTHER);
    world.ports[0].up = Some(true);
    world.settle();
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(OTHER), Some(true)));
}

#[test]
fn a_flapping_claim_is_postponed() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.settle();
    world.ports[0].chassis = Some(OTHER);
    world.now += 500;
    let out = world.step();
    assert_eq!(out.states["tap0"].phase, Phase::Postponed(102_000));
    assert_eq!(out.wake_at_ms, Some(102_000));
    assert!(out.serve.is_empty() && out.ports.is_empty());
    assert_eq!(world.id(0, "ovn-installed"), None);
    world.now = 102_000;
    world.settle();
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(US), Some(true)));
}

#[test]
fn live_migration_claims_as_additional_then_as_main_without_going_down() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.encaps.insert("192.0.2.9".into(), Uuid::from_u128(0xe1));
    world.interfaces[0].row.external_ids.insert("encap-ip".into(), "192.0.2.9".into());
    world.ports[0].options.insert("requested-chassis".into(), "hv2,hv1".into());
    (world.ports[0].chassis, world.ports[0].up) = (Some(OTHER), Some(true));
    world.settle();
    assert_eq!(world.ports[0].additional_chassis, [US].into());
    assert_eq!(world.ports[0].additional_encap, [Uuid::from_u128(0xe1)].into());
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(OTHER), Some(true)));
    assert_eq!(world.id(0, "ovn-installed"), Some("true"));
    world.ports[0].options.insert("requested-chassis".into(), "hv1".into());
    let mut ups = Vec::new();
    for _ in 0..5 {
        world.step();
        ups.push(world.ports[0].up);
    }
    assert_eq!((world.ports[0].chassis, world.ports[0].additional_chassis.len()), (Some(US), 0));
    assert_eq!(ups, [Some(true); 5], "a port that is installed here stays up");
    assert!(world.ports[0].additional_encap.is_empty());
}

#[test]
fn nested_ports_follow_their_parent() {
    let child = PortBinding { parent_port: Some("lp".into()), tag: Some(42), tunnel_key: 2, ..port("child") };
    let mut world = World::new(vec![port("lp"), child], vec![interface("tap0", "lp", 1)]);
    world.served = None;
    for _ in 0..4 {
        world.step();
    }
    assert_eq!((world.ports[1].chassis, world.ports[1].up), (Some(US), Some(false)));
    world.served = Some(Served::Yes);
    let out = world.settle();
    assert_eq!(world.ports[1].up, Some(true));
    let nested = out.serve.iter().find(|vif| vif.name == "child").expect("served");
    assert_eq!((nested.vlan, nested.ifindex), (42, 11));
    world.interfaces.clear();
    world.settle();
    assert_eq!((world.ports[1].chassis, world.ports[1].up), (None, Some(false)));
}

#[test]
fn of_two_nested_ports_with_one_tag_the_older_is_served_and_the_other_when_that_goes() {
    let child =
        |name: &str, key| PortBinding { parent_port: Some("lp".into()), tag: Some(42), tunnel_key: key, ..port(name) };
    // The younger one was here alone before, and its name comes first.
    let mut world = World::new(vec![port("lp"), child("a", 3)], vec![interface("tap0", "lp", 1)]);
    world.settle();
    assert_eq!(world.ports[1].chassis, Some(US));
    world.ports.push(child("b", 2));
    let out = world.settle();
    let nested = |out: &Outcome| -> Vec<String> {
        out.serve.iter().filter(|vif| vif.vlan == 42).map(|vif| vif.name.clone()).collect()
    };
    assert_eq!((world.ports[1].chassis, world.ports[1].up), (None, Some(false)));
    assert_eq!((world.ports[2].chassis, world.ports[2].up), (Some(US), Some(true)));
    assert_eq!(nested(&out), ["b"]);
    assert_eq!(out.problems, ["lport a: tag 42 of its parent lp is that of lport b"]);
    world.ports[2].tag = Some(43);
    let out = world.settle();
    assert_eq!((world.ports[1].up, world.ports[2].up, out.problems.len()), (Some(true), Some(true), 0));
    world.ports[2].tag = Some(42);
    world.settle();
    world.ports.truncate(2);
    let out = world.settle();
    assert_eq!((world.ports[1].chassis, world.ports[1].up), (Some(US), Some(true)));
    assert_eq!(nested(&out), ["a"]);
}

#[test]
fn two_ports_on_one_device_are_not_both_served() {
    let mut world = World::new(vec![port("a"), port("b")], vec![interface("tap0", "a", 1), interface("tap1", "b", 2)]);
    world.interfaces[1].ifindex = world.interfaces[0].ifindex;
    let out = world.settle();
    assert_eq!(out.serve.len(), 1);
    assert_eq!(world.phase("tap0"), Phase::Installed);
    assert_eq!(world.phase("tap1"), Phase::Failed("lport b: its device is that of lport a".into()));
}

#[test]
fn a_localport_is_served_and_never_bound() {
    let mut world = World::new(
        vec![PortBinding { kind: "localport".into(), chassis: Some(US), ..port("lp") }],
        vec![interface("tap0", "lp", 1)],
    );
    let out = world.settle();
    assert_eq!(world.ports[0].chassis, None);
    assert!(out.serve[0].localport);
    assert_eq!(world.id(0, "ovn-installed"), Some("true"));
}

#[test]
fn gateway_ports_are_claimed_by_the_chassis_they_name() {
    for kind in ["l2gateway", "l3gateway"] {
        let mut world = World::new(vec![PortBinding { kind: kind.into(), ..port("gw") }], vec![]);
        world.ports[0].options.insert(format!("{kind}-chassis"), "hv1".into());
        world.settle();
        assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(US), Some(true)), "{kind}");
        world.ports[0].options.insert(format!("{kind}-chassis"), "hv2".into());
        world.settle();
        assert_eq!((world.ports[0].chassis, world.ports[0].up), (None, Some(false)), "{kind}");
    }
}

#[test]
fn the_interface_chooses_the_encapsulation_unless_northd_does() {
    let (one, two) = (Uuid::from_u128(0xe1), Uuid::from_u128(0xe2));
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.encaps = [("192.0.2.1".to_owned(), one), ("192.0.2.2".to_owned(), two)].into();
    world.interfaces[0].row.external_ids.insert("encap-ip".into(), "192.0.2.2".into());
    world.settle();
    assert_eq!(world.ports[0].encap, Some(two));
    world.interfaces[0].row.external_ids.insert("encap-ip".into(), "192.0.2.1".into());
    world.settle();
    assert_eq!(world.ports[0].encap, Some(one));
    world.interfaces[0].row.external_ids.remove("encap-ip");
    world.settle();
    assert_eq!(world.ports[0].encap, None);
    world.ports[0].options.insert("requested-encap-ip".into(), "192.0.2.2".into());
    world.ports[0].encap = Some(two);
    world.interfaces[0].row.external_ids.insert("encap-ip".into(), "192.0.2.1".into());
    world.settle();
    assert_eq!(world.ports[0].encap, Some(two), "northd owns it");
}

#[test]
fn a_refused_device_is_reported_and_stays_down_until_it_works() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.served = Some(Served::No("cannot attach to tap0: out of luck".into()));
    let out = world.settle();
    assert_eq!(out.states["tap0"].phase.name(), "failed");
    assert!(!out.is_any_under_way(), "a failed port does not hold nb_cfg back");
    assert_eq!((world.ports[0].up, world.id(0, "ovn-installed")), (Some(false), None));
    assert_eq!(world.id(0, REASON_KEY), Some("cannot attach to tap0: out of luck"));
    world.served = Some(Served::Yes);
    world.settle();
    assert_eq!((world.ports[0].up, world.id(0, REASON_KEY)), (Some(true), None));
}

#[test]
fn links_down_or_up_make_no_difference() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.interfaces[0].row.report.link_state = Some("down".into());
    world.settle();
    let ports = world.ports.clone();
    world.interfaces[0].row.report.link_state = Some("up".into());
    world.settle();
    world.interfaces[0].row.report.link_state = Some("down".into());
    world.settle();
    assert_eq!(ports, world.ports);
    assert_eq!(ports[0].up, Some(true));
}

#[test]
fn a_lost_chassis_row_stops_no_traffic() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.settle();
    world.chassis = None;
    world.ports[0].chassis = None;
    let out = world.settle();
    assert_eq!(out.serve.len(), 1);
    assert_eq!(world.id(0, "ovn-installed"), Some("true"));
    world.chassis = Some(Uuid::from_u128(0xa9));
    let out = world.step();
    assert_eq!(out.serve.len(), 1, "{:?}", out.states);
    world.settle();
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(Uuid::from_u128(0xa9)), Some(true)));
}

#[test]
fn nor_that_of_nested_ports() {
    let child = PortBinding { parent_port: Some("lp".into()), tag: Some(42), tunnel_key: 2, ..port("child") };
    let mut world = World::new(vec![port("lp"), child], vec![interface("tap0", "lp", 1)]);
    world.settle();
    world.chassis = None;
    world.ports.iter_mut().for_each(|port| port.chassis = None);
    assert_eq!(world.settle().serve.len(), 2);
    world.chassis = Some(Uuid::from_u128(0xa9));
    for _ in 0..4 {
        let out = world.step();
        assert_eq!(out.serve.len(), 2, "{:?}", out.states);
    }
    assert_eq!((world.ports[1].chassis, world.ports[1].up), (Some(Uuid::from_u128(0xa9)), Some(true)));
}

#[test]
fn passes_are_idempotent_and_phase_names_are_distinct() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    assert_eq!(world.look(), world.look());
    world.settle();
    assert_eq!(world.phase("tap0"), Phase::Installed);
}
