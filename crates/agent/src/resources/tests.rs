use russet_core::model::calico::Scope;
use russet_store::{KeyChange, KeyValue, Revision, ServerRef, Snapshot, SnapshotReason};

use super::*;

const POOL: &str = "/calico/resources/v3/projectcalico.org/ippools/a";
const BLOCK: &str = "/calico/ipam/v2/assignment/ipv4/block/10.244.3.64-30";

#[test]
fn every_kind_that_a_node_needs_is_decoded_and_nothing_else() {
    let mut reader = reader("node-1", Seen::default());
    let Some(News::All { revision: 9, history: History::Same, picture }) =
        reader.take(all(9, &rows()))
    else {
        panic!("no picture")
    };
    for kind in [
        Kind::IpPool,
        Kind::IpReservation,
        Kind::Node,
        Kind::FelixConfiguration,
        Kind::BgpConfiguration,
        Kind::BgpPeer,
        Kind::BgpFilter,
        Kind::ClusterInformation,
    ] {
        assert!(picture.resources(kind).next().is_some(), "{kind}");
    }
    assert_eq!(picture.resources(Kind::WorkloadEndpoint).count(), 0);
    assert!(!picture.iter().any(|(key, _)| matches!(key, Key::Handle(_))));
    assert!(matches!(block(&picture), Some(Object::Block(BlockNews::Own(_)))));
    assert_eq!(picture.faults().count(), 0);
    let felix = picture.resources(Kind::FelixConfiguration).map(|(name, _)| Scope::of(name));
    assert!(felix.into_iter().any(|scope| scope == Scope::Cluster));
}

#[test]
fn of_another_s_block_the_outline_is_kept_and_who_of_ours_has_addresses_in_it() {
    let text = value(BLOCK).replace("host:node-1", "host:other");
    let mut reader = reader("node-1", Seen::default());
    let news = reader.take(all(3, &[(POOL, value_of_pool()), (BLOCK, text)]));
    let Some(News::All { picture, .. }) = news else { panic!("{news:?}") };
    let Some(Object::Block(BlockNews::Other { outline, ours, borrowed })) = block(&picture) else {
        panic!()
    };
    assert_eq!(
        (outline.free, outline.affinity.as_ref().unwrap().to_string().as_str()),
        (2, "host:other")
    );
    assert!(borrowed.iter().all(|(_, name)| name.as_str() == "node-1"));
    assert_eq!(borrowed.len(), ours.len());
    let mut of = ours.iter().map(|(addr, _)| *addr).zip(borrowed.iter().map(|(addr, _)| *addr));
    assert!(of.all(|(ours, borrowed)| ours == borrowed), "{ours:?}");
    let ours: Vec<_> = ours.iter().map(|(_, handle)| handle.to_string()).collect();
    assert_eq!(ours, ["vxlan-tunnel-addr-node-1", "k8s-pod-network.0a1b2c3d"]);
}

#[test]
fn a_bad_object_is_told_by_its_key_and_stops_no_other() {
    let mut reader = reader("node-1", Seen::default());
    let rows = [(POOL, value_of_pool()), (BLOCK, value(BLOCK))];
    assert!(matches!(reader.take(all(3, &rows)), Some(News::All { .. })));
    let bad = |key: &str, at| put(key, "{}", at);
    let changes = vec![bad(POOL, 4), bad(BLOCK, 5)];
    let news = reader.take(WatchEvent::Changes { revision: Revision::new(5), changes });
    let Some(News::Changed { revision: 5, changes }) = news else { panic!("{news:?}") };
    let pool = changes[0].known.as_ref().unwrap();
    assert!(matches!(pool.value, Some(Object::Pool(_))), "the last good one stays");
    assert!(pool.fault.is_some() && pool.revision == 4);
    let block = changes[1].known.as_ref().unwrap();
    assert!(block.value.is_none() && block.fault.is_some(), "who has what is not believed");
    // The same at the next snapshot, for what was good before and for what never was.
    let rows = [(POOL, "{}".to_owned()), (BLOCK, "{}".to_owned())];
    let Some(News::All { picture, .. }) = reader.take(all(6, &rows)) else { panic!() };
    assert!(picture.resources(Kind::IpPool).next().is_some());
    assert_eq!(picture.faults().count(), 2);
}

#[test]
fn a_block_under_another_s_key_says_nothing() {
    let other = BLOCK.replace(".64-", ".68-");
    let mut reader = reader("node-1", Seen::default());
    let rows = [(POOL, value_of_pool()), (&other, value(BLOCK))];
    let Some(News::All { picture, .. }) = reader.take(all(3, &rows)) else { panic!() };
    let (_, fault) = picture.faults().next().unwrap();
    assert!(fault.to_string().contains("not that of its key"), "{fault}");
}

#[test]
fn an_empty_store_is_not_believed_until_it_has_a_pool() {
    let mut reader = reader("node-1", Seen::default());
    let news = reader.take(all(2, &[]));
    assert!(matches!(news, Some(News::Doubted { doubt: Doubt::NoConfiguration, .. })), "{news:?}");
    assert!(reader.accept().is_none(), "there is nothing to take");
    let changes = vec![put(POOL, &value_of_pool(), 3)];
    let news = reader.take(WatchEvent::Changes { revision: Revision::new(3), changes });
    assert!(matches!(news, Some(News::All { revision: 3, .. })), "{news:?}");
}

