//! How the speaker becomes like a configuration that is read anew: what did not change is left alone.

use std::{collections::BTreeMap, time::Instant};

use russet_api::calico::Kind;
use russet_bgp::{
    reflector::Relation,
    speaker::PeerAddr,
    wire::{Notification, Reason},
};

use russet_net::Prefix;

use super::{
    config::{BgpConfig, PeerConfig},
    handover::{BOUND, Release, Sight},
    manager::{Manager, Peer},
    peer::Stay,
    resources::{Grade, Report, Wished},
    routes::RibInput,
};
use crate::config::ConfigFaults;

impl Manager {
    /// Asks again what we should be. What did not change is left alone; what is refused changes nothing.
    pub(super) async fn reload(&mut self) {
        let wished = (self.read)(Some(self.asns)).and_then(|mut wished| {
            self.keep_identifier(&mut wished);
            self.check_unchanged(&wished.config)?;
            Ok(wished)
        });
        match wished {
            Ok(wished) => {
                self.refused = None;
                let now = Instant::now();
                let peers = self.handover.wish(&self.config.peers, &wished, now);
                log_faults(&wished.reports, &self.reports);
                self.reports = wished.reports;
                self.become_like(BgpConfig { peers, ..wished.config }).await;
                tracing::debug!(op = "reload", "the configuration is read again");
            }
            Err(faults) => {
                // One that is refused once more is known.
                let text = faults.to_string();
                if self.refused.as_ref() != Some(&text) {
                    tracing::error!(op = "reload", error = text);
                }
                self.refused = Some(text);
            }
        }
    }

    /// A node whose address changes keeps the identifier that it has: any number does, and each session would begin
    /// anew for another.
    fn keep_identifier(&self, wished: &mut Wished) {
        // A file says what it means, and knows no nodes.
        if wished.nodes.is_empty() {
            return;
        }
        let config = &mut wished.config;
        // One that cannot be followed now is told, and keeps back nothing else.
        if config.listen != self.config.listen {
            config.listen.clone_from(&self.config.listen);
            if let Ok(name) = "default".parse() {
                let reason = "where the speaker listens changes when the agent starts anew".into();
                let (kind, grade) = (Kind::BgpConfiguration, Grade::Fault);
                wished.reports.push(Report { kind, name, grade, reason });
            }
        }
        if config.cluster == config.local.id.into() {
            config.cluster = self.config.local.id.into();
        }
        config.local.id = self.config.local.id;
        for (_, peer) in &mut config.peers {
            peer.session.local.id = self.config.local.id;
        }
    }

    fn check_unchanged(&self, config: &BgpConfig) -> Result<(), ConfigFaults> {
        let ours = &self.config;
        let same = [
            ("asn or router-id", config.local == ours.local),
            ("listen", config.listen == ours.listen),
            ("admin-socket", config.admin_socket == ours.admin_socket),
            ("http", config.http == ours.http),
        ];
        let changed: Vec<_> = (same.into_iter())
            .filter(|(_, same)| !same)
            .map(|(key, _)| format!("{key}: it cannot change while the speaker runs"))
            .collect();
        if changed.is_empty() { Ok(()) } else { Err(ConfigFaults(changed)) }
    }

    async fn become_like(&mut self, config: BgpConfig) {
        self.sign_like(&config);
        if config.cluster != self.config.cluster {
            let cluster = config.cluster;
            self.routes.tell(RibInput::Do(Box::new(move |speaker| {
                speaker.rib_mut().set_cluster(cluster);
            })));
        }
        let by_addr: BTreeMap<_, _> =
            config.peers.iter().rev().map(|(addr, peer)| (*addr, peer)).collect();
        let by_name = |addr: PeerAddr| {
            by_addr.get(&addr).copied().or_else(|| addr.link.and_then(|link| config.link(link)))
        };
        let wanted = |addr: PeerAddr, peer: &Peer| match peer.stay {
            Stay::Configured | Stay::Found => by_name(addr),
            Stay::WhileConnected => config
                .range_of(addr.ip)
                .map(|range| &range.peer)
                .filter(|_| by_name(addr).is_none()),
        };
        let changed: Vec<_> = (self.peers.iter())
            .map(|(addr, peer)| (*addr, &peer.config, wanted(*addr, peer)))
            .filter(|(_, is, wanted)| *wanted != Some(*is))
            .map(|(addr, _, wanted)| (addr, wanted.cloned()))
            .collect();
        for (addr, wanted) in changed {
            self.change(addr, wanted).await;
        }
        for (addr, peer) in &config.peers {
            if !self.peers.contains_key(addr) {
                self.start_peer(*addr, peer.clone(), Stay::Configured);
            }
        }
        self.config = config;
        self.announce();
        self.attend_links();
    }

