//! Logging in the format and under the control that OVN's tools expect (host contract; ovs-appctl(8)).
//!
//! Code logs through `tracing`. The event's *target* becomes the vlog module: a target without `::` is the module's name
//! itself (`target: "reconnect"`), of a Rust path the crate's name counts, without `oxbow_` (`oxbow_northd::units::port`
//! is module `northd`). A field `rate_limit = N` limits that log statement to N messages a minute; other fields are
//! appended to the message as ` name=value`.
//!
//! [`Vlog`] is the configuration: levels per module and destination, line patterns, files. Levels are cached in
//! tracing's callsites, so a disabled message costs one atomic load.

mod clock;
mod layer;
mod level;
mod pattern;
mod rate_limit;
mod sink;
mod spec;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

pub use layer::VlogLayer;
pub use level::{Destination, Facility, Level};
pub use sink::{SyslogMethod, parse_target};
pub use spec::SpecError;

use pattern::{Process, Record};
use sink::{LogFile, Syslog};
use spec::Change;

/// Levels and switches of one module.
#[derive(Debug)]
struct Module {
    levels: [AtomicU8; 3],
    rate_limited: AtomicBool,
    /// True for a module this program logs under, false for one that is only accepted in `vlog/set`.
    own: AtomicBool,
}

impl Module {
    fn new(defaults: [Level; 3], own: bool) -> Module {
        Module {
            levels: defaults.map(|level| AtomicU8::new(level as u8)),
            rate_limited: AtomicBool::new(true),
            own: AtomicBool::new(own),
        }
    }

    fn level(&self, destination: Destination) -> Level {
        Level::ALL[usize::from(self.levels[destination as usize].load(Ordering::Relaxed))]
    }

    fn set(&self, destination: Destination, level: Level) {
        self.levels[destination as usize].store(level as u8, Ordering::Relaxed);
    }

    fn takes(&self, level: Level) -> bool {
        Destination::ALL.into_iter().any(|destination| level <= self.level(destination))
    }
}

struct Outputs {
    console: String,
    file_pattern: String,
    syslog_pattern: String,
    facility: Option<Facility>,
    file: LogFile,
    syslog: Syslog,
    target: Option<(SocketAddr, Option<UdpSocket>)>,
}

/// The logging configuration of a process; clones share it.
#[derive(Clone)]
pub struct Vlog {
    shared: Arc<Shared>,
}

struct Shared {
    process: Process,
    sequence: AtomicU64,
    /// What a module that is heard of for the first time starts with.
    defaults: Mutex<[Level; 3]>,
    modules: RwLock<BTreeMap<String, Arc<Module>>>,
    outputs: Mutex<Outputs>,
}

impl std::fmt::Debug for Vlog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vlog").field("program", &self.shared.process.program).finish_non_exhaustive()
    }
}

