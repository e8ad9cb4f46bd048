//! One packet, judged.

use crate::cloud::Cloud;
use crate::microflow;
use crate::southbound::{PortRow, Southbound};
use crate::trace::{Trace, Traced};
use anyhow::{Context as _, Result};
use oxbow_pipeline::compile::{Element, FlowRow};
use oxbow_pipeline::ir::{Field, PortKind};
use oxbow_pipeline::reference::{Fields, Outcome, Reason, parse};
use std::fmt;

/// A port, and the frame that should come or came out of it, as fields.
type Seen = (String, Fields);

/// What the judge says.
#[derive(Debug)]
pub enum Verdict {
    /// The same ports got the same packets: how many.
    Agreed(usize),
    /// ovn-trace cannot judge this packet, and why.
    Abstained(&'static str),
    /// They differ.
    Disagreed(Box<Disagreement>),
}

/// What differs.
#[derive(Debug)]
pub struct Disagreement {
    /// Who sent it.
    pub sender: String,
    /// The frame.
    pub frame: Vec<u8>,
    /// The same for ovn-trace.
    pub microflow: String,
    /// What ovn-trace delivers.
    pub expected: Vec<Seen>,
    /// What the reference delivers.
    pub actual: Vec<Seen>,
    /// Whether it is the simplified program that differs from the one without simplification.
    pub simplification: bool,
    /// Outcomes, and ovn-trace's detailed output.
    pub details: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "port {} sends", self.sender)?;
        for byte in &self.frame {
            write!(f, "{byte:02x}")?;
        }
        writeln!(f, "\n{}", self.microflow)?;
        if self.simplification {
            writeln!(f, "the simplified program differs from the one without simplification")?;
        }
        for (title, list) in [("expected", &self.expected), ("actual", &self.actual)] {
            writeln!(f, "{title}:")?;
            for (port, fields) in list {
                writeln!(f, "  {}", microflow::text(port, fields))?;
            }
        }
        f.write_str(&self.details)
    }
}

/// Sends a frame from a port on a hypervisor, and asks ovn-trace.
///
/// # Errors
/// When ovn-trace fails, or the frame is no Ethernet frame.
pub fn judge(
    south: &Southbound,
    cloud: &Cloud,
    trace: &mut Trace,
    sender: &PortRow,
    hypervisor: usize,
    frame: &[u8],
) -> Result<Verdict> {
    let name = sender.port.name.to_string();
    let (fields, _) = parse(frame)?;
    let from = (sender.port.datapath, sender.port.key);
    let (deliveries, outcomes) = cloud.send(hypervisor, from, frame, false)?;
    let (raw, _) = cloud.send(hypervisor, from, frame, true)?;
    let microflow = microflow::text(&name, &fields);
    let info = south.datapaths.get(&sender.port.datapath).context("a port without datapath")?;
    let mut actual = Vec::new();
    for delivery in &deliveries {
        let row = south.ports.get(&*delivery.port).context("delivered to an unknown port")?;
        let mut inner = delivery.frame.clone();
        if row.parent.is_some() {
            // The tag that the device sees is not the logical port's.
            inner.drain(12..16);
        }
        actual.push((delivery.port.to_string(), parse(&inner)?.0));
    }
    actual.sort_by_key(|(port, _)| port.clone());
    let simplification = deliveries != raw;
    if !simplification && let Some(why) = abstains(south, sender, &fields, &outcomes) {
        return Ok(Verdict::Abstained(why));
    }
    let traced = trace.trace(&info.name, &microflow)?;
    let mut expected = Vec::new();
    for packet in traced {
        let row = south.ports.get(&packet.port).context("ovn-trace delivers to an unknown port")?;
        if comes_out(sender, row, hypervisor, cloud) {
            expected.push((packet.port.clone(), edited(&fields, &packet)));
        }
    }
    expected.sort_by_key(|(port, _)| port.clone());
    if expected == actual && !simplification {
        return Ok(Verdict::Agreed(actual.len()));
    }
    let details = format!("{outcomes:#?}\n{}", trace.detailed(&info.name, &microflow)?);
    let frame = frame.to_vec();
    let found = Disagreement { sender: name, frame, microflow, expected, actual, simplification, details };
    Ok(Verdict::Disagreed(Box::new(found)))
}

/// What ovn-trace leaves out: it knows only the logical network.
fn comes_out(sender: &PortRow, receiver: &PortRow, hypervisor: usize, cloud: &Cloud) -> bool {
    // Physical networks are not served yet.
    if !receiver.port.kind.is_served() {
        return false;
    }
    // A nested port without its parent is nowhere.
    if receiver.port.kind == PortKind::Vif && cloud.place(&receiver.port.name).is_none() {
        return false;
    }
    // What a localport sends stays on its hypervisor.
    let local = cloud.place(&receiver.port.name).is_none_or(|there| there == hypervisor);
    sender.port.kind != PortKind::Localport || local
}

