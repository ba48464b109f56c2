//! Engines that seal, one taking the other's place under traffic.
//!
//! ```text
//!   namespace A                                                                     namespace B
//!   10.0.1.1 ─ rst.t ═ engine ═ 192.168.77.1:51820 ── veth ── 192.168.77.2:51820 ═ engine ═ rst.t ─ 10.0.2.1
//! ```

mod side;
mod tools;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use russet_engine::{
    control::End,
    engine::Setup,
    passage::Passage,
    shared::{Holdings, Pace},
};
use russet_kernel::engine::{
    BUILD, Client, receive, send,
    wire::{Answer, Ask, HandedOver, Hello, More},
};

use side::{Flow, Side, link, spec};
use tools::eventually;

#[test]
fn an_engine_is_succeeded_under_traffic_and_no_packet_is_lost() {
    nothing_is_lost_between(&Side::pair());
}

/// What waits for hands to be shaken, and what is under way in the end, is more than any queue holds.
#[test]
fn far_from_its_peers_neither() {
    nothing_is_lost_between(&Side::distant_pair());
}

fn nothing_is_lost_between([a, b]: &[Side; 2]) {
    let mut old = [a.start(), b.start()];
    // The kernel drops what is sent before it has noticed that the devices have their queues.
    for flow in [Flow::start(a, b), Flow::start(b, a)] {
        flow.flows();
        flow.stop();
    }
    let flows = [Flow::start(a, b), Flow::start(b, a)];
    flows.iter().for_each(Flow::flows);
    // One after the other, without waiting for what lingers.
    for (side, place) in [(a, 0), (b, 1), (a, 0)] {
        let successor = side.succeed().unwrap();
        let before = std::mem::replace(&mut old[place], side.serve(successor));
        assert_eq!(before.join().unwrap(), End::TakenOver);
        flows.iter().for_each(Flow::flows);
    }
    for flow in flows {
        let (sent, lost) = flow.stop();
        assert!(lost.is_empty(), "{lost:?} of {sent}");
    }
    for (side, engine) in [a, b].into_iter().zip(old) {
        side.client().stop().unwrap();
        assert_eq!(engine.join().unwrap(), End::Asked);
    }
}

#[test]
fn a_successor_that_dies_leaves_an_engine_that_goes_on() {
    let [a, b] = Side::pair();
    let engines = [a.start(), b.start()];
    let outward = Flow::start(&a, &b);
    for words in 0..=2 {
        outward.flows();
        let dying = a.client();
        let (answer, fds) = dying.ask(&Ask::Succeed).unwrap();
        assert!(matches!(answer, Answer::HandedOver(_)) && fds.len() >= 4);
        for _ in 0..3 {
            dying.hear().unwrap();
        }
        // It sends as before, until it hears that another does.
        outward.flows();
        for word in [Ask::Ready, Ask::TakenOver].into_iter().take(words) {
            assert_eq!(dying.ask(&word).unwrap().0, Answer::Done);
        }
        drop((dying, fds));
        let flow = Flow::start(&b, &a);
        flow.flows();
        flow.stop();
        outward.flows();
        assert_eq!(eventually(|| a.client().peers().ok()).len(), 1);
    }
    outward.stop();
    for (side, engine) in [&a, &b].into_iter().zip(engines) {
        side.client().stop().unwrap();
        assert_eq!(engine.join().unwrap(), End::Asked);
    }
}

#[test]
fn a_successor_that_is_too_late_is_told_so() {
    let [a, _b] = Side::pair();
    let engine = a.start();
    let slow = a.client();
    slow.ask(&Ask::Succeed).unwrap();
    for _ in 0..3 {
        slow.hear().unwrap();
    }
    // It is up again when the predecessor has given it up.
    eventually(|| a.client().peers().ok());
    let told = slow.ask(&Ask::Ready).unwrap_err().to_string();
    assert!(told.contains("too late"), "{told}");
    a.client().stop().unwrap();
    assert_eq!(engine.join().unwrap(), End::Asked);
}

#[test]
fn a_predecessor_that_dies_half_way_has_handed_over_all() {
    is_succeeded(|client, a, holdings, listener| {
        hand_over(client, &Ask::Succeed, holdings, listener, a);
        let [_ours, theirs] = Passage::pair().unwrap();
        say(client, &Answer::Passage(77), &[theirs.as_fd()]);
        say(client, &Answer::Living(Vec::new(), More::Nothing), &[]);
    });
}

#[test]
fn a_predecessor_of_an_older_version_is_taken_over_as_ever() {
    is_succeeded(|client, a, holdings, listener| {
        let refused = Answer::Refused("a message of kind 9 is not of its form".to_owned());
        answer(client, &Ask::Succeed, &refused, &[]);
        hand_over(client, &Ask::HandOver, holdings, listener, a);
        hear(client, &Ask::TakenOver);
    });
}

