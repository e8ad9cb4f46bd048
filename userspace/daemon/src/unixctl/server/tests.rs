//! The control socket as raw JSON-RPC and as the real appctl sees it.

use super::*;
use crate::Role;
use std::path::PathBuf;
use std::process::Command as Process;
use tokio::sync::mpsc;

#[derive(Clone, Debug, PartialEq)]
enum Cmd {
    Status,
    SetThreads(usize),
}

/// A server with a `status` and a `set-threads` command whose loop answers them.
struct Fixture {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn start() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.ctl");
    let socket = Arc::new(ControlSocket::bind(&path).unwrap());
    let mut commands = Commands::new();
    commands.add_plain("status", Cmd::Status);
    commands.add("set-threads", "N_THREADS", 1..=1, |arguments| {
        arguments[0].parse().map(Cmd::SetThreads).map_err(|_| format!("invalid n_threads: {}", arguments[0]))
    });
    let (sender, mut requests) = mpsc::channel(1);
    let identity = Identity { role: Role::Northd, program: "ovn-northd" };
    let builtins = Builtins { identity, vlog: Vlog::new("ovn-northd") };
    tokio::spawn(serve(socket, Arc::new(commands), builtins, sender));
    tokio::spawn(async move {
        while let Some(Request { command, reply }) = requests.recv().await {
            match command {
                Cmd::Status => reply.ok("Status: active\n"),
                Cmd::SetThreads(n) => reply.ok(n.to_string()),
            }
        }
    });
    Fixture { path, _dir: dir }
}

async fn appctl(fixture: &Fixture, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Process::new("ovs-appctl");
    command.arg("--timeout=10").arg("-t").arg(&fixture.path).args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_real_appctl_is_understood() {
    let fixture = start();
    assert_eq!(appctl(&fixture, &["status"]).await, (0, "Status: active\n".into(), String::new()));
    assert_eq!(appctl(&fixture, &["version"]).await.1, "ovn-northd 23.03.1\nOpen vSwitch Library 3.1.0\n");
    assert_eq!(appctl(&fixture, &["set-threads", "4"]).await.1, "4\n");
    let listed = appctl(&fixture, &["list-commands"]).await.1;
    assert!(listed.starts_with("The available commands are:\n  coverage/read-counter   COUNTER\n"), "{listed}");
    assert!(listed.contains("  set-threads             N_THREADS\n"), "{listed}");
    assert!(listed.contains("  vlog/disable-rate-limit [module]...\n"), "{listed}");
}

#[tokio::test]
async fn errors_read_as_stocks() {
    let fixture = start();
    for (arguments, error) in [
        (&["nope"][..], "\"nope\" is not a valid command (use \"list-commands\" to see a list of valid commands)"),
        (&["status", "a"], "\"status\" command takes at most 0 arguments"),
        (&["coverage/read-counter"], "\"coverage/read-counter\" command requires at least 1 arguments"),
        (&["coverage/read-counter", "foo"], "No such counter"),
        (&["stopwatch/show", "foo"], "No such stopwatch"),
        (&["set-threads", "abc"], "invalid n_threads: abc"),
        (&["vlog/set", "foo:bar"], "no destination, level, or module \"foo\""),
        (&["vlog/disable-rate-limit", "foo"], "unknown module"),
        (&["vlog/reopen"], "Logging to file not configured"),
    ] {
        let (status, stdout, stderr) = appctl(&fixture, arguments).await;
        assert_eq!((status, stdout.as_str()), (2, ""), "{arguments:?}");
        assert_eq!(stderr.lines().next().unwrap(), error, "{arguments:?}");
    }
}

async fn raw(fixture: &Fixture, chunks: &[&str], replies: usize) -> Vec<Value> {
    let mut stream = UnixStream::connect(&fixture.path).await.unwrap();
    let mut buffer = Vec::new();
    let mut values = Vec::new();
    for chunk in chunks {
        stream.write_all(chunk.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    while values.len() < replies && stream.read_buf(&mut buffer).await.unwrap() > 0 {
        values = serde_json::Deserializer::from_slice(&buffer).into_iter().filter_map(Result::ok).collect();
    }
    values
}

#[tokio::test]
async fn requests_may_come_in_pieces_or_several_at_once() {
    let fixture = start();
    let replies = raw(
        &fixture,
        &[
            "{\"id\":0,\"method\":\"sta",
            "tus\",\"params\":[]}{\"id\":\"x\",\"method\":\"set-threads\",\"params\":[\"2\"]} ",
            "{\"id\":2,\"method\":\"status\",\"params\":[7]}",
        ],
        3,
    )
    .await;
    assert_eq!(
        replies,
        [
            json!({"id": 0, "result": "Status: active\n", "error": null}),
            json!({"id": "x", "result": "2\n", "error": null}),
            json!({"id": 2, "result": null, "error": "\"status\" command has non-string argument\n"}),
        ]
    );
}

#[tokio::test]
async fn json_format_wraps_texts() {
    let fixture = start();
    let replies = raw(
        &fixture,
        &[
            "{\"id\":0,\"method\":\"set-options\",\"params\":[\"--format\",\"json\"]}",
            "{\"id\":1,\"method\":\"status\",\"params\":[]}",
            "{\"id\":2,\"method\":\"list-commands\",\"params\":[]}",
        ],
        3,
    )
    .await;
    assert_eq!(replies[1]["result"], json!({"reply-format": "plain", "reply": "Status: active\n"}));
    assert_eq!(replies[2]["result"]["set-threads"], "N_THREADS");
}

#[tokio::test]
async fn what_is_no_request_ends_the_connection() {
    let fixture = start();
    for garbage in ["]", "{\"id\":null,\"method\":\"status\",\"params\":[]}", "{\"id\":0,\"result\":1,\"error\":null}"]
    {
        assert_eq!(raw(&fixture, &[garbage], 1).await, Vec::<Value>::new(), "{garbage}");
    }
    // Others are still served.
    assert_eq!(appctl(&fixture, &["status"]).await.0, 0);
}
