//! The life of VIFs against real databases and stock northd.

mod host;

use anyhow::Result;
use host::Host;
use oxbow_testkit::Northd;

#[test]
fn a_vif_is_claimed_marked_up_and_released() -> Result<()> {
    Host::run(Northd::Stock, |host| {
        host.switch("sw0", &["lp0", "lp1"])?;
        host.tap("tap0")?;
        host.vsctl("add-port br-int tap0 -- set Interface tap0 external_ids:iface-id=lp0")?;
        host.until_up("lp0")?;
        let chassis = host.sb("--bare --columns=_uuid list Chassis")?;
        assert_eq!(host.binding("lp0", "chassis")?, chassis.trim());
        host.until_equal("ovn-installed", "true", |host| host.interface_id("tap0", "ovn-installed"))?;
        assert!(host.interface_id("tap0", "ovn-installed-ts")?.parse::<u64>()? > 1_600_000_000_000);
        host.nb("--wait=hv sync")?;
        host.until_equal("NB says up", "up", |host| host.nb("lsp-get-up lp0"))?;
        assert!(host.appctl("debug/ports")?.contains("tap0 lp0 installed"));
        host.vsctl("del-port br-int tap0")?;
        host.until_equal("released", "false", |host| host.binding("lp0", "up"))?;
        assert_eq!(host.binding("lp0", "chassis")?, "");
        Ok(())
    })
}
