//! When a hypervisor last sent an echo request through a tunnel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use oxbow_testkit::Netns;
use oxbow_testkit::frames::Frames;

use super::echo::COOKIE;

/// Listens on the fabric's end of a hypervisor's uplink, until it is dropped.
#[derive(Debug)]
pub(super) struct Tunnel {
    last: Arc<Mutex<Option<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Listens to what arrives at `port` of the fabric.
    pub(super) fn listen(fabric: &Netns, port: &str) -> Result<Self> {
        let frames = Frames::open(fabric, port)?;
        let (last, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let (shared, ended) = (Arc::clone(&last), Arc::clone(&stop));
        let thread = thread::Builder::new().name("tunnel".to_owned()).spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // An error ends the listening: what is asked of it then is as if nothing had come, which no measurement takes for good.
                let Ok(received) = frames.receive(Duration::from_millis(100)) else { return };
                if received.is_some_and(|received| is_tunnelled(&received.frame)) {
                    *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
            }
        })?;
        Ok(Self { last, stop, thread: Some(thread) })
    }

    /// When the last one came.
    pub(super) fn last(&self) -> Option<Instant> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic: there is nothing in it that could.
            let _ = thread.join();
        }
    }
}

/// Whether an Ethernet frame carries UDP to Geneve's port (RFC 8926) and in it one of our requests or answers.
fn is_tunnelled(frame: &[u8]) -> bool {
    let is_geneve =
        frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17) && frame.get(36..38) == Some(&[0x17, 0xc1]);
    is_geneve && frame.windows(COOKIE.len()).any(|part| part == COOKIE)
}
