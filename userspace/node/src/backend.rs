//! Which dataplane forwards, and how that goes together with an ovs-vswitchd beside us.
//!
//! One backend owns every packet of a chassis. Without an ovs-vswitchd the eBPF programs do, and the switch database is served from
//! here. Beside one with the kernel datapath they do as well: tc runs before the datapath's receive hook, so that nothing is left to it, while it
//! keeps port numbers, states and `cur_cfg`. Beside one with the userspace datapath they must not: its packet sockets see frames
//! before tc does, so both would forward. There the OpenFlow backend is the one to use.

/// The dataplane that the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// eBPF programs on the devices; the kernel forwards.
    #[default]
    Ebpf,
    /// Flows in br-int; the ovs-vswitchd of this host forwards.
    #[value(name = "openflow")]
    OpenFlow,
    /// Nothing is programmed (`--no-dataplane`).
    #[value(skip)]
    None,
}

/// What number a dataplane knows a local port by ([`crate::dataplane::LocalVif::ifindex`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbering {
    /// Interface index of the device on the switch's side.
    Ifindex,
    /// OpenFlow port number on the integration bridge (`Interface.ofport`).
    Ofport,
}

/// What an ovs-vswitchd, or its absence, means for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// There is none: the switch database is served from here.
    Alone,
    /// It keeps its database; the backend owns the packets.
    Vswitchd,
    /// This backend cannot own the packets: the sentence says which one can.
    Refused(String),
}

impl Backend {
    /// The numbers that it knows ports by.
    pub fn numbering(self) -> Numbering {
        match self {
            Backend::OpenFlow => Numbering::Ofport,
            Backend::Ebpf | Backend::None => Numbering::Ifindex,
        }
    }

    /// Judges the host. `vswitchd` is the pid of a living ovs-vswitchd, `datapath_type` that of the integration bridge
    /// (ovs-vswitchd.conf.db(5), Bridge; empty reads as `system`).
    pub fn beside(self, vswitchd: Option<i32>, bridge: &str, datapath_type: &str) -> Beside {
        match (self, vswitchd) {
            // It is found by its management socket, not by its pid file: what is wrong with that is said by whoever opens it.
            (Backend::OpenFlow, _) => Beside::Vswitchd,
            (_, None) => Beside::Alone,
            (Backend::Ebpf, Some(pid)) if !matches!(datapath_type, "" | "system") => Beside::Refused(format!(
                "ovs-vswitchd runs as pid {pid} and {bridge} has datapath_type {datapath_type}: it sees frames before eBPF programs do, \
                 and both would forward; run oxbow-node --backend=openflow, or stop ovs-vswitchd"
            )),
            (Backend::Ebpf | Backend::None, Some(_)) => Beside::Vswitchd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_datapath_is_no_obstacle_to_ebpf_and_the_userspace_one_is_refused_by_name() {
        let beside = |backend: Backend, pid, kind| backend.beside(pid, "br-int", kind);
        assert_eq!(beside(Backend::Ebpf, None, "netdev"), Beside::Alone);
        assert_eq!(beside(Backend::Ebpf, Some(7), "system"), Beside::Vswitchd);
        assert_eq!(beside(Backend::Ebpf, Some(7), ""), Beside::Vswitchd);
        let Beside::Refused(text) = beside(Backend::Ebpf, Some(7), "netdev") else { panic!("not refused") };
        for part in ["pid 7", "br-int", "datapath_type netdev", "--backend=openflow"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(beside(Backend::OpenFlow, None, "netdev"), Beside::Vswitchd);
        assert_eq!(beside(Backend::OpenFlow, Some(7), "system"), Beside::Vswitchd);
    }
}
