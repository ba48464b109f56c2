//! Reads, compare-and-swap writes, leases and the cluster's id, against both servers.

use russet_store::{
    ClientConfig, CreateOutcome, EtcdClient, Expect, KeyChange, Revision, WatchEvent, WatchRequest,
    WriteOutcome,
    client::{Guard, Write},
    proto::etcdserverpb::{LeaseLeasesRequest, lease_client::LeaseClient},
};

use crate::{
    backend::{Backend, against_both, etcdctl, free_address, next},
    proxy::Proxy,
};

against_both!(
    a_key_is_created_once_and_the_loser_gives_its_lease_back,
    a_renewal_is_a_new_lease_and_keeps_the_key,
    a_write_needs_the_revision_that_it_expects,
    guarded_writes_are_done_all_or_none,
    a_leased_key_goes_when_its_time_is_over,
    a_listing_of_many_pages_is_of_one_revision,
    pages_shrink_until_their_values_fit_a_message,
    a_compacted_revision_is_said_to_be_compacted,
    all_nodes_agree_on_one_cluster_id,
    a_value_beyond_the_limit_is_too_large,
    a_dead_endpoint_is_passed_over,
    a_write_whose_answer_is_lost_is_not_sent_again,
    a_read_whose_answer_is_lost_is_sent_elsewhere,
);

async fn a_key_is_created_once_and_the_loser_gives_its_lease_back(backend: Backend) {
    let client = backend.client();

    let first = client.create_leased(b"/s/a", b"one", 60).await.unwrap();
    let second = client.create_leased(b"/s/a", b"two", 60).await.unwrap();

    let CreateOutcome::Created { revision } = first else { panic!("{first:?}") };
    let CreateOutcome::Exists(current) = second else { panic!("{second:?}") };
    assert_eq!((current.value.as_slice(), current.modified), (&b"one"[..], revision));
    assert_eq!(leases(&backend).await, [current.lease.unwrap().to_wire()]);
}

async fn a_renewal_is_a_new_lease_and_keeps_the_key(backend: Backend) {
    let client = backend.client();
    client.create_leased(b"/s/a", b"one", 60).await.unwrap();
    let before = client.get(b"/s/a").await.unwrap().unwrap();

    let revision = client.put_leased(b"/s/a", b"two", 60).await.unwrap();

    let after = client.get(b"/s/a").await.unwrap().unwrap();
    assert_eq!((after.modified, after.created, after.version), (revision, before.created, 2));
    assert_ne!(after.lease, before.lease);
    // The old grant runs out empty: ending it now takes nothing away.
    let old = before.lease.unwrap().to_string();
    etcdctl(backend.address(), &["lease", "revoke", &old], "").await;
    assert_eq!(client.get(b"/s/a").await.unwrap(), Some(after));
}

async fn guarded_writes_are_done_all_or_none(backend: Backend) {
    let client = backend.client();
    let put = |key: &str| Write::Put { key: key.into(), value: b"v".to_vec(), lease: None };
    let key = |key: &str, expect| Guard::Key { key: key.into(), expect };
    let unwritten = |since| Guard::Unwritten { prefix: b"/p/".to_vec(), since };
    // A range without keys was not written.
    let guards = vec![unwritten(Revision::ZERO), key("/p/a", Expect::Absent)];
    let both = vec![put("/p/a"), put("/p/b")];
    let first = client.write_guarded(guards.clone(), both).await.unwrap().expect("all hold");
    for name in ["/p/a", "/p/b"] {
        assert_eq!(client.get(name.as_bytes()).await.unwrap().unwrap().modified, first);
    }
    // One guard of two does not hold.
    assert_eq!(client.write_guarded(guards, vec![put("/p/c")]).await.unwrap(), None);
    assert_eq!(client.get(b"/p/c").await.unwrap(), None);
    let guards = vec![unwritten(first), key("/p/a", Expect::At(first))];
    let delete = Write::Delete { key: b"/p/a".to_vec() };
    let second = client.write_guarded(guards.clone(), vec![delete, put("/q")]).await.unwrap();
    assert!(second.is_some(), "what was written at that revision is not after it");
    // Any key of the range, and nothing beside it.
    client.put(b"/p/z", b"other").await.unwrap();
    assert_eq!(client.write_guarded(vec![unwritten(first)], vec![put("/r")]).await.unwrap(), None);
    client.put(b"/p", b"beside").await.unwrap();
    let now = client.get(b"/p/z").await.unwrap().unwrap().modified;
    assert!(client.write_guarded(vec![unwritten(now)], vec![put("/r")]).await.unwrap().is_some());
}

