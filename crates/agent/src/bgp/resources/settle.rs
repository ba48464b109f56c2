//! What each session is like.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use russet_api::calico::Kind;
use russet_bgp::{
    bfd,
    fsm::{LocalSpeaker, Opening, RemoteAs, SessionConfig},
    reflector::{NextHopRule, Relation},
    speaker::{PeerAddr, PeerSettings},
    wire::{Family as Routes, FamilySet, HoldTime, MessageLimit},
};
use russet_core::model::calico::{
    BgpPeer, FailureDetection, Name, NextHopMode, Scope, SecretRef, SourceAddress,
};
use russet_net::{Asn, Family, Port, Prefix};

use super::{
    Grade, Reports, Resources,
    ours::{Ours, name_of_settings},
    rules::Rules,
    secrets::{NoSecret, Secrets},
    whom::Wish,
};
use crate::bgp::config::{
    BfdConfig, Hops, Origin, Password, PeerConfig, restart, watched_at_the_usual_pace,
};

/// What sessions are settled by.
pub(super) struct Settle<'a> {
    pub resources: &'a Resources,
    pub ours: &'a Ours<'a>,
    pub rules: Rules<'a>,
    pub secrets: &'a dyn Secrets,
    /// What was read already: a whole mesh has one password.
    pub passwords: BTreeMap<&'a SecretRef, Result<Password, NoSecret>>,
}

/// The sessions, and what could not be settled.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub peers: Vec<(PeerAddr, PeerConfig)>,
    pub unsettled: BTreeSet<PeerAddr>,
    pub faulty: BTreeSet<Name>,
    /// Ways to peers that are on no link of ours.
    pub gateways: BTreeMap<Prefix, IpAddr>,
}

impl<'a> Settle<'a> {
    pub fn all(mut self, whom: Vec<Wish<'a>>, reports: &mut Reports) -> Sessions {
        let mut sessions = Sessions::default();
        for wish in whom {
            match self.session(&wish, reports) {
                Ok(config) => {
                    let gateway = wish.object.and_then(|(_, peer)| peer.reachable_by);
                    let to = Prefix::host(wish.addr.ip);
                    sessions.gateways.extend(gateway.map(|gateway| (to, gateway)));
                    sessions.peers.push((wish.addr, config));
                }
                Err(reason) => {
                    let (kind, name) = at(&wish, self.resources);
                    reports.tell(kind, name, Grade::Fault, reason);
                    sessions.unsettled.insert(wish.addr);
                    sessions.faulty.extend(wish.object.map(|(name, _)| name.clone()));
                }
            }
        }
        sessions
    }

    fn session(&mut self, wish: &Wish<'a>, reports: &mut Reports) -> Result<PeerConfig, String> {
        if wish.asn == Asn::ZERO {
            return Err(format!("{}: AS 0 is nobody", wish.addr));
        }
        let family = Family::of(wish.addr.ip);
        let peer = wish.object.map(|(_, peer)| peer);
        let local = LocalSpeaker {
            asn: peer.and_then(|peer| peer.local_asn).unwrap_or(self.ours.local.asn),
            ..self.ours.local
        };
        let internal = wish.asn == local.asn;
        let passes =
            self.rules.passes(peer.map_or(&[], |peer| &peer.filters), family, internal).map_err(
                |missing| format!("there is no BGPFilter {missing}; its peers stay as they are"),
            )?;
        let password = self.password(wish)?;
        let source = match peer.map_or(SourceAddress::UseNodeIp, |peer| peer.source) {
            SourceAddress::UseNodeIp => self.ours.addr(family),
            SourceAddress::None => None,
        };
        let hops = peer.and_then(|peer| peer.ttl_hops);
        Ok(PeerConfig {
            description: None,
            origin: Some(Origin {
                kind: wish.rank.kind(),
                object: wish.object.map(|(name, _)| name.clone()),
                node: wish.node.cloned(),
            }),
            session: self.machine(wish, local, reports),
            settings: PeerSettings {
                internal: if self.is_client(wish) { Relation::Client } else { Relation::NonClient },
                import: passes.import,
                export: passes.export,
                next_hop: next_hop(peer, internal),
                own_as: peer.map_or(0, |peer| peer.allowed_own_as),
                limits: [None; 3],
            },
            port: Port::try_from(wish.port).map_err(|err| err.to_string())?,
            source,
            password,
            // Calico's sessions may pass routers, whoever they are with.
            hops: hops.map_or(Hops::Usual, |hops| Hops::Counted(hops.get())),
            bfd: self.bfd(wish, reports),
            next_hops: [None; 2],
        })
    }

