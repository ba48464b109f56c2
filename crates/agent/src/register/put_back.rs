//! Puts this node's object back into a store that has lost it, and is not believed for that.
//!
//! Whoever accepts the store first finds it there, and goes on sending here. It is created where there is none, under the
//! condition that the store is the one that was read; nothing else is written before the store is believed.

use russet_api::calico::{Layout, Stored};
use russet_core::model::calico::Node;
use russet_store::StoreError;

use super::{Ends, Inputs, Keeper, Registered, changed, made, others::Lost};
use crate::{ipam::shelf::Shelf, node::OwnAddresses, one_line};

/// What may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    Nothing,
    /// The node's object, where there is none.
    PutBack,
    Keep,
}

impl Inputs {
    pub(super) fn may(&self) -> May {
        if !*self.reachable.borrow() {
            return May::Nothing;
        }
        match (*self.believed.borrow(), *self.put_back.borrow()) {
            (true, _) => May::Keep,
            (false, true) => May::PutBack,
            (false, false) => May::Nothing,
        }
    }

    /// Waits until something may be written; `None` when nobody can say so any more.
    pub(super) async fn until_something_may_be(&mut self) -> Option<May> {
        loop {
            self.believed.borrow_and_update();
            self.put_back.borrow_and_update();
            self.reachable.borrow_and_update();
            let may = self.may();
            if may != May::Nothing {
                return Some(may);
            }
            tokio::select! {
                changed = self.believed.changed() => changed.ok()?,
                changed = self.put_back.changed() => changed.ok()?,
                changed = self.reachable.changed() => changed.ok()?,
            }
        }
    }
}

impl Keeper {
    /// Creates the object as it was when the store was last believed, with what is so now.
    pub(super) async fn put_back(
        &self,
        lost: Option<Lost>,
        addresses: &OwnAddresses,
        ends: Ends,
    ) -> Result<Registered, String> {
        let Some(Lost { guard, last }) = lost else { return Ok(Registered::Waiting) };
        if self.seen.own.is_some() {
            return Ok(Registered::Done);
        }
        if let Some((addr, by)) = self.seen.taken.clone() {
            return Ok(Registered::Taken { addr, by });
        }
        let last = last.and_then(|text| Stored::<Node>::read(&text, Layout::Resource).ok());
        let object = match last {
            Some(mut object) => {
                let now = changed(object.value(), addresses, ends);
                object.set(now);
                object
            }
            None => made(None, &self.name, changed(&Node::default(), addresses, ends))?,
        };
        let keys = vec![(self.key.clone().into_bytes(), object.text().into_bytes())];
        let told = |err: StoreError| one_line(&err);
        let created = Shelf::create(&self.client, guard, keys).await.map_err(told)?;
        // Whoever was faster is told by the news.
        Ok(if created { Registered::Done } else { Registered::Waiting })
    }
}
