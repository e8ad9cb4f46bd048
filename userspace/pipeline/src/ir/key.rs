//! Identifiers. Numbers in host order.

use std::fmt;

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub struct $name(pub u32);

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    fmt::Display::fmt(&self.0, f)
                }
            }
        )*
    };
}

keys! {
    /// Datapath_Binding.tunnel_key: 24 bits, not 0.
    DatapathKey;
    /// Port_Binding.tunnel_key: 1 to 32767, unique in its datapath; or, in an `outport`, a [`GroupKey`]'s number.
    PortKey;
    /// Multicast_Group.tunnel_key: 32768 to 65535, unique in its datapath.
    GroupKey;
    /// A logical flow row: a small dense number that lives as long as the row, not 0. Names are with the compiler
    /// (`compile::Compiler::flow`).
    LflowId;
    /// A rule of a program: a small dense number, not 0; reused only after the rule was reported as removed.
    RuleId;
    /// A set of alternatives that rules share: an address set seen through a field, or a port group on a datapath.
    SetId;
    /// A chassis row, numbered by whoever feeds the compiler; not 0.
    ChassisId;
}

impl PortKey {
    /// Smallest key that names a multicast group (ovn-sb(5), Multicast_Group:tunnel_key).
    pub const GROUP_MIN: u32 = 0x8000;

    /// The group that this output names, if it names one.
    #[must_use]
    pub const fn as_group(self) -> Option<GroupKey> {
        if self.0 >= Self::GROUP_MIN { Some(GroupKey(self.0)) } else { None }
    }
}

/// An Ethernet address in the lower 48 bits, first byte on the wire most significant.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub u64);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.0.to_be_bytes();
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", b[2], b[3], b[4], b[5], b[6], b[7])
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The `_uuid` of a Logical_Flow row.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowUuid(pub u128);

impl fmt::Display for FlowUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            n >> 96,
            (n >> 80) & 0xffff,
            (n >> 64) & 0xffff,
            (n >> 48) & 0xffff,
            n & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for FlowUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
