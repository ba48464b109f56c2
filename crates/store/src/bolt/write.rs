//! Writes a database from sorted items, from its first byte to its last.
//!
//! A leaf is written when it is full; of what is written only the first key and number of each page are
//! remembered, for the branches above. The meta pages come first but say where the root is and how many
//! pages there are, so the whole is laid out once into nothing and then written: what is written twice
//! need not be the same *moment* but must be the same *contents*.

use std::io::{self, Write};

use super::{
    BoltError,
    page::{BUCKET_FLAG, BUCKET_HEADER, ELEMENT, HEADER, Header, Kind, Meta, PAGE_BYTES},
};

/// What a database is made of. It is asked twice and must say the same.
pub(crate) trait Contents {
    type Error: From<BoltError>;

    /// Puts every bucket, in the order of their names, into the bucket of buckets.
    fn buckets<W: Write>(&self, root: &mut Tree, pages: &mut Pages<W>) -> Result<(), Self::Error>;
}

/// Where the root of a database is and how large it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    root: u64,
    pages: u64,
}

impl Layout {
    pub(crate) fn bytes(self) -> u64 {
        self.pages.saturating_mul(PAGE_BYTES as u64)
    }
}

/// Finds out how the contents are laid out.
pub(crate) fn lay_out<C: Contents>(contents: &C) -> Result<Layout, C::Error> {
    trees(contents, io::sink())
}

/// Writes the whole file.
pub(crate) fn write<C: Contents>(
    contents: &C,
    layout: Layout,
    out: &mut impl Write,
) -> Result<(), C::Error> {
    let Layout { root, pages } = layout;
    for id in 0..FIRST_PAGE {
        // Either says the same, so that the next transaction may overwrite the older.
        let meta = Meta { page_bytes: number(PAGE_BYTES)?, root, pages, txid: id };
        out.write_all(&meta.encode(id)).map_err(BoltError::Io)?;
    }
    trees(contents, out).map(drop)
}

fn trees<C: Contents>(contents: &C, out: impl Write) -> Result<Layout, C::Error> {
    let mut pages = Pages { out, next: FIRST_PAGE };
    let mut root = Tree::default();
    contents.buckets(&mut root, &mut pages)?;
    let root = root.finish_pages(&mut pages)?;
    Ok(Layout { root, pages: pages.next })
}

/// Where pages go, one after the other.
#[derive(Debug)]
pub(crate) struct Pages<W> {
    out: W,
    next: u64,
}

impl<W: Write> Pages<W> {
    fn add(&mut self, node: &Node) -> Result<u64, BoltError> {
        let id = self.next;
        let bytes = node.encode(id)?;
        let span = bytes.len().div_ceil(PAGE_BYTES);
        self.out.write_all(&bytes)?;
        let rest = span * PAGE_BYTES - bytes.len();
        self.out.write_all(ZEROES.get(..rest).unwrap_or(&ZEROES))?;
        self.next = self.next.saturating_add(span as u64);
        Ok(id)
    }
}

/// A bucket that is being written. Its keys must come in ascending order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    leaf: Node,
    /// The first key of every page that is written.
    written: Vec<(Vec<u8>, u64)>,
}

impl Tree {
    pub(crate) fn put<W: Write>(
        &mut self,
        key: &[u8],
        value: &[u8],
        pages: &mut Pages<W>,
    ) -> Result<(), BoltError> {
        self.item(Slot::Value, key, value, pages)
    }

    /// Puts a bucket that is finished into this one.
    pub(crate) fn put_bucket<W: Write>(
        &mut self,
        name: &[u8],
        bucket: Self,
        pages: &mut Pages<W>,
    ) -> Result<(), BoltError> {
        let value = bucket.finish_bucket(pages)?;
        self.item(Slot::Bucket, name, &value, pages)
    }

    fn item<W: Write>(
        &mut self,
        slot: Slot,
        key: &[u8],
        value: &[u8],
        pages: &mut Pages<W>,
    ) -> Result<(), BoltError> {
        let grown = self.leaf.bytes() + ELEMENT + key.len() + value.len();
        if grown > PAGE_BYTES && !self.leaf.slots.is_empty() {
            self.flush(pages)?;
        }
        self.leaf.push(slot, key, value);
        Ok(())
    }

    fn flush<W: Write>(&mut self, pages: &mut Pages<W>) -> Result<(), BoltError> {
        let id = pages.add(&self.leaf)?;
        let first = self.leaf.first_key().to_vec();
        self.leaf.clear();
        self.written.push((first, id));
        Ok(())
    }

