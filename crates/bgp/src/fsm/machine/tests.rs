//! The machine, input by input.

use russet_net::Asn;

use super::*;
use crate::{
    fsm::{LocalSpeaker, RemoteAs},
    wire::{
        Family, FamilySet, GracefulRestart, HoldTime, MessageLimit, Reset, RestartFamily,
        RestartFlags, RouterId,
    },
};

#[test]
fn a_session_comes_about_and_ends_when_the_peer_is_silent_for_the_hold_time() {
    let now = Instant::now();
    let mut session = established(config(), open(9), now);
    let mut log = Vec::new();
    while session.state() == StateName::Established {
        let at = session.poll_timeout().unwrap();
        session.handle(Input::Timeout, at);
        log.extend(outputs(&mut session).into_iter().map(|out| ((at - now).as_secs(), out)));
    }
    let conn = outgoing(0);
    let expired = Notification::new(Reason::HOLD_TIMER_EXPIRED);
    assert_eq!(
        log,
        [
            (3, Output::Send { conn, message: Message::Keepalive }),
            (6, Output::Send { conn, message: Message::Keepalive }),
            (9, Output::Send { conn, message: Message::Notification(expired.clone()) }),
            (9, Output::Close(conn)),
            (9, Output::Down(DownReason::Sent(expired))),
        ]
    );
}

#[test]
fn zero_hold_time_never_times_out() {
    assert_eq!(established(config(), open(0), Instant::now()).poll_timeout(), None);
}

#[test]
fn a_peer_of_another_as_is_told_so_and_refused_longer_each_time() {
    let mut now = Instant::now();
    let mut session = started(config(), now);
    let mut waits = Vec::new();
    for number in 0..9 {
        session.handle(Input::Dialed(outgoing(number)), now);
        let mut wrong = open(90);
        wrong.asn = Asn::new(65_099);
        receive(&mut session, outgoing(number), Received::Open(Box::new(wrong)), now);
        assert_eq!(sent(&mut session), [Reason::BAD_PEER_AS]);
        let until = session.poll_timeout().unwrap();
        session.handle(Input::Accepted(incoming(number)), now);
        assert_eq!(sent(&mut session), [Reason::REJECTED]);
        waits.push(until - now);
        now = until;
        session.handle(Input::Timeout, now);
        outputs(&mut session);
    }
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[0] <= Duration::from_secs(1) && waits[8] >= Duration::from_secs(90));
}

#[test]
fn of_two_connections_the_one_of_the_higher_identifier_stays() {
    for (peer_id, kept) in [(1, outgoing(0)), (9, incoming(0))] {
        let now = Instant::now();
        let mut session = started(config(), now);
        session.handle(Input::Dialed(outgoing(0)), now);
        session.handle(Input::Accepted(incoming(0)), now);
        outputs(&mut session);
        let mut open = open(90);
        open.id = RouterId::try_from(peer_id).unwrap();
        for conn in [outgoing(0), incoming(0)] {
            receive(&mut session, conn, Received::Open(Box::new(open.clone())), now);
        }
        assert_eq!(sent(&mut session), [Reason::COLLISION]);
        receive(&mut session, kept, Received::Keepalive, now);
        assert_eq!(session.state(), StateName::Established, "{peer_id}");
    }
}

#[test]
fn a_new_connection_is_a_restart_only_of_a_peer_that_may_restart() {
    let now = Instant::now();
    let mut session = established(config(), open(90), now);
    session.handle(Input::Accepted(incoming(7)), now);
    assert_eq!(sent(&mut session), [Reason::COLLISION]);

    let mut able = config();
    able.restart = Some(restart());
    let mut open = open(90);
    open.capabilities.graceful_restart = Some(restart());
    let mut session = established(able, open.clone(), now);
    session.handle(Input::Accepted(incoming(7)), now);
    receive(&mut session, incoming(7), Received::Open(Box::new(open)), now);
    let said = outputs(&mut session);
    assert!(said.contains(&Output::Close(outgoing(0))), "{said:?}");
    assert!(said.contains(&Output::Down(DownReason::PeerRestarted)), "{said:?}");
    receive(&mut session, incoming(7), Received::Keepalive, now);
    assert_eq!(session.state(), StateName::Established);
}

#[test]
fn a_message_that_does_not_belong_in_the_state_is_answered_by_its_code() {
    let now = Instant::now();
    for (steps, wrong, reason) in [
        (0, Received::Keepalive, Reason::UNEXPECTED_IN_OPEN_SENT),
        (0, Received::Update, Reason::UNEXPECTED_IN_OPEN_SENT),
        (1, Received::Update, Reason::UNEXPECTED_IN_OPEN_CONFIRM),
        (1, Received::Open(Box::new(open(9))), Reason::UNEXPECTED_IN_OPEN_CONFIRM),
        (2, Received::Open(Box::new(open(9))), Reason::UNEXPECTED_IN_ESTABLISHED),
        (2, Received::Invalid(Reset::new(Reason::BAD_TYPE, "")), Reason::BAD_TYPE),
    ] {
        let mut session = started(config(), now);
        session.handle(Input::Dialed(outgoing(0)), now);
        let right = [Received::Open(Box::new(open(9))), Received::Keepalive];
        for message in right.into_iter().take(steps) {
            receive(&mut session, outgoing(0), message, now);
        }
        outputs(&mut session);
        receive(&mut session, outgoing(0), wrong, now);
        assert_eq!(sent(&mut session), [reason]);
        assert_eq!(session.state(), StateName::Idle);
    }
}

