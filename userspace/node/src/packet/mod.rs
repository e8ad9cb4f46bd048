//! Packets as text, and text as packets: ovn-trace's microflows (ovn-trace(8)).

mod compose;
mod describe;
mod filter;
mod outer;

pub use compose::{Ambiguity, compose};
pub use describe::{describe, fields_of_head, fields_of_key};
pub use filter::Filter;
pub use outer::{Tunnel, geneve};

/// Writes a hardware address.
pub fn mac_text(mac: u128) -> String {
    let bytes = (mac as u64).to_be_bytes();
    crate::fdb::format_mac([bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}
