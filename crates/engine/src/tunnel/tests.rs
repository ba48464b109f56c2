//! Two tunnels, and what is sent between them.

use super::*;
use crate::{key, samples::Sample};

#[test]
fn a_packet_waits_for_the_handshake_and_comes_out_as_it_went_in() {
    let pair = Pair::new(None, None);
    let packet = Sample { payload: vec![7; 500], ..Sample::default() }.packet();
    let mut room = [0; 2_000];
    let (len, to) = pair.a.seal(&packet, &mut room).unwrap().unwrap();
    assert_eq!((len, to), (148, at(2)), "a greeting");
    assert!(pair.a.seal(&packet, &mut [0; 2_000]).unwrap().is_none(), "one is enough");

    let mut answer = [0; 2_000];
    let Opened::Answer(len) = pair.b.open(at(1), &room[..len], &mut answer).unwrap() else {
        panic!("no answer")
    };
    assert!(len <= 148, "never more than was received");
    let mut sign = [0; 2_000];
    let Opened::Answer(sign_len) = pair.a.open(at(2), &answer[..len], &mut sign).unwrap() else {
        panic!("no sign of life")
    };
    assert!(matches!(pair.b.open(at(1), &sign[..sign_len], &mut room), Ok(Opened::Alive)));
    for _ in 0..2 {
        let mut sealed = [0; 2_000];
        let len = pair.a.more(&mut sealed).unwrap();
        let Opened::Packet(len) = pair.b.open(at(1), &sealed[..len], &mut room).unwrap() else {
            panic!("no packet")
        };
        assert_eq!(room[..len], packet);
    }
    assert!(pair.a.more(&mut room).is_none());
    assert_ne!(pair.a.tick(&mut room), Tick::Asleep);
    assert!(pair.a.since_handshake().is_some());
}

#[test]
fn a_peer_that_moves_is_followed_and_an_old_packet_or_a_liar_is_not() {
    let pair = Pair::new(None, None);
    pair.shake_hands();
    let mut room = [0; 2_000];
    let packet = Sample { payload: vec![7; 50], ..Sample::default() }.packet();
    let (len, _) = pair.a.seal(&packet, &mut room).unwrap().unwrap();
    let sealed = room[..len].to_vec();
    assert!(matches!(pair.b.open(at(9), &sealed, &mut room), Ok(Opened::Packet(_))));
    assert_eq!(pair.b.seal(&packet, &mut room).unwrap().unwrap().1, at(9));

    assert_eq!(pair.b.open(at(7), &sealed, &mut room).unwrap_err(), Reason::Replayed);
    let mut forged = sealed;
    forged[30] ^= 1;
    forged[8] = 200;
    assert_eq!(pair.b.open(at(7), &forged, &mut room).unwrap_err(), Reason::Unsealed);
    assert_eq!(pair.b.seal(&packet, &mut room).unwrap().unwrap().1, at(9), "it stays");
}

#[test]
fn two_that_greet_each_other_at_once_greet_once() {
    let pair = Pair::new(None, None);
    let packet = Sample { payload: vec![7; 50], ..Sample::default() }.packet();
    let sides = [(&pair.a, at(2)), (&pair.b, at(1))];
    let seal = |side: &Tunnel| {
        let mut room = [0; 500];
        let sealed = side.seal(&packet, &mut room).unwrap();
        sealed.map(|(len, _)| room[..len].to_vec())
    };
    let open = |place: usize, datagram: &[u8]| {
        let (mut room, (side, from)) = ([0; 500], sides[place]);
        match side.open(from, datagram, &mut room).unwrap() {
            Opened::Answer(len) => room[..len].to_vec(),
            other => panic!("{other:?}"),
        }
    };
    let greetings = sides.map(|(side, _)| seal(side).unwrap());
    let answers = [open(0, &greetings[1]), open(1, &greetings[0])];
    assert!(sides.iter().all(|(side, _)| seal(side).is_none()), "it is the peer's turn");
    let signs = [open(0, &answers[1]), open(1, &answers[0])];
    for (n, (side, from)) in sides.into_iter().enumerate() {
        let mut room = [0; 500];
        assert!(matches!(side.open(from, &signs[1 - n], &mut room), Ok(Opened::Alive)));
        let (other, back) = sides[1 - n];
        for _ in 0..2 {
            let len = side.more(&mut room).unwrap();
            let opened = other.open(back, &room[..len], &mut [0; 500]).unwrap();
            assert!(matches!(opened, Opened::Packet(_)));
        }
        assert!(side.more(&mut room).is_none() && !side.has_waiting());
    }
}

