//! Machines with timers, fed with anything: they end no program, and what they say is bounded by what they
//! were told.

use std::time::{Duration, Instant};

use russet_bgp::{
    bfd::{Detection, Discriminator, Interval, Packet, Role, Timing},
    fsm::{
        ConnId, Direction, Input, LocalSpeaker, Opening, Output, Received, RemoteAs, Session,
        SessionConfig, Then,
    },
    wire::{
        Family, FamilySet, Frame, HoldTime, MessageKind, MessageLimit, Notification, Open, Reason,
        RouterId,
    },
};
use russet_net::Asn;

/// A session with a peer: steps of two octets, and for what the peer says a message behind them.
///
/// # Panics
///
/// When one input has the machine say more than a few things, or it is up twice.
pub fn bgp_session(bytes: &[u8]) {
    let mut now = Instant::now();
    let mut session = Session::new(config(), 7);
    let mut up = false;
    let mut rest = bytes;
    while let [what, value, after @ ..] = rest {
        rest = after;
        now += Duration::from_millis(u64::from(*value) * 100);
        let conn = conn(*value);
        let input = match what % 8 {
            0 => Input::Start,
            1 => Input::Accepted(conn),
            2 => Input::Dialed(conn),
            3 => Input::DialFailed(conn),
            4 => Input::Closed(conn),
            5 => Input::Close {
                notification: Notification::new(Reason::OUT_OF_RESOURCES),
                then: Then::Retry,
            },
            6 => Input::Timeout,
            _ => {
                let Ok(Some(frame)) = Frame::read(rest, MessageLimit::Usual) else { break };
                rest = &rest[frame.len..];
                Input::Received { conn, message: received(frame) }
            }
        };
        session.handle(input, now);
        let said: Vec<_> = std::iter::from_fn(|| session.poll_output()).collect();
        assert!(said.len() <= 12, "{said:?}");
        for output in said {
            match output {
                Output::Up { .. } => assert!(!std::mem::replace(&mut up, true), "it is up twice"),
                Output::Down(_) => up = false,
                _ => {}
            }
        }
    }
}

/// A BFD session: a wait in tens of milliseconds, and a packet.
///
/// # Panics
///
/// When a packet is answered more than once.
pub fn bgp_bfd(bytes: &[u8]) {
    use russet_bgp::bfd::{Input, Output, Session};

    let mut now = Instant::now();
    let every = Interval::from_millis(50);
    let multiplier = Detection::new(3).expect("not zero");
    let timing = Timing { desired_min_tx: every, required_min_rx: every, multiplier };
    let local = Discriminator::new(1).expect("not zero");
    let mut session = Session::new(timing, Role::Active, local, 7);
    session.handle(Input::Timeout, now);
    let sends = |session: &mut Session| {
        let said = std::iter::from_fn(|| session.poll_output());
        said.filter(|output| matches!(output, Output::Send(_))).count()
    };
    sends(&mut session);
    let mut rest = bytes;
    while let Some(([wait, packet @ ..], after)) = rest.split_first_chunk::<25>() {
        rest = after;
        now += Duration::from_millis(u64::from(*wait) * 10);
        let due = session.poll_timeout().is_some_and(|at| at <= now);
        match Packet::decode(packet) {
            Ok(packet) => session.handle(Input::Packet(packet), now),
            Err(_) => session.handle(Input::Timeout, now),
        }
        assert!(sends(&mut session) <= 1 + usize::from(due));
    }
}

fn received(frame: Frame<'_>) -> Received {
    match frame.kind {
        MessageKind::Open => match Open::read(frame.body) {
            Ok(open) => Received::Open(Box::new(open)),
            Err(reset) => Received::Invalid(reset),
        },
        MessageKind::Keepalive => Received::Keepalive,
        MessageKind::Update => Received::Update,
        MessageKind::RouteRefresh => Received::Refresh,
        MessageKind::Notification => match Notification::read(frame.body) {
            Some(notification) => Received::Notification(notification),
            None => Received::Keepalive,
        },
    }
}

fn conn(value: u8) -> ConnId {
    let direction = if value & 1 == 0 { Direction::Incoming } else { Direction::Outgoing };
    ConnId { direction, number: u32::from(value >> 1 & 3) }
}

fn config() -> SessionConfig {
    SessionConfig {
        local: LocalSpeaker { asn: Asn::new(65_000), id: RouterId::try_from(1).expect("not zero") },
        remote: RemoteAs::Internal,
        opening: Opening::Active,
        hold: HoldTime::USUAL,
        retry: Duration::from_secs(30),
        families: FamilySet::EMPTY.with(Family::Ipv4Unicast),
        add_path_in: FamilySet::EMPTY,
        add_path_out: FamilySet::EMPTY,
        extended_next_hop: FamilySet::EMPTY,
        limit: MessageLimit::Usual,
        restart: None,
    }
}
