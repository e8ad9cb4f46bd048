//! The flows that a logical switch has whatever its ports are (ovn-northd(8), "Logical Switch Datapaths").

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::nb;

use crate::profile::Stage::*;
use crate::program::{Compiler, Output, Unit, UnitKind};
use crate::source::{Cell, references};
use crate::units::acl::read_acls;
use crate::units::flow_list::FlowList;
use crate::units::switch::Traits;
use crate::units::{read_features, read_global, read_switch};

const ND_AND_MLD: &str = "nd || nd_rs || nd_ra || mldv1 || mldv2";
const ND_AND_MLD_ACL: &str = "nd || nd_ra || nd_rs || mldv1 || mldv2";

/// Unit `switch-flows`.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(switch) = read_switch(cx, key) else { return Output::Empty };
    let global = read_global(cx);
    let features = read_features(cx);
    let traits = match &*cx.unit(&Unit::new(UnitKind::SwitchTraits, key)) {
        Output::Traits(traits) => traits.clone(),
        _ => Traits::default(),
    };
    let has_names = references(cx.read(&Cell(nb::logical_switch::DNS_RECORDS, key)))
        .into_iter()
        .any(|dns| cx.read(&Cell(nb::dns::RECORDS, dns)).is_some_and(|records| !records.is_empty()));

    let stateful = read_acls(cx, key).stateful;

    let r = &compiler.profile.registers;
    let drop = global.drop.as_str();
    let mut flows = FlowList::new(compiler, key, 0);

    // Admission and port security.
    if !switch.vlan_passthru {
        flows.add(LsInCheckPortSec, 100, "vlan.present", drop);
    }
    flows.add(LsInCheckPortSec, 100, "eth.src[40]", drop);
    flows.add(LsInCheckPortSec, 50, "1", &format!("{} = check_in_port_sec(); next;", r.port_sec_drop));
    let dropped = format!("{} == 1", r.port_sec_drop);
    flows.add(LsInApplyPortSec, 50, &dropped, drop);
    flows.add(LsOutCheckPortSec, 100, "eth.mcast", &format!("{} = 0; next;", r.port_sec_drop));
    flows.add(LsOutCheckPortSec, 0, "1", &format!("{} = check_out_port_sec(); next;", r.port_sec_drop));
    flows.add(LsOutApplyPortSec, 50, &dropped, drop);
    flows.add(LsOutApplyPortSec, 0, "1", "output;");

    // Service monitor packets pass the stateful stages untouched.
    flows.add(LsInPreAcl, 110, "eth.dst == $svc_monitor_mac", "next;");
    flows.add(LsOutPreAcl, 110, "eth.src == $svc_monitor_mac", "next;");
    flows.add(LsInPreLb, 110, "eth.dst == $svc_monitor_mac", "next;");
    flows.add(LsOutPreLb, 110, "eth.src == $svc_monitor_mac", "next;");
    let stateless = format!("{} == 1", r.acl_stateless);
    let (nat, mark) = if features.connection_mark { ("ct_lb_mark;", "ct_mark") } else { ("ct_lb;", "ct_label") };
    for (pre_lb, pre_stateful, stateful) in
        [(LsInPreLb, LsInPreStateful, LsInStateful), (LsOutPreLb, LsOutPreStateful, LsOutStateful)]
    {
        for matches in [ND_AND_MLD, "eth.mcast", &stateless] {
            flows.add(pre_lb, 110, matches, "next;");
        }
        flows.add(pre_stateful, 110, &format!("{} == 1", r.conntrack_nat), nat);
        flows.add(pre_stateful, 100, &format!("{} == 1", r.conntrack_defrag), "ct_next;");
        let commit = format!("{} == 1", r.conntrack_commit);
        flows.add(
            stateful,
            100,
            &format!("{commit} && {} == 1", r.acl_label),
            &format!("ct_commit {{ {mark}.blocked = 0; ct_label.label = {}; }}; next;", r.label),
        );
        flows.add(
            stateful,
            100,
            &format!("{commit} && {} == 0", r.acl_label),
            &format!("ct_commit {{ {mark}.blocked = 0; }}; next;"),
        );
    }

    for stage in [LsInAcl, LsInAclAfterLb, LsOutAcl] {
        flows.add(stage, 65532, ND_AND_MLD_ACL, "next;");
    }

    if has_names {
        flows.add(LsInDnsLookup, 100, "udp.dst == 53", &format!("{} = dns_lookup(); next;", r.dns_lookup_result));
        for ip in ["ip4", "ip6"] {
            flows.add(
                LsInDnsResponse,
                100,
                &format!("udp.dst == 53 && {}", r.dns_lookup_result),
                &format!(
                    "eth.dst <-> eth.src; {ip}.src <-> {ip}.dst; udp.dst = udp.src; udp.src = 53; outport = inport; \
                     flags.loopback = 1; output;"
                ),
            );
        }
        flows.add(LsOutAcl, 34000, "udp.src == 53", if stateful { "ct_commit; next;" } else { "next;" });
    }

    if traits.vtep {
        let actions = format!("next(pipeline=ingress, table={});", compiler.profile.table(LsInL2Lkup));
        flows.add(LsInHairpin, 1000, &format!("{} == 1", r.from_ramp), &actions);
    }

    destination_flows(&mut flows, &switch, &traits, drop);

    for stage in [
        LsInApplyPortSec,
        LsInLookupFdb,
        LsInPutFdb,
        LsInPreAcl,
        LsInPreLb,
        LsInPreStateful,
        LsInQosMark,
        LsInQosMeter,
        LsInLbAffCheck,
        LsInLb,
        LsInLbAffLearn,
        LsInPreHairpin,
        LsInNatHairpin,
        LsInHairpin,
        LsInStateful,
        LsInArpRsp,
        LsInDhcpOptions,
        LsInDhcpResponse,
        LsInDnsLookup,
        LsInDnsResponse,
        LsInExternalPort,
        LsOutPreAcl,
        LsOutPreLb,
        LsOutPreStateful,
        LsOutQosMark,
        LsOutQosMeter,
        LsOutStateful,
    ] {
        flows.add(stage, 0, "1", "next;");
    }
    flows.finish()
}

