//! The store by example, and held against a model that keeps a whole copy for each revision.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::server::image::Image;

#[test]
fn an_empty_store_is_at_revision_one() {
    let mvcc = Mvcc::new();
    assert_eq!(mvcc.revision(), rev(1));
    assert_eq!(mvcc.since(rev(1), 10), Ok(vec![]));
}

#[test]
fn a_key_counts_its_writes_until_it_is_deleted() {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "1");
    put(&mut mvcc, "a", "2");
    let kv = mvcc.get(b"a").unwrap();
    assert_eq!((kv.created, kv.modified, kv.version), (rev(2), rev(3), 2));

    delete(&mut mvcc, &one("a"));
    put(&mut mvcc, "a", "3");
    let kv = mvcc.get(b"a").unwrap();
    assert_eq!((kv.created, kv.modified, kv.version), (rev(5), rev(5), 1));
}

#[test]
fn a_transaction_is_one_revision_however_much_it_changes() {
    let mut mvcc = Mvcc::new();
    let (seen, commit) = mvcc.write(|txn| {
        assert_eq!(txn.revision(), rev(1), "nothing is written yet");
        txn.put(b"a", b"1".to_vec(), None);
        txn.put(b"b", b"2".to_vec(), None);
        (txn.revision(), txn.view().get(b"a").is_some())
    });
    assert_eq!(seen, (rev(2), true), "it sees its own writes");
    assert_eq!(commit.unwrap().commit.changes.len(), 2);
    assert_eq!(mvcc.revision(), rev(2));
}

#[test]
fn watchers_hear_what_was_before_the_transaction_however_often_it_changes_a_key() {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "old");
    mvcc.write(|txn| {
        txn.delete(&one("a"));
        txn.put(b"a", b"new".to_vec(), None);
        txn.delete(&one("a"));
    });

    let commit = &mvcc.since(rev(3), 1).unwrap()[0];

    let before = commit.changes.iter().map(|change| change.prev.as_ref().unwrap().value.clone());
    assert_eq!(before.collect::<Vec<_>>(), [b"old", b"old", b"old"]);
    assert_eq!(Mvcc::load(image(&mvcc)), Ok(mvcc), "and so after a restart");
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let mut mvcc = Mvcc::new();
    assert!(delete(&mut mvcc, &one("a")).is_none());
    assert_eq!(mvcc.revision(), rev(1));
}

#[test]
fn the_past_can_be_read_back_to_the_compacted_revision() {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "1");
    put(&mut mvcc, "a", "2");
    delete(&mut mvcc, &one("a"));
    mvcc.compact(rev(3)).unwrap();

    assert_eq!(values(&mvcc, rev(3)), Ok(vec!["2".to_owned()]));
    assert_eq!(values(&mvcc, rev(4)), Ok(vec![]));
    assert_eq!(values(&mvcc, rev(2)), Err(MvccError::Compacted(rev(3))));
    assert_eq!(values(&mvcc, rev(5)), Err(MvccError::Future));
    assert_eq!(mvcc.since(rev(2), 9), Err(MvccError::Compacted(rev(3))));
    assert_eq!(mvcc.since(rev(3), 9).unwrap().len(), 2);
}

#[test]
fn compaction_goes_forward_only() {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "1");
    assert_eq!(mvcc.compact(rev(3)), Err(MvccError::Future));
    assert_eq!(mvcc.compact(rev(2)), Ok(()));
    assert_eq!(mvcc.compact(rev(2)), Err(MvccError::Compacted(rev(2))));
}

#[test]
fn what_is_deleted_and_compacted_costs_nothing() {
    let mut mvcc = Mvcc::new();
    for n in 0..100 {
        put(&mut mvcc, &format!("k{n}"), "some value");
    }
    delete(&mut mvcc, &KeyRange::From(b"k".to_vec()));
    mvcc.compact(mvcc.revision()).unwrap();

    assert_eq!((mvcc.bytes(), mvcc.keys.len()), (0, 0));
    assert_eq!(mvcc.history(), 0, "of the compacted revision only values can still be watched");
    assert_eq!(mvcc.since(mvcc.revision(), 10), Ok(vec![]));
}

