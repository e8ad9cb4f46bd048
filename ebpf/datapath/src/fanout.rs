//! Groups: each member gets a copy with the packet as it was handed to the group; local members through their own egress pipeline, other
//! chassis once, with the group as outport, so that they fan out to their own members.

use oxbow_abi::{
    field::{INPORT, OUTPORT},
    reason::Reason,
    stats::total,
    topology::{CHUNK, ChunkKey, MEMBER_CHASSIS, Members, PORT_LOCAL, VIF_LOCALPORT},
};

use crate::{
    count, limit,
    maps::{OX_GROUPS, OX_STATE},
    output,
    scratch::{INGRESS, Scratch, copy, masked, phase},
    skb::{self, Context},
    walk::{encode, next_copy, pick},
};

/// Begins the fan-out of the packet to a group.
#[inline(always)]
pub fn begin(s: &Scratch, group: u32) -> Result<i32, Reason> {
    // Many outputs: not cached.
    s.cacheable.set(0);
    if s.fan_active.get() != 0 {
        return Err(Reason::CloneDepth);
    }
    if s.tunnelled.get() == 0
        && let Some(state) = OX_STATE.get(0)
        && state.bum_rate != 0
    {
        let burst = if state.bum_burst != 0 { state.bum_burst } else { state.bum_rate };
        if !limit::take(0, s.datapath.get(), s.word[usize::from(INPORT)].get(), state.bum_rate, burst) {
            return Err(Reason::BumRate);
        }
    }
    s.fan_active.set(1);
    s.fan_group.set(group);
    s.fan_chunk.set(0);
    s.fan_member.set(0);
    copy(&s.group, &s.word);
    s.phase.set(phase::FAN_OUT);
    Ok(0)
}

/// The next member.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_member(skb: Context) -> i32 {
    encode(member(skb))
}

#[inline(always)]
fn member(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    // The flow that handed the packet to the group has been counted; drops from here on are no flow's.
    s.found[0].lflow.set(0);
    let key = ChunkKey { datapath: s.datapath.get(), group: s.fan_group.get(), chunk: s.fan_chunk.get() };
    // SAFETY: a hash without preallocation: the value is not reused before this packet is done.
    let chunk = unsafe { OX_GROUPS.get(&key) };
    let members = chunk.and_then(|chunk| newest(&chunk.members, s.version.get()));
    let Some(members) = members else {
        s.fan_active.set(0);
        // A full chunk may have been the last one; a group without any is empty.
        if s.fan_chunk.get() == 0 {
            return Err(Reason::GroupEmpty);
        }
        next_copy(s);
        return Ok(0);
    };
    let n = s.fan_member.get();
    if n >= members.count || n >= CHUNK as u32 {
        if members.count < CHUNK as u32 {
            s.fan_active.set(0);
            if members.count == 0 && s.fan_chunk.get() == 0 {
                return Err(Reason::GroupEmpty);
            }
            next_copy(s);
            return Ok(0);
        }
        s.fan_chunk.set(s.fan_chunk.get() + 1);
        s.fan_member.set(0);
        return Ok(0);
    }
    s.fan_member.set(n + 1);
    let Some(&member) = members.member.get(masked::<31>(n)) else { return Err(Reason::Inconsistent) };
    if member & MEMBER_CHASSIS != 0 && s.tunnelled.get() != 0 {
        // What a tunnel brought was sent to every chassis by the sender.
        return Ok(0);
    }
    let budget = s.budget.get();
    if budget == 0 {
        s.fan_active.set(0);
        return Err(Reason::FanOutBudget);
    }
    s.budget.set(budget - 1);
    copy(&s.word, &s.group);
    s.pipeline.set(INGRESS);
    count::totals(total::FAN_OUT, skb::len(skb));
    if member & MEMBER_CHASSIS != 0 {
        output::tunnel_copy(skb, member & !MEMBER_CHASSIS, s.fan_group.get())?;
        return Ok(0);
    }
    let port = output::lookup(s, member)?;
    if port.kind != PORT_LOCAL {
        // Released since the group was written.
        return Err(Reason::PortNotBound);
    }
    if s.tunnelled.get() != 0 && port.flags & VIF_LOCALPORT != 0 {
        // The sender's chassis has an instance of the localport of its own, which got the packet there.
        return Ok(0);
    }
    s.word[usize::from(OUTPORT)].set(member);
    output::local(s, &port)?;
    Ok(0)
}

/// The newer of two member lists that this version may use.
#[inline(always)]
fn newest(members: &[Members; 2], version: u32) -> Option<&Members> {
    let [a, b] = members;
    pick(a.from, b.from, version).map(|second| if second { b } else { a })
}
