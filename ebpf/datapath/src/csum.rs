//! The outer UDP checksum (`ovn-encap-csum`).
//!
//! The inner transport checksum of a local sender may not be filled in yet (CHECKSUM_PARTIAL), and the sum over a TCP or UDP segment with its final
//! checksum is known without looking at it: the complement of its pseudo-header's sum. So for those only headers are summed (local checksum offload,
//! as the kernel's tunnels do), for everything else all bytes. Super-packets keep zero: every segment would need its own.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_csum_diff, bpf_loop, bpf_skb_load_bytes};
use oxbow_abi::reason::Reason;
use oxbow_wire::{
    checksum,
    frame::{Frame, be16},
    parse::{ETH_IPV4, ETH_IPV6, TCP, UDP},
};

use crate::{
    scratch::masked,
    skb::{self, Buffer, Context},
    walk::encode,
};

/// Bytes summed in a step.
const STEP: u32 = 64;

/// No sum: the frame ends before.
const NONE: u64 = u64::MAX;

/// A sum in progress: on the stack of the caller, for the callback.
#[repr(C)]
struct Sum {
    skb: Context,
    at: u32,
    end: u32,
    /// In the CPU's order, as the helper has it.
    sum: u32,
    failed: u32,
}

/// Computes the outer UDP checksum and stores it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_outer_checksum(skb: Context, family: u32) -> i32 {
    encode(outer(skb, family))
}

#[inline(always)]
fn outer(skb: Context, family: u32) -> Result<i32, Reason> {
    let udp = if family == 6 { 54 } else { 34 };
    let len = skb::len(skb);
    let mut sum = u64::from(len - udp) + u64::from(UDP as u8);
    sum += if family == 6 { sum_of::<8>(skb, 22) & 0xffff } else { sum_of::<2>(skb, 26) & 0xffff };
    // The field itself is zero in the buffer.
    let part = ox_covered(skb, udp);
    let (end, rest) = ((part >> 16) as u32 & 0x1f_ffff, part as u16);
    if end < udp {
        return Err(Reason::Rewrite);
    }
    sum += u64::from(rest);
    let mut part = Sum { skb, at: udp, end, sum: 0, failed: 0 };
    // SAFETY: the callback has the signature the helper wants, and `part` lives until the loop is over.
    unsafe { bpf_loop(1 + (end - udp) / STEP, step as *mut c_void, (&raw mut part).cast(), 0) };
    if part.failed != 0 {
        return Err(Reason::Rewrite);
    }
    sum += u64::from(checksum::fold(u64::from(part.sum)).swap_bytes());
    let value = match !checksum::fold(sum) {
        // Zero means "none" on the wire.
        0 => 0xffff,
        value => value,
    };
    skb::store(skb, udp + 6, &value.to_be_bytes())?;
    Ok(0)
}

/// See [`covered`]: the end above bit 16, the sum below.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ox_covered(skb: Context, udp: u32) -> u64 {
    let (end, rest) = covered(skb, udp);
    u64::from(end) << 16 | u64::from(rest)
}

/// Up to where bytes must be summed, and the sum of the rest.
#[inline(always)]
fn covered(skb: Context, udp: u32) -> (u32, u16) {
    let all = (skb::len(skb), 0);
    let frame = Buffer(skb);
    // The inner frame begins behind UDP and Geneve with one option, or VXLAN.
    let Some([p0, p1]) = frame.load::<2>(udp + 2) else { return all };
    let inner = udp + 8 + if be16(p0, p1) == 4789 { 8 } else { 16 };
    let Some([t0, t1]) = frame.load::<2>(inner + 12) else { return all };
    let l3 = inner + 14;
    let (protocol, l4, total, addresses) = match be16(t0, t1) {
        ETH_IPV4 => {
            // One after the other: matched as one tuple, the compiler reads the bytes of those that are `None`, and Linux before 6.3 refuses to
            // read a stack slot that was never written.
            let Some([first, _, n0, n1]) = frame.load::<4>(l3) else { return all };
            let Some([f0, f1]) = frame.load::<2>(l3 + 6) else { return all };
            let Some([protocol]) = frame.load::<1>(l3 + 9) else { return all };
            if first != 0x45 || be16(f0, f1) & 0x3fff != 0 {
                return all;
            }
            (u32::from(protocol), l3 + 20, be16(n0, n1), sum_of::<2>(skb, l3 + 12))
        }
        ETH_IPV6 => {
            let Some([n0, n1, protocol]) = frame.load::<3>(l3 + 4) else { return all };
            (u32::from(protocol), l3 + 40, be16(n0, n1) + 40, sum_of::<8>(skb, l3 + 8))
        }
        _ => return all,
    };
    let place = match protocol {
        TCP => l4 + 16,
        UDP => l4 + 6,
        _ => return all,
    };
    // A frame with padding behind the IP packet is summed in full (it came from somewhere else, checksum and all).
    if l3 + total != skb::len(skb) || total < l4 - l3 {
        return all;
    }
    match frame.load::<2>(place) {
        Some(field) if protocol == TCP || field != [0, 0] => {}
        _ => return all,
    }
    if addresses == NONE {
        return all;
    }
    let length = total - (l4 - l3);
    let pseudo = checksum::fold(addresses + u64::from(protocol) + u64::from(length));
    (l4, !pseudo)
}

/// Sum of `N` words of 32 bits, or [`NONE`]. (Not an `Option`: the compiler would leave the number of `None` uninitialised in a register that it copies, and
/// the verifier refuses to copy it.)
#[inline(always)]
fn sum_of<const N: usize>(skb: Context, offset: u32) -> u64 {
    let mut words = [0u32; N];
    let bytes = N as u32 * 4;
    // SAFETY: the array has that many bytes; the helper checks them against the packet.
    if unsafe { bpf_skb_load_bytes(skb.cast(), offset, (&raw mut words).cast(), bytes) } != 0 {
        return NONE;
    }
    // SAFETY: as above.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, words.as_mut_ptr(), bytes, 0) } as u32;
    u64::from(checksum::fold(u64::from(sum)).swap_bytes())
}

/// One step of the sum; 1 ends it.
unsafe extern "C" fn step(_index: u64, env: *mut c_void) -> i64 {
    // SAFETY: `env` is the sum on the caller's stack.
    let part = unsafe { &mut *env.cast::<Sum>() };
    let left = part.end.wrapping_sub(part.at);
    if left == 0 || left > 1 << 20 {
        return 1;
    }
    let mut bytes = [0u32; STEP as usize / 4];
    let n = if left < STEP { left } else { STEP };
    let n = masked::<{ STEP as i32 - 1 }>(n - 1) + 1;
    // SAFETY: n bytes are inside the array; the helper checks them against the packet.
    if unsafe { bpf_skb_load_bytes(part.skb.cast(), part.at, (&raw mut bytes).cast(), n as u32) } != 0 {
        part.failed = 1;
        return 1;
    }
    // SAFETY: the whole array, zero behind the bytes.
    part.sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_mut_ptr(), STEP, part.sum) } as u32;
    part.at += n as u32;
    0
}