#[test]
fn who_does_not_share_the_preshared_key_is_not_let_in() {
    let psk = |n| Some(russet_net::PresharedKey::new([n; 32]));
    Pair::new(psk(1), psk(1)).shake_hands();
    let pair = Pair::new(psk(1), psk(2));
    let (mut greeting, mut answer) = ([0; 200], [0; 200]);
    let (len, _) = pair.a.greet(&mut greeting).unwrap();
    let Ok(Opened::Answer(len)) = pair.b.open(at(1), &greeting[..len], &mut answer) else {
        panic!("a greeting says nothing of the shared key yet")
    };
    assert_eq!(pair.a.open(at(2), &answer[..len], &mut greeting).unwrap_err(), Reason::Unsealed);
}

#[test]
fn a_flood_of_greetings_is_answered_with_cookies_shorter_than_a_greeting() {
    let pair = Pair::new(None, None);
    let (mut greeting, mut room) = ([0; 200], [0; COOKIE]);
    let (len, _) = pair.a.greet(&mut greeting).unwrap();
    let mut cookies = 0;
    for _ in 0..500 {
        match pair.vault_b.sender(at(1).ip(), &greeting[..len], &mut room) {
            Sender::Key(key) => assert_eq!(key, pair.b.key),
            Sender::Cookie(cookie) => {
                assert!(cookie.len() < len);
                cookies += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(cookies >= 390, "{cookies}");
    // The load is forgotten a second later.
    let until = Instant::now() + Duration::from_secs(10);
    while !matches!(pair.vault_b.sender(at(1).ip(), &greeting[..len], &mut room), Sender::Key(_)) {
        assert!(Instant::now() < until, "not within 10 s");
        pair.vault_b.second();
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn octets_of_any_kind_are_from_nobody_and_make_nothing_panic() {
    let pair = Pair::new(None, None);
    pair.shake_hands();
    for len in 0..200 {
        for first in 0..6 {
            let mut octets = vec![0x5a; len];
            if len > 3 {
                octets[..4].copy_from_slice(&[first, 0, 0, 0]);
            }
            let _ = pair.vault_b.sender(at(1).ip(), &octets, &mut [0; COOKIE]);
            assert!(pair.b.open(at(1), &octets, &mut [0; 2_000]).is_err() || len == 0);
        }
    }
}

#[test]
fn nothing_tells_a_key() {
    let psk = russet_net::PresharedKey::new([0xab; 32]);
    let spec = WireguardSpec { psk: Some(psk), keepalive: 0 };
    let vault = Vault::new(StaticSecret::from([0xcd; 32]), spec);
    let told = format!("{vault:?} {:?}", vault.tunnel(PublicKey::new([1; 32]), at(1)));
    assert!(!told.contains("171") && !told.contains("205") && !told.contains("ab"), "{told}");
}

struct Pair {
    a: Tunnel,
    b: Tunnel,
    vault_b: Vault,
}

impl Pair {
    fn new(a: Option<russet_net::PresharedKey>, b: Option<russet_net::PresharedKey>) -> Self {
        let (one, two) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
        let keys = [key::public_of(&one), key::public_of(&two)];
        let vault = |secret, psk| Vault::new(secret, WireguardSpec { psk, keepalive: 0 });
        let (vault_a, vault_b) = (vault(one, a), vault(two, b));
        let (a, b) = (vault_a.tunnel(keys[1], at(2)), vault_b.tunnel(keys[0], at(1)));
        Self { a, b, vault_b }
    }

    fn shake_hands(&self) {
        let (mut one, mut two) = ([0; 200], [0; 200]);
        let (len, _) = self.a.greet(&mut one).unwrap();
        let Ok(Opened::Answer(len)) = self.b.open(at(1), &one[..len], &mut two) else { panic!() };
        let Ok(Opened::Answer(len)) = self.a.open(at(2), &two[..len], &mut one) else { panic!() };
        assert!(matches!(self.b.open(at(1), &one[..len], &mut two), Ok(Opened::Alive)));
    }
}

fn at(n: u8) -> SocketAddr {
    ([192, 168, 77, n], 51_820).into()
}
