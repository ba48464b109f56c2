//! Two BFD sessions and a line between them that delays and loses, on a virtual clock.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

#[test]
fn two_sessions_come_up_within_two_slow_intervals_and_then_run_at_the_fast_rate() {
    let mut sim = Sim::new(timing(50, 3), timing(50, 3), 1);
    sim.run(Duration::from_secs(3));
    assert_eq!(sim.states(), [State::Up, State::Up]);

    let before = sim.sent;
    sim.run(Duration::from_secs(10));
    // 50 ms less up to a quarter of jitter: 200 to 267 packets in 10 s and direction.
    for (sent, before) in sim.sent.into_iter().zip(before) {
        let rate = sent - before;
        assert!((200..=267).contains(&rate), "{rate}");
    }
    assert_eq!(sim.log.len(), 2, "{:?}", sim.log);
}

#[test]
fn a_silent_peer_is_down_after_the_detection_time_and_not_before() {
    let mut sim = Sim::new(timing(50, 3), timing(50, 3), 2);
    sim.run(Duration::from_secs(5));
    sim.cut = [true, true];
    sim.run(Duration::from_millis(99));
    assert_eq!(sim.states(), [State::Up, State::Up]);
    sim.run(Duration::from_millis(60));
    assert_eq!(sim.states(), [State::Down, State::Down]);
    let silent = Output::Down(Down::Silent { independent: false });
    assert!(sim.log.contains(&(0, silent)) && sim.log.contains(&(1, silent)));
    assert_eq!(sim.ends[0].diagnostic(), Diagnostic::TIME_EXPIRED);
}

#[test]
fn one_deaf_side_takes_both_down() {
    let mut sim = Sim::new(timing(50, 3), timing(50, 3), 3);
    sim.run(Duration::from_secs(5));
    sim.cut = [true, false]; // What the first sends is lost.
    sim.run(Duration::from_millis(400));
    let signaled = Down::Signaled { diagnostic: Diagnostic::TIME_EXPIRED, independent: false };
    assert!(sim.log.contains(&(1, Output::Down(Down::Silent { independent: false }))));
    assert!(sim.log.contains(&(0, Output::Down(signaled))));

    sim.cut = [false, false];
    sim.run(Duration::from_secs(4));
    assert_eq!(sim.states(), [State::Up, State::Up]);
}

#[test]
fn a_disabled_session_is_no_failure_to_its_peer() {
    let mut sim = Sim::new(timing(50, 3), timing(50, 3), 4);
    sim.run(Duration::from_secs(5));
    sim.feed(0, Input::Disable);
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.states(), [State::AdminDown, State::Down]);
    assert!(sim.log.contains(&(1, Output::Down(Down::PeerDisabled))));
    sim.feed(0, Input::Enable);
    sim.run(Duration::from_secs(4));
    assert_eq!(sim.states(), [State::Up, State::Up]);
}

#[test]
fn a_passive_side_is_silent_until_it_is_spoken_to() {
    let mut sim = Sim::new(timing(50, 3), timing(50, 3), 5);
    for end in 0..2 {
        sim.ends[end] = session(Role::Passive, timing(50, 3), end);
        sim.feed(end, Input::Timeout);
    }
    sim.wire.clear();
    let before = sim.sent;
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.sent, before);
    sim.ends[0] = session(Role::Active, timing(50, 3), 0);
    sim.feed(0, Input::Timeout);
    sim.run(Duration::from_secs(4));
    assert_eq!(sim.states(), [State::Up, State::Up]);
}

#[test]
fn slower_timing_is_polled_for_and_costs_no_session() {
    let mut sim = Sim::new(timing(50, 3), timing(50, 3), 6);
    sim.run(Duration::from_secs(5));
    sim.feed(0, Input::Retime(timing(500, 3)));
    sim.run(Duration::from_secs(20));
    assert_eq!(sim.states(), [State::Up, State::Up]);
    assert_eq!(sim.ends[1].detection_time(), Some(Duration::from_millis(1_500)));

    sim.feed(0, Input::Retime(timing(20, 3)));
    sim.run(Duration::from_secs(20));
    assert_eq!(sim.states(), [State::Up, State::Up]);
    // The other side sends no faster than its own 50 ms.
    assert_eq!(sim.ends[0].detection_time(), Some(Duration::from_millis(150)));
    assert_eq!(sim.log.len(), 2, "{:?}", sim.log);
}

