//! Runs inside a virtual machine: does this kernel take the programs?
//!
//! `oxbow-vm-probe OBJECT DEVICE` mounts a bpffs, loads the object as the daemon would, attaches both programs to the device by what the
//! kernel has (tcx or clsact), removes everything again, and prints one line for each.
#![allow(clippy::print_stdout, reason = "what it prints is what the host reads")]

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use oxbow_backend_bpf::kernel::{Config, HookChoice, Instance, Role, Sizes};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let object = arguments.next().context("the first argument is the object")?;
    let device = arguments.next().context("the second argument is a device")?;
    let bpffs = PathBuf::from("/sys/fs/bpf");
    let none: Option<&str> = None;
    mount(Some("bpffs"), &bpffs, Some("bpf"), MsFlags::empty(), none).context("cannot mount a bpffs")?;
    let config = Config {
        bpffs,
        system_id: "probe".to_owned(),
        object: std::fs::read(&object).with_context(|| format!("cannot read {object}"))?,
        sizes: Sizes::default(),
        hook: HookChoice::Auto,
    };
    let mut instance = Instance::load(&config)?;
    println!("loaded; programs are attached by {:?}", instance.hook());
    let ifindex = std::fs::read_to_string(Path::new("/sys/class/net").join(&device).join("ifindex"));
    let ifindex = ifindex.with_context(|| format!("there is no device {device}"))?.trim().parse()?;
    for role in [Role::Vif, Role::Underlay] {
        instance.attach(&device, ifindex, role)?;
        println!("attached to {device} as {role:?}");
        instance.detach(ifindex, role)?;
    }
    instance.remove_everything()?;
    println!("removed");
    Ok(())
}
