//! Flows of QoS rules: marking and metering.

use oxbow_incr::Cx;
use oxbow_ovsdb::Uuid;
use oxbow_schema::nb::qos;

use crate::profile::Stage::*;
use crate::program::{Compiler, Output};
use crate::source::{Cell, IndexKey, Members};
use crate::units::flow_list::FlowList;
use crate::units::{hint_of, read_switch};

/// Unit `qos-flows`.
pub(crate) fn compute(compiler: &Compiler, cx: &mut Cx<'_, '_, Compiler>, key: Uuid) -> Output {
    let Some(&switch) = cx.read(&Members(IndexKey::SwitchOfQos(key))).first() else { return Output::Empty };
    if read_switch(cx, switch).is_none() {
        return Output::Empty;
    }
    let Some(matches) = cx.read(&Cell(qos::MATCH, key)) else { return Output::Empty };
    let priority = cx.read(&Cell(qos::PRIORITY, key)).and_then(|p| u16::try_from(p).ok()).unwrap_or(0);
    let ingress = cx.read(&Cell(qos::DIRECTION, key)).is_some_and(|d| d == "from-lport");
    let marks: Vec<(String, i64)> = cx
        .read(&Cell(qos::ACTION, key))
        .map(|a| a.iter().map(|(k, v)| (k.to_string(), v)).collect())
        .unwrap_or_default();
    let bandwidth = cx.read(&Cell(qos::BANDWIDTH, key));
    let limit = |name: &str| bandwidth.and_then(|b| b.get(name)).unwrap_or(0);
    let mut flows = FlowList::new(compiler, switch, hint_of(key));
    let (mark, meter) = if ingress { (LsInQosMark, LsInQosMeter) } else { (LsOutQosMark, LsOutQosMeter) };
    for (name, value) in marks {
        if name == "dscp" {
            flows.add(mark, priority, matches, &format!("ip.dscp = {value}; next;"));
        }
    }
    match (limit("rate"), limit("burst")) {
        (0, _) => {}
        (rate, 0) => flows.add(meter, priority, matches, &format!("set_meter({rate}); next;")),
        (rate, burst) => flows.add(meter, priority, matches, &format!("set_meter({rate}, {burst}); next;")),
    }
    flows.finish()
}
