//! A speaker between peers whose messages are written by hand.

use russet_net::{Asn, Prefix};

use super::*;
use crate::{
    bestpath::MedRule,
    fsm::Agreed,
    policy::{self, Lengths, Operator, Policy, PrefixMatch, Rule, Verdict},
    reflector::{Me, NextHopRule, Relation},
    rib::{Limit, Watch},
    update::Bounds,
    wire::{
        AsPath, AsWidth, Attributes, GracefulRestart, HoldTime, MessageLimit, NextHop, Nlri,
        NlriKey, Peering, RestartFamily, RestartFlags, RouterId, Terms, UpdateWriter,
    },
};

const V4: Family = Family::Ipv4Unicast;

#[test]
fn a_client_s_route_reaches_the_other_client_and_not_its_sender() {
    let mut lab = Lab::new();
    lab.up(1);
    assert_eq!(lab.told(1), ["end"]);
    lab.announce(1, "10.1.0.0/16");
    lab.up(2);
    assert_eq!(lab.told(2), ["+10.1.0.0/16", "end"]);
    assert!(lab.told(1).is_empty());
    lab.withdraw(1, "10.1.0.0/16");
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
}

#[test]
fn routes_of_a_peer_that_restarts_are_kept_until_it_has_told_all_again() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.announce(1, "10.2.0.0/16");
    lab.told(2);
    lab.speaker.down(addr(1), &DownReason::ConnectionLost, lab.now);
    assert!(lab.told(2).is_empty());
    assert!(lab.speaker.retained(addr(1)).contains(V4));

    lab.up(1);
    lab.announce(1, "10.1.0.0/16");
    assert!(lab.told(2).is_empty(), "nothing has changed for it");
    lab.end(1);
    assert_eq!(lab.told(2), ["-10.2.0.0/16"]);
}

#[test]
fn routes_of_a_peer_that_does_not_come_back_are_gone_after_its_time() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.told(2);
    lab.speaker.down(addr(1), &DownReason::ConnectionLost, lab.now);
    let until = lab.speaker.poll_timeout().unwrap();
    assert_eq!(until - lab.now, Duration::from_mins(2));
    lab.speaker.timeout(until);
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
    assert_eq!(lab.speaker.poll_timeout(), None);
}

#[test]
fn a_notification_forgets_the_routes_at_once() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.told(2);
    let shutdown = Notification::new(Reason::HARD_RESET);
    lab.speaker.down(addr(1), &DownReason::Received(shutdown), lab.now);
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
}

#[test]
fn a_peer_whose_forwarding_did_not_survive_starts_from_nothing() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.told(2);
    lab.speaker.down(addr(1), &DownReason::ConnectionLost, lab.now);
    let mut up = peer_up(1);
    up.negotiated.restart.as_mut().unwrap().families[0].forwarding = false;
    lab.speaker.up(addr(1), up, lab.now);
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
}

#[test]
fn a_refresh_is_answered_between_its_marks_and_one_of_the_peer_sweeps() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.told(2);
    lab.refresh(2, RefreshKind::Request);
    assert_eq!(lab.told(2), ["begin", "+10.1.0.0/16", "done"]);

    lab.announce(1, "10.2.0.0/16");
    lab.told(2);
    lab.refresh(1, RefreshKind::Begin);
    lab.announce(1, "10.2.0.0/16");
    lab.refresh(1, RefreshKind::End);
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
}

#[test]
fn what_cannot_be_parsed_closes_the_session_and_nothing_behind_it_counts() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.told(2);
    let mut octets = vec![0xff; 16];
    octets.extend([0, 28, 2, 0, 5, 33, 1, 2, 3, 4, 0, 0]);
    octets.extend(route("10.1.0.0/16"));
    lab.speaker.receive(addr(1), &octets);
    let Some(SpeakerOutput::Close { peer, notification, .. }) = lab.speaker.poll_output() else {
        panic!("it stays open")
    };
    assert_eq!((peer, notification.reason), (addr(1), Reason::INVALID_NETWORK));
    assert!(lab.told(2).is_empty());
}

