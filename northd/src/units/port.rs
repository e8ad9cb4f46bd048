//! A logical switch port's configuration, parsed once for all units that need it.

use oxbow_incr::Cx;
use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::nb::logical_switch_port as lsp;

use crate::address::{DynamicRequest, Mac, PortAddresses};
use crate::program::{Compiler, Output};
use crate::source::{AllocatedAddresses, AllocatedNumber, Allocation, Cell, IndexKey, Members};

/// The type of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortType {
    Vif,
    Router,
    Localnet,
    Localport,
    L2Gateway,
    Vtep,
    External,
    Virtual,
    Remote,
    /// A type that this version does not know: treated as a VIF, as ovn-northd does.
    Other,
}

impl PortType {
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "" => Self::Vif,
            "router" => Self::Router,
            "localnet" => Self::Localnet,
            "localport" => Self::Localport,
            "l2gateway" => Self::L2Gateway,
            "vtep" => Self::Vtep,
            "external" => Self::External,
            "virtual" => Self::Virtual,
            "remote" => Self::Remote,
            _ => Self::Other,
        }
    }
}

/// A port.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Port {
    pub(crate) switch: Uuid,
    pub(crate) name: Text,
    /// The name as flows quote it.
    pub(crate) quoted: String,
    pub(crate) kind: PortType,
    pub(crate) enabled: bool,
    /// `unknown` is among the addresses.
    pub(crate) unknown: bool,
    /// The addresses known, dynamic ones included, in the order of the column.
    pub(crate) addresses: Vec<PortAddresses>,
    /// The Ethernet addresses to deliver to the port.
    pub(crate) macs: Vec<Mac>,
    /// Some element of `port_security` is an address.
    pub(crate) port_security: bool,
}

/// Unit `port`: none while no tunnel key is left for it or for its switch's datapath.
pub(crate) fn port(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(&switch) = cx.read(&Members(IndexKey::SwitchOfPort(key))).first() else { return Output::Empty };
    let Some(name) = cx.read(&Cell(lsp::NAME, key)) else { return Output::Empty };
    let mut has_key = |what, row| cx.read(&AllocatedNumber(what, row)).is_some();
    if !has_key(Allocation::PortKey, key) || !has_key(Allocation::DatapathKey, switch) {
        return Output::Empty;
    }
    let kind = PortType::of(cx.read(&Cell(lsp::TYPE, key)).map_or("", |t| t.as_str()));
    let mut port = Port {
        switch,
        name: name.clone(),
        quoted: quote(name),
        kind,
        enabled: cx.read(&Cell(lsp::ENABLED, key)).flatten() != Some(false),
        unknown: false,
        addresses: Vec::new(),
        macs: Vec::new(),
        port_security: cx
            .read(&Cell(lsp::PORT_SECURITY, key))
            .is_some_and(|set| set.iter().any(|text| PortAddresses::parse(text).is_some())),
    };
    let Some(addresses) = cx.read(&Cell(lsp::ADDRESSES, key)) else { return Output::Empty };
    for element in addresses.iter() {
        if element == "unknown" {
            port.unknown = true;
        } else if element == "router" {
            // Addresses of the router port: none until routers are compiled.
        } else if DynamicRequest::parse(element).is_some() {
            // A given Ethernet address is delivered to even where no IP address is to be had.
            port.macs.extend(Mac::parse_prefix(element).map(|(mac, _)| mac));
            if let Some(known) = cx.read(&AllocatedAddresses(key)).and_then(|text| PortAddresses::parse(text)) {
                port.macs.push(known.mac);
                port.addresses.push(known);
            }
        } else if let Some(known) = PortAddresses::parse(element) {
            port.macs.push(known.mac);
            port.addresses.push(known);
        }
    }
    Output::Port(Box::new(port))
}

/// A string as matches and actions quote it (JSON).
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
