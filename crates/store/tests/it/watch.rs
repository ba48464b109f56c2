//! What a watch tells, and that nothing is lost or told twice, whatever breaks.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use russet_store::{
    Delivery, EtcdClient, KeyChange, Place, Revision, Snapshot, SnapshotReason, Watch, WatchEvent,
    WatchRequest,
    server::{Limits, ServerConfig},
};

use crate::{
    backend::{
        Backend, EVENTUALLY, Etcd, Ours, against_both, client_of, etcdctl, next, wait_ready,
    },
    proxy::{Mode, Proxy},
};

against_both!(
    a_watch_is_a_snapshot_and_then_every_change_in_order,
    changes_made_during_a_break_are_told_once,
    a_connection_cut_again_and_again_loses_and_doubles_nothing,
    compaction_during_a_break_starts_over_with_a_snapshot,
    a_connection_that_died_silently_is_noticed_in_ten_seconds,
    a_client_that_has_moved_leaves_its_connections_and_loses_nothing,
    changes_larger_than_a_message_arrive_whole,
    a_slow_receiver_loses_nothing,
    a_large_snapshot_comes_in_parts_when_that_is_asked_for,
);

async fn a_watch_is_a_snapshot_and_then_every_change_in_order(backend: Backend) {
    let client = backend.client();
    client.put(b"/a/1", b"x").await.unwrap();
    let at = client.put(b"/b/1", b"y").await.unwrap();
    client.put(b"/c/1", b"not watched").await.unwrap();

    let mut watch = client.watch(request(&["/a/", "/b/"]));
    let snapshot = snapshot(&mut watch).await;
    assert_eq!(snapshot.reason, SnapshotReason::First);
    assert_eq!(snapshot.revision, at.next());
    assert_eq!(keys(&snapshot), ["/a/1", "/b/1"]);
    assert_eq!(snapshot.server, client.status().await.unwrap().server);

    // One transaction that touches a watched key twice over both prefixes, and one that is outside.
    etcdctl(backend.address(), &["txn"], "\nput /a/2 p\nput /c/2 q\ndel /a/1\n\n\n").await;
    client.put(b"/c/3", b"not watched").await.unwrap();
    let last = client.put(b"/b/1", b"z").await.unwrap();

    let mut seen = Vec::new();
    while seen.last().map(|(_, revision)| *revision) != Some(last) {
        seen.extend(changes(&mut watch).await);
    }
    let told: Vec<_> = seen.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(told, ["put /a/2=p", "delete /a/1", "put /b/1=z"]);
}

async fn a_large_snapshot_comes_in_parts_when_that_is_asked_for(backend: Backend) {
    let client = backend.client();
    let large = vec![b'x'; 100 << 10];
    for n in 100..200 {
        client.put(format!("/a/{n}").as_bytes(), &large).await.unwrap();
    }
    client.put(b"/b/1", b"y").await.unwrap();
    let whole = snapshot(&mut client.watch(request(&["/a/", "/b/", "/c/"]))).await;

    let request = request(&["/a/", "/b/", "/c/"]);
    let mut watch = client.watch(WatchRequest { delivery: Delivery::Parts, ..request });
    let (mut entries, mut places) = (Vec::new(), Vec::new());
    let last = loop {
        match next(&mut watch).await {
            WatchEvent::Part(part) => {
                let octets: usize = part.entries.iter().map(|kv| kv.value.len()).sum();
                assert!(octets < 8 << 20, "{octets}");
                places.push(part.place);
                entries.extend(part.entries);
            }
            WatchEvent::Snapshot(snapshot) => break snapshot,
            other => panic!("{other:?}"),
        }
    };
    entries.extend(last.entries);
    assert_eq!(entries, whole.entries);
    assert!(places.len() > 3, "{places:?}");
    assert_eq!(places.iter().filter(|place| **place == Place::First).count(), 1);
    assert_eq!(places[0], Place::First);

    client.put(b"/b/1", b"z").await.unwrap();
    assert_eq!(changes(&mut watch).await[0].0, "put /b/1=z");
}