#[test]
fn a_bad_attribute_withdraws_the_route_is_counted_and_told() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.told(2);
    let mut octets = route("10.1.0.0/16");
    let origin = octets.windows(4).position(|four| four == [0x40, 1, 1, 0]).unwrap();
    octets[origin + 3] = 9;
    lab.speaker.receive(addr(1), &octets);
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
    assert!(matches!(lab.speaker.poll_output(), Some(SpeakerOutput::Faulty { .. })));
    assert_eq!(lab.speaker.counters(addr(1)).unwrap().treated_as_withdraw, 1);
}

#[test]
fn too_many_routes_close_the_session() {
    let mut lab = Lab::new();
    let mut up = peer_up(1);
    up.settings.limits[0] = Some(Limit { most: 1, warn_at: 1, action: LimitAction::Close });
    lab.speaker.up(addr(1), up, lab.now);
    lab.announce(1, "10.1.0.0/16");
    lab.announce(1, "10.2.0.0/16");
    let said: Vec<_> = std::iter::from_fn(|| lab.speaker.poll_output()).collect();
    assert!(
        said.iter().any(|output| matches!(output, SpeakerOutput::Close { notification, .. }
            if notification.reason == Reason::MOST_PREFIXES)),
        "{said:?}"
    );
}

#[test]
fn a_speaker_that_starts_anew_waits_until_those_it_awaits_have_told_all() {
    let mut lab = Lab::new();
    let until = lab.now + Duration::from_mins(2);
    lab.speaker.defer([addr(1), addr(2)].into(), until);
    lab.up(1);
    lab.up(3);
    lab.announce(1, "10.1.0.0/16");
    lab.end(1);
    assert!(lab.told(3).is_empty());
    lab.up(2);
    lab.end(2);
    assert_eq!(lab.told(3), ["+10.1.0.0/16", "end"]);

    let mut lab = Lab::new();
    lab.speaker.defer([addr(1)].into(), until);
    lab.up(3);
    assert!(lab.told(3).is_empty());
    lab.speaker.timeout(until);
    assert_eq!(lab.told(3), ["end"]);
}

#[test]
fn another_export_policy_takes_back_what_it_rejects_and_tells_what_it_lets_pass() {
    let mut lab = Lab::new();
    (1..=3).for_each(|peer| lab.up(peer));
    lab.announce(1, "10.1.0.0/16");
    lab.announce(1, "10.2.0.0/16");
    assert_eq!(lab.told(2), ["end", "+10.1.0.0/16", "+10.2.0.0/16"]);
    lab.told(3);
    lab.speaker.set_settings(addr(2), settings(2, |s| s.export = only("10.1.0.0/16")));
    assert_eq!(lab.told(2), ["-10.2.0.0/16", "+10.1.0.0/16"]);
    assert!(lab.told(3).is_empty(), "it concerns nobody else");

    // What comes later goes by the new one, and what was held back comes when it may.
    lab.announce(1, "10.3.0.0/16");
    lab.withdraw(1, "10.1.0.0/16");
    assert_eq!(lab.told(2), ["-10.1.0.0/16"]);
    lab.speaker.set_settings(addr(2), peer_up(2).settings);
    let mut told = lab.told(2);
    told.retain(|said| said.starts_with('+'));
    told.sort();
    assert_eq!(told, ["+10.2.0.0/16", "+10.3.0.0/16"]);
    assert!(lab.speaker.poll_output().is_none(), "the session stays");
}

