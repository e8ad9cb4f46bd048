//! Under whose names a daemon runs.
//!
//! A host's other software finds OVN's daemons by name: `ovn-appctl -t ovn-northd` reads `ovn-northd.pid`, `ovn-ctl`
//! compares `/proc/PID/comm`, ovn-kubernetes splits the version text. Started through a link called as the stock daemon
//! an Oxbow daemon therefore answers under the stock name, with the version it is a drop-in for.

use std::ffi::OsStr;
use std::path::Path;

/// Version of OVN whose interface the daemons reproduce (the first flow profile), as `version` prints it.
pub const OVN_VERSION: &str = "23.03.1";
/// Version of the Open vSwitch library which that OVN release is built with; clients parse it from the second line.
pub const OVS_VERSION: &str = "3.1.0";
/// What stock 23.03.1 calls itself in `northd_internal_version`: OVN version, SB schema version, and the number of
/// actions and the internal minor version that controllers compare (`ovn-match-northd-version`).
pub const OVN_INTERNAL_VERSION: &str = "23.03.1-20.27.0-70.6";

/// Which of OVN's two daemons a process stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The central translator from the Northbound to the Southbound database.
    Northd,
    /// The controller of one hypervisor.
    Controller,
}

impl Role {
    /// The stock daemon's program name.
    pub fn stock_name(self) -> &'static str {
        match self {
            Role::Northd => "ovn-northd",
            Role::Controller => "ovn-controller",
        }
    }

    /// Oxbow's own program name.
    pub fn own_name(self) -> &'static str {
        match self {
            Role::Northd => "oxbow-northd",
            Role::Controller => "oxbow-node",
        }
    }
}

/// The names a process goes by: program, pidfile, log file, control socket, version text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Which daemon this is, whatever its name.
    pub role: Role,
    /// Program name used in file names, messages and log lines.
    pub program: &'static str,
}

impl Identity {
    /// Takes the stock names if the last component of `argv0` is the stock daemon's name, Oxbow's own otherwise.
    pub fn from_argv0(role: Role, argv0: &OsStr) -> Identity {
        let called = Path::new(argv0).file_name().unwrap_or(argv0);
        let program = if called == role.stock_name() { role.stock_name() } else { role.own_name() };
        Identity { role, program }
    }

    /// Reads `argv[0]` of this process.
    pub fn of_process(role: Role) -> Identity {
        let argv0 = std::env::args_os().next().unwrap_or_default();
        Identity::from_argv0(role, &argv0)
    }

    /// True if the process answers under the stock daemon's name.
    pub fn is_stock(&self) -> bool {
        self.program == self.role.stock_name()
    }

    /// What `-V` and appctl `version` print: two lines, each ended by a newline. The stock names carry stock's versions,
    /// since clients compare them with what they were built for.
    pub fn version_text(&self) -> String {
        if self.is_stock() {
            format!("{} {OVN_VERSION}\nOpen vSwitch Library {OVS_VERSION}\n", self.program)
        } else {
            format!("{} {}\nCompatible with OVN {OVN_VERSION}\n", self.program, env!("CARGO_PKG_VERSION"))
        }
    }

    /// `PROGRAM.pid`
    pub fn pidfile_name(&self) -> String {
        format!("{}.pid", self.program)
    }

    /// `PROGRAM.log`
    pub fn log_file_name(&self) -> String {
        format!("{}.log", self.program)
    }

    /// `PROGRAM.PID.ctl`
    pub fn ctl_name(&self, pid: u32) -> String {
        format!("{}.{pid}.ctl", self.program)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_named_as_the_stock_daemon_takes_its_names() {
        let stock = Identity::from_argv0(Role::Northd, OsStr::new("/usr/bin/ovn-northd"));
        assert!(stock.is_stock());
        assert_eq!(stock.version_text(), "ovn-northd 23.03.1\nOpen vSwitch Library 3.1.0\n");
        assert_eq!(stock.ctl_name(17), "ovn-northd.17.ctl");
        let controller = Identity::from_argv0(Role::Controller, OsStr::new("ovn-controller"));
        assert_eq!(controller.version_text(), "ovn-controller 23.03.1\nOpen vSwitch Library 3.1.0\n");
    }

    #[test]
    fn any_other_name_is_our_own() {
        for called in ["oxbow-northd", "./x/ovn-controller", "northd", ""] {
            let own = Identity::from_argv0(Role::Northd, OsStr::new(called));
            assert_eq!(own.program, "oxbow-northd", "called as {called:?}");
            assert!(own.version_text().starts_with("oxbow-northd "));
            assert_eq!(own.version_text().lines().count(), 2);
        }
    }
}
