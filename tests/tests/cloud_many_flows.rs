//! What those who plug a VIF wait for, on a switch with ten thousand logical flows.

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::wait::Look;
use oxbow_testkit::{Cloud, Node, Northd, VifSpec, probe, wait_until};
use std::time::{Duration, Instant};

/// Other ports of the switch: with both address families each is worth four flows.
const PORTS: usize = 2600;
/// Ports per `ovn-nbctl` command line.
const BATCH: usize = 200;
/// How long kube-ovn's CNI waits for `ovn-installed` before it gives the pod up: the shortest of the clients' deadlines.
const CNI: Duration = Duration::from_secs(30);

fn fill(cloud: &Cloud) -> Result<()> {
    let ports: Vec<String> = (0..PORTS)
        .map(|n| {
            let (high, low) = (n >> 8, n & 255);
            let addresses = format!("'0a:00:00:01:{high:02x}:{low:02x} 10.1.{high}.{low} fd01::{:x}'", n + 1);
            format!("lsp-add sw0 other{n} -- lsp-set-addresses other{n} {addresses}")
        })
        .collect();
    for batch in ports.chunks(BATCH) {
        cloud.nbctl(&batch.join(" -- "))?;
    }
    Ok(())
}

oxbow_tests::on_every_backend! {
    what_clients_wait_for_comes_in_time_among_ten_thousand_flows,
}

fn what_clients_wait_for_comes_in_time_among_ten_thousand_flows(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(1, node).run(|cloud| {
        cloud.nbctl("ls-add sw0")?;
        for n in 1..=3 {
            let addresses = format!("'00:00:00:00:00:0{n} 10.0.0.{n}'");
            cloud.nbctl(&format!(
                "lsp-add sw0 vm{n} -- lsp-set-addresses vm{n} {addresses} -- lsp-set-port-security vm{n} {addresses}"
            ))?;
        }
        fill(cloud)?;
        let vif = |n: u8| VifSpec::new(&format!("vm{n}"), &format!("00:00:00:00:00:0{n}"), &[&format!("10.0.0.{n}/8")]);
        // The first VIF makes the switch local and brings all its flows here.
        cloud.add_vif(0, vif(1))?;
        cloud.add_vif(0, vif(2))?;
        cloud.sync()?;
        let flows: usize = cloud.sbctl("--bare --columns=_uuid list Logical_Flow")?.split_whitespace().count();
        ensure!(flows >= 10_000, "only {flows} flows");
        // A CNI: plug, then look at the interface until it is installed.
        let start = Instant::now();
        cloud.create_vif(0, vif(3))?;
        cloud.plug("vm3")?;
        let device = cloud.vif("vm3")?.device().to_owned();
        wait_until("ovn-installed", CNI, || {
            let ids = cloud.hypervisors()[0].vsctl(&format!("get Interface {device} external_ids"))?;
            Ok(Look::when(ids.contains("ovn-installed=\"true\""), || ids))
        })?;
        let installed = start.elapsed();
        // Nova: the port of the CMS is up.
        cloud.wait_up("vm3")?;
        #[expect(clippy::print_stdout, reason = "a figure, shown by --nocapture")]
        {
            println!("{flows} flows: installed {installed:?} after the plug, up in NB after {:?}", start.elapsed());
        }
        // And then packets flow: the promise behind both.
        probe::ping(cloud.vif("vm3")?.guest(), "10.0.0.1").context("from the new VIF")?;
        probe::ping(cloud.vif("vm2")?.guest(), "10.0.0.3").context("to the new VIF")?;
        Ok(())
    })
}