/// A predecessor of the test's own hands over what is there, and ends.
fn is_succeeded(predecessor: impl Fn(&OwnedFd, &Side, &Holdings, &OwnedFd) + Sync) {
    let [a, b] = Side::pair();
    let other = b.start();
    let listener = a.listen();
    let (successor, ()) = thread::scope(|scope| {
        let dying = scope.spawn(|| {
            let client = rustix::net::accept(&listener).unwrap();
            answer(&client, &Ask::Hello, &Answer::Hello(hello(&a)), &[]);
            let setup = Setup { link: link(), spec: spec(1), pace: Pace::Batches };
            let holdings = a.inside.run(|| Holdings::open(&setup).unwrap()).unwrap();
            predecessor(&client, &a, &holdings, &listener);
        });
        (a.succeed().unwrap(), dying.join().unwrap())
    });
    let engine = a.serve(successor);
    for flow in [Flow::start(&a, &b), Flow::start(&b, &a)] {
        flow.flows();
        flow.stop();
    }
    for (side, engine) in [(&a, engine), (&b, other)] {
        side.client().stop().unwrap();
        assert_eq!(engine.join().unwrap(), End::Asked);
    }
}

#[test]
fn a_flood_of_what_nobody_can_open_does_not_hold_up_the_handover() {
    let [a, b] = Side::pair();
    let engines = [a.start(), b.start()];
    let flow = Flow::start(&b, &a);
    flow.flows();
    let over = Arc::new(AtomicBool::new(false));
    let flood = {
        let (over, socket) = (Arc::clone(&over), b.outer_socket());
        thread::spawn(move || {
            // A packet's type, and an index that nobody has.
            let mut datagram = [0xee; 1_400];
            datagram[..4].copy_from_slice(&[4, 0, 0, 0]);
            while !over.load(Relaxed) {
                let _ = socket.send_to(&datagram, "192.168.77.1:51820");
            }
        })
    };
    let begun = Instant::now();
    let successor = a.succeed().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let [old, other] = engines;
    let engine = a.serve(successor);
    flow.flows();
    over.store(true, Relaxed);
    flood.join().unwrap();
    flow.flows();
    flow.stop();
    assert_eq!(old.join().unwrap(), End::TakenOver);
    for (side, engine) in [(&a, engine), (&b, other)] {
        side.client().stop().unwrap();
        assert_eq!(engine.join().unwrap(), End::Asked);
    }
}

#[test]
fn an_engine_that_is_stopped_ends_the_one_that_lingers_before_it() {
    let [a, _b] = Side::pair();
    let old = a.start();
    let new = a.serve(a.succeed().unwrap());
    let begun = Instant::now();
    a.client().stop().unwrap();
    assert_eq!((new.join().unwrap(), old.join().unwrap()), (End::Asked, End::TakenOver));
    assert!(begun.elapsed() < Duration::from_secs(2), "its port is still held");
    assert!(Client::connect(&a.socket).is_err());
}

/// The way of versions that know no other: it works, and what is under way is lost.
#[test]
fn a_successor_of_an_older_version_is_let_in() {
    let [a, b] = Side::pair();
    let engines = [a.start(), b.start()];
    let older = a.client();
    let (Answer::HandedOver(over), fds) = older.ask(&Ask::HandOver).unwrap() else { panic!() };
    assert_eq!(fds.len(), 2 + usize::from(over.queues + over.v4 + over.v6));
    let (Answer::Peers(peers, More::Nothing), _) = older.hear().unwrap() else { panic!() };
    assert_eq!(peers.len(), 1);
    older.tell(&Ask::TakenOver).unwrap();
    let [old, other] = engines;
    assert_eq!(old.join().unwrap(), End::TakenOver);
    b.client().stop().unwrap();
    assert_eq!(other.join().unwrap(), End::Asked);
}

fn hello(side: &Side) -> Hello {
    Hello { build: BUILD.to_owned(), pid: 1, spec: Some(spec(side.n)) }
}

fn hand_over(client: &OwnedFd, asked: &Ask, holdings: &Holdings, listener: &OwnedFd, side: &Side) {
    let count = |len: usize| u8::try_from(len).unwrap();
    let over = HandedOver {
        spec: spec(side.n),
        queues: count(holdings.tuns.len()),
        v4: count(holdings.v4.len()),
        v6: 0,
        offload: 3,
        pace: 0,
    };
    let mut fds = vec![holdings.anchor.as_fd()];
    fds.extend(holdings.tuns.iter().map(AsFd::as_fd));
    fds.extend(holdings.v4.iter().map(AsFd::as_fd));
    fds.push(listener.as_fd());
    answer(client, asked, &Answer::HandedOver(over), &fds);
    say(client, &Answer::Peers(vec![side.peer()], More::Nothing), &[]);
}

fn answer(to: &OwnedFd, wanted: &Ask, answer: &Answer, fds: &[BorrowedFd<'_>]) {
    hear(to, wanted);
    say(to, answer, fds);
}

fn hear(from: &OwnedFd, wanted: &Ask) {
    let mut buffer = [0; 64];
    let (len, _) = receive(from.as_fd(), &mut buffer).unwrap();
    assert_eq!(Ask::decode(&buffer[..len]).as_ref(), Ok(wanted));
}

fn say(to: &OwnedFd, answer: &Answer, fds: &[BorrowedFd<'_>]) {
    send(to.as_fd(), &answer.encode(), fds).unwrap();
}
