//! The bridge from `tracing` to [`Vlog`].

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, callsite};
use tracing_subscriber::layer::{Context, Layer};

use super::level::{Destination, Level};
use super::rate_limit::{RateLimit, Verdict};
use super::{Module, Vlog};

/// A tracing layer that writes events as OVS log lines.
#[derive(Debug)]
pub struct VlogLayer {
    vlog: Vlog,
    targets: RwLock<HashMap<String, (String, Arc<Module>)>>,
    limits: Mutex<HashMap<callsite::Identifier, RateLimit>>,
}

impl VlogLayer {
    /// A layer that logs by the configuration `vlog`.
    pub fn new(vlog: Vlog) -> VlogLayer {
        VlogLayer { vlog, targets: RwLock::default(), limits: Mutex::default() }
    }

    fn module(&self, target: &str) -> (String, Arc<Module>) {
        let known = self.targets.read().unwrap_or_else(PoisonError::into_inner).get(target).cloned();
        known.unwrap_or_else(|| {
            let name = module_name(target).to_owned();
            let module = self.vlog.module(&name, true);
            let entry = (name, module);
            self.targets.write().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned(), entry.clone());
            entry
        })
    }
}

/// The vlog module of a tracing target.
fn module_name(target: &str) -> &str {
    let first = target.split_once("::").map_or(target, |(first, _)| first);
    first.strip_prefix("oxbow_").unwrap_or(first)
}

impl<S: Subscriber> Layer<S> for VlogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && self.module(metadata.target()).1.takes(Level::of(*metadata.level())) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _context: Context<'_, S>) -> bool {
        metadata.is_event() && self.module(metadata.target()).1.takes(Level::of(*metadata.level()))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let modules = self.vlog.shared.modules.read().unwrap_or_else(PoisonError::into_inner);
        let defaults = *self.vlog.shared.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        let levels = modules
            .values()
            .flat_map(|module| Destination::ALL.map(|destination| module.level(destination)))
            .chain(defaults);
        Some(match levels.max().unwrap_or(Level::Off) {
            Level::Off | Level::Emer => LevelFilter::OFF,
            Level::Err => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Dbg => LevelFilter::TRACE,
        })
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let level = Level::of(*metadata.level());
        let (name, module) = self.module(metadata.target());
        let mut text = Text::default();
        event.record(&mut text);
        if let Some(per_minute) = text.rate_limit
            && module.rate_limited.load(std::sync::atomic::Ordering::Relaxed)
        {
            let now = Instant::now();
            let verdict = self
                .limits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(metadata.callsite())
                .or_insert_with(|| RateLimit::new(per_minute, now))
                .judge(now);
            match verdict {
                Verdict::Pass => {}
                Verdict::PassAfter(note) => self.vlog.write(&module, &name, level, &note),
                Verdict::Drop => return,
            }
        }
        text.message.push_str(&text.fields);
        self.vlog.write(&module, &name, level, &text.message);
    }
}

/// The parts of an event's text.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
    rate_limit: Option<u32>,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let result = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        // Writing to a String cannot fail; a Debug that says so is a bug of its type.
        debug_assert!(result.is_ok());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rate_limit" {
            self.rate_limit = Some(u32::try_from(value).unwrap_or(u32::MAX));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.record_u64(field, value),
            Err(_) => self.record_debug(field, &value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vlog::SyslogMethod;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn targets_become_modules() {
        assert_eq!(module_name("oxbow_northd::units::port"), "northd");
        assert_eq!(module_name("oxbow_ovsdb"), "ovsdb");
        assert_eq!(module_name("reconnect"), "reconnect");
        assert_eq!(module_name("rustls::client::hs"), "rustls");
    }

    fn log(vlog: &Vlog, directory: &tempfile::TempDir, events: impl FnOnce()) -> Vec<String> {
        let path = directory.path().join("log");
        vlog.set("console:off").unwrap();
        vlog.set_syslog_method(SyslogMethod::Null);
        vlog.open_file(path.clone()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(VlogLayer::new(vlog.clone())), events);
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().skip(1).map(|line| line.splitn(3, '|').nth(2).unwrap().to_owned()).collect()
    }

    #[test]
    fn events_become_lines_and_levels_change_at_run_time() {
        let directory = tempfile::tempdir().unwrap();
        let vlog = Vlog::new("oxbow-northd");
        let event = |n: u32| tracing::debug!(target: "reconnect", n, "probing {}", "peer");
        let lines = log(&vlog, &directory, || {
            event(1);
            vlog.set("reconnect:file:dbg").unwrap_err();
            tracing::info!(target: "reconnect", "connected");
            vlog.set("reconnect:file:dbg").unwrap();
            event(2);
            vlog.set("reconnect:file:err").unwrap();
            tracing::warn!(target: "reconnect", "unseen");
            tracing::error!("from a path");
        });
        let thread = "(vlog::layer::tests::events_become_lines_and_levels_change_at_run_time)";
        assert_eq!(
            lines,
            [
                format!("reconnect{thread}|INFO|connected"),
                format!("reconnect{thread}|DBG|probing peer n=2"),
                format!("daemon{thread}|ERR|from a path"),
            ]
        );
    }

    #[test]
    fn a_limited_statement_stops_until_limits_are_off() {
        let directory = tempfile::tempdir().unwrap();
        let vlog = Vlog::new("oxbow-northd");
        let event = |n: u32| tracing::warn!(target: "limited", rate_limit = 2, "message {n}");
        let lines = log(&vlog, &directory, || {
            (0..5).for_each(event);
            vlog.set_rate_limiting(&["limited".to_owned()], false).unwrap();
            (5..7).for_each(event);
            assert_eq!(vlog.set_rate_limiting(&["nope".to_owned()], false), Err("unknown module"));
        });
        let messages: Vec<_> = lines.iter().map(|line| line.rsplit('|').next().unwrap()).collect();
        assert_eq!(messages, ["message 0", "message 1", "message 5", "message 6"]);
    }
}
