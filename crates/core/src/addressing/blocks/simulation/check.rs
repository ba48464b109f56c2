//! What must hold after every step, and what must hold when all has come to rest.

use std::{collections::BTreeMap, net::IpAddr};

use super::super::{
    Affinity, AffinityState, Block, HandleId, Key, StoreOp, Value,
    check::RawBlock,
    gc::{Picture, counts},
};
use super::store::Store;

/// Who uses which address: from the answer until the release is asked for.
#[derive(Default)]
pub(super) struct Owners(BTreeMap<IpAddr, HandleId>);

impl Owners {
    /// The one thing that must never be.
    pub(super) fn given(&mut self, addr: IpAddr, handle: &HandleId) {
        let other = self.0.insert(addr, handle.clone());
        assert!(other.is_none_or(|other| other == *handle), "{addr} has two owners");
    }

    pub(super) fn left(&mut self, handle: &HandleId) {
        self.0.retain(|_, by| by != handle);
    }

    /// No write takes an address from whoever uses it, every block that is written is one that is believed, and
    /// the index is never too low.
    pub(super) fn written(&self, op: &StoreOp, store: &Store) {
        let StoreOp::Swap { key: Key::Block(cidr), value, .. } = op else { return };
        let held: BTreeMap<IpAddr, Option<&HandleId>> = match value {
            Some(Value::Block(block)) => {
                valid(block);
                indexed(block, store);
                block.held().map(|(given, by)| (given.addr, by)).collect()
            }
            _ => BTreeMap::new(),
        };
        for (addr, handle) in self.0.range(cidr.addr()..=cidr.last()) {
            let by = held.get(addr).copied().flatten();
            assert!(by.is_some_and(|by| is_theirs(by, handle)), "{addr} is taken away by {by:?}");
        }
    }

    /// At rest: every address is somebody's who lives, or free; the index and the affinities are right.
    pub(super) fn at_rest(&self, picture: &Picture) {
        let mut held = BTreeMap::new();
        let mut owned = 0;
        for (cidr, found) in &picture.blocks {
            valid(&found.value);
            for (given, by) in found.value.held() {
                held.insert(given.addr, by.cloned().unwrap());
            }
            let Some(Affinity::Host(node)) = found.value.affinity() else {
                // Its node is gone, and others have borrowed of it.
                assert!(!found.value.is_empty(), "{cidr} is nobody's and empty");
                continue;
            };
            owned += 1;
            let affinity = picture.affinities.get(&(node.clone(), *cidr));
            assert_eq!(affinity.map(|a| a.value), Some(AffinityState::Confirmed), "{cidr} {node}");
        }
        assert_eq!(held, self.0, "leaked, or lost");
        assert_eq!(picture.affinities.len(), owned, "an affinity without a block");
        let handles: BTreeMap<_, _> =
            picture.handles.iter().map(|(id, found)| (id.clone(), found.value.clone())).collect();
        assert_eq!(handles, counts(picture), "the index is wrong");
    }
}

/// What a pod was given of what its node has claimed ahead is that node's until it is passed on.
fn is_theirs(by: &HandleId, pod: &HandleId) -> bool {
    let of_node = pod.as_str().strip_prefix("k8s-pod-network.").and_then(|it| it.split_once('-'));
    let node = of_node.and_then(|(n, _)| format!("node-{n}").parse().ok());
    by == pod || node.is_some_and(|node| by.ahead_of(&node).is_some())
}

fn indexed(block: &Block, store: &Store) {
    for handle in block.held().filter_map(|(_, handle)| handle) {
        let found = store.objects.get(&Key::Handle(handle.clone())).map(|found| &found.value);
        let Some(Value::Handle(index)) = found else { panic!("{handle} has no index") };
        assert!(index.count(block.cidr()) >= block.count(handle), "the index of {handle}");
    }
}

fn valid(block: &Block) {
    let read = Block::try_from(RawBlock::from(block)).expect("a valid block");
    assert_eq!(read, *block);
}
