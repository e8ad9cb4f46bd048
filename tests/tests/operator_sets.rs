//! Address sets and port groups that ACLs name: one member more or less is in force when northd says that the hypervisors have followed.

use anyhow::{Context as _, Result};
use oxbow_testkit::{Cloud, Node, Northd, probe};
use oxbow_tests::layer2::{self, GUESTS};

oxbow_tests::on_every_backend! {
    an_address_more_or_less_under_our_northd,
    a_port_more_or_less_under_our_northd,
    an_address_more_or_less_under_stock_northd,
    a_port_more_or_less_under_stock_northd,
}

fn an_address_more_or_less_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(addresses)
}

fn a_port_more_or_less_under_our_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Oxbow).hypervisors(2, node).run(ports)
}

fn an_address_more_or_less_under_stock_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(addresses)
}

fn a_port_more_or_less_under_stock_northd(node: Node) -> Result<()> {
    Cloud::builder().northd(Northd::Stock).hypervisors(2, node).run(ports)
}

/// After a change of NB, those of lp11 and lp21 that are listed are not answered by lp12, the other is.
fn only(cloud: &Cloud, change: &str, denied: &[&str]) -> Result<()> {
    cloud.nbctl(change)?;
    cloud.sync()?;
    let [near, to, far] = GUESTS;
    for from in [near, far] {
        let guest = cloud.vif(from.port)?.guest();
        let said = if denied.contains(&from.port) {
            probe::no_ping(guest, to.ipv4)
        } else {
            probe::ping(guest, to.ipv4).map(|_| ())
        };
        said.with_context(|| format!("from {} after {change}", from.port))?;
    }
    Ok(())
}

fn addresses(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    let deny = "acl-add sw0 to-lport 1001 'outport == \"lp12\" && ip4.src == $bad' drop";
    only(cloud, &format!("create Address_Set name=bad -- {deny}"), &[])?;
    only(cloud, "add Address_Set bad addresses 10.0.0.11", &["lp11"])?;
    only(cloud, "add Address_Set bad addresses 10.0.0.21", &["lp11", "lp21"])?;
    only(cloud, "remove Address_Set bad addresses 10.0.0.11", &["lp21"])?;
    // Both ways at once, and something that is neither.
    only(cloud, "set Address_Set bad addresses=10.0.0.11,10.0.9.0/24", &["lp11"])?;
    only(cloud, "set Address_Set bad addresses=10.0.0.0/24", &["lp11", "lp21"])?;
    only(cloud, "remove Address_Set bad addresses 10.0.0.0/24", &[])?;
    only(cloud, "add Address_Set bad addresses 10.0.0.21", &["lp21"])
}

fn ports(cloud: &mut Cloud) -> Result<()> {
    layer2::build(cloud)?;
    only(cloud, "pg-add quarantine -- acl-add quarantine from-lport 1001 'inport == @quarantine && ip4' drop", &[])?;
    only(cloud, "pg-set-ports quarantine lp11", &["lp11"])?;
    only(cloud, "pg-set-ports quarantine lp11 lp21", &["lp11", "lp21"])?;
    only(cloud, "pg-set-ports quarantine lp21", &["lp21"])?;
    only(cloud, "pg-set-ports quarantine lp11", &["lp11"])?;
    only(cloud, "clear Port_Group quarantine ports", &[])?;
    only(cloud, "pg-set-ports quarantine lp21", &["lp21"])
}
