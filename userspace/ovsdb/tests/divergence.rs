//! The client against a server that sends what cannot be: the replica is then fetched anew instead of being wrong.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;

use oxbow_ovsdb::{ClientConfig, Event, Framer, Uuid};
use oxbow_schema::nb;
use serde_json::{Value, json};
use support::{Watched, runtime};

/// Serves one connection after the other: answers the monitor with `initial` and `id`, then sends `after`, if anything. Each
/// last transaction id that a client asked to resume from goes to `asked`.
fn serve(listener: &UnixListener, script: Vec<(Value, Option<Value>)>, asked: &mpsc::Sender<String>) {
    let columns = json!({"name": {"type": "string"}});
    let schema =
        json!({"name": "OVN_Northbound", "version": "7.0.0", "tables": {"Logical_Switch": {"columns": columns}}});
    for (reply, after) in script {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let mut framer = Framer::default();
        let mut chunk = [0; 4096];
        let mut send = stream.try_clone().expect("a second handle of the socket");
        while let Ok(length @ 1..) = stream.read(&mut chunk) {
            framer.buffer().extend_from_slice(&chunk[..length]);
            while let Ok(Some(frame)) = framer.next_frame() {
                let message: Value = serde_json::from_slice(frame.bytes()).expect("the client writes JSON");
                let mut answers = vec![match message["method"].as_str() {
                    Some("get_schema") if message["params"][0] == "_Server" => {
                        json!({"id": message["id"], "result": null, "error": "no such database"})
                    }
                    Some("get_schema") => json!({"id": message["id"], "result": schema, "error": null}),
                    Some("monitor_cond_since") => {
                        let last = message["params"][3].as_str().unwrap_or("none").to_owned();
                        asked.send(last).expect("the test waits");
                        json!({"id": message["id"], "result": reply, "error": null})
                    }
                    _ => json!({"id": message["id"], "result": {}, "error": null}),
                }];
                if message["method"] == "monitor_cond_since" {
                    answers.extend(after.clone());
                }
                for answer in answers {
                    if send.write_all(answer.to_string().as_bytes()).is_err() {
                        break;
                    }
                }
            }
        }
    }
}

fn rows(names: &[(u128, &str)]) -> Value {
    let rows: Value = names
        .iter()
        .map(|(uuid, name)| (Uuid::from_u128(*uuid).to_string(), json!({"initial": {"name": name}})))
        .collect();
    json!({ "Logical_Switch": rows })
}

fn start(socket: &Path, script: Vec<(Value, Option<Value>)>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let listener = UnixListener::bind(socket).expect("a listening socket");
    std::thread::spawn(move || serve(&listener, script, &sender));
    receiver
}

#[test]
fn an_update_of_a_row_that_is_not_there_fetches_everything_anew() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nb.sock");
    let (first, second) = (Uuid::from_u128(77).to_string(), Uuid::from_u128(78).to_string());
    let unknown = json!({"Logical_Switch": {Uuid::from_u128(9).to_string(): {"modify": {"name": "never seen"}}}});
    let update = json!({"id": null, "method": "update3", "params": ["oxbow-data", second, unknown]});
    let asked = start(
        &socket,
        vec![
            (json!([false, first, rows(&[(1, "kept"), (2, "gone")])]), Some(update)),
            (json!([false, second, rows(&[(1, "kept"), (9, "never seen")])]), None),
        ],
    );
    runtime().block_on(async {
        let config = ClientConfig::new(nb::DATABASE, format!("unix:{}", socket.display()));
        let mut client = Watched::start(config.monitor(nb::logical_switch::TABLE));
        client.synchronized().await;
        client.clear_changes();
        client
            .event(|event| matches!(event, Event::Disconnected { reason, .. } if reason.contains("Logical_Switch")))
            .await;
        client.synchronized().await;
        let mut changed: Vec<String> = client.changes().iter().map(|change| format!("{change:?}")).collect();
        changed.sort();
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert!(changed[0].starts_with("delete Logical_Switch") && changed[0].contains("gone"), "{changed:?}");
        assert!(changed[1].starts_with("insert Logical_Switch") && changed[1].contains("never seen"), "{changed:?}");
    });
    let zero = Uuid::ZERO.to_string();
    assert_eq!(asked.iter().take(2).collect::<Vec<_>>(), [zero.clone(), zero]);
}

#[test]
fn a_stream_that_is_no_json_is_left_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nb.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // The error is in the status until a connection works: none may before it was seen.
    let (seen, wait) = mpsc::channel();
    std::thread::spawn(move || {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            // Whoever closes first decides what the client sees: it is to be the client.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        let _ = wait.recv();
        let (sender, _receiver) = mpsc::channel();
        serve(&listener, vec![(json!([false, Uuid::ZERO.to_string(), rows(&[(1, "sw")])]), None)], &sender);
    });
    runtime().block_on(async {
        let config = ClientConfig::new(nb::DATABASE, format!("unix:{}", socket.display()));
        let mut client = Watched::start(config.monitor(nb::logical_switch::TABLE));
        client
            .status_until("the stream refused", |status| {
                status.last_error.as_deref().is_some_and(|error| error.contains("instead of \"{\""))
            })
            .await;
        seen.send(()).unwrap();
        client.synchronized().await;
        assert_eq!(client.replica().len(nb::logical_switch::TABLE), 1);
    });
}
