//! `oxbow-northd` as a process, driven by the real `ovn-appctl` against real ovsdb-servers: what ovn-ctl, systemd,
//! ovn-kubernetes and OVN's own test suite do with an ovn-northd.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(20);

/// A directory with both databases behind one server, in which northds run under the name `ovn-northd`.
struct Sandbox {
    dir: tempfile::TempDir,
    server: Child,
}

impl Sandbox {
    fn new() -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        for (file, schema) in [("nb.db", "ovn-nb"), ("sb.db", "ovn-sb")] {
            let schema = format!("/usr/share/ovn/{schema}.ovsschema");
            let status = Command::new("ovsdb-tool").arg("create").arg(dir.path().join(file)).arg(schema).status();
            assert!(status.unwrap().success());
        }
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_oxbow-northd"), dir.path().join("ovn-northd")).unwrap();
        let server = Command::new("ovsdb-server")
            .current_dir(dir.path())
            .env("OVS_RUNDIR", dir.path())
            .args(["--remote=punix:db.sock", "--unixctl=server.ctl", "-vconsole:warn", "nb.db", "sb.db"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let sandbox = Sandbox { dir, server };
        sandbox.until("the server listens", || sandbox.path("db.sock").exists());
        sandbox
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    /// A command with the environment of an instance whose files are in the subdirectory `instance` ("" for the
    /// sandbox's own).
    fn command(&self, program: impl AsRef<std::ffi::OsStr>, instance: &str) -> Command {
        let run = self.path(instance);
        fs::create_dir_all(&run).unwrap();
        let mut command = Command::new(program);
        command.current_dir(self.dir.path()).env("OVN_NB_DB", self.remote()).env("OVN_SB_DB", self.remote());
        for name in ["RUNDIR", "LOGDIR", "DBDIR", "SYSCONFDIR"] {
            command.env(format!("OVN_{name}"), &run).env(format!("OVS_{name}"), &run);
        }
        command
    }

    /// Runs a northd to the return of its `--detach`, as OVN's test suite starts it.
    fn start(&self, instance: &str, more: &[&str]) -> Output {
        self.command(self.path("ovn-northd"), instance)
            .args(["-vconsole:off", "--detach", "--no-chdir", "--pidfile", "--log-file"])
            .args(more)
            .output()
            .unwrap()
    }

    fn started(&self, instance: &str, more: &[&str]) -> i32 {
        let output = self.start(instance, more);
        assert!(output.status.success(), "{output:?}");
        // --detach returns when the daemon is up: no waiting here.
        self.pid(instance).expect("the pidfile is written when --detach returns")
    }

    fn pid(&self, instance: &str) -> Option<i32> {
        fs::read_to_string(self.path(instance).join("ovn-northd.pid")).ok()?.trim().parse().ok()
    }

    fn appctl(&self, instance: &str, arguments: &[&str]) -> Output {
        self.command("ovn-appctl", instance)
            .args(["--timeout=10", "-t", "ovn-northd"])
            .args(arguments)
            .output()
            .unwrap()
    }

    fn ask(&self, instance: &str, arguments: &[&str]) -> String {
        let output = self.appctl(instance, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.log(instance));
        String::from_utf8(output.stdout).unwrap()
    }

    fn log(&self, instance: &str) -> String {
        fs::read_to_string(self.path(instance).join("ovn-northd.log")).unwrap_or_default()
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < DEADLINE, "waited in vain until {what}\n{}\n{}", self.log(""), self.log("other"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn until_status(&self, instance: &str, status: &str) {
        let expected = format!("Status: {status}\n");
        self.until(&format!("{instance:?} is {status}"), || self.ask(instance, &["status"]) == expected);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A test that failed half way leaves detached daemons behind; the pidfiles name them.
        for instance in ["", "other"] {
            if let Some(pid) = self.pid(instance).filter(|pid| is_ours(*pid)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn is_ours(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "ovn-northd\n")
}

fn is_running(pid: i32) -> bool {
    // A process that has ended may stay a zombie until whoever adopted it looks.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

fn files(directory: &Path, suffix: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    entries.filter(|name| name.ends_with(suffix)).collect()
}

#[test]
fn it_lives_and_ends_as_ovn_ctl_expects() {
    let sandbox = Sandbox::new();
    let pid = sandbox.started("", &[]);
    assert_eq!(files(sandbox.dir.path(), "northd.pid"), ["ovn-northd.pid"]);
    assert!(sandbox.path(&format!("ovn-northd.{pid}.ctl")).exists());
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "ovn-northd\n");
    assert_eq!(sandbox.ask("", &["version"]), "ovn-northd 23.03.1\nOpen vSwitch Library 3.1.0\n");
    sandbox.until_status("", "active");
    assert_eq!(sandbox.ask("", &["nb-connection-status"]), "connected\n");
    assert_eq!(sandbox.ask("", &["sb-connection-status"]), "connected\n");
    assert_eq!(sandbox.ask("", &["is-paused"]), "false\n");

    let again = sandbox.start("", &[]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    let pidfile = sandbox.path("ovn-northd.pid");
    assert_eq!(said, format!("ovn-northd: {}: already running as pid {pid}, aborting\n", pidfile.display()));

    assert_eq!(sandbox.ask("", &["exit"]), "");
    sandbox.until("it has ended", || !is_running(pid));
    assert!(files(sandbox.dir.path(), "northd.pid").is_empty(), "the pidfile is removed");
    assert_eq!(files(sandbox.dir.path(), ".ctl"), ["server.ctl"], "the control socket is removed");
    let log = sandbox.log("");
    assert!(log.contains("|00001|vlog|INFO|opened log file "), "{log}");
    assert!(
        log.contains("|ovn_northd|INFO|ovn-northd lock acquired. This ovn-northd instance is now active."),
        "{log}"
    );
}

#[test]
fn commands_answer_as_stock_does() {
    let sandbox = Sandbox::new();
    sandbox.started("", &["--n-threads=300"]);
    assert_eq!(sandbox.ask("", &["parallel-build/get-n-threads"]), "256\n");
    assert_eq!(sandbox.ask("", &["parallel-build/set-n-threads", "2"]), "");
    assert_eq!(sandbox.ask("", &["parallel-build/get-n-threads"]), "2\n");
    for (arguments, error) in [
        (&["parallel-build/set-n-threads", "0"][..], "invalid n_threads: 0\n"),
        (&["parallel-build/set-n-threads", "abc"], "invalid n_threads: 0\n"),
        (&["parallel-build/set-n-threads", "300"], "invalid n_threads: 300\n"),
        (&["inc-engine/show-stats", "northd", "foo"], "Invalid stat type : foo\n"),
        (&["status", "a"], "\"status\" command takes at most 0 arguments\n"),
        (&["vlog/set", "foo:bar"], "no destination, level, or module \"foo\"\n"),
    ] {
        let output = sandbox.appctl("", arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(error), "{arguments:?}: {said}");
    }
    let commands = sandbox.ask("", &["list-commands"]);
    let stock = "coverage/read-counter coverage/show debug/chassis-features-list exit inc-engine/clear-stats \
                 inc-engine/compute-log-timeout inc-engine/recompute inc-engine/show-stats is-paused list-commands \
                 memory/show nb-cluster-state-reset nb-connection-status parallel-build/get-n-threads \
                 parallel-build/set-n-threads pause resume sb-cluster-state-reset sb-connection-status status \
                 stopwatch/reset stopwatch/show version vlog/close vlog/disable-rate-limit vlog/enable-rate-limit \
                 vlog/list vlog/list-pattern vlog/reopen vlog/set";
    for command in stock.split_whitespace() {
        assert!(commands.lines().any(|line| line.split_whitespace().next() == Some(command)), "{command}: {commands}");
    }
    sandbox.until_status("", "active");
    sandbox.until("it has run", || sandbox.ask("", &["coverage/read-counter", "northd_run"]) != "0\n");
    for name in ["ovnnb_db_run", "ovnsb_db_run", "build_flows_ctx", "ovn-northd-loop", "build_lflows", "lflows_igmp"] {
        let shown = sandbox.ask("", &["stopwatch/show", name]);
        assert!(shown.starts_with(&format!("Statistics for '{name}'\n  Total samples: ")), "{shown}");
    }
    sandbox.until("rows are counted", || sandbox.ask("", &["memory/show"]).contains("idl-cells-OVN_Southbound:"));
    assert_eq!(
        sandbox.ask("", &["debug/chassis-features-list"]),
        "ct_no_masked_label:    true\nct_lb_related:         true\nmac_binding_timestamp: true\n"
    );
    assert_eq!(sandbox.ask("", &["inc-engine/clear-stats"]), "");
    assert_eq!(sandbox.ask("", &["inc-engine/recompute"]), "");
    let stats = sandbox.ask("", &["inc-engine/show-stats", "lflow"]);
    assert!(stats.starts_with("Node: lflow\n- recompute: "), "{stats}");
    assert_eq!(sandbox.ask("", &["sb-cluster-state-reset"]), "");
}

#[test]
fn the_second_stands_by_and_takes_over() {
    let sandbox = Sandbox::new();
    let first = sandbox.started("", &[]);
    sandbox.until_status("", "active");
    sandbox.started("other", &[]);
    sandbox.until("the second is connected", || sandbox.ask("other", &["sb-connection-status"]) == "connected\n");
    sandbox.until_status("other", "standby");

    assert_eq!(sandbox.ask("", &["pause"]), "");
    sandbox.until_status("", "paused");
    assert_eq!(sandbox.ask("", &["is-paused"]), "true\n");
    sandbox.until_status("other", "active");
    assert_eq!(sandbox.ask("", &["resume"]), "");
    sandbox.until_status("", "standby");
    assert_eq!(sandbox.ask("other", &["pause"]), "");
    sandbox.until_status("", "active");
    assert_eq!(sandbox.ask("other", &["resume"]), "");

    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    sandbox.until_status("other", "active");
    assert!(sandbox.path("ovn-northd.pid").exists(), "a killed daemon leaves its pidfile");
    // Which is stale, so a new daemon replaces it.
    sandbox.started("", &[]);
    sandbox.until_status("", "standby");
    assert_eq!(sandbox.ask("other", &["exit"]), "");
    sandbox.until_status("", "active");
}

#[test]
fn dry_run_starts_paused() {
    let sandbox = Sandbox::new();
    sandbox.started("", &["--dry-run"]);
    assert_eq!(sandbox.ask("", &["status"]), "Status: paused\n");
    assert_eq!(sandbox.ask("", &["resume"]), "");
    sandbox.until_status("", "active");
}

#[test]
fn an_unreachable_database_is_named_and_waited_for() {
    let sandbox = Sandbox::new();
    let missing = sandbox.path("later.sock");
    let remote = format!("--ovnnb-db=unix:{}", missing.display());
    sandbox.started("", &[&remote]);
    sandbox.until("the failure is logged", || {
        sandbox.log("").contains(&format!("unix:{}: connection attempt failed", missing.display()))
    });
    assert_eq!(sandbox.ask("", &["nb-connection-status"]), "not connected\n");
    std::os::unix::fs::symlink(sandbox.path("db.sock"), &missing).unwrap();
    sandbox.until("it connects", || sandbox.ask("", &["nb-connection-status"]) == "connected\n");
}

#[test]
fn signals_end_it_and_logs_rotate() {
    let sandbox = Sandbox::new();
    let pid = sandbox.started("", &[]);
    fs::rename(sandbox.path("ovn-northd.log"), sandbox.path("ovn-northd.log.1")).unwrap();
    assert_eq!(sandbox.ask("", &["vlog/reopen"]), "");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    sandbox.until("it has ended", || !is_running(pid));
    assert!(files(sandbox.dir.path(), "northd.pid").is_empty());
    assert_eq!(files(sandbox.dir.path(), ".ctl"), ["server.ctl"]);
    let log = sandbox.log("");
    assert!(log.contains("|fatal_signal|WARN|terminating with signal 15 (Terminated)"), "{log}");
}

#[test]
fn the_monitor_restarts_it_after_a_crash() {
    let sandbox = Sandbox::new();
    let first = sandbox.started("", &["--monitor"]);
    // Not SIGSEGV: Rust's handler, which looks for stack overflows, ignores the first one that no fault caused.
    // The monitor waits until ten seconds after the last start before it starts another.
    kill(Pid::from_raw(first), Signal::SIGABRT).unwrap();
    sandbox.until("another has started", || sandbox.pid("").is_some_and(|pid| pid != first && is_running(pid)));
    assert!(sandbox.log("").contains(&format!("pid {first} died, killed (Aborted")), "{}", sandbox.log(""));
    let second = sandbox.pid("").unwrap();
    sandbox.until("it answers", || sandbox.appctl("", &["exit"]).status.success());
    sandbox.until("it has ended", || !is_running(second));
}

fn run(sandbox: &Sandbox, arguments: &[&str]) -> (i32, String, String) {
    let output = sandbox.command(env!("CARGO_BIN_EXE_oxbow-northd"), "").args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_wrong_command_line_is_named() {
    let sandbox = Sandbox::new();
    let hint = "Try 'oxbow-northd --help' for more information.\n";
    for (argument, said) in [
        ("--nope", "oxbow-northd: unrecognized option '--nope'\n"),
        ("foo", "oxbow-northd: unexpected argument 'foo'\n"),
    ] {
        assert_eq!(run(&sandbox, &[argument]), (1, String::new(), format!("{said}{hint}")));
    }
    let (status, _, said) = run(&sandbox, &["--ovnnb-db"]);
    assert_eq!(status, 1);
    assert!(said.contains("--ovnnb-db") && said.ends_with(hint), "{said}");
    let said = "oxbow-northd: processing \"foo:bar\": no destination, level, or module \"foo\"\n";
    assert_eq!(run(&sandbox, &["-vfoo:bar"]), (1, String::new(), said.to_owned()));
    let (status, _, said) = run(&sandbox, &["--unixctl=/nonexistent/x.ctl"]);
    assert_eq!(status, 1);
    assert!(said.contains("/nonexistent/x.ctl: could not initialize control socket"), "{said}");
    // A failure after the fork reaches the one who typed the command.
    let (status, _, said) = run(&sandbox, &["--detach", "--pidfile=/nonexistent/x.pid"]);
    assert_eq!(status, 1);
    assert!(said.contains("/nonexistent/x.pid"), "{said}");
}

#[test]
fn help_and_version_are_printed() {
    let sandbox = Sandbox::new();
    let (status, help, _) = run(&sandbox, &["--help"]);
    assert_eq!(status, 0);
    for part in ["--ovnnb-db <DATABASE>", "--dry-run", "Daemon options", "ssl:HOST:PORT", "OVN_RUNDIR"] {
        assert!(help.contains(part), "{part}: {help}");
    }
    let (status, version, _) = run(&sandbox, &["-V"]);
    assert_eq!((status, version.lines().count()), (0, 2));
    assert!(version.starts_with("oxbow-northd "), "{version}");
}
