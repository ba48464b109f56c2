//! The internet checksum (RFC 1071), for whole packets at the speed of memory.

use std::net::IpAddr;

/// Adds up octets as words of 16 bits. The sum is not folded, and stands for as much as 2^48 words.
#[must_use]
#[inline]
pub fn sum(octets: &[u8]) -> u64 {
    // Words of 32 bits add up to the same; in the machine's own order, and turned round at the end.
    let (words, rest) = octets.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be_bytes(fold(total).to_ne_bytes()))
}

/// Folds a sum to 16 bits.
#[must_use]
#[inline]
pub const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Within range, by the loop.
    #[allow(clippy::cast_possible_truncation)]
    let folded = sum as u16;
    folded
}

/// The sum of the pseudo header of TCP, UDP or `ICMPv6`, not folded.
#[must_use]
#[inline]
pub fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> u64 {
    let ends = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        (IpAddr::V6(src), IpAddr::V6(dst)) => sum(&src.octets()) + sum(&dst.octets()),
        // No packet has ends of two families.
        _ => 0,
    };
    ends + u64::from(protocol) + u64::try_from(len).unwrap_or_default()
}

/// The checksum of what adds up to `sum`.
#[must_use]
#[inline]
pub const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_sum_word_by_word(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let slow: u64 = octets
                .chunks(2)
                .map(|pair| u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
                .sum();
            // Zero and all ones are the same number there.
            prop_assert_eq!(fold(sum(&octets)) % 0xffff, fold(slow) % 0xffff);
        }
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
    }
}