    /// Returns what stands for this bucket in the one above. A small one is inline (as bbolt does).
    fn finish_bucket<W: Write>(self, pages: &mut Pages<W>) -> Result<Vec<u8>, BoltError> {
        let inline = self.written.is_empty() && self.leaf.bytes() <= INLINE_BYTES;
        let tail = if inline { self.leaf.encode(0)? } else { Vec::new() };
        let root = if inline { 0 } else { self.finish_pages(pages)? };
        let mut value = Vec::with_capacity(BUCKET_HEADER + tail.len());
        value.extend(root.to_le_bytes());
        value.extend(0_u64.to_le_bytes());
        value.extend(tail);
        Ok(value)
    }

    /// Writes what is left and the branches above; returns the page at the top.
    fn finish_pages<W: Write>(mut self, pages: &mut Pages<W>) -> Result<u64, BoltError> {
        if !self.leaf.slots.is_empty() || self.written.is_empty() {
            self.flush(pages)?;
        }
        let mut level = self.written;
        while level.len() > 1 {
            level = branches(&level, pages)?;
        }
        // There is always one: the loop ends at one, and began with one or more.
        Ok(level.first().map_or(0, |(_, id)| *id))
    }
}

/// Writes one level of branches and returns it.
fn branches<W: Write>(
    mut children: &[(Vec<u8>, u64)],
    pages: &mut Pages<W>,
) -> Result<Vec<(Vec<u8>, u64)>, BoltError> {
    let mut level = Vec::new();
    while let Some((first, _)) = children.first() {
        let (these, rest) = children.split_at(fitting(children));
        let mut node = Node::default();
        for (key, id) in these {
            node.push(Slot::Page(*id), key, &[]);
        }
        level.push((first.clone(), pages.add(&node)?));
        children = rest;
    }
    Ok(level)
}

/// Returns how many of these go into one branch: at least two, and never so that one remains.
fn fitting(children: &[(Vec<u8>, u64)]) -> usize {
    let ends = children.iter().scan(HEADER, |bytes, (key, _)| {
        *bytes += ELEMENT + key.len();
        Some(*bytes)
    });
    let fit = ends.take_while(|end| *end <= PAGE_BYTES).count().max(2).min(children.len());
    match children.len() - fit {
        1 if fit > 2 => fit - 1,
        1 => fit + 1,
        _ => fit,
    }
}

/// What an item of a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Value,
    Bucket,
    /// In a branch: the page below.
    Page(u64),
}

/// A page that is being filled.
#[derive(Debug, Default)]
struct Node {
    /// What each item is, where its key begins in `data`, and how long key and value are.
    slots: Vec<(Slot, usize, usize, usize)>,
    data: Vec<u8>,
}

impl Node {
    fn push(&mut self, slot: Slot, key: &[u8], value: &[u8]) {
        self.slots.push((slot, self.data.len(), key.len(), value.len()));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn bytes(&self) -> usize {
        HEADER + ELEMENT * self.slots.len() + self.data.len()
    }

    fn first_key(&self) -> &[u8] {
        self.slots.first().and_then(|(_, _, key, _)| self.data.get(..*key)).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.data.clear();
    }

    /// Returns the page, without what fills it up.
    fn encode(&self, id: u64) -> Result<Vec<u8>, BoltError> {
        let branch = self.slots.iter().any(|(slot, ..)| matches!(slot, Slot::Page(_)));
        let header = Header {
            id,
            kind: if branch { Kind::Branch } else { Kind::Leaf },
            items: u16::try_from(self.slots.len()).map_err(|_| BoltError::TooLarge)?,
            overflow: number(self.bytes().div_ceil(PAGE_BYTES) - 1)?,
        };
        let mut page = Vec::with_capacity(self.bytes());
        page.extend(header.encode());
        for (nth, slot) in self.slots.iter().enumerate() {
            // Positions count from the element.
            let elements = (self.slots.len() - nth) * ELEMENT;
            page.extend(element(*slot, elements)?);
        }
        page.extend_from_slice(&self.data);
        Ok(page)
    }
}

fn element(
    (slot, at, key, value): (Slot, usize, usize, usize),
    elements: usize,
) -> Result<Vec<u8>, BoltError> {
    let (from, key, value) = (number(elements + at)?, number(key)?, number(value)?);
    let numbers = match slot {
        Slot::Value => vec![0, from, key, value],
        Slot::Bucket => vec![BUCKET_FLAG, from, key, value],
        Slot::Page(_) => vec![from, key],
    };
    let mut element: Vec<u8> = numbers.into_iter().flat_map(u32::to_le_bytes).collect();
    if let Slot::Page(id) = slot {
        element.extend(id.to_le_bytes());
    }
    Ok(element)
}

fn number(raw: usize) -> Result<u32, BoltError> {
    u32::try_from(raw).map_err(|_| BoltError::TooLarge)
}

/// After the two meta pages.
const FIRST_PAGE: u64 = 2;
const INLINE_BYTES: usize = PAGE_BYTES / 4;
static ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
