//! Asking for events again and again, until there were enough: the daemon keeps them for everybody who listens.

use crate::client::Client;
use crate::command_line::ListenArguments;
use anyhow::Result;
use oxbow_report::events::{Events, Listen};
use std::time::{Duration, Instant};

/// How long one question waits.
const WAIT: Duration = Duration::from_millis(1000);

/// Hands what comes to `take`, answer by answer, until the count or the time that was asked for is reached.
pub(crate) fn listen(
    client: &mut Client,
    arguments: &ListenArguments,
    frames: bool,
    mut take: impl FnMut(&Events) -> Result<()>,
) -> Result<()> {
    let deadline = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
    let only_verdicts = arguments.verdicts;
    let only_drops = arguments.drops || arguments.reason.is_some();
    let mut listen = Listen {
        drops: !only_verdicts,
        verdicts: !only_drops,
        port: arguments.port.clone(),
        reason: arguments.reason.clone(),
        r#match: arguments.r#match.clone(),
        frames,
        rate: Some(arguments.rate),
        ..Listen::default()
    };
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if rest.is_some_and(|rest| rest.is_zero()) {
            break;
        }
        let wait = rest.map_or(WAIT, |rest| rest.min(WAIT));
        listen.wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let mut news: Events = oxbow_report::read(&client.ask("oxbow/events", &[&oxbow_report::json(&listen)])?)
            .map_err(anyhow::Error::msg)?;
        news.events.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= news.events.len() as u64;
        take(&news)?;
        listen.cursor = Some(news.next);
    }
    Ok(())
}
