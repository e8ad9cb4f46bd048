//! The command line that both daemons share (host contract R-10), in OVS's spelling.
//!
//! [`DaemonOptions`] is flattened into a daemon's own clap structure; [`parse`] reads the process's arguments into it.
//! What getopt_long accepts and clap does not (`-vSPEC` with nothing between, abbreviated long options) is rewritten
//! before clap sees it.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches};

use crate::dirs::absolute_in;
use crate::lifecycle::StartError;
use crate::vlog::{SyslogMethod, Vlog, parse_target};
use crate::{Dirs, Identity};

/// Options of the process, of logging and of TLS.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Daemon options")]
pub struct DaemonOptions {
    /// Run in the background; the command returns when the daemon is up
    #[arg(long)]
    pub detach: bool,
    /// Watch over the daemon with a second process that restarts it after a crash
    #[arg(long)]
    pub monitor: bool,
    /// Keep the working directory when detaching (the default is to change to /)
    #[arg(long)]
    pub no_chdir: bool,
    /// Accepted for compatibility: the daemon never confines itself to the well-known directories
    #[arg(long)]
    pub no_self_confinement: bool,
    /// Run as this user and group (only for daemons that need no privilege)
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Write the process id to FILE and hold a lock on it [default FILE: PROGRAM.pid in OVN_RUNDIR]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub pidfile: Option<Option<PathBuf>>,
    /// With --pidfile, start even if a running process holds the file
    #[arg(long)]
    pub overwrite_pidfile: bool,
    /// Control socket for ovn-appctl, or "none" [default: PROGRAM.PID.ctl in OVN_RUNDIR]
    #[arg(short = 'u', long, value_name = "SOCKET")]
    pub unixctl: Option<PathBuf>,
    /// Serve /metrics (Prometheus), /livez and /readyz by HTTP at ADDRESS:PORT or unix:PATH; nothing is protected, so not on a public address [default: off]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<crate::http::Address>,
    /// Logging.
    #[command(flatten)]
    pub logging: LogOptions,
    /// TLS.
    #[command(flatten)]
    pub ssl: SslOptions,
    /// The rest.
    #[command(flatten)]
    pub information: InformationOptions,
}

/// Options of logging.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging options")]
pub struct LogOptions {
    /// Set logging levels: words from [MODULE] [console|syslog|file] [off|emer|err|warn|info|dbg], as in -vconsole:off;
    /// without SPEC, everything. Also PATTERN:DESTINATION:FORMAT and FACILITY:NAME
    #[arg(short = 'v', long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "",
          action = ArgAction::Append)]
    pub verbose: Vec<String>,
    /// Log to FILE [default FILE: PROGRAM.log in OVN_LOGDIR]
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub log_file: Option<Option<PathBuf>>,
    /// How syslog messages reach the syslog daemon: libc, unix:FILE, udp:IP:PORT or null
    #[arg(long, value_name = "METHOD")]
    pub syslog_method: Option<String>,
    /// Also send syslog messages to this address, by UDP
    #[arg(long, value_name = "IP:PORT")]
    pub syslog_target: Option<String>,
}

/// Options of connections to databases over TLS (`ssl:HOST:PORT`).
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
#[command(next_help_heading = "PKI configuration (required to use SSL)")]
pub struct SslOptions {
    /// File with the private key
    #[arg(short = 'p', long, value_name = "FILE")]
    pub private_key: Option<PathBuf>,
    /// File with the certificate for the private key
    #[arg(short = 'c', long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// File with the CA certificate of the peers, or "none" to accept any
    #[arg(short = 'C', long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Like --ca-cert, but a missing file is created from what the first peer presents
    #[arg(long, value_name = "FILE", conflicts_with = "ca_cert")]
    pub bootstrap_ca_cert: Option<PathBuf>,
    /// File with CA certificates to send to peers
    #[arg(long, value_name = "FILE")]
    pub peer_ca_cert: Option<PathBuf>,
    /// TLS versions to enable, as in TLSv1.2,TLSv1.3
    #[arg(long, value_name = "PROTOS")]
    pub ssl_protocols: Option<String>,
    /// TLS 1.2 ciphers to enable
    #[arg(long, value_name = "CIPHERS")]
    pub ssl_ciphers: Option<String>,
    /// TLS 1.3 cipher suites to enable
    #[arg(long, value_name = "SUITES")]
    pub ssl_ciphersuites: Option<String>,
    /// Name to ask the server for (server name indication)
    #[arg(long, value_name = "NAME")]
    pub ssl_server_name: Option<String>,
}

