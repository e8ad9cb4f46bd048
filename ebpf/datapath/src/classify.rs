//! Tuple-space search: the packet's words under each of a table's masks are the key of one look-up; the best priority wins.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use oxbow_abi::rule::{
    Answer, FILTERS, MAX_TUPLES, NARROW, NarrowKey, OPERANDS, Rule, TUPLE_OUTSIDE_KEY, TUPLE_SINGLE, TUPLE_WIDE, Tuple, WIDE,
};

use crate::{
    maps::{OX_RULES, OX_RULES_WIDE, OX_TABLES, OX_TUPLES},
    scratch::{Scratch, at, masked},
    walk,
};

/// The search in progress: on the stack of [`ox_classify`], for the callback.
#[repr(C)]
struct Search {
    /// Index of the first tuple.
    first: u32,
    /// 1 + the best priority so far, 0 = none.
    best: u32,
    /// Which of [`Scratch::found`] takes the result.
    which: u32,
    version: u32,
}

/// [`search`] as a function of its own, for sub-tables.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_classify(table: u32, which: u32) -> i32 {
    let Some(s) = Scratch::get() else { return 0 };
    search(s, table, which)
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
    let mut search = Search { first: range.first, best: 0, which, version };
    // SAFETY: the callback has the signature the helper wants, and `search` lives until the loop is over.
    unsafe { bpf_loop(count, tuple as *mut c_void, (&raw mut search).cast(), 0) };
    i32::from(search.best != 0)
}

/// One tuple; 1 ends the search.
unsafe extern "C" fn tuple(index: u64, env: *mut c_void) -> i64 {
    // SAFETY: `env` is the search on the caller's stack.
    let search = unsafe { &mut *env.cast::<Search>() };
    let Some(s) = Scratch::get() else { return 1 };
    let Some(tuple) = OX_TUPLES.get(search.first.wrapping_add(index as u32)) else { return 1 };
    // Tuples fall by their highest priority: nothing better follows.
    if search.best > u32::from(tuple.max_priority) {
        return 1;
    }
    // What no rule of the tuple can match is not looked up.
    let mut differs = 0;
    let mut n = 0;
    while n < FILTERS {
        differs |= at(&s.word, u32::from(tuple.filter_word[n])).get() & tuple.filter_mask[n] ^ tuple.filter_value[n];
        n += 1;
    }
    if differs != 0 {
        return 0;
    }
    if tuple.flags & TUPLE_OUTSIDE_KEY != 0 {
        s.cacheable.set(0);
    }
    if tuple.flags & TUPLE_SINGLE != 0 {
        take(s, search, u32::from(tuple.max_priority), &tuple.only);
        return 0;
    }
    let rule = if tuple.flags & TUPLE_WIDE != 0 { wide(s, tuple) } else { narrow(s, tuple) };
    if let Some(rule) = rule {
        consider(s, search, rule);
    }
    0
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
    // SAFETY: a hash without preallocation: the value is not reused before this packet is done.
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
fn consider(s: &Scratch, search: &mut Search, rule: &Rule) {
    let version = search.version;
    for slot in &rule.slot {
        if slot.from <= version && version < slot.until && slot.priority >= search.best {
            take(s, search, slot.priority, &slot.answer);
        }
    }
}

/// The best so far.
#[inline(always)]
fn take(s: &Scratch, search: &mut Search, priority: u32, answer: &Answer) {
    search.best = priority + 1;
    let found = &s.found[masked::<1>(search.which)];
    found.block.set(answer.block);
    found.lflow.set(answer.lflow);
    let mut n = 0;
    while n < OPERANDS {
        found.operand[n].set(answer.operand[n]);
        n += 1;
    }
}
