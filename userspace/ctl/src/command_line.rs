//! The command line.

use oxbow_report::flows::Wanted;

const AFTER: &str = "\
Exit status: 0 all is well; 1 the answer is that something is wrong (not ready, a check failed, the programs disagree with the
reference); 2 the question could not be asked or answered.

The daemon is found as ovn-appctl finds it: by its locked pidfile in $OVN_RUNDIR (/var/run/ovn), as oxbow-node or ovn-controller.
All counters start with the load of the programs, that is, with the daemon's last start.

To find out what happens to a packet:
  oxbow ports                                   is the sender's port installed?
  oxbow trace vm1 'ip4.dst == 10.0.0.2 && icmp' which way would it take, and why?
  oxbow monitor --port vm1                      which way do real packets take?
  oxbow capture --port vm1 -w vm1.pcapng        the same for Wireshark and tcpdump
  oxbow drops                                   what is dropped, by which logical flow?";

/// Shows what an Oxbow hypervisor does with packets, and why
#[derive(Debug, clap::Parser)]
#[command(name = "oxbow", version, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    /// Control socket of the daemon, or its name [default: oxbow-node, then ovn-controller]
    #[arg(short, long, global = true, value_name = "SOCKET|NAME", env = "OXBOW_TARGET")]
    pub(crate) target: Option<String>,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How reports are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one JSON value (monitor: one for each event, a line each); fields are added but never renamed
    Json,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Is this hypervisor well? Connections, ports, peers, maps, problems; exit status 1 when it is not ready
    #[command(long_about = STATUS)]
    Status {
        /// The fill of every map as well
        #[arg(long)]
        maps: bool,
    },
    /// Every VIF, how far it is, and why; exit status 1 when one is not installed
    #[command(long_about = PORTS)]
    Ports,
    /// Logical flows in force with their packets: those that walked and those that cached verdicts took past
    #[command(long_about = FLOWS)]
    Flows(FlowFilter),
    /// Cached verdicts: for which packets, what they do, what they rest on, how often they were used
    #[command(long_about = VERDICTS)]
    Verdicts {
        /// Only those of packets from, or by tunnel to, this logical port
        #[arg(short, long)]
        port: Option<String>,
        /// Show so many, those with the most hits first
        #[arg(short = 'n', long, default_value_t = 100)]
        limit: usize,
    },
    /// Dropped packets by reason, and by the logical flow that dropped them
    #[command(long_about = DROPS)]
    Drops,
    /// Tell a packet's way and fate without sending it
    #[command(long_about = TRACE)]
    Trace {
        /// Logical port that sends it: on this hypervisor, or on another one that shares its logical switch with this one
        port: String,
        /// The packet: a microflow as ovn-trace(8) takes it, or `frame:` and the bytes of a frame in hexadecimal
        #[arg(required = true)]
        packet: Vec<String>,
    },
    /// Show packets as they are forwarded or dropped, until interrupted
    #[command(long_about = MONITOR)]
    Monitor(ListenArguments),
    /// Write packets, with what became of each, into a pcapng file
    #[command(long_about = CAPTURE)]
    Capture(CaptureArguments),
    /// Look whether this host can run oxbow-node, and what to do where it cannot; needs no daemon
    #[command(long_about = CHECK)]
    Check(CheckArguments),
    /// Metrics as Prometheus scrapes them
    #[command(long_about = METRICS)]
    Metrics,
    /// Show log levels, or set them: [MODULE[:DESTINATION[:LEVEL]]], as for `ovn-appctl vlog/set`
    #[command(long_about = LOG_LEVEL)]
    LogLevel {
        /// For instance `dbg`, `binding:file:dbg`
        levels: Vec<String>,
    },
    /// Print a completion script, for instance `oxbow completion bash > /etc/bash_completion.d/oxbow`
    #[command(long_about = COMPLETION)]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const STATUS: &str = "\
Is this hypervisor well? One screen: connections to both databases, chassis and encapsulations, ports, peers, the policy in force, full maps, and every problem by
name with what it means. Exit status 1 when it is not ready; the reasons stand on top. /readyz of --metrics follows the same rule.

  oxbow status                    the screen
  oxbow status --maps             with the fill of every map
  oxbow status --format json | jq .problems";

const PORTS: &str = "\
Every VIF of this hypervisor: an Interface of the integration bridge with external_ids:iface-id, how far it is, and why it is not further.

  oxbow ports