#[test]
fn another_import_policy_has_the_peer_tell_all_again() {
    let mut lab = Lab::new();
    lab.up(1);
    lab.up(2);
    lab.announce(1, "10.1.0.0/16");
    lab.announce(1, "10.2.0.0/16");
    lab.told(1);
    lab.told(2);
    lab.speaker.set_settings(addr(1), settings(1, |s| s.import = only("10.1.0.0/16")));
    assert_eq!(lab.told(1), ["request"]);
    // As the peer answers.
    lab.announce(1, "10.1.0.0/16");
    lab.announce(1, "10.2.0.0/16");
    assert_eq!(lab.told(2), ["-10.2.0.0/16"]);

    // One that cannot be asked has to come back.
    let mut up = peer_up(3);
    up.negotiated.refresh = Agreed::No;
    lab.speaker.up(addr(3), up, lab.now);
    lab.speaker.set_settings(addr(3), settings(3, |s| s.import = only("10.1.0.0/16")));
    let said: Vec<_> = std::iter::from_fn(|| lab.speaker.poll_output()).collect();
    assert!(
        matches!(&said[..], [SpeakerOutput::Close { notification, then: Then::Retry, .. }]
            if notification.reason == Reason::CONFIGURATION_CHANGE),
        "{said:?}"
    );
}

#[test]
fn a_peer_becomes_a_client_while_its_session_stands_and_others_are_told_of_it() {
    let mut lab = Lab::new();
    let as_plain = |s: &mut PeerSettings| s.internal = Relation::NonClient;
    for peer in [1, 2] {
        let up = PeerUp { settings: settings(peer, as_plain), ..peer_up(peer) };
        lab.speaker.up(addr(peer), up, lab.now);
    }
    lab.speaker.receive(addr(1), &route("10.1.0.0/16"));
    lab.speaker.flush();
    let told = |lab: &mut Lab| {
        let octets: Vec<_> = std::iter::from_fn(|| lab.speaker.next(addr(2))).collect();
        octets.iter().any(|octets| octets.windows(3).any(|three| three == [16, 10, 1]))
    };
    assert!(!told(&mut lab), "an internal peer is not told what another told");
    lab.speaker.set_settings(addr(1), settings(1, |_| {}));
    lab.speaker.flush();
    assert!(told(&mut lab), "a client's routes are for all");
    assert_eq!(lab.speaker.lost_without(addr(1), &[]), 1);
    lab.speaker.receive(addr(2), &route("10.1.0.0/16"));
    assert_eq!(lab.speaker.lost_without(addr(1), &[]), 0);
    assert_eq!(lab.speaker.lost_without(addr(1), &[addr(2)]), 1);
}

fn settings(peer: u8, change: impl Fn(&mut PeerSettings)) -> PeerSettings {
    let mut settings = peer_up(peer).settings;
    change(&mut settings);
    settings
}

/// A policy that lets one prefix pass.
fn only(prefix: &str) -> Arc<Policy> {
    let prefix = PrefixMatch {
        operator: Operator::Equal,
        prefix: prefix.parse().unwrap(),
        lengths: Lengths::ANY,
    };
    let rule = Rule {
        name: "only".to_owned(),
        prefixes: vec![prefix],
        matches: Vec::new(),
        then: policy::Then::Accept(Vec::new()),
    };
    Arc::new(Policy { name: "p".to_owned(), rules: vec![rule], otherwise: Verdict::Reject })
}

