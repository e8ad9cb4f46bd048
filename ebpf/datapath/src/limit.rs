//! Token buckets of ports.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use oxbow_abi::stats::Bucket;

use crate::maps::OX_BUCKETS;

/// Bit of the key: the port's bucket of newly learned addresses; without it that of its broadcast, unknown and multicast packets.
pub const FDB: u64 = 1 << 63;

/// Takes one token; `false` = there is none. `rate` is tokens per second, `burst` the size of the bucket.
///
/// The bucket is read and written without a lock: two CPUs may spend the same token, so a port that sends on n CPUs at the same instant
/// may get n packets for one. An evicted bucket is a full one.
#[inline(always)]
pub fn take(kind: u64, datapath: u32, port: u32, rate: u32, burst: u32) -> bool {
    let key = kind | u64::from(datapath) << 32 | u64::from(port);
    // SAFETY: no memory is passed.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let full = u64::from(if burst == 0 { 1 } else { burst }) * 1000;
    if let Some(bucket) = OX_BUCKETS.get_ptr_mut(key) {
        // SAFETY: an LRU entry stays readable and writable memory; reused by another port it gives that port a wrong level once.
        unsafe {
            let mut passed = now.wrapping_sub((*bucket).at);
            // More than 16 s fills any bucket worth having, and keeps the product inside 64 bits.
            if passed > 16_000_000_000 {
                passed = 16_000_000_000;
            }
            let mut tokens = (*bucket).tokens + passed * u64::from(rate) / 1_000_000;
            if tokens > full {
                tokens = full;
            }
            (*bucket).at = now;
            if tokens < 1000 {
                (*bucket).tokens = tokens;
                return false;
            }
            (*bucket).tokens = tokens - 1000;
        }
        return true;
    }
    // A failure leaves the port unlimited for this packet.
    let _ = OX_BUCKETS.insert(key, Bucket { tokens: full - 1000, at: now }, 0);
    true
}
