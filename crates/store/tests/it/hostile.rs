//! Clients that are many, mute or mad: bounded or refused, and nobody else notices.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;
use russet_fuzz::raw::RawClient;
use russet_store::{
    EtcdClient, Watch, WatchEvent,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
    },
    server::{Limits, ServerConfig},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::backend::{Backend, EVENTUALLY, Etcd, Ours, against_both, client_of, next};

against_both!(plain_http_tells_health, grpc_s_own_health_service_says_serving);

async fn plain_http_tells_health(backend: Backend) {
    assert_eq!(http(&backend, "/health").await, "200 {\"health\":\"true\"}");
    let version = http(&backend, "/version").await;
    assert!(version.contains("\"etcdserver\":\"3.4."), "{version}");
    assert!(version.contains("\"etcdcluster\":\"3.4.0\""), "{version}");
    assert!(http(&backend, "/nothing").await.starts_with("404"));
}

async fn grpc_s_own_health_service_says_serving(backend: Backend) {
    let endpoint = format!("http://{}", backend.address());
    let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
    let mut client = HealthClient::new(endpoint.connect_lazy());
    let answer = client.check(HealthCheckRequest { service: String::new() }).await.unwrap();
    assert_eq!(answer.into_inner().status, 1, "SERVING");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_is_not_healthy() {
    let limits = Limits { store_bytes: 20_000, ..Limits::default() };
    let backend = Backend::Ours(Ours::start(Ours::limited(limits)));
    let client = backend.client();
    for n in 0..40 {
        let _ = client.put(&[n], &[0; 1_000]).await;
    }
    assert_eq!(http(&backend, "/health").await, "503 {\"health\":\"false\"}");
}

/// Messages that are none, each with etcd's code; the servers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_message_is_refused_as_by_etcd() {
    let (ours, etcd) = (Ours::start(ServerConfig::default()), Etcd::start(&[]).await);
    let (mine, theirs) = (RawClient::new(ours.address), RawClient::new(etcd.address));
    let messages: [(&str, Vec<u8>); 7] = [
        ("a length beyond the end", vec![0x0a, 9, 1]),
        ("a number that does not end", vec![0xff; 12]),
        ("a field of number zero", vec![0x02, 0]),
        ("a number where there are bytes", vec![0x08, 7]),
        ("a group that does not end", vec![0x0b]),
        ("an end of no group", vec![0x0c]),
        (
            "a request that is too large",
            [&[0x0a, 0x80, 0x80, 0x80, 0x02][..], &vec![7; 4 << 20]].concat(),
        ),
    ];
    for (what, message) in messages {
        for path in
            ["/etcdserverpb.KV/Put", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant"]
        {
            let told = mine.call(path, message.clone()).await;
            let wanted = theirs.call(path, message.clone()).await;
            assert_eq!(
                outcome(&told),
                outcome(&wanted),
                "{what} to {path}:\nours {told:?}\netcd {wanted:?}"
            );
        }
    }
    client_of(ours.address).put(b"/a", b"1").await.unwrap();
}

/// Bytes that are no HTTP at all, cut at every place that matters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_http_end_their_own_connection_alone() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let ours = Ours::start(ServerConfig::default());
    let frame = |kind: u8, stream: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).unwrap();
        [PREFACE, &[0, 0, length, kind, 0, 0, 0, 0, stream], payload].concat()
    };
    let inputs: [Vec<u8>; 8] = [
        b"\x16\x03\x01\x02\x00\x01".to_vec(),
        vec![0; 4_096],
        PREFACE[..10].to_vec(),
        [PREFACE, &[0xff; 64]].concat(),
        // Settings of five bytes, data for no stream, an update by zero, a header block that is none.
        frame(4, 0, &[1; 5]),
        frame(0, 1, b"data"),
        frame(8, 0, &[0; 4]),
        frame(1, 1, &[0xff; 20]),
    ];
    for input in inputs {
        let mut stream = TcpStream::connect(ours.address).await.unwrap();
        stream.write_all(&input).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(EVENTUALLY, stream.read_to_end(&mut answer)).await;
        // Closed or reset, whichever; what it says on the way is HTTP/2's matter.
        drop(ended.unwrap_or_else(|_| panic!("{input:?} ends its connection")));
        assert!(answer.len() < 1_000, "no more than was needed: {}", answer.len());
    }
    client_of(ours.address).put(b"/a", b"1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_too_many_is_closed_and_a_mute_one_gives_its_place_back() {
    let limits = Limits { connections: 3, silence: Duration::from_secs(1), ..Limits::default() };
    let ours = Ours::start(Ours::limited(limits));
    let client = client_of(ours.address);
    client.put(b"/a", b"1").await.unwrap();
    let mut mute = Vec::new();
    for _ in 0..2 {
        mute.push(TcpStream::connect(ours.address).await.unwrap());
    }

    let mut fourth = TcpStream::connect(ours.address).await.unwrap();
    assert_closed(&mut fourth).await;
    client.put(b"/a", b"2").await.unwrap();

    for stream in &mut mute {
        assert_closed(stream).await;
    }
    let newcomer = client_of(ours.address);
    let mut tries = 0;
    while newcomer.put(b"/a", b"3").await.is_err() {
        tries += 1;
        assert!(tries < 100, "a place is free again within 5 s");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// 1,000 connections that all write and watch beside 500 that say nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_are_all_served_and_mute_ones_are_not_noticed() {
    raise_descriptor_limit();
    let ours = Ours::start(ServerConfig::default());
    let mut mute = Vec::new();
    for _ in 0..500 {
        mute.push(TcpStream::connect(ours.address).await.unwrap());
    }
    let clients: Vec<EtcdClient> = (0..1_000).map(|_| client_of(ours.address)).collect();
    let mut writes = tokio::task::JoinSet::new();
    for (n, client) in clients.iter().cloned().enumerate() {
        writes.spawn(async move { client.put(format!("/{n}").as_bytes(), b"1").await });
    }
    let mut revisions = BTreeSet::new();
    while let Some(done) = writes.join_next().await {
        revisions.insert(done.unwrap().unwrap());
    }
    assert_eq!(revisions.len(), 1_000, "each write is a revision of its own");
    let last = client_of(ours.address).get(b"/999").await.unwrap().unwrap();
    assert_eq!(last.value, b"1");
}

/// 5,000 watchers on ten connections, each told of one put and of one deletion, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_watchers_hear_the_same() {
    const STREAMS: usize = 10;
    const EACH: i64 = 500;
    let ours = Ours::start(ServerConfig::default());
    let client = client_of(ours.address);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let creates: Vec<Vec<u8>> = (1..=EACH).map(create_watch).collect();
        // Open until the end: a client that has sent all keeps its stream.
        let messages = tokio_stream::iter(creates).chain(tokio_stream::pending());
        let raw = RawClient::new(ours.address);
        let mut answers = raw.stream("/etcdserverpb.Watch/Watch", messages).await.unwrap();
        for _ in 0..EACH {
            assert!(heard(&mut answers).await.created);
        }
        streams.push(answers);
    }

    client.put(b"/watched", b"1").await.unwrap();
    let one = client.get(b"/watched").await.unwrap().unwrap();
    client.delete_if(b"/watched", one.modified).await.unwrap();

    for answers in &mut streams {
        let mut told: Vec<Vec<i32>> = vec![Vec::new(); usize::try_from(EACH).unwrap()];
        while told.iter().any(|kinds| kinds.len() < 2) {
            let answer = heard(answers).await;
            let at = usize::try_from(answer.watch_id - 1).unwrap();
            told[at].extend(answer.events.iter().map(|event| event.r#type));
        }
        assert!(told.iter().all(|kinds| kinds == &[0, 1]), "a put, then a deletion");
    }
}

/// A watcher whose client sends a request a second hears as fast as any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_dribbles_its_bytes_holds_nobody_back() {
    let ours = Ours::start(ServerConfig::default());
    let mut slow = TcpStream::connect(ours.address).await.unwrap();
    let client = client_of(ours.address);
    let mut watch = watch_of(&client).await;
    for byte in b"PRI * HTTP/2.0" {
        slow.write_all(&[*byte]).await.unwrap();
        client.put(b"/watched/a", &[*byte]).await.unwrap();
        assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));
    }
}

