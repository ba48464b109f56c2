//! What the server does for clients other than ours, over the bare protocol.

use std::time::Duration;

use russet_store::{
    WriteOutcome,
    proto::{
        etcdserverpb::{
            LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest, WatchCancelRequest,
            WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
            kv_client::KvClient, lease_client::LeaseClient, watch_client::WatchClient,
            watch_create_request::FilterType, watch_request::RequestUnion,
        },
        mvccpb::event::EventType,
    },
    server::{Limits, ServerConfig},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use crate::backend::{Backend, EVENTUALLY, Ours, against_both, client_of};

against_both!(
    many_watchers_share_a_stream_and_one_can_be_cancelled,
    filters_and_previous_values_are_obeyed,
    history_is_replayed_from_a_start_in_the_past,
    a_start_in_the_future_waits_for_it,
    a_compacted_start_is_told_with_the_revision_that_is_left,
    progress_is_told_when_asked_for,
    a_number_twice_on_a_stream_is_refused,
    a_lease_is_kept_alive_over_a_stream,
);

async fn many_watchers_share_a_stream_and_one_can_be_cancelled(backend: Backend) {
    let mut stream = Raw::open(&backend).await;
    stream.create(watch(b"/a", 1)).await;
    stream.create(watch(b"/b", 2)).await;
    assert!(stream.next().await.created && stream.next().await.created);

    backend.client().put(b"/a", b"1").await.unwrap();
    assert_eq!(stream.next().await.watch_id, 1);
    backend.client().put(b"/b", b"2").await.unwrap();
    assert_eq!(stream.next().await.watch_id, 2);

    stream.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 1 })).await;
    let canceled = stream.next().await;
    assert!((canceled.canceled, canceled.watch_id) == (true, 1), "{canceled:?}");
    backend.client().put(b"/a", b"3").await.unwrap();
    backend.client().put(b"/b", b"4").await.unwrap();
    let answer = stream.next().await;
    assert_eq!((answer.watch_id, answer.events.len()), (2, 1));
}

