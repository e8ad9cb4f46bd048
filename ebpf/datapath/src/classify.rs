//! Tuple-space search: the packet's words under each of a table's masks are the key of one look-up; the best priority wins.

use core::{cell::Cell, ffi::c_void};

use aya_ebpf::helpers::bpf_loop;
use oxbow_abi::rule::{
    Answer, FILTERS, MAX_TUPLES, NARROW, NarrowKey, OPERANDS, Rule, TUPLE_OUTSIDE_KEY, TUPLE_SINGLE, TUPLE_WIDE, Tuple, WIDE,
};

use crate::{
    maps::{OX_RULES, OX_RULES_WIDE, OX_TABLES, OX_TUPLES},
    scratch::{Scratch, at, masked},
    walk,
};

/// The search in progress: in the slot, since every byte of stack counts.
#[repr(C)]
pub struct Search {
    /// Index of the first tuple.
    first: Cell<u32>,
    /// How many.
    count: Cell<u32>,
    /// 1 + the best priority so far, 0 = none.
    best: Cell<u32>,
    /// Which of [`Scratch::found`] takes the result.
    which: Cell<u32>,
}

/// Looks the packet up in a table; 1 = found, and `found[which]` says what.
#[inline(always)]
pub fn search(s: &Scratch, table: u32, which: u32) -> i32 {
    let Some(table) = OX_TABLES.get(table) else { return 0 };
    let version = s.version.get();
    let [a, b] = &table.range;
    let range = match walk::pick(a.from, b.from, version) {
        Some(true) => b,
        Some(false) => a,
        None => return 0,
    };
    let count = if range.count > MAX_TUPLES { MAX_TUPLES } else { range.count };
    s.search.first.set(range.first);
    s.search.count.set(count);
    s.search.best.set(0);
    s.search.which.set(which);
    // SAFETY: the callback has the signature the helper wants, and uses nothing but the slot.
    unsafe { bpf_loop(count.div_ceil(AT_ONCE), tuples as *mut c_void, core::ptr::null_mut(), 0) };
    i32::from(s.search.best.get() != 0)
}

/// Tuples per call of the loop's body: a call and its return cost as much as passing over a tuple.
const AT_ONCE: u32 = 4;

/// A few tuples; 1 ends the search.
unsafe extern "C" fn tuples(index: u64, _env: *mut c_void) -> i64 {
    let Some(s) = Scratch::get() else { return 1 };
    let mut n = index as u32 * AT_ONCE;
    let mut left = AT_ONCE;
    while left > 0 {
        if n >= s.search.count.get() || tuple(s, n) {
            return 1;
        }
        n += 1;
        left -= 1;
    }
    0
}

/// One tuple; `true` ends the search.
#[inline(always)]
fn tuple(s: &Scratch, n: u32) -> bool {
    let Some(tuple) = OX_TUPLES.get(s.search.first.get().wrapping_add(n)) else { return true };
    // Tuples fall by their highest priority: nothing better follows.
    if s.search.best.get() > u32::from(tuple.max_priority) {
        return true;
    }
    // What no rule of the tuple can match is not looked up.
    let mut differs = 0;
    let mut n = 0;
    while n < FILTERS {
        differs |= at(&s.word, u32::from(tuple.filter_word[n])).get() & tuple.filter_mask[n] ^ tuple.filter_value[n];
        n += 1;
    }
    if differs != 0 {
        return false;
    }
    if tuple.flags & TUPLE_OUTSIDE_KEY != 0 {
        s.cacheable.set(0);
    }
    if tuple.flags & TUPLE_SINGLE != 0 {
        take(s, u32::from(tuple.max_priority), &tuple.only);
        return false;
    }
    let rule = if tuple.flags & TUPLE_WIDE != 0 { wide(s, tuple) } else { narrow(s, tuple) };
    if let Some(rule) = rule {
        consider(s, rule);
    }
    false
}

#[inline(always)]
fn narrow<'a>(s: &Scratch, tuple: &Tuple) -> Option<&'a Rule> {
    let mut key = NarrowKey { tuple: tuple.id, word: [0; NARROW] };
    let mut n = 0;
    // Words that are not used have mask zero, so there is one branch instead of one a word: few tuples look at more than three.
    while n < 3 {
        key.word[n] = at(&s.word, u32::from(tuple.word[n])).get() & tuple.mask[n];
        n += 1;
    }
    if tuple.words > 3 {
        while n < NARROW {
            key.word[n] = at(&s.word, u32::from(tuple.word[n])).get() & tuple.mask[n];
            n += 1;
        }
    }
    // SAFETY: map memory stays mapped while this runs and any bytes are a value; that it may become another key's is in DESIGN.md, Races.
    unsafe { OX_RULES.get(&key) }
}

#[inline(always)]
fn wide<'a>(s: &Scratch, tuple: &Tuple) -> Option<&'a Rule> {
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive. (Too large for the stack.)
    let key = unsafe { &mut *s.wide.as_ptr() };
    key.tuple = tuple.id;
    let mut n = 0;
    while n < WIDE {
        key.word[n] = at(&s.word, u32::from(tuple.word[n])).get() & tuple.mask[n];
        n += 1;
    }
    // SAFETY: as in `narrow`.
    unsafe { OX_RULES_WIDE.get(&*key) }
}

/// Takes the rule if a slot of it is valid in this packet's version and better than what was found.
#[inline(always)]
fn consider(s: &Scratch, rule: &Rule) {
    let version = s.version.get();
    for slot in &rule.slot {
        if slot.from <= version && version < slot.until && slot.priority >= s.search.best.get() {
            take(s, slot.priority, &slot.answer);
        }
    }
}

/// The best so far.
#[inline(always)]
fn take(s: &Scratch, priority: u32, answer: &Answer) {
    s.search.best.set(priority + 1);
    let found = &s.found[masked::<1>(s.search.which.get())];
    found.block.set(answer.block);
    found.lflow.set(answer.lflow);
    let mut n = 0;
    while n < OPERANDS {
        found.operand[n].set(answer.operand[n]);
        n += 1;
    }
}
