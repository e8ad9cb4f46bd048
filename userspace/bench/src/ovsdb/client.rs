//! The clients that are measured: ours, and the shortest one that decodes the same bytes into typed structs.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use oxbow_ovsdb::{Client, ClientConfig, Event, Uuid};
use oxbow_schema::sb;
use serde::Deserialize;

use super::contents::TABLES;

/// Which client, and where the server is.
#[derive(Debug, clap::Args)]
pub struct ClientArgs {
    /// `ours` or `plain`.
    kind: String,
    /// The server's socket.
    socket: PathBuf,
}

/// Receives the dump, prints CPU seconds, peak resident MiB and the number of rows, and ends the process.
///
/// # Errors
///
/// When the server does not answer as expected.
pub fn client(args: &ClientArgs) -> Result<()> {
    match args.kind.as_str() {
        "ours" => ours(args),
        "plain" => plain(args),
        other => bail!("there is no client {other}"),
    }
}

/// Prints CPU seconds and peak resident MiB of this process, and ends it before anything is freed: that is nobody's business.
fn report(rows: usize) -> ! {
    // SAFETY: rusage is plain data, for which zeros are valid, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let line = format!("{} {} {rows}\n", seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss / 1024);
    let written = std::io::stdout().write_all(line.as_bytes());
    std::process::exit(i32::from(written.is_err()));
}

fn ours(args: &ClientArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = ClientConfig::new(sb::DATABASE, format!("unix:{}", args.socket.display()));
        let mut client = Client::start(TABLES.into_iter().fold(config, |config, table| config.monitor(table)));
        loop {
            if let Event::Connected { .. } = client.next().await {
                report(TABLES.into_iter().map(|table| client.replica().len(table)).sum());
            }
        }
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tag {
    Uuid,
    Map,
}

struct PlainUuid(#[expect(dead_code, reason = "decoded, as a program would")] u128);

impl<'de> Deserialize<'de> for PlainUuid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(|uuid: Uuid| PlainUuid(uuid.as_u128())).map_err(serde::de::Error::custom)
    }
}

#[expect(dead_code, reason = "decoded, as a program would")]
#[derive(Deserialize)]
struct PlainFlow {
    actions: String,
    external_ids: (Tag, Vec<(String, String)>),
    logical_datapath: (Tag, PlainUuid),
    #[serde(rename = "match")]
    match_: String,
    pipeline: String,
    priority: i64,
    #[serde(default)]
    table_id: i64,
}

#[expect(dead_code, reason = "decoded, as a program would")]
#[derive(Deserialize)]
struct PlainPort {
    datapath: (Tag, PlainUuid),
    external_ids: (Tag, Vec<(String, String)>),
    logical_port: String,
    mac: String,
    options: (Tag, Vec<(String, String)>),
    port_security: String,
    tunnel_key: i64,
    up: bool,
}

#[derive(Deserialize)]
struct Initial<T> {
    #[expect(dead_code, reason = "decoded, as a program would")]
    initial: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(non_snake_case, reason = "the tables' names")]
struct PlainTables {
    #[serde(rename = "Logical_Flow")]
    Logical_Flow: HashMap<String, Initial<PlainFlow>>,
    #[serde(rename = "Port_Binding")]
    Port_Binding: HashMap<String, Initial<PlainPort>>,
}

#[derive(Deserialize)]
struct PlainReply {
    result: (bool, String, PlainTables),
}

fn plain(args: &ClientArgs) -> Result<()> {
    let mut stream = UnixStream::connect(&args.socket).context("cannot connect")?;
    stream.write_all(b"{\"id\":1,\"method\":\"monitor_cond_since\",\"params\":[]}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let reply: PlainReply = serde_json::from_slice(&bytes).context("cannot decode the dump")?;
    drop(bytes);
    let tables = &reply.result.2;
    report(tables.Logical_Flow.len() + tables.Port_Binding.len());
}