async fn filters_and_previous_values_are_obeyed(backend: Backend) {
    let client = backend.client();
    let mut stream = Raw::open(&backend).await;
    let noput = vec![FilterType::Noput.into()];
    stream.create(WatchCreateRequest { filters: noput, prev_kv: true, ..watch(b"/a", 1) }).await;
    stream.next().await;

    client.put(b"/a", b"1").await.unwrap();
    let revision = client.put(b"/a", b"2").await.unwrap();
    client.delete_if(b"/a", revision).await.unwrap();

    let answer = stream.next().await;
    assert_eq!(answer.events.len(), 1);
    assert_eq!(answer.events[0].r#type(), EventType::Delete);
    assert_eq!(answer.events[0].prev_kv.as_ref().unwrap().value, b"2");
}

async fn history_is_replayed_from_a_start_in_the_past(backend: Backend) {
    let client = backend.client();
    let first = client.put(b"/a", b"1").await.unwrap();
    for n in 2..=700 {
        client.put(b"/a", n.to_string().as_bytes()).await.unwrap();
    }
    let mut stream = Raw::open(&backend).await;
    let start_revision = first.next().to_wire();
    stream.create(WatchCreateRequest { start_revision, ..watch(b"/a", 1) }).await;

    let mut told = Vec::new();
    while told.len() < 699 {
        let events = stream.next().await.events;
        told.extend(events.into_iter().map(|event| event.kv.unwrap().version));
    }
    assert_eq!(told, (2..=700).collect::<Vec<_>>());
}

async fn a_start_in_the_future_waits_for_it(backend: Backend) {
    let client = backend.client();
    let now = client.put(b"/a", b"1").await.unwrap();
    let mut stream = Raw::open(&backend).await;
    let start_revision = now.next().next().next().to_wire();
    stream.create(WatchCreateRequest { start_revision, ..watch(b"/a", 1) }).await;
    assert!(stream.next().await.created);

    for value in ["2", "3", "4"] {
        client.put(b"/a", value.as_bytes()).await.unwrap();
    }

    let answer = stream.next().await;
    assert_eq!(answer.events[0].kv.as_ref().unwrap().value, b"4");
}

async fn a_compacted_start_is_told_with_the_revision_that_is_left(backend: Backend) {
    let client = backend.client();
    client.put(b"/a", b"1").await.unwrap();
    let left = client.put(b"/a", b"2").await.unwrap();
    client.compact(left).await.unwrap();
    let mut stream = Raw::open(&backend).await;
    stream.create(WatchCreateRequest { start_revision: 1, ..watch(b"/a", 1) }).await;
    stream.create(WatchCreateRequest { start_revision: left.to_wire(), ..watch(b"/a", 2) }).await;

    let (mut canceled, mut told) = (None, None);
    while canceled.is_none() || told.is_none() {
        let answer = stream.next().await;
        match answer.watch_id {
            1 if answer.canceled => canceled = Some(answer.compact_revision),
            2 if !answer.events.is_empty() => told = Some(answer.events.len()),
            _ => assert!(answer.created, "{answer:?}"),
        }
    }
    assert_eq!((canceled, told), (Some(left.to_wire()), Some(1)));
}

async fn progress_is_told_when_asked_for(backend: Backend) {
    let mut stream = Raw::open(&backend).await;
    stream.create(watch(b"/a", 1)).await;
    stream.next().await;
    let revision = backend.client().put(b"/elsewhere", b"1").await.unwrap();

    stream.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;

    let answer = stream.next().await;
    assert_eq!((answer.watch_id, answer.events.len()), (-1, 0));
    assert_eq!(answer.header.unwrap().revision, revision.to_wire());
}

async fn a_number_twice_on_a_stream_is_refused(backend: Backend) {
    let mut stream = Raw::open(&backend).await;
    stream.create(watch(b"/a", 7)).await;
    assert!(stream.next().await.created);

    stream.create(watch(b"/b", 7)).await;

    let answer = stream.next().await;
    assert!(answer.canceled && answer.cancel_reason.contains("duplicate"), "{answer:?}");
    backend.client().put(b"/a", b"1").await.unwrap();
    assert_eq!(stream.next().await.events.len(), 1, "the first one goes on");
}

async fn a_lease_is_kept_alive_over_a_stream(backend: Backend) {
    let mut leases = LeaseClient::new(channel(&backend));
    let granted = leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.unwrap();
    let id = granted.into_inner().id;
    let (sender, requests) = mpsc::channel(4);
    sender.send(LeaseKeepAliveRequest { id }).await.unwrap();
    sender.send(LeaseKeepAliveRequest { id: 12 }).await.unwrap();

    let mut answers =
        leases.lease_keep_alive(ReceiverStream::new(requests)).await.unwrap().into_inner();

    let alive = answers.message().await.unwrap().unwrap();
    assert_eq!((alive.id, alive.ttl), (id, 60));
    let unknown = answers.message().await.unwrap().unwrap();
    assert_eq!((unknown.id, unknown.ttl), (12, 0), "no such lease: no time, no error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_reads_nothing_holds_nobody_back_and_loses_nothing() {
    const WRITES: usize = 2_000;
    let backend = Backend::ours().await;
    let (mut stuck, mut lively) = (Raw::open(&backend).await, Raw::open(&backend).await);
    stuck.create(watch(b"/a", 1)).await;
    lively.create(watch(b"/a", 1)).await;
    stuck.next().await;
    lively.next().await;

    let client = backend.client();
    // 16 MB: more than the windows and queues in between take.
    for _ in 0..WRITES {
        client.put(b"/a", &[7; 8_000]).await.unwrap();
    }

    assert_eq!(lively.versions(WRITES).await, (1..=WRITES).collect::<Vec<_>>());
    assert_eq!(stuck.versions(WRITES).await, (1..=WRITES).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_leases_and_space_have_bounds() {
    let limits =
        Limits { watchers_per_stream: 2, leases: 1, store_bytes: 50_000, ..Limits::default() };
    let backend = Backend::Ours(Ours::start(Ours::limited(limits)));

    let mut stream = Raw::open(&backend).await;
    for id in 1..=3 {
        stream.create(watch(b"/a", id)).await;
    }
    assert!(!stream.next().await.canceled && !stream.next().await.canceled);
    let third = stream.next().await;
    assert!(third.canceled && third.cancel_reason.contains("too many watchers"), "{third:?}");

    let mut leases = LeaseClient::new(channel(&backend));
    leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 1 }).await.unwrap();
    let refused = leases.lease_grant(LeaseGrantRequest { ttl: 60, id: 2 }).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);

    let mut kv = KvClient::new(channel(&backend));
    let put = |n: u8| PutRequest { key: vec![n], value: vec![0; 10_000], ..Default::default() };
    let mut answers = Vec::new();
    for n in 0..8 {
        answers.push(kv.put(put(n)).await.is_ok());
    }
    assert_eq!(answers.iter().filter(|done| **done).count(), 5, "{answers:?}");
    let client = backend.client();
    assert!(client.get(&[0]).await.unwrap().is_some(), "reading goes on");
    // A full store deletes and compacts, which makes room.
    let one = client.get(&[0]).await.unwrap().unwrap();
    let gone = client.delete_if(&[0], one.modified).await.unwrap();
    let WriteOutcome::Done { revision } = gone else { panic!("{gone:?}") };
    // Refused when the store did it already to make room for what came.
    let _ = client.compact(revision).await;
    client.put(&[9], &[0; 5_000]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_several_want_rewritten_at_once_is_rewritten_for_each() {
    let backend = Backend::ours().await;
    let client = backend.client();
    for n in 0..50 {
        client.put(b"/a", &[n; 10_000]).await.unwrap();
    }
    let mut wishes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = client.clone();
        wishes.spawn(async move { client.defragment().await });
    }
    while let Some(done) = wishes.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(client.get(b"/a").await.unwrap().unwrap().version, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_never_fills_the_store() {
    let limits = Limits { store_bytes: 100_000, ..Limits::default() };
    let backend = Backend::Ours(Ours::start(Ours::limited(limits)));
    let client = backend.client();

    for _ in 0..200 {
        client.put(b"/a", &[0; 10_000]).await.unwrap();
    }

    assert_eq!(client.get(b"/a").await.unwrap().unwrap().version, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_streams_and_connections_at_once() {
    let ours = Ours::start(ServerConfig::default());
    let address = ours.address;
    let backend = Backend::Ours(ours);
    let mut stream = Raw::open(&backend).await;
    stream.create(watch(b"/a", 1)).await;
    stream.next().await;
    let Backend::Ours(ours) = backend else { unreachable!() };

    timeout(Duration::from_secs(1), ours.stop()).await.expect("no stream holds it up");

    assert_eq!(stream.answers.message().await.unwrap_err().code(), Code::Unavailable);
    assert!(client_of(address).status().await.unwrap_err().is_unavailable());
}

/// A watch stream without our wrapper.
struct Raw {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Raw {
    async fn open(backend: &Backend) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        // etcd answers nothing, not even headers, before the first request.
        let far = WatchCreateRequest { start_revision: i64::MAX, ..watch(b"/far", 99) };
        let raw = WatchRequest { request_union: Some(RequestUnion::CreateRequest(far)) };
        requests.send(raw).await.unwrap();
        let mut client = WatchClient::new(channel(backend));
        let answers = client.watch(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let mut stream = Self { requests, answers };
        assert!(stream.next().await.created);
        stream.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: 99 })).await;
        assert!(stream.next().await.canceled);
        stream
    }

    async fn create(&self, create: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(create)).await;
    }

    async fn send(&self, union: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(union) }).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        let answer = timeout(EVENTUALLY, self.answers.message()).await.expect("within 10 s");
        answer.unwrap().expect("the stream goes on")
    }

    async fn versions(&mut self, count: usize) -> Vec<usize> {
        let mut told = Vec::new();
        while told.len() < count {
            let events = self.next().await.events;
            told.extend(events.into_iter().map(|event| event.kv.unwrap().version));
        }
        told.into_iter().map(|version| usize::try_from(version).unwrap()).collect()
    }
}

fn watch(key: &[u8], watch_id: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.to_vec(), watch_id, ..WatchCreateRequest::default() }
}

fn channel(backend: &Backend) -> Channel {
    let endpoint = format!("http://{}", backend.address());
    tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect_lazy()
}