#[test]
fn faster_detection_waits_until_the_peer_has_answered_the_poll() {
    let mut sim = Sim::new(timing(500, 3), timing(20, 3), 7);
    sim.run(Duration::from_secs(10));
    assert_eq!(sim.ends[0].detection_time(), Some(Duration::from_millis(1_500)));
    sim.cut = [true, false];
    sim.feed(0, Input::Retime(timing(20, 3)));
    assert_eq!(sim.ends[0].detection_time(), Some(Duration::from_millis(1_500)));
    sim.cut = [false, false];
    sim.run(Duration::from_secs(5));
    assert_eq!(sim.ends[0].detection_time(), Some(Duration::from_millis(60)));
    assert_eq!(sim.states(), [State::Up, State::Up]);
}

#[test]
fn a_poll_is_answered_at_once_with_the_final_bit_alone() {
    let now = Instant::now();
    let mut session = session(Role::Active, timing(50, 3), 0);
    session.handle(Input::Timeout, now);
    drain(&mut session);
    session.handle(Input::Packet(packet(State::Init, &session, Flags::POLL)), now);
    let sent = sends(&drain(&mut session));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].state, State::Up);
    assert!(sent[0].flags.has(Flags::FINAL) && !sent[0].flags.has(Flags::POLL));
}

#[test]
fn a_peer_in_demand_mode_gets_polls_and_no_periodic_packets() {
    let start = Instant::now();
    let mut session = session(Role::Active, timing(50, 3), 0);
    session.handle(Input::Timeout, start);
    session.handle(Input::Packet(packet(State::Init, &session, Flags::NONE)), start);
    let demand = Flags::DEMAND.with(Flags::FINAL);
    session.handle(Input::Packet(packet(State::Up, &session, demand)), start);
    drain(&mut session);
    // The only deadline left is the peer's silence.
    assert_eq!(session.poll_timeout(), Some(start + session.detection_time().unwrap()));

    session.handle(Input::Retime(timing(60, 3)), start + Duration::from_millis(100));
    let sent = sends(&drain(&mut session));
    assert!(sent.len() == 1 && sent[0].flags.has(Flags::POLL), "{sent:?}");
}

#[test]
fn a_peer_that_wants_no_packets_gets_only_answers() {
    let start = Instant::now();
    let mut session = session(Role::Active, timing(50, 3), 0);
    session.handle(Input::Timeout, start);
    drain(&mut session);
    let mute =
        Packet { required_min_rx: Interval::ZERO, ..packet(State::Down, &session, Flags::NONE) };
    session.handle(Input::Packet(mute), start);
    assert_eq!(sends(&drain(&mut session)).len(), 1, "the new state");
    session.handle(Input::Timeout, start + Duration::from_millis(2_999));
    assert_eq!(drain(&mut session), []);
}

