//! Real `etcdctl` against our server, its words beside those that it has for etcd.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::backend::{EVENTUALLY, Etcd, Ours, etcdctl, etcdctl_any, etcdctl_within};
use russet_store::server::{Keep, ServerConfig};

/// What is typed: the arguments and the standard input.
type Typed = (&'static [&'static str], &'static str);

/// Each is run against both servers, in this order, each with what those before it left.
const SCRIPT: &[Typed] = &[
    (&["get", "/none"], ""),
    (&["put", "/k/b", "two"], ""),
    (&["put", "/k/a", "one"], ""),
    (&["put", "/k/c", "three"], ""),
    (&["put", "/z", "outside"], ""),
    (&["put", "--prev-kv", "/k/a", "uno"], ""),
    (&["put", "--ignore-value", "/k/a"], ""),
    (&["put", "--ignore-value", "/k/none"], ""),
    (&["get", "/k/a"], ""),
    (&["get", "-w", "fields", "/k/a"], ""),
    (&["get", "--prefix", "/k/"], ""),
    (&["get", "--prefix", "--keys-only", "/k/"], ""),
    (&["get", "--prefix", "--limit=2", "-w", "fields", "/k/"], ""),
    (&["get", "--prefix", "--count-only", "-w", "fields", "/k/"], ""),
    (&["get", "--prefix", "--order=DESCEND", "/k/"], ""),
    (&["get", "--prefix", "--sort-by=VALUE", "/k/"], ""),
    (&["get", "--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--limit=1", "/k/"], ""),
    (&["get", "--prefix", "--sort-by=VERSION", "/k/"], ""),
    (&["get", "--from-key", "/k/b"], ""),
    (&["get", "/k/a", "/k/c"], ""),
    (&["get", "--prefix", ""], ""),
    (&["get", "--rev=3", "--prefix", "/k/"], ""),
    (&["get", "--rev=99", "/k/a"], ""),
    (&["get", "/z", "/a"], ""),
    (&["txn", "-w", "fields"], "mod(\"/k/a\") > \"0\"\n\nput /k/d four\nget /k/d\ndel /k/c\n\n\n"),
    (&["txn"], "value(\"/k/a\") = \"nope\"\n\nput /k/e five\n\nget --prefix /k/\n\n"),
    (&["txn"], "ver(\"/none\") = \"0\"\ncreate(\"/k/a\") = \"3\"\n\nput /k/e five\n\n\n"),
    (&["txn"], "val(\"/none\") = \"\"\n\nput /k/f six\n\nget /k/a\n\n"),
    (&["txn"], "\nput /k/a 1\nput /k/a 2\n\n\n"),
    (&["txn"], "\nput /k/a 1\ndel --prefix /k/\n\n\n"),
    (&["txn"], "\nget --rev=99 /k/a\n\n\n"),
    (&["put", "--lease=1234", "/k/l", "v"], ""),
    (&["del", "--prev-kv", "/k/b"], ""),
    (&["del", "/k/b"], ""),
    (&["put", "/k/b", "again"], ""),
    (&["get", "-w", "fields", "/k/b"], ""),
    (&["get", "--rev=5", "/k/b"], ""),
    (&["compact", "6"], ""),
    (&["compact", "6"], ""),
    (&["compact", "999"], ""),
    (&["get", "--rev=5", "/k/b"], ""),
    (&["get", "--rev=6", "--prefix", "/k/"], ""),
    (&["del", "--prefix", "/k/"], ""),
    (&["get", "--prefix", ""], ""),
    (&["lease", "revoke", "1234"], ""),
    (&["lease", "timetolive", "1234"], ""),
    (&["lease", "keep-alive", "--once", "1234"], ""),
    (&["endpoint", "health"], ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_is_answered_as_by_etcd() {
    let (ours, etcd) = (Ours::start(ServerConfig::default()), Etcd::start(&[]).await);
    for (args, stdin) in SCRIPT {
        let mine = etcdctl_any(ours.address, args, stdin).await;
        let theirs = etcdctl_any(etcd.address, args, stdin).await;
        assert_eq!(
            normal(&mine, ours.address),
            normal(&theirs, etcd.address),
            "etcdctl {args:?} {stdin:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_grants_uses_and_revokes_leases_as_with_etcd() {
    let (ours, etcd) = (Ours::start(ServerConfig::default()), Etcd::start(&[]).await);
    let mine = lease_session(ours.address).await;
    assert_eq!(mine, lease_session(etcd.address).await);
    assert!(mine.iter().any(|text| text.contains("remaining(")), "{mine:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_watches_as_with_etcd() {
    let (ours, etcd) = (Ours::start(ServerConfig::default()), Etcd::start(&[]).await);
    let mine = watch_session(ours.address).await;
    assert_eq!(mine, watch_session(etcd.address).await);
    let history = ["PUT", "/k/a", "1", "PUT", "/k/a", "1", "/k/a", "2"];
    assert_eq!(&mine[..history.len()], history);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_sees_one_member_and_its_status() {
    let ours = Ours::start(ServerConfig::default());
    let members = etcdctl(ours.address, &["member", "list"], "").await;
    assert!(members.contains("started, russet"), "{members}");
    assert!(members.contains(&ours.address.to_string()), "{members}");
    let status = etcdctl(ours.address, &["endpoint", "status"], "").await;
    assert!(status.contains("3.4.0") && status.contains("true"), "{status}");
}

/// etcdctl's own load: 50 clients that write for a minute. Whether it was fast enough depends on who else uses the
/// machine, so what counts here is that nothing was refused; figures are the bench's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_checks_performance_to_the_end() {
    let (dir, keep) = (tempfile::tempdir().unwrap(), "store.db");
    let keep = Keep::File(dir.path().join(keep));
    let ours = Ours::start(ServerConfig { keep, ..ServerConfig::default() });
    let args = ["check", "perf", "--auto-compact", "--auto-defrag"];
    let (_, said) = etcdctl_within(ours.address, &args, Duration::from_mins(2)).await;
    for told in ["Throughput", "Slowest request", "Stddev", "Compacting with revision"] {
        assert!(said.contains(told), "{told} is missing in {said}");
    }
    assert!(!said.contains("error"), "{said}");
    assert!(said.contains("Defragmented"), "{said}");
    let left = etcdctl(ours.address, &["get", "--prefix", "--keys-only", ""], "").await;
    assert_eq!(left.trim(), "", "it takes its keys away");
}

/// Grants, attaches, looks, renews, revokes; returns what was printed with the lease's number hidden.
async fn lease_session(address: SocketAddr) -> Vec<String> {
    let granted = etcdctl(address, &["lease", "grant", "600"], "").await;
    let id = granted.split(' ').nth(1).unwrap().to_owned();
    let option = format!("--lease={id}");
    let mut said = vec![granted.clone()];
    for args in [
        vec!["put", &option, "/l/a", "1"],
        vec!["put", &option, "/l/b", "2"],
        vec!["put", "/l/a", "without"],
        vec!["put", "--ignore-lease", "/l/b", "3"],
        vec!["lease", "list"],
        vec!["lease", "timetolive", &id, "--keys"],
        vec!["lease", "keep-alive", "--once", &id],
        vec!["lease", "revoke", &id],
        vec!["get", "--prefix", "/l/"],
        vec!["lease", "list"],
    ] {
        said.push(etcdctl(address, &args, "").await);
    }
    // The time that is left may be a second less on a busy machine.
    let hide = |text: String| text.replace(&id, "ID").replace("(599s)", "(600s)");
    said.into_iter().map(hide).collect()
}

/// Watches with history and previous values while keys change; returns the lines.
async fn watch_session(address: SocketAddr) -> Vec<String> {
    etcdctl(address, &["put", "/k/a", "1"], "").await;
    etcdctl(address, &["put", "/k/a", "2"], "").await;
    let mut child = tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints=http://{address}"))
        .args(["watch", "--prefix", "--prev-kv", "--rev=1", "/k/"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program etcdctl (package etcd-client) must be installed");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    // Both writes of the past: three lines and five, then it hears what comes.
    read_lines(&mut lines, 8, &mut said).await;
    etcdctl(address, &["put", "/outside", "x"], "").await;
    etcdctl(address, &["put", "/k/b", "new"], "").await;
    etcdctl(address, &["del", "--prefix", "/k/"], "").await;
    read_lines(&mut lines, 13, &mut said).await;
    child.kill().await.unwrap();
    said
}

async fn read_lines(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    count: usize,
    said: &mut Vec<String>,
) {
    for _ in 0..count {
        let line = tokio::time::timeout(EVENTUALLY, lines.next_line()).await;
        said.push(line.unwrap_or_else(|_| panic!("more within 10 s: {said:#?}")).unwrap().unwrap());
    }
}

/// Hides what two servers may not have in common: numbers of theirs, times, addresses.
fn normal((ok, text): &(bool, String), address: SocketAddr) -> (bool, Vec<String>) {
    let own = ["\"ClusterID\"", "\"MemberID\"", "\"RaftTerm\""];
    let lines = text.lines().filter(|line| !own.iter().any(|field| line.starts_with(field)));
    let lines = lines.map(|line| match line.split_once("took = ") {
        Some((before, _)) => before.replace(&address.to_string(), "ADDRESS"),
        None => line
            .split_once("\"msg\":")
            .map_or(line, |(_, logged)| logged)
            .replace(&address.to_string(), "ADDRESS"),
    });
    // The client's own log lines have times and numbers in them; the error itself follows.
    (*ok, lines.filter(|line| !line.contains("retrying of unary invoker")).collect())
}