async fn a_write_needs_the_revision_that_it_expects(backend: Backend) {
    let client = backend.client();
    let done = client.put_if(b"/k", Expect::Absent, b"1").await.unwrap();
    let WriteOutcome::Done { revision } = done else { panic!("{done:?}") };
    client.put(b"/k", b"2").await.unwrap();

    let late = client.put_if(b"/k", Expect::At(revision), b"3").await.unwrap();
    let WriteOutcome::Conflict(Some(current)) = late else { panic!("{late:?}") };
    assert_eq!(current.value, b"2");
    assert!(matches!(
        client.delete_if(b"/k", revision).await.unwrap(),
        WriteOutcome::Conflict(Some(_))
    ));

    let right = client.put_if_leased(b"/k", Expect::At(current.modified), b"3", 60).await.unwrap();
    let WriteOutcome::Done { revision } = right else { panic!("{right:?}") };
    assert!(matches!(client.delete_if(b"/k", revision).await.unwrap(), WriteOutcome::Done { .. }));
    assert_eq!(
        client.delete_if(b"/k", revision).await.unwrap(),
        WriteOutcome::Conflict(None),
        "what is gone cannot be deleted again"
    );
}

async fn a_leased_key_goes_when_its_time_is_over(backend: Backend) {
    let client = backend.client();
    let mut watch =
        client.watch(WatchRequest { prefixes: vec![b"/s/".to_vec()], ..WatchRequest::default() });
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));

    client.create_leased(b"/s/a", b"short", 1).await.unwrap();

    let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("no put") };
    assert!(matches!(&changes[..], [KeyChange::Put(kv)] if kv.lease.is_some()));
    let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("no delete") };
    assert!(matches!(&changes[..], [KeyChange::Delete { key, .. }] if key == b"/s/a"));
}

async fn a_listing_of_many_pages_is_of_one_revision(backend: Backend) {
    let client = backend.client();
    let writes: Vec<String> = (0..2_500).map(|n| format!("put /p/{n:05} {n}")).collect();
    for chunk in writes.chunks(100) {
        // One transaction of a hundred writes: no comparison, then the writes, no alternative.
        let text = format!("\n{}\n\n\n", chunk.join("\n"));
        etcdctl(backend.address(), &["txn"], &text).await;
    }
    let before = client.status().await.unwrap().revision;
    client.put(b"/p/00000", b"changed").await.unwrap();
    client.put(b"/p/99999", b"new").await.unwrap();

    let old = client.range_prefix(b"/p/", Some(before)).await.unwrap();
    let new = client.range_prefix(b"/p/", None).await.unwrap();

    assert_eq!((old.revision, old.entries.len()), (before, 2_500));
    assert_eq!(old.entries[0].value, b"0");
    assert!(old.entries.is_sorted_by(|a, b| a.key < b.key));
    assert_eq!((new.revision.get(), new.entries.len()), (before.get() + 2, 2_501));
    assert_eq!(new.entries[0].value, b"changed");
}

async fn pages_shrink_until_their_values_fit_a_message(backend: Backend) {
    let client = backend.client();
    let value = vec![b'x'; 900_000];
    for n in 0..24 {
        client.put(format!("/big/{n:02}").as_bytes(), &value).await.unwrap();
    }

    let listing = client.range_prefix(b"/big/", None).await.unwrap();
    let mut visited = Vec::new();
    client.visit_prefix(b"/big/", |kv| visited.push(kv)).await.unwrap();
    assert_eq!(visited, listing.entries, "page by page is the same");

    assert_eq!(listing.entries.len(), 24);
    assert!(listing.entries.iter().all(|kv| kv.value == value));
}

async fn a_compacted_revision_is_said_to_be_compacted(backend: Backend) {
    let client = backend.client();
    let old = client.put(b"/k", b"1").await.unwrap();
    let new = client.put(b"/k", b"2").await.unwrap();

    client.compact(new).await.unwrap();

    let err = client.range_prefix(b"/k", Some(old)).await.unwrap_err();
    assert!(err.is_compacted() && !err.is_unavailable(), "{err:?}");
    assert_eq!(client.range_prefix(b"/k", Some(new)).await.unwrap().entries[0].value, b"2");
    assert!(client.compact(new).await.unwrap_err().is_compacted());
    assert!(!client.range_prefix(b"/k", Some(new.next())).await.unwrap_err().is_compacted());
}

