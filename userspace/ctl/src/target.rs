//! Where the daemon listens: found as ovn-appctl(8) finds it.

use anyhow::{Result, bail};
use oxbow_daemon::{Dirs, pidfile};
use std::path::{Path, PathBuf};

/// Names that oxbow-node runs under.
const NAMES: [&str; 2] = ["oxbow-node", "ovn-controller"];

/// The control socket of the daemon named, or of the one that runs.
///
/// # Errors
/// No daemon runs here, and what to do.
pub(crate) fn find(target: Option<&str>) -> Result<PathBuf> {
    find_in(&Dirs::from_env().ovn_run, target)
}

fn find_in(directory: &Path, target: Option<&str>) -> Result<PathBuf> {
    match target {
        Some(path) if path.contains('/') => Ok(path.into()),
        Some(name) => match of_daemon(directory, name)? {
            Some(path) => Ok(path),
            None => bail!(
                "no {name} runs here: {} is missing or not locked",
                directory.join(format!("{name}.pid")).display()
            ),
        },
        None => {
            for name in NAMES {
                if let Some(path) = of_daemon(directory, name)? {
                    return Ok(path);
                }
            }
            bail!(
                "no oxbow-node runs here: neither oxbow-node.pid nor ovn-controller.pid in {} is locked; start it with --pidfile, \
                 name its control socket with --target, or set OVN_RUNDIR; `oxbow check` looks whether this host can run it",
                directory.display()
            )
        }
    }
}

fn of_daemon(directory: &Path, name: &str) -> Result<Option<PathBuf>> {
    let owner = pidfile::owner(&directory.join(format!("{name}.pid")))?;
    Ok(owner.map(|pid| directory.join(format!("{name}.{pid}.ctl"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_daemon_it_is_said_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = find_in(directory.path(), None).unwrap_err().to_string();
        assert!(error.contains("--pidfile") && error.contains("oxbow check"), "{error}");
        // A file that nobody holds is a dead daemon's.
        std::fs::write(directory.path().join("oxbow-node.pid"), "1\n").unwrap();
        assert!(find_in(directory.path(), None).is_err());
        let error = find_in(directory.path(), Some("oxbow-node")).unwrap_err().to_string();
        assert!(error.contains("oxbow-node.pid"), "{error}");
        assert_eq!(find_in(directory.path(), Some("./x.ctl")).unwrap(), Path::new("./x.ctl"));
    }
}
