//! Two engines carry traffic: real devices and sockets, in namespaces of this test's own (`pair`).

mod pair;
mod tools;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use pair::{Pair, bound, inner};
use russet_engine::{
    counters::Reason,
    engine::Engine,
    shared::{Pace, Ways},
};
use russet_kernel::engine::{EngineWire, WireguardSpec};
use russet_net::PresharedKey;
use tools::eventually;

#[test]
fn tcp_and_udp_of_both_families_cross() {
    for pace in [Pace::Batches, Pace::OneByOne] {
        let pair = Pair::new(pace);
        for family in [4, 6] {
            assert_eq!(stream(&pair, family, 3 << 20), 3 << 20, "{pace:?} IPv{family}");
            assert_eq!(datagrams(&pair, family, 200, 900), 200, "{pace:?} IPv{family}");
        }
        let losses: u64 = losses(&pair).iter().sum();
        assert_eq!(losses, loss(&pair, Reason::NoRoute), "only what the kernel itself multicasts");
    }
}

#[test]
fn sealed_tcp_and_udp_of_both_families_cross() {
    for psk in [None, Some(PresharedKey::new([5; 32]))] {
        let pair = Pair::of(Pace::Batches, wireguard(psk));
        for family in [4, 6] {
            assert_eq!(stream(&pair, family, 3 << 20), 3 << 20, "IPv{family}");
            assert_eq!(datagrams(&pair, family, 200, 900), 200, "IPv{family}");
        }
        let losses: u64 = losses(&pair).iter().sum();
        assert_eq!(losses, loss(&pair, Reason::NoRoute), "only what the kernel itself multicasts");
        let sent = pair.a.shared().counters.sent.get();
        assert!(sent[4..].iter().sum::<u64>() > 20, "trains of more than 8: {sent:?}");
        for engine in [&pair.a, &pair.b] {
            let table = engine.table();
            let mut tunnels = table.peers().filter_map(|peer| peer.tunnel.as_ref());
            assert!(tunnels.all(|tunnel| tunnel.since_handshake().is_some()));
        }
    }
}

#[test]
fn what_is_not_sealed_by_a_peer_is_dropped_and_not_answered_with_more() {
    let pair = Pair::of(Pace::Batches, wireguard(None));
    stream(&pair, 4, 1 << 10);
    let stranger = pair.wire.run(|| bound("127.0.0.9:0")).unwrap();
    let before = pair.b.shared().counters.losses();
    for octets in [vec![], vec![1; 148], vec![4; 500], udp_packet([10, 0, 1, 1], [10, 0, 2, 1], 9)]
    {
        stranger.send_to(&octets, "127.0.0.2:8285").unwrap();
    }
    let wanted = before[Reason::Unsealed as usize] + 4;
    eventually(|| (loss_at_b(&pair, Reason::Unsealed) == wanted).then_some(()));
    stranger.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(stranger.recv(&mut [0; 200]).is_err(), "a stranger was answered");
    assert_eq!(stream(&pair, 4, 1 << 10), 1 << 10);
}

#[test]
fn sessions_outlive_a_stop_of_the_threads() {
    let mut pair = Pair::of(Pace::Batches, wireguard(None));
    for _ in 0..5 {
        assert_eq!(stream(&pair, 4, 1 << 16), 1 << 16);
        restart(&mut pair.b);
    }
    let table = pair.b.table();
    assert!(table.peers().any(|peer| peer.sent.get()[0] > 0));
}

fn wireguard(psk: Option<PresharedKey>) -> EngineWire {
    EngineWire::Wireguard(WireguardSpec { psk, keepalive: 0 })
}

#[test]
fn batches_are_batches() {
    let pair = Pair::new(Pace::Batches);
    stream(&pair, 4, 8 << 20);
    let sent = pair.a.shared().counters.sent.get();
    let written = pair.b.shared().counters.written.get();
    assert!(sent[4..].iter().sum::<u64>() > 20, "trains of more than 8: {sent:?}");
    assert!(written[4..].iter().sum::<u64>() > 20, "runs of more than 8: {written:?}");
}

