//! How a page is laid out: its header, its items and what the meta pages say.
//!
//! Nothing here trusts a length or a position. The items of a page must lie one behind the other, as
//! bbolt writes them, so that what a page yields is never more than the page.

use super::PageFault;

/// The size of the pages that we write; others are read.
pub(crate) const PAGE_BYTES: usize = 4_096;
pub(super) const HEADER: usize = 16;
/// Of a leaf's element as well as of a branch's.
pub(super) const ELEMENT: usize = 16;
/// The root page and the sequence before an inline bucket's page.
pub(super) const BUCKET_HEADER: usize = 16;
/// An item of a leaf whose value is a bucket.
pub(super) const BUCKET_FLAG: u32 = 0x1;
/// Where no freelist is kept (bbolt: `pgidNoFreelist`).
const NO_FREELIST: u64 = u64::MAX;

/// What a page is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Branch,
    Leaf,
    Meta,
}

impl Kind {
    const fn flags(self) -> u16 {
        match self {
            Self::Branch => 0x1,
            Self::Leaf => 0x2,
            Self::Meta => 0x4,
        }
    }

    /// Returns `None` for a freelist as well: no tree leads to one.
    fn of(flags: u16) -> Option<Self> {
        [Self::Branch, Self::Leaf, Self::Meta].into_iter().find(|kind| kind.flags() == flags)
    }
}

/// What stands before every page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: u64,
    pub(super) kind: Kind,
    pub(super) items: u16,
    /// How many pages follow that belong to this one.
    pub(super) overflow: u32,
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let (id, rest) = bytes.split_at_mut(8);
        let (flags, rest) = rest.split_at_mut(2);
        let (items, overflow) = rest.split_at_mut(2);
        id.copy_from_slice(&self.id.to_le_bytes());
        flags.copy_from_slice(&self.kind.flags().to_le_bytes());
        items.copy_from_slice(&self.items.to_le_bytes());
        overflow.copy_from_slice(&self.overflow.to_le_bytes());
        bytes
    }

    pub(super) fn decode(page: &[u8]) -> Result<Self, PageFault> {
        let fields = (u64_at(page, 0), u16_at(page, 8), u16_at(page, 10), u32_at(page, 12));
        let (Some(id), Some(flags), Some(items), Some(overflow)) = fields else {
            return Err(PageFault::Items);
        };
        let kind = Kind::of(flags).ok_or(PageFault::Kind)?;
        Ok(Self { id, kind, items, overflow })
    }
}

/// One side of the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) page_bytes: u32,
    /// The page where the bucket of buckets begins.
    pub(super) root: u64,
    /// How many pages there are.
    pub(super) pages: u64,
    pub(super) txid: u64,
}

impl Meta {
    /// Returns the whole page of `PAGE_BYTES`.
    pub(super) fn encode(self, id: u64) -> Vec<u8> {
        let mut page = Header { id, kind: Kind::Meta, items: 0, overflow: 0 }.encode().to_vec();
        for half in [MAGIC, VERSION, self.page_bytes, 0] {
            page.extend(half.to_le_bytes());
        }
        for number in [self.root, 0, NO_FREELIST, self.pages, self.txid] {
            page.extend(number.to_le_bytes());
        }
        let sum = page.get(HEADER..).map_or(0, fnv1a);
        page.extend(sum.to_le_bytes());
        page.resize(PAGE_BYTES, 0);
        page
    }

    /// Returns `None` for what is not a meta page, or one that was half written.
    pub(super) fn decode(page: &[u8]) -> Option<Self> {
        let meta = page.get(HEADER..)?;
        let whole = u64_at(meta, META_SUMMED)? == fnv1a(meta.get(..META_SUMMED)?);
        let ours = u32_at(meta, 0)? == MAGIC && u32_at(meta, 4)? == VERSION;
        let page_bytes = u32_at(meta, 8)?;
        let sane = page_bytes.is_power_of_two() && PAGE_SIZES.contains(&page_bytes);
        (whole && ours && sane).then_some(Self {
            page_bytes,
            root: u64_at(meta, 16)?,
            pages: u64_at(meta, 40)?,
            txid: u64_at(meta, 48)?,
        })
    }
}

