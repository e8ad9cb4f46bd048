//! The netlink layer against the kernel, in namespaces of its own.

use oxbow_node::link::Links;
use oxbow_node::netlink::{
    Addresses, Change, Monitor, NeighbourKey, Neighbours, Requester, create_pair, delete_link, dump_links, route_to,
    set_mac, set_mtu, set_up,
};
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Netns, link, wait_until};
use std::net::IpAddr;
use std::time::Duration;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[derive(Default)]
struct Tables {
    links: Links,
    addresses: Addresses,
    neighbours: Neighbours,
}

impl Tables {
    /// Follows notifications until `done`, or fails with what is known.
    async fn until(&mut self, monitor: &Monitor, done: impl Fn(&Tables) -> bool) -> Change {
        let mut all = Change::default();
        let follow = async {
            while !done(self) {
                monitor.ready().await.expect("ready");
                let change =
                    monitor.follow(&mut self.links, &mut self.addresses, &mut self.neighbours).expect("follow");
                all.links |= change.links;
                all.addresses |= change.addresses;
                all.neighbours |= change.neighbours;
                all.routes |= change.routes;
            }
        };
        if tokio::time::timeout(Duration::from_secs(20), follow).await.is_err() {
            panic!("{:#?}\n{:#?}\n{:#?}", self.links, self.addresses, self.neighbours);
        }
        all
    }
}

#[test]
fn devices_are_made_changed_followed_and_removed() {
    let ns = Netns::new("links").expect("a namespace");
    ns.enter(|| {
        block_on(async {
            let monitor = Monitor::open().expect("monitor");
            let mut kernel = Requester::open().expect("requester");
            let mut tables = Tables::default();
            tables.links.replace(dump_links(&mut kernel).expect("dump"));
            assert!(tables.links.named("lo").is_some());
            create_pair(&mut kernel, "outer0", "inner0", Some([2, 0, 0, 0, 0, 9]), "a note").expect("pair");
            tables.until(&monitor, |tables| tables.links.named("inner0").is_some()).await;
            // A note on a device that is down is not told to anybody.
            tables.links.replace(dump_links(&mut kernel).expect("dump"));
            let (outer, inner) = (tables.links.named("outer0").cloned(), tables.links.named("inner0").cloned());
            let (outer, inner) = (outer.expect("outer"), inner.expect("inner"));
            assert_eq!((outer.mac, outer.kind.as_deref()), (Some([2, 0, 0, 0, 0, 9]), Some("veth")));
            assert_eq!((inner.alias.as_deref(), inner.peer), (Some("a note"), Some(outer.ifindex)));
            assert!(!outer.is_up);
            set_mtu(&mut kernel, outer.ifindex, 1400).expect("mtu");
            set_mac(&mut kernel, outer.ifindex, [2, 0, 0, 0, 0, 8]).expect("mac");
            for ifindex in [outer.ifindex, inner.ifindex] {
                set_up(&mut kernel, ifindex).expect("up");
            }
            tables
                .until(&monitor, |tables| {
                    tables.links.named("outer0").is_some_and(|link| link.mtu == 1400 && link.is_up && link.has_carrier)
                })
                .await;
            assert_eq!(tables.links.named("outer0").and_then(|link| link.mac), Some([2, 0, 0, 0, 0, 8]));
            delete_link(&mut kernel, inner.ifindex).expect("delete");
            delete_link(&mut kernel, inner.ifindex).expect("a device that is gone is no error");
            tables.until(&monitor, |tables| tables.links.named("outer0").is_none()).await;
        });
    })
    .expect("in the namespace");
}

#[test]
fn the_kernel_explains_what_it_refuses() {
    let ns = Netns::new("refused").expect("a namespace");
    ns.enter(|| {
        let mut kernel = Requester::open().expect("requester");
        create_pair(&mut kernel, "a0", "b0", None, "x").expect("pair");
        let error = create_pair(&mut kernel, "a0", "c0", None, "x").expect_err("the name is taken");
        assert_eq!((error.errno(), error.reason().as_str()), (Some(libc::EEXIST), "File exists"));
        let error = set_mtu(&mut kernel, 4242, 1).expect_err("no such device");
        assert_eq!(error.reason(), "No such device");
        let error = create_pair(&mut kernel, "a-name-that-is-much-too-long", "d0", None, "x").expect_err("too long");
        assert!(error.to_string().len() > error.reason().len(), "an explanation of the kernel's own: {error}");
    })
    .expect("in the namespace");
}