    fn machine(
        &self,
        wish: &Wish<'_>,
        local: LocalSpeaker,
        reports: &mut Reports,
    ) -> SessionConfig {
        let families = FamilySet::EMPTY.with(match Family::of(wish.addr.ip) {
            Family::V4 => Routes::Ipv4Unicast,
            Family::V6 => Routes::Ipv6Unicast,
        });
        let peer = wish.object.map(|(_, peer)| peer);
        let restart_time = match peer {
            Some(peer) => peer.restart_time,
            None => self.ours.cluster.mesh_restart_time,
        };
        let time_s = restart_time.unwrap_or(USUAL_RESTART).as_secs();
        let (kind, name) = at(wish, self.resources);
        if time_s > MOST_RESTART_S.into() {
            let reason =
                format!("a restart of {time_s} s is more than BGP can say: {MOST_RESTART_S} s");
            reports.tell(kind, name, Grade::Note, reason);
        }
        let time_s = u16::try_from(time_s).unwrap_or(u16::MAX).min(MOST_RESTART_S);
        SessionConfig {
            local,
            remote: RemoteAs::Is(wish.asn),
            opening: self.opening(wish),
            hold: peer.and_then(|peer| peer.keepalive).map_or(HoldTime::USUAL, held_for),
            retry: RETRY,
            families,
            add_path_in: FamilySet::EMPTY,
            add_path_out: FamilySet::EMPTY,
            extended_next_hop: FamilySet::EMPTY,
            limit: MessageLimit::Usual,
            restart: (time_s > 0).then(|| restart(families, time_s)),
        }
    }

    /// Between two nodes the one whose address is behind the other's as a text dials, as Calico has it, so that two that
    /// start at once do not meet halfway.
    fn opening(&self, wish: &Wish<'_>) -> Opening {
        let ip = wish.addr.ip;
        let own = self.ours.addr(Family::of(ip)).filter(|_| wish.node.is_some());
        match own {
            Some(own) if ip.to_string() > own.to_string() => Opening::Passive,
            _ => Opening::Active,
        }
    }

    /// A reflector's clients are its internal peers, but those of its own cluster.
    fn is_client(&self, wish: &Wish<'_>) -> bool {
        self.ours.cluster_id.is_some() && wish.cluster_id != self.ours.cluster_id
    }

    fn password(&mut self, wish: &Wish<'a>) -> Result<Option<Password>, String> {
        let secret: Option<&'a SecretRef> = match wish.object {
            Some((_, peer)) => peer.password.as_ref(),
            None => self.ours.cluster.mesh_password.as_ref(),
        };
        let Some(secret) = secret else { return Ok(None) };
        let read = || self.secrets.password(secret);
        let password = self.passwords.entry(secret).or_insert_with(read).clone();
        password.map(Some).map_err(|err| format!("password: {err}; no session without it"))
    }

    fn bfd(&self, wish: &Wish<'_>, reports: &mut Reports) -> Option<BfdConfig> {
        let (name, peer) = wish.object?;
        if peer.failure_detection != FailureDetection::BfdIfDirectlyConnected {
            return None;
        }
        let ip = wish.addr.ip;
        let near = self.ours.node.underlay(Family::of(ip));
        if !near.is_some_and(|here| here.subnet().contains(ip)) {
            let reason = format!("failureDetectionMode: {ip} is on no subnet of this node");
            reports.tell(Kind::BgpPeer, name, Grade::Note, reason);
            return None;
        }
        Some(BfdConfig { timing: watched_at_the_usual_pace()?, hops: bfd::Hops::Single })
    }
}

/// The object that says a session; the mesh is said by the cluster's settings, or else by the node that there is.
fn at<'a>(wish: &Wish<'a>, resources: &'a Resources) -> (Kind, &'a Name) {
    if let Some((name, _)) = wish.object {
        return (Kind::BgpPeer, name);
    }
    match name_of_settings(resources, &Scope::Cluster) {
        Some(name) => (Kind::BgpConfiguration, name),
        None => (Kind::Node, wish.node.unwrap_or(&resources.node)),
    }
}

/// An external peer is told ours, and an internal one what came, unless the object says otherwise.
fn next_hop(peer: Option<&BgpPeer>, internal: bool) -> NextHopRule {
    match peer.map_or(NextHopMode::Auto, |peer| peer.next_hop) {
        NextHopMode::Auto if internal => NextHopRule::Keep,
        NextHopMode::Keep => NextHopRule::Keep,
        NextHopMode::Own | NextHopMode::Auto => NextHopRule::Ours,
    }
}

/// Three keepalives (RFC 4271 §4.4).
fn held_for(keepalive: Duration) -> HoldTime {
    let three = u16::try_from(keepalive.as_secs().saturating_mul(3)).unwrap_or(u16::MAX);
    HoldTime::try_from(three.max(3)).unwrap_or(HoldTime::USUAL)
}

/// What BIRD says where Calico says nothing.
const USUAL_RESTART: Duration = Duration::from_mins(2);
const MOST_RESTART_S: u16 = 4_095;
const RETRY: Duration = Duration::from_secs(5);
