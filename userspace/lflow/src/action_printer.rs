//! Actions as text, in OVN's canonical spelling where OVN prints them; the text parses back to equal actions.

use crate::action::{
    Action, Actions, Backend, LbAffinity, LbFlag, LoadBalance, Log, NatZone, ObsPoint, OptionValue, Sample, Select,
};
use crate::quoted::Quoted;
use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

impl Display for Actions {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        list(&self.actions, f)
    }
}

/// An empty list prints as `drop;`, as it is written.
fn list(actions: &[Action], f: &mut Formatter<'_>) -> fmt::Result {
    if actions.is_empty() {
        return f.write_str("drop;");
    }
    separated(actions, " ", f)
}

fn separated<T: Display>(items: &[T], separator: &str, f: &mut Formatter<'_>) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(separator)?;
        }
        Display::fmt(item, f)?;
    }
    Ok(())
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Action::Output => f.write_str("output;"),
            Action::Next { from, to } if from.pipeline != to.pipeline => {
                write!(f, "next(pipeline={}, table={});", to.pipeline.as_str(), to.table)
            }
            Action::Next { from, to } if u16::from(to.table) != u16::from(from.table) + 1 => {
                write!(f, "next({});", to.table)
            }
            Action::Next { .. } => f.write_str("next;"),
            Action::Load { dst, value } => write!(f, "{dst} = {value};"),
            Action::Move { dst, src } => write!(f, "{dst} = {src};"),
            Action::Exchange { left, right } => write!(f, "{left} <-> {right};"),
            Action::Push(field) => write!(f, "push({field});"),
            Action::Pop(field) => write!(f, "pop({field});"),
            Action::DecTtl => f.write_str("ip.ttl--;"),
            Action::CtNext(zone) => write!(f, "ct_next{};", zone_argument(*zone)),
            Action::CtCommit(actions) if actions.is_empty() => f.write_str("ct_commit;"),
            Action::CtCommit(actions) => nested("ct_commit", actions, f),
            Action::CtCommitV1 { mark, label } => ct_commit_v1(*mark, *label, f),
            Action::CtCommitToZone(NatZone::Dnat) => f.write_str("ct_commit_to_zone(dnat);"),
            Action::CtCommitToZone(NatZone::Snat) => f.write_str("ct_commit_to_zone(snat);"),
            Action::CtCommitNat(zone) => write!(f, "ct_commit_nat{};", zone_argument(*zone)),
            Action::CtNat { kind, target: None } => write!(f, "{};", kind.name()),
            Action::CtNat { kind, target: Some(target) } => {
                write!(f, "{}({}", kind.name(), target.address)?;
                match target.ports {
                    None => {}
                    Some((low, None)) => write!(f, ",{low}")?,
                    Some((low, Some(high))) => write!(f, ",{low}-{high}")?,
                }
                f.write_str(");")
            }
            Action::CtLb(lb) => Display::fmt(lb, f),
            Action::Select(select) => Display::fmt(select, f),
            Action::CtClear => f.write_str("ct_clear;"),
            Action::CtSnatToVip => f.write_str("ct_snat_to_vip;"),
            Action::Nested { kind, actions } => nested(kind.name(), actions, f),
            Action::GetArp { port, ip } => write!(f, "get_arp({port}, {ip});"),
            Action::PutArp { port, ip, mac } => write!(f, "put_arp({port}, {ip}, {mac});"),
            Action::LookupArp { dst, port, ip, mac } => write!(f, "{dst} = lookup_arp({port}, {ip}, {mac});"),
            Action::LookupArpIp { dst, port, ip } => write!(f, "{dst} = lookup_arp_ip({port}, {ip});"),
            Action::GetNd { port, ip } => write!(f, "get_nd({port}, {ip});"),
            Action::PutNd { port, ip, mac } => write!(f, "put_nd({port}, {ip}, {mac});"),
            Action::LookupNd { dst, port, ip, mac } => write!(f, "{dst} = lookup_nd({port}, {ip}, {mac});"),
            Action::LookupNdIp { dst, port, ip } => write!(f, "{dst} = lookup_nd_ip({port}, {ip});"),
            Action::PutOpts { kind, dst, options } => {
                write!(f, "{dst} = {}(", kind.name())?;
                separated(options, ", ", f)?;
                f.write_str(");")
            }
            Action::DhcpRelayReqChk { dst, relay, server } => {
                write!(f, "{dst} = dhcp_relay_req_chk({relay}, {server});")
            }
            Action::DhcpRelayRespChk { dst, relay, server } => {
                write!(f, "{dst} = dhcp_relay_resp_chk({relay}, {server});")
            }
            Action::SetQueue(id) => write!(f, "set_queue({id});"),
            Action::Log(log) => Display::fmt(log, f),
            Action::SetMeter { rate, burst: 0 } => write!(f, "set_meter({rate});"),
            Action::SetMeter { rate, burst } => write!(f, "set_meter({rate}, {burst});"),
            Action::CheckPktLarger { dst, length } => write!(f, "{dst} = check_pkt_larger({length});"),
            Action::TriggerEvent { event, options } => {
                write!(f, "trigger_event(event = \"{}\"", event.name())?;
                options.iter().try_for_each(|option| write!(f, ", {option}"))?;
                f.write_str(");")
            }
            Action::BindVport { vport, parent } => write!(f, "bind_vport({}, {parent});", Quoted(vport)),
            Action::HandleSvcCheck(port) => write!(f, "handle_svc_check({port});"),
            Action::FwdGroup { liveness, child_ports } => fwd_group(*liveness, child_ports, f),
            Action::HandleDhcpv6Reply => f.write_str("handle_dhcpv6_reply;"),
            Action::HandleBfdMsg => f.write_str("handle_bfd_msg();"),
            Action::Igmp => f.write_str("igmp;"),
            Action::Result { kind, dst } => write!(f, "{dst} = {}();", kind.name()),
            Action::PutFdb { port, mac } => write!(f, "put_fdb({port}, {mac});"),
            Action::GetFdb { dst, mac } => write!(f, "{dst} = get_fdb({mac});"),
            Action::GetRemoteFdb { dst, mac } => write!(f, "{dst} = get_remote_fdb({mac});"),
            Action::LookupFdb { dst, port, mac } => write!(f, "{dst} = lookup_fdb({port}, {mac});"),
            Action::CommitEcmpNh { ipv6, proto } => {
                write!(f, "commit_ecmp_nh(ipv6 = {ipv6}, proto = {});", proto.name())
            }
            Action::CommitLbAff(affinity) => Display::fmt(affinity, f),
            Action::Sample(sample) => Display::fmt(sample, f),
            Action::MacCacheUse => f.write_str("mac_cache_use;"),
            Action::FloodRemote => f.write_str("flood_remote;"),
            Action::Mirror(port) => write!(f, "mirror({});", Quoted(port)),
        }
    }
}

