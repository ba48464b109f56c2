//! What the datastore says: judged, translated into changes of facts, and handed to the lease machine.
//!
//! `doubt` has what is done with a store that is not believed.

mod doubt;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use russet_api::flannel::{Keys, StoreKey, read_lease, read_net_conf};
use russet_core::{
    Change, Fact, FactId, Fault, Source,
    lease::{LeaseClaim, LeaseInput, Life},
    model::{LeaseKey, NetworkConfig, Preset},
    world::World,
};
use russet_store::{KeyChange, KeyValue, Snapshot, WatchEvent};

use super::{
    Owner,
    trust::{Claimed, Doubt, Seen, is_other_history, judge, looked_at},
};
use crate::{config::Config, disk::checkpoint::Checkpoint, one_line};

/// What the owner knows of the datastore.
#[derive(Debug)]
pub struct StoreView {
    keys: Keys,
    preset: Preset,
    pub seen: Seen,
    pub connected: bool,
    pub error: Option<String>,
    pub doubt: Option<Doubt>,
    pub events: u64,
    /// The raw form of the configuration that was last in force, for the checkpoint.
    pub raw_config: Option<Vec<u8>>,
    /// The last one that was readable. It may not hold on this node.
    readable: Option<(NetworkConfig, Vec<u8>)>,
    /// Of the last snapshot that was believed.
    pub digest: Option<String>,
    /// The entries of a snapshot that is not believed, with what came after.
    aside: BTreeMap<Vec<u8>, KeyValue>,
    put_back: PutBack,
    /// Leases that were deleted after the configuration was: somebody emptied the store.
    withheld: BTreeSet<LeaseKey>,
    /// The id in the store now, believed or not.
    cluster_id: Option<String>,
    revision: u64,
    looked_at: u64,
}

/// Whether the lease machine works on a store that is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PutBack {
    No,
    Begun,
}

impl StoreView {
    pub fn new(config: &Config, kept: Option<&Checkpoint>) -> Self {
        Self {
            keys: Keys::new(&config.prefix),
            preset: config.settings.preset,
            seen: kept.map(Seen::of).unwrap_or_default(),
            connected: false,
            error: None,
            doubt: None,
            events: 0,
            raw_config: kept.and_then(|kept| kept.config.clone()),
            readable: None,
            digest: kept.and_then(|kept| kept.digest.clone()),
            aside: BTreeMap::new(),
            put_back: PutBack::No,
            withheld: BTreeSet::new(),
            cluster_id: None,
            revision: 0,
            looked_at: 0,
        }
    }

    /// The store answers, and is believed unless it is doubted.
    pub(super) fn reached_at(&mut self, revision: u64, doubt: Option<Doubt>) {
        self.connected = true;
        self.error = None;
        if doubt.is_none() {
            self.seen.revision = revision;
            self.seen.configured = true;
        }
        self.doubt = doubt;
    }

    pub(super) fn away(&mut self, error: String) {
        tracing::warn!(op = "watch", %error, "the datastore is away; pods run on");
        self.connected = false;
        self.error = Some(error);
    }

    pub(super) fn back(&mut self) {
        tracing::info!(op = "watch", "the datastore is back; nothing was missed");
        self.connected = true;
        self.error = None;
    }

    /// A configuration that was good when it was kept.
    pub fn read_config(&self, raw: &[u8]) -> Option<NetworkConfig> {
        let read = read_net_conf(raw, self.preset);
        read.map_err(|fault| tracing::warn!(op = "recall", reason = %one_line(&fault), "the kept configuration is of no use")).ok()
    }

    fn note_config(&mut self, raw: &[u8]) {
        if let Ok(config) = read_net_conf(raw, self.preset) {
            self.readable = Some((config, raw.to_vec()));
        }
    }

    /// Takes note of what is in force. One that is bad, or is held, must not reach the checkpoint: a restart
    /// without the store would have nothing to go on with.
    pub(super) fn note_in_force(&mut self, in_force: Option<&NetworkConfig>) {
        match self.readable.take() {
            Some((config, raw)) if Some(&config) == in_force => self.raw_config = Some(raw),
            other => self.readable = other,
        }
    }

    /// What the store says of itself now.
    fn claimed(&self, entries: &[KeyValue]) -> Claimed {
        let config = self.keys.config();
        Claimed {
            cluster_id: self.cluster_id.clone(),
            revision: self.looked_at,
            configured: entries.iter().any(|kv| kv.key == config.as_bytes()),
        }
    }

