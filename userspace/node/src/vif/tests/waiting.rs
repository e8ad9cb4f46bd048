//! VIFs of additional chassis that wait for a frame of their guest (`options:activation-strategy`).

use super::*;
use crate::activation::ACTIVATED_KEY;

/// A port that lives on another chassis and is to come here, and its device.
fn migrating(strategy: &str) -> World {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    (world.ports[0].chassis, world.ports[0].up) = (Some(OTHER), Some(true));
    world.option("requested-chassis", "hv2,hv1");
    world.option("activation-strategy", strategy);
    world.option("mtu", "1400");
    world
}

impl World {
    fn option(&mut self, key: &str, value: &str) {
        self.ports[0].options.insert(key.into(), value.into());
    }

    fn activated(&self) -> Option<&str> {
        self.ports[0].options.get(ACTIVATED_KEY).map(String::as_str)
    }

    fn hear(&mut self, out: &Outcome) {
        for waiting in &out.awaiting {
            self.vifs.activate(&waiting.port);
        }
    }
}

#[test]
fn an_additional_place_waits_until_its_guest_speaks() {
    let mut world = migrating("rarp,na");
    world.held = None;
    for _ in 0..3 {
        world.step();
    }
    let out = world.look();
    assert_eq!(out.states["tap0"].phase, Phase::Programming, "not yet attached and listened on");
    assert!(out.is_any_under_way());
    world.held = Some(Served::Yes);
    let out = world.settle();
    let phase = &out.states["tap0"].phase;
    assert_eq!(phase.reason().as_deref(), Some("waits for activation (rarp,na)"));
    assert!(!out.is_any_under_way(), "nb_cfg does not wait for a guest");
    assert_eq!(out.serve, []);
    let waiting = &out.awaiting[0];
    assert_eq!((waiting.port.as_str(), waiting.ifindex, waiting.vlan), ("lp", 11, 0));
    assert_eq!(world.ports[0].additional_chassis, [US].into());
    assert_eq!(world.id(0, "ovn-installed"), Some("true"), "whoever starts the guest must not wait for its frame");
    assert_eq!(world.activated(), None);
    world.hear(&out);
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.clone(), out.serve.len(), out.awaiting.len()), (Phase::Installed, 1, 0));
    assert_eq!(world.activated(), Some("hv1"));
    assert_eq!(world.ports[0].options.get("mtu").map(String::as_str), Some("1400"));
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(OTHER), Some(true)));
}

#[test]
fn a_refused_write_of_the_activation_is_made_again() {
    let mut world = migrating("rarp");
    let out = world.settle();
    world.hear(&out);
    let before = world.ports.clone();
    assert_eq!(world.step().serve.len(), 1, "packets do not wait for the database");
    world.ports = before;
    world.settle();
    assert_eq!(world.activated(), Some("hv1"));
}

#[test]
fn a_place_that_the_database_calls_active_is_active_at_once() {
    let mut world = migrating("rarp");
    world.option(ACTIVATED_KEY, "hv3, hv1");
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.clone(), out.serve.len()), (Phase::Installed, 1));
    assert_eq!(world.activated(), Some("hv3, hv1"), "left as it is");
    // Another chassis' activation is not ours.
    let mut world = migrating("rarp");
    world.option(ACTIVATED_KEY, "hv3");
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.name(), out.serve.len()), ("waits-for-activation", 0));
    world.hear(&out);
    world.settle();
    assert_eq!(world.activated(), Some("hv3,hv1"));
}

#[test]
fn without_a_strategy_nothing_waits_and_strange_words_are_told() {
    for strategy in ["", "dhcp"] {
        let mut world = migrating(strategy);
        let out = world.settle();
        assert_eq!((out.states["tap0"].phase.clone(), out.serve.len()), (Phase::Installed, 1), "{strategy:?}");
        assert_eq!(out.problems.len(), usize::from(!strategy.is_empty()), "{:?}", out.problems);
        assert_eq!(world.activated(), None);
    }
    let mut world = migrating("dhcp,rarp");
    let out = world.settle();
    assert_eq!(out.problems, ["lport lp: unknown activation strategy \"dhcp\""]);
    assert_eq!(out.states["tap0"].phase.reason().as_deref(), Some("waits for activation (rarp)"));
    // It is taken away: nothing to wait for.
    world.ports[0].options.remove("activation-strategy");
    assert_eq!(world.settle().states["tap0"].phase, Phase::Installed);
}

