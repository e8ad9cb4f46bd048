//! Southbound access over TLS with the role `ovn-controller`, which allows few columns and only whole ones.

mod host;

use anyhow::{Result, ensure};
use host::Host;
use oxbow_testkit::frames::Frames;
use oxbow_testkit::wait::{Look, PATIENCE};
use oxbow_testkit::{Northd, OvsdbServer, Process, link, wait_until};
use std::path::Path;
use std::process::Command;

/// A certificate authority in `directory` with identities for the server and for chassis `hv1`.
fn pki(directory: &Path) -> Result<()> {
    let dir = format!("--dir={}", directory.join("pki").display());
    let log = format!("--log={}", directory.join("pki.log").display());
    for args in [&["init"][..], &["req+sign", "sb", "switch"], &["req+sign", "hv1", "switch"]] {
        let output = Command::new("ovs-pki")
            .args([&dir, &log])
            .args(["--force", "-B", "2048"])
            .args(args)
            .current_dir(directory)
            .output()?;
        ensure!(output.status.success(), "ovs-pki {args:?}: {output:?}");
    }
    // `ovs-pki` makes the common name "hv1 id:<uuid>"; the role compares it with the chassis name, so ours is made by hand.
    let certificate = Command::new("sh")
        .arg("-c")
        .arg(
            "echo subjectAltName=DNS:hv1 > hv1.ext && openssl req -new -key hv1-privkey.pem -subj /CN=hv1 -out hv1.req && \
             openssl x509 -req -in hv1.req -CA pki/switchca/cacert.pem -CAkey pki/switchca/private/cakey.pem -CAcreateserial -days 2 \
             -sha512 -extfile hv1.ext -out hv1-cert.pem",
        )
        .current_dir(directory)
        .output()?;
    ensure!(certificate.status.success(), "{certificate:?}");
    Ok(())
}

/// A Southbound database that listens with TLS, and a northd on it (which writes the roles).
fn secured(host: &Host) -> Result<(OvsdbServer, Process, String)> {
    let dir = host.dir.path();
    pki(dir)?;
    let file = |name: &str| dir.join(name).display().to_string();
    let sb = OvsdbServer::builder("sb-tls")
        .schema(oxbow_testkit::ovsdb::SB_SCHEMA)
        .directory(dir)
        .namespace(&host.ns)
        .argument(format!("--private-key={}", file("sb-privkey.pem")))
        .argument(format!("--certificate={}", file("sb-cert.pem")))
        .argument(format!("--ca-cert={}", file("pki/switchca/cacert.pem")))
        .argument("--remote=db:OVN_Southbound,SB_Global,connections")
        .start()?;
    sb.sbctl("init")?;
    sb.sbctl("set-connection role=ovn-controller pssl:16642:127.0.0.1")?;
    let mut northd = Command::new(oxbow_testkit::artifacts::require_program("ovn-northd")?);
    northd.arg(format!("--ovnnb-db={}", host.central.nb().remote())).arg(format!("--ovnsb-db={}", sb.remote()));
    northd.arg(format!("--unixctl={}", file("northd-tls.ctl"))).arg("--no-chdir").env("OVN_RUNDIR", dir);
    let northd = host.ns.spawn("northd-tls", northd, &host.path("northd-tls.log"))?;
    wait_until("the roles", PATIENCE, || {
        let roles = sb.sbctl("--bare --columns=name list RBAC_Role")?;
        Ok(Look::when(roles.contains("ovn-controller"), || roles))
    })?;
    Ok((sb, northd, "ssl:127.0.0.1:16642".to_owned()))
}

/// Binds a port as additional chassis and has its guest say that it runs here: both are updates of Port_Binding.
fn activate_a_second_place(host: &Host, sb: &OvsdbServer) -> Result<()> {
    sb.sbctl("chassis-add hv2 geneve 192.0.2.2")?;
    host.nb("lsp-add sw0 lp1 -- lsp-set-options lp1 requested-chassis=hv2,hv1 activation-strategy=rarp")?;
    link::veth(&host.ns, "vif1", &host.ns, "guest1")?;
    host.vsctl("add-port br-int vif1 -- set Interface vif1 external_ids:iface-id=lp1")?;
    host.until("it waits", |host| {
        let ports = host.appctl("debug/ports")?;
        Ok(Look::when(ports.contains("waits for activation (rarp)"), || ports.clone()))
    })?;
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 1]].concat();
    frame.extend([0x80, 0x35]);
    frame.resize(60, 0);
    Frames::open(&host.ns, "guest1")?.send(&frame)?;
    host.until("listed as active", |_| {
        let options = sb.sbctl("--bare --columns=options find Port_Binding logical_port=lp1")?;
        Ok(Look::when(options.contains("additional-chassis-activated=hv1"), || options.clone()))
    })?;
    sb.sbctl("chassis-del hv2").map(|_| ())
}

#[test]
fn everything_is_written_with_the_role_ovn_controller() -> Result<()> {
    let mut host = Host::new(Northd::None)?;
    let (sb, _northd, remote) = secured(&host)?;
    let file = |name: &str| host.path(name).display().to_string();
    let files = [
        format!("--private-key={}", file("hv1-privkey.pem")),
        format!("--certificate={}", file("hv1-cert.pem")),
        format!("--ca-cert={}", file("pki/switchca/cacert.pem")),
    ];
    host.arguments.extend(files);
    host.ovs.vsctl_no_wait(&format!("set Open_vSwitch . external_ids:ovn-remote=\"{remote}\""))?;
    host.start()?;
    host.tell(|host| {
        host.until_equal("registered", "hv1", |_| sb.sbctl("--bare --columns=name list Chassis"))?;
        host.switch("sw0", &["lp0"])?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        let binding = |column: &str| sb.sbctl(&format!("--bare --columns={column} find Port_Binding logical_port=lp0"));
        host.until_equal("up", "true", |_| binding("up"))?;
        host.nb("--timeout=30 --wait=hv sync")?;
        // Updates of every column that we write: encapsulation, zones, options, generation.
        host.vsctl("set Open_vSwitch . external_ids:ovn-encap-ip=192.0.2.5 external_ids:ovn-transport-zones=z external_ids:ovn-cms-options=o")?;
        host.until_equal("address", "192.0.2.5", |_| sb.sbctl("--bare --columns=ip list Encap"))?;
        host.until_equal("zone", "z", |_| sb.sbctl("--bare --columns=transport_zones list Chassis"))?;
        host.vsctl("del-port br-int tap0")?;
        host.until_equal("released", "false", |_| binding("up"))?;
        activate_a_second_place(host, &sb)?;
        host.nb("--timeout=30 --wait=hv sync")?;
        let log = std::fs::read_to_string(host.path("node.log"))?;
        ensure!(!log.contains("transaction error"), "{log}");
        host.exit("exit")?;
        ensure!(sb.sbctl("--bare --columns=name list Chassis")?.trim().is_empty());
        Ok(())
    })
}