    /// The same of what is kept aside.
    fn claimed_aside(&self) -> Claimed {
        Claimed {
            cluster_id: self.cluster_id.clone(),
            revision: self.looked_at,
            configured: self.aside.contains_key(self.keys.config().as_bytes()),
        }
    }

    fn cluster_key(&self) -> Vec<u8> {
        self.keys.ours("cluster-id").into_bytes()
    }

    fn note_identity(&mut self, entries: &[KeyValue]) {
        let key = self.cluster_key();
        let value = entries.iter().find(|kv| kv.key == key).map(|kv| text(&kv.value));
        self.cluster_id = value;
    }

    /// Everything that this life believes from now on.
    fn believe(&mut self) {
        self.doubt = None;
        self.aside.clear();
        self.withheld.clear();
        self.seen.revision = self.revision;
        self.seen.configured = true;
        self.seen.cluster_id.clone_from(&self.cluster_id);
    }

    /// Takes a store's history for the right one, which has no configuration yet.
    fn accept_unconfigured(&mut self) {
        self.looked_at = self.revision;
        let (cluster_id, revision) = (self.cluster_id.clone(), self.revision);
        self.seen = Seen { cluster_id, revision, configured: false };
        self.doubt = Some(Doubt::NoConfiguration);
    }

    /// The fact that a key's value says, or `None` for a key that means nothing here.
    fn fact(&self, kv: &KeyValue) -> Option<Change> {
        let rev = kv.created.get();
        let (id, read) = match self.keys.read(&kv.key) {
            StoreKey::Config => {
                (FactId::Config, read_net_conf(&kv.value, self.preset).map(Fact::Config))
            }
            StoreKey::Lease(key) => {
                let lease = read_lease(&kv.value);
                (FactId::Lease(key), lease.map(|lease| Fact::Lease(Box::new(lease))))
            }
            StoreKey::BadLease(fault) => {
                tracing::warn!(op = "read store", reason = %one_line(&fault), "a lease's key is left out");
                return None;
            }
            StoreKey::Other => return None,
        };
        Some(match read {
            Ok(fact) => Change::Upsert { id, fact, rev },
            Err(fault) => Change::Bad { id, fault },
        })
    }

    /// What the lease machine must know of a key: who holds it, and whether it runs out.
    fn claim(&self, kv: &KeyValue) -> Option<LeaseClaim> {
        let StoreKey::Lease(key) = self.keys.read(&kv.key) else { return None };
        Some(LeaseClaim {
            key,
            lease: read_lease(&kv.value).ok(),
            create_rev: kv.created.get(),
            mod_rev: kv.modified.get(),
            life: if kv.lease.is_some() { Life::Leased } else { Life::Reserved },
        })
    }

    /// Keeps the removal of a lease back while there is no configuration: somebody emptied the store, and
    /// nothing is removed for that before the operator accepts it. Whoever lives puts its lease back.
    fn withhold(&mut self, change: Change, world: &World) -> Option<Change> {
        let fault = world.facts.get(&FactId::Config).and_then(|known| known.fault.as_deref());
        match change {
            Change::Remove { id: FactId::Lease(key) } if fault == Some(&Fault::ConfigGone) => {
                self.withheld.insert(key);
                None
            }
            Change::Upsert { id: FactId::Lease(key), .. } => {
                self.withheld.remove(&key);
                Some(change)
            }
            other => Some(other),
        }
    }

    fn gone(&self, key: &[u8]) -> Option<Change> {
        match self.keys.read(key) {
            StoreKey::Config => Some(Change::Bad { id: FactId::Config, fault: Fault::ConfigGone }),
            StoreKey::Lease(key) => Some(Change::Remove { id: FactId::Lease(key) }),
            StoreKey::BadLease(_) | StoreKey::Other => None,
        }
    }
}

// ---- events
impl Owner {
    pub(super) fn store_event(&mut self, event: WatchEvent, now: Instant) {
        self.store.events += 1;
        match event {
            // It was not asked for.
            WatchEvent::Part(_) => {}
            WatchEvent::Snapshot(snapshot) => self.snapshot(snapshot, now),
            WatchEvent::Changes { revision, changes } => {
                self.store.revision = revision.get();
                self.store_changes(changes, now);
            }
            WatchEvent::Interrupted { cause } => self.store.away(one_line(&cause)),
            WatchEvent::Resumed { .. } => self.store.back(),
        }
    }

    fn reached(&mut self) {
        self.store.connected = true;
        self.store.error = None;
    }