async fn all_nodes_agree_on_one_cluster_id(backend: Backend) {
    let client = backend.client();
    assert_eq!(client.cluster_id("/net").await.unwrap(), None, "never made in passing");

    let asked = (0..8).map(|_| {
        let client = backend.client();
        tokio::spawn(async move { client.ensure_cluster_id("/net").await.unwrap() })
    });
    let ids: Vec<_> = futures_util::future::join_all(asked).await;
    let ids: Vec<_> = ids.into_iter().map(Result::unwrap).collect();

    assert!(ids.iter().all(|id| id == &ids[0] && id.as_str().len() == 32), "{ids:?}");
    assert_eq!(client.cluster_id("/net/").await.unwrap().as_ref(), Some(&ids[0]));
    let stored = client.get(b"/net/russet/cluster-id").await.unwrap().unwrap();
    assert_eq!((stored.version, stored.lease), (1, None));
}

async fn a_value_beyond_the_limit_is_too_large(backend: Backend) {
    let err = backend.client().put(b"/k", &vec![0; 1_600_000]).await.unwrap_err();
    assert!(err.is_too_large(), "{err:?}");
    assert_eq!(backend.client().get(b"/k").await.unwrap(), None);
}

async fn a_dead_endpoint_is_passed_over(backend: Backend) {
    let endpoints = [free_address(), backend.address()].map(|at| format!("http://{at}"));
    let client = EtcdClient::new(&ClientConfig::plain(endpoints).unwrap());

    // A write is sent again only because it certainly was not done.
    let revision = client.put(b"/k", b"v").await.unwrap();
    assert_eq!(client.get(b"/k").await.unwrap().unwrap().modified, revision);

    let mut watch =
        client.watch(WatchRequest { prefixes: vec![b"/".to_vec()], ..WatchRequest::default() });
    let WatchEvent::Snapshot(snapshot) = next(&mut watch).await else { panic!("no snapshot") };
    assert_eq!(snapshot.entries.len(), 1);
}

async fn a_write_whose_answer_is_lost_is_not_sent_again(backend: Backend) {
    let (client, proxy, _second) = two_ways(&backend).await;
    client.put(LONG, b"1").await.unwrap();
    let before = backend.client().get(LONG).await.unwrap().unwrap();

    let ((), outcome) = tokio::join!(proxy.lose_the_answer(), client.put(LONG, b"2"));

    let err = outcome.unwrap_err();
    assert!(err.is_outcome_unknown(), "{err:?}");
    let after = backend.client().get(LONG).await.unwrap().unwrap();
    assert!(after.version <= before.version + 1, "at most once: {after:?}");
    // The next request takes the other way.
    client.put(LONG, b"3").await.unwrap();
}

async fn a_read_whose_answer_is_lost_is_sent_elsewhere(backend: Backend) {
    let (client, proxy, _second) = two_ways(&backend).await;
    client.put(LONG, b"1").await.unwrap();

    let ((), outcome) = tokio::join!(proxy.lose_the_answer(), client.get(LONG));

    assert_eq!(outcome.unwrap().unwrap().value, b"1");
}

/// Long enough that the proxy can tell a request from chatter.
const LONG: &[u8] = &[b'k'; 200];

/// A client with two endpoints, each through a proxy of its own.
async fn two_ways(backend: &Backend) -> (EtcdClient, Proxy, Proxy) {
    let first = Proxy::start(backend.address()).await;
    let second = Proxy::start(backend.address()).await;
    let endpoints = [&first, &second].map(|proxy| format!("http://{}", proxy.address));
    (EtcdClient::new(&ClientConfig::plain(endpoints).unwrap()), first, second)
}

#[tokio::test]
async fn with_every_endpoint_dead_the_store_is_unavailable_and_nothing_was_written() {
    let endpoints = [free_address(), free_address()].map(|at| format!("http://{at}"));
    let client = EtcdClient::new(&ClientConfig::plain(endpoints).unwrap());

    let err = client.put(b"/k", b"v").await.unwrap_err();

    assert!(err.is_unavailable() && !err.is_outcome_unknown(), "{err:?}");
    let cause = std::error::Error::source(&err).unwrap().to_string();
    assert!(cause.starts_with("http://127.0.0.1:"), "it says which endpoint: {cause}");
    assert!(cause.contains("Connection refused"), "and why: {cause}");
}

/// Returns the leases that live in the store, asked over the bare protocol.
async fn leases(backend: &Backend) -> Vec<i64> {
    let endpoint = format!("http://{}", backend.address());
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect_lazy();
    let answer = LeaseClient::new(channel).lease_leases(LeaseLeasesRequest {}).await.unwrap();
    answer.into_inner().leases.into_iter().map(|lease| lease.id).collect()
}
