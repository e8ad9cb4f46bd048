//! The rig itself: a cloud of nothing but Debian's daemons carries traffic. When this fails, the other clouds' failures mean nothing.

use anyhow::{Result, ensure};
use oxbow_testkit::capture::Capture;
use oxbow_testkit::hypervisor::UPLINK;
use oxbow_testkit::wait::PATIENCE;
use oxbow_testkit::{Cloud, Node, Northd, probe};
use oxbow_tests::layer2;

#[test]
fn stock_northd_with_stock_controllers() -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, Node::Stock).run(|cloud| {
        layer2::build(cloud)?;
        let capture = Capture::start(cloud.hypervisors()[1].ns(), UPLINK, "udp port 6081")?;
        probe::ping(cloud.vif("lp11")?.guest(), "10.0.0.21")?;
        let geneve = capture.wait_for("10.0.0.11 > 10.0.0.21: ICMP echo request", PATIENCE)?;
        ensure!(geneve.contains("class Open Virtual Networking (OVN) (0x102) type 0x80(C)"), "{geneve}");
        capture.stop()?;
        layer2::everybody_reaches_everybody(cloud)?;
        layer2::spoofed_packets_are_not_heard(cloud)
    })
}