/// What a meta page takes of its page.
pub(super) const META_END: usize = HEADER + META_SUMMED + 8;
const META_SUMMED: usize = 56;
const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;
/// Page sizes that machines have, and some more.
pub(super) const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1_024..=65_536;

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// An item of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeafItem<'a> {
    pub(super) flags: u32,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The items of one page (with all that overflowed), from the first to the last.
#[derive(Debug)]
pub(super) struct Items<'a> {
    page: &'a [u8],
    count: usize,
    next: usize,
    /// Where the next key may begin at the earliest.
    free: usize,
}

impl<'a> Items<'a> {
    pub(super) fn new(page: &'a [u8], items: u16) -> Result<Self, PageFault> {
        let count = usize::from(items);
        let free = HEADER + count * ELEMENT;
        if free > page.len() {
            return Err(PageFault::Items);
        }
        Ok(Self { page, count, next: 0, free })
    }

    pub(super) fn leaf_item(&mut self) -> Result<Option<LeafItem<'a>>, PageFault> {
        let Some(at) = self.element() else { return Ok(None) };
        let [flags, from, key, value] = self.numbers(at)?;
        let key = self.take(at, from, key)?;
        let value = self.take(at, from.saturating_add(length(key)), value)?;
        Ok(Some(LeafItem { flags, key, value }))
    }

    /// Returns the first key of a page below, and the page.
    pub(super) fn branch_item(&mut self) -> Result<Option<(&'a [u8], u64)>, PageFault> {
        let Some(at) = self.element() else { return Ok(None) };
        let [from, key, _, _] = self.numbers(at)?;
        let page = u64_at(self.page, at + 8).ok_or(PageFault::Items)?;
        Ok(Some((self.take(at, from, key)?, page)))
    }

    fn element(&mut self) -> Option<usize> {
        let at = HEADER + self.next * ELEMENT;
        self.next += 1;
        (self.next <= self.count).then_some(at)
    }

    fn numbers(&self, at: usize) -> Result<[u32; 4], PageFault> {
        let number = |nth: usize| u32_at(self.page, at + nth * 4).ok_or(PageFault::Items);
        Ok([number(0)?, number(1)?, number(2)?, number(3)?])
    }

    /// Returns what begins `from` bytes after the element at `at`, behind all that was taken before.
    fn take(&mut self, at: usize, from: u32, bytes: u32) -> Result<&'a [u8], PageFault> {
        let start = usize::try_from(from).ok().and_then(|from| at.checked_add(from));
        let bytes = usize::try_from(bytes).ok();
        let span =
            start.zip(bytes).and_then(|(start, bytes)| Some((start, start.checked_add(bytes)?)));
        let (start, end) = span.filter(|(start, _)| *start >= self.free).ok_or(PageFault::Items)?;
        self.free = end;
        self.page.get(start..end).ok_or(PageFault::Items)
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_its_authors() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_meta_page_with_any_byte_changed_is_none() {
        let meta = Meta { page_bytes: 4_096, root: 3, pages: 9, txid: 7 };
        let page = meta.encode(1);
        assert_eq!(Meta::decode(&page), Some(meta));
        for at in HEADER..META_END {
            let mut page = page.clone();
            page[at] ^= 0x10;
            assert_eq!(Meta::decode(&page), None, "byte {at}");
        }
    }

    #[test]
    fn items_that_share_bytes_are_refused() {
        let mut page = Header { id: 2, kind: Kind::Leaf, items: 2, overflow: 0 }.encode().to_vec();
        for (from, key) in [(32_u32, 4_u32), (16, 4)] {
            page.extend([0, from, key, 0].iter().flat_map(|number| number.to_le_bytes()));
        }
        page.extend(b"keys");
        let mut items = Items::new(&page, 2).unwrap();
        assert_eq!(items.leaf_item().unwrap().unwrap().key, b"keys");
        assert_eq!(items.leaf_item(), Err(PageFault::Items));
    }
}
