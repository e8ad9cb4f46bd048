#![no_std]
#![forbid(unsafe_code)]
//! The contract between Oxbow's kernel programs and user space: field layout, map keys and values, operations, reasons.
//!
//! This crate holds no logic. Everything in it is plain data with a fixed layout: `repr(C)`, no implicit padding (the
//! `zerocopy` derives refuse any), sizes asserted at compile time. Numbers are in host byte order unless a comment says
//! otherwise; a header field is stored as the number it denotes (`ip4.src == 10.0.0.1` is `0x0a000001`).
//!
//! [`LAYOUT`] names the version of all of it; it is part of the pin path, so programs and maps of different layouts never meet.
//!
//! | module | what |
//! |---|---|
//! | [`field`] | the field vector that a packet is while it walks: one `u32` word array |
//! | [`rule`] | tuple-space search: tables, tuples, rules, versions |
//! | [`op`] | what a rule does: operations and the blocks that hold them |
//! | [`topology`] | VIFs, logical ports, multicast groups, chassis, underlay |
//! | [`verdict`] | the verdict cache: keys, results, guards |
//! | [`exact`] | what each CPU keeps of it |
//! | [`learning`] | the MAC table (OVN's FDB) and its events |
//! | [`reason`] | why a packet was dropped; the kernel's error enum is its verdict |
//! | [`monitor`] | what listeners and dry runs are told |
//! | [`stats`] | counters, events, the per-CPU scratch slot's sizes |

pub mod exact;
pub mod field;
pub mod learning;
pub mod monitor;
pub mod op;
pub mod reason;
pub mod rule;
pub mod stats;
pub mod topology;
pub mod verdict;

/// Version of every layout in this crate: part of the pin directory's name (`<bpffs>/oxbow/<system-id>/<LAYOUT>`).
/// Raise it whenever a key, a value, a word index or the meaning of an operation changes.
///
/// The object carries it in its symbol [`LAYOUT_SYMBOL`]; user space refuses an object of another layout.
pub const LAYOUT: u32 = 3 + if cfg!(feature = "swapped-layout") { 1_000_000 } else { 0 };

/// Name of the object's symbol whose value is [`LAYOUT`] (`u32`, little-endian).
pub const LAYOUT_SYMBOL: &str = "OX_LAYOUT";
