//! From actions as written to actions of the IR.

use crate::ir::{Act, Cause, Direction, Field, Punt, Slice};
use oxbow_lflow::action::{Action, NestKind, ResultKind};
use oxbow_lflow::constant::Constant;
use oxbow_lflow::expr::FieldRef;
use std::sync::Arc;

/// What became of an action list.
pub(crate) struct Lowered {
    /// The list; a drop when `unsupported` says why.
    pub(crate) acts: Arc<[Act]>,
    /// The first action that cannot be carried out yet.
    pub(crate) unsupported: Option<String>,
    /// Side effects that are not carried out.
    pub(crate) ignored: Vec<&'static str>,
}

/// Translates a list. `name` finds the key of a port or group and is told every name, 0 standing for one that does not exist (as in OVN, the
/// port is then "none").
pub(crate) fn lower(actions: &[Action], name: &mut dyn FnMut(&str) -> u32) -> Lowered {
    let mut lowering = Lowering { name, ignored: Vec::new() };
    let drop = |cause| Arc::from(vec![Act::Drop(cause)]);
    let (acts, unsupported) = match lowering.list(actions) {
        Ok(acts) if acts.is_empty() => (drop(Cause::LogicalFlow), None),
        Ok(acts) => (acts.into(), None),
        Err(Unsupported(what)) => (drop(Cause::Unsupported), Some(what)),
    };
    Lowered { acts, unsupported, ignored: lowering.ignored }
}

/// Whether a list can do nothing but let packets pass: leaving such a flow out can only lose packets. Anything that writes what later tables may
/// look at (registers, flags) can decide about dropping.
pub(crate) fn only_passes(acts: &[Act]) -> bool {
    let passes = acts.iter().any(|act| matches!(act, Act::Next { .. } | Act::Output | Act::NdNa { .. }));
    passes
        && acts.iter().all(|act| match act {
            Act::Set { dst, .. } | Act::Move { dst, .. } => !super::reach::is_tracked(dst.field),
            Act::Next { .. } | Act::Output | Act::PutFdb { .. } | Act::GetFdb { .. } | Act::DecTtl => true,
            // The answer is a packet of its own; what it sets does not stay.
            Act::NdNa { .. } => true,
            Act::Exchange { .. }
            | Act::Drop(_)
            | Act::Clone(_)
            | Act::CheckPortSecurity { .. }
            | Act::LookupFdb { .. }
            | Act::Punt(_) => false,
        })
}

struct Unsupported(String);

struct Lowering<'a> {
    name: &'a mut dyn FnMut(&str) -> u32,
    ignored: Vec<&'static str>,
}

fn slice(field: &FieldRef) -> Result<Slice, Unsupported> {
    match field.symbol.field() {
        Some(Field::InPortKey) => Ok(Slice { field: Field::InPort, offset: field.base_offset() }),
        Some(Field::OutPortKey) => Ok(Slice { field: Field::OutPort, offset: field.base_offset() }),
        Some(target) => Ok(Slice { field: target, offset: field.base_offset() }),
        None => Err(Unsupported(format!("{} is not a field", field.symbol.name()))),
    }
}

fn whole(field: &FieldRef) -> Result<Field, Unsupported> {
    slice(field).map(|slice| slice.field)
}

/// Number of bits that a reference covers, names counting as their keys.
fn bits(field: &FieldRef) -> u8 {
    if field.is_string() { 32 } else { field.width }
}