/// Options that only print.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Other options")]
pub struct InformationOptions {
    /// List the options in a form for programs
    #[arg(short = 'o', long)]
    pub options: bool,
    /// Print the version
    #[arg(short = 'V', long)]
    pub version: bool,
}

impl DaemonOptions {
    /// The pidfile to write, if one is wanted. A relative name lies in the OVN run directory.
    pub fn pidfile_path(&self, identity: &Identity, dirs: &Dirs) -> Option<PathBuf> {
        let file = self.pidfile.as_ref()?.clone().unwrap_or_else(|| identity.pidfile_name().into());
        Some(absolute_in(&dirs.ovn_run, &file))
    }

    /// The control socket to bind, if one is wanted. A relative name lies in the OVN run directory. Contains the pid of
    /// the calling process, so it must be asked in the process that serves it.
    pub fn ctl_path(&self, identity: &Identity, dirs: &Dirs) -> Option<PathBuf> {
        match &self.unixctl {
            Some(path) if path == Path::new("none") => None,
            Some(path) => Some(absolute_in(&dirs.ovn_run, path)),
            None => Some(absolute_in(&dirs.ovn_run, Path::new(&identity.ctl_name(std::process::id())))),
        }
    }
}

impl LogOptions {
    /// Applies the options. A log file that cannot be opened is reported in the log and does not stop the daemon, as with
    /// stock.
    pub(crate) fn apply(&self, vlog: &Vlog, identity: &Identity, dirs: &Dirs) -> Result<(), StartError> {
        for spec in &self.verbose {
            vlog.set(spec).map_err(|reason| StartError::Verbose { spec: spec.clone(), reason })?;
        }
        let method = self.syslog_method.clone().or_else(|| std::env::var("OVS_SYSLOG_METHOD").ok());
        if let Some(method) = method {
            vlog.set_syslog_method(SyslogMethod::parse(&method).map_err(StartError::Option)?);
        }
        if let Some(target) = &self.syslog_target {
            vlog.set_syslog_target(
                parse_target(target).map_err(|error| StartError::Option(format!("--syslog-target: {error}")))?,
            );
        }
        if let Some(file) = &self.log_file {
            let file = file.clone().unwrap_or_else(|| identity.log_file_name().into());
            let path = absolute_in(&dirs.ovn_log, &file);
            if let Err(error) = vlog.open_file(path.clone()) {
                let text = format!("failed to open {} for logging: {error}", path.display());
                vlog.emit("vlog", crate::vlog::Level::Warn, &text);
            }
        }
        Ok(())
    }
}

impl SslOptions {
    /// The same options with paths that stay valid after a change of directory; "none" stays what it is.
    pub fn absolute(&self) -> SslOptions {
        let fix = |path: &Option<PathBuf>| {
            path.as_ref()
                .map(|path| if path == Path::new("none") { path.clone() } else { absolute_in(Path::new(""), path) })
        };
        SslOptions {
            private_key: fix(&self.private_key),
            certificate: fix(&self.certificate),
            ca_cert: fix(&self.ca_cert),
            bootstrap_ca_cert: fix(&self.bootstrap_ca_cert),
            peer_ca_cert: fix(&self.peer_ca_cert),
            ..self.clone()
        }
    }
}

