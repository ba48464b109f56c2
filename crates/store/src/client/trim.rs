//! Values that are made smaller while a snapshot is read, page by page.
//!
//! A receiver that needs a few words of each of thousands of large values would else hold them all at once.

use std::{fmt, sync::Arc};

use crate::contract::KeyValue;

/// What is done with each entry of a snapshot. Nothing, unless it is told.
#[derive(Clone, Default)]
pub struct Trim(Option<Arc<Apply>>);

type Apply = dyn Fn(KeyValue) -> KeyValue + Send + Sync;

impl Trim {
    /// `apply` must leave key and revisions as they are; it runs between two pages and should be short.
    pub fn new(apply: impl Fn(KeyValue) -> KeyValue + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(apply)))
    }

    pub(crate) fn apply(&self, kv: KeyValue) -> KeyValue {
        match &self.0 {
            Some(apply) => apply(kv),
            None => kv,
        }
    }
}

impl fmt::Debug for Trim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trim").field(&self.0.is_some()).finish()
    }
}
