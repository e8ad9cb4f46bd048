//! Connections, requests, and the commands that every daemon answers.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;

use super::registry::{Commands, Handler, Requests};
use super::{Answer, ControlSocket, Reply, Request};
use crate::vlog::Vlog;
use crate::{Identity, coverage, memory, stopwatch};

/// Largest request taken; appctl's are a few hundred bytes, a microflow to inject some thousand.
const MAX_REQUEST: usize = 1 << 20;

/// What the built-in commands act on.
#[derive(Clone, Debug)]
pub(crate) struct Builtins {
    pub(crate) identity: Identity,
    pub(crate) vlog: Vlog,
}

type Builtin = fn(&Builtins, &[String]) -> Answer;

const ANY: RangeInclusive<usize> = 0..=usize::MAX;

/// Name, usage, number of arguments, answer. `list-commands` and `set-options` concern the connection and are handled
/// where it is; their entries here make them known.
pub(super) const BUILTINS: &[(&str, &str, RangeInclusive<usize>, Builtin)] = &[
    ("list-commands", "", 0..=0, |_, _| Ok(String::new())),
    ("set-options", "[--format text|json]", 1..=2, |_, _| Ok(String::new())),
    ("version", "", 0..=0, |cx, _| Ok(cx.identity.version_text())),
    ("vlog/set", "{spec | PATTERN:destination:pattern}", ANY, vlog_set),
    ("vlog/list", "", 0..=0, |cx, _| Ok(cx.vlog.list())),
    ("vlog/list-pattern", "", 0..=0, |cx, _| Ok(cx.vlog.list_patterns())),
    ("vlog/reopen", "", 0..=0, |cx, _| cx.vlog.reopen().map(|()| String::new())),
    ("vlog/close", "", 0..=0, |cx, _| {
        cx.vlog.close();
        Ok(String::new())
    }),
    ("vlog/enable-rate-limit", "[module]...", ANY, |cx, names| limit(cx, names, true)),
    ("vlog/disable-rate-limit", "[module]...", ANY, |cx, names| limit(cx, names, false)),
    ("coverage/show", "", 0..=0, |_, _| Ok(coverage::show())),
    ("coverage/read-counter", "COUNTER", 1..=1, |_, names| {
        coverage::read(&names[0]).map(|total| format!("{total}\n")).ok_or_else(|| "No such counter".to_owned())
    }),
    ("memory/show", "", 0..=0, |_, _| Ok(memory::show())),
    ("stopwatch/show", "[NAME]", 0..=1, |_, names| {
        stopwatch::show(names.first().map(String::as_str)).ok_or_else(|| "No such stopwatch".to_owned())
    }),
    ("stopwatch/reset", "[NAME]", 0..=1, |_, names| {
        stopwatch::reset(names.first().map(String::as_str));
        Ok(String::new())
    }),
];

fn vlog_set(cx: &Builtins, specs: &[String]) -> Answer {
    if specs.is_empty() {
        cx.vlog.set("").map_err(|error| error.to_string())?;
    }
    for spec in specs {
        cx.vlog.set(spec).map_err(|error| error.to_string())?;
    }
    Ok(String::new())
}

fn limit(cx: &Builtins, names: &[String], enabled: bool) -> Answer {
    cx.vlog.set_rate_limiting(names, enabled).map(|()| String::new()).map_err(str::to_owned)
}

