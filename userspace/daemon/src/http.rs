//! Health and metrics over HTTP (RFC 9112): `GET /livez`, `/readyz` (`/healthz`) and `/metrics`, and nothing else.
//!
//! It is off unless `--metrics` says where to listen. It has no authentication and no encryption, so it belongs on a loopback address, a management
//! network, or a unix socket. Each connection gets one answer from the event loop: a loop that does not answer in time is not live.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Longest request head.
const HEAD: usize = 8192;
/// How long a client may take to ask, and the event loop to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;

/// What is asked of the event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is the loop alive? That it answers is the answer.
    Live,
    /// Is everything in force that should be?
    Ready,
    /// All metrics.
    Metrics,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it is a good one: status 200, else 503.
    pub is_good: bool,
    /// Text; of metrics in Prometheus' text format ([`crate::exposition`]).
    pub body: String,
}

/// A question for the event loop, with the way to answer it.
#[derive(Debug)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    reply: oneshot::Sender<Answer>,
}

impl Probe {
    /// Answers. A client that has gone away is not an error.
    pub fn answer(self, is_good: bool, body: impl Into<String>) {
        let _ = self.reply.send(Answer { is_good, body: body.into() });
    }

    /// Answers whether everything is in force, with the reasons why not.
    pub fn answer_ready(self, reasons: &[String]) {
        match reasons {
            [] => self.answer(true, "ok\n"),
            reasons => self.answer(false, reasons.join("\n") + "\n"),
        }
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `ADDRESS:PORT`.
    Tcp(std::net::SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Address::Unix(std::path::absolute(path).map_err(|error| error.to_string())?));
        }
        let explain = |_| "it is ADDRESS:PORT, for instance 127.0.0.1:9476 or [::1]:9476, or unix:PATH".to_owned();
        text.parse().map(Address::Tcp).map_err(explain)
    }
}

/// Listens, and passes questions on.
///
/// # Errors
/// The system's, when the address cannot be bound.
pub async fn serve(address: &Address) -> io::Result<mpsc::Receiver<Probe>> {
    let (probes, questions) = mpsc::channel(CONNECTIONS);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    match address {
        Address::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            tokio::spawn(async move {
                loop {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                    match listener.accept().await {
                        Ok((stream, _)) => drop(tokio::spawn(answer_one(stream, probes.clone(), place))),
                        Err(error) => refused(&error).await,
                    }
                }
            });
        }
        Address::Unix(path) => {
            // A socket that nobody listens on is a dead process's.
            if std::os::unix::net::UnixStream::connect(path).is_err() {
                let _ = std::fs::remove_file(path);
            }
            let listener = UnixListener::bind(path)?;
            tokio::spawn(async move {
                loop {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                    match listener.accept().await {
                        Ok((stream, _)) => drop(tokio::spawn(answer_one(stream, probes.clone(), place))),
                        Err(error) => refused(&error).await,
                    }
                }
            });
        }
    }
    Ok(questions)
}

async fn refused(error: &io::Error) {
    tracing::warn!(target: "unixctl", rate_limit = 5, "metrics: accept failed: {error}");
    // Out of descriptors: wait until others are closed rather than spin.
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn answer_one<S>(mut stream: S, probes: mpsc::Sender<Probe>, place: tokio::sync::OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answered = async {
        let head = read_head(&mut stream).await?;
        let response = respond(&head, &probes).await;
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await
    };
    // A client that is slow or gone loses its answer, nothing else.
    let _ = tokio::time::timeout(2 * PATIENCE, answered).await;
    drop(place);
}

/// The request up to its empty line.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

async fn respond(head: &[u8], probes: &mpsc::Sender<Probe>) -> String {
    let line = String::from_utf8_lossy(head).lines().next().unwrap_or_default().to_owned();
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version)) = (method, target, version) else {
        return response("400 Bad Request", "text/plain", "no HTTP request\n", true);
    };
    if !version.starts_with("HTTP/1.") {
        return response("505 HTTP Version Not Supported", "text/plain", "HTTP/1.1 is spoken here\n", true);
    }
    if !matches!(method, "GET" | "HEAD") {
        return response("405 Method Not Allowed", "text/plain", "GET or HEAD\n", true);
    }
    let question = match target.split('?').next() {
        Some("/livez") => Question::Live,
        Some("/readyz" | "/healthz") => Question::Ready,
        Some("/metrics") => Question::Metrics,
        _ => return response("404 Not Found", "text/plain", "/livez, /readyz, /healthz and /metrics are here\n", true),
    };
    let (reply, answer) = oneshot::channel();
    let asked = async {
        probes.send(Probe { question, reply }).await.ok()?;
        answer.await.ok()
    };
    let answer = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Some(answer)) => answer,
        _ => Answer { is_good: false, body: format!("the event loop did not answer in {} s\n", PATIENCE.as_secs()) },
    };
    let status = if answer.is_good { "200 OK" } else { "503 Service Unavailable" };
    let kind =
        if question == Question::Metrics && answer.is_good { crate::exposition::CONTENT_TYPE } else { "text/plain" };
    response(status, kind, &answer.body, method == "GET")
}

fn response(status: &str, kind: &str, body: &str, with_body: bool) -> String {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    if with_body { head + body } else { head }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(request: &str) -> String {
        let (probes, mut questions) = mpsc::channel::<Probe>(1);
        let answering = tokio::spawn(async move {
            while let Some(probe) = questions.recv().await {
                match probe.question {
                    Question::Live => probe.answer(true, "ok\n"),
                    Question::Ready => probe.answer_ready(&["no database".to_owned()]),
                    Question::Metrics => probe.answer(true, "x 1\n"),
                }
            }
        });
        let text = respond(request.as_bytes(), &probes).await;
        drop(probes);
        answering.await.unwrap();
        text
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        for (request, status, body) in [
            ("GET /livez HTTP/1.1\r\n\r\n", "200 OK", "\r\n\r\nok\n"),
            ("GET /readyz?verbose HTTP/1.0\r\n\r\n", "503 Service Unavailable", "\r\n\r\nno database\n"),
            ("GET /healthz HTTP/1.1\r\n\r\n", "503 Service Unavailable", "\r\n\r\nno database\n"),
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "version=0.0.4"),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "200 OK", "Content-Length: 4\r\n"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed", ""),
            ("GET / HTTP/1.1\r\n\r\n", "404 Not Found", "/metrics"),
            ("GET /livez HTTP/2\r\n\r\n", "505 ", ""),
            ("nonsense", "400 Bad Request", ""),
        ] {
            let text = ask(request).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains(body), "{request}: {text}");
            assert_eq!(request.starts_with("HEAD"), text.ends_with("\r\n\r\n"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_answer_is_not_live() {
        let (probes, _questions) = mpsc::channel::<Probe>(1);
        let text = respond(b"GET /livez HTTP/1.1\r\n\r\n", &probes).await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("did not answer"), "{text}");
    }

    #[tokio::test]
    async fn a_unix_socket_of_a_dead_process_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("metrics.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let address: Address = format!("unix:{}", path.display()).parse().unwrap();
        let mut questions = serve(&address).await.unwrap();
        let client = tokio::spawn(async move {
            let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        });
        questions.recv().await.unwrap().answer(true, "ok\n");
        assert!(client.await.unwrap().starts_with("HTTP/1.1 200 OK"));
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!("127.0.0.1:1".parse(), Ok(Address::Tcp(([127, 0, 0, 1], 1).into())));
        assert_eq!("unix:/x".parse(), Ok(Address::Unix("/x".into())));
        assert!("9476".parse::<Address>().unwrap_err().contains("127.0.0.1:9476"));
    }
}
