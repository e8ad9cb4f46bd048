//! Devices between namespaces.

use anyhow::Result;

use crate::netns::Netns;

/// Makes a veth pair: `a_name` in `a`, `b_name` in `b`, both up.
///
/// # Errors
///
/// When a name is taken or longer than 15 bytes.
pub fn veth(a: &Netns, a_name: &str, b: &Netns, b_name: &str) -> Result<()> {
    let b_path = b.path();
    a.ip(&format!("link add {a_name} type veth peer name {b_name} netns {}", b_path.display()))?;
    a.ip(&format!("link set {a_name} up"))?;
    b.ip(&format!("link set {b_name} up"))?;
    Ok(())
}

/// Makes a persistent tap device, up; whoever opens it becomes the guest's side.
pub fn tap(ns: &Netns, name: &str) -> Result<()> {
    ns.ip(&format!("tuntap add dev {name} mode tap vnet_hdr"))?;
    ns.ip(&format!("link set {name} up"))?;
    Ok(())
}

/// Makes a kernel bridge, up, that forwards at once.
pub fn bridge(ns: &Netns, name: &str) -> Result<()> {
    ns.ip(&format!("link add {name} type bridge forward_delay 0 mcast_snooping 0"))?;
    ns.ip(&format!("link set {name} up"))?;
    Ok(())
}

/// Adds an address such as `10.0.0.1/24` or `fd00::1/64`. IPv6 addresses are usable at once: no duplicate detection.
pub fn address(ns: &Netns, device: &str, address: &str) -> Result<()> {
    let nodad = if address.contains(':') { "nodad" } else { "" };
    ns.ip(&format!("addr add {address} dev {device} {nodad}"))?;
    Ok(())
}

/// Turns every offload off that makes frames incomplete or larger than the wire would carry.
///
/// A userspace datapath (ovs-vswitchd's netdev) takes frames through packet sockets: its conntrack drops those whose checksum the sender
/// left to the device, and it cannot segment.
pub fn no_offload(ns: &Netns, device: &str) -> Result<()> {
    let off = ["tx", "off", "tso", "off", "gso", "off", "gro", "off", "sg", "off"];
    ns.run("ethtool", &[&["-K", device][..], &off].concat())?;
    Ok(())
}
