//! Frames, byte by byte.

use super::*;

const ALL: &str = "rarp,garp,na";

fn strategies(list: &str) -> Strategies {
    Strategies::parse(list).0
}

fn frame(ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(body);
    frame
}

fn tagged(tpid: u16, tci: u16, frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, tpid.to_be_bytes().into_iter().chain(tci.to_be_bytes()));
    tagged
}

fn arp(operation: u8, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 1];
    body.extend(sender);
    body.extend([0; 6]);
    body.extend(target);
    frame(0x0806, &body)
}

fn advertisement(flags: u8) -> Vec<u8> {
    let mut body = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
    body.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    body.extend([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    body.extend([136, 0, 0, 0, flags, 0, 0, 0]);
    body.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame(0x86dd, &body)
}

fn activating() -> [(&'static str, Vec<u8>); 3] {
    let mine = [10, 0, 0, 1];
    [("rarp", frame(0x8035, &[0; 28])), ("garp", arp(1, mine, mine)), ("na", advertisement(0x20))]
}

#[test]
fn a_frame_activates_by_its_own_strategy_only() {
    for (kind, frame) in activating() {
        for name in ["rarp", "garp", "na", "", ALL] {
            let expected = name == kind || name == ALL;
            assert_eq!(activates(strategies(name), &frame), expected, "{kind} under {name:?}");
        }
    }
    let reply = arp(2, [10, 0, 0, 1], [10, 0, 0, 1]);
    assert!(activates(strategies("garp"), &reply), "an announcement may be a reply");
}

#[test]
fn ordinary_traffic_does_not_activate() {
    let with = |mut frame: Vec<u8>, at: usize, byte: u8| {
        frame[at] = byte;
        frame
    };
    let announcement = arp(1, [10, 0, 0, 1], [10, 0, 0, 1]);
    for (what, frame) in [
        ("a request for somebody else", arp(1, [10, 0, 0, 1], [10, 0, 0, 2])),
        ("a probe", arp(1, [0; 4], [10, 0, 0, 1])),
        ("no address", arp(1, [0; 4], [0; 4])),
        ("ARP of another protocol", with(announcement.clone(), 17, 6)),
        ("ARP of another hardware", with(announcement, 15, 6)),
        ("a solicited advertisement", advertisement(0x60)),
        ("a solicitation", with(advertisement(0x20), 54, 135)),
        ("another code", with(advertisement(0x20), 55, 1)),
        ("one that a router forwarded", with(advertisement(0x20), 21, 254)),
        ("another protocol", with(advertisement(0x20), 20, 17)),
        ("IPv4", frame(0x0800, &[0x45; 60])),
        ("an 802.3 length", frame(60, &[0; 60])),
    ] {
        assert!(!activates(strategies(ALL), &frame), "{what}");
    }
}

#[test]
fn a_vlan_tag_is_looked_behind_and_told() {
    for (kind, frame) in activating() {
        assert_eq!(vlan(&frame), None);
        for tpid in [0x8100, 0x88a8] {
            let tagged = tagged(tpid, 0xe02a, &frame);
            assert!(activates(strategies(kind), &tagged), "{kind}");
            assert_eq!(vlan(&tagged), Some(42));
        }
        assert_eq!(vlan(&tagged(0x8100, 0xe000, &frame)), None, "a priority tag names no VLAN");
        let twice = tagged(0x88a8, 7, &tagged(0x8100, 42, &frame));
        assert!(!activates(strategies(ALL), &twice));
    }
}

#[test]
fn truncated_frames_are_nothing() {
    for (kind, frame) in activating() {
        let tagged = tagged(0x8100, 42, &frame);
        for whole in [&frame, &tagged] {
            // Of a reverse ARP the EtherType is enough.
            let enough = if kind == "rarp" { whole.len() - 28 } else { whole.len() };
            for length in 0..enough {
                assert!(!activates(strategies(ALL), &whole[..length]), "{length} bytes of {kind}");
            }
        }
        assert_eq!((vlan(&tagged[..15]), vlan(&tagged[..16])), (None, Some(42)));
    }
}

#[test]
fn lists_are_read_with_their_spaces_and_strange_words_are_told() {
    assert_eq!(strategies("").to_string(), "");
    assert!(strategies(" , ").is_empty());
    assert_eq!(strategies("na, rarp").to_string(), "rarp,na");
    let (some, unknown) = Strategies::parse("rarp,RARP,dhcp");
    assert_eq!((some.to_string().as_str(), unknown), ("rarp", vec!["RARP", "dhcp"]));
    assert_eq!(strategies("garp").union(strategies("na")).to_string(), "garp,na");
}

#[test]
fn the_list_of_active_chassis_keeps_the_others_and_other_options() {
    let options = |list: Option<&str>| -> BTreeMap<String, String> {
        let list = list.map(|list| (ACTIVATED_KEY.to_owned(), list.to_owned()));
        list.into_iter().chain([("mtu".to_owned(), "1400".to_owned())]).collect()
    };
    assert_eq!(with_activated(&options(None), "hv2", true), options(Some("hv2")));
    assert_eq!(with_activated(&options(Some("hv3")), "hv2", true), options(Some("hv3,hv2")));
    assert_eq!(with_activated(&options(Some("hv2,hv3")), "hv2", true), options(Some("hv3,hv2")));
    assert_eq!(with_activated(&options(Some("hv2,hv3")), "hv2", false), options(Some("hv3")));
    assert_eq!(with_activated(&options(Some("hv2")), "hv2", false), options(None));
    assert!(is_activated(&options(Some("hv3, hv2")), "hv2") && !is_activated(&options(Some("hv22")), "hv2"));
}
