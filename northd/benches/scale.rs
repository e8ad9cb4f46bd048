//! What northd costs on a Kubernetes-like network of logical switches: `cargo bench -p oxbow-northd [-- SWITCHES PORTS]`.
//!
//! No database takes part, so the times are those of computing and comparing alone. Each change is made several times and
//! the least time is printed with the median: the machine's noise only adds.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

#[path = "../tests/cloud/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use the rest")]
mod cloud;

use std::time::{Duration, Instant};

use cloud::{Cloud, committed};
use oxbow_ovsdb::{RowDraft, Uuid};
use oxbow_schema::nb::{address_set, logical_switch as ls, logical_switch_port as lsp, port_group};

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|a| a.parse::<usize>().ok());
    let (switches, ports) = (numbers.next().unwrap_or(100), numbers.next().unwrap_or(100));
    let mut cloud = Cloud::new();
    let mut first = Uuid::ZERO;
    let mut pods = Vec::new();
    for s in 0..switches {
        let switch = Uuid::random();
        let mut held = Vec::new();
        for p in 0..ports {
            let (name, address) = pod(s, p);
            let draft = RowDraft::new(lsp::TABLE).set(lsp::NAME, name).set(lsp::ADDRESSES, [address.as_str()]);
            held.push(cloud.put(draft.set(lsp::PORT_SECURITY, [address])));
        }
        pods.extend(held.iter().copied());
        let draft = RowDraft::with_uuid(ls::TABLE, switch).set(ls::NAME, format!("node{s}"));
        cloud.put(draft.set(ls::PORTS, held));
        first = switch;
    }
    for (n, namespace) in pods.chunks(20).enumerate() {
        let draft = RowDraft::new(port_group::TABLE).set(port_group::NAME, format!("namespace{n}"));
        cloud.put(draft.set(port_group::PORTS, namespace.iter().copied()));
        let draft = RowDraft::new(address_set::TABLE).set(address_set::NAME, format!("set{n}"));
        cloud.put(draft.set(address_set::ADDRESSES, ["10.0.0.1", "10.0.0.2"]));
    }

    let start = Instant::now();
    let outcome = cloud.run();
    let full = start.elapsed();
    println!(
        "{switches} switches of {ports} ports: full compile {:.1} ms, {} units, {} flow rows, {} operations",
        ms(full),
        outcome.computed,
        cloud.northd.flow_count(),
        outcome.sb.as_ref().map_or(0, oxbow_ovsdb::Transaction::len),
    );
    if let Some(transaction) = outcome.sb {
        cloud.sb_write(&transaction);
        cloud.northd.sb_done(&committed(), 0);
    }
    if let Some(transaction) = outcome.nb {
        let changes = transaction.apply_to(&mut cloud.nb);
        cloud.northd.nb_changed(&changes);
        cloud.northd.nb_done(&committed());
    }
    let start = Instant::now();
    let rest = cloud.settle();
    println!("comparing what was written: {:.1} ms, {} operations left", ms(start.elapsed()), rest.sb_operations);
    println!("resident memory with both replicas: {} MB", resident_kb() / 1024);

    let mut number = ports;
    measure("logical port added", &mut cloud, |cloud| {
        number += 1;
        let (name, address) = pod(switches, number);
        cloud.add_port(first, &name, &[&address]);
    });
    let mut pods_again = pods.iter().copied();
    measure("port address changed", &mut cloud, |cloud| {
        let Some(pod) = pods_again.next() else { return };
        cloud.edit(lsp::TABLE, pod, |d| d.set(lsp::ADDRESSES, ["00:00:00:00:00:01 10.255.0.1"]));
    });
    let mut switch = 0;
    measure("switch added", &mut cloud, |cloud| {
        switch += 1;
        cloud.add_switch(&format!("more{switch}"));
    });
    measure("switch option changed", &mut cloud, |cloud| {
        cloud.edit(ls::TABLE, first, |d| d.set(ls::OTHER_CONFIG, [("vlan-passthru", "true")]));
        cloud.edit(ls::TABLE, first, |d| d.set(ls::OTHER_CONFIG, [("mcast_snoop", "true")]));
    });
    cloud.northd.full_recompute();
    let start = Instant::now();
    let outcome = cloud.run();
    println!("full recompute that changes nothing: {:.1} ms, {} units", ms(start.elapsed()), outcome.computed);
}

fn pod(switch: usize, port: usize) -> (String, String) {
    let (a, b, c) = (switch / 256, switch % 256, port);
    let mac = format!("0a:58:{a:02x}:{b:02x}:{:02x}:{:02x}", c / 256, c % 256);
    (format!("pod-{switch}-{port}"), format!("{mac} 10.{}.{b}.{}", a + c / 250, c % 250 + 2))
}

/// Times northd's own part of a change: taking it in, computing, comparing.
fn measure(what: &str, cloud: &mut Cloud, mut change: impl FnMut(&mut Cloud)) {
    let mut times = Vec::new();
    let mut operations = 0;
    for _ in 0..15 {
        let start = Instant::now();
        change(cloud);
        let outcome = cloud.run();
        times.push(start.elapsed());
        operations = outcome.sb.as_ref().map_or(0, oxbow_ovsdb::Transaction::len);
        if let Some(transaction) = outcome.sb {
            cloud.sb_write(&transaction);
            cloud.northd.sb_done(&committed(), 0);
        }
        if let Some(transaction) = outcome.nb {
            let changes = transaction.apply_to(&mut cloud.nb);
            cloud.northd.nb_changed(&changes);
            cloud.northd.nb_done(&committed());
        }
        cloud.settle();
    }
    times.sort();
    println!("{what}: {:.2} ms (median {:.2}), {operations} operations", ms(times[0]), ms(times[times.len() / 2]));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The resident set of this process in kB (proc(5), `VmRSS`); 0 where there is no such file.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
