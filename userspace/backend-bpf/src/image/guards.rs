//! Which cached verdicts a change invalidates: the guard of one port where the change is tied to it, else that of its datapath.

use super::allocator::{Exhausted, Indexes};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// What a change is tied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Anything of a datapath (its tunnel key).
    Datapath(u32),
    /// One logical port: tunnel keys of datapath and port.
    Port(u32, u32),
    /// Another chassis (its index).
    Chassis(u32),
}

/// Guard indexes by scope, and those that the next commit raises.
#[derive(Debug)]
pub struct Guards {
    indexes: Indexes,
    known: FxHashMap<Scope, u32>,
    raised: BTreeSet<u32>,
}

impl Guards {
    /// Elements of the array in use.
    pub fn used(&self) -> usize {
        self.indexes.used() as usize
    }

    /// For a guard array of that size.
    pub fn new(max: u32) -> Self {
        Self { indexes: Indexes::new("OX_GUARDS", max), known: FxHashMap::default(), raised: BTreeSet::new() }
    }

    /// The guard of a scope, made when new.
    pub fn index(&mut self, scope: Scope) -> Result<u32, Exhausted> {
        if let Some(index) = self.known.get(&scope) {
            return Ok(*index);
        }
        let index = self.indexes.take()?;
        self.known.insert(scope, index);
        Ok(index)
    }

    /// Notes that something in this scope changes with the next commit. A scope that no map entry names yet guards nothing.
    pub fn raise(&mut self, scope: Scope) {
        if let Some(index) = self.known.get(&scope) {
            self.raised.insert(*index);
        }
    }

    /// Forgets a scope that is gone; its index may be used again at once: guards only ever rise, so a verdict that was made under the old
    /// meaning stays invalid.
    pub fn forget(&mut self, scope: Scope) {
        self.raise(scope);
        if let Some(index) = self.known.remove(&scope) {
            self.indexes.release(index);
        }
    }

    /// Guards to raise, ascending.
    pub fn raised(&self) -> impl Iterator<Item = u32> + '_ {
        self.raised.iter().copied()
    }

    /// The commit has raised them.
    pub fn committed(&mut self) {
        self.raised.clear();
    }
}
