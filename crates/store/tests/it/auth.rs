//! User and password against real etcd; our own server has no users.

use std::net::SocketAddr;

use russet_store::{
    ClientConfig, ClientSettings, EtcdClient, WatchEvent, WatchRequest, config::Secret,
};

use crate::{
    backend::{Backend, Etcd, client_of, etcdctl, next},
    proxy::{Mode, Proxy},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_right_password_reads_writes_and_watches() {
    let etcd = with_users().await;
    let client = user(etcd.address, "node", "pw");

    let revision = client.put(b"/net/a", b"1").await.unwrap();
    assert_eq!(client.get(b"/net/a").await.unwrap().unwrap().modified, revision);
    let mut watch = client.watch(request());
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));
    client.put(b"/net/a", b"2").await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));

    let err = client.put(b"/other", b"1").await.unwrap_err();
    assert!(err.is_unauthenticated() && !err.is_unavailable(), "{err:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_no_password_are_refused_as_such() {
    let etcd = with_users().await;
    for client in [user(etcd.address, "node", "wrong"), client_of(etcd.address)] {
        let err = client.put(b"/net/a", b"1").await.unwrap_err();
        assert!(err.is_unauthenticated() && !err.is_outcome_unknown(), "{err:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_the_server_no_longer_knows_is_replaced() {
    let mut etcd = with_users().await;
    let client = user(etcd.address, "node", "pw");
    let mut watch = client.watch(request());
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));
    client.put(b"/net/a", b"1").await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));

    // etcd keeps its tokens in memory.
    etcd.restart();

    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }));
    client.put(b"/net/a", b"2").await.unwrap();
    let WatchEvent::Changes { changes, .. } = next(&mut watch).await else { panic!("no change") };
    assert_eq!(changes.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_needs_no_right_beyond_its_prefix_to_resume() {
    let etcd = with_users().await;
    let proxy = Proxy::start(etcd.address).await;
    let mut watch = user(proxy.address, "node", "pw").watch(request());
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));

    proxy.set(Mode::Cut);
    assert!(matches!(next(&mut watch).await, WatchEvent::Interrupted { .. }));
    user(etcd.address, "node", "pw").put(b"/net/a", b"1").await.unwrap();
    proxy.set(Mode::Open);

    assert!(matches!(next(&mut watch).await, WatchEvent::Resumed { .. }));
    assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_to_a_server_without_users_does_no_harm() {
    for backend in [Backend::ours().await, Backend::etcd().await] {
        user(backend.address(), "node", "pw").put(b"/net/a", b"1").await.unwrap();
    }
}

/// An etcd with the user `node` that may read and write under `/net/`.
async fn with_users() -> Etcd {
    let etcd = Etcd::start(&[]).await;
    for args in [
        &["user", "add", "root:rootpw"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "net"],
        &["role", "grant-permission", "--prefix=true", "net", "readwrite", "/net/"],
        &["user", "add", "node:pw"],
        &["user", "grant-role", "node", "net"],
        &["auth", "enable"],
    ] {
        // The role root need not be added: etcd knows it.
        etcdctl(etcd.address, args, "").await;
    }
    etcd
}

fn user(address: SocketAddr, name: &str, password: &str) -> EtcdClient {
    let settings = ClientSettings {
        endpoints: vec![format!("http://{address}")],
        username: Some(name.to_owned()),
        password: Some(Secret::new(password)),
        ..ClientSettings::default()
    };
    EtcdClient::new(&ClientConfig::read(&settings).unwrap())
}

fn request() -> WatchRequest {
    WatchRequest { prefixes: vec![b"/net/".to_vec()], ..WatchRequest::default() }
}
