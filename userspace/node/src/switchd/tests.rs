//! The switch against a small database and a few devices.

use super::*;

struct Host {
    switch: OpenVSwitch,
    bridges: BTreeMap<Uuid, Bridge>,
    ports: BTreeMap<Uuid, Port>,
    interfaces: BTreeMap<Uuid, Interface>,
    links: Links,
    failed: BTreeMap<String, String>,
}

const BRIDGE: Uuid = Uuid::from_u128(1);

impl Host {
    fn new() -> Self {
        let mut host = Host {
            switch: OpenVSwitch { bridges: [BRIDGE].into(), next_cfg: 1, ..Default::default() },
            bridges: BTreeMap::from([(BRIDGE, Bridge { uuid: BRIDGE, name: "br-int".into(), ..Default::default() })]),
            ports: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            links: Links::default(),
            failed: BTreeMap::new(),
        };
        host.add("br-int", "internal");
        host
    }

    fn add(&mut self, name: &str, kind: &str) -> Uuid {
        let number = 100 + self.interfaces.len() as u128;
        let (port, interface) = (Uuid::from_u128(number << 32), Uuid::from_u128(number));
        self.ports
            .insert(port, Port { uuid: port, name: name.into(), interfaces: [interface].into(), ..Default::default() });
        self.interfaces.insert(
            interface,
            Interface { uuid: interface, name: name.into(), kind: kind.into(), ..Default::default() },
        );
        if let Some(bridge) = self.bridges.get_mut(&BRIDGE) {
            bridge.ports.insert(port);
        }
        interface
    }

    fn look(&self) -> Work {
        work(&View {
            switch: &self.switch,
            bridges: &self.bridges,
            ports: &self.ports,
            interfaces: &self.interfaces,
            links: &self.links,
            failed: &self.failed,
            with_statistics: false,
        })
    }

    /// Database and kernel do what the work says.
    fn apply(&mut self, work: &Work) {
        for order in &work.devices {
            match order {
                DeviceOrder::Create { name, inner, mac } => {
                    let ifindex = 10 + self.links.iter().count() as u32;
                    let mac = Some(mac.unwrap_or([2, 0, 0, 0, 0, ifindex as u8]));
                    let outer = Link {
                        ifindex,
                        name: name.clone(),
                        mac,
                        mtu: 1500,
                        peer: Some(ifindex + 1),
                        ..Default::default()
                    };
                    self.links.put(outer.clone());
                    let alias = Some(ALIAS.to_owned());
                    self.links.put(Link {
                        ifindex: ifindex + 1,
                        name: inner.clone(),
                        alias,
                        peer: Some(ifindex),
                        ..outer
                    });
                }
                DeviceOrder::Delete { ifindex, .. } => {
                    if let Some(peer) = self.links.get(*ifindex).and_then(|link| link.peer) {
                        self.links.remove(peer);
                    }
                    self.links.remove(*ifindex);
                }
                DeviceOrder::Raise { ifindex } => self.change(*ifindex, |link| link.is_up = true),
                DeviceOrder::Mtu { ifindex, mtu } => self.change(*ifindex, |link| link.mtu = *mtu),
                DeviceOrder::Mac { ifindex, mac } => self.change(*ifindex, |link| link.mac = Some(*mac)),
            }
        }
        for status in &work.interfaces {
            let row = self.interfaces.get_mut(&status.interface).expect("a known interface");
            if status.ofport.is_some() {
                row.ofport = status.ofport;
            }
            if let Some(report) = &status.report {
                row.report = InterfaceReport { statistics: row.report.statistics.clone(), ..report.clone() };
            }
        }
        for status in &work.bridges {
            self.bridges.get_mut(&status.bridge).expect("a known bridge").datapath_id = status.datapath_id.clone();
        }
        let switch = work.switch.clone();
        self.switch.cur_cfg = switch.cur_cfg.unwrap_or(self.switch.cur_cfg);
        self.switch.ovs_version = switch.ovs_version.or(self.switch.ovs_version.take());
        self.switch.iface_types = switch.iface_types.unwrap_or(self.switch.iface_types.clone());
        self.switch.datapath_types = switch.datapath_types.unwrap_or(self.switch.datapath_types.clone());
    }

    fn change(&mut self, ifindex: u32, change: impl FnOnce(&mut Link)) {
        let mut link = self.links.get(ifindex).expect("a known device").clone();
        change(&mut link);
        self.links.put(link);
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            let work = self.look();
            if work == Work::default() {
                return;
            }
            self.apply(&work);
        }
        panic!("does not settle: {:#?}", self.look());
    }
}

#[test]
fn a_bridge_gets_its_device_and_the_generation_is_done_after_it() {
    let mut host = Host::new();
    let first = host.look();
    assert!(matches!(&first.devices[..], [DeviceOrder::Create { name, .. }] if name == "br-int"), "{first:?}");
    assert_eq!(first.switch.cur_cfg, None, "ovs-vsctl must not return before the device is there");
    host.settle();
    assert_eq!(host.switch.cur_cfg, 1);
    let local = &host.interfaces[&Uuid::from_u128(100)];
    assert_eq!((local.ofport, local.report.error.as_deref()), (Some(LOCAL_OFPORT), None));
    assert_eq!(host.bridges[&BRIDGE].datapath_id.as_ref().map(String::len), Some(16));
    assert!(host.switch.iface_types.contains("internal"));
}

