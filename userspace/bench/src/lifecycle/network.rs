//! The logical network of the benchmark: one switch, ports with numbers, each with one MAC and one IPv4 address.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context as _, Result};
use oxbow_ovsdb::{Transaction, Uuid};
use oxbow_schema::nb;
use oxbow_testkit::{OvsdbServer, VifSpec};

use super::echo::Address;
use super::observer::Door;

/// The switch's name.
const SWITCH: &str = "sw0";
/// Ports a transaction makes at once.
const BATCH: usize = 2000;

/// The switch and the one NB_Global row.
#[derive(Debug)]
pub(super) struct Network {
    switch: Uuid,
    global: Uuid,
    nb_cfg: i64,
}

impl Network {
    /// Makes the switch in an OVN_Northbound that has none.
    pub(super) fn make(nb: &OvsdbServer) -> Result<Self> {
        nb.nbctl(&format!("ls-add {SWITCH}"))?;
        let uuid = |what: &str| -> Result<Uuid> {
            let text = nb.nbctl(&format!("--bare --columns=_uuid list {what}"))?;
            text.trim().parse().with_context(|| format!("{what}: {text:?} is no UUID"))
        };
        Ok(Self { switch: uuid("Logical_Switch")?, global: uuid("NB_Global")?, nb_cfg: 0 })
    }

    /// The Logical_Switch_Port row of a port.
    pub(super) fn port(nb: &OvsdbServer, number: usize) -> Result<Uuid> {
        let text = nb.nbctl(&format!("--bare --columns=_uuid find Logical_Switch_Port name={}", name(number)))?;
        text.trim().parse().with_context(|| format!("port {number}: {text:?} is no UUID"))
    }

    /// Adds these ports.
    pub(super) fn add_ports(&self, door: &Door, numbers: Range<usize>) -> Result<()> {
        let numbers: Vec<usize> = numbers.collect();
        for batch in numbers.chunks(BATCH) {
            let mut transaction = Transaction::new(nb::DATABASE);
            self.insert(&mut transaction, batch);
            door.transact(transaction)?;
        }
        Ok(())
    }

    fn insert(&self, transaction: &mut Transaction, numbers: &[usize]) {
        use nb::logical_switch_port as t;
        let mut rows = Vec::new();
        for &number in numbers {
            let Address { mac, ip } = address(number);
            let row = transaction.insert(t::TABLE).set(t::NAME, name(number));
            rows.push(row.set(t::ADDRESSES, [format!("{} {ip}", mac_text(mac))]).uuid());
        }
        transaction.mutate(nb::logical_switch::TABLE, self.switch).insert(nb::logical_switch::PORTS, rows);
    }

    /// Commits a change with the next sequence number (`NB_Global.nb_cfg`). Returns the number and when the change was handed over.
    pub(super) fn change(&mut self, door: &Door, change: &Change) -> Result<(i64, Instant)> {
        use nb::logical_switch as ls;
        let mut transaction = Transaction::new(nb::DATABASE);
        match change {
            Change::Nothing => {}
            Change::Port(number) => self.insert(&mut transaction, &[*number]),
            Change::Address { row, mac } => {
                use nb::logical_switch_port as t;
                let text = format!("{} 10.254.{}.{}", mac_text(*mac), mac[4], mac[5]);
                let _ = transaction.update(t::TABLE, *row).set(t::ADDRESSES, [text]);
            }
            Change::Acl(number) => {
                use nb::acl as t;
                let row = transaction.insert(t::TABLE).set(t::DIRECTION, "to-lport").set(t::PRIORITY, 1000);
                let row =
                    row.set(t::MATCH, format!("ip4 && udp.dst == {}", 1024 + number)).set(t::ACTION, "drop").uuid();
                let _ = transaction.mutate(ls::TABLE, self.switch).insert(ls::ACLS, [row]);
            }
        }
        self.nb_cfg += 1;
        let _ = transaction.update(nb::nb_global::TABLE, self.global).set(nb::nb_global::NB_CFG, self.nb_cfg);
        let start = door.transact(transaction)?;
        Ok((self.nb_cfg, start))
    }
}

/// One change of the network.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// None: only the sequence number goes round.
    Nothing,
    /// A port more.
    Port(usize),
    /// Another address of a port.
    Address {
        /// Its Logical_Switch_Port.
        row: Uuid,
        /// The new address.
        mac: [u8; 6],
    },
    /// An ACL more on the switch.
    Acl(usize),
}

/// The name of a port.
pub(super) fn name(number: usize) -> String {
    format!("p{number}")
}

/// Its addresses.
pub(super) fn address(number: usize) -> Address {
    let [_, high, middle, low] = (number as u32).to_be_bytes();
    Address { mac: [0x0a, 0, 0, high, middle, low], ip: Ipv4Addr::new(10, high, middle, low) }
}

/// A MAC address as OVN writes it.
pub(super) fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The guest behind a port.
pub(super) fn guest(number: usize) -> VifSpec {
    let Address { mac, ip } = address(number);
    VifSpec::new(&name(number), &mac_text(mac), &[&format!("{ip}/8")])
}
