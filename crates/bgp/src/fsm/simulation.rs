//! Two sessions that dial each other over a line with delay, on a virtual clock.
//!
//! Messages pass as octets. Faults cut connections, cut the line, and restart or reset a side; when they end,
//! the two must agree on one connection.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use russet_net::Asn;

use super::*;
use crate::wire::{
    Family, FamilySet, Frame, HoldTime, MessageKind, MessageLimit, Reason, RouterId,
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn two_that_dial_each_other_agree_on_one_connection_whatever_befell_them(
        seed in any::<u64>(),
        delay_ms in 0..400_u64,
        faults in proptest::collection::vec((0..120_000_u64, fault()), 0..12),
    ) {
        let mut line = Line::new(seed, Duration::from_millis(delay_ms));
        for (at, fault) in faults {
            line.schedule(Duration::from_millis(at), Event::Fault(fault));
        }
        line.run(Duration::from_mins(8));
        let ups = [line.sides[0].up, line.sides[1].up];
        prop_assert!(ups[0].is_some(), "{:?}", line.sides[0].session);
        prop_assert_eq!(ups[0], ups[1]);
        prop_assert!(line.open.len() == 1, "{:?} are open", line.open);
        prop_assert!(line.steps < 5_000, "{} steps", line.steps);
    }
}

#[test]
fn two_that_dial_at_once_are_up_without_a_second_attempt() {
    for delay_ms in [0, 1, 20, 300] {
        for seed in 0..20 {
            let mut line = Line::new(seed, Duration::from_millis(delay_ms));
            line.run(Duration::from_millis(delay_ms * 4));
            assert_eq!(line.next_tcp, 2, "both dialled, once");
            let ups = [line.sides[0].up, line.sides[1].up];
            assert!(ups[0].is_some() && ups[0] == ups[1], "{delay_ms} ms, seed {seed}: {ups:?}");
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Every connection breaks.
    Break,
    /// The operator resets one side.
    Reset(usize),
    /// One side starts anew and forgets everything.
    Restart(usize),
    /// Nobody gets through for a while.
    Away,
    Back,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Break),
        (0..2_usize).prop_map(Fault::Reset),
        (0..2_usize).prop_map(Fault::Restart),
        Just(Fault::Away),
        Just(Fault::Back),
    ]
}

#[derive(Debug)]
enum Event {
    Fault(Fault),
    Connect { from: usize, conn: ConnId },
    Octets { to: usize, tcp: u32, octets: Vec<u8> },
    Closed { to: usize, tcp: u32 },
}

struct Side {
    session: Session,
    /// Which connection of ours is which of the line's.
    tcp: BTreeMap<ConnId, u32>,
    up: Option<u32>,
}

struct Line {
    start: Instant,
    now: Instant,
    delay: Duration,
    sides: [Side; 2],
    events: BTreeMap<(Instant, u64), Event>,
    next: u64,
    next_tcp: u32,
    /// Connections that neither side has closed.
    open: BTreeSet<u32>,
    is_away: bool,
    steps: usize,
}

impl Line {
    fn new(seed: u64, delay: Duration) -> Self {
        let start = Instant::now();
        let side = |number: u64| Side {
            session: Session::new(
                config(number),
                seed.rotate_left(7).wrapping_add(number * 0x9e37),
            ),
            tcp: BTreeMap::new(),
            up: None,
        };
        let mut line = Self {
            start,
            now: start,
            delay,
            sides: [side(0), side(1)],
            events: BTreeMap::new(),
            next: 0,
            next_tcp: 0,
            open: BTreeSet::new(),
            is_away: false,
            steps: 0,
        };
        line.feed(0, Input::Start);
        line.feed(1, Input::Start);
        line.schedule(Duration::from_mins(2), Event::Fault(Fault::Back));
        line
    }

