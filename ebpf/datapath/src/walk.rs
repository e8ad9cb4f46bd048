//! The walk: a flat state machine in one `bpf_loop`. Each step is a table look-up, a run of operations, a check, an output or a member of a group,
//! so the verifier sees each of them once, as a global function of its own, and the stack stays shallow.
//!
//! A copy of the packet ends in delivery or in a drop; then the walk goes on with what is still open, innermost first: operations
//! behind an `output` in the egress pipeline, the next member of a group, operations behind an `output` in the ingress pipeline.

use core::ffi::c_void;

use aya_ebpf::{bindings::TC_ACT_SHOT, helpers::bpf_loop};
use oxbow_abi::{
    field::{CT_LABEL, CT_STATE, FLAGS, INPORT, OUTPORT, REG_COUNT, flag},
    op::{SUB_FAIL, SUB_GOTO, SUB_PASS, SUBS},
    reason::Reason,
    rule::{
        CHECK_BIT_SHIFT, CHECK_SUB_SHIFT, CHECK_WORD_SHIFT, NEVER, SHORT, SHORT_CHECK, SHORT_GOTO, SHORT_OUTPUT, SHORT_SEND,
        SHORT_SHIFT,
    },
    stats::total,
    topology::{STAGES, Stages},
};
use oxbow_wire::parse;

use crate::{
    cache, classify, count, fanout,
    maps::{OX_DATAPATHS, OX_STATE},
    ops, output,
    scratch::{EGRESS, INGRESS, Scratch, copy, copy_headers, masked, phase},
    seen,
    skb::{self, Buffer, Context},
};

/// Steps of one packet, copies included.
const MAX_STEPS: u32 = 1 << 17;
/// Tables that one copy may pass: both pipelines with every stage, twice.
const MAX_TABLES: u32 = 4 * STAGES as u32;

/// A result as a global function returns it: what there is to say, or the negative number of a reason.
#[inline(always)]
pub fn encode(result: Result<i32, Reason>) -> i32 {
    match result {
        Ok(value) => value,
        Err(reason) => -(reason as i32),
    }
}

/// The same, read back.
#[inline(always)]
pub fn decode(value: i32) -> Result<i32, Reason> {
    if value >= 0 { Ok(value) } else { Err(Reason::from_number(value.unsigned_abs()).unwrap_or(Reason::Inconsistent)) }
}

/// Walks the frame whose entry is in the slot. Drops of copies are counted here; what it returns as a reason is still to be counted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_walk(skb: Context) -> i32 {
    encode(walk(skb))
}

#[inline(always)]
fn walk(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    count::totals(total::WALK, skb::len(skb));
    if s.nested.get() != 0 {
        skb::pop_vlan(skb)?;
    }
    decode(ox_parse(skb))?;
    begin(s)?;
    let mut env = skb;
    // SAFETY: the callback has the signature the helper wants, and `env` lives until the loop is over.
    unsafe { bpf_loop(MAX_STEPS, step as *mut c_void, (&raw mut env).cast(), 0) };
    if s.phase.get() != phase::DONE {
        fail(skb, s, Reason::WalkLimit);
    } else if s.outputs.get() == 0 && s.cacheable.get() != 0 {
        cache::ox_remember_denied(s.reason.get());
    }
    if s.cacheable.get() == 0 {
        count::totals(total::UNCACHEABLE, skb::len(skb));
    }
    Ok(s.action.get())
}

/// One step of the loop; 1 ends it.
unsafe extern "C" fn step(_index: u64, env: *mut c_void) -> i64 {
    // SAFETY: `env` is the context that `walk` put on its stack.
    let skb = unsafe { *env.cast::<Context>() };
    let Some(s) = Scratch::get() else { return 1 };
    let result = match s.phase.get() {
        phase::TABLE | phase::CHECK => look_up(skb, s),
        phase::OPS => ops::run(),
        phase::OUTPUT => decode(output::ox_output(skb)),
        phase::FAN_OUT => decode(fanout::ox_member(skb)),
        phase::REMOTE => decode(output::ox_remote(skb)),
        phase::DELIVER => decode(output::ox_deliver(skb)),
        _ => return 1,
    };
    if let Err(reason) = result {
        fail(skb, s, reason);
        next_copy(s);
    }
    0
}

