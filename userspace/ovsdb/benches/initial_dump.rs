//! The CPU time that a client takes to receive an initial dump, against plain serde_json decoding into typed structs.
//!
//! This process makes the dump and serves it over a Unix socket; for every measurement it starts itself once more as a client,
//! whose CPU time (user and system, the whole process) is what counts, so that serving costs nothing in it. Ours is the
//! whole client: framing, decoding, interning, replica and changes. Plain reads the same bytes into memory and decodes
//! them with derived `Deserialize` into structs of `String`s in hash maps, as short as one would write it for this very dump.
#![allow(clippy::print_stdout, reason = "a benchmark's output is its product")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing else to say")]

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use oxbow_ovsdb::{AtomType, Client, ClientConfig, ColumnShape, Event, Multiplicity, TableDef, Uuid};
use oxbow_schema::sb;
use serde::Deserialize;

const TABLES: [&TableDef; 2] = [sb::logical_flow::TABLE, sb::port_binding::TABLE];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |name: &str, default: usize| {
        let value = args.iter().position(|arg| arg == name).and_then(|place| args.get(place + 1));
        value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} wants a number, not {value}")))
    };
    match args.first().map(String::as_str) {
        Some("ours") => ours(&args[1]),
        Some("plain") => plain(&args[1]),
        _ => compare(number("--ports", 100_000), number("--flows", 600_000), number("--rounds", 7)),
    }
}

/// CPU seconds and peak resident MiB of this process.
fn report(rows: usize) {
    // SAFETY: rusage is plain data, for which zeros are valid, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    println!("{} {} {rows}", seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss / 1024);
    // What is freed after this is nobody's business.
    std::io::stdout().flush().unwrap();
    std::process::exit(0);
}

fn ours(socket: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = ClientConfig::new(sb::DATABASE, format!("unix:{socket}"));
        let mut client = Client::start(TABLES.into_iter().fold(config, |config, table| config.monitor(table)));
        loop {
            if let Event::Connected { .. } = client.next().await {
                report(TABLES.into_iter().map(|table| client.replica().len(table)).sum());
            }
        }
    });
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tag {
    Uuid,
    Map,
}

struct PlainUuid(#[expect(dead_code, reason = "decoded, as a program would")] u128);

impl<'de> Deserialize<'de> for PlainUuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(|uuid: Uuid| PlainUuid(uuid.as_u128())).map_err(serde::de::Error::custom)
    }
}

#[expect(dead_code, reason = "decoded, as a program would")]
#[derive(Deserialize)]
struct PlainFlow {
    actions: String,
    external_ids: (Tag, Vec<(String, String)>),
    logical_datapath: (Tag, PlainUuid),
    #[serde(rename = "match")]
    match_: String,
    pipeline: String,
    priority: i64,
    #[serde(default)]
    table_id: i64,
}

#[expect(dead_code, reason = "decoded, as a program would")]
#[derive(Deserialize)]
struct PlainPort {
    datapath: (Tag, PlainUuid),
    external_ids: (Tag, Vec<(String, String)>),
    logical_port: String,
    mac: String,
    options: (Tag, Vec<(String, String)>),
    port_security: String,
    tunnel_key: i64,
    up: bool,
}

#[derive(Deserialize)]
struct Initial<T> {
    #[expect(dead_code, reason = "decoded, as a program would")]
    initial: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(non_snake_case, reason = "the tables' names")]
struct PlainTables {
    #[serde(rename = "Logical_Flow")]
    Logical_Flow: HashMap<String, Initial<PlainFlow>>,
    #[serde(rename = "Port_Binding")]
    Port_Binding: HashMap<String, Initial<PlainPort>>,
}

#[derive(Deserialize)]
struct PlainReply {
    result: (bool, String, PlainTables),
}

fn plain(socket: &str) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(b"{\"id\":1,\"method\":\"monitor_cond_since\",\"params\":[]}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let reply: PlainReply = serde_json::from_slice(&bytes).unwrap();
    drop(bytes);
    let tables = &reply.result.2;
    report(tables.Logical_Flow.len() + tables.Port_Binding.len());
}

