//! Two engines in namespaces of the test's own.
//!
//! ```text
//!   namespace A                wire: a namespace with nothing but lo             namespace B
//!   10.0.1.1 ─ rst.1 ═ engine ═ 127.0.0.1:8285 ── lo ── 127.0.0.2:8285 ═ engine ═ rst.2 ─ 10.0.2.1
//! ```

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
};

use boringtun::x25519::{self, StaticSecret};
use russet_engine::{
    engine::{Engine, Kept, Setup},
    shared::{Holdings, Pace},
    socket::{self, ReceiveOffload},
    tunnel::Vault,
};
use russet_kernel::{
    engine::{EngineEnd, EnginePeerSpec, EngineSpec, EngineWire},
    netns::Namespace,
    tun::Tun,
};
use russet_net::{IfName, Prefix, PublicKey};

use crate::tools::ip;

pub struct Pair {
    pub a: Engine,
    pub b: Engine,
    pub inside_a: Namespace,
    pub inside_b: Namespace,
    pub wire: Namespace,
}

impl Pair {
    pub fn new(pace: Pace) -> Self {
        Self::of(pace, EngineWire::Udp)
    }

    pub fn of(pace: Pace, way: EngineWire) -> Self {
        let wire = Namespace::create().unwrap();
        wire.run(|| ip("link set lo up")).unwrap();
        let (inside_a, a) = side(&wire, 1, pace, way);
        let (inside_b, b) = side(&wire, 2, pace, way);
        Self { a, b, inside_a, inside_b, wire }
    }
}

const NOWHERE: EngineSpec = EngineSpec { wire: EngineWire::Udp, v4: None, v6: None };

fn side(wire: &Namespace, n: u8, pace: Pace, way: EngineWire) -> (Namespace, Engine) {
    let inside = Namespace::create().unwrap();
    let link: IfName = format!("rst.{n}").parse().unwrap();
    let end = |family| EngineEnd {
        listen: SocketAddr::new(outer(n, family), 8_285),
        inner: inner(n, family),
    };
    if n == 1 {
        // `lo` has 127.0.0.0/8, and of IPv6 one address only.
        wire.run(|| {
            ip("addr add fd77::1/128 dev lo nodad && ip addr add fd77::2/128 dev lo nodad");
        })
        .unwrap();
    }
    let spec = EngineSpec { wire: way, v4: Some(end(4)), v6: Some(end(6)) };
    let setup = Setup { link, spec, pace };
    inside
        .run(|| {
            Tun::create(link).unwrap().persist().unwrap();
            ip(&format!("link set {link} mtu 1400 up"));
            ip(&format!("addr add {}/32 dev {link}", inner(n, 4)));
            ip(&format!("addr add {}/128 dev {link} nodad", inner(n, 6)));
            ip(&format!("route add 10.0.0.0/16 dev {link}"));
            ip(&format!("route add fd00::/16 dev {link}"));
            // Our own answers come in from an address that is our own.
            let accept_local = format!("/proc/sys/net/ipv4/conf/{link}/accept_local");
            std::fs::write(accept_local, "1").unwrap();
        })
        .unwrap();
    // The device is the namespace's, the sockets are the wire's.
    let holdings = inside.run(|| Holdings::open(&Setup { spec: NOWHERE, ..setup }).unwrap());
    let sockets = wire.run(|| {
        let receive = match pace {
            Pace::Batches => ReceiveOffload::On,
            Pace::OneByOne => ReceiveOffload::Off,
        };
        let open = |family| {
            let queues = 0..holdings.as_ref().unwrap().tuns.len();
            queues.map(|_| socket::open(end(family).listen, receive).unwrap()).collect()
        };
        (open(4), open(6))
    });
    let (v4, v6) = sockets.unwrap();
    let holdings = Holdings { v4, v6, ..holdings.unwrap() };
    let vault = match way {
        EngineWire::Udp => None,
        EngineWire::Wireguard(spec) => Some(Arc::new(Vault::new(secret(n), spec))),
    };
    let kept = Kept { vault, ..Kept::default() };
    let mut engine = Engine::start(setup, holdings, kept).unwrap();
    let other = 3 - n;
    let peer = |family| {
        let endpoint = SocketAddr::new(outer(other, family), 8_285);
        (prefix(other, family), Some(EnginePeerSpec { endpoint, key: Some(public(other)) }))
    };
    engine.patch([peer(4), peer(6)]);
    (inside, engine)
}

fn secret(n: u8) -> StaticSecret {
    StaticSecret::from([n; 32])
}

fn public(n: u8) -> PublicKey {
    PublicKey::new(x25519::PublicKey::from(&secret(n)).to_bytes())
}

pub fn inner(n: u8, family: u8) -> IpAddr {
    match family {
        4 => [10, 0, n, 1].into(),
        _ => [0xfd00, 0, 0, n.into(), 0, 0, 0, 1].into(),
    }
}

fn prefix(n: u8, family: u8) -> Prefix {
    Prefix::around(inner(n, family), if family == 4 { 24 } else { 64 }).unwrap()
}

fn outer(n: u8, family: u8) -> IpAddr {
    match family {
        4 => [127, 0, 0, n].into(),
        _ => [0xfd77, 0, 0, 0, 0, 0, 0, n.into()].into(),
    }
}

pub fn bound(at: impl std::net::ToSocketAddrs) -> UdpSocket {
    UdpSocket::bind(at).unwrap()
}
