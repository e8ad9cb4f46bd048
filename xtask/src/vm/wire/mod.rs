//! Ring `wire`: two machines as two hypervisors, with wires between them.
//!
//! ```text
//!  hv1 (and the centre)                                   hv2
//!   vm1 ─ veth ─ oxbow-node                                oxbow-node ─ veth ─ vm2
//!                eth0 virtio-net ─── datagrams ─── virtio-net eth0      frames of the MTU, checksums filled in
//!                eth1 virtio-net ─ tap ─ bridge ─ tap ─ virtio-net eth1 segments of 64 KiB without checksums go through
//!                eth2 e1000e     ─── datagrams ─── e1000e     eth2      a card that segments and sums by itself
//! ```

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::wait::{Look, wait_until};
use oxbow_testkit::{Netns, link};
use oxbow_vm_tests::nic::{End, Model};
use oxbow_vm_tests::{GuestImage, GuestRoot, Kernel, Machine, Nic};
use tempfile::TempDir;

use super::lab::Lab;
use super::{cloud, ring0};

/// Databases in one, and the maps of a hypervisor.
const MEMORY: u32 = 2560;

/// How long a condition may take to become true on a processor itself.
const PATIENCE: Duration = Duration::from_secs(18);

/// How long the bytes of a TCP connection may take on a processor itself.
const TCP: Duration = Duration::from_secs(30);

/// What a Geneve frame needs beyond the guests' 1500 bytes.
const UNDERLAY_MTU: u32 = 1600;

/// Bytes that a TCP connection carries there and back.
const TCP_BYTES: u32 = 4 << 20;

/// The networks between the machines, in the order of their devices: subnets `172.31.N.0/24`, N from 1.
const UNDERLAYS: [&str; 3] =
    ["virtio-net on a wire", "virtio-net with offloads through taps and a bridge", "e1000e on a wire"];

const SCRIPTS: [(&str, &[u8]); 4] = [
    ("central.sh", include_bytes!("central.sh")),
    ("hypervisor.sh", include_bytes!("hypervisor.sh")),
    ("vif.sh", include_bytes!("vif.sh")),
    ("dump.sh", include_bytes!("dump.sh")),
];

pub(super) fn run(lab: &mut Lab, kernel: &Kernel) -> Result<String> {
    let image = image(lab, kernel)?;
    let ns = Netns::new("wire")?;
    let sockets = TempDir::with_prefix("oxbow-wire-").context("cannot make a temporary directory")?;
    link::bridge(&ns, "between")?;
    ns.ip(&format!("link set between mtu {UNDERLAY_MTU}"))?;
    let mut machines = Vec::new();
    for host in [1, 2] {
        machines.push(lab.start(&ns, &image, &format!("hv{host}"), &nics(&ns, sockets.path(), host)?, (MEMORY, 1))?);
    }
    println!("booting hv1 and hv2: Linux {} by {}", kernel.release, image.accelerator());
    machines.iter_mut().try_for_each(Machine::wait_ready)?;
    let told = tell(&mut machines);
    if told.is_err() {
        for machine in &mut machines {
            // The state is for the reader of the failure; that it cannot be had is no second failure.
            let state = machine.run("/oxbow/dump.sh 2>&1").map_or_else(|error| format!("{error:#}"), |(text, _)| text);
            println!("--- {}\n{state}", machine.name());
        }
    }
    told
}

fn image(lab: &mut Lab, kernel: &Kernel) -> Result<GuestImage> {
    let mut root = GuestRoot::new()?;
    cloud::stock(&mut root)?;
    for daemon in cloud::daemons()? {
        root.built(&daemon.path, &format!("usr/sbin/{}", daemon.name))?;
    }
    root.copy_as(&lab.object()?, "usr/lib/oxbow/oxbow-datapath.o")?;
    root.program_as("ip", "oxbow/ip")?;
    for (name, script) in SCRIPTS {
        root.file(&format!("oxbow/{name}"), 0o755, script.to_vec());
    }
    GuestImage::with(kernel, &[&ring0::MODULES[..], &["e1000e"]].concat(), root)
}

/// The devices of a host: one for every underlay.
fn nics(ns: &Netns, sockets: &Path, host: u8) -> Result<Vec<Nic>> {
    let mac = |device: u8| format!("0a:00:00:00:{device:02x}:{host:02x}");
    let socket = |wire: u8, host: u8| sockets.join(format!("wire{wire}-{host}"));
    let wire = |wire: u8| End::Wire { local: socket(wire, host), remote: socket(wire, 3 - host) };
    let tap = format!("tap{host}");
    link::tap(ns, &tap)?;
    ns.ip(&format!("link set {tap} mtu {UNDERLAY_MTU} master between"))?;
    Ok(vec![
        Nic { model: Model::Virtio { offload: true }, mac: mac(0), end: wire(0) },
        Nic::on_tap(&tap, &mac(1), true),
        // Its driver is inserted last, so it is the last device.
        Nic { model: Model::E1000e, mac: mac(2), end: wire(2) },
    ])
}

