//! Reads a database that may be of anybody's making.
//!
//! Every page is used at most once and lies within the file, and what a page yields lies within it
//! without overlap, so neither time nor memory can exceed what the file's own length allows. Keys must
//! ascend through the whole of a bucket: that is what makes the tree one that bbolt itself can search.

use std::io::{Read, Seek, SeekFrom};

use super::{
    BoltError, PageFault,
    page::{BUCKET_FLAG, BUCKET_HEADER, Header, Items, Kind, META_END, Meta, PAGE_SIZES, u64_at},
};

/// A database file that is open for reading once through.
#[derive(Debug)]
pub(crate) struct Database<R> {
    file: R,
    meta: Meta,
    /// Which pages a tree led to already.
    used: Vec<bool>,
}

/// A bucket that was found in the bucket of buckets.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) name: Vec<u8>,
    root: Root,
}

#[derive(Debug)]
enum Root {
    /// The page that follows the bucket's header, and the page in which both are.
    Inline(Vec<u8>, u64),
    Page(u64),
}

/// A page with all that overflowed.
struct Page {
    id: u64,
    header: Header,
    bytes: Vec<u8>,
}

impl<R: Read + Seek> Database<R> {
    /// Opens the first `bytes` bytes of a file.
    pub(crate) fn open(mut file: R, bytes: u64) -> Result<Self, BoltError> {
        let meta = newest_meta(&mut file, bytes)?.ok_or(BoltError::NotBolt)?;
        let wanted = meta.pages.saturating_mul(u64::from(meta.page_bytes));
        if wanted > bytes {
            return Err(BoltError::Cut { bytes, wanted });
        }
        let pages = usize::try_from(meta.pages).map_err(|_| BoltError::TooLarge)?;
        Ok(Self { file, meta, used: vec![false; pages] })
    }

    /// Returns how much of the file is the database.
    pub(crate) fn bytes(&self) -> u64 {
        self.meta.pages.saturating_mul(u64::from(self.meta.page_bytes))
    }

    /// Returns every bucket, sorted by name.
    pub(crate) fn buckets(&mut self) -> Result<Vec<Bucket>, BoltError> {
        let mut found = Vec::new();
        let mut last = None;
        self.tree(self.meta.root, 0, &mut |page| {
            leaf(&page.bytes, page.header, page.id, &mut last, &mut |flags, name, value| {
                let root = root(flags, value, page.id).map_err(at(page.id))?;
                found.push(Bucket { name: name.to_vec(), root });
                Ok::<_, BoltError>(())
            })
        })?;
        Ok(found)
    }

    /// Shows every key of a bucket with its value, in order.
    pub(crate) fn items<E: From<BoltError>>(
        &mut self,
        bucket: &Bucket,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut last = None;
        let mut leaf = |bytes: &[u8], header: Header, id: u64| {
            leaf(bytes, header, id, &mut last, &mut |flags, key, value| {
                // etcd has buckets only at the top.
                if flags != 0 {
                    return Err(at(id)(PageFault::Kind).into());
                }
                visit(key, value)
            })
        };
        match &bucket.root {
            Root::Inline(page, id) => {
                let header = Header::decode(page).map_err(at(*id))?;
                if header.kind != Kind::Leaf {
                    return Err(at(*id)(PageFault::Kind).into());
                }
                leaf(page, header, *id)
            }
            Root::Page(id) => {
                self.tree(*id, 0, &mut |page| leaf(&page.bytes, page.header, page.id))
            }
        }
    }

    /// Shows every leaf of a tree, from the left to the right.
    fn tree<E: From<BoltError>>(
        &mut self,
        id: u64,
        depth: usize,
        visit: &mut impl FnMut(&Page) -> Result<(), E>,
    ) -> Result<(), E> {
        let page = self.page(id)?;
        match page.header.kind {
            Kind::Leaf => visit(&page),
            Kind::Branch if depth < MAX_DEPTH && page.header.items > 0 => {
                let mut items = Items::new(&page.bytes, page.header.items).map_err(at(id))?;
                while let Some((_, below)) = items.branch_item().map_err(at(id))? {
                    self.tree(below, depth + 1, visit)?;
                }
                Ok(())
            }
            Kind::Branch if depth < MAX_DEPTH => Err(at(id)(PageFault::Items).into()),
            Kind::Branch => Err(at(id)(PageFault::TooDeep).into()),
            Kind::Meta => Err(at(id)(PageFault::Kind).into()),
        }
    }

