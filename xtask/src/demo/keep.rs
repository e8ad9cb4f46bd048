//! `--keep`: the cloud lives in a process of its own, which ends it when it is told to end.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use oxbow_testkit::wait::{Look, interrupted, wait_until};
use oxbow_testkit::{Cloud, Netns};

/// The keeper's last line: from then on it is silent, and whoever started it may go.
const KEPT: &str = "kept.";

/// Runs the demonstration in a child process and returns when that is over, while the child stays.
pub(super) fn in_background() -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's file")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("--keeper").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start the process that keeps the cloud")?;
    let stdout = child.stdout.take().context("the child's output was asked for")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what the demonstration prints")?;
        if line == KEPT {
            return Ok(());
        }
        println!("{line}");
    }
    let status = child.wait().context("cannot wait for the demonstration")?;
    bail!("the demonstration ended with {status}, and nothing was kept");
}

/// Prints how to enter the machines of `cloud`, lets the starting process go, and stays until a signal comes.
pub(super) fn hold(cloud: &Cloud) -> Result<()> {
    let enter = |name: &str, ns: &Netns| println!("  {name:<10} {}", ns.entering());
    println!("\nthe cloud keeps running; to enter a machine:");
    enter("central", cloud.central_ns());
    for hypervisor in cloud.hypervisors() {
        enter(hypervisor.name(), hypervisor.ns());
    }
    for vif in cloud.vifs() {
        if let Some(guest) = vif.namespace() {
            enter(vif.port(), guest);
        }
    }
    println!("its files and logs are in {}, and its databases answer to", cloud.dir().display());
    println!("  ovn-nbctl --db={}/nb.sock", format_args!("unix:{}", cloud.dir().display()));
    println!("  ovn-sbctl --db={}/sb.sock", format_args!("unix:{}", cloud.dir().display()));
    if let Some(hypervisor) = cloud.hypervisors().first() {
        println!("  ovs-vsctl --db={}   (on {})", hypervisor.ovsdb().remote(), hypervisor.name());
    }
    println!("to end it and remove everything: kill {}", std::process::id());
    println!("{KEPT}");
    std::io::stdout().flush().context("cannot print")?;
    // Nobody reads what comes from here on, and nobody's terminal may end it but by the kill above.
    let null = File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")?;
    nix::unistd::dup2_stdin(&null).context("cannot leave the standard input")?;
    nix::unistd::dup2_stdout(&null).context("cannot leave the standard output")?;
    nix::unistd::dup2_stderr(&null).context("cannot leave the standard error")?;
    nix::unistd::setsid().context("cannot leave the terminal")?;
    // The wait ends, with an error, when a signal comes; that is the end that was asked for.
    let year = Duration::from_secs(365 * 24 * 3600);
    let ended = wait_until("the signal to end", year, || Ok(Look::<()>::NotYet(String::new())));
    if interrupted() { Ok(()) } else { ended }
}