/// Accepts connections for as long as the returned future is polled; each is served by a task of its own.
pub(crate) async fn serve<C: Send + 'static>(
    socket: Arc<ControlSocket>,
    commands: Arc<Commands<C>>,
    builtins: Builtins,
    requests: Requests<C>,
) -> std::io::Result<()> {
    let listener = UnixListener::from_std(socket.listener.try_clone()?)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = Connection {
                    commands: commands.clone(),
                    builtins: builtins.clone(),
                    requests: requests.clone(),
                    json: false,
                    unwritten: None,
                };
                tokio::spawn(connection.run(stream));
            }
            // Out of descriptors: wait until others are closed rather than spin.
            Err(error) => {
                tracing::warn!(target: "unixctl", rate_limit = 5, "accept failed: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connection<C> {
    commands: Arc<Commands<C>>,
    builtins: Builtins,
    requests: Requests<C>,
    /// Answers are JSON values instead of texts (`set-options --format json`).
    json: bool,
    /// Dropped when the answer to a daemon's command has been written, which ends [`Reply::send_and_wait`].
    unwritten: Option<oneshot::Sender<()>>,
}

/// What became of the bytes received so far.
enum Parsed {
    Incomplete,
    Request(usize, Value),
    Broken(String),
}

fn parse(buffer: &[u8]) -> Parsed {
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<Value>();
    match values.next() {
        None => Parsed::Incomplete,
        Some(Ok(value)) => Parsed::Request(values.byte_offset(), value),
        Some(Err(error)) if error.is_eof() => Parsed::Incomplete,
        Some(Err(error)) => Parsed::Broken(error.to_string()),
    }
}

impl<C: Send + 'static> Connection<C> {
    async fn run(mut self, mut stream: UnixStream) {
        let mut buffer = Vec::new();
        loop {
            match parse(&buffer) {
                Parsed::Request(length, message) => {
                    buffer.drain(..length);
                    let Some(answer) = self.answer(&message).await else {
                        tracing::warn!(target: "unixctl", rate_limit = 5, "received unexpected message: {message}");
                        return;
                    };
                    if stream.write_all(answer.to_string().as_bytes()).await.is_err() {
                        return;
                    }
                    self.unwritten = None;
                    continue;
                }
                Parsed::Incomplete if buffer.len() <= MAX_REQUEST => {}
                Parsed::Incomplete => {
                    tracing::warn!(target: "unixctl", rate_limit = 5, "request of more than {MAX_REQUEST} bytes");
                    return;
                }
                Parsed::Broken(error) => {
                    tracing::warn!(target: "unixctl", rate_limit = 5, "received bad JSON: {error}");
                    return;
                }
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// The reply to one message, or `None` if it is not a request.
    async fn answer(&mut self, message: &Value) -> Option<Value> {
        let id = message.get("id").filter(|id| !id.is_null())?;
        let method = message.get("method")?.as_str()?;
        let params = message.get("params")?.as_array()?;
        tracing::debug!(target: "unixctl", "received request {method}{}, id={id}", message["params"]);
        let arguments: Option<Vec<String>> =
            params.iter().map(|argument| argument.as_str().map(str::to_owned)).collect();
        let answer = match arguments {
            Some(arguments) => self.dispatch(method, &arguments).await,
            None => Err(format!("\"{method}\" command has non-string argument")),
        };
        Some(match answer {
            Ok(result) => {
                tracing::debug!(target: "unixctl", "replying with success, id={id}: {result}");
                json!({"id": id, "result": result, "error": null})
            }
            Err(error) => {
                let error = end_line(error);
                tracing::debug!(target: "unixctl", "replying with error, id={id}: {error:?}");
                json!({"id": id, "result": null, "error": error})
            }
        })
    }

    async fn dispatch(&mut self, method: &str, arguments: &[String]) -> Result<Value, String> {
        let command = self.commands.find(method, arguments.len())?;
        let text = match (&command.handler, method) {
            (Handler::Builtin(_), "set-options") => {
                self.json = parse_format(arguments)?;
                String::new()
            }
            (Handler::Builtin(_), "list-commands") if self.json => return Ok(self.commands.list_json()),
            (Handler::Builtin(_), "list-commands") => self.commands.list(),
            (Handler::Builtin(answer), _) => answer(&self.builtins, arguments)?,
            (Handler::Daemon(parse), _) => {
                let (sender, answer) = oneshot::channel();
                let (unwritten, written) = oneshot::channel();
                let reply = Reply { answer: sender, written };
                let request = Request { command: parse(arguments)?, reply };
                self.requests.send(request).await.map_err(|_| "the daemon is terminating".to_owned())?;
                self.unwritten = Some(unwritten);
                answer.await.map_err(|_| "the daemon gave no answer".to_owned())??
            }
        };
        let text = end_line(text);
        Ok(if self.json { json!({"reply-format": "plain", "reply": text}) } else { text.into() })
    }
}

/// Ends a text that is not empty with a newline: clients print it as it is.
fn end_line(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The arguments of `set-options`; true for JSON.
fn parse_format(arguments: &[String]) -> Result<bool, String> {
    let value = match arguments {
        [option, value] if option == "--format" => value,
        [option] if option.starts_with("--format=") => &option["--format=".len()..],
        [option, ..] => return Err(format!("unrecognized option '{option}'")),
        [] => return Err("option requires an argument".to_owned()),
    };
    match value {
        "json" => Ok(true),
        "text" => Ok(false),
        other => Err(format!("option format has invalid value {other}")),
    }
}

#[cfg(test)]
mod tests;
