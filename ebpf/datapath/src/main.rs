//! Oxbow's kernel programs: the logical pipeline at every VIF and at the underlay. See DESIGN.md.
#![no_std]
#![no_main]
#![feature(core_intrinsics, asm_experimental_arch)]
#![expect(internal_features, reason = "this target has no stable atomics")]

mod advert;
mod cache;
mod classify;
mod count;
mod csum;
mod exact;
mod fanout;
mod fdb;
mod limit;
mod maps;
mod ops;
mod output;
mod scratch;
mod seen;
mod skb;
mod tunnel;
mod underlay;
mod vif;
mod walk;
mod writeback;

use aya_ebpf::{macros::classifier, programs::TcContext};

/// TC ingress of a VIF's tap or veth.
#[classifier]
fn oxbow_vif(ctx: TcContext) -> i32 {
    #[cfg(feature = "other-build")]
    // SAFETY: a static of this object, never written.
    let _ = unsafe { (&raw const OX_LAYOUT).read_volatile() };
    vif::receive(ctx.skb.skb)
}

/// TC ingress of an underlay device.
#[classifier]
fn oxbow_underlay(ctx: TcContext) -> i32 {
    underlay::receive(ctx.skb.skb)
}

/// Which layout of maps and programs this object is: user space looks before it loads.
#[unsafe(no_mangle)]
static OX_LAYOUT: u32 = oxbow_abi::LAYOUT;

/// The object's licence as the kernel reads it: helpers marked `gpl_only` need a GPL-compatible one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the build fails when the object keeps a path that leads here.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
