//! Snapshots: ours restored into a real etcd, etcd's into ours, and what is damaged refused.

use std::{net::SocketAddr, path::Path, process::Command};

use russet_store::{
    proto::{
        etcdserverpb::{
            HashKvRequest, PutRequest, RangeRequest, RangeResponse, kv_client::KvClient,
            maintenance_client::MaintenanceClient,
        },
        mvccpb::KeyValue,
    },
    server::{Keep, ServerConfig},
    snapshot,
};
use tonic::transport::Channel;

use crate::backend::{Etcd, Ours, etcdctl};

/// Puts, deletes, a lease, a compaction and a value that is larger than a page.
async fn fill(address: SocketAddr) {
    let large = "x".repeat(20_000);
    for n in 0..300 {
        etcdctl_batch(address, &format!("put /k/{} value-{n}\n", n % 90)).await;
    }
    etcdctl(address, &["put", "/large", &large], "").await;
    etcdctl(address, &["put", "/large", "small"], "").await;
    etcdctl(address, &["put", "/large", &large], "").await;
    etcdctl(address, &["del", "--prefix", "/k/1"], "").await;
    let granted = etcdctl(address, &["lease", "grant", "7000"], "").await;
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    etcdctl(address, &["put", "/leased", "value", "--lease", &id], "").await;
    etcdctl(address, &["compact", "200", "--physical"], "").await;
    etcdctl(address, &["del", "/k/50"], "").await;
}