#[test]
fn a_peer_that_left_may_come_back_at_once() {
    let now = Instant::now();
    let mut session = established(config(), open(90), now);
    session.handle(Input::Closed(outgoing(0)), now);
    assert_eq!(outputs(&mut session), [Output::Down(DownReason::ConnectionLost)]);
    session.handle(Input::Accepted(incoming(3)), now);
    receive(&mut session, incoming(3), Received::Open(Box::new(open(90))), now);
    receive(&mut session, incoming(3), Received::Keepalive, now);
    assert_eq!(session.state(), StateName::Established);
}

#[test]
fn a_passive_session_never_dials() {
    let now = Instant::now();
    let mut passive = config();
    passive.opening = Opening::Passive;
    let mut session = Session::new(passive, 1);
    session.handle(Input::Start, now);
    assert_eq!((outputs(&mut session), session.poll_timeout()), (vec![], None));
    session.handle(Input::Accepted(incoming(0)), now);
    session.handle(Input::Closed(incoming(0)), now);
    assert!(!outputs(&mut session).iter().any(|out| matches!(out, Output::Dial(_))));
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn what_is_meant_for_good_is_a_hard_reset_where_a_notification_keeps_routes() {
    let now = Instant::now();
    let mut able = config();
    able.restart = Some(restart());
    let mut open = open(90);
    open.capabilities.graceful_restart = Some(restart());
    for (reason, told, kept) in [
        (Reason::SHUTDOWN, Reason::HARD_RESET, false),
        (Reason::OUT_OF_RESOURCES, Reason::OUT_OF_RESOURCES, true),
    ] {
        let mut session = established(able.clone(), open.clone(), now);
        let negotiated = session.negotiated().unwrap().clone();
        let notification = Notification::new(reason);
        session.handle(Input::Close { notification, then: Then::Stop }, now);
        let said = outputs(&mut session);
        let Some(Output::Down(down)) = said.last() else { panic!("{said:?}") };
        assert!(matches!(down, DownReason::Sent(sent) if sent.reason == told), "{down:?}");
        assert_eq!(!negotiated.kept_after(down).is_empty(), kept);
    }
}

#[test]
fn two_without_a_common_family_part_with_the_code_for_it() {
    let now = Instant::now();
    let mut session = started(config(), now);
    session.handle(Input::Dialed(outgoing(0)), now);
    outputs(&mut session);
    let mut only_evpn = open(90);
    only_evpn.capabilities.families = vec![Family::L2vpnEvpn.wire()];
    receive(&mut session, outgoing(0), Received::Open(Box::new(only_evpn)), now);
    assert_eq!(sent(&mut session), [Reason::UNSUPPORTED_CAPABILITY]);
}

fn config() -> SessionConfig {
    SessionConfig {
        local: LocalSpeaker { asn: Asn::new(65_000), id: RouterId::try_from(5).unwrap() },
        remote: RemoteAs::Is(Asn::new(65_001)),
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

fn restart() -> GracefulRestart {
    GracefulRestart {
        flags: RestartFlags { restarted: false, notification: true },
        time_s: 120,
        families: vec![RestartFamily { family: Family::Ipv4Unicast.wire(), forwarding: true }],
    }
}

/// What a peer says that offers `hold` seconds.
fn open(hold: u16) -> Open {
    let mut peer = config();
    peer.local = LocalSpeaker { asn: Asn::new(65_001), id: RouterId::try_from(7).unwrap() };
    peer.hold = hold.try_into().unwrap();
    peer.open()
}

fn started(config: SessionConfig, now: Instant) -> Session {
    let mut session = Session::new(config, 1);
    session.handle(Input::Start, now);
    assert_eq!(outputs(&mut session), [Output::Dial(outgoing(0))]);
    session
}

fn established(config: SessionConfig, open: Open, now: Instant) -> Session {
    let mut session = started(config, now);
    session.handle(Input::Dialed(outgoing(0)), now);
    receive(&mut session, outgoing(0), Received::Open(Box::new(open)), now);
    receive(&mut session, outgoing(0), Received::Keepalive, now);
    assert!(matches!(outputs(&mut session).last(), Some(Output::Up { .. })));
    session
}

fn receive(session: &mut Session, conn: ConnId, message: Received, now: Instant) {
    session.handle(Input::Received { conn, message }, now);
}

fn outputs(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll_output()).collect()
}

/// The reasons of the notifications among what is to be done.
fn sent(session: &mut Session) -> Vec<Reason> {
    let reason = |output| match output {
        Output::Send { message: Message::Notification(notification), .. } => {
            Some(notification.reason)
        }
        _ => None,
    };
    outputs(session).into_iter().filter_map(reason).collect()
}

fn outgoing(number: u32) -> ConnId {
    ConnId { direction: Direction::Outgoing, number }
}

fn incoming(number: u32) -> ConnId {
    ConnId { direction: Direction::Incoming, number }
}
