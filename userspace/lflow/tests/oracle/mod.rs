//! Debian's ovn-trace as an oracle: a scratch Southbound database, and what ovn-trace says about flows and microflows in it.

pub(crate) mod corpus;
pub(crate) mod world;

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [(&str, &str); 3] = [
    ("/usr/bin/ovn-trace", "ovn-common"),
    ("/usr/sbin/ovsdb-server", "openvswitch-common"),
    ("/usr/bin/ovsdb-tool", "openvswitch-common"),
];
const SCHEMA: &str = "/usr/share/ovn/ovn-sb.ovsschema";

/// Fails with what to install when something of the oracle is missing, or is not of the version the expectations are of.
pub(crate) fn require() {
    for (path, package) in PROGRAMS {
        assert!(Path::new(path).exists(), "{path} is missing: apt-get install {package}");
    }
    assert!(Path::new(SCHEMA).exists(), "{SCHEMA} is missing: apt-get install ovn-common");
    let output = Command::new("/usr/bin/ovn-trace").arg("--version").output().expect("ovn-trace runs");
    let version = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(version.starts_with("ovn-trace 23.03."), "the expected texts are those of OVN 23.03, this is {version}");
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; either way nothing is left behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_socket(path: &Path, process: &mut Running) -> UnixStream {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(stream) = UnixStream::connect(path) {
            return stream;
        }
        if let Some(status) = process.0.try_wait().expect("the process can be waited for") {
            panic!("{} ended with {status} before it listened", path.display());
        }
        assert!(Instant::now() < deadline, "nothing listens on {} after 30 s", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A Southbound database in a directory of its own.
pub(crate) struct Southbound {
    _server: Running,
    directory: tempfile::TempDir,
}

impl Southbound {
    /// An empty one.
    pub(crate) fn new() -> Southbound {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let database = directory.path().join("sb.db");
        let created = Command::new("/usr/bin/ovsdb-tool").arg("create").arg(&database).arg(SCHEMA).status();
        assert!(created.expect("ovsdb-tool runs").success(), "ovsdb-tool create failed");
        let socket = directory.path().join("sb.sock");
        let child = Command::new("/usr/sbin/ovsdb-server")
            .arg(format!("--remote=punix:{}", socket.display()))
            .arg(format!("--unixctl={}", directory.path().join("sb.ctl").display()))
            .arg("-vconsole:off")
            .arg(&database)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("ovsdb-server starts");
        let mut server = Running(child);
        wait_for_socket(&socket, &mut server);
        Southbound { _server: server, directory }
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.directory.path().join("sb.sock").display())
    }

    /// Runs a transaction and fails if any operation does.
    pub(crate) fn transact(&self, mut operations: Vec<Value>) {
        operations.insert(0, json!("OVN_Southbound"));
        let answer = call(&self.directory.path().join("sb.sock"), "transact", &Value::Array(operations));
        let failed = |result: &&Value| !result.is_null() && !result["error"].is_null();
        let failure = answer["result"].as_array().expect("a list of results").iter().find(failed);
        assert!(failure.is_none(), "transaction failed: {failure:?}");
    }

    /// What ovn-trace logs about the flows: text → message, for those it refuses. `what` is `expression` or `actions`.
    pub(crate) fn refusals(&self, what: &str) -> HashMap<String, String> {
        let output = Command::new("/usr/bin/ovn-trace")
            .arg(format!("--db={}", self.remote()))
            .args(["--minimal", "-vsyslog:off", "dp", "inport == \"p1\""])
            .stdin(Stdio::null())
            .output()
            .expect("ovn-trace runs");
        let log = String::from_utf8_lossy(&output.stderr);
        let separator = format!(": parsing {what} failed (");
        log.lines()
            .filter_map(|line| line.split_once("|ovntrace|WARN|"))
            .filter_map(|(_, text)| {
                let (text, message) = text.rsplit_once(&separator)?;
                Some((text.to_string(), message.strip_suffix(')')?.to_string()))
            })
            .collect()
    }

    /// An ovn-trace that answers questions.
    pub(crate) fn tracer(&self) -> Tracer {
        let socket = self.directory.path().join(format!("trace.{}.ctl", std::process::id()));
        let child = Command::new("/usr/bin/ovn-trace")
            .arg(format!("--db={}", self.remote()))
            .arg(format!("--unixctl={}", socket.display()))
            .arg(format!("--pidfile={}", self.directory.path().join("trace.pid").display()))
            .args(["--detach", "--no-chdir", "-vconsole:off", "-vsyslog:off"])
            .stdin(Stdio::null())
            .spawn()
            .expect("ovn-trace starts");
        // It returns once the daemon listens.
        let mut foreground = Running(child);
        let status = foreground.0.wait().expect("ovn-trace detaches");
        assert!(status.success(), "ovn-trace failed to detach: {status}");
        Tracer { socket }
    }
}

/// A running ovn-trace daemon.
pub(crate) struct Tracer {
    socket: PathBuf,
}

impl Tracer {
    /// `ovn-trace --DETAIL DATAPATH MICROFLOW`: its output, or its error.
    pub(crate) fn trace(&self, detail: &str, datapath: &str, microflow: &str) -> Result<String, String> {
        let answer = call(&self.socket, "trace", &json!([detail, datapath, microflow]));
        match (&answer["result"], &answer["error"]) {
            (Value::String(text), _) => Ok(text.clone()),
            (_, Value::String(text)) => Err(text.clone()),
            _ => panic!("ovn-trace answered {answer} to {microflow}"),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        call(&self.socket, "exit", &json!([]));
    }
}

/// A JSON-RPC request and its answer.
fn call(socket: &Path, method: &str, parameters: &Value) -> Value {
    let mut stream = UnixStream::connect(socket).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout can be set");
    let request = json!({"id": 0, "method": method, "params": parameters});
    stream.write_all(request.to_string().as_bytes()).expect("the server reads");
    serde_json::Deserializer::from_reader(stream)
        .into_iter::<Value>()
        .next()
        .expect("the server answers")
        .unwrap_or_else(|e| panic!("answer to {method}: {e}"))
}
