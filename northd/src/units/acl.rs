//! Access control lists: which a switch has, and their flows.

use std::collections::{BTreeMap, BTreeSet};

use oxbow_incr::Cx;
use oxbow_ovsdb::{Text, Uuid};
use oxbow_schema::nb::{acl, logical_switch, port_group};

use crate::profile::Stage::{self, *};
use crate::program::{Compiler, Output, Unit, UnitKind};
use crate::source::{Cell, IndexKey, Members, references};
use crate::units::flow_list::FlowList;
use crate::units::global::{Features, Global};
use crate::units::port::quote;
use crate::units::{hint_of, read_features, read_global, read_switch};

const UNTRACKED: &str = "nd || nd_rs || nd_ra || mldv1 || mldv2 || (udp && udp.src == 546 && udp.dst == 547)";
const REJECT: &str = "/* eth.dst <-> eth.src; ip.dst <-> ip.src; is implicit. */ outport <-> inport;";
/// Added to an ACL's priority, so that flows of northd's own fit below and above.
const PRIORITY_OFFSET: u16 = 1000;

/// The ACLs of a switch: its own and those of the port groups that have ports of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SwitchAcls {
    pub(crate) rows: BTreeSet<Uuid>,
    /// Some ACL is `allow-related`: packets are tracked, and `allow` means the same.
    pub(crate) stateful: bool,
}

/// Unit `switch-acls`.
pub(crate) fn switch_acls(cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let mut rows: BTreeSet<Uuid> = references(cx.read(&Cell(logical_switch::ACLS, key))).into_iter().collect();
    for &group in cx.read(&Members(IndexKey::GroupsOfSwitch(key))) {
        rows.extend(references(cx.read(&Cell(port_group::ACLS, group))));
    }
    let stateful =
        rows.iter().any(|row| cx.read(&Cell(acl::ACTION, *row)).is_some_and(|action| action == "allow-related"));
    Output::SwitchAcls(SwitchAcls { rows, stateful })
}

/// The ACLs of a switch.
pub(crate) fn read_acls(cx: &mut Cx<'_, '_, Compiler>, switch: Uuid) -> SwitchAcls {
    match &*cx.unit(&Unit::new(UnitKind::SwitchAcls, switch)) {
        Output::SwitchAcls(acls) => acls.clone(),
        _ => SwitchAcls::default(),
    }
}

/// What an ACL does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Stateless,
    Drop,
    Reject,
}

/// An ACL.
struct Acl {
    row: Uuid,
    verdict: Verdict,
    ingress: bool,
    after_lb: bool,
    priority: u16,
    matches: Text,
    label: i64,
    /// The action that logs, with a blank after it; empty without logging.
    log: String,
}

impl Acl {
    fn read(cx: &mut Cx<'_, '_, Compiler>, row: Uuid) -> Option<Acl> {
        let verdict = match cx.read(&Cell(acl::ACTION, row))?.as_str() {
            "allow" | "allow-related" => Verdict::Allow,
            "allow-stateless" => Verdict::Stateless,
            "reject" => Verdict::Reject,
            // What is not known must not let anything pass.
            _ => Verdict::Drop,
        };
        let ingress = cx.read(&Cell(acl::DIRECTION, row))? == "from-lport";
        let after_lb = cx.read(&Cell(acl::OPTIONS, row)).is_some_and(|o| o.get_bool("apply-after-lb", false));
        let log =
            if cx.read(&Cell(acl::LOG, row)) == Some(true) { log_action(cx, row, verdict) } else { String::new() };
        Some(Acl {
            row,
            verdict,
            ingress,
            after_lb: ingress && after_lb,
            priority: u16::try_from(cx.read(&Cell(acl::PRIORITY, row))?).ok()?.checked_add(PRIORITY_OFFSET)?,
            matches: cx.read(&Cell(acl::MATCH, row))?.clone(),
            label: cx.read(&Cell(acl::LABEL, row)).unwrap_or(0),
            log,
        })
    }

    fn stage(&self) -> Stage {
        match (self.ingress, self.after_lb) {
            (true, false) => LsInAcl,
            (true, true) => LsInAclAfterLb,
            (false, _) => LsOutAcl,
        }
    }
}