async fn changes_made_during_a_break_are_told_once(backend: Backend) {
    let (proxy, mut watch) = watched_through_proxy(&backend).await;
    snapshot(&mut watch).await;
    let client = backend.client();
    client.put(b"/k/before", b"1").await.unwrap();
    assert_eq!(changes(&mut watch).await.len(), 1);

    proxy.set(Mode::Cut);
    let WatchEvent::Interrupted { cause } = next(&mut watch).await else { panic!("not told") };
    assert!(cause.is_unavailable(), "{cause:?}");
    client.put(b"/k/during", b"2").await.unwrap();
    client.put(b"/k/during", b"3").await.unwrap();
    client.put(b"/other", b"4").await.unwrap();
    proxy.set(Mode::Open);

    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }), "told once, then this");
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(changes(&mut watch).await.into_iter().map(|(text, _)| text));
    }
    assert_eq!(told, ["put /k/during=2", "put /k/during=3"]);
}

async fn a_connection_cut_again_and_again_loses_and_doubles_nothing(backend: Backend) {
    const WRITES: usize = 600;
    let (proxy, mut watch) = watched_through_proxy(&backend).await;
    snapshot(&mut watch).await;
    let writer = backend.client();
    let writing = tokio::spawn(async move {
        for n in 1..=WRITES {
            writer.put(b"/k/n", n.to_string().as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    let cutting = tokio::spawn(async move {
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.set(Mode::Cut);
            tokio::time::sleep(Duration::from_millis(30)).await;
            proxy.set(Mode::Open);
        }
        proxy
    });

    let (mut told, mut interruptions) = (Vec::new(), 0);
    while told.len() < WRITES {
        match next(&mut watch).await {
            WatchEvent::Changes { changes, .. } => told.extend(changes.iter().map(number)),
            WatchEvent::Interrupted { .. } => interruptions += 1,
            WatchEvent::Resumed { .. } => {}
            other => panic!("nothing was compacted: {other:?}"),
        }
    }

    assert_eq!(told, (1..=WRITES).collect::<Vec<_>>());
    assert!(interruptions > 0, "the control: it was cut");
    writing.await.unwrap();
    drop(cutting.await.unwrap());
}

async fn compaction_during_a_break_starts_over_with_a_snapshot(backend: Backend) {
    let (proxy, mut watch) = watched_through_proxy(&backend).await;
    let client = backend.client();
    client.put(b"/k/gone", b"1").await.unwrap();
    let seen = snapshot(&mut watch).await.revision;
    let seen = match seen.get() {
        // The write and the snapshot raced; either way the watch stands behind the write.
        1 => changes(&mut watch).await[0].1,
        _ => seen,
    };

    proxy.set(Mode::Cut);
    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    etcdctl(backend.address(), &["del", "/k/gone"], "").await;
    client.put(b"/k/new", b"2").await.unwrap();
    let compacted = client.put(b"/k/new", b"3").await.unwrap();
    client.compact(compacted).await.unwrap();
    proxy.set(Mode::Open);

    let again = snapshot(&mut watch).await;
    assert_eq!(again.reason, SnapshotReason::Compacted { seen, compacted });
    assert_eq!(keys(&again), ["/k/new"], "what is not mentioned is gone");
    client.put(b"/k/new", b"4").await.unwrap();
    assert_eq!(changes(&mut watch).await[0].0, "put /k/new=4");
}

async fn a_connection_that_died_silently_is_noticed_in_ten_seconds(backend: Backend) {
    let (proxy, mut watch) = watched_through_proxy(&backend).await;
    snapshot(&mut watch).await;

    proxy.set(Mode::Frozen);
    let frozen = Instant::now();

    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    assert!(frozen.elapsed() < EVENTUALLY);
    backend.client().put(b"/k/x", b"1").await.unwrap();
    proxy.set(Mode::Open);
    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }));
    assert_eq!(changes(&mut watch).await[0].0, "put /k/x=1");
}

async fn a_client_that_has_moved_leaves_its_connections_and_loses_nothing(backend: Backend) {
    let proxy = Proxy::start(backend.address()).await;
    let client = client_of(proxy.address);
    let mut watch = client.watch(request(&["/k/"]));
    snapshot(&mut watch).await;
    client.put(b"/k/x", b"1").await.unwrap();
    assert_eq!(changes(&mut watch).await[0].0, "put /k/x=1");

    proxy.set(Mode::Left);
    backend.client().put(b"/k/x", b"2").await.unwrap();
    client.reconnect();

    // Of a break nothing is told, because nobody has waited for one.
    client.put(b"/k/y", b"3").await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(changes(&mut watch).await.into_iter().map(|(text, _)| text));
    }
    assert_eq!(told, ["put /k/x=2", "put /k/y=3"]);
}