fn nested(name: &str, actions: &[Action], f: &mut Formatter<'_>) -> fmt::Result {
    write!(f, "{name} {{ ")?;
    list(actions, f)?;
    f.write_str(" };")
}

fn zone_argument(zone: NatZone) -> &'static str {
    match zone {
        NatZone::Dnat => "",
        NatZone::Snat => "(snat)",
    }
}

fn ct_commit_v1(mark: Option<(u32, u32)>, label: Option<(u128, u128)>, f: &mut Formatter<'_>) -> fmt::Result {
    f.write_str("ct_commit(")?;
    if let Some((value, mask)) = mark {
        write!(f, "ct_mark={value:#x}")?;
        if mask != u32::MAX {
            write!(f, "/{mask:#x}")?;
        }
    }
    if let Some((value, mask)) = label {
        let separator = if mark.is_some() { ", " } else { "" };
        write!(f, "{separator}ct_label={value:#x}")?;
        if mask != u128::MAX {
            write!(f, "/{mask:#x}")?;
        }
    }
    f.write_str(");")
}

fn fwd_group(liveness: bool, child_ports: &[Box<str>], f: &mut Formatter<'_>) -> fmt::Result {
    if child_ports.is_empty() && !liveness {
        return f.write_str("fwd_group;");
    }
    f.write_str("fwd_group(")?;
    if liveness {
        f.write_str("liveness=\"true\", ")?;
    }
    f.write_str("childports=")?;
    for (i, port) in child_ports.iter().enumerate() {
        write!(f, "{}{}", if i > 0 { ", " } else { "" }, Quoted(port))?;
    }
    f.write_str(");")
}