struct Lab {
    speaker: Speaker,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        let id = RouterId::try_from(99).unwrap();
        let speaker = Speaker::new(RibConfig {
            me: Me { asn: Asn::new(65_000), id, cluster: id.into() },
            med: MedRule::SameNeighbor,
            multipath: None,
            watch: Watch::Off,
            seed: 7,
            bounds: Bounds::default(),
        });
        Self { speaker, now: Instant::now() }
    }

    fn up(&mut self, peer: u8) {
        self.speaker.up(addr(peer), peer_up(peer), self.now);
    }

    fn announce(&mut self, peer: u8, prefix: &str) {
        self.speaker.receive(addr(peer), &route(prefix));
    }

    fn withdraw(&mut self, peer: u8, prefix: &str) {
        let mut out = Vec::new();
        UpdateWriter::new(terms(), &mut out).withdraw(V4, [Nlri::plain(key(prefix))]);
        self.speaker.receive(addr(peer), &out);
    }

    fn end(&mut self, peer: u8) {
        let mut out = Vec::new();
        UpdateWriter::new(terms(), &mut out).end_of_rib(V4);
        self.speaker.receive(addr(peer), &out);
    }

    fn refresh(&mut self, peer: u8, kind: RefreshKind) {
        let mut out = Vec::new();
        Refresh { afi_safi: V4.wire(), kind }.write(&mut out);
        self.speaker.receive(addr(peer), &out);
    }

    /// What a peer is told, in words, in order.
    fn told(&mut self, peer: u8) -> Vec<String> {
        self.speaker.flush();
        let mut told = Vec::new();
        while let Some(octets) = self.speaker.next(addr(peer)) {
            let mut stream = &octets[..];
            while let Some(frame) = Frame::read(stream, MessageLimit::Usual).unwrap() {
                tell(&frame, &mut told);
                stream = &stream[frame.len..];
            }
        }
        told
    }
}

fn tell(frame: &Frame<'_>, told: &mut Vec<String>) {
    if frame.kind == MessageKind::RouteRefresh {
        let kind = Refresh::read(frame.body).unwrap().kind;
        told.push(match kind {
            RefreshKind::Begin => "begin".to_owned(),
            RefreshKind::Request => "request".to_owned(),
            _ => "done".to_owned(),
        });
        return;
    }
    let update = Update::parse(frame.body, terms()).unwrap();
    let gone = update.withdrawn().flat_map(|nlris| nlris.iter());
    told.extend(gone.map(|nlri| format!("-{}", nlri.key)));
    let there = update.announced().flat_map(|announced| announced.nlris.iter());
    told.extend(there.map(|nlri| format!("+{}", nlri.key)));
    told.extend(update.end_of_rib().map(|_| "end".to_owned()));
}

fn addr(peer: u8) -> PeerAddr {
    IpAddr::from([192, 0, 2, peer]).into()
}

fn key(prefix: &str) -> NlriKey {
    prefix.parse::<Prefix>().unwrap().into()
}

fn route(prefix: &str) -> Vec<u8> {
    let attributes = Attributes {
        as_path: AsPath::sequence([Asn::new(65_009)]),
        local_pref: Some(100),
        ..Attributes::default()
    };
    let (mut canonical, mut out) = (Vec::new(), Vec::new());
    attributes.write(&mut canonical);
    let next_hop = NextHop::V4([192, 0, 2, 50].into());
    UpdateWriter::new(terms(), &mut out)
        .announce(V4, &canonical, next_hop, [Nlri::plain(key(prefix))])
        .unwrap();
    out
}

fn terms() -> Terms {
    Terms { as_width: AsWidth::Four, ..Terms::plain(Peering::Internal) }
}

/// A client that does graceful restart and marked refreshes.
fn peer_up(peer: u8) -> PeerUp {
    let restart = GracefulRestart {
        flags: RestartFlags { restarted: false, notification: true },
        time_s: 120,
        families: vec![RestartFamily { family: V4.wire(), forwarding: true }],
    };
    PeerUp {
        negotiated: crate::fsm::Negotiated {
            terms: terms(),
            hold: HoldTime::USUAL,
            peer_asn: Asn::new(65_000),
            peer_id: RouterId::try_from(u32::from(peer)).unwrap(),
            refresh: Agreed::Yes,
            enhanced_refresh: Agreed::Yes,
            restart: Some(restart),
            survives_notification: Agreed::Yes,
        },
        our_asn: Asn::new(65_000),
        settings: PeerSettings {
            internal: Relation::Client,
            import: Arc::new(Policy::accept_all()),
            export: Arc::new(Policy::accept_all()),
            next_hop: NextHopRule::Keep,
            own_as: 0,
            limits: [None; 3],
        },
        our_next_hop: [None; 3],
    }
}
