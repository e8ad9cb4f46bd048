//! What Debian's ovs-vswitchd holds in the integration bridge of a hypervisor.

use std::collections::BTreeSet;

use anyhow::Result;
use oxbow_testkit::Hypervisor;

/// `ovs-ofctl` on the integration bridge, without statistics, numbers for ports.
///
/// # Errors
///
/// What it says.
pub fn ofctl(host: &Hypervisor, command: &str, arguments: &[&str]) -> Result<String> {
    let bridge = format!("unix:{}", host.dir().join("br-int.mgmt").display());
    let mut line = vec!["-OOpenFlow15", "--no-stats", "--no-names", command, &bridge];
    line.extend(arguments);
    host.ns().run("ovs-ofctl", &line)
}

/// Its flows, a line each.
///
/// # Errors
///
/// As [`ofctl`].
pub fn flows(host: &Hypervisor) -> Result<Vec<String>> {
    let text = ofctl(host, "dump-flows", &[])?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| line.contains("actions=")).collect())
}

/// Its groups, a line each.
///
/// # Errors
///
/// As [`ofctl`].
pub fn groups(host: &Hypervisor) -> Result<Vec<String>> {
    let text = ofctl(host, "dump-groups", &[])?;
    Ok(text.lines().map(|line| line.trim().to_owned()).filter(|line| line.starts_with("group_id=")).collect())
}

/// Ports that it takes packets from: VIFs and tunnels.
///
/// # Errors
///
/// As [`ofctl`].
pub fn served(host: &Hypervisor) -> Result<BTreeSet<String>> {
    let text = ofctl(host, "dump-flows", &["table=0"])?;
    let port = |line: &str| {
        let rest = line.split_once("in_port=")?.1;
        Some(rest.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
    };
    Ok(text.lines().filter_map(port).collect())
}
