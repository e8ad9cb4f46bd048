//! The Internet checksum (RFC 1071), over numbers in network order.

/// Folds a sum of 16-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The 16-bit words of a number, summed.
#[inline(always)]
pub const fn words(n: u32) -> u64 {
    (n >> 16) as u64 + (n & 0xffff) as u64
}

/// Sum of a byte string of even length.
#[inline(always)]
pub fn sum<const N: usize>(bytes: &[u8; N]) -> u64 {
    bytes.chunks_exact(2).fold(0, |sum, pair| match pair {
        [a, b] => sum + u64::from(*a) * 256 + u64::from(*b),
        _ => sum,
    })
}
