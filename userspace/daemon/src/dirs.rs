//! The standard directories and the defaults of the databases' remotes, from the environment.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directories OVN's daemons work in. Each is taken from the environment variable named at its field, or is
/// Debian's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dirs {
    /// `OVN_RUNDIR`, `/var/run/ovn`: pidfile and control socket.
    pub ovn_run: PathBuf,
    /// `OVN_LOGDIR`, else `OVS_LOGDIR` (which is where stock looks), else `/var/log/ovn`.
    pub ovn_log: PathBuf,
    /// `OVN_DBDIR`, `/var/lib/ovn`.
    pub ovn_db: PathBuf,
    /// `OVN_SYSCONFDIR`, `/etc/ovn`: for instance `system-id-override`.
    pub ovn_sysconf: PathBuf,
    /// `OVS_RUNDIR`, `/var/run/openvswitch`: the hypervisor's `db.sock`.
    pub ovs_run: PathBuf,
    /// `OVS_LOGDIR`, `/var/log/openvswitch`.
    pub ovs_log: PathBuf,
    /// `OVS_DBDIR`, `/var/lib/openvswitch`.
    pub ovs_db: PathBuf,
    /// `OVS_SYSCONFDIR`, `/etc/openvswitch`.
    pub ovs_sysconf: PathBuf,
    ovn_nb_db: Option<String>,
    ovn_sb_db: Option<String>,
}

impl Dirs {
    /// Reads this process's environment.
    pub fn from_env() -> Dirs {
        Dirs::from_lookup(|name| env::var_os(name))
    }

    /// Reads an environment given as a function; empty values count as unset, as in OVS.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Dirs {
        let get = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let dir = |name: &str, default: &str| PathBuf::from(get(name).unwrap_or_else(|| default.into()));
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        Dirs {
            ovn_run: dir("OVN_RUNDIR", "/var/run/ovn"),
            ovn_log: PathBuf::from(
                get("OVN_LOGDIR").or_else(|| get("OVS_LOGDIR")).unwrap_or_else(|| "/var/log/ovn".into()),
            ),
            ovn_db: dir("OVN_DBDIR", "/var/lib/ovn"),
            ovn_sysconf: dir("OVN_SYSCONFDIR", "/etc/ovn"),
            ovs_run: dir("OVS_RUNDIR", "/var/run/openvswitch"),
            ovs_log: dir("OVS_LOGDIR", "/var/log/openvswitch"),
            ovs_db: dir("OVS_DBDIR", "/var/lib/openvswitch"),
            ovs_sysconf: dir("OVS_SYSCONFDIR", "/etc/openvswitch"),
            ovn_nb_db: text("OVN_NB_DB"),
            ovn_sb_db: text("OVN_SB_DB"),
        }
    }

    /// Default remote of the Northbound database: `OVN_NB_DB`, else `unix:<rundir>/ovnnb_db.sock`.
    pub fn default_nb_remote(&self) -> String {
        self.ovn_nb_db.clone().unwrap_or_else(|| format!("unix:{}/ovnnb_db.sock", self.ovn_run.display()))
    }

    /// Default remote of the Southbound database: `OVN_SB_DB`, else `unix:<rundir>/ovnsb_db.sock`.
    pub fn default_sb_remote(&self) -> String {
        self.ovn_sb_db.clone().unwrap_or_else(|| format!("unix:{}/ovnsb_db.sock", self.ovn_run.display()))
    }

    /// Default remote of the hypervisor's Open_vSwitch database: `unix:<OVS rundir>/db.sock`.
    pub fn default_ovs_remote(&self) -> String {
        format!("unix:{}/db.sock", self.ovs_run.display())
    }

    /// Completes every `unix:FILE` of a comma-separated remote list: a relative FILE lies in the OVS run directory
    /// (ovsdb(7)), and must mean the same after the daemon has changed to `/`.
    pub fn resolve_remotes(&self, remotes: &str) -> String {
        remotes
            .split(',')
            .map(|remote| match remote.trim().strip_prefix("unix:") {
                Some(file) if !file.starts_with('/') && !file.is_empty() => {
                    format!("unix:{}", self.ovs_run.join(file).display())
                }
                _ => remote.trim().to_owned(),
            })
            .collect::<Vec<_>>()
            .join(",")
    }
}

/// `file` itself if absolute, else inside `dir`, made absolute with the current directory: what a path on the command
/// line means must not depend on a later `chdir("/")`.
pub fn absolute_in(dir: &Path, file: &Path) -> PathBuf {
    let joined = dir.join(file);
    std::path::absolute(&joined).unwrap_or(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &'static [(&'static str, &'static str)]) -> Dirs {
        Dirs::from_lookup(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn defaults_are_debians() {
        let dirs = with(&[("OVN_RUNDIR", "")]);
        assert_eq!(dirs.default_nb_remote(), "unix:/var/run/ovn/ovnnb_db.sock");
        assert_eq!(dirs.default_sb_remote(), "unix:/var/run/ovn/ovnsb_db.sock");
        assert_eq!(dirs.default_ovs_remote(), "unix:/var/run/openvswitch/db.sock");
        assert_eq!(dirs.ovn_log, Path::new("/var/log/ovn"));
    }

    #[test]
    fn the_environment_wins() {
        let dirs = with(&[("OVN_RUNDIR", "/r"), ("OVS_LOGDIR", "/l"), ("OVN_SB_DB", "ssl:[::1]:6642")]);
        assert_eq!(dirs.default_nb_remote(), "unix:/r/ovnnb_db.sock");
        assert_eq!(dirs.default_sb_remote(), "ssl:[::1]:6642");
        assert_eq!(dirs.ovn_log, Path::new("/l"));
    }

    #[test]
    fn relative_unix_remotes_lie_in_the_ovs_run_directory() {
        let dirs = with(&[("OVS_RUNDIR", "/ovs")]);
        assert_eq!(
            dirs.resolve_remotes("unix:sb.sock, tcp:127.0.0.1:6642,unix:/x/y"),
            "unix:/ovs/sb.sock,tcp:127.0.0.1:6642,unix:/x/y"
        );
    }
}