#[test]
fn ranges_are_read_as_etcd_reads_them() {
    let range = |key: &str, end: &[u8]| KeyRange::from_wire(key.into(), end.to_vec());
    assert!(range("a", b"").contains(b"a") && !range("a", b"").contains(b"ab"));
    assert!(range("a", b"c").contains(b"bz") && !range("a", b"c").contains(b"c"));
    assert!(range("b", &[0]).contains(b"zz") && !range("b", &[0]).contains(b"a"));
    assert!(range("c", b"a").is_empty() && range("a", b"a").is_empty());

    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "b", "1");
    assert_eq!(mvcc.now(&range("c", b"a")).count(), 0, "the wrong way round is empty, no panic");
    assert_eq!(mvcc.now(&range("b", b"b")).count(), 0);
}

#[derive(Clone, Debug)]
enum Op {
    Put(u8, u8),
    Delete(u8, u8),
    /// Several writes of one transaction, of keys that differ.
    Batch(BTreeMap<u8, Option<u8>>),
    /// At this part of the way between the last compaction and now.
    Compact(u8),
}

/// A whole copy of the keys for every revision: obvious and slow.
#[derive(Default)]
struct Model {
    by_revision: BTreeMap<u64, BTreeMap<Vec<u8>, KeyValue>>,
    compacted: u64,
}

impl Model {
    fn newest(&self) -> (u64, BTreeMap<Vec<u8>, KeyValue>) {
        let last = self.by_revision.last_key_value();
        last.map_or((1, BTreeMap::new()), |(revision, keys)| (*revision, keys.clone()))
    }

    fn write(&mut self, writes: &BTreeMap<u8, Option<u8>>) {
        let (revision, mut keys) = self.newest();
        let before = keys.clone();
        for (key, value) in writes {
            let key = vec![*key];
            match value {
                None => drop(keys.remove(&key)),
                Some(value) => {
                    let old = before.get(&key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: vec![*value],
                        created: old.map_or(rev(revision + 1), |old| old.created),
                        modified: rev(revision + 1),
                        version: old.map_or(1, |old| old.version + 1),
                        lease: None,
                    };
                    keys.insert(key, kv);
                }
            }
        }
        if keys != before {
            self.by_revision.insert(revision + 1, keys);
        }
    }
}

proptest! {
    #[test]
    fn every_readable_revision_equals_the_models_copy(ops in prop::collection::vec(op(), 1..60)) {
        let (mut mvcc, mut model) = (Mvcc::new(), Model::default());
        for op in &ops {
            run(&mut mvcc, &mut model, op);
            prop_assert_eq!(mvcc.revision().get(), model.newest().0);
            check_states(&mvcc, &model)?;
            check_log(&mvcc, &model)?;
        }
        let bytes = mvcc.keys.values().flatten().map(Version::bytes).sum::<u64>();
        prop_assert_eq!(mvcc.bytes(), bytes, "the account is exact");
        prop_assert_eq!(Mvcc::load(image(&mvcc)), Ok(mvcc), "an image makes the same store again");
    }
}

#[test]
fn an_image_that_contradicts_itself_is_refused() {
    let mut mvcc = Mvcc::new();
    put(&mut mvcc, "a", "1");
    put(&mut mvcc, "a", "2");
    let good = image(&mvcc);
    let spoilt = |spoil: fn(&mut Image)| {
        let mut image = good.clone();
        spoil(&mut image);
        Mvcc::load(image).unwrap_err()
    };
    let swapped = spoilt(|image| image.versions.swap(0, 1));
    assert!(swapped.contains("revision 2 is out of order"), "{swapped}");
    let twice = spoilt(|image| image.versions.insert(0, image.versions[0].clone()));
    assert!(twice.contains("out of order"), "{twice}");
    let late = spoilt(|image| image.revision = rev(2));
    assert!(late.contains("revision 3 is out of order"), "{late}");
    let compacted = spoilt(|image| image.compacted = rev(9));
    assert!(compacted.contains("compacted at 9"), "{compacted}");
    let ended = spoilt(|image| image.versions[0].what = What::Delete(b"a".to_vec()));
    assert!(ended.contains("key a at revision 2 does not fit"), "{ended}");
}