fn log_action(cx: &mut Cx<'_, '_, Compiler>, row: Uuid, verdict: Verdict) -> String {
    let mut words = Vec::new();
    if let Some(name) = cx.read(&Cell(acl::NAME, row)).flatten() {
        words.push(format!("name={}", quote(name)));
    }
    words.push(format!("severity={}", cx.read(&Cell(acl::SEVERITY, row)).flatten().map_or("info", |s| s.as_str())));
    words.push(format!(
        "verdict={}",
        match verdict {
            Verdict::Drop => "drop",
            Verdict::Reject => "reject",
            Verdict::Allow | Verdict::Stateless => "allow",
        }
    ));
    if let Some(meter) = cx.read(&Cell(acl::METER, row)).flatten() {
        words.push(format!("meter={}", quote(meter)));
    }
    format!("log({}); ", words.join(", "))
}

/// Unit `acl-flows`: all flows that ACLs, or their absence, give a switch.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    if read_switch(cx, key).is_none() {
        return Output::Empty;
    }
    let acls = read_acls(cx, key);
    let (global, features) = (read_global(cx), read_features(cx));
    let rows: BTreeMap<Uuid, Acl> =
        acls.rows.iter().filter_map(|row| Acl::read(cx, *row)).map(|acl| (acl.row, acl)).collect();
    let mut flows = FlowList::new(compiler, key, 0);
    if acls.rows.is_empty() {
        // Without ACLs their stages are passed at the highest priority.
        for stage in [LsInAclHint, LsInAcl, LsOutAclHint, LsOutAcl] {
            flows.add(stage, 65535, "1", "next;");
        }
        flows.add(LsInAclAfterLb, 0, "1", "next;");
        return flows.finish();
    }
    let default = if global.default_acl_drop { global.drop.as_str() } else { "next;" };
    for stage in [LsInAclHint, LsOutAclHint] {
        flows.add(stage, 0, "1", "next;");
    }
    for stage in [LsInAcl, LsOutAcl, LsInAclAfterLb] {
        flows.add(stage, 0, "1", default);
    }
    flows.add(LsInAcl, 34000, "eth.dst == $svc_monitor_mac", "next;");
    flows.add(LsOutAcl, 34000, "eth.src == $svc_monitor_mac", "next;");
    if acls.stateful {
        tracking(compiler, &mut flows, &global, &features);
    }
    for acl in rows.values() {
        flows.hint(hint_of(acl.row));
        acl_flows(compiler, &mut flows, acl, acls.stateful, &global, &features);
    }
    flows.finish()
}

fn acl_flows(
    compiler: &Compiler,
    flows: &mut FlowList<'_>,
    acl: &Acl,
    stateful: bool,
    global: &Global,
    features: &Features,
) {
    let (r, hints) = (&compiler.profile.registers, &compiler.profile.registers.acl_hints);
    let Acl { priority, matches, log, .. } = acl;
    let (stage, priority) = (acl.stage(), *priority);
    let hinted = |hint: &str| format!("{hint} == 1 && ({matches})");
    let block = format!("ct_commit {{ {}.blocked = 1; }}; ", features.mark());
    match acl.verdict {
        Verdict::Allow if stateful => {
            let commit = format!("{} = 1; ", r.conntrack_commit);
            let label = match acl.label {
                0 => String::new(),
                label => format!("{} = 1; {} = {label}; ", r.acl_label, r.label),
            };
            flows.add(stage, priority, &hinted(hints.allow_new), &format!("{commit}{label}{log}next;"));
            // The label of a known connection is written again, since it may have changed.
            let again = if label.is_empty() { "" } else { commit.as_str() };
            flows.add(stage, priority, &hinted(hints.allow), &format!("{again}{label}{log}next;"));
        }
        Verdict::Allow => flows.add(stage, priority, matches, &format!("{log}next;")),
        Verdict::Stateless => {
            if stateful {
                let pre = if acl.ingress { LsInPreAcl } else { LsOutPreAcl };
                flows.add(pre, priority, matches, &format!("{} = 1; next;", r.acl_stateless));
            }
            flows.add(stage, priority, matches, &format!("{log}next;"));
        }
        Verdict::Reject => {
            let next = if acl.ingress {
                format!("next(pipeline=egress,table={});", compiler.profile.table(LsOutQosMark))
            } else {
                format!("next(pipeline=ingress,table={});", compiler.profile.table(LsInL2Lkup))
            };
            let reject = format!("reg0 = 0; reject {{ {REJECT} {next} }};");
            if stateful {
                let hinted = |hint: &str| format!("({hint} == 1) && {matches}");
                flows.add(stage, priority, &hinted(hints.drop), &format!("{log}{reject}"));
                flows.add(stage, priority, &hinted(hints.block), &format!("{log}{block} {reject}"));
            } else {
                flows.add(stage, priority, matches, &format!("{log}{reject}"));
            }
        }
        Verdict::Drop => {
            let drop = if global.drop == "drop;" { "/* drop */" } else { global.drop.as_str() };
            if stateful {
                flows.add(stage, priority, &hinted(hints.drop), &format!("{log}{drop}"));
                flows.add(stage, priority, &hinted(hints.block), &format!("{block}{log}{drop}"));
            } else {
                flows.add(stage, priority, matches, &format!("{log}{drop}"));
            }
        }
    }
}