    fn page(&mut self, id: u64) -> Result<Page, BoltError> {
        self.claim(id, 1)?;
        let page_bytes = u64::from(self.meta.page_bytes);
        // Within the file, as `claim` saw.
        self.file.seek(SeekFrom::Start(id * page_bytes))?;
        let mut bytes = Vec::new();
        self.read(page_bytes, &mut bytes)?;
        let header = Header::decode(&bytes).map_err(at(id))?;
        if header.id != id {
            return Err(at(id)(PageFault::Misplaced));
        }
        let overflow = u64::from(header.overflow);
        self.claim(id + 1, overflow)?;
        self.read(overflow * page_bytes, &mut bytes)?;
        Ok(Page { id, header, bytes })
    }

    fn read(&mut self, wanted: u64, bytes: &mut Vec<u8>) -> Result<(), BoltError> {
        let read = self.file.by_ref().take(wanted).read_to_end(bytes)?;
        if read as u64 == wanted {
            Ok(())
        } else {
            Err(BoltError::Cut { bytes: read as u64, wanted })
        }
    }

    /// Marks pages as used, unless they are, or there are none such.
    fn claim(&mut self, first: u64, count: u64) -> Result<(), BoltError> {
        let bound = |id: u64| usize::try_from(id).ok();
        let span = bound(first).zip(first.checked_add(count).and_then(bound));
        let pages = span.filter(|_| first > 1).and_then(|(from, to)| self.used.get_mut(from..to));
        let pages = pages.ok_or_else(|| at(first)(PageFault::OutOfBounds))?;
        if pages.contains(&true) {
            return Err(at(first)(PageFault::UsedTwice));
        }
        pages.fill(true);
        Ok(())
    }
}

/// Shows the items of one leaf; `last` is the key before, through all the leaves of a bucket.
fn leaf<E: From<BoltError>>(
    bytes: &[u8],
    header: Header,
    id: u64,
    last: &mut Option<Vec<u8>>,
    visit: &mut impl FnMut(u32, &[u8], &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut items = Items::new(bytes, header.items).map_err(at(id))?;
    while let Some(item) = items.leaf_item().map_err(at(id))? {
        if last.as_deref().is_some_and(|last| last >= item.key) {
            return Err(at(id)(PageFault::Order).into());
        }
        let last = last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(item.key);
        visit(item.flags, item.key, item.value)?;
    }
    Ok(())
}

fn root(flags: u32, value: &[u8], page: u64) -> Result<Root, PageFault> {
    if flags != BUCKET_FLAG {
        return Err(PageFault::Kind);
    }
    let inline = value.get(BUCKET_HEADER..).ok_or(PageFault::Items)?;
    match u64_at(value, 0) {
        Some(0) => Ok(Root::Inline(inline.to_vec(), page)),
        Some(id) => Ok(Root::Page(id)),
        None => Err(PageFault::Items),
    }
}

/// Returns the valid meta page of the newest transaction.
fn newest_meta(file: &mut (impl Read + Seek), bytes: u64) -> Result<Option<Meta>, BoltError> {
    let mut newest = meta_at(file, 0, bytes)?;
    // Where the second is depends on the size of a page, which only the first says; if it does not,
    // every size is tried.
    let sizes = (0..=6).map(|shift| PAGE_SIZES.start() << shift);
    for size in sizes
        .filter(|size| newest.is_none_or(|first| first.page_bytes == *size))
        .collect::<Vec<_>>()
    {
        let second = meta_at(file, u64::from(size), bytes)?;
        let second = second.filter(|second| second.page_bytes == size);
        newest = [newest, second].into_iter().flatten().max_by_key(|meta| meta.txid);
    }
    Ok(newest)
}

fn meta_at(
    file: &mut (impl Read + Seek),
    from: u64,
    bytes: u64,
) -> Result<Option<Meta>, BoltError> {
    let mut page = Vec::with_capacity(META_END);
    file.seek(SeekFrom::Start(from))?;
    let wanted = (META_END as u64).min(bytes.saturating_sub(from));
    file.take(wanted).read_to_end(&mut page)?;
    Ok(Meta::decode(&page))
}

/// Says of which page a fault is.
fn at(page: u64) -> impl Fn(PageFault) -> BoltError {
    move |fault| BoltError::Page { page, fault }
}

/// A tree of this depth, with two items in each branch, is larger than any disk.
const MAX_DEPTH: usize = 48;
