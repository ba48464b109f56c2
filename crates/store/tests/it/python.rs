//! A Python client against our server, its words beside those that it has for etcd.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use russet_store::server::ServerConfig;

use crate::backend::{Etcd, Ours};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_is_answered_as_by_etcd() {
    let (ours, etcd) = (Ours::start(ServerConfig::default()), Etcd::start(&[]).await);
    let (mine, theirs) = (session(ours.address).await, session(etcd.address).await);
    assert_eq!(mine, theirs);
    assert!(mine.ends_with("snapshot edda0ced\n"), "it came to its end: {mine}");
}

async fn session(address: SocketAddr) -> String {
    let folder = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let child = tokio::process::Command::new(python())
        .arg(here.join("tests/it/python/client.py"))
        .arg(address.port().to_string())
        .arg(folder.path().join("snap"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, child).await.expect("it ends within a minute");
    let output = output.expect("the client starts");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    told
}

/// What `cargo xtask setup` made, with the client in it.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python/bin/python");
    assert!(python.exists(), "{} is missing: cargo xtask setup", python.display());
    python
}

const PATIENCE: Duration = Duration::from_mins(1);
