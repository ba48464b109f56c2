//! What was written down makes the same store again, at every moment of its life.

use proptest::prelude::*;

use super::*;
use crate::proto::etcdserverpb::{RequestOp, request_op::Request};

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: u8,
        value: u8,
        lease: i64,
        ignore_value: bool,
        ignore_lease: bool,
    },
    Delete(u8, u8),
    Txn(Vec<(u8, Option<u8>)>),
    Compact(u8),
    Grant(i64),
    Revoke(i64),
    Wait(u8),
    /// The file is written anew.
    Rewrite,
}

proptest! {
    #[test]
    fn the_records_make_the_same_store_at_every_moment(steps in prop::collection::vec(step(), 1..80)) {
        let mut now = Instant::now();
        let limits = Limits { history: 20, ..Limits::default() };
        let mut state = State::new(Image::empty(1, 2), limits, now).unwrap();
        let mut file: Vec<Vec<u8>> = record::payloads(&state.image()).collect();
        for step in steps {
            run(&mut state, &step, &mut now);
            state.forget_history();
            let done = state.take_done();
            if !done.payload.is_empty() {
                file.push(done.payload);
            }
            if matches!(step, Step::Rewrite) {
                file = record::payloads(&state.image()).collect();
            }
            let again = read(&file, now);
            prop_assert_eq!(again.image(), state.image());
            prop_assert_eq!(&again.mvcc, &state.mvcc, "history for watchers included");
            let keys = |state: &State| {
                let status = |id| state.lease_status(id, now).unwrap().keys;
                state.leases().into_iter().map(|id| (id, status(id))).collect::<Vec<_>>()
            };
            prop_assert_eq!(keys(&again), keys(&state));
        }
    }
}

#[test]
fn a_lease_has_its_full_time_again_after_a_restart() {
    let start = Instant::now();
    let mut state = State::new(Image::empty(1, 2), Limits::default(), start).unwrap();
    state.grant(lease(1), 60, start).unwrap();
    let later = start + Duration::from_secs(59);
    let left = |state: &State| state.lease_status(lease(1), later).unwrap().left.as_secs();
    assert_eq!(left(&state), 1);

    let mut file: Vec<_> = record::payloads(&Image::empty(1, 2)).collect();
    file.push(state.take_done().payload);

    assert_eq!(left(&read(&file, later)), 60);
}

/// etcd panics upon this one.
#[test]
fn a_put_cannot_keep_what_a_step_before_it_deletes() {
    let now = Instant::now();
    let mut state = State::new(Image::empty(1, 2), Limits::default(), now).unwrap();
    state
        .put(PutRequest { key: b"a".to_vec(), value: b"1".to_vec(), ..Default::default() })
        .unwrap();
    let before = state.image();
    let delete = DeleteRangeRequest { key: vec![0], range_end: vec![0], ..Default::default() };
    let put = PutRequest { key: b"a".to_vec(), ignore_value: true, ..Default::default() };
    let requests = [Request::RequestDeleteRange(delete), Request::RequestPut(put)];
    let success = requests.map(|request| RequestOp { request: Some(request) }).to_vec();

    let refused = state.txn(TxnRequest { success, ..Default::default() }).unwrap_err();

    assert!(matches!(refused, Refused::KeyNotFound), "{refused:?}");
    assert_eq!(state.image(), before, "nothing of it is done");
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let now = Instant::now();
    let mut state = State::new(Image::empty(1, 2), Limits::default(), now).unwrap();
    let ops = || vec![record::Change::Put { key: b"a".to_vec(), value: vec![], lease: None }];
    let late = Record::Commit { revision: Revision::new(3), ops: ops() };
    let refused = state.replay(late, now).unwrap_err();
    assert_eq!(refused, "the transaction of revision 3 leads to revision 2");
    let missing = Record::Revoke { lease: lease(7), revision: Revision::new(2) };
    assert!(state.replay(missing, now).unwrap_err().contains("lease 7"));
    assert!(state.replay(Record::Compact { revision: Revision::new(99) }, now).is_err());
}

