//! Flow profiles: what one version of OVN's northd writes, as data.
//!
//! Nothing outside this module knows a table number, a register or a version. A unit names a [`Stage`] and a
//! [`Registers`] field; a stage that a profile does not have gets no flows.

mod v23_03;

pub use v23_03::V23_03;

/// Ingress or egress: `Logical_Flow.pipeline`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pipeline {
    /// `ingress`.
    Ingress,
    /// `egress`.
    Egress,
}

impl Pipeline {
    /// The text of the column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Pipeline::Ingress => "ingress",
            Pipeline::Egress => "egress",
        }
    }
}

macro_rules! stages {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// A stage of a logical pipeline, of any profile. Its name is what `external_ids:stage-name` says.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Stage {
            $(#[doc = concat!("`", $name, "`.")] $variant),*
        }

        impl Stage {
            /// Every stage.
            pub const ALL: &'static [Stage] = &[$(Stage::$variant),*];

            /// The name that northd and the tools use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Stage::$variant => $name),* }
            }
        }
    };
}

stages! {
    LsInCheckPortSec = "ls_in_check_port_sec",
    LsInApplyPortSec = "ls_in_apply_port_sec",
    LsInLookupFdb = "ls_in_lookup_fdb",
    LsInPutFdb = "ls_in_put_fdb",
    LsInPreAcl = "ls_in_pre_acl",
    LsInPreLb = "ls_in_pre_lb",
    LsInPreStateful = "ls_in_pre_stateful",
    LsInAclHint = "ls_in_acl_hint",
    LsInAcl = "ls_in_acl",
    LsInQosMark = "ls_in_qos_mark",
    LsInQosMeter = "ls_in_qos_meter",
    LsInLbAffCheck = "ls_in_lb_aff_check",
    LsInLb = "ls_in_lb",
    LsInLbAffLearn = "ls_in_lb_aff_learn",
    LsInPreHairpin = "ls_in_pre_hairpin",
    LsInNatHairpin = "ls_in_nat_hairpin",
    LsInHairpin = "ls_in_hairpin",
    LsInAclAfterLb = "ls_in_acl_after_lb",
    LsInStateful = "ls_in_stateful",
    LsInArpRsp = "ls_in_arp_rsp",
    LsInDhcpOptions = "ls_in_dhcp_options",
    LsInDhcpResponse = "ls_in_dhcp_response",
    LsInDnsLookup = "ls_in_dns_lookup",
    LsInDnsResponse = "ls_in_dns_response",
    LsInExternalPort = "ls_in_external_port",
    LsInL2Lkup = "ls_in_l2_lkup",
    LsInL2Unknown = "ls_in_l2_unknown",
    LsOutPreAcl = "ls_out_pre_acl",
    LsOutPreLb = "ls_out_pre_lb",
    LsOutPreStateful = "ls_out_pre_stateful",
    LsOutAclHint = "ls_out_acl_hint",
    LsOutAcl = "ls_out_acl",
    LsOutQosMark = "ls_out_qos_mark",
    LsOutQosMeter = "ls_out_qos_meter",
    LsOutStateful = "ls_out_stateful",
    LsOutCheckPortSec = "ls_out_check_port_sec",
    LsOutApplyPortSec = "ls_out_apply_port_sec",
}

/// Where a stage sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagePlace {
    /// Which pipeline.
    pub pipeline: Pipeline,
    /// `Logical_Flow.table_id`.
    pub table: u8,
}