    fn run(&mut self, time: Duration) {
        let end = self.start + time;
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let timeouts = [0, 1].map(|side| self.sides[side].session.poll_timeout());
            let Some(next) = event.into_iter().chain(timeouts.into_iter().flatten()).min() else {
                return;
            };
            if next > end {
                return;
            }
            self.now = self.now.max(next);
            self.steps += 1;
            if event == Some(next) {
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            } else {
                let side = usize::from(timeouts[0] != Some(next));
                self.feed(side, Input::Timeout);
            }
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.events.insert((self.now + after, self.next), event);
        self.next += 1;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(fault) => self.befall(fault),
            Event::Connect { from, conn } if self.is_away => {
                self.feed(from, Input::DialFailed(conn));
            }
            Event::Connect { from, conn } => {
                let tcp = self.next_tcp;
                self.next_tcp += 1;
                self.open.insert(tcp);
                let theirs = ConnId { direction: Direction::Incoming, number: tcp };
                self.sides[from].tcp.insert(conn, tcp);
                self.sides[1 - from].tcp.insert(theirs, tcp);
                self.feed(1 - from, Input::Accepted(theirs));
                self.feed(from, Input::Dialed(conn));
            }
            Event::Octets { to, tcp, octets } => self.deliver(to, tcp, &octets),
            Event::Closed { to, tcp } => {
                if let Some(conn) = self.sides[to].conn(tcp) {
                    self.sides[to].tcp.remove(&conn);
                    self.feed(to, Input::Closed(conn));
                }
            }
        }
    }

    fn befall(&mut self, fault: Fault) {
        match fault {
            Fault::Break => {
                for tcp in std::mem::take(&mut self.open) {
                    (0..2).for_each(|to| self.schedule(Duration::ZERO, Event::Closed { to, tcp }));
                }
            }
            Fault::Reset(side) => {
                let notification = Notification::new(Reason::ADMIN_RESET);
                self.feed(side, Input::Close { notification, then: Then::Retry });
            }
            Fault::Restart(side) => {
                for tcp in std::mem::take(&mut self.sides[side].tcp).into_values() {
                    self.open.remove(&tcp);
                    self.schedule(self.delay, Event::Closed { to: 1 - side, tcp });
                }
                let number = u64::try_from(side).unwrap();
                self.sides[side].session = Session::new(config(number), self.next);
                self.sides[side].up = None;
                self.feed(side, Input::Start);
            }
            Fault::Away => {
                self.is_away = true;
                self.befall(Fault::Break);
            }
            Fault::Back => self.is_away = false,
        }
    }

    fn deliver(&mut self, to: usize, tcp: u32, octets: &[u8]) {
        let frame = Frame::read(octets, MessageLimit::Usual).unwrap().unwrap();
        let message = match frame.kind {
            MessageKind::Open => Received::Open(Box::new(Open::read(frame.body).unwrap())),
            MessageKind::Keepalive => Received::Keepalive,
            MessageKind::Notification => {
                Received::Notification(Notification::read(frame.body).unwrap())
            }
            other => panic!("{other:?} was never sent"),
        };
        if let Some(conn) = self.sides[to].conn(tcp) {
            self.feed(to, Input::Received { conn, message });
        }
    }

    fn feed(&mut self, side: usize, input: Input) {
        self.sides[side].session.handle(input, self.now);
        while let Some(output) = self.sides[side].session.poll_output() {
            self.obey(side, output);
        }
    }

    fn obey(&mut self, side: usize, output: Output) {
        match output {
            Output::Dial(conn) => self.schedule(self.delay, Event::Connect { from: side, conn }),
            Output::Abandon(abandoned) => self.events.retain(|_, event| {
                !matches!(event, Event::Connect { from, conn } if (*from, *conn) == (side, abandoned))
            }),
            Output::Send { conn, message } => {
                let Some(tcp) = self.sides[side].tcp.get(&conn).copied() else { return };
                let mut octets = Vec::new();
                message.write(&mut octets);
                self.schedule(self.delay, Event::Octets { to: 1 - side, tcp, octets });
            }
            Output::Close(conn) => {
                let Some(tcp) = self.sides[side].tcp.remove(&conn) else { return };
                self.open.remove(&tcp);
                self.schedule(self.delay, Event::Closed { to: 1 - side, tcp });
            }
            Output::Up { conn, .. } => {
                assert_eq!(self.sides[side].up, None, "up twice");
                self.sides[side].up = Some(self.sides[side].tcp[&conn]);
            }
            Output::Down(_) => {
                assert!(self.sides[side].up.take().is_some(), "down without having been up");
            }
        }
    }
}

impl Side {
    fn conn(&self, tcp: u32) -> Option<ConnId> {
        self.tcp.iter().find(|(_, other)| **other == tcp).map(|(conn, _)| *conn)
    }
}

fn config(side: u64) -> SessionConfig {
    let number = u32::try_from(side).unwrap();
    SessionConfig {
        local: LocalSpeaker { asn: Asn::new(65_000), id: RouterId::try_from(1 + number).unwrap() },
        remote: RemoteAs::Internal,
        opening: Opening::Active,
        hold: HoldTime::USUAL,
        retry: Duration::from_secs(10),
        families: FamilySet::EMPTY.with(Family::Ipv4Unicast),
        add_path_in: FamilySet::EMPTY,
        add_path_out: FamilySet::EMPTY,
        extended_next_hop: FamilySet::EMPTY,
        limit: MessageLimit::Usual,
        restart: None,
    }
}
