//! What a parser must know besides the text: the vocabulary, the sets, the templates, and where the flow stands.

use crate::constant::Integer;
use crate::symbol::SymbolTable;

/// The members of an address set (SB table Address_Set).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    /// The members that parse, in the order given.
    pub members: Vec<Integer>,
    /// The widest member in bits as OVN counts it ([`Integer::width`]); 0 when empty. A match that compares a field with a
    /// set of wider members is refused: reparse the flows that use the set when this grows.
    pub max_width: u16,
}

/// Finds address sets by name.
pub trait AddressSets {
    /// The set, or `None` when there is no such row.
    fn address_set(&self, name: &str) -> Option<&AddressSet>;
}

/// Finds port groups by name, on the datapath of the flow.
pub trait PortGroups {
    /// The ports of the group that are on the flow's datapath, or `None` when the group has no row for it. `name` is as written
    /// after `@`; rows are named [`port_group_sb_name`], or plainly `name` by very old northds.
    fn port_group(&self, name: &str) -> Option<&[Box<str>]>;
}

/// The name of the SB Port_Group row that holds a group's ports on one datapath: `<tunnel key>_<name>`.
#[must_use]
pub fn port_group_sb_name(datapath_tunnel_key: u32, name: &str) -> String {
    format!("{datapath_tunnel_key}_{name}")
}

/// Finds the chassis' template variables (SB table Chassis_Template_Var).
pub trait Templates {
    /// The text a `^name` stands for, or `None` when the chassis does not define it.
    fn template(&self, name: &str) -> Option<&str>;
}

/// Has no sets, no groups and no templates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl AddressSets for Nothing {
    fn address_set(&self, _name: &str) -> Option<&AddressSet> {
        None
    }
}

impl PortGroups for Nothing {
    fn port_group(&self, _name: &str) -> Option<&[Box<str>]> {
        None
    }
}

impl Templates for Nothing {
    fn template(&self, _name: &str) -> Option<&str> {
        None
    }
}

/// What a match refers to.
#[derive(Clone, Copy)]
pub struct MatchContext<'a> {
    /// The vocabulary.
    pub symbols: &'static SymbolTable,
    /// For `$name`.
    pub address_sets: &'a dyn AddressSets,
    /// For `@name`.
    pub port_groups: &'a dyn PortGroups,
    /// For `^name`.
    pub templates: &'a dyn Templates,
}

/// A pipeline of a logical datapath.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pipeline {
    /// From the input port to the choice of the output port.
    Ingress,
    /// From the output port to delivery.
    Egress,
}

impl Pipeline {
    /// `ingress` or `egress`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Pipeline::Ingress => "ingress",
            Pipeline::Egress => "egress",
        }
    }
}

/// A kind of options with names and types of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OptionSpace {
    /// SB table DHCP_Options.
    Dhcpv4,
    /// SB table DHCPv6_Options.
    Dhcpv6,
}

/// What is known of one DHCP option: its code and the type column of its row (`ipv4`, `str`, `uint16`, `host_id`, …).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionType<'a> {
    /// DHCP option code.
    pub code: u16,
    /// The type column.
    pub kind: &'a str,
}

/// Finds DHCP options by name.
pub trait DhcpOptions {
    /// The row with that name, or `None`.
    fn option(&self, space: OptionSpace, name: &str) -> Option<OptionType<'_>>;
}

impl DhcpOptions for Nothing {
    fn option(&self, _space: OptionSpace, _name: &str) -> Option<OptionType<'_>> {
        None
    }
}

/// What an action list refers to.
#[derive(Clone, Copy)]
pub struct ActionContext<'a> {
    /// The vocabulary.
    pub symbols: &'static SymbolTable,
    /// For `^name`.
    pub templates: &'a dyn Templates,
    /// For `put_dhcp_opts` and `put_dhcpv6_opts`.
    pub dhcp_options: &'a dyn DhcpOptions,
    /// The pipeline of the flow.
    pub pipeline: Pipeline,
    /// The table of the flow (Logical_Flow.table_id).
    pub table: u8,
    /// Tables of the ingress pipeline: `next` may go to tables below it. 0 forbids `next`. ovn-controller 23.03 has 29 in both
    /// pipelines, 26.03 has more; the node allows at least 34.
    pub n_ingress_tables: u8,
    /// Tables of the egress pipeline.
    pub n_egress_tables: u8,
}

impl AddressSet {
    /// Reads a set's addresses column. Returns the set, and the elements that are no constants, which OVN skips, too.
    pub fn parse<'a>(elements: impl IntoIterator<Item = &'a str>) -> (AddressSet, Vec<&'a str>) {
        let mut set = AddressSet::default();
        let mut skipped = Vec::new();
        for element in elements {
            match Integer::parse(element) {
                Some(n) => set.insert(n),
                None => skipped.push(element),
            }
        }
        (set, skipped)
    }

    /// Adds a member.
    pub fn insert(&mut self, member: Integer) {
        self.max_width = self.max_width.max(member.width());
        self.members.push(member);
    }

    /// Removes a member if it is there.
    pub fn remove(&mut self, member: &Integer) -> bool {
        let Some(at) = self.members.iter().position(|m| m == member) else { return false };
        self.members.swap_remove(at);
        if member.width() == self.max_width {
            self.max_width = self.members.iter().map(Integer::width).max().unwrap_or(0);
        }
        true
    }
}