/// The registers and bits that the flows of a profile use, as the text that matches and actions spell.
#[derive(Clone, Debug)]
pub struct Registers {
    /// Hint: send to conntrack for defragmentation.
    pub conntrack_defrag: &'static str,
    /// Hint: commit the connection.
    pub conntrack_commit: &'static str,
    /// Hint: send to conntrack for NAT.
    pub conntrack_nat: &'static str,
    /// Result of `put_dhcp_opts`.
    pub dhcp_opts_result: &'static str,
    /// Result of `dns_lookup`.
    pub dns_lookup_result: &'static str,
    /// Result of `lookup_fdb`.
    pub lookup_fdb: &'static str,
    /// The connection carries a label.
    pub acl_label: &'static str,
    /// The packet came from a VTEP gateway.
    pub from_ramp: &'static str,
    /// Result of the port security checks.
    pub port_sec_drop: &'static str,
    /// A stateless ACL matched.
    pub acl_stateless: &'static str,
    /// The label itself.
    pub label: &'static str,
    /// Bits between the ACL stages.
    pub acl_hints: AclHints,
}

/// What the ACL hint stages and the ACL stages tell those that follow.
#[derive(Clone, Debug)]
pub struct AclHints {
    /// May match an allowing ACL, and the connection must be committed.
    pub allow_new: &'static str,
    /// May match an allowing ACL, and the connection is known.
    pub allow: &'static str,
    /// May match a dropping ACL.
    pub drop: &'static str,
    /// May match a dropping ACL, and the connection was allowed before.
    pub block: &'static str,
    /// An answer: the ACLs after load balancing are passed.
    pub passed: &'static str,
}

/// The tunnel keys of the multicast groups that northd itself makes.
#[derive(Clone, Debug)]
pub struct MulticastKeys {
    /// `_MC_flood`.
    pub flood: i64,
    /// `_MC_unknown`.
    pub unknown: i64,
    /// `_MC_mrouter_flood`.
    pub mrouter_flood: i64,
    /// `_MC_static`.
    pub static_: i64,
    /// `_MC_flood_l2`.
    pub flood_l2: i64,
    /// First key for groups of learnt IP multicast addresses.
    pub ip_first: i64,
}

/// What one version of northd writes.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The OVN release, such as `23.03`.
    pub name: &'static str,
    /// `options:northd_internal_version` of NB_Global and SB_Global.
    pub internal_version: &'static str,
    /// The stages it has, with their places.
    pub stages: &'static [(Stage, StagePlace)],
    /// The registers.
    pub registers: Registers,
    /// Keys of multicast groups.
    pub multicast_keys: MulticastKeys,
    /// Largest tunnel key of a datapath.
    pub max_datapath_key: i64,
    /// The same when some chassis has a VXLAN encapsulation.
    pub max_datapath_key_vxlan: i64,
    /// Largest tunnel key of a port.
    pub max_port_key: i64,
    /// The same when some chassis has a VXLAN encapsulation.
    pub max_port_key_vxlan: i64,
    /// Rows of `DHCP_Options`: name, code, type.
    pub dhcp_options: &'static [(&'static str, i64, &'static str)],
    /// Rows of `DHCPv6_Options`: name, code, type.
    pub dhcpv6_options: &'static [(&'static str, i64, &'static str)],
    /// The permissions of the RBAC role `ovn-controller`.
    pub rbac: &'static [RbacPermission],
}

/// A row of `RBAC_Permission`.
#[derive(Debug)]
pub struct RbacPermission {
    /// The table it is about.
    pub table: &'static str,
    /// Columns that must hold the client's identity.
    pub authorization: &'static [&'static str],
    /// Whether rows may be inserted and deleted.
    pub insert_delete: bool,
    /// Columns that may be written.
    pub update: &'static [&'static str],
}

impl Profile {
    /// Where a stage sits; none if this version does not have it.
    #[must_use]
    pub fn place(&self, stage: Stage) -> Option<StagePlace> {
        self.stages.iter().find(|(s, _)| *s == stage).map(|(_, place)| *place)
    }

    /// The table number of a stage for a `next(...)` action; 0 if the profile lacks the stage.
    #[must_use]
    pub fn table(&self, stage: Stage) -> u8 {
        self.place(stage).map_or(0, |place| place.table)
    }
}