const CONNECTION_METHODS: &str = "\
Active database connection methods:
  unix:FILE               unix domain socket named FILE
  tcp:HOST:PORT           PORT at remote HOST
  ssl:HOST:PORT           SSL PORT at remote HOST
Several, separated by commas, name the servers of a cluster.

Environment: OVN_RUNDIR, OVN_LOGDIR, OVN_DBDIR, OVN_SYSCONFDIR, OVS_RUNDIR, OVS_LOGDIR, OVS_DBDIR, OVS_SYSCONFDIR,
OVN_NB_DB, OVN_SB_DB, OVS_SYSLOG_METHOD.";

/// Reads this process's arguments. `-h`, `-V` and `-o` print and end the process with status 0; a wrong command line ends
/// it with status 1 after a message that names what is wrong.
pub fn parse<T: CommandFactory + FromArgMatches>(
    identity: &Identity,
    information: impl FnOnce(&T) -> &InformationOptions,
) -> T {
    let arguments = std::env::args_os().skip(1);
    match try_parse(identity, arguments) {
        Ok(options) => {
            let wanted = information(&options);
            if wanted.version {
                print_and_exit(&identity.version_text());
            }
            if wanted.options {
                print_and_exit(&list_options(&mut command::<T>(identity)));
            }
            options
        }
        Err(Failure::Information(text)) => print_and_exit(&text),
        Err(Failure::Wrong(text)) => {
            let _ = writeln!(io::stderr(), "{0}: {text}\nTry '{0} --help' for more information.", identity.program);
            std::process::exit(1);
        }
    }
}

fn print_and_exit(text: &str) -> ! {
    let _ = io::stdout().write_all(text.as_bytes());
    std::process::exit(0);
}

enum Failure {
    /// Help was asked for.
    Information(String),
    /// The command line is wrong.
    Wrong(String),
}

fn command<T: CommandFactory>(identity: &Identity) -> clap::Command {
    T::command()
        .name(identity.program)
        .bin_name(identity.program)
        .no_binary_name(true)
        .infer_long_args(true)
        .args_override_self(true)
        .disable_version_flag(true)
        .after_help(CONNECTION_METHODS)
}

fn try_parse<T: CommandFactory + FromArgMatches>(
    identity: &Identity,
    arguments: impl Iterator<Item = OsString>,
) -> Result<T, Failure> {
    command::<T>(identity)
        .try_get_matches_from(rewrite(arguments))
        .and_then(|matches| T::from_arg_matches(&matches))
        .map_err(|error| explain(&error))
}

/// `-vSPEC` becomes `--verbose=SPEC`, up to a `--`.
fn rewrite(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut only_positional = false;
    arguments
        .map(|argument| {
            only_positional |= argument == "--";
            match argument.to_str().and_then(|text| text.strip_prefix("-v")) {
                Some(spec) if !only_positional && !spec.is_empty() => format!("--verbose={spec}").into(),
                _ => argument,
            }
        })
        .collect()
}

fn explain(error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Failure::Information(error.to_string()),
        ErrorKind::UnknownArgument => {
            let argument = context(ContextKind::InvalidArg).unwrap_or_default();
            Failure::Wrong(if argument.starts_with('-') {
                format!("unrecognized option '{argument}'")
            } else {
                format!("unexpected argument '{argument}'")
            })
        }
        _ => {
            let text = error.to_string();
            let sentence = text.split("\n\n").next().unwrap_or_default();
            Failure::Wrong(sentence.trim_start_matches("error: ").trim_end().to_owned())
        }
    }
}

