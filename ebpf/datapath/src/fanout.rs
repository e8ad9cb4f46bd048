//! Groups: each member gets a copy with the packet as it was handed to the group; local members through their own egress pipeline, other
//! chassis once, with the group as outport, so that they fan out to their own members.

use oxbow_abi::{
    field::{INPORT, OUTPORT},
    reason::Reason,
    stats::total,
    topology::{CHUNK, ChunkKey, MEMBER_CHASSIS, Members, PORT_LOCAL, PORT_UNSERVED, VIF_LOCALPORT},
};

use crate::{
    count, limit,
    maps::{OX_CHASSIS, OX_GROUPS, OX_STATE},
    output,
    scratch::{INGRESS, Scratch, below, copy, fan, phase},
    skb::{self, Context},
    tunnel,
    walk::{encode, next_copy, pick},
};

/// Ranks: local ports, and chassis by the length of their outer headers. Members of one rank are served before those of the next, because outer headers
/// that are in the buffer can grow but not always be taken off.
const RANKS: u32 = 5;

/// The bit of local members among the ranks that have any.
const LOCAL: u32 = 1;

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
    s.fan_active.set(fan::GROUP);
    s.fan_rank.set(0);
    s.fan_ranks.set(0);
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
    if s.fan_active.get() == fan::MIGRATION {
        s.fan_active.set(fan::NONE);
        copy(&s.word, &s.group);
        s.pipeline.set(INGRESS);
        s.phase.set(phase::REMOTE);
        return Ok(0);
    }
    // The flow that handed the packet to the group has been counted; drops from here on are no flow's.
    s.found[0].lflow.set(0);
    let key = ChunkKey { datapath: s.datapath.get(), group: s.fan_group.get(), chunk: s.fan_chunk.get() };
    // SAFETY: map memory stays mapped while this runs and any bytes are a value; that it may become another key's is in DESIGN.md, Races.
    let chunk = unsafe { OX_GROUPS.get(&key) };
    let members = chunk.and_then(|chunk| newest(&chunk.members, s.version.get()));
    let n = s.fan_member.get();
    let count = members.map_or(0, |members| members.count);
    let Some(members) = members.filter(|_| n < count && n < CHUNK as u32) else {
        if s.fan_chunk.get() == 0 && count == 0 {
            s.fan_active.set(fan::NONE);
            return Err(Reason::GroupEmpty);
        }
        if count >= CHUNK as u32 {
            s.fan_chunk.set(s.fan_chunk.get() + 1);
            s.fan_member.set(0);
            return Ok(0);
        }
        // The last chunk is through (a full one may have been it): next rank, or done.
        let mut rank = s.fan_rank.get() + 1;
        while rank < RANKS && s.fan_ranks.get() & 1 << rank == 0 {
            rank += 1;
        }
        if rank >= RANKS {
            s.fan_active.set(fan::NONE);
            if s.fan_ranks.get() == 0 {
                // All members are on other chassis, which the sender has served.
                return Err(Reason::GroupEmpty);
            }
            next_copy(s);
            return Ok(0);
        }
        s.fan_rank.set(rank);
        s.fan_chunk.set(0);
        s.fan_member.set(0);
        return Ok(0);
    };
    s.fan_member.set(n + 1);
    let Some(&member) = below::<CHUNK, 31>(n).and_then(|index| members.member.get(index)) else {
        return Err(Reason::Inconsistent);
    };
    if member & MEMBER_CHASSIS != 0 {
        if s.tunnelled.get() != 0 {
            // What a tunnel brought was sent to every chassis by the sender.
            return Ok(0);
        }
        let chassis = OX_CHASSIS.get(member & !MEMBER_CHASSIS).ok_or(Reason::Inconsistent)?;
        let rank = tunnel::rank(chassis);
        s.fan_ranks.set(s.fan_ranks.get() | 1 << rank);
        if rank != s.fan_rank.get() {
            return Ok(0);
        }
    } else if s.fan_rank.get() != 0 {
        return Ok(0);
    }
    let budget = s.budget.get();
    if budget == 0 {
        s.fan_active.set(fan::NONE);
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
        s.fan_ranks.set(s.fan_ranks.get() | LOCAL);
        // Of a kind that is not served, or released since the group was written.
        return Err(if port.kind == PORT_UNSERVED { Reason::PortNotServed } else { Reason::PortNotBound });
    }
    if s.tunnelled.get() != 0 && port.flags & VIF_LOCALPORT != 0 {
        // The sender's chassis has an instance of the localport of its own, which got the packet there.
        return Ok(0);
    }
    s.fan_ranks.set(s.fan_ranks.get() | LOCAL);
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
