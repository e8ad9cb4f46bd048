//! The socket buffer: thin wrappers of the helpers, each with one meaning.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_clone_redirect, bpf_loop, bpf_redirect, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
        bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
};
use oxbow_abi::{field::VLAN_PRESENT, reason::Reason};
use oxbow_wire::frame::{Frame, Step, View};

use crate::scratch::masked;

/// The context of a program.
pub type Context = *mut __sk_buff;

/// The frame read through a helper: any offset, linear or not.
#[derive(Clone, Copy)]
pub struct Buffer(pub Context);

impl Frame for Buffer {
    type View<const N: usize> = [u8; N];

    #[inline(always)]
    fn view<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.load(offset)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        len(self.0)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0u8; N];
        // SAFETY: the helper checks offset and length against the packet and writes N bytes.
        let result = unsafe { bpf_skb_load_bytes(self.0.cast(), offset, (&raw mut bytes).cast(), N as u32) };
        (result == 0).then_some(bytes)
    }

    #[inline(always)]
    fn repeat<S: Step<Self>>(&self, limit: u32, state: &mut S) {
        let mut env = Loop { skb: self.0, state: &raw mut *state };
        // SAFETY: the callback has the signature the helper wants, and `env` and the state live until the loop is over.
        unsafe { bpf_loop(limit, step::<S> as *mut c_void, (&raw mut env).cast(), 0) };
    }
}

/// A loop over a frame, for the callback.
#[repr(C)]
struct Loop<S> {
    skb: Context,
    state: *mut S,
}

/// One step of a loop; 1 ends it.
unsafe extern "C" fn step<S: Step<Buffer>>(_index: u64, env: *mut c_void) -> i64 {
    // SAFETY: `env` is what `repeat` put on its stack.
    let env = unsafe { &mut *env.cast::<Loop<S>>() };
    // SAFETY: the state of `repeat`'s caller, who waits.
    let state = unsafe { &mut *env.state };
    i64::from(!state.step(&Buffer(env.skb)))
}

/// The linear part of the frame, read directly. Any helper that changes the packet makes it invalid; the verifier sees to that.
#[derive(Clone, Copy)]
pub struct Direct {
    data: usize,
    end: usize,
    len: u32,
}

impl Direct {
    /// The linear part, made at least `want` bytes long if the frame is that long.
    #[inline(always)]
    pub fn new(skb: Context, want: u32) -> Self {
        // SAFETY: the kernel passes a valid context; these are its fields.
        let (mut data, mut end, len) = unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
        let want = if len < want { len } else { want };
        if data + want as usize > end {
            // SAFETY: valid context. A failure leaves the frame as it was, and reads fail later.
            unsafe { bpf_skb_pull_data(skb, want) };
            // SAFETY: as above; the pointers have changed.
            (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
        }
        Self { data, end, len }
    }

    /// As [`Direct::new`] with `ipv4` if that is enough to see that IPv4 is inside (EtherType at `eth_type`), else with `other`.
    ///
    /// Making bytes linear costs as much as a look-up of the cache, and the stack's own super-packets, cut up, have nothing but their headers there.
    #[inline(always)]
    pub fn for_ip(skb: Context, eth_type: u32, ipv4: u32, other: u32) -> Self {
        let frame = Self::new(skb, ipv4);
        match frame.load::<2>(eth_type) {
            Some([0x08, 0x00]) => frame,
            _ => Self::new(skb, other),
        }
    }

    /// Overwrites the first twelve bytes: the Ethernet addresses.
    #[inline(always)]
    pub fn set_mac(&self, mac: &[u8; 12]) -> Option<()> {
        // The compiler concludes from an earlier window, which began anywhere behind `data`, that this comparison always holds; the verifier does not. So the
        // compiler is not told that this is `data`.
        let mut at = self.data;
        // SAFETY: one register, which keeps its value; no memory.
        unsafe { asm!("{0} += 0", inout(reg) at, options(pure, nomem, nostack)) };
        if at + 14 > self.end {
            return None;
        }
        let to = at as *mut u8;
        let mut n = 0;
        while n < 12 {
            // SAFETY: fourteen bytes are inside the linear part, as just compared.
            unsafe { *to.add(n) = mac[n] };
            n += 1;
        }
        Some(())
    }
}

impl Frame for Direct {
    type View<const N: usize> = Linear;