    /// A session of which only the policies changed stands; any other is closed, and opened anew if it is wanted.
    async fn change(&mut self, addr: PeerAddr, wanted: Option<PeerConfig>) {
        if let (Some(peer), Some(wanted)) = (self.peers.get_mut(&addr), &wanted)
            && peer.config.differs_by_policy(wanted)
        {
            peer.config = wanted.clone();
            peer.handle.reconfigure(wanted.clone()).await;
            return;
        }
        let is_node = |peer: &Peer| peer.config.origin.as_ref().is_some_and(|it| it.node.is_some());
        if wanted.is_none() && self.peers.get(&addr).is_some_and(is_node) {
            // It hears of the same change, and ends its side when it may.
            self.leave(addr);
            return;
        }
        let Some(peer) = self.peers.remove(&addr) else { return };
        let reason =
            if wanted.is_some() { Reason::CONFIGURATION_CHANGE } else { Reason::DECONFIGURED };
        let life = peer.handle.life();
        peer.handle.close(Notification::new(reason)).await;
        match wanted {
            Some(wanted) if peer.stay == Stay::Found => {
                self.start_peer(addr, wanted, Stay::Found);
            }
            Some(_) => {}
            None => self.routes.tell(RibInput::Forget { peer: addr, life }),
        }
    }

    /// Lets go of sessions that were held, once others carry what they carried.
    pub(super) async fn hand_over(&mut self) {
        let sight = self.sight().await;
        for (addr, release) in self.handover.look(&sight, Instant::now()) {
            match release {
                Release::Replaced => {
                    tracing::info!(op = "hand over", peer = %addr, "others carry its routes");
                }
                Release::Late => tracing::warn!(
                    op = "hand over", peer = %addr, bound = ?BOUND,
                    "what is to come in its place did not all come"
                ),
                Release::NoClient => {
                    self.reflect_no_more(addr).await;
                    continue;
                }
            }
            self.config.peers.retain(|(other, _)| *other != addr);
            self.leave(addr);
        }
    }

    /// The session stands.
    async fn reflect_no_more(&mut self, addr: PeerAddr) {
        let Some((_, peer)) = self.config.peers.iter_mut().find(|(other, _)| *other == addr) else {
            return;
        };
        peer.settings.internal = Relation::NonClient;
        let wanted = peer.clone();
        tracing::info!(op = "hand over", peer = %addr, "it is reflected to no more");
        self.change(addr, Some(wanted)).await;
    }

    async fn sight(&self) -> Sight {
        let held: Vec<_> = self.handover.held().map(|(addr, _)| addr).collect();
        let awaited: Vec<_> = self.handover.awaited().collect();
        let asked = self.routes.ask(move |speaker| {
            let complete = awaited.into_iter().filter(|addr| speaker.has_told_all(*addr)).collect();
            let needed = |addr: &PeerAddr| (*addr, speaker.lost_without(*addr, &held));
            Sight { complete, needed: held.iter().map(needed).collect() }
        });
        asked.await.unwrap_or_default()
    }

    /// Ends a session that is not needed here any more. One that restarts gracefully is told nothing: the peer keeps
    /// its routes until it has them from others, too.
    fn leave(&mut self, addr: PeerAddr) {
        let Some(peer) = self.peers.remove(&addr) else { return };
        self.sign(Prefix::host(addr.ip), "");
        let keeps = peer.config.session.restart.is_some();
        let (routes, life) = (self.routes.clone(), peer.handle.life());
        // It takes a moment, and nobody is to wait for it.
        tokio::spawn(async move {
            if keeps {
                peer.handle.end().await;
            } else {
                peer.handle.close(Notification::new(Reason::DECONFIGURED)).await;
            }
            routes.tell(RibInput::Forget { peer: addr, life });
        });
    }

    /// Gives the listeners the passwords of a new configuration.
    fn sign_like(&self, config: &BgpConfig) {
        let of = |config: &BgpConfig| config.passwords().into_iter().collect::<BTreeMap<_, _>>();
        let (before, after) = (of(&self.config), of(config));
        let gone = before.keys().filter(|prefix| !after.contains_key(prefix));
        let gone = gone.map(|prefix| (*prefix, ""));
        let new = after.iter().filter(|(prefix, password)| before.get(prefix) != Some(password));
        for (prefix, password) in gone.chain(new.map(|(prefix, new)| (*prefix, new.reveal()))) {
            self.sign(prefix, password);
        }
    }
}

/// A fault is logged once, when it comes.
pub(super) fn log_faults(now: &[Report], before: &[Report]) {
    let is_new = |it: &&Report| it.grade == Grade::Fault && !before.contains(it);
    for report in now.iter().filter(is_new) {
        let object = format!("{} {}", report.kind, report.name);
        tracing::warn!(op = "heed resources", object, error = report.reason);
    }
}