States: installed (its packets flow and NB says up); claimed, waiting-data, programming, removing-stale, marking-up (on its way by itself); no-port-binding (no such
logical port: create it, or correct the iface-id), no-device (the device does not exist yet), superseded (another Interface has the same iface-id), refused (it is
another chassis' port, or its iface-id-ver differs), postponed (it changes chassis too fast), failed (which map or device), waits-for-activation (it migrates
here). Exit status 1 when one is not installed.";

const FLOWS: &str = "\
Logical flows in force on this hypervisor, in the order of the pipelines, with their packets: `walked` took the tables, `cached` followed a verdict that was
made by them. Both count from the load of the programs.

  oxbow flows --datapath sw0 --hit          what packets of a switch do
  oxbow flows --port vm1                    what names a port, or what its cached packets take

A flow that is not executed as written is named by `oxbow status` under Problems.";

const VERDICTS: &str = "\
What the programs remember: for packets of these headers from this port, what to do without walking the tables. Each shows its hits, its age, the logical flows it was
made by and what it rests on; one that is STALE is not followed any more: the next packet walks and makes a new one. Denials are verdicts as well.

  oxbow verdicts --port vm1 -n 20

`oxbow trace` shows the verdict that one packet would follow.";

const DROPS: &str = "\
Dropped packets by reason, with what each reason means and where to look, then by the logical flow (so by the ACL) that dropped them. Both count from the load of the
programs: look twice, around a ping.

  oxbow drops
  oxbow monitor --drops                     the packets themselves, as they are dropped
  oxbow capture --drops -w drops.pcapng     the same for Wireshark";

const CHECK: &str = "\
Can this host run oxbow-node? Looks at kernel, privileges, bpf file system, memory limits, object file, other daemons, Geneve's port, the Open_vSwitch database,
encapsulation addresses and their MTU, and the way to the Southbound server. Each line is ok, warn or FAIL, with the command that mends it below. Needs no daemon and changes
nothing; root sees more. Exit status 1 when something fails.

  oxbow check
  oxbow check --bpffs /run/bpf --database unix:/run/openvswitch/db.sock";

const METRICS: &str = "\
What /metrics of `oxbow-node --metrics=…` answers, without HTTP: Prometheus' text format. Names of the known exporters (ovn_controller_*) where the meaning is the same,
oxbow_* for the rest. It is text in either --format.

  oxbow metrics | grep oxbow_drops_total";

const LOG_LEVEL: &str = "\
Show log levels, or set them until the daemon ends. Modules are those of the log's third field; destinations are console, syslog, file; levels emer, err, warn, info, dbg.
It is text in either --format.

  oxbow log-level                           every module
  oxbow log-level binding:file:dbg          one module, in the log file
  oxbow log-level info                      back to normal";

const COMPLETION: &str = "\
Print a completion script for a shell.

  oxbow completion bash > /etc/bash_completion.d/oxbow
  oxbow completion zsh > /usr/share/zsh/vendor-completions/_oxbow";

const TRACE: &str = "\
Tell a packet's way and fate without sending it.

The packet is a microflow in ovn-trace's language; what it does not say is zero, and `inport` may be left out:

  oxbow trace vm1 'eth.src == 02:00:00:00:00:01 && eth.dst == 02:00:00:00:00:02 && ip4.src == 10.0.0.1 &&
                   ip4.dst == 10.0.0.2 && ip.ttl == 64 && icmp4.type == 8'

An eth.src that is left out is the first one that the port's port security allows. A frame that no microflow describes, damaged ones for instance, is
given by its bytes, as tcpdump -XX or `oxbow capture` show it: oxbow trace vm1 frame:0200000000020200000000010800450000...

The reference interpreter runs the packet on the policy as the daemon has compiled it, and shows every logical flow with the registers it sets; stages in which
no packet of the datapath can do anything but go on are not walked and not shown. Then the loaded programs run the same frame against the maps in force, in a
copy that sends, learns, counts and caches nothing, and `oxbow` says whether both agree. A cached verdict that such packets follow is shown too.

Where the packet leaves for another hypervisor, what that one does is told as well; where the port is on another hypervisor, the packet is told from there,
arrives here in the headers of the tunnel, and the programs of the underlay run it. What another hypervisor does is the word of the reference interpreter
alone, on the policy as this one has received it; the last lines say of each end whose word it is.";

const MONITOR: &str = "\
Show packets as they are forwarded or dropped, until interrupted.

  oxbow monitor --port vm1                             everything from and to vm1
  oxbow monitor --drops                                what is dropped, and by which logical flow
  oxbow monitor --match 'tcp && ip4.dst == 10.0.0.2' -n 10

A line is: time, what became of the packet, whether a walk or the cache decided it, logical switch, ports, device or chassis or reason, length, headers.

