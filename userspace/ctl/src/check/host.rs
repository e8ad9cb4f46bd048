//! The kernel, privileges, the bpf file system, other daemons.

use super::Line;
use crate::command_line::CheckArguments;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use oxbow_daemon::{Dirs, pidfile};
use std::fs;
use std::path::{Path, PathBuf};

/// The oldest kernel that every program is loaded on in tests.
const OLDEST: (u32, u32) = (6, 1);
/// The first one with tcx.
const TCX: (u32, u32) = (6, 6);

/// Looks at the host.
pub(super) fn look(arguments: &CheckArguments, dirs: &Dirs) -> Vec<Line> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut lines = vec![kernel(release.trim())];
    lines.push(capabilities(&fs::read_to_string("/proc/self/status").unwrap_or_default()));
    lines.push(btf(Path::new("/sys/kernel/btf/vmlinux")));
    lines.extend(jit(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref()));
    lines.extend(lockdown(fs::read_to_string("/sys/kernel/security/lockdown").ok().as_deref()));
    lines.push(bpffs(
        &arguments.bpffs,
        &fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(),
        fs::read_to_string("/proc/1/mountinfo").ok().as_deref(),
    ));
    lines.push(memlock(release.trim()));
    lines.extend(memory(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default(), Path::new("/sys/fs/cgroup")));
    lines.push(tunnel_port(
        &["/proc/net/udp", "/proc/net/udp6"].map(|path| fs::read_to_string(path).unwrap_or_default()),
        fs::read_dir("/sys/class/net")
            .is_ok_and(|mut all| all.any(|one| one.is_ok_and(|one| one.file_name() == "genev_sys_6081"))),
    ));
    lines.push(object());
    lines.extend(daemons(dirs));
    lines
}

fn numbers(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel(release: &str) -> Line {
    let version = numbers(release);
    if version < OLDEST {
        let advice = format!("Linux {}.{} or newer (Debian 12's) is needed", OLDEST.0, OLDEST.1);
        Line::fail("kernel", release, advice)
    } else if version < TCX {
        Line::ok("kernel", format!("{release}; programs are attached by clsact (no tcx before 6.6)"))
    } else {
        Line::ok("kernel", format!("{release}; programs are attached by tcx"))
    }
}

/// Bits of CapEff that are needed (capabilities(7)).
const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
const CAP_SYS_ADMIN: u64 = 1 << 21;

fn capabilities(status: &str) -> Line {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(effective) = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else {
        return Line::warn("capabilities", "cannot be told", "run oxbow-node as root");
    };
    let held = |bit: u32| effective & 1 << bit != 0 || bit >= 38 && effective & CAP_SYS_ADMIN != 0;
    let missing: Vec<&str> = NEEDED.iter().filter(|(bit, _)| !held(*bit)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        Line::ok("capabilities", "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN")
    } else {
        let advice = "run oxbow-node, and this check, as root or with these capabilities";
        Line::fail("capabilities", format!("missing {}", missing.join(", ")), advice)
    }
}

fn btf(path: &Path) -> Line {
    if path.exists() {
        Line::ok("btf", path.display().to_string())
    } else {
        Line::warn(
            "btf",
            format!("no {}", path.display()),
            "oxbow-node loads without it; bpftool shows types only on kernels with CONFIG_DEBUG_INFO_BTF",
        )
    }
}

fn jit(enabled: Option<&str>) -> Option<Line> {
    // Kernels that always compile have no such switch, or show 1.
    match enabled.map(str::trim) {
        Some("0") => Some(Line::warn(
            "bpf jit",
            "off: programs are interpreted, many times slower",
            "sysctl net.core.bpf_jit_enable=1",
        )),
        Some(value) => Some(Line::ok("bpf jit", format!("on (net.core.bpf_jit_enable={value})"))),
        None => None,
    }
}

fn lockdown(state: Option<&str>) -> Option<Line> {
    let state = state?.trim();
    if state.contains("[confidentiality]") {
        let advice = "boot without lockdown=confidentiality: it forbids what the programs read";
        Some(Line::fail("lockdown", state, advice))
    } else {
        Some(Line::ok("lockdown", state))
    }
}

/// Device number (as mountinfo writes it) and type of what is mounted at a path (proc(5)).
fn mounted<'a>(mountinfo: &'a str, path: &str) -> Option<(&'a str, &'a str)> {
    let mut at = mountinfo.lines().rev().filter_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(2);
        let (device, _root, point) = (front.next()?, front.next()?, front.next()?);
        (point == path).then_some((device, back.split(' ').next()?))
    });
    // The last one covers the others.
    at.next()
}