impl Display for LoadBalance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if !self.backends.is_empty() || self.hash_fields.is_some() || self.flag.is_some() {
            f.write_str("(backends=")?;
            separated(&self.backends, ",", f)?;
            if let Some(fields) = &self.hash_fields {
                write!(f, "; hash_fields={}", Quoted(fields))?;
            }
            match self.flag {
                None => {}
                Some(LbFlag::SkipSnat) => f.write_str("; skip_snat")?,
                Some(LbFlag::ForceSnat) => f.write_str("; force_snat")?,
            }
            f.write_str(")")?;
        }
        f.write_str(";")
    }
}

impl Display for Backend {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(port) = &self.logical_port {
            write!(f, "{}:", Quoted(port))?;
        }
        endpoint(&self.address, self.port, f)
    }
}

/// An address, with its port unless that is 0.
fn endpoint(address: &IpAddr, port: u16, f: &mut Formatter<'_>) -> fmt::Result {
    match (address, port) {
        (_, 0) => write!(f, "{address}"),
        (IpAddr::V4(_), _) => write!(f, "{address}:{port}"),
        (IpAddr::V6(_), _) => write!(f, "[{address}]:{port}"),
    }
}

impl Display for Select {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = select(", self.dst)?;
        if self.hash_fields.is_some() {
            f.write_str("values=(")?;
        }
        for (i, (id, weight)) in self.members.iter().enumerate() {
            write!(f, "{}{id}={weight}", if i > 0 { ", " } else { "" })?;
        }
        if let Some(fields) = &self.hash_fields {
            write!(f, "); hash_fields={}", Quoted(fields))?;
        }
        f.write_str(");")
    }
}

impl Display for OptionValue {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.value)
    }
}

impl Display for Log {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("log(")?;
        if let Some(name) = &self.name {
            write!(f, "name={}, ", Quoted(name))?;
        }
        write!(f, "verdict={}, severity={}", self.verdict.name(), self.severity.name())?;
        if let Some(meter) = &self.meter {
            write!(f, ", meter={}", Quoted(meter))?;
        }
        f.write_str(");")
    }
}

impl Display for LbAffinity {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        // IPv6 addresses are bracketed here even without a port.
        let quoted = |address: &IpAddr, port: u16, f: &mut Formatter<'_>| match (address, port) {
            (IpAddr::V6(_), 0) => write!(f, "\"[{address}]\""),
            _ => {
                f.write_str("\"")?;
                endpoint(address, port, f)?;
                f.write_str("\"")
            }
        };
        f.write_str("commit_lb_aff(vip = ")?;
        quoted(&self.vip, self.vip_port, f)?;
        f.write_str(", backend = ")?;
        quoted(&self.backend, self.backend_port, f)?;
        if let Some(proto) = self.proto {
            write!(f, ", proto = {}", proto.name())?;
        }
        write!(f, ", timeout = {});", self.timeout)
    }
}

impl Display for Sample {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sample(probability={},collector_set={},obs_domain={},obs_point=",
            self.probability, self.collector_set, self.obs_domain
        )?;
        match self.obs_point {
            ObsPoint::Id(id) => write!(f, "{id}")?,
            ObsPoint::Cookie => f.write_str("$cookie")?,
            ObsPoint::Field(field) => write!(f, "{field}")?,
        }
        f.write_str(");")
    }
}
