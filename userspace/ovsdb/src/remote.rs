//! Where a database is served: `unix:PATH`, `tcp:HOST[:PORT]`, `ssl:HOST[:PORT]` (ovsdb(7), "Connection Methods").

use std::path::PathBuf;
use std::str::FromStr;

/// The port IANA gave to OVSDB.
const DEFAULT_PORT: u16 = 6640;

/// One remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remote {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
    Ssl { host: String, port: u16 },
}

/// A remote that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a remote of the form unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT")]
pub(crate) struct RemoteError(String);

/// The remotes of a comma-separated list, in its order; blanks around them and empty ones do not count.
pub(crate) fn split_list(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|remote| !remote.is_empty()).map(str::to_owned).collect()
}

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let error = || RemoteError(text.to_owned());
        let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(error)?;
        match kind {
            "unix" => Ok(Remote::Unix(rest.into())),
            "tcp" => host_and_port(rest).map(|(host, port)| Remote::Tcp { host, port }).ok_or_else(error),
            "ssl" => host_and_port(rest).map(|(host, port)| Remote::Ssl { host, port }).ok_or_else(error),
            _ => Err(error()),
        }
    }
}

/// `HOST`, `HOST:PORT`, `[V6]`, `[V6]:PORT`, with an optional `%SCOPE` inside the brackets.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            match rest {
                "" => (host, None),
                _ => (host, Some(rest.strip_prefix(':')?)),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_read_as_ovs_writes_them() {
        let tcp = |host: &str, port| Ok(Remote::Tcp { host: host.to_owned(), port });
        assert_eq!("unix:/run/ovn/ovnsb_db.sock".parse(), Ok(Remote::Unix("/run/ovn/ovnsb_db.sock".into())));
        assert_eq!("tcp:192.0.2.1:6642".parse(), tcp("192.0.2.1", 6642));
        assert_eq!("tcp:192.0.2.1".parse(), tcp("192.0.2.1", 6640));
        assert_eq!("tcp:[fe80::1%eth0]:6642".parse(), tcp("fe80::1%eth0", 6642));
        assert_eq!("tcp:[2001:db8::1]".parse(), tcp("2001:db8::1", 6640));
        assert_eq!(
            "ssl:sb.example.org:6642".parse(),
            Ok(Remote::Ssl { host: "sb.example.org".to_owned(), port: 6642 })
        );
        for wrong in
            ["", "unix:", "tcp:", "tcp::6642", "tcp:a:b", "tcp:[::1", "tcp:[::1]x", "http:a:1", "/run/x", "tcp:a:1:2"]
        {
            assert_eq!(wrong.parse::<Remote>(), Err(RemoteError(wrong.to_owned())), "{wrong}");
        }
        assert_eq!(split_list(" tcp:a:1, ssl:b:2,,unix:/c "), ["tcp:a:1", "ssl:b:2", "unix:/c"]);
    }
}
