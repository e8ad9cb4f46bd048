//! Listening for the frames that bring a migrated port to life, on real devices.

use oxbow_node::activation::Strategies;
use oxbow_node::activation::listen::{Listeners, Wanted};
use oxbow_testkit::{Netns, frames::Frames, link};
use std::collections::BTreeMap;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// A hypervisor with the switch's side of a guest's device.
struct Plugged {
    host: Netns,
    guest: Netns,
}

impl Plugged {
    fn new() -> Self {
        let (host, guest) = (Netns::new("host").expect("a namespace"), Netns::new("guest").expect("a namespace"));
        link::veth(&host, "vif0", &guest, "eth0").expect("a pair of devices");
        Plugged { host, guest }
    }

    fn ifindex(&self) -> u32 {
        self.host.enter(|| nix::net::if_::if_nametoindex("vif0")).expect("entered").expect("an index")
    }

    fn guest(&self) -> Frames {
        Frames::open(&self.guest, "eth0").expect("a socket")
    }

    /// In the host's namespace, inside a runtime.
    fn inside<T: Send>(&self, work: impl AsyncFnOnce() -> T + Send) -> T {
        self.host.enter(|| block_on(work())).expect("entered")
    }
}

fn wanted(ports: &[(u16, &str)]) -> Wanted {
    ports.iter().map(|(vlan, list)| (*vlan, Strategies::parse(list).0)).collect()
}

fn frame(ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame.resize(frame.len().max(86), 0);
    frame
}

fn arp(target: u8) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1];
    body.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, target]);
    frame(0x0806, &body)
}

fn advertisement(solicited: bool) -> Vec<u8> {
    let mut body = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
    body.extend([0xfe; 32]);
    body.extend([136, 0, 0, 0, if solicited { 0x60 } else { 0x20 }]);
    frame(0x86dd, &body)
}

fn tagged(tag: u16, frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0].into_iter().chain(tag.to_be_bytes()));
    tagged
}

async fn hear(listeners: &mut Listeners) -> Vec<(u32, u16)> {
    let listening = async {
        loop {
            listeners.ready().await;
            let heard = listeners.heard();
            if !heard.is_empty() {
                return heard;
            }
        }
    };
    tokio::time::timeout(PATIENCE, listening).await.expect("a frame that activates")
}

#[test]
fn only_frames_that_are_named_are_heard_and_only_from_the_guest() {
    let plugged = Plugged::new();
    let (ifindex, guest) = (plugged.ifindex(), plugged.guest());
    let host = Frames::open(&plugged.host, "vif0").expect("a socket");
    let rarp = frame(0x8035, &[]);
    plugged.inside(async || {
        for (list, last) in [("rarp", rarp.clone()), ("garp", arp(1)), ("na", advertisement(false))] {
            let mut listeners = Listeners::default();
            assert!(listeners.follow(&BTreeMap::from([(ifindex, wanted(&[(0, list), (42, list)]))])));
            assert_eq!(listeners.state(ifindex), Some(Ok(())));
            // What does not count comes first: the frames of the other kinds, and the host's own.
            for frame in [&rarp, &arp(1), &advertisement(false)].into_iter().filter(|frame| **frame != last) {
                guest.send(frame).expect("sent");
            }
            for frame in [arp(2), advertisement(true), frame(0x0800, &[0x45])] {
                guest.send(&frame).expect("sent");
            }
            host.send(&last).expect("sent");
            guest.send(&tagged(42, &last)).expect("sent");
            assert_eq!(hear(&mut listeners).await, [(ifindex, 42)], "{list}");
            guest.send(&last).expect("sent");
            assert_eq!(hear(&mut listeners).await, [(ifindex, 0)], "{list}");
            guest.send(&tagged(7, &last)).expect("sent");
            assert_eq!(hear(&mut listeners).await, [(ifindex, 0)], "{list}: a tag that no nested port has");
        }
    });
}

#[test]
fn sockets_follow_what_is_wanted() {
    let plugged = Plugged::new();
    let ifindex = plugged.ifindex();
    plugged.inside(async || {
        let mut listeners = Listeners::default();
        let rarp = BTreeMap::from([(ifindex, wanted(&[(0, "rarp")]))]);
        assert!(listeners.follow(&rarp) && !listeners.follow(&rarp), "once");
        assert!(listeners.follow(&BTreeMap::from([(ifindex, wanted(&[(0, "garp")]))])));
        assert!(listeners.follow(&BTreeMap::new()));
        assert_eq!(listeners.state(ifindex), None);
        // No such device: told, and tried again without calling it news.
        let nowhere = BTreeMap::from([(ifindex + 1000, wanted(&[(0, "rarp")]))]);
        assert!(listeners.follow(&nowhere) && !listeners.follow(&nowhere));
        let error = listeners.state(ifindex + 1000).expect("asked for").expect_err("no device");
        assert!(error.contains("cannot listen"), "{error}");
    });
}

#[test]
fn a_device_may_go_down_and_up_and_away_and_come_back() {
    let plugged = Plugged::new();
    let (ifindex, guest) = (plugged.ifindex(), plugged.guest());
    plugged.host.ip("link set vif0 down").expect("down");
    let wanted = BTreeMap::from([(ifindex, wanted(&[(0, "rarp")]))]);
    let mut listeners = plugged.inside(async || {
        let mut listeners = Listeners::default();
        assert!(listeners.follow(&wanted));
        assert_eq!(listeners.heard(), []);
        assert_eq!(listeners.state(ifindex), Some(Ok(())), "a device that is down is waited for");
        listeners
    });
    drop(std::mem::take(&mut listeners));
    plugged.inside(async || {
        assert!(listeners.follow(&wanted));
        plugged.host.ip("link set vif0 up").expect("up");
        // The pair has its carrier once both ends are up; frames sent before are lost.
        let heard = async {
            loop {
                // A device that is not up yet refuses the frame.
                let _refused = guest.send(&frame(0x8035, &[])).is_err();
                if let Ok(()) = tokio::time::timeout(Duration::from_millis(50), listeners.ready()).await
                    && let heard = listeners.heard()
                    && !heard.is_empty()
                {
                    return heard;
                }
            }
        };
        let heard = tokio::time::timeout(PATIENCE, heard).await.expect("heard after the device came up");
        assert!(heard.iter().all(|from| *from == (ifindex, 0)));
        // It goes, and one with its index comes.
        plugged.host.ip("link del vif0").expect("removed");
        plugged.host.ip(&format!("link add vif0 index {ifindex} type veth peer name vif1")).expect("made");
        assert!(listeners.follow(&wanted), "the old socket is dead");
        assert_eq!(listeners.state(ifindex), Some(Ok(())));
        for device in ["vif0", "vif1"] {
            plugged.host.ip(&format!("link set {device} up")).expect("up");
        }
        Frames::open(&plugged.host, "vif1").expect("a socket").send(&frame(0x8035, &[])).expect("sent");
        assert_eq!(hear(&mut listeners).await, [(ifindex, 0)]);
    });
}