/// What `-o` prints: an option a line, with `=ARG` or ` ARG` after those that take a value.
fn list_options(command: &mut clap::Command) -> String {
    command.build();
    let mut text = String::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_positional()) {
        let values = argument.get_num_args().unwrap_or_else(|| 0.into());
        if let Some(long) = argument.get_long() {
            let value = match (values.min_values(), values.max_values()) {
                (_, 0) => "",
                (0, _) => "[=ARG]",
                _ => "=ARG",
            };
            text.push_str(&format!("--{long}{value}\n"));
        }
        if let Some(short) = argument.get_short() {
            let value = if values.max_values() == 0 { "" } else { "ARG" };
            text.push_str(&format!("-{short} {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[derive(clap::Parser, Debug)]
    struct Line {
        #[command(flatten)]
        daemon: DaemonOptions,
        database: Option<String>,
    }

    fn identity() -> Identity {
        Identity { role: Role::Controller, program: "ovn-controller" }
    }

    fn read(arguments: &[&str]) -> Result<Line, String> {
        try_parse::<Line>(&identity(), arguments.iter().map(OsString::from)).map_err(|failure| match failure {
            Failure::Information(text) | Failure::Wrong(text) => text,
        })
    }

    #[test]
    fn ovs_spellings_are_read() {
        let line = read(&[
            "unix:/x/db.sock",
            "-vconsole:off",
            "-v",
            "-vPATTERN:file:%m",
            "--verbose=jsonrpc",
            "--pidfile",
            "--log-file",
            "--detach",
            "--no-chdir",
            "-p",
            "k.pem",
            "-c",
            "c.pem",
            "-C",
            "none",
            "--unixctl=x.ctl",
            "--overwrite",
        ])
        .unwrap();
        assert_eq!(line.database.as_deref(), Some("unix:/x/db.sock"));
        assert_eq!(line.daemon.logging.verbose, ["console:off", "", "PATTERN:file:%m", "jsonrpc"]);
        assert_eq!(line.daemon.pidfile, Some(None));
        assert!(line.daemon.detach && line.daemon.no_chdir && line.daemon.overwrite_pidfile);
        let ssl = line.daemon.ssl.absolute();
        assert_eq!(ssl.ca_cert.as_deref(), Some(Path::new("none")));
        assert!(ssl.private_key.unwrap().is_absolute());
        let dirs = Dirs::from_lookup(|name| (name == "OVN_RUNDIR").then(|| "/r".into()));
        assert_eq!(line.daemon.pidfile_path(&identity(), &dirs).unwrap(), Path::new("/r/ovn-controller.pid"));
        assert_eq!(line.daemon.ctl_path(&identity(), &dirs).unwrap(), Path::new("/r/x.ctl"));
    }

    #[test]
    fn repeated_options_take_the_last_value() {
        let line = read(&["--pidfile=/a", "--detach", "--detach", "--pidfile=/b"]).unwrap();
        assert_eq!(line.daemon.pidfile, Some(Some("/b".into())));
    }

    #[test]
    fn unixctl_none_means_no_socket() {
        let line = read(&["--unixctl=none"]).unwrap();
        assert_eq!(line.daemon.ctl_path(&identity(), &Dirs::from_lookup(|_| None)), None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(read(&["--nope"]).unwrap_err(), "unrecognized option '--nope'");
        assert_eq!(read(&["-x"]).unwrap_err(), "unrecognized option '-x'");
        assert_eq!(read(&["a", "b"]).unwrap_err(), "unexpected argument 'b'");
        let error = read(&["--unixctl"]).unwrap_err();
        assert!(error.contains("--unixctl"), "{error}");
    }

    #[test]
    fn options_are_listed_for_programs() {
        let listed = list_options(&mut command::<Line>(&identity()));
        for line in ["--detach", "--pidfile[=ARG]", "--private-key=ARG", "-p ARG", "--help", "-h ", "-V "] {
            assert!(listed.lines().any(|listed| listed == line), "{line} in {listed}");
        }
    }

    #[test]
    fn help_says_what_the_options_do() {
        let help = read(&["--help"]).unwrap_err();
        for part in ["--pidfile[=<FILE>]", "Daemon options", "Logging options", "OVN_RUNDIR", "unix:FILE"] {
            assert!(help.contains(part), "{part} in {help}");
        }
    }
}
