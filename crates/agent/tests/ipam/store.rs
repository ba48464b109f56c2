//! The stores that tests run on.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use russet_store::{
    ClientConfig, EtcdClient,
    server::{ServerConfig, listen, serve},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Debian's etcd, killed when dropped.
pub(crate) struct Etcd {
    address: SocketAddr,
    flags: Vec<String>,
    child: Child,
    /// Goes with the server.
    _dir: tempfile::TempDir,
}

impl Etcd {
    /// Starts one and waits until it answers. One whose port somebody else was faster to take ends, and is followed
    /// by another.
    pub(crate) async fn start() -> Self {
        let until = Instant::now() + Duration::from_mins(1);
        let mut etcd = Self::begin();
        let mut client = etcd.client();
        while client.status().await.is_err() {
            assert!(Instant::now() < until, "etcd does not answer within 60 s");
            if etcd.child.try_wait().unwrap().is_some() {
                etcd = Self::begin();
                client = etcd.client();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        etcd
    }

    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, peer) = (free_address(), free_address());
        let flags = vec![
            format!("--listen-client-urls=http://{address}"),
            format!("--advertise-client-urls=http://{address}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
            format!("--data-dir={}", dir.path().join("etcd").display()),
            "--log-level=error".to_owned(),
            "--logger=zap".to_owned(),
        ];
        Self { address, child: spawn(&flags), flags, _dir: dir }
    }

    pub(crate) fn client(&self) -> EtcdClient {
        client_of(self.address)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it with what it has on disk.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.flags);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(flags: &[String]) -> Child {
    Command::new("etcd")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program etcd (package etcd-server) must be installed")
}

/// Our own store in this process, in memory.
pub(crate) struct Ours {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
    _task: JoinHandle<()>,
}

impl Ours {
    pub(crate) fn start() -> Self {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            serve(ServerConfig::default(), listener, shutdown).await.unwrap();
        });
        Self { address, _stop: stop, _task: task }
    }

    pub(crate) fn client(&self) -> EtcdClient {
        client_of(self.address)
    }
}

fn client_of(address: SocketAddr) -> EtcdClient {
    EtcdClient::new(&ClientConfig::plain([format!("http://{address}")]).unwrap())
}

/// An address that nobody listens at just now, below the ports that the kernel gives to connections.
fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(89);
    for _ in 0..PORTS {
        let offset = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(20_000 + offset).unwrap();
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
    panic!("every port from 20000 on is taken");
}

const PORTS: u32 = 12_000;

/// Waits until something is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    within: Duration,
    is_so: impl Fn() -> F,
) {
    let until = Instant::now() + within;
    while !is_so().await {
        assert!(Instant::now() < until, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