fn bpffs(path: &Path, ours: &str, init: Option<&str>) -> Line {
    let text = path.display().to_string();
    let advice = format!("mount -t bpf bpf {text}, and add it to /etc/fstab; or give another one by --bpffs");
    match mounted(ours, &text) {
        Some((device, "bpf")) => {
            let is_hosts = init.is_none_or(|init| init.lines().any(|line| line.split(' ').nth(2) == Some(device)));
            if is_hosts {
                Line::ok("bpffs", format!("{text} is a bpf file system"))
            } else {
                Line::fail(
                    "bpffs",
                    format!("{text} belongs to this mount namespace only, as inside `ip netns exec`"),
                    "pins would die with it: enter network namespaces by `nsenter --net=`",
                )
            }
        }
        Some((_, kind)) => Line::fail("bpffs", format!("{text} is of type {kind}"), advice),
        None => Line::fail("bpffs", format!("nothing is mounted at {text}"), advice),
    }
}

fn memlock(release: &str) -> Line {
    // Since 5.11 maps are charged to the memory cgroup instead.
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    let text = if limit == RLIM_INFINITY { "unlimited".to_owned() } else { format!("{} KiB", limit / 1024) };
    if numbers(release) >= (5, 11) || limit == RLIM_INFINITY {
        Line::ok("memlock", format!("{text} (maps are charged to the memory cgroup)"))
    } else {
        Line::fail("memlock", text, "LimitMEMLOCK=infinity in the unit, or `ulimit -l unlimited`")
    }
}

/// What the programs' maps take at their default sizes, and the daemon besides, on a hypervisor with few ports.
const MEMORY: u64 = 256 << 20;

/// The smallest limit of the memory cgroups that this process is in (cgroup v2): maps are charged to that of the process that makes them.
fn memory(cgroups: &str, root: &Path) -> Option<Line> {
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let all = Path::new(own).ancestors();
    let limit = all.filter_map(|one| fs::read_to_string(root.join(one).join("memory.max")).ok()?.trim().parse().ok());
    let smallest: Option<u64> = limit.min();
    Some(match smallest {
        None => Line::ok("memory cgroup", "no limit here; what counts is the limit of the service"),
        Some(limit) if limit >= MEMORY => Line::ok("memory cgroup", format!("at most {} MiB", limit >> 20)),
        Some(limit) => Line::warn(
            "memory cgroup",
            format!("at most {} MiB", limit >> 20),
            format!(
                "maps are charged to it: give the service {} MiB or more (MemoryMax=), or smaller maps (--map-size)",
                MEMORY >> 20
            ),
        ),
    })
}

/// Geneve's port (RFC 8926), as /proc/net/udp writes it.
const GENEVE_PORT: &str = ":17C1";

/// Whether somebody else receives on Geneve's port. Our frames are taken before a socket sees them; everybody else's are not.
fn tunnel_port(sockets: &[String], has_ovs_device: bool) -> Line {
    let is_taken = sockets
        .iter()
        .flat_map(|text| text.lines().skip(1))
        .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(GENEVE_PORT)));
    if has_ovs_device {
        Line::warn(
            "geneve",
            "genev_sys_6081 of a kernel datapath has UDP port 6081",
            "harmless beside ovs-vswitchd: our frames are taken before; else a former ovs-vswitchd left it: `ip link del genev_sys_6081`",
        )
    } else if is_taken {
        Line::warn(
            "geneve",
            "somebody has UDP port 6081",
            "oxbow-node needs no socket; frames from chassis of this cloud will not reach that one: see `ss -lunp sport = 6081`",
        )
    } else {
        Line::ok("geneve", "UDP port 6081 is free; the programs make and open tunnels themselves")
    }
}

fn object() -> Line {
    const NAME: &str = "oxbow-datapath.o";
    let named = std::env::var_os("OXBOW_BPF_OBJECT").map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(NAME)));
    let places: Vec<PathBuf> = match named {
        Some(path) => vec![path],
        None => beside.into_iter().chain([Path::new("/usr/lib/oxbow").join(NAME)]).collect(),
    };
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Line::ok("eBPF object", path.display().to_string()),
        None => {
            let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
            Line::fail(
                "eBPF object",
                format!("not at {}", places.join(" or ")),
                "install oxbow-datapath.o (`cargo xtask build-ebpf`) in /usr/lib/oxbow, or name it by --bpf-object",
            )
        }
    }
}