#[test]
fn a_full_disk_refuses_what_makes_the_store_larger_and_an_exhausted_one_everything() {
    let now = Instant::now();
    let mut state = State::new(Image::empty(1, 2), Limits::default(), now).unwrap();
    let put = || PutRequest { key: b"a".to_vec(), ..PutRequest::default() };
    let delete = || DeleteRangeRequest { key: b"a".to_vec(), ..DeleteRangeRequest::default() };
    state.put(put()).unwrap();

    state.set_disk(Disk::Full);
    assert_eq!(state.put(put()).unwrap_err(), Refused::NoSpace);
    assert_eq!(state.grant(lease(1), 9, now).unwrap_err(), Refused::NoSpace);
    assert_eq!(state.delete(delete()).unwrap().0.deleted, 1);
    state.compact(Revision::new(2)).unwrap();

    state.set_disk(Disk::Exhausted);
    assert_eq!(state.delete(delete()).unwrap_err(), Refused::NoSpace);
    assert_eq!(state.compact(Revision::new(3)).unwrap_err(), Refused::NoSpace);

    state.set_disk(Disk::Room);
    state.put(put()).unwrap();
}

fn read(file: &[Vec<u8>], now: Instant) -> State {
    let mut reader = super::super::open::Reader::new(&Limits::default());
    for payload in file {
        reader.payload(payload).unwrap();
    }
    let mut state = reader.finish(std::path::Path::new("test")).unwrap();
    state.restart_leases(now);
    state
}

fn run(state: &mut State, step: &Step, now: &mut Instant) {
    // What is refused changes nothing, and that is checked too.
    match step.clone() {
        Step::Put { key, value, lease, ignore_value, ignore_lease } => {
            let value = if ignore_value { Vec::new() } else { vec![value % 3; 40] };
            let lease = if ignore_lease { 0 } else { lease };
            let key = vec![key];
            let request =
                PutRequest { key, value, lease, ignore_value, ignore_lease, prev_kv: true };
            let _ = state.put(request);
        }
        Step::Delete(from, to) => {
            let _ = state.delete(delete(from, to));
        }
        Step::Txn(ops) => {
            let op = |(key, value): (u8, Option<u8>)| match value {
                Some(value) => Request::RequestPut(PutRequest {
                    key: vec![key],
                    value: vec![value],
                    ..PutRequest::default()
                }),
                None => Request::RequestDeleteRange(delete(key, key + 1)),
            };
            let success = ops.into_iter().map(|one| RequestOp { request: Some(op(one)) }).collect();
            let _ = state.txn(TxnRequest { success, ..TxnRequest::default() });
        }
        Step::Compact(back) => {
            let revision = state.revision().get().saturating_sub(u64::from(back));
            let _ = state.compact(Revision::new(revision));
        }
        Step::Grant(id) => {
            let _ = state.grant(lease(id), 60, *now);
        }
        Step::Revoke(id) => {
            let _ = state.revoke(lease(id));
        }
        Step::Wait(seconds) => {
            *now += Duration::from_secs(seconds.into());
            state.expire(*now);
        }
        Step::Rewrite => {}
    }
}

fn delete(from: u8, to: u8) -> DeleteRangeRequest {
    DeleteRangeRequest { key: vec![from], range_end: vec![to], prev_kv: false }
}

fn lease(id: i64) -> LeaseId {
    LeaseId::from_wire(id).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    let (key, id) = (1..7_u8, 0..4_i64);
    let put = (key.clone(), any::<u8>(), id, 0..6_u8).prop_map(|(key, value, lease, odd)| {
        Step::Put { key, value, lease, ignore_value: odd == 0, ignore_lease: odd == 1 }
    });
    prop_oneof![
        8 => put,
        2 => (key.clone(), 1..8_u8).prop_map(|(from, to)| Step::Delete(from, to)),
        2 => prop::collection::vec((key, any::<Option<u8>>()), 1..4).prop_map(Step::Txn),
        1 => (0..9_u8).prop_map(Step::Compact),
        2 => (1..4_i64).prop_map(Step::Grant),
        1 => (1..4_i64).prop_map(Step::Revoke),
        1 => (0..50_u8).prop_map(Step::Wait),
        1 => Just(Step::Rewrite),
    ]
}