The programs tell of packets through a ring buffer, as long as somebody listens; several may listen, each sees all it asked for.
Filters by port and reason are applied in the kernel where all listeners agree, --match in the daemon. More packets than --rate per second and CPU are not
shown but counted as lost. While forwarded packets are listened to, each costs some hundred nanoseconds more; without a listener
nothing.";

const CAPTURE: &str = "\
Write packets, with what became of each, into a pcapng file, until interrupted or until -n packets or --seconds are over.

  oxbow capture --port vm1 -w vm1.pcapng -n 100           then: tcpdump -nr vm1.pcapng, or Wireshark
  oxbow capture --drops -w - | tcpdump -nler -            live; only what is dropped
  oxbow capture --reason logical-flow-drop --match 'udp.dst == 53' -w dns.pcapng --seconds 60

Each packet is written once, when its fate is decided, with the first 128 bytes of its frame (of a packet that leaves by a walk, as it leaves; of a tunnelled one, the
inner frame). Its interface is the logical port it came from; its comment says what became of it, by which reason and logical flow; its verdict option is what the
program returned. A packet before which others were lost says how many (epb_dropcount). For what is on a device before and after the programs use tcpdump
on that device. The filters, --rate and the costs are those of `oxbow monitor`.";

/// Which flows.
#[derive(Debug, clap::Args)]
pub(crate) struct FlowFilter {
    /// Only those whose match or actions name this logical port, or that its packets have taken from the cache
    #[arg(short, long)]
    port: Option<String>,
    /// Only those of the logical switch or router of this name
    #[arg(short, long)]
    datapath: Option<String>,
    /// Leave out flows that no packet has taken
    #[arg(long)]
    hit: bool,
}

impl FlowFilter {
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted { port: self.port.clone(), datapath: self.datapath.clone(), hit: self.hit }
    }
}

/// What to listen for.
#[derive(Debug, clap::Args)]
pub(crate) struct ListenArguments {
    /// Only packets from or to this logical port
    #[arg(short, long)]
    pub(crate) port: Option<String>,
    /// Only dropped packets
    #[arg(long, conflicts_with = "verdicts")]
    pub(crate) drops: bool,
    /// Only forwarded packets
    #[arg(long)]
    pub(crate) verdicts: bool,
    /// Only packets dropped for this reason (the names of `oxbow drops`)
    #[arg(long, conflicts_with = "verdicts")]
    pub(crate) reason: Option<String>,
    /// Only packets that this expression holds for, in the language of ACLs: 'ip4.dst == 10.0.0.2 && tcp.dst == {80, 443}'
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) r#match: Option<String>,
    /// Packets per second and CPU that may be told; more are counted as lost
    #[arg(long, default_value_t = 1000)]
    pub(crate) rate: u32,
    /// End after so many packets
    #[arg(short = 'n', long)]
    pub(crate) count: Option<u64>,
    /// End after so many seconds
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
}

/// What to capture, and whereto.
#[derive(Debug, clap::Args)]
pub(crate) struct CaptureArguments {
    /// The file; - is standard output, for a pipe
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: std::path::PathBuf,
    /// Which packets.
    #[command(flatten)]
    pub(crate) listen: ListenArguments,
}

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// Mount point of the bpf file system
    #[arg(long, default_value = "/sys/fs/bpf")]
    pub(crate) bpffs: std::path::PathBuf,
    /// The Open_vSwitch database [default: unix:$OVS_RUNDIR/db.sock]
    #[arg(long)]
    pub(crate) database: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    /// Each command says in a line what it is for, in more what it shows, and how it is used; each argument says what it means.
    #[test]
    fn every_help_is_worth_reading() {
        for command in <Cli as clap::CommandFactory>::command().get_subcommands() {
            let name = command.get_name();
            let about = command.get_about().unwrap_or_else(|| panic!("{name} has no help")).to_string();
            assert!(!about.ends_with('.') && about.len() < 140, "{name}: {about:?} is no line");
            let long = command.get_long_about().unwrap_or_else(|| panic!("{name} has no long help")).to_string();
            assert!(long.contains(&format!("  oxbow {name}")), "{name} has no example:\n{long}");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name}: {argument} has no help");
            }
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        use clap::Parser as _;
        for (line, says) in [
            ("oxbow trace vm1", "<PACKET>"),
            ("oxbow capture --port vm1", "--write"),
            ("oxbow monitor --drops --verdicts", "--verdicts"),
            ("oxbow monitor --rate fast", "fast"),
            ("oxbow stats", "status"),
            ("oxbow drops --format yaml", "table, json"),
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