/// Reads the frame into the vector.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_parse(skb: Context) -> i32 {
    let Some(s) = Scratch::get() else { return -(Reason::Inconsistent as i32) };
    // SAFETY: the slot belongs to this CPU; a cell has the layout of its content, and no other reference to these fields is alive.
    let (word, layout) =
        unsafe { (&mut *(&raw const s.word).cast_mut().cast::<[u32; parse::VECTOR]>(), s.layout.as_ptr()) };
    let base = s.base.get();
    // An outer tag is not the frame's.
    let tag = if base != 0 { 0 } else { skb::tag(skb) };
    match parse::parse(&Buffer(skb), base, tag, word) {
        Ok(found) => {
            // SAFETY: as above.
            unsafe { *layout = found };
            0
        }
        Err(reason) => -(reason as i32),
    }
}

/// Sets everything that is not the vector, and the first phase.
#[inline(always)]
fn begin(s: &Scratch) -> Result<(), Reason> {
    copy_headers(&s.packet, &s.word);
    s.steps.set(0);
    s.saving[0].set(0);
    s.saving[1].set(0);
    s.resume[0].active.set(0);
    s.resume[1].active.set(0);
    s.fan_active.set(0);
    s.encapsulated.set(0);
    s.stripped.set(0);
    s.outputs.set(0);
    s.advert.set(0);
    s.reason.set(0);
    s.reason_lflow.set(0);
    s.found[0].lflow.set(0);
    s.action.set(TC_ACT_SHOT as i32);
    let budget = OX_STATE.get(0).map_or(0, |state| state.fan_out_budget);
    s.budget.set(budget);
    load_stages(s)?;
    if s.tunnelled.get() != 0 {
        // The sender's ingress pipeline is behind it.
        s.pipeline.set(INGRESS);
        s.phase.set(phase::OUTPUT);
        return Ok(());
    }
    s.pipeline.set(INGRESS);
    go_to(s, 0)
}

/// Sees to it that the slot has the datapath's stage map: one look-up for the whole walk, and none when it has it from the packet before. (What
/// holds in a version never changes: user space writes it before the version is in force.)
#[inline(always)]
fn load_stages(s: &Scratch) -> Result<(), Reason> {
    if s.staged_version.get() != s.version.get() || s.staged.get() != s.datapath.get() {
        decode(ox_stages())?;
    }
    s.rest_on(s.staged_guard.get());
    Ok(())
}

/// Copies the datapath's stage map into the slot. Seldom: a function of its own, whose stack is free again.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_stages() -> i32 {
    encode(Scratch::get().ok_or(Reason::Inconsistent).and_then(copy_stages))
}

#[inline(always)]
fn copy_stages(s: &Scratch) -> Result<i32, Reason> {
    let key = s.datapath.get();
    s.staged_version.set(0);
    // SAFETY: map memory stays mapped while this runs and any bytes are a value; that it may become another key's is in DESIGN.md, Races.
    let datapath = unsafe { OX_DATAPATHS.get(&key) }.ok_or(Reason::NoDatapath)?;
    let stages = newest(&datapath.stages, s.version.get()).ok_or(Reason::NoDatapath)?;
    s.staged.set(key);
    s.staged_guard.set(datapath.guard);
    let mut n = 0;
    while n < STAGES {
        s.stages[n].set(stages.ingress[n]);
        s.stages[n + 64].set(stages.egress[n]);
        n += 1;
    }
    n = 0;
    while n < SUBS {
        s.sub[n].set(stages.sub[n]);
        n += 1;
    }
    s.staged_version.set(s.version.get());
    Ok(0)
}

/// Goes to a stage of the pipeline.
#[inline(always)]
pub fn go_to(s: &Scratch, stage: u32) -> Result<(), Reason> {
    if stage >= STAGES as u32 {
        return Err(Reason::PipelineEnd);
    }
    let table = s.stages[masked::<127>(s.pipeline.get() * 64 + stage)].get();
    if table == 0 {
        return Err(Reason::PipelineEnd);
    }
    s.table.set(table);
    s.phase.set(phase::TABLE);
    Ok(())
}