/// Flows of a switch whose packets are tracked.
fn tracking(compiler: &Compiler, flows: &mut FlowList<'_>, global: &Global, features: &Features) {
    let (r, hints) = (&compiler.profile.registers, &compiler.profile.registers.acl_hints);
    let mark = features.mark();
    for stage in [LsInPreAcl, LsOutPreAcl] {
        flows.add(stage, 110, UNTRACKED, "next;");
        flows.add(stage, 110, "eth.mcast", "next;");
        flows.add(stage, 100, "ip", &format!("{} = 1; next;", r.conntrack_defrag));
    }
    for stage in [LsInAclHint, LsOutAclHint] {
        let both = |first: &str, second: &str| format!("{first} = 1; {second} = 1; next;");
        let one = |hint: &str| format!("{hint} = 1; next;");
        let known = |blocked: u8| format!("!ct.new && ct.est && !ct.rpl && {mark}.blocked == {blocked}");
        flows.add(stage, 7, "ct.new && !ct.est", &both(hints.allow_new, hints.drop));
        flows.add(stage, 6, &known(1), &both(hints.allow_new, hints.drop));
        flows.add(stage, 5, "!ct.trk", &both(hints.allow, hints.drop));
        flows.add(stage, 4, &known(0), &both(hints.allow, hints.block));
        flows.add(stage, 3, "!ct.est", &one(hints.drop));
        flows.add(stage, 2, &format!("ct.est && {mark}.blocked == 1"), &one(hints.drop));
        flows.add(stage, 1, &format!("ct.est && {mark}.blocked == 0"), &one(hints.block));
    }
    let commit = format!("{} = 1; next;", r.conntrack_commit);
    let unknown = if global.default_acl_drop { global.drop.as_str() } else { commit.as_str() };
    let (invalid, valid) = if global.match_invalid { ("ct.inv || ", " && !ct.inv") } else { ("", "") };
    let related = if features.related { "ct_commit_nat;" } else { "next;" };
    let passed = format!("{} = 1; ", hints.passed);
    let cleared = format!("{} = 0; {} = 0; ", hints.drop, hints.block);
    for (stage, cleared, passed) in [(LsInAcl, cleared.as_str(), passed.as_str()), (LsOutAcl, "", "")] {
        flows.add(stage, 1, "ip && !ct.est", unknown);
        flows.add(stage, 1, &format!("ip && ct.est && {mark}.blocked == 1"), &commit);
        flows.add(stage, 65532, &format!("{invalid}(ct.est && ct.rpl && {mark}.blocked == 1)"), &global.drop);
        flows.add(
            stage,
            65532,
            &format!("ct.est && !ct.rel && !ct.new{valid} && ct.rpl && {mark}.blocked == 0"),
            &format!("{cleared}{passed}next;"),
        );
        flows.add(
            stage,
            65532,
            &format!("!ct.est && ct.rel && !ct.new{valid} && {mark}.blocked == 0"),
            &format!("{passed}{related}"),
        );
    }
    flows.add(LsInAclAfterLb, 65532, &format!("{} == 1", hints.passed), "next;");
}
