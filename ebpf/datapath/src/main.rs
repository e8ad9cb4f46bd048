//! Oxbow's eBPF programs: one object for all kernels.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::TC_ACT_SHOT, macros::classifier, programs::TcContext};

/// An attached but unprogrammed device passes nothing.
#[classifier]
pub fn oxbow_vif_ingress(_skb: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// The object's licence as the kernel reads it: helpers marked `gpl_only` need a GPL-compatible one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the build fails when the object keeps a path that leads here.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
