//! TC ingress of an underlay device: Geneve to one of our addresses from a known chassis is ours, everything else is the host's.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use oxbow_abi::{
    field::{FLAGS, INPORT, OUTPORT, flag},
    reason::Reason,
    stats::total,
    topology::{Address, PeerKey},
    verdict::{KEY_TUNNEL, VerdictKey},
};
use oxbow_wire::{key, tunnel};

use crate::{
    cache, count,
    maps::{OX_PEERS, OX_STATE},
    scratch::Scratch,
    skb::{self, Context, Direct},
    vif::{Origin, clear, empty_key},
    walk,
};

/// Bytes of headers wanted in linear memory: outer IPv6, Geneve with an option, inner Ethernet with a tag, IPv6 and ports.
const HEADERS: u32 = 14 + 40 + 8 + 16 + 14 + 4 + 40 + 4;

/// Handles one frame.
#[inline(always)]
pub fn receive(skb: Context) -> i32 {
    let mut origin = Origin::default();
    match try_receive(skb, &mut origin) {
        Ok(action) => action,
        Err(reason) => count::dropped(skb, reason, origin.lflow, origin.datapath, origin.inport),
    }
}

#[inline(always)]
fn try_receive(skb: Context, origin: &mut Origin) -> Result<i32, Reason> {
    let frame = Direct::new(skb, HEADERS);
    let pass = || {
        count::totals(total::UNDERLAY_PASS, skb::len(skb));
        // Other programs on the device, and then the host.
        Ok(TC_ACT_UNSPEC)
    };
    if skb::tag(skb) != 0 {
        return pass();
    }
    let Some(path) = tunnel::path(&frame) else { return pass() };
    let peer = PeerKey { local: path.local, remote: path.remote };
    // SAFETY: a hash without preallocation: the value is not reused before this packet is done.
    if unsafe { OX_PEERS.get(&peer) }.is_none() {
        let ours = PeerKey { local: path.local, remote: Address { bytes: [0; 16], family: 0 } };
        // SAFETY: as above.
        return if unsafe { OX_PEERS.get(&ours) }.is_some() { Err(Reason::UnknownPeer) } else { pass() };
    }
    let state = OX_STATE.get_ptr(0).ok_or(Reason::NoPolicy)?;
    // SAFETY: an aligned word that user space writes whole; the one read decides for the whole packet.
    let version = unsafe { (&raw const (*state).version).read_volatile() };
    if version == 0 {
        return Err(Reason::NoPolicy);
    }
    let geneve = tunnel::geneve(&frame, path.geneve)?;
    count::totals(total::TUNNEL_RX, skb::len(skb));
    let (inport, outport) = (geneve.option >> 16, geneve.option & 0xffff);
    (origin.datapath, origin.inport) = (geneve.vni, inport);

    let s = Scratch::get().ok_or(Reason::Inconsistent)?;
    // SAFETY: the slot belongs to this CPU and no other reference to this field is alive.
    let key = unsafe { &mut *s.key.as_ptr() };
    *key = VerdictKey { datapath: geneve.vni | KEY_TUNNEL, ports: inport | outport << 16, ..empty_key() };
    let quick = key::of_frame(&frame, geneve.inner, 0, key);
    if quick.is_some() {
        if let Some(result) = cache::forward(skb, key, &frame, geneve.inner) {
            return result;
        }
        if let Some(denial) = cache::deny(skb, key) {
            origin.lflow = denial.lflow;
            return Err(denial.reason);
        }
    }
    clear(s);
    s.word[usize::from(INPORT)].set(inport);
    s.word[usize::from(OUTPORT)].set(outport);
    s.word[usize::from(FLAGS)].set(1 << flag::TUNNEL_RX);
    s.version.set(version);
    s.datapath.set(geneve.vni);
    s.base.set(geneve.inner);
    s.tunnelled.set(1);
    s.nested.set(0);
    s.cacheable.set(u32::from(quick.is_some()));
    walk::enter(skb)
}