/// Destination lookup and what becomes of unknown destinations.
fn destination_flows(flows: &mut FlowList<'_>, switch: &super::switch::Switch, traits: &Traits, drop: &str) {
    flows.add(LsInL2Lkup, 110, "eth.dst == $svc_monitor_mac && (tcp || icmp || icmp6)", "handle_svc_check(inport);");
    if switch.multicast_snooping {
        flows.add(LsInL2Lkup, 100, "igmp", "igmp;");
        flows.add(LsInL2Lkup, 100, "mldv1 || mldv2", "igmp;");
        flows.add(LsInL2Lkup, 85, "ip4.mcast && ip4.dst == 224.0.0.0/24", "outport = \"_MC_flood_l2\"; output;");
        flows.add(LsInL2Lkup, 85, "ip6.mcast_flood", "outport = \"_MC_flood\"; output;");
        if !switch.flood_unregistered {
            let actions = if traits.static_flood { "outport =\"_MC_static\"; output;" } else { drop };
            flows.add(LsInL2Lkup, 80, "ip4.mcast || ip6.mcast", actions);
        }
    }
    flows.add(LsInL2Lkup, 70, "eth.mcast", "outport = \"_MC_flood\"; output;");
    flows.add(LsInL2Lkup, 0, "1", "outport = get_fdb(eth.dst); next;");
    let unknown = if traits.unknown { "outport = \"_MC_unknown\"; output;" } else { drop };
    flows.add(LsInL2Unknown, 50, "outport == \"none\"", unknown);
    flows.add(LsInL2Unknown, 0, "1", "output;");
}
