//! The pidfile and the lock that makes it believable (host contract R-1).
//!
//! Clients take a pidfile's pid only while an `fcntl` write lock is held on the file; an unlocked one is stale. Such a
//! lock is lost as soon as *any* descriptor of the file is closed by the process that holds it, hence the file is opened
//! once here and never again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};

/// Why a pidfile could not be taken or read.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    /// Another living process holds it.
    #[error("{}: already running as pid {pid}, aborting", path.display())]
    AlreadyRunning {
        /// The pidfile.
        path: PathBuf,
        /// Its owner.
        pid: i32,
    },
    /// A system call on the file failed.
    #[error("{}: {what}: {source}", path.display())]
    Io {
        /// The pidfile, or the temporary file that was to become it.
        path: PathBuf,
        /// The call, as in "open" or "lock".
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

fn failed<'a>(path: &'a Path, what: &'static str) -> impl FnOnce(io::Error) -> PidfileError + 'a {
    move |source| PidfileError::Io { path: path.to_owned(), what, source }
}

fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// A pidfile that this process owns for as long as the value lives; dropping it removes the file.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    // Never closed before the process ends: see the module's comment.
    _locked: File,
    inode: (u64, u64),
}

impl Pidfile {
    /// Writes this process's pid to `path` and locks it.
    ///
    /// The file is prepared under a temporary name and linked into place, so nobody sees one that is empty or not yet
    /// locked, and of two daemons starting at once one wins. A stale file is replaced. With `overwrite` a file
    /// that a living process holds is replaced too.
    ///
    /// # Errors
    /// [`PidfileError::AlreadyRunning`] if a living process holds `path` and `overwrite` is false;
    /// [`PidfileError::Io`] if the directory cannot be written.
    pub fn acquire(path: &Path, overwrite: bool) -> Result<Pidfile, PidfileError> {
        let pid = std::process::id();
        let temporary = PathBuf::from(format!("{}.tmp{pid}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&temporary)
            .map_err(failed(&temporary, "create"))?;
        let taken = Pidfile::lock_and_place(&mut file, &temporary, path, pid, overwrite);
        if taken.is_err() {
            // Nothing holds the temporary name any more; what failed is in the error already.
            let _ = std::fs::remove_file(&temporary);
        }
        taken?;
        let status = file.metadata().map_err(failed(path, "stat"))?;
        Ok(Pidfile { path: path.to_owned(), _locked: file, inode: (status.dev(), status.ino()) })
    }

    fn lock_and_place(
        file: &mut File,
        temporary: &Path,
        path: &Path,
        pid: u32,
        overwrite: bool,
    ) -> Result<(), PidfileError> {
        writeln!(file, "{pid}").map_err(failed(temporary, "write"))?;
        fcntl(&*file, FcntlArg::F_SETLK(&write_lock())).map_err(io::Error::from).map_err(failed(temporary, "lock"))?;
        if overwrite {
            return std::fs::rename(temporary, path).map_err(failed(path, "rename"));
        }
        loop {
            match std::fs::hard_link(temporary, path) {
                Ok(()) => return std::fs::remove_file(temporary).map_err(failed(temporary, "unlink")),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if let Some(pid) = owner(path)? {
                        return Err(PidfileError::AlreadyRunning { path: path.to_owned(), pid });
                    }
                    match std::fs::remove_file(path) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(failed(path, "unlink")(error));
                        }
                        _ => {}
                    }
                }
                Err(error) => return Err(failed(path, "link")(error)),
            }
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file if it is still ours (`--overwrite-pidfile` may have given the name to another process).
    pub fn remove(&self) {
        let ours = std::fs::metadata(&self.path).is_ok_and(|status| (status.dev(), status.ino()) == self.inode);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(target: "daemon_unix", "{}: unlink failed ({error})", self.path.display());
        }
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The pid of the living process that holds `path`, if any: a missing or unlocked file has no owner.
///
/// Must not be asked about a pidfile that this process itself owns, since closing it again would drop the lock.
///
/// # Errors
/// [`PidfileError::Io`] if the file is there and cannot be opened or read.
pub fn owner(path: &Path) -> Result<Option<i32>, PidfileError> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, "open")(error)),
    };
    let mut probe = write_lock();
    fcntl(&file, FcntlArg::F_GETLK(&mut probe)).map_err(io::Error::from).map_err(failed(path, "query lock"))?;
    if probe.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(None);
    }
    // The kernel knows the owner only inside our pid namespace (0 otherwise, -1 for open-file-description locks); the
    // file's own text is what is left then.
    if probe.l_pid > 0 {
        return Ok(Some(probe.l_pid));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed(path, "read"))?;
    Ok(Some(text.trim().parse().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// A process that holds the fcntl lock on `path` until its stdin closes.
    fn holder(path: &Path) -> std::process::Child {
        let script = "import fcntl,sys,os\nf=open(sys.argv[1],'w')\nf.write(str(os.getpid())+'\\n')\nf.flush()\n\
                      fcntl.lockf(f,fcntl.LOCK_EX)\nprint('locked',flush=True)\nsys.stdin.read()";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 7];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        child
    }

    #[test]
    fn a_free_name_is_taken_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.pid");
        let pidfile = Pidfile::acquire(&path, false).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        let seen = Command::new("cat").arg(&path).output().unwrap();
        assert_eq!(String::from_utf8(seen.stdout).unwrap(), format!("{}\n", std::process::id()));
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert_eq!(owner(&path).unwrap(), None);
        Pidfile::acquire(&path, false).unwrap();
    }

    #[test]
    fn a_living_owner_is_named_and_overwriting_is_possible() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.pid");
        let mut child = holder(&path);
        assert_eq!(owner(&path).unwrap(), Some(child.id() as i32));
        let error = Pidfile::acquire(&path, false).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: already running as pid {}, aborting", path.display(), child.id()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
        let ours = Pidfile::acquire(&path, true).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        drop(ours);
        assert!(!path.exists());
    }

    #[test]
    fn somebody_elses_file_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.pid");
        let ours = Pidfile::acquire(&path, false).unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "7\n").unwrap();
        std::fs::rename(&other, &path).unwrap();
        drop(ours);
        assert!(path.exists());
    }

    #[test]
    fn an_unwritable_directory_is_named() {
        let error = Pidfile::acquire(Path::new("/nonexistent/d.pid"), false).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/d.pid.tmp"), "{error}");
    }
}
