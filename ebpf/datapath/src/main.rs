//! Oxbow's kernel programs.
#![no_std]
#![no_main]

mod maps;
mod scratch;

use aya_ebpf::{bindings::TC_ACT_SHOT, macros::classifier, programs::TcContext};
use maps::*;

/// TC ingress of a VIF.
#[classifier]
pub fn oxbow_vif(_ctx: TcContext) -> i32 {
    if OX_STATE.get_ptr_mut(0).is_none() { return 0 }
    TC_ACT_SHOT
}

/// TC ingress of an underlay device.
#[classifier]
pub fn oxbow_underlay(_ctx: TcContext) -> i32 {
    0
}

/// The loader refuses an object without it; the programs are dual-licensed so that GPL-only helpers may be called.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never in the object: the build fails when a panic path is left in it.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