#[test]
fn a_missing_device_is_an_error_with_the_field_s_text_until_it_appears() {
    let mut host = Host::new();
    let tap = host.add("tap0", "");
    host.settle();
    let row = &host.interfaces[&tap];
    assert_eq!(row.ofport, Some(-1));
    assert_eq!(row.report.error.as_deref(), Some("could not open network device tap0 (No such device)"));
    assert_eq!(host.switch.cur_cfg, 1, "the generation is done all the same: ovs-vsctl tells the error");
    host.links.put(Link {
        ifindex: 77,
        name: "tap0".into(),
        mac: Some([2, 0, 0, 0, 0, 7]),
        mtu: 1450,
        ..Default::default()
    });
    host.settle();
    let row = host.interfaces[&tap].clone();
    assert_eq!((row.ofport, row.report.error.as_deref()), (Some(1), None));
    assert_eq!(
        (row.report.mtu, row.report.ifindex, row.report.mac_in_use.as_deref()),
        (Some(1450), Some(77), Some("02:00:00:00:00:07"))
    );
    assert_eq!((row.report.admin_state.as_deref(), row.report.link_state.as_deref()), (Some("down"), Some("down")));
    host.change(77, |link| (link.is_up, link.has_carrier, link.carrier_changes) = (true, true, 2));
    host.settle();
    let row = host.interfaces[&tap].clone();
    assert_eq!((row.report.admin_state.as_deref(), row.report.link_state.as_deref()), (Some("up"), Some("up")));
    assert_eq!((row.report.link_resets, row.ofport), (Some(2), Some(1)));
    host.links.remove(77);
    host.settle();
    assert_eq!(host.interfaces[&tap].ofport, Some(-1));
}

#[test]
fn an_internal_port_is_a_pair_that_survives_a_move_and_goes_with_its_row() {
    let mut host = Host::new();
    let port = host.add("lsp0", "internal");
    if let Some(row) = host.interfaces.get_mut(&port) {
        row.mac = Some("0a:00:00:00:00:01".into());
        row.mtu_request = Some(1400);
    }
    host.settle();
    let row = host.interfaces[&port].clone();
    assert_eq!((row.report.mac_in_use.as_deref(), row.report.mtu), (Some("0a:00:00:00:00:01"), Some(1400)));
    let serving = serving_device(&row, &host.links).expect("a device").clone();
    assert_eq!(serving.name, inner_name("lsp0"));
    assert!(serving.is_up);
    // The host's end moves to another namespace.
    let outer = host.links.named("lsp0").expect("the host's end").ifindex;
    host.links.remove(outer);
    host.settle();
    let row = host.interfaces[&port].clone();
    assert_eq!(row.ofport, Some(1));
    assert_eq!(row.report.mac_in_use.as_deref(), Some("0a:00:00:00:00:01"));
    // The row goes.
    host.bridges.get_mut(&BRIDGE).expect("bridge").ports.retain(|port| host.ports[port].name != "lsp0");
    host.settle();
    assert!(host.links.get(serving.ifindex).is_none());
    assert!(host.links.named("br-int").is_some());
}

#[test]
fn a_foreign_device_is_never_taken_for_an_internal_one() {
    let mut host = Host::new();
    host.links.put(Link { ifindex: 5, name: "eth0".into(), ..Default::default() });
    let port = host.add("eth0", "internal");
    host.settle();
    assert_eq!(
        host.interfaces[&port].report.error.as_deref(),
        Some("could not open network device eth0 (File exists)")
    );
    assert!(host.links.get(5).is_some());
}

#[test]
fn a_device_that_cannot_be_made_is_an_error_with_the_kernel_s_reason() {
    let mut host = Host::new();
    let port = host.add("lsp0", "internal");
    host.failed.insert("lsp0".into(), "Operation not permitted".into());
    host.settle();
    let error = host.interfaces[&port].report.error.clone();
    assert_eq!(error.as_deref(), Some("could not open network device lsp0 (Operation not permitted)"));
    assert_eq!(host.switch.cur_cfg, 1);
}

#[test]
fn kinds_that_need_a_userspace_datapath_are_refused_by_name() {
    let mut host = Host::new();
    let port = host.add("vhu0", "dpdkvhostuserclient");
    host.settle();
    assert_eq!(host.interfaces[&port].ofport, Some(-1));
    assert!(host.interfaces[&port].report.error.as_deref().is_some_and(|error| error.contains("vhu0")));
    let patch = host.add("patch0", "patch");
    host.settle();
    assert_eq!(host.interfaces[&patch].ofport, Some(1));
}

#[test]
fn the_next_generation_is_followed() {
    let mut host = Host::new();
    host.settle();
    host.switch.next_cfg = 9;
    host.settle();
    assert_eq!(host.switch.cur_cfg, 9);
}

#[test]
fn inner_names_fit_and_stay() {
    assert_eq!(inner_name("br-int"), inner_name("br-int"));
    assert_ne!(inner_name("tap0"), inner_name("tap1"));
    assert_eq!(inner_name("a-name-of-15-ch").len(), 14);
}
