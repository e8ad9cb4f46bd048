//! `oxbow monitor`: prints events as they come.

use crate::client::Client;
use crate::command_line::{Format, ListenArguments};
use crate::listening;
use anyhow::Result;
use std::io::Write as _;

/// Prints events until there were enough.
pub(crate) fn run(client: &mut Client, arguments: &ListenArguments, format: Format) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    listening::listen(client, arguments, false, |news| {
        match format {
            Format::Table => write!(out, "{news}")?,
            Format::Json => {
                for event in &news.events {
                    writeln!(out, "{}", oxbow_report::json(event))?;
                }
                if news.lost != 0 {
                    writeln!(out, "{{\"event\":\"lost\",\"lost\":{}}}", news.lost)?;
                }
            }
        }
        Ok(out.flush()?)
    })?;
    Ok(true)
}
