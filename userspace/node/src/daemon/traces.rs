//! Traces: the policies of other chassis that they need are compiled on a thread of their own, one trace at a time, while the event loop goes on.

use super::Node;
use crate::engine::{Others, Traced, Wanted};
use oxbow_daemon::unixctl::Reply;
use std::collections::VecDeque;
use tokio::task::{JoinError, JoinHandle};

/// Traces that wait for another one's end.
const MOST_WAITING: usize = 16;

/// A trace that is not answered yet.
pub(super) struct Asked {
    port: String,
    packet: String,
    reply: Reply,
    others: Others,
}

/// What a worker ends with.
pub(super) type Compiled = Result<Others, JoinError>;

/// Something that is done for whoever asked, one after the other.
pub(super) struct OneByOne<A, R> {
    running: Option<(A, JoinHandle<R>)>,
    waiting: VecDeque<A>,
}

/// Traces under way.
pub(super) type Traces = OneByOne<Asked, Others>;

impl<A, R> Default for OneByOne<A, R> {
    fn default() -> Self {
        OneByOne { running: None, waiting: VecDeque::new() }
    }
}

impl<A, R: Send + 'static> OneByOne<A, R> {
    fn is_busy(&self) -> bool {
        self.running.is_some()
    }

    /// Has work done on another thread; nothing else may be under way.
    fn start(&mut self, asked: A, work: impl FnOnce() -> R + Send + 'static) {
        debug_assert!(!self.is_busy(), "one at a time");
        self.running = Some((asked, tokio::task::spawn_blocking(work)));
    }

    /// For later; given back when too many wait.
    fn wait(&mut self, asked: A) -> Result<(), A> {
        if self.waiting.len() >= MOST_WAITING {
            return Err(asked);
        }
        self.waiting.push_back(asked);
        Ok(())
    }

    fn next(&mut self) -> Option<A> {
        self.waiting.pop_front()
    }

    /// Ends with the work that is under way; never without any. May be dropped and called again.
    pub(super) async fn done(&mut self) -> Result<R, JoinError> {
        match &mut self.running {
            Some((_, work)) => work.await,
            None => std::future::pending().await,
        }
    }

    /// Whose work has ended.
    fn ended(&mut self) -> Option<A> {
        self.running.take().map(|(asked, _)| asked)
    }
}

impl Node {
    /// A trace is asked for.
    pub(super) fn trace(&mut self, port: String, packet: String, reply: Reply) {
        self.pursue(Asked { port, packet, reply, others: Others::default() });
    }

    /// Other chassis' policies are compiled: the trace goes on, then the next one.
    pub(super) fn traced(&mut self, compiled: Compiled) {
        if let Some(mut asked) = self.traces.ended() {
            match compiled {
                Ok(others) => {
                    asked.others.extend(others);
                    self.pursue(asked);
                }
                Err(error) => asked.reply.error(format!("the policies of other chassis were not compiled: {error}")),
            }
        }
        while !self.traces.is_busy()
            && let Some(next) = self.traces.next()
        {
            self.pursue(next);
        }
    }

    /// Answers, or has compiled what the answer lacks.
    fn pursue(&mut self, asked: Asked) {
        match self.engine.trace_report(&asked.port, &asked.packet, &asked.others) {
            Ok(Traced::Told(trace)) => {
                asked.reply.ok(oxbow_report::json(&trace));
                // To free a large policy takes its time, too.
                drop(tokio::task::spawn_blocking(move || drop(asked.others)));
            }
            Ok(Traced::Wanting(wanted)) if !self.traces.is_busy() => {
                self.traces.start(asked, move || Wanted::compile(wanted));
            }
            Ok(Traced::Wanting(_)) => {
                if let Err(asked) = self.traces.wait(asked) {
                    asked.reply.error(format!("{MOST_WAITING} traces to other chassis wait already: ask again later"));
                }
            }
            Err(error) => asked.reply.error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// One that does not end before it is told to holds up nobody: what the loop waits for beside it comes, and others are queued, not lost.
    #[tokio::test]
    async fn work_that_does_not_end_leaves_the_loop_alone() {
        let mut traces: OneByOne<&str, u32> = OneByOne::default();
        let (finish, told) = channel::<()>();
        traces.start("first", move || {
            told.recv().expect("the test tells");
            7
        });
        let (ask, mut requests) = tokio::sync::mpsc::channel(4);
        for request in 0..3 {
            ask.send(request).await.expect("there is room");
            let answered = tokio::select! {
                _ = traces.done() => None,
                request = requests.recv() => request,
            };
            assert_eq!(answered, Some(request), "another command");
        }
        assert!(traces.is_busy());
        for _ in 0..MOST_WAITING {
            assert_eq!(traces.wait("later"), Ok(()));
        }
        assert_eq!(traces.wait("too many"), Err("too many"));
        finish.send(()).expect("it waits");
        assert_eq!(traces.done().await.expect("it ends"), 7);
        assert_eq!((traces.ended(), traces.next(), traces.is_busy()), (Some("first"), Some("later"), false));
    }
}
