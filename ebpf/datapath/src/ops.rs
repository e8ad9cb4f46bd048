//! Operations: what a rule does to the field vector, and where the packet goes next.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use oxbow_abi::{
    field::{IP_META, WORDS},
    op::{
        ARG_OUTSIDE_KEY, BLOCK_OPS, CHECK_IN_PORT_SEC, CHECK_OUT_PORT_SEC, DEC_TTL, DROP, EXCHANGE, GET_FDB,
        LOOKUP_FDB, MAX_OPS, MOVE, ND_NA, NEXT, OUTPUT_COPY, OUTPUT_END, Op, PUNT, PUT_FDB, RESTORE, SAVE, SET,
        SET_OPERAND, SUB_IN_PORT_SEC, SUB_OUT_PORT_SEC,
    },
    reason::Reason,
};

use crate::{
    advert, fdb,
    maps::OX_BLOCKS,
    scratch::{Scratch, below, copy, masked, phase},
    walk::{begin_check, decode, go_to, suspend},
};

/// What the callback tells the caller.
#[repr(C)]
struct Run {
    /// Encoded result; the error of the operation that failed.
    result: i32,
    /// An operation ended the run (it set the phase, or failed).
    ended: u32,
}

/// Runs operations from [`Scratch::block`] and [`Scratch::position`] on, up to one that changes the phase.
#[inline(always)]
pub fn run() -> Result<i32, Reason> {
    let mut run = Run { result: 0, ended: 0 };
    // SAFETY: the callback has the signature the helper wants, and `run` lives until the loop is over.
    unsafe { bpf_loop(MAX_OPS, one as *mut c_void, (&raw mut run).cast(), 0) };
    if run.ended == 0 { Err(Reason::ActionsEnd) } else { decode(run.result) }
}

/// One operation; 1 ends the run.
unsafe extern "C" fn one(_index: u64, env: *mut c_void) -> i64 {
    // SAFETY: `env` is the run on the caller's stack.
    let run = unsafe { &mut *env.cast::<Run>() };
    let Some(s) = Scratch::get() else { return 1 };
    let Some(mut block) = OX_BLOCKS.get(s.block.get()) else { return 1 };
    let mut position = s.position.get();
    if position >= block.len {
        if block.next == 0 {
            // The list is over without `next` or `output`.
            return 1;
        }
        s.block.set(block.next);
        position = 0;
        let Some(next) = OX_BLOCKS.get(block.next) else { return 1 };
        block = next;
    }
    s.position.set(position + 1);
    let Some(op) = below::<BLOCK_OPS, 15>(position).and_then(|index| block.op.get(index)) else { return 1 };
    match execute(s, op) {
        Ok(false) => 0,
        Ok(true) => {
            run.ended = 1;
            1
        }
        Err(reason) => {
            run.result = -(reason as i32);
            run.ended = 1;
            1
        }
    }
}

const _: () = assert!(BLOCK_OPS == 15);

/// Executes one operation; `true` = it set the phase.
#[inline(always)]
fn execute(s: &Scratch, op: &Op) -> Result<bool, Reason> {
    let (dst, src) = (u32::from(op.dst), u32::from(op.src));
    let (a, b, c) = (op.a, op.b, op.c);
    match op.code {
        SET => {
            let word = s.word(dst);
            word.set(word.get() & !a | b & a);
        }
        SET_OPERAND => {
            let operand = s.found[0].operand[masked::<7>(u32::from(op.arg))].get();
            let word = s.word(dst);
            word.set(word.get() & !a | operand << (c & 31) & a);
        }
        MOVE => {
            outside(s, op);
            let value = s.word(src).get() >> (b & 31) << (c & 31);
            let word = s.word(dst);
            word.set(word.get() & !a | value & a);
        }
        EXCHANGE => {
            outside(s, op);
            let (x, y) = (s.word(dst).get(), s.word(src).get());
            let (from_x, from_y) = (x >> (c & 31) & a, y >> (b & 31) & a);
            s.word(dst).set(x & !(a << (c & 31)) | from_y << (c & 31));
            // When both are in one word, the second write must see the first.
            let y = s.word(src).get();
            s.word(src).set(y & !(a << (b & 31)) | from_x << (b & 31));
        }
        DEC_TTL => {
            let word = s.word(u32::from(IP_META));
            let ttl = word.get() >> 8 & 0xff;
            if ttl <= 1 {
                s.cacheable.set(0);
                return Err(Reason::TtlExceeded);
            }
            word.set(word.get() - 0x100);
        }
        NEXT => {
            // The pipeline is the one the packet is in, but for `next(pipeline=ingress)` and its like.
            s.pipeline.set(dst & 1);
            go_to(s, a)?;
            return Ok(true);
        }
        OUTPUT_END => {
            s.phase.set(phase::OUTPUT);
            return Ok(true);
        }
        OUTPUT_COPY => {
            suspend(s)?;
            return Ok(true);
        }
        DROP => {
            return Err(Reason::from_number(a).unwrap_or(Reason::Inconsistent));
        }
        SAVE => {
            let open = &s.saving[masked::<1>(s.pipeline.get())];
            if open.get() != 0 {
                return Err(Reason::CloneDepth);
            }
            open.set(1);
            copy(&s.saved[masked::<1>(s.pipeline.get())], &s.word);
        }
        RESTORE => {
            let open = &s.saving[masked::<1>(s.pipeline.get())];
            if open.get() == 0 {
                return Err(Reason::Inconsistent);
            }
            open.set(0);
            copy(&s.word, &s.saved[masked::<1>(s.pipeline.get())]);
        }
        CHECK_IN_PORT_SEC | CHECK_OUT_PORT_SEC => {
            let which = if op.code == CHECK_IN_PORT_SEC { SUB_IN_PORT_SEC } else { SUB_OUT_PORT_SEC };
            begin_check(s, s.sub[which].get(), dst, c, 0);
            return Ok(true);
        }
        PUT_FDB => {
            decode(fdb::ox_put_fdb(s.word(dst).get(), s.word(src).get(), s.word(src + 1).get()))?;
        }
        LOOKUP_FDB => {
            let port = fdb::ox_get_fdb(s.word(src).get(), s.word(src + 1).get());
            set_bit(s, dst, c, port != 0 && port == s.word(b).get());
        }
        GET_FDB => {
            let port = fdb::ox_get_fdb(s.word(src).get(), s.word(src + 1).get());
            s.word(u32::from(oxbow_abi::field::OUTPORT)).set(if port == 0 { b } else { port });
        }
        ND_NA => advert::begin(s, a)?,
        PUNT => return Err(Reason::UnsupportedAction),
        _ => return Err(Reason::UnsupportedAction),
    }
    Ok(false)
}

/// Did the operation read a word that is not in the verdict key? Then the walk is not cached.
#[inline(always)]
fn outside(s: &Scratch, op: &Op) {
    if op.arg & ARG_OUTSIDE_KEY != 0 {
        s.cacheable.set(0);
    }
}

/// Sets or clears a bit of a word.
#[inline(always)]
pub fn set_bit(s: &Scratch, word: u32, bit: u32, on: bool) {
    let word = s.word(word);
    let mask = 1 << (bit & 31);
    word.set(word.get() & !mask | if on { mask } else { 0 });
}

const _: () = assert!(WORDS <= 64);
