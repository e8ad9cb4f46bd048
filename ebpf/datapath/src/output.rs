//! Where a copy goes: to a local device, to another chassis, to a group, or nowhere.

use oxbow_abi::{
    field::{ETH_TYPE, FLAGS, INPORT, OUTPORT, VLAN_PRESENT, flag},
    reason::Reason,
    stats::total,
    topology::{GROUP_MIN, PORT_LOCAL, PORT_REMOTE, PORT_UNBOUND, Port, PortKey},
    verdict::{DELIVER, TUNNEL},
};

use crate::{
    cache, count, fanout,
    maps::{OX_CHASSIS, OX_PORTS},
    scratch::{EGRESS, Scratch, copy, fan, masked, phase},
    seen,
    skb::{self, Context},
    tunnel,
    walk::{decode, encode, enter_egress, last_copy, next_copy},
    writeback,
};

/// `output`: in ingress hand the packet to the outport, in egress deliver it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_output(skb: Context) -> i32 {
    encode(output(skb))
}

#[inline(always)]
fn output(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    if s.pipeline.get() == EGRESS {
        s.phase.set(phase::DELIVER);
        return Ok(0);
    }
    let outport = s.word[usize::from(OUTPORT)].get();
    if outport == 0 {
        return Err(Reason::NoOutport);
    }
    if outport >= GROUP_MIN {
        return fanout::begin(s, outport);
    }
    let port = lookup(s, outport)?;
    s.rest_on(port.guard);
    match port.kind {
        PORT_LOCAL => {
            if port.additional != 0 && s.tunnelled.get() == 0 && s.fan_active.get() == fan::NONE {
                // Live migration: the other chassis gets a copy, after the local one (which needs the bare frame). Not cached.
                s.cacheable.set(0);
                s.fan_active.set(fan::MIGRATION);
                s.send_chassis.set(port.additional);
                copy(&s.group, &s.word);
            }
            local(s, port)?;
            Ok(0)
        }
        PORT_REMOTE => {
            if s.tunnelled.get() != 0 {
                // What a tunnel brought is for us or for nobody: it is never tunnelled again.
                return Err(Reason::PortNotBound);
            }
            migrating(skb, s, port.additional, outport);
            s.send_chassis.set(port.chassis);
            s.phase.set(phase::REMOTE);
            Ok(0)
        }
        PORT_UNBOUND => Err(Reason::PortNotBound),
        _ => Err(Reason::PortNotServed),
    }
}

/// The entry. It may be replaced while the packet is on its way; then this is the one before.
#[inline(always)]
pub fn lookup(s: &Scratch, port: u32) -> Result<&'static Port, Reason> {
    let key = PortKey { datapath: s.datapath.get(), port };
    // SAFETY: map memory stays mapped while this runs and any bytes are a value; that it may become another key's is in DESIGN.md, Races.
    unsafe { OX_PORTS.get(&key) }.ok_or(Reason::PortUnknown)
}

/// Into the egress pipeline of a local port.
#[inline(always)]
pub fn local(s: &Scratch, port: &Port) -> Result<(), Reason> {
    s.out_ifindex.set(port.ifindex);
    s.out_vlan.set(if port.vlan == 0 { 0 } else { port.vlan & 0xfff | VLAN_PRESENT });
    enter_egress(s)
}

/// Live migration: the port's second chassis gets a copy, so the packet is not cached.
#[inline(always)]
fn migrating(skb: Context, s: &Scratch, additional: u32, outport: u32) {
    if additional == 0 {
        return;
    }
    s.cacheable.set(0);
    if let Err(reason) = tunnel_copy(skb, additional, outport) {
        count::rejected(skb, reason, s.base.get() + s.encapsulated.get());
    }
}

/// This copy goes to another chassis.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_remote(skb: Context) -> i32 {
    encode(remote(skb))
}

