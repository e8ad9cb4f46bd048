//! Waiting for conditions.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long the tests wait for something that happens within milliseconds on an idle machine. Generous, because a busy machine must
/// not fail a test, and free, because a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every wait of this process fail from now on, so that it unwinds and cleans up. Async-signal-safe.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// What a look at a condition found.
#[derive(Debug)]
pub enum Look<T> {
    /// It holds; this is the evidence.
    Held(T),
    /// It does not hold yet; this is what was seen instead, for the message should the deadline pass.
    NotYet(String),
}

impl Look<()> {
    /// `Held` if `condition`, else `NotYet` with the text that `seen` makes.
    pub fn when(condition: bool, seen: impl FnOnce() -> String) -> Self {
        if condition { Self::Held(()) } else { Self::NotYet(seen()) }
    }
}

/// Looks again and again until `look` finds its condition held, and returns the evidence.
///
/// Where everything is slower, the deadline is [`stretched`].
///
/// # Errors
///
/// When `deadline` has passed: says what was waited for (`what`) and what the last look saw instead. An error of `look` itself
/// counts as "not yet", because servers and devices that are still coming up answer with errors; the last one is reported.
pub fn wait_until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let start = Instant::now();
    let deadline = stretched(deadline);
    loop {
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        let seen = match look() {
            Ok(Look::Held(evidence)) => return Ok(evidence),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > deadline {
            bail!("{what}: not within {} s. Last seen:\n{seen}", deadline.as_secs_f32());
        }
        thread::sleep(INTERVAL);
    }
}

/// How long something may take where everything is slower (a virtual machine whose processor is translated) that may take `usual` elsewhere:
/// the environment variable `OXBOW_PATIENCE` says how many times longer.
///
/// # Panics
///
/// When that is no whole number.
pub fn stretched(usual: Duration) -> Duration {
    static STRETCH: OnceLock<u32> = OnceLock::new();
    let stretch = STRETCH.get_or_init(|| match std::env::var("OXBOW_PATIENCE") {
        Err(_) => 1,
        // A deadline that is not what somebody asked for would show as a test that fails for no reason.
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("OXBOW_PATIENCE={text}: {error}: give a whole number")),
    });
    usual.saturating_mul(*stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_evidence_of_the_look_that_held() {
        let mut looks = 0;
        let evidence = wait_until("the third look", PATIENCE, || {
            looks += 1;
            Ok(if looks == 3 { Look::Held(looks) } else { Look::NotYet(looks.to_string()) })
        });
        assert_eq!(evidence.unwrap(), 3);
    }

    #[test]
    fn the_error_names_the_condition_and_what_was_seen() {
        let error =
            wait_until::<()>("pigs to fly", Duration::ZERO, || Ok(Look::NotYet("pigs on the ground".to_owned())));
        let text = format!("{:#}", error.unwrap_err());
        assert!(text.contains("pigs to fly") && text.contains("pigs on the ground"), "{text}");
    }

    #[test]
    fn an_error_of_the_look_is_reported_when_it_stays() {
        let error = wait_until::<()>("an answer", Duration::ZERO, || bail!("connection refused")).unwrap_err();
        assert!(format!("{error:#}").contains("connection refused"), "{error:#}");
    }
}