#[test]
fn another_cluster_and_an_older_copy_are_not_believed_until_the_operator_accepts_them() {
    let first = rows();
    let mut reader = reader("node-1", Seen::default());
    reader.take(all(9, &first)).unwrap();
    assert!(reader.seen().cluster_id.is_some());
    let older = Snapshot {
        reason: SnapshotReason::RevisionWentBack { seen: Revision::new(9) },
        ..snapshot(4, &first)
    };
    let news = reader.take(WatchEvent::Snapshot(older));
    assert!(matches!(news, Some(News::Doubted { doubt: Doubt::Older { .. }, .. })), "{news:?}");
    // What changes meanwhile counts for nothing either.
    let changes = vec![put(POOL, &value_of_pool(), 5)];
    let news = reader.take(WatchEvent::Changes { revision: Revision::new(5), changes });
    assert!(matches!(news, Some(News::Aside { .. })), "{news:?}");
    let news = reader.accept();
    let Some(News::All { revision: 5, history: History::Other, .. }) = news else {
        panic!("{news:?}")
    };
    let other = first.iter().map(|(key, text)| (*key, text.replace("9b7f1c3e", "00000000")));
    let news = reader.take(all(50, &other.collect::<Vec<_>>()));
    assert!(
        matches!(news, Some(News::Doubted { doubt: Doubt::OtherCluster { .. }, .. })),
        "{news:?}"
    );
}

#[test]
fn a_copy_that_is_written_past_what_was_seen_is_a_copy_still() {
    let first = rows();
    let mut reader = reader("node-1", Seen::default());
    reader.take(all(9, &first)).unwrap();
    let went_back = SnapshotReason::RevisionWentBack { seen: Revision::new(9) };
    let older = Snapshot { reason: went_back, ..snapshot(4, &first) };
    assert!(matches!(reader.take(WatchEvent::Snapshot(older)), Some(News::Doubted { .. })));
    let changes = vec![put(POOL, &value_of_pool(), 12)];
    let news = reader.take(WatchEvent::Changes { revision: Revision::new(12), changes });
    assert!(matches!(news, Some(News::Aside { .. })), "doubted as before: {news:?}");
    let compacted =
        SnapshotReason::Compacted { seen: Revision::new(12), compacted: Revision::new(13) };
    let again = Snapshot { reason: compacted, ..snapshot(20, &first) };
    let news = reader.take(WatchEvent::Snapshot(again));
    assert!(matches!(news, Some(News::Doubted { doubt: Doubt::Older { .. }, .. })), "{news:?}");
    let right = SnapshotReason::OtherHistory { seen: Revision::new(20) };
    let right = Snapshot { reason: right, ..snapshot(30, &first) };
    let news = reader.take(WatchEvent::Snapshot(right));
    assert!(matches!(news, Some(News::All { history: History::Other, .. })), "{news:?}");
}

#[test]
fn no_prefix_that_is_watched_has_the_keys_of_handles_or_pods() {
    let request = request(&"node-1".parse().unwrap());
    let covered =
        |key: &str| request.prefixes.iter().any(|prefix| key.as_bytes().starts_with(prefix));
    assert!(covered(POOL) && covered(BLOCK) && covered("/calico/ipam/v2/config"));
    assert!(covered("/calico/ipam/v2/host/node-1/ipv4/block/10.0.0.0-26"));
    assert!(!covered("/calico/ipam/v2/host/node-10/ipv4/block/10.0.0.0-26"));
    assert!(!covered("/calico/ipam/v2/handle/x"));
    assert!(!covered("/calico/resources/v3/projectcalico.org/workloadendpoints/a/b"));
}

fn reader(node: &str, seen: Seen) -> Reader {
    Reader::new(node.parse().unwrap(), seen)
}

fn block(picture: &Picture) -> Option<&Object> {
    let StoreKeyOf(key) = key_of(BLOCK);
    picture.get(&key)?.value.as_ref()
}

struct StoreKeyOf(Key);

fn key_of(text: &str) -> StoreKeyOf {
    match Key::read(text.as_bytes()) {
        russet_api::calico::StoreKey::Known(key) => StoreKeyOf(key),
        other => panic!("{other:?}"),
    }
}

fn all(revision: u64, rows: &[(&str, String)]) -> WatchEvent {
    WatchEvent::Snapshot(snapshot(revision, rows))
}

fn snapshot(revision: u64, rows: &[(&str, String)]) -> Snapshot {
    let entries = rows.iter().map(|(key, text)| kv(key, text, 2)).collect();
    let server = ServerRef { cluster: 1, member: 1 };
    Snapshot { revision: Revision::new(revision), server, reason: SnapshotReason::First, entries }
}

fn put(key: &str, text: &str, at: u64) -> KeyChange {
    KeyChange::Put(kv(key, text, at))
}

fn kv(key: &str, text: &str, at: u64) -> KeyValue {
    let modified = Revision::new(at);
    let (key, value) = (key.as_bytes().to_vec(), text.as_bytes().to_vec());
    KeyValue { key, value, created: modified, modified, version: 1, lease: None }
}

/// What calicoctl and calico/node leave in etcd.
fn rows() -> Vec<(&'static str, String)> {
    let mut lines = include_str!("../../../api/tests/calico/etcd.txt").lines();
    std::iter::from_fn(move || Some((lines.next()?, lines.next()?.to_owned()))).collect()
}

fn value(key: &str) -> String {
    rows().into_iter().find(|(other, _)| *other == key).unwrap().1
}

fn value_of_pool() -> String {
    rows().into_iter().find(|(key, _)| key.contains("/ippools/")).unwrap().1
}