/// The newer of two stage maps that this version may use.
#[inline(always)]
fn newest(stages: &[Stages; 2], version: u32) -> Option<&Stages> {
    let [a, b] = stages;
    pick(a.from, b.from, version).map(|second| if second { b } else { a })
}

/// Which of two slots holds for `version`: the newest that is not after it. `Some(true)` = the second.
#[inline(always)]
pub fn pick(a: u32, b: u32, version: u32) -> Option<bool> {
    const _: () = assert!(NEVER == u32::MAX);
    match (a <= version, b <= version) {
        (true, true) => Some(b > a),
        (true, false) => Some(false),
        (false, true) => Some(true),
        (false, false) => None,
    }
}

/// A look-up, in a table of the pipeline or in one of port security, and what follows from it. One place for both: each search is a loop of its own.
#[inline(always)]
fn look_up(skb: Context, s: &Scratch) -> Result<i32, Reason> {
    let checking = s.phase.get() == phase::CHECK;
    if !checking {
        let steps = s.steps.get() + 1;
        s.steps.set(steps);
        s.found[0].lflow.set(0);
        if steps > MAX_TABLES {
            return Err(Reason::WalkLimit);
        }
    }
    let table = if checking { s.check_table.get() } else { s.table.get() };
    let found = classify::search(s, table, u32::from(checking)) != 0;
    if checking { checked(s, found) } else { matched(skb, s, found) }
}

/// A table said what to do: count it, and on to its operations.
#[inline(always)]
fn matched(skb: Context, s: &Scratch, found: bool) -> Result<i32, Reason> {
    if !found {
        return Err(Reason::NoMatch);
    }
    let lflow = s.found[0].lflow.get();
    count::lflow(lflow, skb::len(skb));
    seen::flow(skb, lflow);
    let n = s.path_len.get();
    if (n as usize) < oxbow_abi::verdict::PATH {
        s.path[masked::<31>(n)].set(lflow);
        s.path_len.set(n + 1);
    }
    let block = s.found[0].block.get();
    if block & SHORT != 0 {
        return short(s, block).map(|()| 0);
    }
    s.block.set(block);
    s.position.set(0);
    s.phase.set(phase::OPS);
    Ok(0)
}

/// What most rules do: no block for that.
#[inline(always)]
fn short(s: &Scratch, answer: u32) -> Result<(), Reason> {
    match answer >> SHORT_SHIFT & 7 {
        SHORT_GOTO => return next_stage(s, answer),
        SHORT_OUTPUT => s.phase.set(phase::OUTPUT),
        SHORT_SEND => {
            s.word[usize::from(OUTPORT)].set(answer & 0xffff);
            s.phase.set(phase::OUTPUT);
        }
        SHORT_CHECK => {
            let sub = s.sub[masked::<3>(answer >> CHECK_SUB_SHIFT)].get();
            begin_check(s, sub, answer >> CHECK_WORD_SHIFT & 0xff, answer >> CHECK_BIT_SHIFT, answer);
        }
        _ => return Err(Reason::UnsupportedAction),
    }
    Ok(())
}

/// `next` as a short list has it.
#[inline(always)]
fn next_stage(s: &Scratch, answer: u32) -> Result<(), Reason> {
    s.pipeline.set(answer >> 8 & 1);
    go_to(s, answer & 0xff)
}

/// Begins a port security check in a sub-table; its result goes to a bit of a word. `then` is the short list to go on with, 0 = operations.
#[inline(always)]
pub fn begin_check(s: &Scratch, sub: u32, word: u32, bit: u32, then: u32) {
    s.check_table.set(sub);
    s.check_second.set(0);
    s.check_word.set(word);
    s.check_bit.set(bit);
    s.check_then.set(then);
    s.phase.set(phase::CHECK);
}

