//! Ten thousand ports on one switch: what a hypervisor's daemons and a northd take to start and to follow a change.

mod node;
mod northd;

pub(super) use node::{run as nodes, title as node_title};
pub(super) use northd::{run as northds, title as northd_title};

use std::time::{Duration, Instant};

use anyhow::Result;
use oxbow_ovsdb::Uuid;

use super::network::{Change, Network};
use super::observer::{Door, Fact, Observer};
use super::usage;

/// How large.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Ports of the switch.
    pub(super) ports: usize,
    /// How many of them are plugged on each of the two hypervisors; of the others every second one is bound to a third.
    pub(super) local: usize,
}

/// What the slowest of the contenders may take for a step at this size on a busy machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// How long a hypervisor's start is waited for; what takes longer is a figure, too.
const START_LIMIT: Duration = Duration::from_secs(600);

/// The changes that are measured, in this order.
const CHANGES: [&str; 4] = ["nothing but nb_cfg", "a port more", "another address of a port", "an ACL more"];

/// Which port changes its address.
const READDRESSED: usize = 1;

/// Makes the changes of [`CHANGES`] one after the other, each time with something new.
#[derive(Debug)]
struct Changer {
    network: Network,
    readdressed: Uuid,
    made: usize,
    ports: usize,
}

impl Changer {
    fn change(&mut self, kind: usize) -> Change {
        self.made += 1;
        let made = self.made;
        match kind {
            0 => Change::Nothing,
            1 => {
                self.ports += 1;
                Change::Port(self.ports - 1)
            }
            2 => Change::Address { row: self.readdressed, mac: [0x0a, 0xff, 0, 0, (made >> 8) as u8, made as u8] },
            _ => Change::Acl(made),
        }
    }

    /// Commits one and returns its number and the time.
    fn commit(&mut self, door: &Door, kind: usize) -> Result<(i64, Instant)> {
        let change = self.change(kind);
        self.network.change(door, &change)
    }
}

/// Waits for the SB_Global row with this sequence number.
fn compiled(observer: &Observer, mark: super::observer::Mark, number: i64) -> Result<Instant> {
    observer.wait(
        mark,
        PATIENCE,
        "a northd that has compiled the change",
        |fact| matches!(fact, Fact::Southbound { nb_cfg } if *nb_cfg == number),
    )
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

fn cpu_milliseconds(pids: &[u32]) -> Result<f64> {
    Ok(usage::cpu(pids)?.as_secs_f64() * 1000.0)
}