    fn snapshot(&mut self, snapshot: Snapshot, now: Instant) {
        self.reached();
        self.store.revision = snapshot.revision.get();
        self.store.note_identity(&snapshot.entries);
        self.store.looked_at = looked_at(
            self.store.looked_at,
            self.store.doubt.as_ref(),
            snapshot.reason,
            self.store.revision,
        );
        if is_other_history(snapshot.reason) {
            self.lease_input(LeaseInput::OtherHistory, now);
        }
        match judge(&self.store.seen, &self.store.claimed(&snapshot.entries)) {
            None => {
                self.store.believe();
                self.take_all(&snapshot.entries, now);
                self.unsettled = true;
                tracing::info!(
                    op = "snapshot",
                    revision = self.store.revision,
                    "the datastore is in sync"
                );
            }
            Some(doubt) => {
                tracing::error!(op = "snapshot", reason = %doubt, "the datastore is not believed; nothing is removed");
                self.store.doubt = Some(doubt);
                self.add_leases_only(&snapshot.entries);
                self.store.aside =
                    snapshot.entries.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                self.lease_in_doubt(now);
            }
        }
        self.ask_for_name();
    }

    /// Takes a picture that is believed: what it does not have is gone.
    fn take_all(&mut self, entries: &[KeyValue], now: Instant) {
        self.note_config(entries);
        self.store.digest = Some(digest(entries));
        let facts: Vec<_> = entries.iter().filter_map(|kv| self.store.fact(kv)).collect();
        let whole = std::iter::once(Change::Resync(Source::Store)).chain(facts);
        let whole = whole.chain([Change::InSync(Source::Store)]);
        self.take_pieces(whole);
        self.tell_lease_of_config(now);
        let claims = entries.iter().filter_map(|kv| self.store.claim(kv)).collect();
        self.lease_input(LeaseInput::Snapshot { claims, rev: self.store.revision }, now);
    }

    fn store_changes(&mut self, changes: Vec<KeyChange>, now: Instant) {
        self.note_changes(&changes);
        if self.store.doubt.is_some() {
            self.set_aside(&changes);
            self.doubt_again(&changes, now);
            return;
        }
        self.store.seen.revision = self.store.revision;
        for change in changes {
            self.store_change(&change, now);
        }
        self.ask_for_name();
    }

    fn store_change(&mut self, change: &KeyChange, now: Instant) {
        let fact = match change {
            KeyChange::Put(kv) => self.store.fact(kv),
            KeyChange::Delete { key, .. } => self.store.gone(key),
        };
        let Some(fact) = fact else { return };
        if let Change::Bad { id, fault } = &fact {
            tracing::warn!(op = "read store", subject = %id, reason = %one_line(fault), "it is left out");
        }
        if let Some(fact) = self.store.withhold(fact, self.calc.world()) {
            self.change(fact);
        }
        match (self.store.keys.read(change.key()), change) {
            (StoreKey::Config, KeyChange::Put(kv)) => {
                self.store.note_config(&kv.value);
                self.tell_lease_of_config(now);
            }
            _ => self.lease_change(change, now),
        }
    }

    /// Tells the lease machine of a change of a key.
    fn lease_change(&mut self, change: &KeyChange, now: Instant) {
        match (self.store.keys.read(change.key()), change) {
            (_, KeyChange::Put(kv)) => {
                if let Some(claim) = self.store.claim(kv) {
                    self.lease_input(LeaseInput::Claimed(claim), now);
                }
            }
            (StoreKey::Lease(key), KeyChange::Delete { revision, .. }) => {
                self.lease_input(LeaseInput::Gone { key, rev: revision.get() }, now);
            }
            _ => {}
        }
    }

    /// Tells the lease machine which configuration it may lease in.
    pub(super) fn tell_lease_of_config(&mut self, now: Instant) {
        if let Some(config) = self.calc.world().lease_config() {
            self.lease_input(LeaseInput::Config(config), now);
        }
    }

    fn note_changes(&mut self, changes: &[KeyChange]) {
        let key = self.store.cluster_key();
        for change in changes.iter().filter(|change| change.key() == key) {
            self.store.cluster_id = match change {
                KeyChange::Put(kv) => Some(text(&kv.value)),
                KeyChange::Delete { .. } => None,
            };
            // A store that is believed may be named anew. That it has lost its name is held against it.
            if self.store.doubt.is_none() && self.store.cluster_id.is_some() {
                self.store.seen.cluster_id.clone_from(&self.store.cluster_id);
            }
        }
    }

