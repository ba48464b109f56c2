//! Two nodes that seal, in namespaces of the test's own, and numbered packets between them.

mod relay;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use russet_engine::{
    TakeOverError,
    control::{Control, End},
    key,
    shared::Pace,
};
use russet_kernel::{
    engine::{Client, EngineEnd, EnginePeerSpec, EngineSpec, EngineWire, WireguardSpec},
    netns::Namespace,
    tun::Tun,
};
use russet_net::{IfName, Prefix, PublicKey};

use crate::tools::{eventually, ip};

/// A node.
pub struct Side {
    pub n: u8,
    pub inside: Namespace,
    folder: tempfile::TempDir,
    pub socket: PathBuf,
    other: PublicKey,
    /// Where the other is, seen from here.
    way: SocketAddr,
}

impl Side {
    pub fn pair() -> [Self; 2] {
        let folders = [0, 1].map(|_| tempfile::tempdir().unwrap());
        let [one, two] = folders.each_ref().map(|it| key::public(&key_in(it.path())).unwrap());
        let [first, second] = folders;
        let sides = [Self::new(1, first, two), Self::new(2, second, one)];
        let far = sides[1].inside.path();
        let line = "link add under type veth peer name under netns";
        let join = || ip(&format!("{line} {}", far.display()));
        sides[0].inside.run(join).unwrap();
        for side in &sides {
            side.inside.run(|| side.address()).unwrap();
        }
        sides
    }

    /// Two nodes with a tenth of a second there and back between them.
    pub fn distant_pair() -> [Self; 2] {
        let [mut a, mut b] = Self::pair();
        relay::start(&a);
        a.way = ([192, 168, 77, 1], relay::NEAR).into();
        b.way = ([192, 168, 77, 1], relay::FAR).into();
        [a, b]
    }

    fn new(n: u8, folder: tempfile::TempDir, other: PublicKey) -> Self {
        let socket = folder.path().join("rst.t.sock");
        let way = ([192, 168, 77, 3 - n], 51_820).into();
        Self { n, inside: Namespace::create().unwrap(), folder, socket, other, way }
    }

    fn address(&self) {
        let n = self.n;
        Tun::create(link()).unwrap().persist().unwrap();
        ip("link set lo up");
        ip(&format!("addr add 192.168.77.{n}/24 dev under"));
        ip("link set under up");
        ip("link set rst.t mtu 1420 up");
        ip(&format!("addr add 10.0.{n}.1/32 dev rst.t"));
        ip("route add 10.0.0.0/16 dev rst.t");
    }

    /// An engine at work, with its peer.
    pub fn start(&self) -> JoinHandle<End> {
        let control = Control::listen(link(), &self.socket, Pace::Batches).unwrap();
        let engine = self.serve(control.with_key(Some(key_in(self.folder.path()))));
        let client = self.client();
        client.start(spec(self.n)).unwrap();
        let (prefix, peer) = self.peer();
        client.patch(&[(prefix, Some(peer))]).unwrap();
        engine
    }

    pub fn succeed(&self) -> Result<Control, TakeOverError> {
        let key = key_in(self.folder.path());
        self.inside.run(|| Control::take_over(link(), &self.socket, Some(key))).unwrap()
    }

    pub fn serve(&self, control: Control) -> JoinHandle<End> {
        let namespace = Namespace::open(&self.inside.path()).unwrap();
        thread::spawn(move || namespace.run(|| control.serve()).unwrap())
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }

    /// A socket where an engine's would be.
    pub fn listen(&self) -> OwnedFd {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
        let fd = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&fd, &SocketAddrUnix::new(&self.socket).unwrap()).unwrap();
        listen(&fd, 8).unwrap();
        fd
    }

    pub fn peer(&self) -> (Prefix, EnginePeerSpec) {
        let other = 3 - self.n;
        let prefix = Prefix::around([10, 0, other, 0].into(), 24).unwrap();
        (prefix, EnginePeerSpec { endpoint: self.way, key: Some(self.other) })
    }

    pub fn outer_socket(&self) -> UdpSocket {
        self.inside.run(|| UdpSocket::bind(("0.0.0.0", 0)).unwrap()).unwrap()
    }

    fn inner_socket(&self) -> UdpSocket {
        self.inside.run(|| UdpSocket::bind((IpAddr::from([10, 0, self.n, 1]), 0)).unwrap()).unwrap()
    }
}

/// Numbered packets from one node to the other, some thousand a second.
pub struct Flow {
    over: Arc<AtomicBool>,
    received: Arc<AtomicU32>,
    sender: JoinHandle<u32>,
    /// The numbers of those that came.
    receiver: JoinHandle<BTreeSet<u32>>,
}

impl Flow {
    pub fn start(from: &Side, to: &Side) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicU32::new(0));
        let (near, far) = (from.inner_socket(), to.inner_socket());
        let at = far.local_addr().unwrap();
        far.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let sender = {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                let mut sent = 0_u32;
                while !over.load(Relaxed) {
                    near.send_to(&sent.to_be_bytes(), at).unwrap();
                    sent += 1;
                    thread::sleep(Duration::from_micros(200));
                }
                sent
            })
        };
        let count = Arc::clone(&received);
        let receiver = thread::spawn(move || {
            let mut came = BTreeSet::new();
            let mut number = [0; 4];
            // A second of silence after the last one is the end.
            while far.recv(&mut number).is_ok() {
                assert!(came.insert(u32::from_be_bytes(number)), "one came twice");
                count.fetch_add(1, Relaxed);
            }
            came
        });
        Self { over, received, sender, receiver }
    }

    /// Waits until some packets more have come.
    pub fn flows(&self) {
        let before = self.received.load(Relaxed);
        eventually(|| (self.received.load(Relaxed) > before + 50).then_some(()));
    }

    /// How many were sent, and which of them never came.
    pub fn stop(self) -> (u32, Vec<u32>) {
        self.over.store(true, Relaxed);
        let sent = self.sender.join().unwrap();
        let came = self.receiver.join().unwrap();
        (sent, (0..sent).filter(|number| !came.contains(number)).collect())
    }
}

pub fn link() -> IfName {
    "rst.t".parse().unwrap()
}

pub fn spec(n: u8) -> EngineSpec {
    let end = EngineEnd { listen: ([192, 168, 77, n], 51_820).into(), inner: [10, 0, n, 1].into() };
    let wire = EngineWire::Wireguard(WireguardSpec { psk: None, keepalive: 0 });
    EngineSpec { wire, v4: Some(end), v6: None }
}

fn key_in(folder: &Path) -> PathBuf {
    folder.join("wireguard.key")
}