#[test]
fn with_a_multiplier_of_one_no_gap_exceeds_nine_tenths() {
    let mut session = session(Role::Active, timing(50, 1), 0);
    let mut now = Instant::now();
    session.handle(Input::Timeout, now);
    for _ in 0..1_000 {
        let next = session.poll_timeout().unwrap();
        let gap = next - now;
        assert!(gap >= Duration::from_millis(750) && gap <= Duration::from_millis(900), "{gap:?}");
        now = next;
        session.handle(Input::Timeout, now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A line may lose anything for a while; once it only delays, by less than one lost packet is granted, both
    /// come up and stay.
    #[test]
    fn after_any_trouble_both_sides_come_up(
        seed: u64,
        mine in (50_u16..300, 1_u8..6),
        theirs in (50_u16..300, 1_u8..6),
        loss in 0_u8..100,
        trouble_ms in 0_u64..20_000,
    ) {
        let mut sim = Sim::new(timing(mine.0, mine.1), timing(theirs.0, theirs.1), seed);
        sim.loss = loss;
        sim.run(Duration::from_millis(trouble_ms));
        sim.loss = 0;
        sim.run(Duration::from_secs(20));
        prop_assert_eq!(sim.states(), [State::Up, State::Up]);
        let said = sim.log.len();
        sim.run(Duration::from_secs(10));
        prop_assert_eq!(sim.log.len(), said);
    }

    /// Whatever is sent, each packet is answered at most once, and no rate but ours is kept to.
    #[test]
    fn hostile_packets_cause_one_answer_each_at_most(
        packets in proptest::collection::vec((proptest::array::uniform24(any::<u8>()), 0_u64..100), 1..200)
    ) {
        let mut now = Instant::now();
        let mut session = session(Role::Active, timing(50, 3), 0);
        session.handle(Input::Timeout, now);
        drain(&mut session);
        for (mut bytes, wait) in packets {
            now += Duration::from_millis(wait);
            // Half of what is random would fall at the first three rules.
            bytes[0] = 0x20 | (bytes[0] & 0x1f);
            bytes[1] &= 0xfa;
            bytes[3] = 24;
            let Ok(packet) = Packet::decode(&bytes) else { continue };
            let due = session.poll_timeout().is_some_and(|at| at <= now);
            session.handle(Input::Packet(packet), now);
            let sent = sends(&drain(&mut session)).len();
            prop_assert!(sent <= 1 + usize::from(due), "{}", sent);
        }
    }
}

// ---- the simulation

struct Sim {
    ends: [Session; 2],
    now: Instant,
    /// What is under way: when it arrives, a number, to whom.
    wire: BTreeMap<(Instant, u64), (usize, Packet)>,
    /// What the end sends is lost.
    cut: [bool; 2],
    /// Of a hundred packets, so many are lost.
    loss: u8,
    sent: [usize; 2],
    log: Vec<(usize, Output)>,
    seed: u64,
}

impl Sim {
    fn new(mine: Timing, theirs: Timing, seed: u64) -> Self {
        let ends = [session(Role::Active, mine, 0), session(Role::Active, theirs, 1)];
        let mut sim = Self {
            ends,
            now: Instant::now(),
            wire: BTreeMap::new(),
            cut: [false; 2],
            loss: 0,
            sent: [0; 2],
            log: Vec::new(),
            seed,
        };
        sim.feed(0, Input::Timeout);
        sim.feed(1, Input::Timeout);
        sim
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.next().filter(|at| *at <= end) {
            self.now = next.max(self.now);
            let arrived = self.wire.first_key_value().filter(|((at, _), _)| *at <= self.now);
            if let Some((&key, &(to, packet))) = arrived {
                self.wire.remove(&key);
                self.feed(to, Input::Packet(packet));
            } else {
                for end in 0..2 {
                    self.feed(end, Input::Timeout);
                }
            }
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
        let timers = self.ends.iter().filter_map(Session::poll_timeout);
        timers.chain(arrival).min()
    }

    fn feed(&mut self, end: usize, input: Input) {
        self.ends[end].handle(input, self.now);
        while let Some(output) = self.ends[end].poll_output() {
            match output {
                Output::Send(packet) => self.carry(end, packet),
                said => self.log.push((end, said)),
            }
        }
    }

    fn carry(&mut self, from: usize, packet: Packet) {
        self.sent[from] += 1;
        let lost = self.chance(100) < u64::from(self.loss);
        let delay = Duration::from_micros(100 + self.chance(4_000));
        if !lost && !self.cut[from] {
            let number = self.seed;
            self.wire.insert((self.now + delay, number), (1 - from, packet));
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % below
    }

    fn states(&self) -> [State; 2] {
        [self.ends[0].state(), self.ends[1].state()]
    }
}

fn session(role: Role, timing: Timing, end: usize) -> Session {
    let local = Discriminator::new(u32::try_from(end).unwrap() + 1).unwrap();
    Session::new(timing, role, local, 1 + u64::from(local.get()))
}

fn timing(millis: u16, multiplier: u8) -> Timing {
    Timing {
        desired_min_tx: Interval::from_millis(millis),
        required_min_rx: Interval::from_millis(millis),
        multiplier: Detection::new(multiplier).unwrap(),
    }
}

/// A packet of a peer that knows us.
fn packet(state: State, to: &Session, flags: Flags) -> Packet {
    Packet {
        diagnostic: Diagnostic::NONE,
        state,
        flags,
        multiplier: Detection::new(3).unwrap(),
        mine: Discriminator::new(99).unwrap(),
        yours: Some(to.discriminator()),
        desired_min_tx: Interval::SLOW,
        required_min_rx: Interval::from_millis(50),
        required_min_echo_rx: Interval::ZERO,
    }
}

fn drain(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

fn sends(outputs: &[Output]) -> Vec<Packet> {
    let send = |output: &Output| match output {
        Output::Send(packet) => Some(*packet),
        _ => None,
    };
    outputs.iter().filter_map(send).collect()
}
