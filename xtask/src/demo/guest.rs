//! What the demonstration does inside guests, whatever they are.

use std::cell::RefCell;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oxbow_testkit::vif::GUEST_DEVICE;
use oxbow_testkit::wait::{Look, PATIENCE, wait_until};
use oxbow_testkit::{Netns, probe};
use oxbow_vm_tests::Machine;
use oxbow_vm_tests::machine::ECHO_PORT;

/// The inside of a guest.
#[derive(Clone, Copy)]
pub(super) enum Guest<'a> {
    /// A network namespace.
    Namespace(&'a Netns),
    /// A virtual machine, which takes one command at a time.
    Machine(&'a RefCell<Machine>),
}

/// How long bytes may take to a virtual machine and back, on a processor itself.
const TCP: Duration = Duration::from_secs(30);

/// How many seconds a virtual machine's `ping` waits for an answer.
fn echo_wait(machine: &Machine) -> u64 {
    machine.accelerator().deadline(Duration::from_secs(1)).as_secs()
}

impl Guest<'_> {
    /// Pings until an answer comes, and returns its line.
    pub(super) fn ping(self, to: &str) -> Result<String> {
        match self {
            Self::Namespace(ns) => probe::ping(ns, to),
            Self::Machine(machine) => {
                let mut machine = machine.borrow_mut();
                let patience = machine.accelerator().deadline(PATIENCE);
                let command = format!("ping -c 1 -W {} {to}", echo_wait(&machine));
                wait_until(&format!("an echo reply from {to}"), patience, || {
                    let (text, _) = machine.run(&command)?;
                    let answer = text.lines().find(|line| line.contains("time=")).map(str::to_owned);
                    Ok(answer.map_or_else(|| Look::NotYet(text), Look::Held))
                })
            }
        }
    }

    /// Sends `count` echo requests and returns how many were answered.
    pub(super) fn ping_count(self, to: &str, count: u32) -> Result<u32> {
        match self {
            Self::Namespace(ns) => probe::ping_count(ns, to, count),
            Self::Machine(machine) => {
                let mut machine = machine.borrow_mut();
                let command = format!("ping -q -c {count} -W {} {to}", echo_wait(&machine));
                let (text, _) = machine.run(&command)?;
                probe::received(&text)
            }
        }
    }

    /// Sends `bytes` bytes to `server` by TCP and has them come back unchanged.
    pub(super) fn tcp(self, server: Self, address: &str, bytes: usize) -> Result<()> {
        match (self, server) {
            (Self::Namespace(from), Self::Namespace(to)) => {
                let address: IpAddr = address.parse().with_context(|| format!("{address} is no address"))?;
                probe::tcp(from, to, address, bytes)
            }
            (Self::Machine(client), Self::Machine(_)) => {
                let mut client = client.borrow_mut();
                client.check(&format!("head -c {bytes} /dev/urandom >/tmp/sent"))?;
                let nc = format!("nc {address} {ECHO_PORT} </tmp/sent >/tmp/received");
                let (_, status) = client.run_within(&nc, TCP, |_| ())?;
                ensure!(status == 0, "`{nc}` ended with status {status}");
                client.check("cmp /tmp/sent /tmp/received").context("other bytes came back")?;
                let size = client.check("stat -c %s /tmp/received")?;
                ensure!(size.trim() == bytes.to_string(), "{size} of {bytes} bytes came back");
                Ok(())
            }
            _ => bail!("a namespace and a virtual machine do not talk in one demonstration"),
        }
    }

    /// Sends echo requests under an address that is not the guest's own, and returns how many were answered.
    pub(super) fn spoof(self, source: &str, to: &str, count: u32) -> Result<u32> {
        let (add, delete) =
            (format!("addr add {source}/32 dev {GUEST_DEVICE}"), format!("addr del {source}/32 dev {GUEST_DEVICE}"));
        match self {
            Self::Namespace(ns) => {
                ns.ip(&add)?;
                let mut command = Command::new("ping");
                command.args(["-n", "-q", "-i", "0.01", "-W", "1", "-c", &count.to_string(), "-I", source, to]);
                let output = ns.output(command);
                ns.ip(&delete)?;
                probe::received(&String::from_utf8_lossy(&output?.stdout))
            }
            Self::Machine(machine) => {
                let mut machine = machine.borrow_mut();
                machine.check(&format!("ip {add}"))?;
                let command = format!("ping -q -c {count} -W {} -I {source} {to}", echo_wait(&machine));
                let (text, _) = machine.run(&command)?;
                machine.check(&format!("ip {delete}"))?;
                probe::received(&text)
            }
        }
    }
}
