//! How the speaker becomes like a configuration that is read anew: what did not change is left alone.

use russet_bgp::{
    speaker::PeerAddr,
    wire::{Notification, Reason},
};

use super::{
    config::{BgpConfig, PeerConfig},
    manager::{Manager, Peer},
    peer::Stay,
    routes::RibInput,
};
use crate::config::ConfigFaults;

impl Manager {
    /// Reads the configuration again. What did not change is left alone; one that is refused changes nothing.
    pub(super) async fn reload(&mut self) {
        match (self.read)().and_then(|config| self.check_unchanged(config)) {
            Ok(config) => {
                self.refused = None;
                self.become_like(config).await;
                tracing::info!(op = "reload", "the configuration is read again");
            }
            Err(faults) => {
                tracing::error!(op = "reload", error = %faults);
                self.refused = Some(faults.to_string());
            }
        }
    }

    fn check_unchanged(&self, config: BgpConfig) -> Result<BgpConfig, ConfigFaults> {
        let ours = &self.config;
        let same = [
            ("asn or router-id", config.local == ours.local),
            ("cluster-id", config.cluster == ours.cluster),
            ("listen", config.listen == ours.listen),
            ("admin-socket", config.admin_socket == ours.admin_socket),
            ("http", config.http == ours.http),
        ];
        let changed: Vec<_> = (same.into_iter())
            .filter(|(_, same)| !same)
            .map(|(key, _)| format!("{key}: it cannot change while the speaker runs"))
            .collect();
        if changed.is_empty() { Ok(config) } else { Err(ConfigFaults(changed)) }
    }

    async fn become_like(&mut self, config: BgpConfig) {
        self.sign_like(&config);
        let wanted = |addr: PeerAddr, peer: &Peer| match peer.stay {
            Stay::Configured | Stay::Found => config.peer(addr).cloned(),
            Stay::WhileConnected => config
                .range_of(addr.ip)
                .map(|range| range.peer.clone())
                .filter(|_| config.peer(addr).is_none()),
        };
        let changed: Vec<_> = (self.peers.iter())
            .filter(|(addr, peer)| wanted(**addr, peer).as_ref() != Some(&peer.config))
            .map(|(addr, peer)| (*addr, wanted(*addr, peer)))
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
        let Some(peer) = self.peers.remove(&addr) else { return };
        let reason =
            if wanted.is_some() { Reason::CONFIGURATION_CHANGE } else { Reason::DECONFIGURED };
        peer.handle.close(Notification::new(reason)).await;
        match wanted {
            Some(wanted) if peer.stay == Stay::Found => {
                self.start_peer(addr, wanted, Stay::Found);
            }
            Some(_) => {}
            None => self.routes.tell(RibInput::Forget(addr)),
        }
    }

    /// Gives the listeners the passwords of a new configuration.
    fn sign_like(&self, config: &BgpConfig) {
        let (before, after) = (self.config.passwords(), config.passwords());
        let gone =
            before.iter().filter(|(prefix, _)| !after.iter().any(|(other, _)| other == prefix));
        let gone = gone.map(|(prefix, _)| (*prefix, ""));
        let new = after.iter().filter(|pair| !before.contains(pair));
        for (prefix, password) in gone.chain(new.map(|(prefix, new)| (*prefix, new.reveal()))) {
            self.sign(prefix, password);
        }
    }
}