/// The dump, shaped as a northd writes it: two networks in three ports are alike in nothing but their form.
fn dump(ports: usize, flows: usize) -> String {
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
        .unwrap();
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
        .unwrap();
    }
    text.push_str("}}]");
    text
}

fn addresses(port: usize) -> (String, String) {
    let mac = format!("0a:00:{:02x}:{:02x}:{:02x}:01", port >> 16 & 255, port >> 8 & 255, port & 255);
    (mac, format!("10.{}.{}.{}", port >> 16 & 255, port >> 8 & 255, port & 255))
}

/// The schema of the two tables, from their definitions.
fn schema() -> String {
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

/// Answers one client's requests until it has the dump and goes.
fn serve(mut stream: UnixStream, dump: &str, schema: &str) {
    let mut framer = oxbow_ovsdb::Framer::default();
    let mut chunk = [0; 65536];
    #[derive(Deserialize)]
    struct Request {
        id: u64,
        method: String,
        params: serde_json::Value,
    }
    loop {
        let length = stream.read(&mut chunk).unwrap_or(0);
        if length == 0 {
            return;
        }
        framer.buffer().extend_from_slice(&chunk[..length]);
        while let Some(frame) = framer.next_frame().unwrap() {
            let Request { id, method, params } = serde_json::from_slice(frame.bytes()).unwrap();
            let (result, error) = match method.as_str() {
                "get_schema" if params[0] == "_Server" => ("null", "\"no such database\""),
                "get_schema" => (schema, "null"),
                "monitor_cond_since" => (dump, "null"),
                _ => ("{}", "null"),
            };
            let parts = [format!("{{\"id\":{id},\"result\":"), format!(",\"error\":{error}}}")];
            for part in [&parts[0], result, &parts[1]] {
                if stream.write_all(part.as_bytes()).is_err() {
                    return;
                }
            }
            if method == "monitor_cond_since" {
                // The plain client reads to the end; ours has its answer and leaves.
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
        }
    }
}

struct Measurement {
    seconds: f64,
    peak_mib: f64,
}

fn measure(mode: &str, listener: &UnixListener, socket: &Path, dump: &str, schema: &str, rows: usize) -> Measurement {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([mode, socket.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    serve(stream, dump, schema);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{mode}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!(numbers[2] as usize, rows, "{mode} decoded another number of rows");
    Measurement { seconds: numbers[0], peak_mib: numbers[1] }
}

fn compare(ports: usize, flows: usize, rounds: usize) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("bench.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (dump, schema) = (dump(ports, flows), schema());
    println!("initial dump: {ports} Port_Binding, {flows} Logical_Flow, {} MiB", dump.len() >> 20);
    println!(
        "{:>5} {:>10} {:>10} {:>7} {:>10} {:>10}",
        "round", "ours CPU", "plain CPU", "ratio", "ours peak", "plain peak"
    );
    let mut ratios = Vec::new();
    for round in 0..rounds {
        let run = |mode| measure(mode, &listener, &socket, &dump, &schema, ports + flows);
        let (ours, plain) = if round % 2 == 0 {
            let ours = run("ours");
            (ours, run("plain"))
        } else {
            let plain = run("plain");
            (run("ours"), plain)
        };
        let ratio = ours.seconds / plain.seconds;
        ratios.push(ratio);
        println!(
            "{:>5} {:>8.2} s {:>8.2} s {ratio:>7.2} {:>6} MiB {:>6} MiB",
            round + 1,
            ours.seconds,
            plain.seconds,
            ours.peak_mib,
            plain.peak_mib
        );
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    println!(
        "bench ovsdb: ours/plain {median:.2} (from {:.2} to {:.2} in {rounds} rounds), at most 1.50 wanted",
        ratios[0],
        ratios[ratios.len() - 1]
    );
}
