//! The two servers that every test of the contract runs against, and what tests share.

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener as StdListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use russet_store::{
    ClientConfig, EtcdClient, Watch, WatchEvent,
    server::{Keep, Limits, ServerConfig, listen, serve},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// A running server of either kind.
pub(crate) enum Backend {
    Ours(Ours),
    Etcd(Etcd),
}

impl Backend {
    /// Ours, with its file.
    #[expect(clippy::unused_async, reason = "as `etcd`, which waits: a macro names either")]
    pub(crate) async fn ours() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep::File(dir.path().join("store.db"));
        let mut ours = Ours::start(ServerConfig { keep, ..ServerConfig::default() });
        ours.dir = Some(dir);
        Self::Ours(ours)
    }

    pub(crate) async fn etcd() -> Self {
        Self::Etcd(Etcd::start(&[]).await)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Ours(ours) => ours.address,
            Self::Etcd(etcd) => etcd.address,
        }
    }

    pub(crate) fn client(&self) -> EtcdClient {
        client_of(self.address())
    }
}

/// Defines each test twice: against our server and against etcd.
macro_rules! against_both {
    ($($name:ident),* $(,)?) => {
        mod ours {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::backend::Backend::ours().await).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::backend::Backend::etcd().await).await;
            })*
        }
    };
}
pub(crate) use against_both;

/// Our server in this process.
pub(crate) struct Ours {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    /// Goes with the server.
    dir: Option<tempfile::TempDir>,
}

impl Ours {
    pub(crate) fn start(config: ServerConfig) -> Self {
        Self::start_at(config, "127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn start_at(config: ServerConfig, address: SocketAddr) -> Self {
        let listener = listen(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            serve(config, listener, shutdown).await.unwrap();
        });
        Self { address, stop: Some(stop), task, dir: None }
    }

    pub(crate) fn limited(limits: Limits) -> ServerConfig {
        ServerConfig { limits, ..ServerConfig::default() }
    }

    /// Shuts the server down and waits until it is.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }
}

/// Debian's etcd, killed when dropped.
pub(crate) struct Etcd {
    pub(crate) address: SocketAddr,
    /// Goes with the server.
    _dir: tempfile::TempDir,
    flags: Vec<String>,
    child: Child,
}

impl Etcd {
    /// Starts an etcd without TLS and waits until it answers.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let etcd = Self::start_unready("http", flags);
        wait_ready(&client_of(etcd.address)).await;
        etcd
    }

    /// Starts an etcd with what was restored into this folder.
    pub(crate) async fn start_restored(data: PathBuf) -> Self {
        let address = free_address();
        let client = format!("http://{address}");
        let flags = vec![
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            // The peers' address is what `etcdctl snapshot restore` wrote down; nobody comes.
            format!("--listen-peer-urls=http://{}", free_address()),
            format!("--data-dir={}", data.display()),
            "--log-level=error".to_owned(),
            "--logger=zap".to_owned(),
        ];
        let child = spawn_etcd(&flags);
        let etcd = Self { address, _dir: tempfile::tempdir().unwrap(), flags, child };
        wait_ready(&client_of(etcd.address)).await;
        etcd
    }

    pub(crate) fn start_unready(scheme: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, peer) = (free_address(), free_address());
        let client = format!("{scheme}://{address}");
        let mut all = vec![
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
            format!("--data-dir={}", dir.path().join("etcd").display()),
            "--log-level=error".to_owned(),
            "--logger=zap".to_owned(),
        ];
        all.extend(flags.iter().map(ToString::to_string));
        let child = spawn_etcd(&all);
        Self { address, _dir: dir, flags: all, child }
    }

    /// Kills the server and starts it again with what it has on disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn_etcd(&self.flags);
    }

    /// Asks the server to end and starts it again with what it has on disk.
    pub(crate) fn restart_in_peace(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
        self.child = spawn_etcd(&self.flags);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn_etcd(flags: &[String]) -> Child {
    Command::new("etcd")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program etcd (package etcd-server) must be installed")
}

/// Returns an address that nobody listens at just now, below the ports that the kernel gives to
/// connections: one of those could take it before a program that we start does.
pub(crate) fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    for _ in 0..PORTS {
        let offset = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(20_000 + offset).unwrap();
        if let Ok(listener) = StdListener::bind(("127.0.0.1", port)) {
            return listener.local_addr().unwrap();
        }
    }
    panic!("every port from 20000 on is taken");
}

const PORTS: u32 = 12_000;

pub(crate) fn client_of(address: SocketAddr) -> EtcdClient {
    EtcdClient::new(&ClientConfig::plain([format!("http://{address}")]).unwrap())
}

/// Waits until the server answers.
pub(crate) async fn wait_ready(client: &EtcdClient) {
    let mut said = String::new();
    for _ in 0..200 {
        match client.status().await {
            Ok(_) => return,
            Err(err) => {
                said.clear();
                let _ = write!(said, "{err:?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server does not answer: {said}");
}

/// Waits for the next event of a watch.
pub(crate) async fn next(watch: &mut Watch) -> WatchEvent {
    tokio::time::timeout(EVENTUALLY, watch.recv())
        .await
        .expect("an event within 10 s")
        .expect("the watch goes on")
}

/// Runs `etcdctl` and returns what it printed; it must succeed.
pub(crate) async fn etcdctl(address: SocketAddr, args: &[&str], stdin: &str) -> String {
    let (ok, text) = etcdctl_any(address, args, stdin).await;
    assert!(ok, "etcdctl {args:?}: {text}");
    text
}

/// Runs `etcdctl` and returns whether it succeeded and what it printed, errors included.
pub(crate) async fn etcdctl_any(address: SocketAddr, args: &[&str], stdin: &str) -> (bool, String) {
    use tokio::io::AsyncWriteExt;
    let mut child = start_etcdctl(address, args);
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).await.unwrap();
    drop(input);
    what_it_said(child, EVENTUALLY).await
}

/// The same for what takes long.
pub(crate) async fn etcdctl_within(
    address: SocketAddr,
    args: &[&str],
    within: Duration,
) -> (bool, String) {
    what_it_said(start_etcdctl(address, args), within).await
}

fn start_etcdctl(address: SocketAddr, args: &[&str]) -> tokio::process::Child {
    tokio::process::Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        // Without `http://`: etcdctl 3.4 would put it into the `:authority` of some calls, which the
        // HTTP/2 library of our server refuses as malformed.
        .arg(format!("--endpoints={address}"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program etcdctl (package etcd-client) must be installed")
}

async fn what_it_said(child: tokio::process::Child, within: Duration) -> (bool, String) {
    let output = tokio::time::timeout(within, child.wait_with_output()).await;
    let output = output.unwrap_or_else(|_| panic!("etcdctl ends within {within:?}")).unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Writes a file into the directory and returns its path.
pub(crate) fn write_file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

pub(crate) const EVENTUALLY: Duration = Duration::from_secs(10);