impl Vlog {
    /// Logging for `program`: `INFO` and above on all destinations, no log file yet.
    pub fn new(program: &'static str) -> Vlog {
        let host =
            nix::unistd::gethostname().map_or_else(|_| "-".to_owned(), |host| host.to_string_lossy().into_owned());
        let process = Process { program, host, pid: std::process::id(), started: SystemTime::now() };
        Vlog {
            shared: Arc::new(Shared {
                process,
                sequence: AtomicU64::new(0),
                defaults: Mutex::new([Level::Info; 3]),
                modules: RwLock::new(BTreeMap::new()),
                outputs: Mutex::new(Outputs {
                    console: pattern::CONSOLE.to_owned(),
                    file_pattern: pattern::FILE.to_owned(),
                    syslog_pattern: pattern::SYSLOG.to_owned(),
                    facility: None,
                    file: LogFile::default(),
                    syslog: Syslog::new(SyslogMethod::Libc),
                    target: None,
                }),
            }),
        }
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.shared.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes modules known before they log, so that `-vMODULE` works and `vlog/list` shows them.
    pub fn register_modules(&self, names: &[&str]) {
        for name in names {
            self.module(name, true);
        }
    }

    /// Makes names acceptable to `vlog/set` that stock's daemon has and this one does not log under: a script's
    /// `-vinc_proc_eng:dbg` must not end the daemon.
    pub fn accept_modules(&self, names: &[&str]) {
        for name in names {
            self.module(name, false);
        }
    }

    fn module(&self, name: &str, own: bool) -> Arc<Module> {
        let known = self.shared.modules.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(module) = known {
            if own {
                module.own.store(true, Ordering::Relaxed);
            }
            return module;
        }
        let defaults = *self.shared.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut modules = self.shared.modules.write().unwrap_or_else(PoisonError::into_inner);
        modules.entry(name.to_owned()).or_insert_with(|| Arc::new(Module::new(defaults, own))).clone()
    }

    fn is_module(&self, name: &str) -> bool {
        self.shared.modules.read().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Applies the argument of `-v` or one argument of `vlog/set`.
    ///
    /// # Errors
    /// [`SpecError`] with OVS's text; nothing is changed then.
    pub fn set(&self, specification: &str) -> Result<(), SpecError> {
        match spec::parse(specification, |word| self.is_module(word))? {
            Change::Level { module, destination, level } => self.set_level(module.as_deref(), destination, level),
            Change::Pattern { destination, pattern } => {
                let mut outputs = self.outputs();
                for each in Destination::ALL.into_iter().filter(|each| destination.is_none_or(|one| one == *each)) {
                    match each {
                        Destination::Console => outputs.console.clone_from(&pattern),
                        Destination::Syslog => outputs.syslog_pattern.clone_from(&pattern),
                        Destination::File => outputs.file_pattern.clone_from(&pattern),
                    }
                }
            }
            Change::Facility(facility) => self.outputs().facility = Some(facility),
        }
        Ok(())
    }

    /// Sets the level of one module or all, at one destination or all.
    pub fn set_level(&self, module: Option<&str>, destination: Option<Destination>, level: Level) {
        let mut destinations =
            Destination::ALL.into_iter().filter(|each| destination.is_none_or(|one| one == *each)).collect::<Vec<_>>();
        match module {
            Some(name) => {
                let module = self.module(name, false);
                destinations.drain(..).for_each(|destination| module.set(destination, level));
            }
            None => {
                let mut defaults = self.shared.defaults.lock().unwrap_or_else(PoisonError::into_inner);
                let modules = self.shared.modules.read().unwrap_or_else(PoisonError::into_inner);
                for destination in destinations {
                    defaults[destination as usize] = level;
                    modules.values().for_each(|module| module.set(destination, level));
                }
            }
        }
        tracing::callsite::rebuild_interest_cache();
    }

    /// `vlog/enable-rate-limit` and `vlog/disable-rate-limit`: of the modules named, or of all if none is.
    ///
    /// # Errors
    /// "unknown module", as OVS says.
    pub fn set_rate_limiting(&self, names: &[String], enabled: bool) -> Result<(), &'static str> {
        let modules = self.shared.modules.read().unwrap_or_else(PoisonError::into_inner);
        if names.is_empty() {
            modules.values().for_each(|module| module.rate_limited.store(enabled, Ordering::Relaxed));
        }
        for name in names {
            let module = modules.get(&name.to_ascii_lowercase()).ok_or("unknown module")?;
            module.rate_limited.store(enabled, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The table of `vlog/list`: the modules this program logs under, and others that were given a level of their own.
    pub fn list(&self) -> String {
        let defaults = *self.shared.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        let modules = self.shared.modules.read().unwrap_or_else(PoisonError::into_inner);
        let mut text =
            String::from("                 console    syslog    file\n                 -------    ------    ------\n");
        for (name, module) in modules.iter() {
            let levels = Destination::ALL.map(|destination| module.level(destination));
            if module.own.load(Ordering::Relaxed) || levels != defaults {
                let [console, syslog, file] = levels.map(Level::name);
                let _ = writeln!(text, "{name:<16}  {console:>4}       {syslog:>4}       {file:>4}");
            }
        }
        text
    }

    /// The table of `vlog/list-pattern`.
    pub fn list_patterns(&self) -> String {
        let outputs = self.outputs();
        let mut text = String::from(
            "         prefix                            format\n         ------                            ------\n",
        );
        for (name, prefix, format) in [
            ("SYSLOG", pattern::SYSLOG_PREFIX, &outputs.syslog_pattern),
            ("CONSOLE", "none", &outputs.console),
            ("FILE", "none", &outputs.file_pattern),
        ] {
            let _ = writeln!(text, "{name:<7}  {prefix:<32}  {format}");
        }
        text
    }

    /// Starts logging to `path`, and says so in the log.
    ///
    /// # Errors
    /// The system's, if the file cannot be opened for appending.
    pub fn open_file(&self, path: PathBuf) -> io::Result<()> {
        let name = path.display().to_string();
        self.outputs().file.open(path)?;
        self.emit("vlog", Level::Info, &format!("opened log file {name}"));
        Ok(())
    }

    /// `vlog/reopen`: begins the log file anew after it was renamed.
    ///
    /// # Errors
    /// A text for the client: no file is configured, or the system's message.
    pub fn reopen(&self) -> Result<(), String> {
        let name = self.outputs().file.path().map(|path| path.display().to_string());
        let name = name.ok_or("Logging to file not configured")?;
        if self.outputs().file.is_open() {
            self.emit("vlog", Level::Info, "closing log file");
        }
        self.outputs().file.reopen().map_err(|error| error.to_string())?;
        self.emit("vlog", Level::Info, &format!("opened log file {name}"));
        Ok(())
    }

    /// `vlog/close`: no log file until the next `vlog/reopen`.
    pub fn close(&self) {
        self.outputs().file.close();
    }

    /// Chooses the way to the syslog daemon.
    pub fn set_syslog_method(&self, method: SyslogMethod) {
        self.outputs().syslog = Syslog::new(method);
    }

    /// Sends every syslog message to `target` too.
    pub fn set_syslog_target(&self, target: SocketAddr) {
        self.outputs().target = Some((target, None));
    }

    /// Logs outside of tracing: for messages about logging itself, and for a process that is about to die.
    pub fn emit(&self, module: &str, level: Level, message: &str) {
        let handle = self.module(module, true);
        self.write(&handle, module, level, message);
    }

    fn write(&self, module: &Module, name: &str, level: Level, message: &str) {
        let thread = std::thread::current();
        let thread = match thread.name() {
            None | Some("main" | "tokio-rt-worker") => "",
            Some(name) => name,
        };
        let process = &self.shared.process;
        let mut outputs = self.outputs();
        // Numbered under the lock, so that numbers rise through a file.
        let sequence = self.shared.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let record = Record { time: SystemTime::now(), sequence, module: name, thread, level, message };
        let local0 = outputs.facility.unwrap_or(Facility::LOCAL0);
        if level <= module.level(Destination::Console) {
            use io::Write as _;
            let line = pattern::expand(&outputs.console, process, local0, &record);
            // Nobody may be reading standard error any more; there is nowhere to report that.
            let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
        }
        if level <= module.level(Destination::File) && outputs.file.is_open() {
            let line = pattern::expand(&outputs.file_pattern, process, local0, &record);
            outputs.file.write(&line);
        }
        if level <= module.level(Destination::Syslog) {
            let Outputs { syslog, syslog_pattern, facility, target, .. } = &mut *outputs;
            let prefix = match syslog.method {
                SyslogMethod::Libc => "<%B>%D{%h %e %T} %A: ",
                _ => "<%B> %D{%h %e %T} %E %A: ",
            };
            let to_host = facility.unwrap_or(match syslog.method {
                SyslogMethod::Libc => Facility::DAEMON,
                _ => Facility::LOCAL0,
            });
            // A message of several lines is several entries, as syslog daemons expect.
            for part in message.lines() {
                let record = Record { message: part, ..record };
                let line = pattern::expand(&format!("{prefix}{syslog_pattern}"), process, to_host, &record);
                syslog.send(line.as_bytes());
                if let Some((address, socket)) = target {
                    let line = pattern::expand(pattern::SYSLOG_TARGET, process, local0, &record);
                    sink::send_udp(socket, *address, line.as_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_look_like_stocks() {
        let vlog = Vlog::new("ovn-northd");
        vlog.register_modules(&["northd", "mac_binding_aging"]);
        vlog.accept_modules(&["poll_loop", "jsonrpc"]);
        vlog.set("console:off").unwrap();
        vlog.set("jsonrpc").unwrap();
        assert_eq!(
            vlog.list(),
            "                 console    syslog    file\n\
             \x20                -------    ------    ------\n\
             jsonrpc            DBG        DBG        DBG\n\
             mac_binding_aging   OFF       INFO       INFO\n\
             northd             OFF       INFO       INFO\n"
        );
        assert_eq!(
            vlog.list_patterns(),
            "         prefix                            format\n\
             \x20        ------                            ------\n\
             SYSLOG   <%B> %D{%h %e %T} %E %A:          ovs|%05N|%c%T|%p|%m\n\
             CONSOLE  none                              %D{%Y-%m-%dT%H:%M:%SZ}|%05N|%c%T|%p|%m\n\
             FILE     none                              %D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m\n"
        );
    }

    #[test]
    fn a_module_heard_of_later_starts_with_the_general_level() {
        let vlog = Vlog::new("ovn-northd");
        vlog.set("file:dbg").unwrap();
        assert_eq!(vlog.module("late", true).level(Destination::File), Level::Dbg);
        assert_eq!(vlog.module("late", true).level(Destination::Console), Level::Info);
    }

    #[test]
    fn a_rotated_file_is_begun_anew_and_closed_ones_stay_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.log");
        let vlog = Vlog::new("oxbow-northd");
        vlog.set("console:off").unwrap();
        vlog.set_syslog_method(SyslogMethod::Null);
        assert_eq!(vlog.reopen().unwrap_err(), "Logging to file not configured");
        vlog.open_file(path.clone()).unwrap();
        std::fs::rename(&path, dir.path().join("d.log.1")).unwrap();
        vlog.emit("northd", Level::Warn, "still in the old file");
        vlog.reopen().unwrap();
        vlog.emit("northd", Level::Warn, "in the new file");
        vlog.close();
        vlog.emit("northd", Level::Warn, "nowhere");
        let old = std::fs::read_to_string(dir.path().join("d.log.1")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(old.contains("|WARN|still in the old file\n"), "{old}");
        assert!(new.contains("|WARN|in the new file\n") && !new.contains("nowhere"), "{new}");
    }
}