/// Builds the cloud and has its two guests talk over every underlay.
fn tell(machines: &mut [Machine]) -> Result<String> {
    let [hv1, hv2] = machines else { bail!("there are two machines") };
    for (machine, host) in [(&mut *hv1, 1), (&mut *hv2, 2)] {
        for index in 0..UNDERLAYS.len() {
            machine.check(&format!("/oxbow/ip link set eth{index} mtu {UNDERLAY_MTU} up"))?;
            machine.check(&format!("/oxbow/ip addr add {}/24 dev eth{index}", address(index, host)))?;
        }
    }
    hv1.check(&format!("/oxbow/central.sh {} 2>&1", address(0, 1)))?;
    for (machine, host) in [(&mut *hv1, 1), (&mut *hv2, 2)] {
        machine.check(&format!(
            "/oxbow/hypervisor.sh hv{host} {} tcp:{}:6642 2>&1",
            address(0, host),
            address(0, 1)
        ))?;
    }
    nbctl(hv1, "ls-add sw0")?;
    for port in [1, 2] {
        let (mac, address) = guest(port);
        nbctl(hv1, &format!("lsp-add sw0 vm{port} -- lsp-set-addresses vm{port} '{mac} {address}'"))?;
    }
    for (machine, port) in [(&mut *hv1, 1), (&mut *hv2, 2)] {
        until(machine, "br-int", "ovs-vsctl --db=unix:/run/ovs/db.sock --no-wait list-br", "br-int")?;
        let (mac, address) = guest(port);
        machine.check(&format!("/oxbow/vif.sh vm{port} {mac} {address} 2>&1"))?;
    }
    for port in [1, 2] {
        until(hv1, "a port up", &format!("ovn-nbctl --db=unix:/run/ovn/nb.sock lsp-get-up vm{port}"), "up")?;
    }
    println!("both guests are up");
    for (index, underlay) in UNDERLAYS.iter().enumerate() {
        move_to(hv1, hv2, index)?;
        let tunnelled = talk(hv1, hv2, index).with_context(|| format!("across {underlay}"))?;
        println!("  {underlay}: ping and TCP both ways; on the wire: {tunnelled}");
    }
    Ok(format!("ping and TCP across Geneve over {}", UNDERLAYS.join("; ")))
}

/// Moves the tunnel to another underlay, as an administrator does: by `ovn-encap-ip`.
fn move_to(hv1: &mut Machine, hv2: &mut Machine, index: usize) -> Result<()> {
    for (machine, host) in [(&mut *hv1, 1), (&mut *hv2, 2)] {
        let ip = address(index, host);
        machine.check(&format!(
            "ovs-vsctl --db=unix:/run/ovs/db.sock --no-wait set Open_vSwitch . external_ids:ovn-encap-ip={ip}"
        ))?;
    }
    for host in [1, 2] {
        let ip = address(index, host);
        let find = format!("ovn-sbctl --db=unix:/run/ovn/sb.sock --bare --columns=ip find Encap chassis_name=hv{host}");
        until(hv1, "the tunnel's new end in SB", &find, &ip)?;
    }
    nbctl(hv1, "--wait=hv --timeout=120 sync").map(|_| ())
}

/// Ping and TCP in both directions, and a frame of it as the underlay carries it.
fn talk(hv1: &mut Machine, hv2: &mut Machine, index: usize) -> Result<String> {
    hv2.check(&format!(
        "rm -f /tmp/capture; (timeout 300 tcpdump -c 1 -nevvl -i eth{index} 'udp port 6081 and greater 100' >/tmp/capture 2>&1 &)"
    ))?;
    until(hv2, "tcpdump", "cat /tmp/capture", "listening on")?;
    for (client, from, to) in [(&mut *hv1, 1, 2), (&mut *hv2, 2, 1)] {
        let (_, address) = guest(to);
        let inside = format!("/oxbow/ip netns exec vm{from}");
        until(client, "an echo reply", &format!("{inside} ping -n -c 1 -W 2 {address}"), " 0% packet loss")?;
        let answered = client.check(&format!("{inside} ping -n -q -c 20 -i 0.05 -W 5 -s 1400 {address}"))?;
        ensure!(answered.contains(" 20 received"), "echo requests were lost:\n{answered}");
        client.check(&format!("head -c {TCP_BYTES} /dev/urandom >/tmp/sent"))?;
        let nc = format!("{inside} nc {address} 7000 </tmp/sent >/tmp/received");
        let (_, status) = client.run_within(&nc, TCP, |_| ())?;
        ensure!(status == 0, "`{nc}` ended with status {status}");
        client.check("cmp /tmp/sent /tmp/received").context("other bytes came back by TCP")?;
    }
    let capture = until(hv2, "a frame of the tunnel", "cat /tmp/capture", "Geneve")?;
    let line = capture.lines().find(|line| line.contains("Geneve")).unwrap_or_default();
    Ok(line.split(": ").last().unwrap_or(line).trim().to_owned())
}

/// Runs a command until it prints `sign`, and returns what it printed then.
fn until(machine: &mut Machine, what: &str, command: &str, sign: &str) -> Result<String> {
    let deadline = machine.accelerator().deadline(PATIENCE);
    wait_until(&format!("{what} ({sign:?} from `{command}` in {})", machine.name()), deadline, || {
        let (text, status) = machine.run(&format!("{command} 2>&1"))?;
        Ok(if text.contains(sign) { Look::Held(text) } else { Look::NotYet(format!("status {status}: {text}")) })
    })
}

fn nbctl(machine: &mut Machine, arguments: &str) -> Result<String> {
    machine.check(&format!("ovn-nbctl --db=unix:/run/ovn/nb.sock {arguments} 2>&1"))
}

/// The address of a host on an underlay.
fn address(underlay: usize, host: u8) -> String {
    format!("172.31.{}.{}", underlay + 1, 10 + host)
}

/// MAC and IP address of a guest.
fn guest(number: u8) -> (String, String) {
    (format!("0a:00:00:00:aa:{number:02x}"), format!("10.0.0.{number}"))
}
