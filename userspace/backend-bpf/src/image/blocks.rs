//! Interned lists of operations. Rules whose actions differ only in constants share a list.

use super::allocator::{Exhausted, Indexes};
use oxbow_abi::op::{BLOCK_OPS, Block, Op};
use rustc_hash::FxHashMap;
use std::sync::Arc;

#[derive(Debug)]
struct Interned {
    /// Indexes of the chain, the first is the list's name.
    chain: Vec<u32>,
    users: u32,
}

/// All lists in use.
#[derive(Debug)]
pub struct Blocks {
    indexes: Indexes,
    by_ops: FxHashMap<Arc<[Op]>, Interned>,
    by_index: FxHashMap<u32, Arc<[Op]>>,
    /// New chains that the next commit writes.
    fresh: Vec<(u32, Block)>,
}

impl Blocks {
    /// Elements of the array in use.
    pub fn used(&self) -> usize {
        self.indexes.used() as usize
    }

    /// For a block array of that size.
    pub fn new(max: u32) -> Self {
        Self {
            indexes: Indexes::new("OX_BLOCKS", max),
            by_ops: FxHashMap::default(),
            by_index: FxHashMap::default(),
            fresh: Vec::new(),
        }
    }

    /// Index of the list, with one more user.
    pub fn intern(&mut self, ops: &[Op]) -> Result<u32, Exhausted> {
        if let Some(known) = self.by_ops.get_mut(ops) {
            known.users += 1;
            return Ok(known.chain[0]);
        }
        let pieces: Vec<&[Op]> = if ops.is_empty() { vec![ops] } else { ops.chunks(BLOCK_OPS).collect() };
        let mut chain = Vec::with_capacity(pieces.len());
        for _ in &pieces {
            match self.indexes.take() {
                Ok(index) => chain.push(index),
                Err(full) => {
                    chain.into_iter().for_each(|index| self.indexes.release(index));
                    return Err(full);
                }
            }
        }
        for (n, piece) in pieces.iter().enumerate() {
            let mut block =
                Block { len: piece.len() as u32, next: chain.get(n + 1).copied().unwrap_or(0), ..Block::default() };
            block.op[..piece.len()].copy_from_slice(piece);
            self.fresh.push((chain[n], block));
        }
        let first = chain[0];
        let ops: Arc<[Op]> = ops.into();
        self.by_index.insert(first, Arc::clone(&ops));
        self.by_ops.insert(ops, Interned { chain, users: 1 });
        Ok(first)
    }

    /// One user less. To be called after the grace period in which a rule that used it went.
    pub fn release(&mut self, index: u32) {
        let Some(ops) = self.by_index.get(&index) else { return };
        let Some(known) = self.by_ops.get_mut(ops) else { return };
        known.users -= 1;
        if known.users == 0 {
            let ops = Arc::clone(ops);
            self.by_index.remove(&index);
            if let Some(gone) = self.by_ops.remove(&ops) {
                self.fresh.retain(|(index, _)| !gone.chain.contains(index));
                gone.chain.into_iter().for_each(|index| self.indexes.release(index));
            }
        }
    }

    /// The operations of a list.
    pub fn ops(&self, index: u32) -> Option<&[Op]> {
        self.by_index.get(&index).map(|ops| &ops[..])
    }

    /// Blocks that the kernel does not have yet.
    pub fn fresh(&self) -> &[(u32, Block)] {
        &self.fresh
    }

    /// The kernel has them.
    pub fn written(&mut self) {
        self.fresh.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ops(n: u32) -> Vec<Op> {
        (0..n).map(|b| Op { code: 1, b, ..Op::default() }).collect()
    }

    #[test]
    fn equal_lists_share_a_block_and_long_ones_are_chained() {
        let mut blocks = Blocks::new(8);
        let a = blocks.intern(&ops(3)).unwrap();
        assert_eq!(blocks.intern(&ops(3)), Ok(a));
        let long = blocks.intern(&ops(31)).unwrap();
        assert_ne!(a, long);
        let lens: Vec<(u32, u32)> = blocks.fresh().iter().map(|(_, b)| (b.len, b.next)).collect();
        assert_eq!(lens, [(3, 0), (15, 3), (15, 4), (1, 0)]);
        blocks.written();
        blocks.release(a);
        blocks.release(a);
        assert_eq!(blocks.intern(&ops(2)), Ok(a), "the index is used again once nobody uses the list");
        assert_eq!(blocks.intern(&[]).map(|i| blocks.ops(i).map(<[Op]>::len)), Ok(Some(0)));
    }
}