impl Lowering<'_> {
    fn list(&mut self, actions: &[Action]) -> Result<Vec<Act>, Unsupported> {
        let mut acts = Vec::with_capacity(actions.len());
        for (i, action) in actions.iter().enumerate() {
            self.action(action, &mut acts)?;
            let terminal = matches!(acts.last(), Some(Act::Next { .. } | Act::Punt(_)));
            if terminal && i + 1 < actions.len() {
                return Err(Unsupported("actions after \"next\"".to_owned()));
            }
        }
        Ok(acts)
    }

    fn action(&mut self, action: &Action, acts: &mut Vec<Act>) -> Result<(), Unsupported> {
        match action {
            Action::Output => acts.push(Act::Output),
            Action::Next { to, .. } => acts.push(Act::Next { pipeline: to.pipeline, stage: to.table }),
            Action::Load { dst, value } => self.load(dst, value, acts)?,
            Action::Move { dst, src } => {
                acts.push(Act::Move { dst: slice(dst)?, src: slice(src)?, width: bits(dst) });
            }
            Action::Exchange { left, right } => {
                acts.push(Act::Exchange { a: slice(left)?, b: slice(right)?, width: bits(left) });
            }
            Action::DecTtl => acts.push(Act::DecTtl),
            Action::CtClear => {
                // Conntrack is not there yet, but a packet that was never tracked is easily untracked.
                for field in [Field::CtState, Field::CtMark, Field::CtLabel] {
                    acts.push(Act::Set { dst: Slice { field, offset: 0 }, width: crate::ir::width(field), value: 0 });
                }
            }
            Action::Nested { kind: NestKind::Clone, actions } => acts.push(Act::Clone(self.list(actions)?.into())),
            Action::Nested { kind: kind @ (NestKind::NdNa | NestKind::NdNaRouter), actions } => {
                let nested = self.list(actions)?;
                acts.push(Act::NdNa { router: *kind == NestKind::NdNaRouter, acts: nested.into() });
            }
            Action::Result { kind: kind @ (ResultKind::CheckInPortSec | ResultKind::CheckOutPortSec), dst } => {
                let direction = if *kind == ResultKind::CheckInPortSec { Direction::In } else { Direction::Out };
                acts.push(Act::CheckPortSecurity { direction, dst: slice(dst)? });
            }
            Action::PutFdb { port, mac } => acts.push(Act::PutFdb { port: whole(port)?, mac: whole(mac)? }),
            Action::GetFdb { dst, mac } => acts.push(Act::GetFdb { dst: whole(dst)?, mac: whole(mac)? }),
            Action::LookupFdb { dst, port, mac } => {
                acts.push(Act::LookupFdb { dst: slice(dst)?, port: whole(port)?, mac: whole(mac)? });
            }
            Action::HandleSvcCheck(_) => acts.push(Act::Punt(Punt::ServiceCheck)),
            Action::Log(_) => self.ignored.push("log"),
            Action::Sample(_) => self.ignored.push("sample"),
            Action::SetMeter { .. } => self.ignored.push("set_meter"),
            Action::SetQueue(_) => self.ignored.push("set_queue"),
            Action::MacCacheUse => {}
            other => return Err(Unsupported(format!("action {} is not supported", action_name(other)))),
        }
        Ok(())
    }

    fn load(&mut self, dst: &FieldRef, value: &Constant, acts: &mut Vec<Act>) -> Result<(), Unsupported> {
        let target = slice(dst)?;
        match value {
            Constant::String(port) => {
                let key = (self.name)(port);
                acts.push(Act::Set { dst: target, width: 32, value: u128::from(key) });
            }
            Constant::Integer(integer) if !integer.masked => {
                acts.push(Act::Set { dst: target, width: bits(dst), value: integer.value });
            }
            Constant::Integer(integer) => {
                // Runs of ones in the mask.
                let (mut at, mut mask) = (0, integer.mask);
                while mask != 0 {
                    let skip = mask.trailing_zeros();
                    mask >>= skip;
                    at += skip;
                    let run = mask.trailing_ones();
                    acts.push(Act::Set {
                        dst: Slice { field: target.field, offset: target.offset + at as u8 },
                        width: run as u8,
                        value: (integer.value >> at) & super::reach::ones(run as u8),
                    });
                    mask = mask.checked_shr(run).unwrap_or(0);
                    at += run;
                }
            }
            Constant::AddressSet(_) | Constant::PortGroup(_) => {
                return Err(Unsupported("assignment of a set".to_owned()));
            }
        }
        Ok(())
    }
}

fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Push(_) => "push",
        Action::Pop(_) => "pop",
        Action::CtNext(_) => "ct_next",
        Action::CtCommit(_) | Action::CtCommitV1 { .. } => "ct_commit",
        Action::CtCommitToZone(_) => "ct_commit_to_zone",
        Action::CtCommitNat(_) => "ct_commit_nat",
        Action::CtNat { .. } => "ct_dnat or ct_snat",
        Action::CtLb(_) => "ct_lb",
        Action::CtSnatToVip => "ct_snat_to_vip",
        Action::Select(_) => "select",
        Action::Nested { kind, .. } => kind.name(),
        Action::GetArp { .. } => "get_arp",
        Action::PutArp { .. } => "put_arp",
        Action::LookupArp { .. } => "lookup_arp",
        Action::LookupArpIp { .. } => "lookup_arp_ip",
        Action::GetNd { .. } => "get_nd",
        Action::PutNd { .. } => "put_nd",
        Action::LookupNd { .. } => "lookup_nd",
        Action::LookupNdIp { .. } => "lookup_nd_ip",
        Action::PutOpts { kind, .. } => kind.name(),
        Action::DhcpRelayReqChk { .. } => "dhcp_relay_req_chk",
        Action::DhcpRelayRespChk { .. } => "dhcp_relay_resp_chk",
        Action::CheckPktLarger { .. } => "check_pkt_larger",
        Action::TriggerEvent { .. } => "trigger_event",
        Action::BindVport { .. } => "bind_vport",
        Action::FwdGroup { .. } => "fwd_group",
        Action::HandleDhcpv6Reply => "handle_dhcpv6_reply",
        Action::HandleBfdMsg => "handle_bfd_msg",
        Action::Igmp => "igmp",
        Action::Result { kind, .. } => kind.name(),
        Action::GetRemoteFdb { .. } => "get_remote_fdb",
        Action::CommitEcmpNh { .. } => "commit_ecmp_nh",
        Action::CommitLbAff(_) => "commit_lb_aff",
        Action::FloodRemote => "flood_remote",
        Action::Mirror(_) => "mirror",
        Action::Output
        | Action::Next { .. }
        | Action::Load { .. }
        | Action::Move { .. }
        | Action::Exchange { .. }
        | Action::DecTtl
        | Action::CtClear
        | Action::PutFdb { .. }
        | Action::GetFdb { .. }
        | Action::LookupFdb { .. }
        | Action::HandleSvcCheck(_)
        | Action::Log(_)
        | Action::Sample(_)
        | Action::SetMeter { .. }
        | Action::SetQueue(_)
        | Action::MacCacheUse => "of a supported kind",
    }
}
