//! Typed table and column constants of the databases that OVN consists of.
//!
//! A module per database, in it a module per table with `TABLE` and a [`Column`](oxbow_ovsdb::Column) per column:
//! `row.get(nb::logical_switch::OTHER_CONFIG)`. The constants are the union of the schema versions named in each
//! module's head (OVN 23.03, 25.03 and 26.03; Open vSwitch 3.1 and later); a column that the connected server lacks reads
//! as its type's default.

pub mod nb;
pub mod ovs;
pub mod sb;