/// Several commands cost one program each; a transaction of one put is as good.
async fn etcdctl_batch(address: SocketAddr, put: &str) {
    let mut words = put.split_whitespace().skip(1);
    let request = PutRequest {
        key: words.next().unwrap().into(),
        value: words.next().unwrap().into(),
        ..PutRequest::default()
    };
    KvClient::new(channel(address)).put(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_ours_becomes_an_etcd_with_the_same_history() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, saved) = (ours_in(dir.path()), dir.path().join("saved.db"));
    fill(ours.address).await;
    save(ours.address, &saved).await;

    let told = snapshot::status(&saved).unwrap();
    let etcdctl_says =
        etcdctl(ours.address, &["snapshot", "status", path(&saved), "-w", "fields"], "").await;
    for (name, value) in [
        ("Hash", u64::from(told.hash)),
        ("Revision", told.revision),
        ("Keys", told.keys),
        ("Size", told.bytes),
    ] {
        assert!(
            etcdctl_says.contains(&format!("\"{name}\" : {value}\n")),
            "{name}: {etcdctl_says} {told:?}"
        );
    }

    let data = dir.path().join("etcd");
    etcdctl(ours.address, &["snapshot", "restore", path(&saved), "--data-dir", path(&data)], "")
        .await;
    let etcd = Etcd::start_restored(data).await;
    same(ours.address, etcd.address).await;
    // It goes on where ours was.
    let mut kv = KvClient::new(channel(etcd.address));
    let next = kv.put(PutRequest { key: b"/next".to_vec(), ..PutRequest::default() }).await;
    let revision = next.unwrap().into_inner().header.unwrap().revision;
    assert_eq!(revision, newest(ours.address).await + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_an_etcd_becomes_ours_with_the_same_history() {
    let dir = tempfile::tempdir().unwrap();
    let (etcd, saved) = (Etcd::start(&[]).await, dir.path().join("saved.db"));
    fill(etcd.address).await;
    save(etcd.address, &saved).await;
    let file = dir.path().join("store.db");
    let revision = snapshot::restore(&saved, &file).unwrap();
    assert!(snapshot::restore(&saved, &file).is_err(), "never over a file that is there");

    let keep = Keep::File(file.clone());
    let ours = Ours::start(ServerConfig { keep, ..ServerConfig::default() });
    same(etcd.address, ours.address).await;
    ours.stop().await;

    // And back, from the file.
    let exported = dir.path().join("exported.db");
    assert_eq!(snapshot::export(&file, &exported).unwrap(), revision);
    assert!(snapshot::export(&file, &exported).is_err(), "never over a file that is there");
    assert_eq!(
        snapshot::status(&exported).unwrap().revision,
        snapshot::status(&saved).unwrap().revision
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_refused_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, saved) = (ours_in(dir.path()), dir.path().join("saved.db"));
    etcdctl(ours.address, &["put", "/a", "1"], "").await;
    save(ours.address, &saved).await;
    let good = std::fs::read(&saved).unwrap();
    let (bad, to) = (dir.path().join("bad.db"), dir.path().join("new.db"));
    let mut refused = 0;
    // Every byte of the trailer, and one in each part of every page; also cut at every page.
    for at in (0..good.len()).step_by(41).chain(good.len() - 32..good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&bad, bytes).unwrap();
        snapshot::restore(&bad, &to).unwrap_err();
        // Without its checksum it is a member's own database, which is taken as it is.
        if at != good.len() - 32 {
            std::fs::write(&bad, &good[..at]).unwrap();
            let cut = snapshot::restore(&bad, &to);
            assert!(cut.is_err(), "cut at {at} of {}: {cut:?}", good.len());
        }
        refused += 2;
    }
    assert!(refused > 500 && !to.exists());
    std::fs::write(&bad, "not a database").unwrap();
    let said = snapshot::status(&bad).unwrap_err();
    let said = std::error::Error::source(&said).unwrap().to_string();
    assert!(said.contains("not an etcd database"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_contents_have_etcds_hash() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, etcd) = (ours_in(dir.path()), Etcd::start(&[]).await);
    for address in [ours.address, etcd.address] {
        for n in 0..40 {
            etcdctl_batch(address, &format!("put /k/{} value-{n}\n", n % 7)).await;
        }
        etcdctl(address, &["del", "--prefix", "/k/1"], "").await;
    }
    for revision in [0, 42, 30, 2] {
        assert_eq!(
            hash(ours.address, revision).await,
            hash(etcd.address, revision).await,
            "at {revision}"
        );
    }
    for address in [ours.address, etcd.address] {
        etcdctl(address, &["compact", "20", "--physical"], "").await;
    }
    for revision in [0, 42, 30, 21, 20, 19, 99] {
        assert_eq!(
            hash(ours.address, revision).await,
            hash(etcd.address, revision).await,
            "at {revision}"
        );
    }
}

/// Both say the same of every key at every revision that is there, and of the lease.
async fn same(one: SocketAddr, other: SocketAddr) {
    let (mut left, mut right) = (KvClient::new(channel(one)), KvClient::new(channel(other)));
    for revision in [200, 201, 240, 290, 303, 304, 305, 306, 307, 308] {
        let (key, range_end) = (vec![0], vec![0]);
        let all = RangeRequest { key, range_end, revision, ..RangeRequest::default() };
        let (left, right) = (kvs(left.range(all.clone()).await), kvs(right.range(all).await));
        assert_eq!(left, right, "at {revision}");
    }
    assert_eq!(
        etcdctl(one, &["lease", "list"], "").await,
        etcdctl(other, &["lease", "list"], "").await
    );
    assert_eq!(hash(one, 0).await, hash(other, 0).await);
}

/// What was answered, or the words of a refusal.
fn kvs(
    answer: Result<tonic::Response<RangeResponse>, tonic::Status>,
) -> Result<Vec<KeyValue>, String> {
    let answer = answer.map_err(|status| status.message().to_owned())?;
    Ok(answer.into_inner().kvs)
}

async fn newest(address: SocketAddr) -> i64 {
    let one = RangeRequest { key: vec![1], ..RangeRequest::default() };
    let answer = KvClient::new(channel(address)).range(one).await.unwrap().into_inner();
    answer.header.unwrap().revision
}

async fn hash(address: SocketAddr, revision: i64) -> Result<(u32, i64), String> {
    let answer = MaintenanceClient::new(channel(address)).hash_kv(HashKvRequest { revision }).await;
    let answer = answer.map_err(|err| err.message().to_owned())?.into_inner();
    Ok((answer.hash, answer.compact_revision))
}

async fn save(address: SocketAddr, to: &Path) {
    etcdctl(address, &["snapshot", "save", path(to)], "").await;
    assert!(Command::new("test").arg("-s").arg(to).status().unwrap().success());
}

fn ours_in(dir: &Path) -> Ours {
    let keep = Keep::File(dir.join("ours.db"));
    Ours::start(ServerConfig { keep, ..ServerConfig::default() })
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn channel(address: SocketAddr) -> Channel {
    let endpoint = format!("http://{address}");
    tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect_lazy()
}
