//! The dump that is sent, and the schema it belongs to.

use std::fmt::Write as _;

use oxbow_ovsdb::{AtomType, ColumnShape, Multiplicity, TableDef, Uuid};
use oxbow_schema::sb;

/// The tables of the dump.
pub(super) const TABLES: [&TableDef; 2] = [sb::logical_flow::TABLE, sb::port_binding::TABLE];

/// The dump, shaped as a northd writes it: two networks in three ports are alike in nothing but their form.
pub(super) fn dump(ports: usize, flows: usize) -> String {
    let uuid = |kind: u128, number: usize| {
        Uuid::from_u128((kind << 96) | (number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    };
    let mut text = String::with_capacity(flows * 480 + ports * 560);
    text.push_str("[false,\"00000000-0000-0000-0000-000000000000\",{\"Logical_Flow\":{");
    for flow in 0..flows {
        let port = flow % ports.max(1);
        let (mac, ip) = addresses(port);
        let separator = if flow > 0 { "," } else { "" };
        let (table, stage, condition, actions) = match flow / ports.max(1) % 6 {
            0 => (
                0,
                "ls_in_check_port_sec",
                format!("inport == \\\"port-{port}\\\""),
                "reg0[15] = check_in_port_sec(); next;".to_owned(),
            ),
            1 => (
                26,
                "ls_in_arp_rsp",
                format!("arp.tpa == {ip} && arp.op == 1"),
                format!(
                    "eth.dst = eth.src; eth.src = {mac}; arp.op = 2; /* ARP reply */ arp.tha = arp.sha; arp.sha = {mac}; \
                 arp.tpa = arp.spa; arp.spa = {ip}; outport = inport; flags.loopback = 1; output;"
                ),
            ),
            2 => (
                26,
                "ls_in_arp_rsp",
                format!("arp.tpa == {ip} && arp.op == 1 && inport == \\\"port-{port}\\\""),
                "next;".to_owned(),
            ),
            3 => (27, "ls_in_l2_lkup", format!("eth.dst == {mac}"), format!("outport = \\\"port-{port}\\\"; output;")),
            4 => (
                8,
                "ls_in_acl",
                format!("reg0[7] == 1 && (inport == @pg_{} && ip4 && tcp.dst == {})", port / 50, port % 60_000),
                "reg0[1] = 1; next;".to_owned(),
            ),
            _ => (
                9,
                "ls_out_apply_port_sec",
                format!("outport == \\\"port-{port}\\\" && eth.dst == {mac}"),
                "output;".to_owned(),
            ),
        };
        let pipeline = if stage.starts_with("ls_in") { "ingress" } else { "egress" };
        write!(
            text,
            "{separator}\"{}\":{{\"initial\":{{\"actions\":\"{actions}\",\"external_ids\":[\"map\",[[\"source\",\"northd.c:{}\"],\
             [\"stage-hint\",\"{:08x}\"],[\"stage-name\",\"{stage}\"]]],\"logical_datapath\":[\"uuid\",\"{}\"],\"match\":\"{condition}\",\
             \"pipeline\":\"{pipeline}\",\"priority\":{},\"table_id\":{table}}}}}",
            uuid(1, flow),
            5000 + table * 37,
            port,
            uuid(2, port / 50),
            50 + flow / ports.max(1) * 10,
        )
        .expect("writing to a String cannot fail");
    }
    text.push_str("},\"Port_Binding\":{");
    for port in 0..ports {
        let (mac, ip) = addresses(port);
        let separator = if port > 0 { "," } else { "" };
        write!(
            text,
            "{separator}\"{}\":{{\"initial\":{{\"datapath\":[\"uuid\",\"{}\"],\"external_ids\":[\"map\",[[\"name\",\"vm-{port}\"],\
             [\"neutron:cidrs\",\"{ip}/24\"],[\"neutron:device_id\",\"{}\"],[\"neutron:project_id\",\"project-{}\"]]],\
             \"logical_port\":\"port-{port}\",\"mac\":\"{mac} {ip}\",\"options\":[\"map\",[[\"mcast_flood_reports\",\"true\"],\
             [\"requested-chassis\",\"hv-{}\"]]],\"port_security\":\"{mac} {ip}\",\"tunnel_key\":{},\"up\":true}}}}",
            uuid(3, port),
            uuid(2, port / 50),
            uuid(4, port),
            port / 500,
            port % 400,
            1 + port % 50,
        )
        .expect("writing to a String cannot fail");
    }
    text.push_str("}}]");
    text
}

fn addresses(port: usize) -> (String, String) {
    let mac = format!("0a:00:{:02x}:{:02x}:{:02x}:01", port >> 16 & 255, port >> 8 & 255, port & 255);
    (mac, format!("10.{}.{}.{}", port >> 16 & 255, port >> 8 & 255, port & 255))
}

/// The schema of the two tables, from their definitions.
pub(super) fn schema() -> String {
    let kind = |shape: &ColumnShape| {
        let (minimum, maximum) = match shape.multiplicity {
            Multiplicity::One => ("1", "1"),
            Multiplicity::Optional => ("0", "1"),
            Multiplicity::Many => ("0", "\"unlimited\""),
        };
        let value = shape.value.map(|value: AtomType| format!(",\"value\":\"{}\"", value.name())).unwrap_or_default();
        format!("{{\"key\":\"{}\"{value},\"min\":{minimum},\"max\":{maximum}}}", shape.key.name())
    };
    let tables = TABLES.map(|table| {
        let columns: Vec<String> = table
            .columns
            .iter()
            .map(|column| format!("\"{}\":{{\"type\":{}}}", column.name, kind(&column.shape)))
            .collect();
        format!("\"{}\":{{\"columns\":{{{}}}}}", table.name, columns.join(","))
    });
    format!("{{\"name\":\"OVN_Southbound\",\"version\":\"20.27.0\",\"tables\":{{{}}}}}", tables.join(","))
}