async fn changes_larger_than_a_message_arrive_whole(backend: Backend) {
    let (proxy, mut watch) = watched_through_proxy(&backend).await;
    snapshot(&mut watch).await;
    proxy.set(Mode::Cut);
    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    let client = backend.client();
    for n in 0..8_u8 {
        client.put(&[b"/k/".as_slice(), &[b'0' + n]].concat(), &vec![n; 1_200_000]).await.unwrap();
    }
    proxy.set(Mode::Open);

    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }));
    let mut whole = 0;
    while whole < 8 {
        let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("broken") };
        for change in changes {
            let KeyChange::Put(kv) = change else { panic!("deleted") };
            assert_eq!(kv.value, vec![u8::try_from(whole).unwrap(); 1_200_000]);
            whole += 1;
        }
    }
}

async fn a_slow_receiver_loses_nothing(backend: Backend) {
    const WRITES: usize = 2_000;
    let client = backend.client();
    let (mut slow, mut quick) = (client.watch(request(&["/k/"])), client.watch(request(&["/k/"])));
    snapshot(&mut slow).await;
    snapshot(&mut quick).await;
    let value = "x".repeat(4_000);
    for n in 1..=WRITES {
        client.put(b"/k/n", format!("{n} {value}").as_bytes()).await.unwrap();
    }

    // The quick one hears all of it while the slow one has read nothing.
    for watch in [&mut quick, &mut slow] {
        let mut told = Vec::new();
        while told.len() < WRITES {
            let WatchEvent::Changes { changes, .. } = next(watch).await else { panic!("broken") };
            told.extend(changes.iter().map(number));
        }
        assert_eq!(told, (1..=WRITES).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_goes_on_after_etcd_was_killed_and_started_again() {
    let mut etcd = Etcd::start(&[]).await;
    let client = client_of(etcd.address);
    let mut watch = client.watch(request(&["/k/"]));
    snapshot(&mut watch).await;
    client.put(b"/k/a", b"1").await.unwrap();
    assert_eq!(changes(&mut watch).await[0].0, "put /k/a=1");

    etcd.restart();

    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    wait_ready(&client).await;
    client.put(b"/k/a", b"2").await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }));
    assert_eq!(changes(&mut watch).await[0].0, "put /k/a=2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watch_moves_to_another_endpoint_when_one_goes() {
    let etcd = Etcd::start(&[]).await;
    let (first, second) = (Proxy::start(etcd.address).await, Proxy::start(etcd.address).await);
    let endpoints = [first.address, second.address].map(|at| format!("http://{at}"));
    let config = russet_store::ClientConfig::plain(endpoints).unwrap();
    let mut watch = EtcdClient::new(&config).watch(request(&["/k/"]));
    snapshot(&mut watch).await;

    first.set(Mode::Cut);

    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }));
    client_of(etcd.address).put(b"/k/a", b"1").await.unwrap();
    assert_eq!(changes(&mut watch).await[0].0, "put /k/a=1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_cluster_is_told_with_its_facts() {
    let (reason, before, after) =
        swapped(ServerConfig::default(), ServerConfig::default(), 5).await;
    assert_eq!(reason, SnapshotReason::OtherCluster { before: before.server });
    assert_ne!(before.server.cluster, after.server.cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_back_in_time_is_told_with_its_revision() {
    let (reason, before, after) = swapped(cluster(7), cluster(7), 0).await;
    assert_eq!(reason, SnapshotReason::RevisionWentBack { seen: before.revision });
    assert!(after.revision < before.revision && after.entries.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_sentinel_is_another_is_told_though_its_revision_is_higher() {
    let (reason, before, after) = swapped(cluster(7), cluster(7), 30).await;
    assert_eq!(reason, SnapshotReason::OtherHistory { seen: before.revision });
    assert!(after.revision > before.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_told_once_however_often_it_is_tried_again() {
    let ours = Ours::start(ServerConfig::default());
    let address = ours.address;
    let mut watch = client_of(address).watch(request(&["/k/"]));
    snapshot(&mut watch).await;

    ours.stop().await;

    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    let told = Instant::now();
    assert_eq!(count_connections(address, 4).await, 4);
    // Before the fourth it waited at least 50, 100, 200 and 400 ms; a hot loop would be there at once.
    assert!(told.elapsed() > Duration::from_millis(300), "{:?}", told.elapsed());
    assert!(watch.try_recv().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_the_store_dropped_by_itself_starts_the_watch_over() {
    let limits = Limits { history: 20, ..Limits::default() };
    let ours = Ours::start(Ours::limited(limits));
    let proxy = Proxy::start(ours.address).await;
    let mut watch = client_of(proxy.address).watch(request(&["/k/"]));
    snapshot(&mut watch).await;
    proxy.set(Mode::Cut);
    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));

    let client = client_of(ours.address);
    for n in 0..100 {
        client.put(b"/k/n", n.to_string().as_bytes()).await.unwrap();
    }
    proxy.set(Mode::Open);

    let again = snapshot(&mut watch).await;
    assert!(matches!(again.reason, SnapshotReason::Compacted { .. }), "{:?}", again.reason);
    assert_eq!(again.entries[0].value, b"99");
}

/// Watches one store, then another behind the same address with `writes` writes before its sentinel
/// and returns why the watch started over and both snapshots.
async fn swapped(
    first: ServerConfig,
    second: ServerConfig,
    writes: usize,
) -> (SnapshotReason, Snapshot, Snapshot) {
    let (first, second) = (Ours::start(first), Ours::start(second));
    for _ in 0..3 {
        client_of(first.address).put(b"/n/config", b"{}").await.unwrap();
    }
    client_of(first.address).ensure_cluster_id("/n").await.unwrap();
    for n in 0..writes {
        client_of(second.address).put(b"/n/config", n.to_string().as_bytes()).await.unwrap();
    }
    if writes > 0 {
        client_of(second.address).ensure_cluster_id("/n").await.unwrap();
    }
    let proxy = Proxy::start(first.address).await;
    let sentinel = Some(russet_store::client::ClusterId::key("/n"));
    let prefixes = vec![b"/n/".to_vec()];
    let mut watch = client_of(proxy.address).watch(WatchRequest {
        prefixes,
        sentinel,
        ..WatchRequest::default()
    });
    let before = snapshot(&mut watch).await;

    proxy.set(Mode::Cut);
    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    proxy.retarget(second.address);
    proxy.set(Mode::Open);
    let after = snapshot(&mut watch).await;
    (after.reason, before, after)
}

/// Listens in the server's place, hangs up on whoever comes, until so many have come.
async fn count_connections(address: SocketAddr, until: usize) -> usize {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let mut count = 0;
    while count < until {
        tokio::time::timeout(EVENTUALLY, listener.accept()).await.expect("tries go on").unwrap();
        count += 1;
    }
    count
}

fn cluster(number: u64) -> ServerConfig {
    ServerConfig { cluster: Some(number), ..ServerConfig::default() }
}

pub(crate) fn request(prefixes: &[&str]) -> WatchRequest {
    let prefixes = prefixes.iter().map(|prefix| prefix.as_bytes().to_vec()).collect();
    WatchRequest { prefixes, ..WatchRequest::default() }
}

async fn watched_through_proxy(backend: &Backend) -> (Proxy, Watch) {
    let proxy = Proxy::start(backend.address()).await;
    let watch = client_of(proxy.address).watch(request(&["/k/"]));
    (proxy, watch)
}

async fn snapshot(watch: &mut Watch) -> Snapshot {
    match next(watch).await {
        WatchEvent::Snapshot(snapshot) => snapshot,
        other => panic!("a snapshot was expected: {other:?}"),
    }
}

/// Returns the changes of the next event as text with their revisions.
async fn changes(watch: &mut Watch) -> Vec<(String, Revision)> {
    let WatchEvent::Changes { changes, revision } = next(watch).await else {
        panic!("changes were expected")
    };
    assert_eq!(changes.last().map(KeyChange::revision), Some(revision));
    changes.iter().map(|change| (text(change), change.revision())).collect()
}

fn text(change: &KeyChange) -> String {
    let key = String::from_utf8_lossy(change.key());
    match change {
        KeyChange::Put(kv) => format!("put {key}={}", String::from_utf8_lossy(&kv.value)),
        KeyChange::Delete { .. } => format!("delete {key}"),
    }
}

/// Returns the number at the beginning of a value.
fn number(change: &KeyChange) -> usize {
    let KeyChange::Put(kv) = change else { panic!("deleted") };
    let text = std::str::from_utf8(&kv.value).unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn keys(snapshot: &Snapshot) -> Vec<String> {
    let by_key: BTreeMap<_, _> = snapshot.entries.iter().map(|kv| (&kv.key, kv)).collect();
    by_key.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}