#[test]
fn the_main_chassis_never_waits() {
    let mut world = World::new(vec![port("lp")], vec![interface("tap0", "lp", 1)]);
    world.option("requested-chassis", "hv1,hv2");
    world.option("activation-strategy", "rarp");
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.clone(), out.awaiting.len()), (Phase::Installed, 0));
    assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(US), Some(true)));
}

#[test]
fn the_end_of_the_migration_brings_it_to_life_with_and_without_a_frame() {
    for speaks in [false, true] {
        let mut world = migrating("rarp");
        let out = world.settle();
        if speaks {
            world.hear(&out);
            world.settle();
            assert_eq!(world.activated(), Some("hv1"));
        }
        world.option("requested-chassis", "hv1");
        let out = world.step();
        assert_eq!(out.serve.len(), usize::from(speaks), "not before the database says that this is the main chassis");
        let out = world.settle();
        assert_eq!((out.states["tap0"].phase.clone(), out.serve.len()), (Phase::Installed, 1));
        assert_eq!((world.ports[0].chassis, world.ports[0].up), (Some(US), Some(true)));
        assert!(world.ports[0].additional_chassis.is_empty());
        assert_eq!(world.activated(), None, "only additional chassis are listed");
    }
}

#[test]
fn a_second_migration_waits_again() {
    let mut world = migrating("rarp");
    let out = world.settle();
    world.hear(&out);
    world.settle();
    // It is called off: the guest stayed where it was.
    world.option("requested-chassis", "hv2");
    world.settle();
    assert_eq!((world.activated(), world.ports[0].additional_chassis.len()), (None, 0));
    world.option("requested-chassis", "hv2,hv1");
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.name(), out.serve.len()), ("waits-for-activation", 0));
}

#[test]
fn a_lost_chassis_row_brings_nothing_to_life() {
    let mut world = migrating("rarp");
    world.settle();
    world.chassis = None;
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.clone(), out.serve.len()), (Phase::NoChassis, 0));
    assert_eq!(world.id(0, "ovn-installed"), Some("true"));
    world.chassis = Some(US);
    assert_eq!(world.settle().states["tap0"].phase.name(), "waits-for-activation");
}

#[test]
fn a_device_that_cannot_be_held_is_reported() {
    let mut world = migrating("rarp");
    world.held = Some(Served::No("cannot listen: out of luck".into()));
    let out = world.settle();
    assert_eq!((out.states["tap0"].phase.name(), out.serve.len()), ("failed", 0));
    assert_eq!(world.id(0, "ovn-installed"), None);
    assert_eq!(world.id(0, REASON_KEY), Some("cannot listen: out of luck"));
}

#[test]
fn nested_ports_wait_with_their_parent_or_by_themselves() {
    let child = PortBinding {
        parent_port: Some("lp".into()),
        tag: Some(42),
        tunnel_key: 2,
        chassis: Some(OTHER),
        ..port("child")
    };
    let mut world = migrating("rarp");
    world.ports.push(child.clone());
    let out = world.settle();
    assert_eq!((out.serve.len(), out.awaiting.len()), (0, 1));
    world.hear(&out);
    assert_eq!(world.settle().serve.len(), 2);
    // One with a strategy of its own waits on its own tag.
    let mut world = migrating("");
    world.ports.push(child);
    world.ports[1].options.insert("activation-strategy".into(), "garp".into());
    let out = world.settle();
    assert_eq!(out.serve.iter().map(|vif| vif.name.as_str()).collect::<Vec<_>>(), ["lp"]);
    assert_eq!((out.awaiting[0].port.as_str(), out.awaiting[0].vlan), ("child", 42));
    world.hear(&out);
    assert_eq!(world.settle().serve.len(), 2);
    assert_eq!(world.ports[1].options.get(ACTIVATED_KEY).map(String::as_str), Some("hv1"));
}