#[test]
fn strangers_and_liars_are_dropped_by_their_reason_and_nobody_is_answered() {
    let pair = Pair::new(Pace::Batches);
    let (stranger, liar) = pair.wire.run(|| (bound("127.0.0.9:0"), bound("127.0.0.1:0"))).unwrap();
    let good = udp_packet([10, 0, 1, 1], [10, 0, 2, 1], 9);
    let to = "127.0.0.2:8285";
    stranger.send_to(&good, to).unwrap();
    for bad in [
        udp_packet([10, 0, 7, 1], [10, 0, 2, 1], 9),
        udp_packet([10, 0, 1, 1], [10, 0, 1, 2], 9),
        udp_packet([10, 0, 1, 1], [10, 0, 2, 1], 1),
        good[..good.len() - 1].to_vec(),
        [&good[..], &[0]].concat(),
        vec![0xff; 60],
        vec![],
    ] {
        liar.send_to(&bad, to).unwrap();
    }
    let wanted = [
        (Reason::UnknownPeer, 1),
        (Reason::Spoofed, 1),
        (Reason::Looping, 1),
        (Reason::Hops, 1),
        (Reason::Short, 2),
        (Reason::Long, 1),
        (Reason::Malformed, 1),
    ];
    let is_so = |(reason, count): &(Reason, u64)| loss_at_b(&pair, *reason) == *count;
    eventually(|| wanted.iter().all(is_so).then_some(()));
    for socket in [stranger, liar] {
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(socket.recv(&mut [0; 64]).is_err(), "somebody was answered");
    }
}

#[test]
fn a_missing_route_is_told_to_the_sender() {
    let pair = Pair::new(Pace::Batches);
    let socket = pair.inside_a.run(|| bound("10.0.1.1:0")).unwrap();
    assert_eq!(unreachables(&pair), 0);
    socket.send_to(b"anybody?", "10.0.9.9:7").unwrap();
    eventually(|| (unreachables(&pair) == 1).then_some(()));
    assert!(loss(&pair, Reason::NoRoute) >= 1);
}

/// `InDestUnreachs` of namespace A.
fn unreachables(pair: &Pair) -> u64 {
    let text = pair.inside_a.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let text = text.unwrap();
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Icmp: "));
    let mut fields = rows.next().unwrap().split(' ').zip(rows.next().unwrap().split(' '));
    fields.find(|(name, _)| *name == "InDestUnreachs").unwrap().1.parse().unwrap()
}

#[test]
fn an_engine_that_stops_and_goes_on_has_lost_nothing() {
    let mut pair = Pair::new(Pace::Batches);
    let receiver = pair.inside_b.run(|| bound("10.0.2.1:9000")).unwrap();
    let sender = pair.inside_a.run(|| bound("10.0.1.1:0")).unwrap();
    for round in 0..20_u32 {
        for n in 0..10 {
            sender.send_to(&(round * 10 + n).to_be_bytes(), "10.0.2.1:9000").unwrap();
        }
        restart(&mut pair.b);
    }
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    for want in 0..200_u32 {
        let mut got = [0; 4];
        receiver.recv(&mut got).unwrap();
        assert_eq!(u32::from_be_bytes(got), want);
    }
}

fn restart(engine: &mut Engine) {
    engine.rest();
    engine.begin(Ways::Both).unwrap();
}

/// Sends so many octets from A to B, and returns how many arrived.
fn stream(pair: &Pair, family: u8, octets: usize) -> usize {
    let at = SocketAddr::new(inner(2, family), 0);
    let listener = pair.inside_b.run(|| TcpListener::bind(at).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut stream = pair.inside_a.run(|| TcpStream::connect(to).unwrap()).unwrap();
    let writer = thread::spawn(move || stream.write_all(&vec![7; octets]).unwrap());
    let (mut accepted, _) = listener.accept().unwrap();
    let mut got = Vec::new();
    accepted.read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(got.iter().all(|octet| *octet == 7));
    got.len()
}

fn datagrams(pair: &Pair, family: u8, count: usize, len: usize) -> usize {
    let receiver = pair.inside_b.run(|| bound(SocketAddr::new(inner(2, family), 0))).unwrap();
    let sender = pair.inside_a.run(|| bound(SocketAddr::new(inner(1, family), 0))).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let to = receiver.local_addr().unwrap();
    let mut got = 0;
    for _ in 0..count {
        sender.send_to(&vec![9; len], to).unwrap();
        got += usize::from(receiver.recv(&mut vec![0; len]).unwrap() == len);
    }
    got
}

fn losses(pair: &Pair) -> Vec<u64> {
    let (a, b) = (pair.a.shared().counters.losses(), pair.b.shared().counters.losses());
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

fn loss(pair: &Pair, reason: Reason) -> u64 {
    losses(pair)[reason as usize]
}

fn loss_at_b(pair: &Pair, reason: Reason) -> u64 {
    pair.b.shared().counters.losses()[reason as usize]
}

fn udp_packet(src: [u8; 4], dst: [u8; 4], hops: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(src, dst, hops).udp(1, 9_999).write(&mut packet, b"x").unwrap();
    packet
}
