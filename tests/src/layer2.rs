//! One logical switch with guests on several hypervisors: the smallest network that uses everything at layer 2.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use oxbow_testkit::{Cloud, VifSpec, probe};

/// A guest of the switch.
#[derive(Debug, Clone, Copy)]
pub struct Guest {
    /// Its logical port.
    pub port: &'static str,
    /// The index of its hypervisor.
    pub hypervisor: usize,
    /// Its MAC address.
    pub mac: &'static str,
    /// Its IPv4 address.
    pub ipv4: &'static str,
    /// Its IPv6 address.
    pub ipv6: &'static str,
}

/// Two guests on the first hypervisor, one on the second.
pub const GUESTS: [Guest; 3] = [
    Guest { port: "lp11", hypervisor: 0, mac: "00:00:00:00:01:01", ipv4: "10.0.0.11", ipv6: "fd00::11" },
    Guest { port: "lp12", hypervisor: 0, mac: "00:00:00:00:01:02", ipv4: "10.0.0.12", ipv6: "fd00::12" },
    Guest { port: "lp21", hypervisor: 1, mac: "00:00:00:00:02:01", ipv4: "10.0.0.21", ipv6: "fd00::21" },
];

/// Creates the logical switch `sw0` with a port for every guest, port security included, boots the guests and waits until all is up.
pub fn build(cloud: &mut Cloud) -> Result<()> {
    cloud.nbctl("ls-add sw0")?;
    for Guest { port, mac, ipv4, ipv6, .. } in GUESTS {
        let addresses = format!("'{mac} {ipv4} {ipv6}'");
        cloud.nbctl(&format!(
            "lsp-add sw0 {port} -- lsp-set-addresses {port} {addresses} -- lsp-set-port-security {port} {addresses}"
        ))?;
    }
    for Guest { port, hypervisor, mac, ipv4, ipv6 } in GUESTS {
        let spec = VifSpec::new(port, mac, &[&format!("{ipv4}/24"), &format!("{ipv6}/64")]);
        cloud.add_vif(hypervisor, spec).with_context(|| format!("adding {port}"))?;
    }
    cloud.sync()
}

/// Every guest reaches every other by ping, and by TCP and UDP, over IPv4 and IPv6.
pub fn everybody_reaches_everybody(cloud: &Cloud) -> Result<()> {
    for from in GUESTS {
        for to in GUESTS.iter().filter(|to| to.port != from.port) {
            let (client, server) = (cloud.vif(from.port)?.guest(), cloud.vif(to.port)?.guest());
            for address in [to.ipv4, to.ipv6] {
                probe::ping(client, address)?;
                let address: IpAddr = address.parse()?;
                probe::tcp(client, server, address, 300_000)?;
                probe::udp(client, server, address, 1000)?;
            }
        }
    }
    Ok(())
}

/// Port security: a guest that takes another address is not heard, and is heard again under its own.
pub fn spoofed_packets_are_not_heard(cloud: &Cloud) -> Result<()> {
    let guest = cloud.vif(GUESTS[0].port)?.guest();
    guest.ip("addr add 10.0.0.99/32 dev eth0")?;
    for to in &GUESTS[1..] {
        let from_stolen = ["-n", "-q", "-i", "0.01", "-W", &probe::echo_wait(), "-c", "3", "-I", "10.0.0.99", to.ipv4];
        let mut command = Command::new("ping");
        command.args(from_stolen);
        let output = guest.output(command)?;
        let answered = probe::received(&String::from_utf8_lossy(&output.stdout))?;
        ensure!(answered == 0, "{answered} of 3 spoofed echo requests to {} were answered", to.port);
    }
    guest.ip("addr del 10.0.0.99/32 dev eth0")?;
    probe::ping(guest, GUESTS[1].ipv4).map(|_| ())
}

/// Deletes a logical port, and waits until every hypervisor knows.
pub fn remove_port(cloud: &Cloud, port: &str) -> Result<()> {
    cloud.nbctl(&format!("--wait=hv lsp-del {port}")).map(|_| ())
}