#[test]
fn the_way_to_a_peer_is_found_and_its_neighbour_resolved() {
    let here = Netns::new("here").expect("a namespace");
    let there = Netns::new("there").expect("a namespace");
    link::veth(&here, "eth0", &there, "eth0").expect("veth");
    for (ns, last) in [(&here, 1), (&there, 2)] {
        link::address(ns, "eth0", &format!("192.0.2.{last}/24")).expect("address");
        link::address(ns, "eth0", &format!("2001:db8::{last}/64")).expect("address");
    }
    here.ip("route add 198.51.100.0/24 via 192.0.2.2 mtu 1380").expect("route");
    // Who does not answer is given up sooner than after three seconds.
    here.ip("ntable change name arp_cache dev eth0 retrans 100").expect("the time between solicitations");
    here.enter(|| {
        block_on(async {
            let monitor = Monitor::open().expect("monitor");
            let mut kernel = Requester::open().expect("requester");
            let mut tables =
                Tables { addresses: Addresses::dump(&mut kernel).expect("addresses"), ..Default::default() };
            tables.links.replace(dump_links(&mut kernel).expect("links"));
            tables.neighbours = Neighbours::dump(&mut kernel).expect("neighbours");
            let eth0 = tables.links.named("eth0").expect("eth0").ifindex;
            assert_eq!(tables.addresses.device(ip("192.0.2.1")), Some(eth0));
            let direct = route_to(&mut kernel, ip("192.0.2.1"), ip("192.0.2.2")).expect("route").expect("a way");
            assert_eq!(
                (direct.ifindex, direct.next_hop, direct.mtu, direct.is_local),
                (eth0, ip("192.0.2.2"), None, false)
            );
            let via = route_to(&mut kernel, ip("192.0.2.1"), ip("198.51.100.9")).expect("route").expect("a way");
            assert_eq!((via.ifindex, via.next_hop, via.mtu), (eth0, ip("192.0.2.2"), Some(1380)));
            let own = route_to(&mut kernel, ip("192.0.2.1"), ip("192.0.2.1")).expect("route").expect("a way");
            assert!(own.is_local);
            let none = route_to(&mut kernel, ip("192.0.2.1"), ip("203.0.113.1"));
            assert!(!matches!(none, Ok(Some(_))), "{none:?}");
            for next_hop in ["192.0.2.2", "2001:db8::2"] {
                let key = NeighbourKey { ifindex: eth0, ip: ip(next_hop) };
                Neighbours::ask(&mut kernel, key).expect("ask");
                tables.until(&monitor, |tables| tables.neighbours.mac(key).is_some()).await;
            }
            // One that nobody answers for stays unknown, and asking is no error.
            Neighbours::ask(&mut kernel, NeighbourKey { ifindex: eth0, ip: ip("192.0.2.77") }).expect("ask");
            // The kernel has asked in vain: whatever it found is told by then.
            wait_until("192.0.2.77 is given up", PATIENCE, || {
                let seen = here.ip("neigh show to 192.0.2.77")?;
                let over = !seen.trim().is_empty() && !seen.contains("INCOMPLETE");
                Ok(Look::when(over, || seen))
            })
            .expect("an end of asking");
            monitor.follow(&mut tables.links, &mut tables.addresses, &mut tables.neighbours).expect("follow");
            assert_eq!(tables.neighbours.mac(NeighbourKey { ifindex: eth0, ip: ip("192.0.2.77") }), None);
        });
    })
    .expect("in the namespace");
}

#[test]
fn lost_notifications_are_told() {
    let ns = Netns::new("storm").expect("a namespace");
    ns.enter(|| {
        block_on(async {
            let monitor = Monitor::open().expect("monitor");
            let mut kernel = Requester::open().expect("requester");
            let mut tables = Tables::default();
            create_pair(&mut kernel, "a0", "b0", None, "x").expect("pair");
            tables.until(&monitor, |tables| tables.links.named("a0").is_some()).await;
            let a0 = tables.links.named("a0").expect("a0").ifindex;
            // Far more than the socket holds, without anybody reading.
            let mut lost = false;
            for round in 0..60_000u32 {
                set_mtu(&mut kernel, a0, 1000 + (round & 1)).expect("mtu");
                if round % 10_000 == 9_999 {
                    let change = monitor
                        .follow(&mut tables.links, &mut tables.addresses, &mut tables.neighbours)
                        .expect("follow");
                    lost |= change.lost;
                    if lost {
                        break;
                    }
                }
            }
            assert!(lost, "the kernel held every notification back");
            // The state after an overflow is that of a dump.
            tables.links.replace(dump_links(&mut kernel).expect("dump"));
            assert!(tables.links.named("a0").is_some());
        });
    })
    .expect("in the namespace");
}
