//! Rows of Address_Set and Port_Group: a name and a set of texts (ovn-sb(5)).

use oxbow_ovsdb::{Row, RowChange};
use oxbow_pipeline::compile::{Compiler, SetChange};
use oxbow_schema::sb::{address_set, port_group};
use std::collections::BTreeSet;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Address_Set.
    Addresses,
    /// Port_Group.
    Ports,
}

/// What became of one row.
#[derive(Debug)]
pub struct NamedSet {
    /// Its table.
    pub table: Kind,
    /// Name and members before.
    pub before: Option<(String, BTreeSet<String>)>,
    /// Now.
    pub after: Option<(String, BTreeSet<String>)>,
}

impl NamedSet {
    /// Reads a change; `None` for one of another table.
    pub fn read(change: &RowChange) -> Option<NamedSet> {
        let (table, name, members) = if change.table == address_set::TABLE {
            (Kind::Addresses, address_set::NAME, address_set::ADDRESSES)
        } else if change.table == port_group::TABLE {
            (Kind::Ports, port_group::NAME, port_group::PORTS)
        } else {
            return None;
        };
        let read = |row: &Row| {
            let members = row.get(members).iter().map(|text| text.as_str().to_owned());
            (row.get(name).as_str().to_owned(), members.collect())
        };
        Some(NamedSet { table, before: change.old.as_deref().map(read), after: change.new.as_deref().map(read) })
    }

    /// Whether only members came and went.
    pub fn keeps_its_name(&self) -> bool {
        self.before.as_ref().zip(self.after.as_ref()).is_some_and(|((old, _), (new, _))| old == new)
    }
}

impl Kind {
    /// Says what a set consists of, or that there is none of that name.
    pub fn set(self, compiler: &mut Compiler, name: &str, members: Option<&BTreeSet<String>>) {
        let members = members.map(|members| members.iter().map(String::as_str));
        match self {
            Kind::Addresses => compiler.set_address_set(name, members),
            Kind::Ports => compiler.set_port_group(name, members),
        }
    }

    /// Says what came and went.
    pub fn change(self, compiler: &mut Compiler, name: &str, change: SetChange<'_>) {
        match self {
            Kind::Addresses => compiler.change_address_set(name, change),
            Kind::Ports => compiler.change_port_group(name, change),
        }
    }
}