/// A port security table answered; it may refer to a second one. A miss passes, and so does a datapath without such a table.
#[inline(always)]
fn checked(s: &Scratch, found: bool) -> Result<i32, Reason> {
    let mut outcome = if found { s.found[1].block.get() } else { SUB_PASS };
    if outcome == SUB_GOTO {
        outcome = SUB_PASS;
        let next = s.sub[masked::<3>(s.found[1].operand[0].get())].get();
        if s.check_second.get() == 0 && next != 0 {
            s.check_second.set(1);
            s.check_table.set(next);
            return Ok(0);
        }
    }
    ops::set_bit(s, s.check_word.get(), s.check_bit.get(), outcome == SUB_FAIL);
    let then = s.check_then.get();
    if then != 0 {
        return next_stage(s, then).map(|()| 0);
    }
    s.phase.set(phase::OPS);
    Ok(0)
}

/// Enters the egress pipeline towards the local port in `outport`.
#[inline(always)]
pub fn enter_egress(s: &Scratch) -> Result<(), Reason> {
    let (inport, outport) = (s.word[usize::from(INPORT)].get(), s.word[usize::from(OUTPORT)].get());
    let flags = s.word[usize::from(FLAGS)].get();
    if inport == outport && flags & (1 << flag::LOOPBACK) == 0 {
        return Err(Reason::Loopback);
    }
    let mut register = 0;
    while register < REG_COUNT as usize {
        s.word[register].set(0);
        register += 1;
    }
    let mut word = usize::from(CT_STATE);
    while word < usize::from(CT_LABEL) + 4 {
        s.word[word].set(0);
        word += 1;
    }
    s.pipeline.set(EGRESS);
    s.steps.set(0);
    go_to(s, 0)
}

/// Counts the drop of this copy.
#[inline(always)]
fn fail(skb: Context, s: &Scratch, reason: Reason) {
    let lflow = match reason {
        // Decided between the pipelines: no logical flow said so.
        Reason::Loopback | Reason::FanOutBudget | Reason::BumRate | Reason::GroupEmpty | Reason::NoMatch => 0,
        _ => s.found[0].lflow.get(),
    };
    s.reason.set(reason as u32);
    s.reason_lflow.set(lflow);
    let at = s.base.get() + s.encapsulated.get();
    count::dropped(skb, reason, lflow, at);
}

/// A copy is done: what is still open?
#[inline(always)]
pub fn next_copy(s: &Scratch) {
    if s.resume[1].active.get() != 0 {
        resume(s, EGRESS);
    } else if s.fan_active.get() != 0 {
        s.phase.set(phase::FAN_OUT);
    } else if s.resume[0].active.get() != 0 {
        resume(s, INGRESS);
    } else {
        s.phase.set(phase::DONE);
    }
}

/// Is this copy the last one?
#[inline(always)]
pub fn last_copy(s: &Scratch) -> bool {
    s.resume[0].active.get() | s.resume[1].active.get() | s.fan_active.get() == 0
}

/// Goes on behind an `output`, with the packet as it was.
#[inline(always)]
fn resume(s: &Scratch, pipeline: u32) {
    let from = &s.resume[masked::<1>(pipeline)];
    from.active.set(0);
    copy(&s.word, &from.word);
    s.pipeline.set(pipeline);
    s.block.set(from.block.get());
    s.position.set(from.position.get());
    s.found[0].lflow.set(from.lflow.get());
    let mut n = 0;
    while n < 8 {
        s.found[0].operand[n].set(from.operand[n].get());
        n += 1;
    }
    s.phase.set(phase::OPS);
}

/// Leaves the rest of the block for later: this copy goes out now.
#[inline(always)]
pub fn suspend(s: &Scratch) -> Result<(), Reason> {
    let pipeline = s.pipeline.get();
    let to = &s.resume[masked::<1>(pipeline)];
    if to.active.get() != 0 {
        return Err(Reason::CloneDepth);
    }
    to.active.set(1);
    copy(&to.word, &s.word);
    to.block.set(s.block.get());
    to.position.set(s.position.get());
    to.lflow.set(s.found[0].lflow.get());
    let mut n = 0;
    while n < 8 {
        to.operand[n].set(s.found[0].operand[n].get());
        n += 1;
    }
    // More than one output: not cached.
    s.cacheable.set(0);
    s.phase.set(phase::OUTPUT);
    Ok(())
}
