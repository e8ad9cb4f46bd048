//! The socket file: where it is, who may use it, when it goes.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

/// Longest path that fits into a `sockaddr_un` with its terminating zero.
const SUN_PATH_MAX: usize = 107;

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers at that path.
    #[error("{}: another process is listening on this control socket", .0.display())]
    InUse(PathBuf),
    /// A system call failed.
    #[error("{}: could not initialize control socket ({source})", path.display())]
    Io {
        /// The socket's path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A listening control socket. Dropping it removes the file, if the dropping process is the one that bound it.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    bound_by: u32,
}

impl ControlSocket {
    /// Binds `path` with mode 0770 less the umask. A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`SocketError`], naming the path.
    pub fn bind(path: &Path) -> Result<ControlSocket, SocketError> {
        let failed = |source: io::Error| SocketError::Io { path: path.to_owned(), source };
        if let Ok(status) = std::fs::symlink_metadata(path)
            && status.file_type().is_socket()
        {
            if UnixStream::connect(path).is_ok() {
                return Err(SocketError::InUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        // A path too long for the address is reached through a descriptor of its directory.
        let (directory, name);
        let address = if path.as_os_str().len() > SUN_PATH_MAX {
            name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
            directory = std::fs::File::open(path.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
            UnixAddr::new(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
        } else {
            UnixAddr::new(path)
        };
        let bound = || -> nix::Result<UnixListener> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            // The file takes its mode from the unbound socket, so there is no moment with a wider one.
            fchmod(&fd, Mode::from_bits_truncate(0o770))?;
            bind(fd.as_raw_fd(), &address?)?;
            listen(&fd, Backlog::new(10)?)?;
            Ok(UnixListener::from(fd))
        };
        let listener = bound().map_err(io::Error::from).map_err(failed)?;
        Ok(ControlSocket { listener, path: path.to_owned(), bound_by: std::process::id() })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, so that no new client finds it; connections go on.
    pub fn unlink(&self) {
        if std::process::id() == self.bound_by
            && let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(target: "fatal_signal", "could not unlink \"{}\" ({error})", self.path.display());
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.unlink();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_stale_socket_is_replaced_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.ctl");
        drop(UnixListener::bind(&path).unwrap());
        let ours = ControlSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o007, 0, "mode {mode:o}");
        assert_eq!(mode & 0o700, 0o700, "mode {mode:o}");
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::InUse(_))));
        drop(ours);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_longer_than_a_socket_address_works() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100)).join("e".repeat(50));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join("d.ctl");
        let socket = ControlSocket::bind(&path).unwrap();
        assert!(path.exists());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = ControlSocket::bind(Path::new("/nonexistent/x.ctl")).unwrap_err();
        assert!(
            error.to_string().starts_with("/nonexistent/x.ctl: could not initialize control socket (No such file"),
            "{error}"
        );
    }
}
