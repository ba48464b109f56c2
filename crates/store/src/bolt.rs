//! The file format of bbolt, in which etcd keeps its database and its snapshots.
//!
//! ```text
//!  page 0, 1   meta: the same facts twice; the valid one of the newest transaction counts
//!  page 2 …    leaf    sorted keys with values; a value may be a bucket
//!              branch  the first key of each page below
//!              freelist (not written by etcd, nor by us: readers then look what is in use)
//!
//!  a page        [ header 16 | one element of 16 for each item | keys and values in that order ]
//!                longer than a page: `overflow` says how many pages follow
//!  a bucket      [ root page 8 | sequence 8 ], a small one with root page 0 and its only page behind
//! ```
//!
//! All numbers are little endian (bbolt: the machine's order, which is this one wherever etcd is run).
//! `page.rs` knows how a page is laid out, [`Tree`] writes trees of pages from sorted items, [`Database`]
//! reads a file that may be of anybody's making. Nothing is written in place: a file is made once.

mod page;
mod read;
mod write;

use std::io;

pub(crate) use self::{
    read::Database,
    write::{Contents, Layout, Pages, Tree, lay_out, write},
};

/// Why a file of bbolt's format cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    #[error("database file")]
    Io(#[from] io::Error),
    #[error("not an etcd database: neither of its first two pages is a valid one of bbolt")]
    NotBolt,
    #[error("the database is cut: {bytes} bytes of {wanted}")]
    Cut { bytes: u64, wanted: u64 },
    #[error("the database is damaged: page {page} {fault}")]
    Page { page: u64, fault: PageFault },
    #[error("a key or value of the database is larger than its format can hold")]
    TooLarge,
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    #[error("is not within the file")]
    OutOfBounds,
    #[error("is used twice")]
    UsedTwice,
    #[error("is not the one that its header says")]
    Misplaced,
    #[error("is of an unexpected kind")]
    Kind,
    #[error("has items that reach beyond its end or into one another")]
    Items,
    #[error("has keys that are out of order")]
    Order,
    #[error("lies deeper than any tree is")]
    TooDeep,
}
