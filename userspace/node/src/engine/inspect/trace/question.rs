//! What is asked: a port's packet as a microflow or as a frame.

use crate::packet::{compose, mac_text};
use oxbow_lflow::context::{MatchContext, Nothing};
use oxbow_lflow::microflow::{Microflow, parse_microflow};
use oxbow_lflow::vocabulary::Vocabulary;
use oxbow_pipeline::compile::Element;
use oxbow_pipeline::ir::{Field, LogicalPort};

/// What stands before a frame in hexadecimal.
const FRAME: &str = "frame:";
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// The frame that is asked about.
///
/// # Errors
/// What of the text is wrong, and how it should look.
pub(super) fn frame(text: &str, port: &LogicalPort) -> Result<Vec<u8>, String> {
    match text.trim().strip_prefix(FRAME) {
        Some(digits) => from_digits(digits),
        None => compose(&read_packet(text, port)?).map_err(|error| format!("{text}: {error}")),
    }
}

fn from_digits(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace() && *c != ':').collect();
    let wrong = digits.iter().enumerate().find(|(_, c)| !c.is_ascii_hexdigit());
    if let Some((at, c)) = wrong {
        return Err(format!("{FRAME}: '{c}', character {} of the frame, is no hexadecimal digit", at + 1));
    }
    if !digits.len().is_multiple_of(2) {
        return Err(format!("{FRAME}: {} hexadecimal digits are no whole number of bytes", digits.len()));
    }
    let value = |c: char| c.to_digit(16).unwrap_or_default() as u8;
    let frame: Vec<u8> = digits.chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect();
    if frame.len() < ETHERNET {
        return Err(format!("{FRAME}: {} bytes are no frame: an Ethernet header has {ETHERNET}", frame.len()));
    }
    Ok(frame)
}

/// Reads the microflow; what the port alone decides is filled in.
fn read_packet(text: &str, port: &LogicalPort) -> Result<Microflow, String> {
    let context = MatchContext {
        symbols: Vocabulary::Accepting.table(),
        address_sets: &Nothing,
        port_groups: &Nothing,
        templates: &Nothing,
    };
    let read = |text: &str| parse_microflow(text, &context);
    let packet = read(text).map_err(|error| {
        let at = text.get(error.span.start as usize..error.span.end as usize).filter(|part| !part.is_empty() && *part != text);
        let near = at.map(|part| format!(" near \"{part}\"")).unwrap_or_default();
        format!(
            "{text}: {}{near}: describe one packet, as for ovn-trace(8): `ip4.src == 10.0.0.1 && ip4.dst == 10.0.0.2 && icmp4.type == 8`, \
             or give its bytes: `{FRAME}HEXADECIMAL`",
            error.message
        )
    })?;
    let inport = packet.inport();
    if !inport.is_empty() && *inport != *port.name {
        return Err(format!(
            "the packet says inport == \"{inport}\", and it is to come from \"{}\": say one of them",
            port.name
        ));
    }
    if packet.integers().any(|(field, _)| field == Field::EthSrc) {
        return Ok(packet);
    }
    // A port with port security may send from its own address only, so that is what is meant.
    let own = port.port_security.iter().find_map(|text| text.parse::<Element>().ok());
    match own {
        Some(own) => {
            read(&format!("({text}) && eth.src == {}", mac_text(u128::from(own.mac.0)))).map_err(|error| error.message)
        }
        None => Ok(packet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oxbow_pipeline::ir::{DatapathKey, Location, PortKey, PortKind};

    fn port(security: &[&str]) -> LogicalPort {
        LogicalPort {
            datapath: DatapathKey(1),
            key: PortKey(1),
            name: "vm1".into(),
            kind: PortKind::Vif,
            location: Location::Local { ifindex: 1, tag: None },
            additional: Vec::new(),
            port_security: security.iter().map(|text| (*text).into()).collect(),
        }
    }

    #[test]
    fn a_frame_is_taken_as_it_is() {
        let text = "frame: 02:00:00:00:00:01 020000000002 88b5 00";
        assert_eq!(frame(text, &port(&[])).unwrap(), [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, 0]);
        for (text, says) in [
            ("frame:02x0", "'x', character 3"),
            ("frame:020", "3 hexadecimal digits"),
            ("frame:0200", "2 bytes are no frame"),
        ] {
            let error = frame(text, &port(&[])).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_microflow_is_named() {
        for (text, says) in [
            ("ip4.dst == 10.0.0.2 && nosuch == 1", "nosuch"),
            ("ip", "Constraints are ambiguous"),
            ("ip4 && arp", "Constraints are contradictory"),
            ("ip4.dst == 10.0.0.", "10.0.0."),
            ("inport == \"vm2\" && ip4.dst == 10.0.0.2", "inport == \"vm2\""),
            ("ip4.dst == 10.0.0.2 && reg0 == 1", "xxreg0"),
        ] {
            let error = frame(text, &port(&[])).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_sender_that_is_left_out_is_the_one_that_port_security_allows() {
        let text = "eth.dst == 02:00:00:00:00:02 && eth.type == 0x88b5";
        assert_eq!(frame(text, &port(&["02:00:00:00:00:01 10.0.0.1"])).unwrap()[6..12], [2, 0, 0, 0, 0, 1]);
        assert_eq!(frame(text, &port(&[])).unwrap()[6..12], [0; 6]);
    }
}