fn image(mvcc: &Mvcc) -> Image {
    Image {
        revision: mvcc.revision(),
        compacted: mvcc.compacted(),
        versions: mvcc.image_versions(),
        ..Image::empty(1, 2)
    }
}

fn run(mvcc: &mut Mvcc, model: &mut Model, op: &Op) {
    match op {
        Op::Put(key, value) => {
            let writes = BTreeMap::from([(*key, Some(*value))]);
            write_all(mvcc, &writes);
            model.write(&writes);
        }
        Op::Delete(from, to) => {
            delete(mvcc, &KeyRange::from_wire(vec![*from], vec![*to]));
            model.write(&(*from..*to).map(|key| (key, None)).collect());
        }
        Op::Batch(writes) => {
            write_all(mvcc, writes);
            model.write(writes);
        }
        Op::Compact(part) => {
            let span = mvcc.revision().get() - model.compacted;
            let at = model.compacted + span * u64::from(*part) / 255;
            if mvcc.compact(rev(at)).is_ok() {
                model.compacted = at;
            } else {
                assert!(at <= model.compacted);
            }
        }
    }
}

fn check_states(mvcc: &Mvcc, model: &Model) -> Result<(), TestCaseError> {
    for (revision, keys) in &model.by_revision {
        let all = KeyRange::From(vec![0]);
        let found = mvcc.at(&all, rev(*revision));
        let found = found.map(|kvs| kvs.map(|kv| kv.as_ref().clone()).collect::<Vec<_>>());
        if *revision < model.compacted {
            prop_assert_eq!(found, Err(MvccError::Compacted(rev(model.compacted))));
        } else {
            prop_assert_eq!(found, Ok(keys.values().cloned().collect()));
        }
    }
    Ok(())
}

/// Whoever takes a copy at a readable revision and follows the log arrives at what is now.
fn check_log(mvcc: &Mvcc, model: &Model) -> Result<(), TestCaseError> {
    for (revision, keys) in model.by_revision.range(model.compacted..) {
        let mut copy = keys.clone();
        for commit in mvcc.since(rev(*revision).next(), usize::MAX).unwrap() {
            for change in &commit.changes {
                let prev = match &change.what {
                    What::Put(kv) => copy.insert(kv.key.clone(), kv.as_ref().clone()),
                    What::Delete(key) => copy.remove(key),
                };
                prop_assert_eq!(&prev, &change.prev.as_deref().cloned());
            }
        }
        prop_assert_eq!(copy, model.newest().1);
    }
    Ok(())
}

fn op() -> impl Strategy<Value = Op> {
    let (key, other) = (1..6_u8, 1..6_u8);
    prop_oneof![
        4 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Op::Put(key, value)),
        2 => (key.clone(), other)
            .prop_map(|(a, b)| Op::Delete(a.min(b), a.max(b) + 1)),
        2 => prop::collection::btree_map(key, any::<Option<u8>>(), 1..4).prop_map(Op::Batch),
        1 => any::<u8>().prop_map(Op::Compact),
    ]
}

fn write_all(mvcc: &mut Mvcc, writes: &BTreeMap<u8, Option<u8>>) {
    mvcc.write(|txn| {
        for (key, value) in writes {
            match value {
                Some(value) => drop(txn.put(&[*key], vec![*value], None)),
                None => drop(txn.delete(&KeyRange::One(vec![*key]))),
            }
        }
    });
}

fn rev(raw: u64) -> Revision {
    Revision::new(raw)
}

fn one(key: &str) -> KeyRange {
    KeyRange::One(key.into())
}

fn put(mvcc: &mut Mvcc, key: &str, value: &str) {
    mvcc.write(|txn| txn.put(key.as_bytes(), value.into(), None));
}

fn delete(mvcc: &mut Mvcc, range: &KeyRange) -> Option<Arc<Commit>> {
    mvcc.write(|txn| txn.delete(range)).1.map(|written| written.commit)
}

fn values(mvcc: &Mvcc, at: Revision) -> Result<Vec<String>, MvccError> {
    let kvs = mvcc.at(&KeyRange::From(vec![0]), at)?;
    Ok(kvs.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).collect())
}
