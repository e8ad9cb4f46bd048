//! `ovn-trace` as a daemon, and what its minimal output says.

use anyhow::{Context as _, Result, bail};
use oxbow_pipeline::ir::Field;
use oxbow_testkit::OvsdbServer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A packet that ovn-trace delivers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traced {
    /// The port.
    pub port: String,
    /// Whether it is an answer made by `nd_na`, and not the packet itself.
    pub answer: bool,
    /// What was changed in it, by the time it was delivered.
    pub edits: BTreeMap<Field, u128>,
}

/// A running ovn-trace; it ends when this is dropped. (It only serves requests as a detached daemon, so it is no child of ours.)
#[derive(Debug)]
pub struct Trace {
    _dir: TempDir,
    stream: UnixStream,
    received: Vec<u8>,
    requests: u64,
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Best effort: there is nobody left to tell.
        let _ = self.call("exit", &[]);
    }
}

impl Trace {
    /// Starts it on a Southbound database. It follows changes of the database by itself, but not at once: make them first.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(south: &OvsdbServer) -> Result<Trace> {
        let dir = TempDir::with_prefix("oxbow-trace-")?;
        let control = dir.path().join("trace.ctl");
        let mut command = Command::new("ovn-trace");
        command.arg(format!("--db={}", south.remote())).arg(format!("--unixctl={}", control.display()));
        command.args(["--no-friendly-names", "--detach", "--no-chdir"]);
        command.env("OVS_RUNDIR", dir.path()).env("OVN_RUNDIR", dir.path());
        // The parent ends when the daemon has its copy of the database and listens.
        let output = command.output().context("cannot start ovn-trace")?;
        if !output.status.success() {
            bail!("ovn-trace: {}", String::from_utf8_lossy(&output.stderr));
        }
        let stream =
            UnixStream::connect(&control).with_context(|| format!("cannot connect to {}", control.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Trace { _dir: dir, stream, received: Vec::new(), requests: 0 })
    }

    /// Traces a microflow in a datapath.
    ///
    /// # Errors
    /// When ovn-trace refuses the microflow or prints what is not understood.
    pub fn trace(&mut self, datapath: &str, microflow: &str) -> Result<Vec<Traced>> {
        let text = self.call("trace", &["--minimal", datapath, microflow])?;
        parse_minimal(&text).with_context(|| format!("trace of {microflow}:\n{text}"))
    }

    /// The detailed trace, for people.
    ///
    /// # Errors
    /// When ovn-trace refuses the microflow.
    pub fn detailed(&mut self, datapath: &str, microflow: &str) -> Result<String> {
        self.call("trace", &["--detailed", datapath, microflow])
    }

    fn call(&mut self, method: &str, params: &[&str]) -> Result<String> {
        self.requests += 1;
        let request = json!({"method": method, "params": params, "id": self.requests});
        self.stream.write_all(request.to_string().as_bytes())?;
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.received).into_iter::<Value>();
            if let Some(Ok(reply)) = values.next() {
                let used = values.byte_offset();
                self.received.drain(..used);
                if let Some(error) = reply["error"].as_str() {
                    bail!("ovn-trace: {error}");
                }
                return Ok(reply["result"].as_str().unwrap_or_default().to_owned());
            }
            let mut buffer = [0; 65536];
            let n = self.stream.read(&mut buffer).context("ovn-trace does not answer")?;
            if n == 0 {
                bail!("ovn-trace has ended");
            }
            self.received.extend_from_slice(&buffer[..n]);
        }
    }
}

/// Reads minimal output (ovn-trace(8), "Minimal Output"): assignments, outputs and blocks.
fn parse_minimal(text: &str) -> Result<Vec<Traced>> {
    let mut traced = Vec::new();
    let mut scopes: Vec<(bool, BTreeMap<Field, u128>)> = vec![(false, BTreeMap::new())];
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (answer, edits) = scopes.last_mut().context("more blocks closed than opened")?;
        if let Some(port) = line.strip_prefix("output(\"").and_then(|rest| rest.strip_suffix("\");")) {
            // As in JSON, or as it is.
            let port = serde_json::from_str(&format!("\"{port}\"")).unwrap_or_else(|_| port.to_owned());
            traced.push(Traced { port, answer: *answer, edits: edits.clone() });
        } else if matches!(line, "clone {" | "nd_na {" | "nd_na_router {") {
            // What is changed before an answer is made has no part in it but for what the answer copies; switches do not do that.
            let opened = if line == "clone {" { (*answer, edits.clone()) } else { (true, BTreeMap::new()) };
            scopes.push(opened);
        } else if line == "};" {
            scopes.pop();
        } else if let Some((name, value)) = line.strip_suffix(';').and_then(|line| line.split_once(" = ")) {
            let (field, value) = edit(name, value).with_context(|| format!("cannot read `{line}`"))?;
            edits.insert(field, value);
        } else if matches!(line, "/* Don't know how to handle this: */" | "next;") || line.starts_with("/*") {
            continue;
        } else {
            bail!("cannot read `{line}`");
        }
    }
    traced.sort();
    Ok(traced)
}

fn edit(name: &str, value: &str) -> Option<(Field, u128)> {
    let field = *Field::ALL.iter().find(|field| field.name() == name)?;
    let value = value.trim();
    let number = if let Ok(ip) = value.parse::<Ipv4Addr>() {
        u128::from(u32::from(ip))
    } else if value.matches(':').count() == 5 && !value.contains("::") && value.len() == 17 {
        value.split(':').try_fold(0, |n, byte| Some(n << 8 | u128::from_str_radix(byte, 16).ok()?))?
    } else if let Ok(ip) = value.parse::<Ipv6Addr>() {
        u128::from(ip)
    } else if let Some(hex) = value.strip_prefix("0x") {
        u128::from_str_radix(hex, 16).ok()?
    } else {
        value.parse().ok()?
    };
    Some((field, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimal_output_is_understood() {
        let text = "# arp,reg14=0x1\neth.dst = 00:00:00:00:00:02;\narp.op = 2;\narp.tpa = 10.0.0.2;\noutput(\"p 2\");\n\
                    nd_na {\n    ip6.src = fd00::1;\n    output(\"p3\");\n};\n";
        let traced = parse_minimal(text).unwrap();
        assert_eq!(traced.len(), 2);
        assert_eq!(traced[0].port, "p 2");
        assert_eq!(traced[0].edits[&Field::EthDst], 2);
        assert_eq!(traced[0].edits[&Field::ArpTpa], 0x0a00_0002);
        assert!(traced[1].answer);
        assert_eq!(traced[1].edits[&Field::Ip6Src], 0xfd00 << 112 | 1);
        assert!(parse_minimal("what is this").is_err());
    }
}
