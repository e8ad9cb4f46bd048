//! The client against Debian's ovsdb-server over TLS, with keys and certificates made by `ovs-pki`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use oxbow_ovsdb::{ClientConfig, TlsFiles};
use oxbow_schema::sb;
use oxbow_testkit::OvsdbServer;
use support::{Watched, runtime};

/// A certificate authority and the identities it signed, as `ovs-pki` lays them out.
struct Pki {
    directory: tempfile::TempDir,
}

impl Pki {
    fn new(names: &[&str]) -> Self {
        let pki = Pki { directory: tempfile::tempdir().expect("a temporary directory") };
        pki.run(&["init"]);
        for name in names {
            pki.run(&["req+sign", name, "switch"]);
        }
        pki
    }

    fn run(&self, args: &[&str]) {
        let path = self.directory.path();
        let output = Command::new("ovs-pki")
            .current_dir(path)
            .arg(format!("--dir={}", path.join("pki").display()))
            .arg(format!("--log={}", path.join("log").display()))
            .args(args)
            .output()
            .expect("ovs-pki of openvswitch-common");
        assert!(output.status.success(), "ovs-pki {args:?}: {output:?}");
    }

    fn key(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}-privkey.pem"))
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}-cert.pem"))
    }

    fn authority(&self) -> PathBuf {
        self.directory.path().join("pki/switchca/cacert.pem")
    }

    fn files(&self, name: &str, authority: &Path) -> TlsFiles {
        TlsFiles {
            private_key: Some(self.key(name)),
            certificate: Some(self.certificate(name)),
            ca_certificate: Some(authority.to_owned()),
            ..TlsFiles::default()
        }
    }

    /// A southbound server with this identity, and the remote to reach it.
    fn server(&self, name: &str) -> (OvsdbServer, String) {
        let server = OvsdbServer::builder("sb")
            .schema(oxbow_testkit::ovsdb::SB_SCHEMA)
            .remote("pssl:0:127.0.0.1")
            .argument(format!("--private-key={}", self.key(name).display()))
            .argument(format!("--certificate={}", self.certificate(name).display()))
            .argument(format!("--ca-cert={}", self.authority().display()))
            .start()
            .expect("an ovsdb-server that serves TLS");
        server.sbctl("init").expect("a southbound database");
        let port = support::listening_port(&server);
        (server, format!("ssl:127.0.0.1:{port}"))
    }
}

fn config(remote: &str, tls: TlsFiles) -> ClientConfig {
    ClientConfig { tls, ..ClientConfig::new(sb::DATABASE, remote).monitor(sb::sb_global::TABLE) }
}

#[test]
fn ovn_pki_is_checked_by_chain_and_bootstrapped_and_read_anew() {
    let (pki, other) = (Pki::new(&["sb", "h1"]), Pki::new(&["h1"]));
    let (_server, remote) = pki.server("sb");
    runtime().block_on(async {
        let mut client = Watched::start(config(&remote, pki.files("h1", &pki.authority())));
        client.synchronized().await;
        assert_eq!(client.replica().len(sb::sb_global::TABLE), 1);

        // The certificate of another authority's server is not taken, and one of ours is not by it.
        let mut client = Watched::start(config(&remote, pki.files("h1", &other.authority())));
        client
            .status_until("the server's certificate refused", |status| {
                status.last_error.as_deref().is_some_and(|error| error.contains("invalid peer certificate"))
            })
            .await;
        let mut stranger = Watched::start(config(&remote, other.files("h1", &pki.authority())));
        stranger
            .status_until("our certificate refused", |status| {
                status.last_error.as_deref().is_some_and(|error| error.contains("alert"))
            })
            .await;

        // Files are read at each attempt: once they are right, so is the connection.
        let renewed = other.directory.path();
        std::fs::copy(pki.key("h1"), renewed.join("h1-privkey.pem")).unwrap();
        std::fs::copy(pki.certificate("h1"), renewed.join("h1-cert.pem")).unwrap();
        stranger.client.force_reconnect();
        stranger.synchronized().await;

        let bootstrapped = renewed.join("bootstrapped.pem");
        let tls = TlsFiles { bootstrap_ca: true, ..pki.files("h1", &bootstrapped) };
        let mut client = Watched::start(config(&remote, tls));
        client.synchronized().await;
        let base64 = |path: &Path| {
            let text = std::fs::read_to_string(path).unwrap();
            let inside = text.split("-----BEGIN CERTIFICATE-----").nth(1).unwrap().split("-----END").next().unwrap();
            inside.split_whitespace().collect::<String>()
        };
        assert_eq!(base64(&bootstrapped), base64(&pki.authority()));

        let missing =
            TlsFiles { private_key: Some("/nonexistent/key.pem".into()), ..pki.files("h1", &pki.authority()) };
        let mut client = Watched::start(config(&remote, missing));
        client
            .status_until("the missing key named", |status| {
                status
                    .last_error
                    .as_deref()
                    .is_some_and(|error| error.contains("/nonexistent/key.pem: cannot read private key"))
            })
            .await;
    });
}

#[test]
fn tcp_works_on_loopback() {
    let server =
        OvsdbServer::builder("sb").schema(oxbow_testkit::ovsdb::SB_SCHEMA).remote("ptcp:0:127.0.0.1").start().unwrap();
    server.sbctl("init").unwrap();
    let remote = format!("tcp:127.0.0.1:{}", support::listening_port(&server));
    runtime().block_on(async {
        let mut client = Watched::start(config(&remote, TlsFiles::default()));
        client.synchronized().await;
        assert_eq!(client.replica().len(sb::sb_global::TABLE), 1);
    });
}