    /// A store that is believed and never had an id is given one. One that lost it is not: nodes that were
    /// away could not tell any more that it was emptied.
    fn ask_for_name(&mut self) {
        let named = self.store.cluster_id.is_some() || self.store.seen.cluster_id.is_some();
        if self.store.doubt.is_none() && !named && self.store.connected {
            // Full means that it is under way.
            let _ = self.outlets.name_cluster.try_send(());
        }
    }

    fn note_config(&mut self, entries: &[KeyValue]) {
        let key = self.store.keys.config();
        let found = entries.iter().find(|kv| kv.key == key.as_bytes());
        if let Some(kv) = found {
            self.store.note_config(&kv.value);
        }
    }
}

/// Tells one picture from another: which keys, written when.
fn digest(entries: &[KeyValue]) -> String {
    let line = |kv: &KeyValue| format!("{} {}\n", text(&kv.key), kv.modified);
    russet_api::cni::digest(&entries.iter().map(line).collect::<String>())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use russet_store::Revision;

    use super::*;
    use crate::config::RawConfig;

    pub(in crate::owner) const GOOD: &[u8] =
        br#"{"Network":"10.50.0.0/16","Backend":{"Type":"vxlan"}}"#;
    const OTHER: &[u8] = br#"{"Network":"10.60.0.0/16","Backend":{"Type":"vxlan"}}"#;
    const LEASE: &[u8] = br#"{"PublicIP":"192.168.1.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}}"#;

    #[test]
    fn a_configuration_that_is_bad_or_held_does_not_replace_the_kept_one() {
        let mut view = view();
        let good = read_net_conf(GOOD, view.preset).unwrap();
        view.note_config(GOOD);
        view.note_in_force(None);
        assert_eq!(view.raw_config, None);
        view.note_in_force(Some(&good));
        assert_eq!(view.raw_config.as_deref(), Some(GOOD));
        view.note_config(b"{");
        view.note_config(OTHER);
        view.note_in_force(Some(&good));
        assert_eq!(view.raw_config.as_deref(), Some(GOOD));
        view.note_in_force(Some(&read_net_conf(OTHER, view.preset).unwrap()));
        assert_eq!(view.raw_config.as_deref(), Some(OTHER));
    }

    #[test]
    fn an_older_store_that_is_accepted_without_a_configuration_is_believed_when_it_has_one() {
        let mut view = view();
        view.seen = Seen { revision: 900, configured: true, ..Seen::default() };
        (view.looked_at, view.revision) = (3, 12);
        assert!(matches!(judge(&view.seen, &view.claimed_aside()), Some(Doubt::Older { .. })));
        view.accept_unconfigured();
        assert_eq!(judge(&view.seen, &view.claimed_aside()), Some(Doubt::NoConfiguration));
        let key = view.keys.config().as_bytes().to_vec();
        let value = GOOD.to_vec();
        let at = Revision::new(13);
        let kv = KeyValue { key, value, created: at, modified: at, version: 1, lease: None };
        view.aside.insert(kv.key.clone(), kv);
        assert_eq!(judge(&view.seen, &view.claimed_aside()), None);
    }

    #[test]
    fn a_lease_that_goes_after_the_configuration_is_not_removed_before_it_is_back() {
        let mut view = view();
        let mut world = World::new(config().settings);
        let gone = Change::Remove { id: FactId::Lease(key()) };
        assert_eq!(view.withhold(gone.clone(), &world), Some(gone.clone()));
        world.apply(Change::Bad { id: FactId::Config, fault: Fault::ConfigGone });
        assert_eq!(view.withhold(gone, &world), None);
        assert!(view.withheld.contains(&key()));
        assert_eq!(view.withhold(lease(5), &world), Some(lease(5)));
        assert!(view.withheld.is_empty());
    }

    pub(in crate::owner) fn lease(rev: u64) -> Change {
        let fact = Fact::Lease(Box::new(read_lease(LEASE).unwrap()));
        Change::Upsert { id: FactId::Lease(key()), fact, rev }
    }

    fn key() -> LeaseKey {
        LeaseKey::new(Some("10.50.2.0/24".parse().unwrap()), None).unwrap()
    }

    fn view() -> StoreView {
        StoreView::new(&config(), None)
    }

    pub(in crate::owner) fn config() -> Config {
        toml::from_str::<RawConfig>("node = 'a'").unwrap().check().unwrap()
    }
}
