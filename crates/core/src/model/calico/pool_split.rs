//! A pool cut into equal pieces.

use russet_net::Prefix;

use super::BlockLen;

/// Why a pool cannot be cut so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitFault {
    #[error("{0} pieces are not a power of two from 2 on; use {1}")]
    Count(u64, u64),
    #[error("{pieces} pieces of {cidr} are /{len}, smaller than a block of /{}; at most {most} fit", block.get())]
    SmallerThanBlock { pieces: u64, cidr: Prefix, len: u32, block: BlockLen, most: u64 },
    #[error("{pieces} pieces are more than {most} at once; split the pieces again")]
    TooMany { pieces: u64, most: u64 },
}

/// All are written in one transaction, and etcd takes 128 operations.
const MOST_PIECES: u64 = 64;

/// The pieces, in the order of their addresses.
///
/// # Errors
///
/// When there is no such number of pieces, or each would be smaller than a block.
pub fn split(cidr: Prefix, block: BlockLen, pieces: u64) -> Result<Vec<Prefix>, SplitFault> {
    if pieces < 2 || !pieces.is_power_of_two() {
        let near = pieces.clamp(2, MOST_PIECES).next_power_of_two();
        return Err(SplitFault::Count(pieces, near));
    }
    let bits = pieces.trailing_zeros();
    let len = u32::from(cidr.len()) + bits;
    if len > u32::from(block.get()) {
        let room = u32::from(block.get().saturating_sub(cidr.len()));
        let most = 1_u64.checked_shl(room).unwrap_or(u64::MAX);
        return Err(SplitFault::SmallerThanBlock { pieces, cidr, len, block, most });
    }
    if pieces > MOST_PIECES {
        return Err(SplitFault::TooMany { pieces, most: MOST_PIECES });
    }
    // Checked right above: no longer than a block's length, and at least one bit is left of the addresses.
    let len = u8::try_from(len).unwrap_or(u8::MAX);
    let width = u32::from(cidr.family().bits()) - u32::from(len);
    let piece = |i: u64| Prefix::around(cidr.nth(u128::from(i) << width)?, len).ok();
    Ok((0..pieces).filter_map(piece).collect())
}

#[cfg(test)]
mod tests {
    use russet_net::Family;

    use super::*;

    #[test]
    fn pieces_are_equal_and_fill_the_pool() {
        let shown = |cidr: &str, n| {
            let cidr: Prefix = cidr.parse().unwrap();
            let pieces = split(cidr, BlockLen::usual(cidr.family()), n).unwrap();
            pieces.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown("10.0.0.0/16", 2), ["10.0.0.0/17", "10.0.128.0/17"]);
        assert_eq!(shown("10.0.0.0/25", 2), ["10.0.0.0/26", "10.0.0.64/26"]);
        assert_eq!(shown("fd00::/48", 2), ["fd00::/49", "fd00:0:0:8000::/49"]);
        assert_eq!(shown("10.0.0.0/8", 64).len(), 64);
    }

    #[test]
    fn what_cannot_be_cut_is_refused_with_what_can() {
        let cidr = "10.0.0.0/24".parse().unwrap();
        let told = |n| split(cidr, BlockLen::usual(Family::V4), n).unwrap_err().to_string();
        for n in [0, 1, 3, 6, u64::MAX] {
            assert!(told(n).contains("not a power of two"), "{}", told(n));
        }
        assert!(told(3).contains("use 4"));
        assert!(told(8).contains("at most 4 fit"), "{}", told(8));
        assert!(told(1 << 63).contains("at most 4 fit"));
        let wide = "10.0.0.0/8".parse().unwrap();
        let told = split(wide, BlockLen::usual(Family::V4), 128).unwrap_err().to_string();
        assert!(told.contains("more than 64"), "{told}");
    }
}
