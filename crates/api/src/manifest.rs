//! What an operator writes: YAML or JSON, several documents in one text, and where each value stands in it.
//!
//! ```text
//!   octets ─▶ read ─▶ Document { node: Node }   ─▶ Node::value ─▶ calico::Resource
//!                └──▶ Complaint { span, reason }  ◀── Node::find ◀── its faults' paths
//! ```
//!
//! A text from outside is hostile: its length, its depth, and the nodes that it grows to through aliases are
//! bounded. All that is wrong is told at once, also in the documents behind one that cannot be read. `read`
//! makes the tree from the parser's events, `scalar` says what a bare word means, `node` is the tree.

mod node;
mod read;
mod scalar;

pub use self::{
    node::{Member, Node, Shape},
    read::{Document, MOST_OCTETS, read, text_of},
};

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// How many characters of the line it takes; at least 1.
    pub width: usize,
}

impl Span {
    /// The very beginning.
    pub const START: Self = Self { line: 1, column: 1, width: 1 };
}

/// What is wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub span: Span,
    /// What is there, and what would be right.
    pub reason: String,
}

impl Complaint {
    pub fn new(span: Span, reason: impl Into<String>) -> Self {
        Self { span, reason: reason.into() }
    }
}
