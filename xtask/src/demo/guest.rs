//! What the demonstration does inside guests, whatever they are.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use oxbow_testkit::vif::GUEST_DEVICE;
use oxbow_testkit::{Netns, probe};

/// The inside of a guest.
#[derive(Clone, Copy)]
pub(super) enum Guest<'a> {
    /// A network namespace.
    Namespace(&'a Netns),
}

impl Guest<'_> {
    /// Pings until an answer comes, and returns its line.
    pub(super) fn ping(self, to: &str) -> Result<String> {
        match self {
            Self::Namespace(ns) => probe::ping(ns, to),
        }
    }

    /// Sends `count` echo requests and returns how many were answered.
    pub(super) fn ping_count(self, to: &str, count: u32) -> Result<u32> {
        match self {
            Self::Namespace(ns) => probe::ping_count(ns, to, count),
        }
    }

    /// Sends `bytes` bytes to `server` by TCP and has them come back unchanged.
    pub(super) fn tcp(self, server: Self, address: &str, bytes: usize) -> Result<()> {
        let address: IpAddr = address.parse().with_context(|| format!("{address} is no address"))?;
        match (self, server) {
            (Self::Namespace(from), Self::Namespace(to)) => probe::tcp(from, to, address, bytes),
        }
    }

    /// Sends echo requests under an address that is not the guest's own, and returns how many were answered.
    pub(super) fn spoof(self, source: &str, to: &str, count: u32) -> Result<u32> {
        let Self::Namespace(ns) = self;
        ns.ip(&format!("addr add {source}/32 dev {GUEST_DEVICE}"))?;
        let count = count.to_string();
        let mut command = std::process::Command::new("ping");
        command.args(["-n", "-q", "-i", "0.01", "-W", "1", "-c", &count, "-I", source, to]);
        let output = ns.output(command);
        ns.ip(&format!("addr del {source}/32 dev {GUEST_DEVICE}"))?;
        probe::received(&output?)
    }
}