#[inline(always)]
fn remote(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let (chassis, outport) = (s.send_chassis.get(), s.word[usize::from(OUTPORT)].get());
    if !last_copy(s) {
        tunnel_copy(skb, chassis, outport)?;
        next_copy(s);
        return Ok(0);
    }
    if s.word[usize::from(FLAGS)].get() & (1 << flag::LOCAL_ONLY) != 0 {
        return Err(Reason::LocalOnly);
    }
    let guard = OX_CHASSIS.get(chassis).ok_or(Reason::Inconsistent)?.guard;
    s.rest_on(guard);
    let option = option(s, outport);
    if s.cacheable.get() != 0 {
        cache::remember(&cache::Outcome { kind: TUNNEL, ifindex: 0, chassis, option }, 0);
    }
    decode(writeback::ox_write_back(skb))?;
    let ifindex = decode(tunnel::ox_encapsulate(skb, chassis, s.datapath.get(), option))?;
    count::totals(total::TUNNEL_TX, skb::len(skb));
    seen::tunnelled(skb, chassis, s.encapsulated.get());
    s.action.set(skb::redirect(ifindex as u32));
    s.outputs.set(s.outputs.get() + 1);
    next_copy(s);
    Ok(0)
}

/// OVN's option: the logical ports.
#[inline(always)]
fn option(s: &Scratch, outport: u32) -> u32 {
    (s.word[usize::from(INPORT)].get() & 0x7fff) << 16 | outport & 0xffff
}

/// A copy goes to another chassis; the buffer keeps the outer headers until something else wants it.
#[inline(always)]
pub fn tunnel_copy(skb: Context, chassis: u32, outport: u32) -> Result<(), Reason> {
    decode(ox_tunnel_copy(skb, chassis, outport)).map(|_| ())
}

/// See [`tunnel_copy`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_tunnel_copy(skb: Context, chassis: u32, outport: u32) -> i32 {
    encode(send_copy(skb, chassis, outport))
}

#[inline(always)]
fn send_copy(skb: Context, chassis: u32, outport: u32) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    if s.word[usize::from(FLAGS)].get() & (1 << flag::LOCAL_ONLY) != 0 {
        return Err(Reason::LocalOnly);
    }
    if s.encapsulated.get() == 0 || writeback::pending() {
        decode(writeback::ox_write_back(skb))?;
    }
    let ifindex = decode(tunnel::ox_encapsulate(skb, chassis, s.datapath.get(), option(s, outport)))?;
    s.outputs.set(s.outputs.get() + 1);
    count::totals(total::TUNNEL_TX, skb::len(skb));
    seen::tunnelled(skb, chassis, s.encapsulated.get());
    skb::clone_redirect(skb, ifindex as u32)?;
    Ok(0)
}

/// Delivers this copy to its local device.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_deliver(skb: Context) -> i32 {
    encode(deliver(skb))
}

#[inline(always)]
fn deliver(skb: Context) -> Result<i32, Reason> {
    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    let (ifindex, vlan) = (s.out_ifindex.get(), s.out_vlan.get());
    let last = last_copy(s);
    if last && s.cacheable.get() != 0 && s.outputs.get() == 0 {
        cache::remember(&cache::Outcome { kind: DELIVER, ifindex, chassis: 0, option: 0 }, vlan);
    }
    // A nested port's tag takes the place of the packet's own one if that has none, and goes outside it otherwise.
    let tci = &s.word[masked::<63>(u32::from(ETH_TYPE))];
    let outside = vlan != 0 && tci.get() >> 16 != 0;
    if vlan != 0 && !outside {
        tci.set(tci.get() & 0xffff | vlan << 16);
    }
    decode(writeback::ox_write_back(skb))?;
    if outside {
        skb::push_vlan(skb, vlan)?;
    }
    count::totals(total::VIF_TX, skb::len(skb));
    seen::delivered(skb, ifindex);
    if last {
        s.action.set(skb::redirect(ifindex));
    } else {
        let sent = skb::clone_redirect(skb, ifindex);
        if outside {
            skb::pop_vlan(skb)?;
        }
        sent?;
    }
    s.outputs.set(s.outputs.get() + 1);
    next_copy(s);
    Ok(0)
}
