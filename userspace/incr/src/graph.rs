//! Who read what. Facts and units are *cells*; an edge goes from a cell to each unit that read it.
//!
//! Both ends of an edge know their position in the other's list, so an edge is added and removed in
//! constant time however many readers a cell has: a global option has one reader a port.

use crate::Aspects;

/// Index of a cell.
pub(crate) type CellId = u32;
/// Index of a unit in the engine's table.
pub(crate) type UnitId = u32;

/// One recorded read, kept by the reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Read {
    pub(crate) cell: CellId,
    pub(crate) aspects: Aspects,
    /// Position in the cell's list of readers.
    at: u32,
}

/// One reader, kept by the cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) unit: UnitId,
    pub(crate) aspects: Aspects,
    /// Position in the unit's list of reads.
    at: u32,
}

/// All cells and edges.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    readers: Vec<Vec<Reader>>,
    free: Vec<CellId>,
    reads: Vec<Box<[Read]>>,
}

impl Graph {
    /// A new cell without readers.
    pub(crate) fn new_cell(&mut self) -> CellId {
        if let Some(id) = self.free.pop() {
            return id;
        }
        self.readers.push(Vec::new());
        (self.readers.len() - 1) as CellId
    }

    /// Gives up a cell that has no readers.
    pub(crate) fn free_cell(&mut self, cell: CellId) {
        debug_assert!(self.readers[cell as usize].is_empty());
        self.readers[cell as usize] = Vec::new();
        self.free.push(cell);
    }

    pub(crate) fn readers(&self, cell: CellId) -> &[Reader] {
        &self.readers[cell as usize]
    }

    pub(crate) fn reads(&self, unit: UnitId) -> &[Read] {
        self.reads.get(unit as usize).map_or(&[], |r| r)
    }

    /// Replaces what `unit` read by `new` (sorted by cell, each cell once). Cells that lost their last
    /// reader are appended to `orphans`.
    pub(crate) fn set_reads(&mut self, unit: UnitId, new: &[(CellId, Aspects)], orphans: &mut Vec<CellId>) {
        if self.reads.len() <= unit as usize {
            self.reads.resize_with(unit as usize + 1, Box::default);
        }
        let old = &self.reads[unit as usize];
        if old.len() == new.len() && old.iter().zip(new).all(|(o, n)| o.cell == n.0 && o.aspects == n.1) {
            return;
        }
        // New edges first: a cell read before and after must not look like an orphan in between.
        let old = std::mem::take(&mut self.reads[unit as usize]);
        let mut reads = Vec::with_capacity(new.len());
        for (at, &(cell, aspects)) in new.iter().enumerate() {
            let readers = &mut self.readers[cell as usize];
            reads.push(Read { cell, aspects, at: readers.len() as u32 });
            readers.push(Reader { unit, aspects, at: at as u32 });
        }
        self.reads[unit as usize] = reads.into_boxed_slice();
        let mut i = 0;
        let mut old = old.into_vec();
        while i < old.len() {
            let Read { cell, at, .. } = old[i];
            let readers = &mut self.readers[cell as usize];
            readers.swap_remove(at as usize);
            if let Some(moved) = readers.get(at as usize).copied() {
                // The moved edge is one of another unit, a new one of this unit, or (a cell occurs once in
                // `old`) never an old one of this unit.
                self.reads[moved.unit as usize][moved.at as usize].at = at;
            }
            if self.readers[cell as usize].is_empty() {
                orphans.push(cell);
            }
            i += 1;
        }
        old.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(graph: &Graph, units: u32, cells: u32) {
        for unit in 0..units {
            for (i, read) in graph.reads(unit).iter().enumerate() {
                let reader = graph.readers(read.cell)[read.at as usize];
                assert_eq!((reader.unit, reader.at), (unit, i as u32), "unit {unit} read {i}: {graph:?}");
            }
        }
        for cell in 0..cells {
            for (i, reader) in graph.readers(cell).iter().enumerate() {
                let read = graph.reads(reader.unit)[reader.at as usize];
                assert_eq!((read.cell, read.at), (cell, i as u32), "cell {cell} reader {i}: {graph:?}");
            }
        }
    }

    #[test]
    fn both_ends_of_every_edge_agree_after_replacements() {
        let mut graph = Graph::default();
        for _ in 0..5 {
            graph.new_cell();
        }
        let all = |cells: &[u32]| cells.iter().map(|&c| (c, Aspects::ALL)).collect::<Vec<_>>();
        let mut orphans = Vec::new();
        for (unit, cells) in [(0, &[0, 1, 2][..]), (1, &[1, 2]), (2, &[2, 4]), (1, &[0, 2, 3]), (0, &[2]), (2, &[])] {
            graph.set_reads(unit, &all(cells), &mut orphans);
            check(&graph, 3, 5);
        }
        assert_eq!(orphans, vec![1, 4], "cells 1 and 4 lost their last readers, in this order");
    }
}
