//! Reading what the programs counted.

use super::map::MapFailure;
use crate::Plain;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use oxbow_abi::reason::Reason;
use oxbow_abi::stats::Counter;

/// Packets and bytes dropped for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// Why.
    pub reason: Reason,
    /// How much.
    pub count: Counter,
}

/// The counter maps of an instance.
pub struct Counters {
    drops: PerCpuArray<MapData, Plain<Counter>>,
    lflows: PerCpuArray<MapData, Plain<Counter>>,
    totals: PerCpuArray<MapData, Plain<Counter>>,
}

impl Counters {
    pub(super) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapFailure> {
        let mut take = |name: &'static str| {
            let map = ebpf.take_map(name).ok_or(MapFailure::Missing { map: name })?;
            PerCpuArray::try_from(map).map_err(|source| MapFailure::Map { map: name, source })
        };
        Ok(Self { drops: take("OX_DROPS")?, lflows: take("OX_LFLOWS")?, totals: take("OX_TOTALS")? })
    }

    /// Drops by reason, without those that never happened.
    pub fn drops(&self) -> Result<Vec<DropCount>, MapFailure> {
        let mut found = Vec::new();
        for &reason in Reason::ALL {
            let count = sum(&self.drops, "OX_DROPS", reason as u32)?;
            if count.packets != 0 {
                found.push(DropCount { reason, count });
            }
        }
        Ok(found)
    }

    /// Packets that walked through a logical flow (hits in the verdict cache are not in it).
    pub fn lflow(&self, index: u32) -> Result<Counter, MapFailure> {
        sum(&self.lflows, "OX_LFLOWS", index)
    }

    /// Begins to count a logical flow anew: the number is another one's from now on.
    pub(crate) fn restart_lflow(&mut self, index: u32) -> Result<(), MapFailure> {
        let failure = |source| MapFailure::Map { map: "OX_LFLOWS", source };
        let cpus = self.lflows.get(&index, 0).map_err(failure)?.len();
        let none = PerCpuValues::try_from(vec![Plain(Counter::default()); cpus])
            .map_err(|error| failure(aya::maps::MapError::IoError(error)))?;
        self.lflows.set(index, none, 0).map_err(failure)
    }

    /// One of `oxbow_abi::stats::total`.
    pub fn total(&self, index: u32) -> Result<Counter, MapFailure> {
        sum(&self.totals, "OX_TOTALS", index)
    }

    /// How many logical flows can be counted.
    pub fn lflow_capacity(&self) -> u32 {
        self.lflows.len()
    }
}

fn sum(map: &PerCpuArray<MapData, Plain<Counter>>, name: &'static str, index: u32) -> Result<Counter, MapFailure> {
    let values = map.get(&index, 0).map_err(|source| MapFailure::Map { map: name, source })?;
    Ok(values.iter().fold(Counter::default(), |sum, value| Counter {
        packets: sum.packets.wrapping_add(value.0.packets),
        bytes: sum.bytes.wrapping_add(value.0.bytes),
    }))
}
