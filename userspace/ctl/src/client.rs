//! The daemon's control socket: JSON-RPC 1.0 over a unix stream, one request at a time (ovs-appctl(8)).

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take to answer, beyond what the question itself waits for: it is one loop, which may be installing policy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    path: PathBuf,
    id: u64,
    /// Received and not read yet.
    buffer: Vec<u8>,
}

impl Client {
    /// Connects to a daemon's socket.
    ///
    /// # Errors
    /// The system's, with what it means here.
    pub(crate) fn connect(path: &Path) -> Result<Client> {
        let stream = UnixStream::connect(path).with_context(|| {
            format!(
                "cannot connect to {}: is the daemon running, and may this user talk to it (usually root)?",
                path.display()
            )
        })?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a time limit")?;
        Ok(Client { stream, path: path.to_owned(), id: 0, buffer: Vec::new() })
    }

    /// Asks a daemon a question and returns the text of the answer.
    ///
    /// # Errors
    /// The daemon's own error text, or that it is gone.
    pub(crate) fn ask(&mut self, method: &str, arguments: &[&str]) -> Result<String> {
        let answer = self.call(method, json!(arguments))?;
        answer.as_str().map(str::to_owned).ok_or_else(|| anyhow!("{method}: unexpected answer {answer}"))
    }

    /// A call with any parameters and any result: an OVSDB server speaks the same (RFC 7047).
    ///
    /// # Errors
    /// The server's own error, or that it is gone.
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.id += 1;
        let request = json!({"id": self.id, "method": method, "params": parameters});
        let gone = || format!("{}: the daemon went away", self.path.display());
        self.stream.write_all(request.to_string().as_bytes()).with_context(gone)?;
        let mut answer = self.receive()?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].take()),
            Value::String(text) if text.contains("is not a valid command") => bail!(
                "the daemon does not know `{method}`: it is not oxbow-node, or of another version ({})",
                text.trim_end()
            ),
            Value::String(text) => bail!("{}", text.trim_end()),
            other => bail!("{other}"),
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let mut chunk = [0; 65_536];
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.buffer.drain(..used);
                    return Ok(value);
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Err(error).with_context(|| format!("{} does not speak JSON-RPC", self.path.display()));
                }
                _ => {}
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => bail!("{}: the daemon went away", self.path.display()),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    bail!(
                        "{}: no answer in {} s: is the daemon stopped or very busy?",
                        self.path.display(),
                        PATIENCE.as_secs()
                    );
                }
                Err(error) => return Err(error).with_context(|| self.path.display().to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn with_daemon(answer: &'static str, test: impl FnOnce(&mut Client)) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.ctl");
        let listener = UnixListener::bind(&path).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1000];
            let length = stream.read(&mut request).unwrap();
            // In two parts, as a long answer comes.
            let (first, second) = answer.split_at(answer.len() / 2);
            stream.write_all(first.as_bytes()).unwrap();
            stream.write_all(second.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        test(&mut Client::connect(&path).unwrap());
        let request: Value = serde_json::from_str(&daemon.join().unwrap()).unwrap();
        assert_eq!(request["params"], json!(["a"]));
    }

    #[test]
    fn answers_and_errors_are_read() {
        with_daemon(r#"{"id":1,"result":"text\n","error":null}"#, |client| {
            assert_eq!(client.ask("x", &["a"]).unwrap(), "text\n");
        });
        with_daemon(r#"{"id":1,"result":null,"error":"\"x\" is not a valid command\n"}"#, |client| {
            let error = client.ask("x", &["a"]).unwrap_err().to_string();
            assert!(error.contains("not oxbow-node, or of another version"), "{error}");
        });
        with_daemon("", |client| {
            let error = client.ask("x", &["a"]).unwrap_err().to_string();
            assert!(error.contains("went away"), "{error}");
        });
    }
}
