use russet_core::{
    Calc,
    model::{Preset, Settings, TransportConfig},
};
use russet_store::{
    KeyChange, KeyValue, Revision, ServerRef, Snapshot, SnapshotReason, WatchEvent,
};

use super::*;
use crate::resources::{Reader, Seen};

const POOL: &str = "/calico/resources/v3/projectcalico.org/ippools/a";
const POOL_VALUE: &str = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"a"},"spec":{"cidr":"10.244.0.0/16","vxlanMode":"Always","natOutgoing":true,"blockSize":26}}"#;
const BLOCK: &str = "/calico/ipam/v2/assignment/ipv4/block/10.244.3.64-30";

#[test]
fn pools_and_settings_make_one_configuration_and_it_is_told_when_it_is_another() {
    let mut it = It::new();
    it.all(&[(POOL, POOL_VALUE)]);
    let config = it.calc.world().config().unwrap();
    assert_eq!(config.pools().count(), 1);
    let felix = "/calico/resources/v3/projectcalico.org/felixconfigurations/default";
    let value = r#"{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default"},"spec":{"vxlanVNI":7}}"#;
    assert_eq!(it.put(felix, value), 1);
    assert_ne!(it.calc.world().config().unwrap(), config);
    assert_eq!(it.put(felix, value), 0, "it is as it was");
    // What is said of this node goes before it, and what is said of another is nothing to it.
    let vni = |it: &It| match it.calc.world().config().unwrap().transport() {
        TransportConfig::Vxlan(vxlan) => (vxlan.vni.get(), vxlan.port.get()),
        other => panic!("{other:?}"),
    };
    assert_eq!(vni(&it), (7, 4_789));
    let of = |node: &str| felix.replace("/default", &format!("/node.{node}"));
    let said = |node: &str, spec: &str| {
        let named = value.replace(r#""name":"default""#, &format!(r#""name":"node.{node}""#));
        named.replace(r#"{"vxlanVNI":7}"#, spec)
    };
    assert_eq!(it.put(&of("n2"), &said("n2", r#"{"vxlanVNI":9}"#)), 0);
    assert_eq!(it.put(&of("n0"), &said("n0", r#"{"vxlanPort":4790}"#)), 1);
    assert_eq!(vni(&it), (7, 4_790));
    it.gone(&of("n0"));
    it.gone(felix);
    assert_eq!(it.calc.world().config().unwrap(), config);
}

#[test]
fn a_block_is_held_by_its_node_and_what_others_have_of_it_by_them() {
    let mut it = It::new();
    it.all(&[(POOL, POOL_VALUE), (BLOCK, &block("host:n1", &["n1", "n2"]))]);
    assert_eq!(it.held(), ["10.244.3.64-30 n1", "10.244.3.65-32 n2"]);
    it.put(BLOCK, &block("host:n1", &["n3", "n1"]));
    assert_eq!(it.held(), ["10.244.3.64-30 n1", "10.244.3.64-32 n3"]);
    // Nobody has an affinity to it any more, but it is in use.
    let without = block("host:n1", &["n1"]).replace(r#""affinity":"host:n1","#, "");
    it.put(BLOCK, &without);
    assert_eq!(it.held(), ["10.244.3.64-32 n1"]);
    it.put(BLOCK, "{}");
    assert!(it.held().is_empty());
    assert!(it.calc.world().facts.values().any(|known| known.fault.is_some()));
    it.gone(BLOCK);
    assert!(it.calc.world().facts.values().all(|known| known.fault.is_none()));
}

#[test]
fn a_pool_that_is_deleted_while_it_is_in_use_is_carried_and_told() {
    let mut it = It::new();
    let other = POOL_VALUE.replace("10.244", "10.245").replace(r#""name":"a""#, r#""name":"b""#);
    let other_key = POOL.replace("/a", "/b");
    it.all(&[(POOL, POOL_VALUE), (&other_key, &other), (BLOCK, &block("host:n1", &["n1"]))]);
    it.gone(POOL);
    assert_eq!(it.calc.world().config().unwrap().pools().count(), 2);
    let faults: Vec<_> = it.view.faults().map(|(key, fault)| format!("{key}: {fault}")).collect();
    assert!(faults[0].contains("ippools/a") && faults[0].contains("1 blocks"), "{faults:?}");
    it.gone(BLOCK);
    assert_eq!(it.calc.world().config().unwrap().pools().count(), 1);
    assert_eq!(it.view.faults().count(), 0);
    // The last one that goes is a fault of the store.
    it.gone(&other_key);
    assert_eq!(it.calc.world().config().unwrap().pools().count(), 1);
    assert!(!it.calc.is_complete());
}

#[test]
fn a_bad_pool_is_told_by_its_key_and_the_last_good_one_stays() {
    let mut it = It::new();
    it.all(&[(POOL, POOL_VALUE)]);
    it.put(POOL, &POOL_VALUE.replace("Always", "Sometimes"));
    assert_eq!(it.calc.world().config().unwrap().pools().count(), 1);
    assert_eq!(it.view.faults().count(), 1);
    it.put(POOL, POOL_VALUE);
    assert_eq!(it.view.faults().count(), 0);
}

#[test]
fn of_a_store_that_is_not_believed_only_what_is_new_is_taken() {
    let mut it = It::new();
    it.all(&[(POOL, POOL_VALUE), (BLOCK, &block("host:n1", &[]))]);
    let second = BLOCK.replace(".64-30", ".68-30");
    let value = block("host:n2", &[]).replace("10.244.3.64/30", "10.244.3.68/30");
    let older = Snapshot {
        reason: SnapshotReason::RevisionWentBack { seen: Revision::new(10) },
        ..snapshot(2, &[(POOL, POOL_VALUE), (BLOCK, &block("host:n9", &[])), (&second, &value)])
    };
    let Some(News::Doubted { picture, .. }) = it.reader.take(WatchEvent::Snapshot(older)) else {
        panic!()
    };
    let facts = it.calc.world().facts.clone();
    let added = it.view.added(picture.iter(), |id| facts.contains_key(id), 10);
    it.calc.apply(added);
    assert_eq!(it.held(), ["10.244.3.64-30 n1", "10.244.3.68-30 n2"]);
}

#[test]
fn what_is_kept_is_in_force_before_the_store_has_said_anything() {
    let mut it = It::new();
    let other = BLOCK.replace(".64-30", ".68-30");
    let others = block("host:n2", &[]).replace("10.244.3.64/30", "10.244.3.68/30");
    let second = POOL.replace("/a", "/b");
    let value = POOL_VALUE.replace("10.244", "10.245").replace(r#""name":"a""#, r#""name":"b""#);
    let pools = [(POOL, POOL_VALUE), (second.as_str(), value.as_str())];
    let blocks = [(BLOCK, &*block("host:n0", &[])), (&*other, &*others)];
    it.all(&[pools, blocks].concat());
    it.gone(POOL);
    let kept = it.view.kept(None);
    let mut again = It::new();
    let recalled = again.view.recall(&kept);
    again.calc.apply(recalled);
    assert_eq!(again.held(), ["10.244.3.64-30 n0"], "its own, and no other's");
    assert_eq!(again.calc.world().config().unwrap().pools().count(), 2);
    assert!(again.calc.world().in_sync.is_empty(), "nothing is removed for it");
    assert_eq!(again.view.kept(None), kept, "a second restart knows as much");
    // The pool was deleted while it was in use, and is so still.
    again.all(&[pools[1], (BLOCK, &block("host:n0", &[]))]);
    assert_eq!(again.calc.world().config().unwrap().pools().count(), 2);
    again.gone(BLOCK);
    assert_eq!(again.calc.world().config().unwrap().pools().count(), 1);
    assert_eq!(again.view.kept(None).now.keys().collect::<Vec<_>>(), [&second]);
}

#[test]
fn a_block_that_cannot_be_read_stays_this_node_s_on_its_disk_until_it_is_gone() {
    let mut it = It::new();
    it.all(&[(POOL, POOL_VALUE), (BLOCK, &block("host:n0", &[]))]);
    it.all(&[(POOL, POOL_VALUE), (BLOCK, "{}")]);
    assert_eq!(it.view.kept(None).blocks.len(), 1);
    it.all(&[(POOL, POOL_VALUE)]);
    assert!(it.view.kept(None).blocks.is_empty());
}

#[test]
fn the_tunnel_of_before_is_known_after_a_restart_in_the_middle_of_a_switch() {
    let mut it = It::new();
    it.all(&[(POOL, POOL_VALUE)]);
    it.put(POOL, &POOL_VALUE.replace("vxlanMode", "otherMode"));
    let kept = it.view.kept(None);
    assert_eq!(kept.before.len(), 1);
    let mut again = It::new();
    again.view.recall(&kept);
    let replayed = again.view.replay();
    let configs = replayed.iter().map(|change| match change {
        Change::Upsert { fact: Fact::Config(config), .. } => config.transport().clone(),
        other => panic!("{other:?}"),
    });
    let configs = configs.collect::<Vec<_>>();
    assert!(matches!(configs[0], TransportConfig::Vxlan(_)), "{configs:?}");
    assert_eq!(configs[1], TransportConfig::Direct);
    assert!(again.view.replay().is_empty(), "once");
}

/// A store's events, and the world that they make.
struct It {
    reader: Reader,
    view: CalicoView,
    calc: Calc,
    revision: u64,
}

impl It {
    fn new() -> Self {
        let node: Name = "n0".parse().unwrap();
        let settings = Settings::new("n0", Preset::Calico, "unused".parse().unwrap());
        Self {
            reader: Reader::new(node.clone(), Seen::default()),
            view: CalicoView::new(node, Distribution::Store),
            calc: Calc::new(settings),
            revision: 10,
        }
    }

    fn all(&mut self, rows: &[(&str, &str)]) {
        let news = self.reader.take(WatchEvent::Snapshot(snapshot(self.revision, rows)));
        let Some(News::All { picture, .. }) = news else { panic!("{news:?}") };
        let changes = self.view.all(&picture);
        self.calc.apply(changes);
    }

    /// How many facts changed.
    fn put(&mut self, key: &str, value: &str) -> usize {
        self.change(KeyChange::Put(kv(key, value, self.revision + 1)))
    }

    fn gone(&mut self, key: &str) {
        let revision = Revision::new(self.revision + 1);
        self.change(KeyChange::Delete { key: key.as_bytes().to_vec(), revision });
    }

    fn change(&mut self, change: KeyChange) -> usize {
        self.revision += 1;
        let event =
            WatchEvent::Changes { revision: Revision::new(self.revision), changes: vec![change] };
        let Some(News::Changed { changes, .. }) = self.reader.take(event) else { panic!() };
        let changes = self.view.changed(&changes);
        let count = changes.len();
        self.calc.apply(changes);
        count
    }

    fn held(&self) -> Vec<String> {
        let held = self.calc.world().leases().map(|(key, it)| {
            format!("{key} {}", it.holder.map(|it| it.name.to_string()).unwrap_or_default())
        });
        held.collect()
    }
}

fn block(affinity: &str, nodes: &[&str]) -> String {
    let index = |i: usize| if i < nodes.len() { i.to_string() } else { "null".to_owned() };
    let allocations: Vec<_> = (0..4).map(index).collect();
    let free: Vec<_> = (nodes.len()..4).map(|i| i.to_string()).collect();
    let owner = |(i, node): (usize, &&str)| {
        format!(r#"{{"handle_id":"h{i}","secondary":{{"node":"{node}"}}}}"#)
    };
    let owners: Vec<_> = nodes.iter().enumerate().map(owner).collect();
    format!(
        r#"{{"cidr":"10.244.3.64/30","affinity":"{affinity}","allocations":[{}],"unallocated":[{}],"attributes":[{}],"deleted":false}}"#,
        allocations.join(","),
        free.join(","),
        owners.join(",")
    )
}

fn snapshot(revision: u64, rows: &[(&str, &str)]) -> Snapshot {
    let entries = rows.iter().map(|(key, text)| kv(key, text, 2)).collect();
    let server = ServerRef { cluster: 1, member: 1 };
    Snapshot { revision: Revision::new(revision), server, reason: SnapshotReason::First, entries }
}

fn kv(key: &str, text: &str, at: u64) -> KeyValue {
    let modified = Revision::new(at);
    let (key, value) = (key.as_bytes().to_vec(), text.as_bytes().to_vec());
    KeyValue { key, value, created: modified, modified, version: 1, lease: None }
}