/// Packets about which ovn-trace 23.03 is known to be wrong or to know nothing.
fn abstains(south: &Southbound, sender: &PortRow, fields: &Fields, outcomes: &[Outcome]) -> Option<&'static str> {
    let unsupported = |outcome: &Outcome| outcome.drops.iter().any(|drop| drop.reason == Reason::UnsupportedAction);
    if outcomes.iter().any(unsupported) {
        return Some("the packet needs an action that is not supported yet (reported as a problem)");
    }
    let tos = fields.get(Field::IpDscp) != 0 || fields.get(Field::IpEcn) != 0;
    let looked_at = |flow: &FlowRow| flow.matches.contains("ip.dscp") || flow.matches.contains("ip.ecn");
    if tos && south.flows.iter().any(|flow| flow.datapaths.contains(&sender.port.datapath) && looked_at(flow)) {
        return Some("ovn-trace takes the traffic class of every microflow for zero");
    }
    let learned = outcomes.iter().any(|outcome| !outcome.learned.is_empty());
    if learned && fields.get(Field::EthSrc) == fields.get(Field::EthDst) {
        return Some("ovn-trace does not learn addresses, so it does not know the sender's own");
    }
    // What applies to the packet, at its sender and at receivers.
    let with = |port: &PortRow, field| -> Vec<(Element, bool)> {
        let texts = port.port.port_security.iter();
        let elements = texts.filter_map(|text| Some((text.parse::<Element>().ok()?, text.contains(','))));
        elements.filter(|(element, _)| u128::from(element.mac.0) == fields.get(field)).collect()
    };
    let own = with(sender, Field::EthSrc);
    let here = south.ports.values().filter(|port| port.port.datapath == sender.port.datapath);
    let theirs: Vec<(Element, bool)> = here.flat_map(|port| with(port, Field::EthDst)).collect();
    let v6 = fields.get(Field::EthType) == 0x86dd;
    let v4 = matches!(fields.get(Field::EthType), 0x0800 | 0x0806);
    let dropped = |outcome: &Outcome| outcome.drops.iter().any(|drop| drop.reason == Reason::LogicalFlow);
    if (v4 || v6) && outcomes.iter().any(dropped) && own.iter().chain(&theirs).any(|(_, commas)| *commas) {
        return Some("ovn-trace reads no addresses behind commas in port security, so it restricts none");
    }
    let unmarked =
        |list: Vec<(Element, bool)>| -> Vec<Element> { list.into_iter().map(|(element, _)| element).collect() };
    let (own, theirs) = (unmarked(own), unmarked(theirs));
    let subnet = |element: &Element| v4 && subnet4(element) || v6 && subnet6(element);
    let broadcasts = |element: &Element| v4 && is_broadcast(element, fields.get(Field::Ip4Dst));
    if own.iter().chain(&theirs).any(subnet) || theirs.iter().any(broadcasts) {
        return Some("ovn-trace knows no subnets and their broadcast addresses in port security (ovn-nb(5) does)");
    }
    if !own.is_empty() && fields.get(Field::EthType) == 0x86dd && fields.get(Field::Ip6Src) == 0 {
        return Some(
            "ovn-trace does not let through all that a host sends from the unspecified address while it joins",
        );
    }
    if own.iter().any(|e| v6 && e.ip6.is_empty() && !e.ip4.is_empty() || v4 && e.ip4.is_empty() && !e.ip6.is_empty()) {
        return Some("ovn-trace lets an element with addresses of one family only send the other (ovn-nb(5) does not)");
    }
    let discovery = v6 && fields.get(Field::IpProto) == 58 && matches!(fields.get(Field::Icmp6Type), 135 | 136);
    if discovery && fields.get(Field::IpTtl) != 255 && !own.is_empty() {
        return Some("ovn-trace takes packets for neighbor discovery that have another hop limit than 255");
    }
    if discovery && own.iter().any(|element| element.ip4.is_empty() && element.ip6.is_empty()) {
        return Some("ovn-trace does not restrict neighbor discovery of an element without addresses (ovn-nb(5) does)");
    }
    None
}

/// Whether an element has IPv4 subnets: addresses whose host part is zero.
fn subnet4(element: &Element) -> bool {
    element.ip4.iter().any(|(ip, length)| *length < 32 && u32::from(*ip).trailing_zeros() >= 32 - u32::from(*length))
}

/// The same of IPv6.
fn subnet6(element: &Element) -> bool {
    element.ip6.iter().any(|(ip, length)| *length < 128 && u128::from(*ip).trailing_zeros() >= 128 - u32::from(*length))
}

/// Whether this is the broadcast address of a subnet of which an element has an address.
fn is_broadcast(element: &Element, address: u128) -> bool {
    let host = |length: u8| u32::MAX.checked_shr(length.into()).unwrap_or(0);
    element.ip4.iter().any(|(ip, length)| *length < 32 && u128::from(u32::from(*ip) | host(*length)) == address)
}

/// The packet as ovn-trace says it is delivered.
fn edited(fields: &Fields, traced: &Traced) -> Fields {
    let mut result = if traced.answer { answer(fields) } else { fields.clone() };
    for (field, value) in &traced.edits {
        result.set(*field, *value);
    }
    result
}

/// A neighbor advertisement before its flow's own assignments (ovn-sb(5), `nd_na`). To a solicitation from the unspecified address the answer goes
/// to all nodes (RFC 4861, section 7.2.4), which ovn-trace does not do.
fn answer(fields: &Fields) -> Fields {
    let get = |field| fields.get(field);
    let all_nodes = 0xff02 << 112 | 1;
    let mut result = Fields::default();
    for (field, value) in [
        (Field::EthDst, get(Field::EthSrc)),
        (Field::EthSrc, get(Field::EthDst)),
        (Field::VlanTci, get(Field::VlanTci)),
        (Field::EthType, 0x86dd),
        (Field::IpProto, 58),
        (Field::IpTtl, 255),
        (Field::Ip6Src, get(Field::NdTarget)),
        (Field::Ip6Dst, if get(Field::Ip6Src) == 0 { all_nodes } else { get(Field::Ip6Src) }),
        (Field::Icmp6Type, 136),
        (Field::NdTarget, get(Field::NdTarget)),
        (Field::NdTll, get(Field::EthDst)),
    ] {
        result.set(field, value);
    }
    result
}
