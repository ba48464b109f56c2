//! The engine's socket, with a real device behind it.

mod tools;

use std::{
    net::SocketAddr,
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    thread::{self, JoinHandle},
};

use russet_engine::{
    control::{Control, End},
    shared::Pace,
};
use russet_kernel::{
    engine::{
        BUILD, Client, EngineEnd, EngineError, EnginePeerSpec, EngineSpec, EngineWire, receive,
        send, wire::Ask,
    },
    netns::Namespace,
    tun::Tun,
};
use russet_net::{IfName, Prefix};
use tools::{eventually, ip};

#[test]
fn an_engine_is_told_what_to_do_and_tells_what_it_does() {
    let place = Place::new();
    let engine = place.engine();
    let client = place.client();
    let (hello, anchor) = client.hello().unwrap();
    assert_eq!((hello.build.as_str(), hello.spec, anchor.is_some()), (BUILD, None, false));
    assert!(matches!(client.peers(), Err(EngineError::Refused(_))));

    client.start(spec()).unwrap();
    client.start(spec()).unwrap();
    let other = EngineSpec { wire: EngineWire::Udp, v6: None, v4: None };
    assert!(matches!(client.start(other), Err(EngineError::Refused(_))));
    let (hello, anchor) = client.hello().unwrap();
    assert_eq!((hello.spec, anchor.is_some()), (Some(spec()), true));

    // More than one datagram's worth.
    let rows: Vec<_> = (0..1_200).map(|n| (prefix(n), Some(peer(n)))).collect();
    client.patch(&rows).unwrap();
    assert_eq!(client.peers().unwrap().len(), 1_200);
    client.patch(&[(prefix(7), None)]).unwrap();
    assert!(client.peers().unwrap().iter().all(|(other, _)| *other != prefix(7)));
    let (totals, peers) = client.status().unwrap();
    assert_eq!(peers.len(), 1_199);
    assert!(totals.losses.iter().any(|(name, _)| name == "spoofed"));

    client.stop().unwrap();
    assert_eq!(engine.join().unwrap(), End::Asked);
    assert!(Client::connect(&place.socket).is_err());
}

#[test]
fn a_successor_takes_over_with_all_peers_and_the_old_one_ends() {
    let place = Place::new();
    let old = place.engine();
    let client = place.client();
    client.start(spec()).unwrap();
    let rows: Vec<_> = (0..1_200).map(|n| (prefix(n), Some(peer(n)))).collect();
    client.patch(&rows).unwrap();

    let successor = Control::take_over(link(), &place.socket, None).unwrap();
    assert_eq!(old.join().unwrap(), End::TakenOver);
    let new = thread::spawn(|| successor.serve());
    let client = place.client();
    assert_eq!(client.peers().unwrap().len(), 1_200);
    assert_eq!(client.hello().unwrap().0.spec, Some(spec()));
    client.stop().unwrap();
    assert_eq!(new.join().unwrap(), End::Asked);
}

#[test]
fn a_successor_that_dies_half_way_has_taken_nothing() {
    let place = Place::new();
    let engine = place.engine();
    let client = place.client();
    client.start(spec()).unwrap();
    client.patch(&[(prefix(1), Some(peer(1)))]).unwrap();

    let dying = place.client();
    let (_, fds) = dying.ask(&Ask::HandOver).unwrap();
    assert!(fds.len() >= 3);
    drop((dying, fds));
    let client = place.client();
    assert_eq!(client.peers().unwrap(), [(prefix(1), peer(1))]);
    client.stop().unwrap();
    assert_eq!(engine.join().unwrap(), End::Asked);
}

#[test]
fn what_is_no_question_is_refused_and_costs_nobody_else_anything() {
    let place = Place::new();
    let engine = place.engine();
    let stranger = place.client();
    for octets in [&b"GET / HTTP/1.1"[..], &[0; 9_000], b"RSE\x09\x01", b"RSE\x01\x02\x01\x04"] {
        send(stranger.as_fd(), octets, &[]).unwrap();
        assert!(matches!(stranger.hear(), Err(EngineError::Refused(_))));
    }
    // A stream is another kind of socket, and does not get in.
    assert!(UnixStream::connect(&place.socket).is_err());
    let many: Vec<_> = (0..20).map(|_| Client::connect(&place.socket).unwrap()).collect();
    assert!(receive(many[19].as_fd(), &mut [0; 9]).is_err(), "more than it serves are sent away");
    drop(many);
    let client = eventually(|| {
        let client = Client::connect(&place.socket).ok()?;
        client.hello().is_ok().then_some(client)
    });
    client.stop().unwrap();
    assert_eq!(engine.join().unwrap(), End::Asked);
}

#[test]
fn a_device_that_is_deleted_ends_the_engine() {
    let place = Place::new();
    let engine = place.engine();
    place.client().start(spec()).unwrap();
    place.inside.run(|| ip("link del rst.t")).unwrap();
    assert_eq!(engine.join().unwrap(), End::Failed);
}

/// A namespace with a device, and a folder for the socket.
struct Place {
    inside: Namespace,
    folder: tempfile::TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let inside = Namespace::create().unwrap();
        inside
            .run(|| {
                Tun::create(link()).unwrap().persist().unwrap();
                ip("link set lo up");
                ip("link set rst.t up");
            })
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine/rst.t.sock");
        Self { inside, folder, socket }
    }

    fn engine(&self) -> JoinHandle<End> {
        assert!(self.folder.path().exists());
        let control = Control::listen(link(), &self.socket, Pace::Batches).unwrap();
        let namespace = Namespace::open(&self.inside.path()).unwrap();
        thread::spawn(move || namespace.run(|| control.serve()).unwrap())
    }

    fn client(&self) -> Client {
        Client::connect(&self.socket).unwrap()
    }
}

fn link() -> IfName {
    "rst.t".parse().unwrap()
}

fn spec() -> EngineSpec {
    let end =
        EngineEnd { listen: "127.0.0.1:8285".parse().unwrap(), inner: "10.0.1.1".parse().unwrap() };
    EngineSpec { wire: EngineWire::Udp, v4: Some(end), v6: None }
}

fn prefix(n: u16) -> Prefix {
    let [high, low] = n.to_be_bytes();
    Prefix::around([10, 8 + high, low, 0].into(), 24).unwrap()
}

fn peer(n: u16) -> EnginePeerSpec {
    let [high, low] = n.to_be_bytes();
    EnginePeerSpec { endpoint: SocketAddr::from(([172, 16, high, low], 8_285)), key: None }
}
