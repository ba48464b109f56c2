//! Cuts another node's block down to what its outline is made of, while a snapshot is read.
//!
//! Most of a block is who has its addresses. What is left is a block still: it is decoded and checked as any other.

use russet_core::model::calico::Name;
use russet_store::KeyValue;
use serde_json::{Map, Value};

/// An entry without what this node does not need. What is no block of another's, or cannot be read, stays as it is.
pub(super) fn block(node: &Name, kv: KeyValue) -> KeyValue {
    match cut(node, &kv) {
        Some(value) => KeyValue { value, ..kv },
        None => kv,
    }
}

fn cut(node: &Name, kv: &KeyValue) -> Option<Vec<u8>> {
    if !kv.key.starts_with(BLOCKS) {
        return None;
    }
    let mut value: Value = serde_json::from_slice(&kv.value).ok()?;
    let block = value.as_object_mut()?;
    let affinity = block.get("affinity")?.as_str()?;
    if affinity.strip_prefix("host:") == Some(node.as_str()) {
        return None;
    }
    block.remove("sequenceNumberForAllocation");
    for attributes in block.get_mut("attributes")?.as_array_mut()? {
        let of = attributes.as_object_mut()?;
        let ours =
            of.get("secondary").and_then(|all| all.get("node")?.as_str()) == Some(node.as_str());
        if !ours {
            // When it was released says whether it is free.
            let released = of.remove("releasedAt").map(|at| ("releasedAt".to_owned(), at));
            *of = Map::from_iter(released);
        }
    }
    serde_json::to_vec(&value).ok()
}

const BLOCKS: &[u8] = b"/calico/ipam/v2/assignment/";

#[cfg(test)]
mod tests {
    use russet_store::Revision;

    use super::*;
    use crate::resources::decode;

    #[test]
    fn what_is_cut_says_the_same_in_outline_and_ours_is_left_whole() {
        let mut lines = include_str!("../../../api/tests/calico/etcd.txt").lines();
        let key = lines.find(|line| line.as_bytes().starts_with(BLOCKS)).unwrap();
        let whole = kv(key, lines.next().unwrap());
        let own = "node-1".parse().unwrap();
        assert_eq!(block(&own, whole.clone()), whole);
        let other = "node-2".parse().unwrap();
        let less = block(&other, whole.clone());
        assert!(
            less.value.len() < whole.value.len() / 2,
            "{}",
            String::from_utf8_lossy(&less.value)
        );
        let outline = |kv| format!("{:?}", decode(&other, kv).unwrap().what);
        assert_eq!(outline(less), outline(whole.clone()));
        // Whose handles have addresses in it is kept.
        let theirs = String::from_utf8(whole.value).unwrap().replace("host:node-1", "host:node-3");
        let theirs = kv(key, &theirs);
        let outline = |kv| format!("{:?}", decode(&own, kv).unwrap().what);
        assert_eq!(outline(block(&own, theirs.clone())), outline(theirs));
        let bad = kv(key, "{");
        assert_eq!(block(&own, bad.clone()), bad);
    }

    fn kv(key: &str, text: &str) -> KeyValue {
        let modified = Revision::new(7);
        let (key, value) = (key.as_bytes().to_vec(), text.as_bytes().to_vec());
        KeyValue { key, value, created: modified, modified, version: 1, lease: None }
    }
}
