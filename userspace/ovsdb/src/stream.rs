//! Opening connections.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::TlsFiles;
use crate::remote::Remote;
use crate::tls;

/// A connection of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The longest path that fits in a socket address, whose field is 108 bytes with the final zero.
const UNIX_PATH_LIMIT: usize = 107;

/// Connects to a remote.
pub(crate) async fn connect(remote: &str, files: &TlsFiles) -> io::Result<Box<dyn Stream>> {
    let remote: Remote = remote.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    match remote {
        Remote::Unix(path) => Ok(Box::new(connect_unix(&path).await?)),
        Remote::Tcp { host, port } => Ok(Box::new(connect_tcp(&host, port).await?)),
        Remote::Ssl { host, port } => {
            // What the files say is read before anything is sent, so that a wrong file is named even when nobody listens.
            let session = tls::Connector::new(files)?;
            let tcp = connect_tcp(&host, port).await?;
            Ok(Box::new(session.connect(&host, tcp).await?))
        }
    }
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() <= UNIX_PATH_LIMIT {
        return UnixStream::connect(path).await;
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "socket path has no file name"));
    };
    // A descriptor of the directory gives the socket a short name for as long as it is open.
    let directory =
        std::fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(directory)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    UnixStream::connect(short).await
}