/// Who else serves this hypervisor.
fn daemons(dirs: &Dirs) -> Vec<Line> {
    let mut lines = Vec::new();
    for name in ["ovn-controller", "oxbow-node"] {
        let path = dirs.ovn_run.join(format!("{name}.pid"));
        let line = match pidfile::owner(&path) {
            Ok(None) => continue,
            Ok(Some(pid)) if is_ours(pid) => Line::ok("controller", format!("oxbow-node runs as pid {pid}")),
            Ok(Some(pid)) => Line::fail(
                "controller",
                format!("{name} runs as pid {pid}"),
                "two controllers on one bridge undo each other: `systemctl stop ovn-controller`, or `ovn-appctl -t ovn-controller exit`",
            ),
            Err(error) => Line::warn("controller", error.to_string(), "run this check as root"),
        };
        lines.push(line);
    }
    if lines.is_empty() {
        lines.push(Line::ok("controller", "none runs yet"));
    }
    match pidfile::owner(&dirs.ovs_run.join("ovs-vswitchd.pid")) {
        Ok(None) => lines.push(Line::ok("ovs-vswitchd", "does not run: oxbow-node serves its database")),
        Ok(Some(pid)) => lines.push(Line::warn(
            "ovs-vswitchd",
            format!("runs as pid {pid}"),
            "works beside its kernel datapath (datapath_type=system), not beside its userspace datapath",
        )),
        Err(error) => lines.push(Line::warn("ovs-vswitchd", error.to_string(), "run this check as root")),
    }
    lines
}

fn is_ours(pid: i32) -> bool {
    let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    executable.file_name().is_some_and(|name| name.to_string_lossy().starts_with("oxbow-node"))
}

#[cfg(test)]
mod tests {
    use super::super::Mark;
    use super::*;

    #[test]
    fn old_kernels_fail_and_those_without_tcx_are_told_apart() {
        assert_eq!(kernel("5.15.0-91-generic").result, Mark::Fail);
        assert!(kernel("6.1.0-32-amd64").found.contains("clsact"));
        assert!(kernel("6.12.4").found.contains("by tcx"));
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").result, Mark::Ok);
        let line = capabilities("CapEff:\t0000000000200000\n");
        assert_eq!((line.result, line.found.as_str()), (Mark::Fail, "missing CAP_NET_ADMIN"));
        assert_eq!(capabilities("").result, Mark::Warn);
    }

    #[test]
    fn a_bpf_file_system_must_be_the_hosts() {
        let path = Path::new("/sys/fs/bpf");
        let own = "30 24 0:27 / /sys rw - sysfs sysfs rw\n32 30 0:29 / /sys/fs/bpf rw,relatime shared:9 - bpf bpf rw,mode=700\n";
        assert_eq!(bpffs(path, own, Some(own)).result, Mark::Ok);
        assert_eq!(bpffs(path, own, None).result, Mark::Ok);
        let other = own.replace("0:29", "0:77");
        let line = bpffs(path, own, Some(&other));
        assert!(line.result == Mark::Fail && line.advice.unwrap().contains("nsenter"));
        let line = bpffs(path, "30 24 0:27 / /sys rw - sysfs sysfs rw\n", None);
        assert!(line.result == Mark::Fail && line.advice.unwrap().contains("mount -t bpf"));
    }

    #[test]
    fn the_smallest_limit_of_memory_counts() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/oxbow-node.service");
        fs::create_dir_all(&service).unwrap();
        let limit = |text: &str| fs::write(service.join("memory.max"), text).unwrap();
        let look = || memory("0::/system.slice/oxbow-node.service\n", root.path()).unwrap();
        assert_eq!(look().result, Mark::Ok);
        limit("max\n");
        assert!(look().found.contains("no limit"));
        limit("104857600\n");
        let line = look();
        assert!(
            line.result == Mark::Warn && line.found == "at most 100 MiB" && line.advice.unwrap().contains("MemoryMax")
        );
        fs::write(root.path().join("system.slice/memory.max"), "52428800\n").unwrap();
        assert_eq!(look().found, "at most 50 MiB");
        limit("1073741824\n");
        fs::write(root.path().join("system.slice/memory.max"), "max\n").unwrap();
        assert_eq!((look().result, look().found.as_str()), (Mark::Ok, "at most 1024 MiB"));
        assert_eq!(memory("9:memory:/x\n", root.path()), None, "version 1 says nothing here");
    }

    #[test]
    fn somebody_on_the_tunnels_port_is_named() {
        let head = "  sl  local_address rem_address   st\n";
        let socket = |port: &str| format!("{head}  12: 00000000:{port} 00000000:0000 07\n");
        assert_eq!(tunnel_port(&[socket("0035"), head.to_owned()], false).result, Mark::Ok);
        let line = tunnel_port(&[head.to_owned(), socket("17C1")], false);
        assert!(line.result == Mark::Warn && line.found.contains("6081"));
        assert!(tunnel_port(&[socket("17C1")], true).advice.unwrap().contains("genev_sys_6081"));
    }

    #[test]
    fn an_interpreter_is_a_warning() {
        assert_eq!(jit(Some("0\n")).unwrap().result, Mark::Warn);
        assert_eq!(jit(Some("1\n")).unwrap().result, Mark::Ok);
        assert_eq!(lockdown(Some("none integrity [confidentiality]\n")).unwrap().result, Mark::Fail);
        assert_eq!(lockdown(Some("[none] integrity confidentiality\n")).unwrap().result, Mark::Ok);
    }
}
