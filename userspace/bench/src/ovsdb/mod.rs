//! The CPU time that a client takes to receive an initial dump, against plain serde_json decoding into typed structs.
//!
//! This process makes the dump and serves it over a Unix socket; for every measurement it starts itself once more as a client,
//! whose CPU time (user and system, the whole process) is what counts, so that serving costs nothing in it. Ours is the
//! whole client: framing, decoding, interning, replica and changes. Plain reads the same bytes into memory and decodes
//! them with derived `Deserialize` into structs of `String`s in hash maps, as short as one would write it for this very dump.

mod client;
mod contents;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

pub use self::client::{ClientArgs, client};
use crate::contest::{Contest, Figure};
use crate::report::Bound;
use crate::session::Session;

/// The CPU time that our OVSDB client takes for an initial dump, against plain serde_json decoding into typed structs.
///
/// Both are measured in turn, each in a process of its own.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rows of Port_Binding [default: 100000, quick: 1000].
    #[arg(long)]
    ports: Option<usize>,
    /// Rows of Logical_Flow [default: 600000, quick: 6000].
    #[arg(long)]
    flows: Option<usize>,
}

/// Measures.
///
/// # Errors
///
/// When a client fails or decodes another number of rows than was sent.
pub fn run(args: &Args, session: &mut Session) -> Result<()> {
    let (ports, flows) = if session.quick() { (1000, 6000) } else { (100_000, 600_000) };
    let (ports, flows) = (args.ports.unwrap_or(ports), args.flows.unwrap_or(flows));
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let socket = directory.path().join("bench.sock");
    let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let (dump, schema) = (contents::dump(ports, flows), contents::schema());
    session.say(&format!("initial dump: {ports} Port_Binding, {flows} Logical_Flow, {} MiB", dump.len() >> 20));
    let kinds = ["ours", "plain"];
    let contest = Contest::new(&format!("OVSDB: {ports} ports and {flows} flows received"), 7)
        .contenders(["Oxbow", "plain serde"])
        .figure(Figure::new("CPU", "s").wanted("Oxbow", "plain serde", Bound::AtMost(1.5)))
        .figure(Figure::new("peak memory", "MiB").ratio("Oxbow", "plain serde"));
    contest.run(session, |contender| {
        let child = Command::new(std::env::current_exe().context("cannot find this program's file")?)
            .args(["ovsdb-client", kinds[contender]])
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a client")?;
        serve(listener.accept().context("no client came")?.0, &dump, &schema)?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "the client ended with {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(numbers.len() == 3 && numbers[2] as usize == ports + flows, "the client said {text:?}");
        Ok(vec![numbers[0], numbers[1]])
    })
}

/// Answers one client's requests until it has the dump and goes.
fn serve(mut stream: UnixStream, dump: &str, schema: &str) -> Result<()> {
    let mut framer = oxbow_ovsdb::Framer::default();
    let mut chunk = [0; 65536];
    #[derive(Deserialize)]
    struct Request {
        id: u64,
        method: String,
        params: serde_json::Value,
    }
    loop {
        let length = stream.read(&mut chunk).unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        framer.buffer().extend_from_slice(&chunk[..length]);
        while let Some(frame) = framer.next_frame()? {
            let Request { id, method, params } = serde_json::from_slice(frame.bytes())?;
            let (result, error) = match method.as_str() {
                "get_schema" if params[0] == "_Server" => ("null", "\"no such database\""),
                "get_schema" => (schema, "null"),
                "monitor_cond_since" => (dump, "null"),
                _ => ("{}", "null"),
            };
            let parts = [format!("{{\"id\":{id},\"result\":"), format!(",\"error\":{error}}}")];
            for part in [&parts[0], result, &parts[1]] {
                if stream.write_all(part.as_bytes()).is_err() {
                    // It has what it wanted and is gone.
                    return Ok(());
                }
            }
            if method == "monitor_cond_since" {
                // The plain client reads to the end; ours has its answer and leaves.
                let _ = stream.shutdown(std::net::Shutdown::Write);
            }
        }
    }
}