/// The code of a refusal, if it is one. What is too large to be read at all is out of range to our library, and
/// exhausts a resource to etcd's (docs/store.md).
fn outcome(answer: &Result<Vec<u8>, Status>) -> Option<Code> {
    match answer.as_ref().err().map(Status::code) {
        Some(Code::OutOfRange) => Some(Code::ResourceExhausted),
        other => other,
    }
}

async fn watch_of(client: &EtcdClient) -> Watch {
    let mut watch = client.watch(crate::watch::request(&["/watched/"]));
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));
    watch
}

/// The next answer of a stream.
async fn heard(answers: &mut tonic::Streaming<Vec<u8>>) -> WatchResponse {
    let answer = timeout(EVENTUALLY, answers.message()).await.expect("within 10 s");
    let bytes = answer.unwrap().expect("the stream goes on");
    WatchResponse::decode(&*bytes).unwrap()
}

fn create_watch(watch_id: i64) -> Vec<u8> {
    let create =
        WatchCreateRequest { key: b"/watched".to_vec(), watch_id, ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
}

/// The status and the body of one plain request.
async fn http(backend: &Backend, path: &str) -> String {
    let mut stream = TcpStream::connect(backend.address()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(EVENTUALLY, stream.read_to_string(&mut answer)).await.expect("within 10 s").unwrap();
    let status = answer.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    format!("{status} {}", body.trim_end())
}

async fn assert_closed(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    let ended = timeout(EVENTUALLY, stream.read_to_end(&mut answer)).await;
    // Closed or reset: either way it is over.
    drop(ended.expect("closed within 10 s"));
}

/// This process has both ends of every connection.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}