    #[inline(always)]
    fn view<const N: usize>(&self, offset: u32) -> Option<Linear> {
        let at = self.data + masked::<1023>(offset);
        (at + N <= self.end).then_some(Linear(at))
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = self.data + masked::<1023>(offset);
        if at + N > self.end {
            return None;
        }
        // SAFETY: N bytes at `at` are inside the linear part, as just compared; byte arrays have no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}

/// A window into the linear part.
#[derive(Clone, Copy)]
pub struct Linear(usize);

// Headers stand at any address, and the compiler, told so, would read them byte by byte; the kernel reads them whole (and its verifier knows on
// which machines it may). The window was checked when it was opened, and the verifier checks every one of these reads again.
impl View for Linear {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u32 {
        let value: u64;
        // SAFETY: inside the checked window.
        unsafe {
            asm!("{0} = *(u8 *)({1} + {2})", out(reg) value, in(reg) self.0, const AT, options(pure, readonly, nostack));
        }
        value as u32
    }

    #[inline(always)]
    fn half<const AT: usize>(&self) -> u32 {
        let value: u64;
        // SAFETY: inside the checked window.
        unsafe {
            asm!("{0} = *(u16 *)({1} + {2})", out(reg) value, in(reg) self.0, const AT, options(pure, readonly, nostack));
        }
        u32::from(u16::from_be(value as u16))
    }

    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        let value: u64;
        // SAFETY: inside the checked window.
        unsafe {
            asm!("{0} = *(u32 *)({1} + {2})", out(reg) value, in(reg) self.0, const AT, options(pure, readonly, nostack));
        }
        u32::from_be(value as u32)
    }
}

/// Length of the frame.
#[inline(always)]
pub fn len(skb: Context) -> u32 {
    // SAFETY: valid context.
    unsafe { (*skb).len }
}

/// Interface the frame came by.
#[inline(always)]
pub fn ifindex(skb: Context) -> u32 {
    // SAFETY: valid context.
    unsafe { (*skb).ifindex }
}

/// TCI of the tag that the device took out, with the present bit; 0 = none.
#[inline(always)]
pub fn tag(skb: Context) -> u32 {
    // SAFETY: valid context.
    unsafe { if (*skb).vlan_present == 0 { 0 } else { (*skb).vlan_tci & 0xffff | VLAN_PRESENT } }
}

/// The tag that the device took out as it stood in the frame: protocol << 16 | TCI with the DEI bit; 0 = none.
#[inline(always)]
pub fn whole_tag(skb: Context) -> u32 {
    // SAFETY: valid context.
    let (present, proto, tci) = unsafe { ((*skb).vlan_present, (*skb).vlan_proto as u16, (*skb).vlan_tci) };
    if present == 0 { 0 } else { u32::from(u16::from_be(proto)) << 16 | tci & 0xffff }
}

/// Puts a tag back on as [`whole_tag`] gave it.
#[inline(always)]
pub fn push_whole_tag(skb: Context, tag: u32) -> Result<(), Reason> {
    // SAFETY: valid context.
    if unsafe { bpf_skb_vlan_push(skb, ((tag >> 16) as u16).to_be(), tag as u16) } == 0 {
        Ok(())
    } else {
        Err(Reason::Rewrite)
    }
}

/// Ethernet type that the stack thinks the frame has, host order; 0x8100 while a tag is in the payload.
#[inline(always)]
pub fn protocol(skb: Context) -> u32 {
    // SAFETY: valid context.
    u32::from(u16::from_be(unsafe { (*skb).protocol } as u16))
}

/// Segment size of a super-packet, 0 = the frame is one packet.
#[inline(always)]
pub fn gso_size(skb: Context) -> u32 {
    // SAFETY: valid context.
    unsafe { (*skb).gso_size }
}

/// Overwrites bytes.
#[inline(always)]
pub fn store<const N: usize>(skb: Context, offset: u32, bytes: &[u8; N]) -> Result<(), Reason> {
    // SAFETY: the helper checks offset and length against the packet and reads N bytes.
    match unsafe { bpf_skb_store_bytes(skb.cast(), offset, (&raw const *bytes).cast(), N as u32, 0) } {
        0 => Ok(()),
        _ => Err(Reason::Rewrite),
    }
}

/// Takes the outermost tag off, wherever it is.
#[inline(always)]
pub fn pop_vlan(skb: Context) -> Result<(), Reason> {
    // SAFETY: valid context.
    if unsafe { bpf_skb_vlan_pop(skb) } == 0 { Ok(()) } else { Err(Reason::Rewrite) }
}

/// Puts a tag on (802.1Q).
#[inline(always)]
pub fn push_vlan(skb: Context, tci: u32) -> Result<(), Reason> {
    // SAFETY: valid context.
    if unsafe { bpf_skb_vlan_push(skb, 0x8100u16.to_be(), (tci & 0xefff) as u16) } == 0 {
        Ok(())
    } else {
        Err(Reason::Rewrite)
    }
}

/// The frame leaves by this device when the program returns.
#[inline(always)]
pub fn redirect(ifindex: u32) -> i32 {
    // SAFETY: no memory is passed. A device that is gone makes the kernel drop the frame.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// A copy of the frame leaves by this device now.
#[inline(always)]
pub fn clone_redirect(skb: Context, ifindex: u32) -> Result<(), Reason> {
    if crate::seen::dry() {
        return Ok(());
    }
    // SAFETY: valid context.
    if unsafe { bpf_clone_redirect(skb, ifindex, 0) } == 0 { Ok(()) } else { Err(Reason::OutputFailed) }
}
