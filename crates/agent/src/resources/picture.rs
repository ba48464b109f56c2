//! What is known of Calico's objects now, key by key.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use russet_api::calico::{Key, Kind, ResourceId, Stored};
use russet_core::{
    Fault,
    addressing::blocks::{HandleId, Outline},
    model::calico::{
        Affinity, BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, ClusterInformation,
        FelixConfiguration, IpPool, IpReservation, IpamBlock, IpamConfiguration, Name, Node,
    },
};

use super::{Change, decode::Decoded};

/// A checked value. It is cheap to clone.
#[derive(Clone, Debug)]
pub enum Object {
    Pool(Arc<IpPool>),
    Reservation(Arc<IpReservation>),
    Node(Arc<Node>),
    Felix(Arc<FelixConfiguration>),
    BgpConfiguration(Arc<BgpConfiguration>),
    BgpPeer(Arc<BgpPeer>),
    BgpFilter(Arc<BgpFilter>),
    Cluster(Arc<ClusterInformation>),
    IpamConfiguration(IpamConfiguration),
    Block(BlockNews),
    /// A claim of this node's.
    Affinity(BlockAffinity),
}

/// A block, as far as this node needs it.
#[derive(Clone, Debug)]
pub enum BlockNews {
    /// This node's, with what is unknown in it.
    Own(Arc<Stored<IpamBlock>>),
    Other {
        outline: Outline,
        /// The addresses in it that are this node's, each with its handle.
        ours: Arc<[(IpAddr, HandleId)]>,
        /// Whose its addresses are that are not its own node's.
        borrowed: Arc<[(IpAddr, Name)]>,
    },
}

impl BlockNews {
    /// In a few words.
    pub fn affinity(&self) -> Option<&Affinity> {
        match self {
            Self::Own(stored) => stored.value().affinity(),
            Self::Other { outline, .. } => outline.affinity.as_ref(),
        }
    }

    /// A node has several blocks, and its name need not stand beside each.
    fn share_name(&mut self, nodes: &BTreeSet<Name>) {
        if let Self::Other { outline: Outline { affinity: Some(Affinity::Host(host)), .. }, .. } =
            self
            && let Some(name) = nodes.get(host)
        {
            host.clone_from(name);
        }
    }

    /// Addresses that nodes have to which the block has no affinity.
    pub fn borrowed(&self) -> Cow<'_, [(IpAddr, Name)]> {
        match self {
            Self::Own(stored) => super::decode::borrowed(stored.value()).into(),
            Self::Other { borrowed, .. } => Cow::Borrowed(borrowed),
        }
    }
}

/// A key that exists: its last good value, and what is wrong with it now.
#[derive(Clone, Debug)]
pub struct Known {
    /// The revision of the last write, be it good or not.
    pub revision: u64,
    /// The revision at which the key came to be.
    pub created: u64,
    /// `None` when it was never good. A bad block has none: what it was does not count any more.
    pub value: Option<Object>,
    pub fault: Option<Arc<Fault>>,
}

/// Every key that this node reads.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    objects: BTreeMap<Key, Known>,
    /// The bytes of the few objects that are kept on disk, as they were when they were last good.
    texts: BTreeMap<Key, Arc<[u8]>>,
}

impl Picture {
    /// A whole picture. What is bad in it keeps the value that it had in the one before.
    pub(super) fn of(decoded: Vec<Decoded>, before: &Self) -> Self {
        let nodes: BTreeSet<_> =
            decoded.iter().filter_map(|one| node_of(&one.key)).cloned().collect();
        let mut texts = BTreeMap::new();
        let known = |Decoded { key, revision, created, what, text }: Decoded| {
            let mut known = next(before.objects.get(&key), [revision, created], what?);
            if let Some(Object::Block(block)) = &mut known.value {
                block.share_name(&nodes);
            }
            let text = text.or_else(|| before.texts.get(&key).cloned());
            texts.extend(text.map(|text| (key.clone(), text)));
            Some((key, known))
        };
        let objects = decoded.into_iter().filter_map(known).collect();
        Self { objects, texts }
    }

    /// Takes one change.
    pub(super) fn put(&mut self, decoded: Decoded) -> Change {
        let Decoded { key, revision, created, what, text } = decoded;
        let known = what.map(|what| next(self.objects.get(&key), [revision, created], what));
        if let Some(known) = known.clone() {
            self.objects.insert(key.clone(), known);
        } else {
            self.objects.remove(&key);
            self.texts.remove(&key);
        }
        self.texts.extend(text.clone().map(|text| (key.clone(), text)));
        Change { key, revision, known, text }
    }

    /// What is kept on disk of an object.
    pub fn text(&self, key: &Key) -> Option<&Arc<[u8]>> {
        self.texts.get(key)
    }

    pub fn get(&self, key: &Key) -> Option<&Known> {
        self.objects.get(key)
    }

    /// Sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Known)> {
        self.objects.iter()
    }

    /// The objects of one kind by name, the good ones and those that were.
    pub fn resources(&self, kind: Kind) -> impl Iterator<Item = (&Name, &Object)> {
        self.objects.iter().filter_map(move |(key, known)| match key {
            Key::Resource(ResourceId { kind: is, name, .. }) if *is == kind => {
                Some((name, known.value.as_ref()?))
            }
            _ => None,
        })
    }

    /// What is wrong, by key.
    pub fn faults(&self) -> impl Iterator<Item = (&Key, &Fault)> {
        self.objects.iter().filter_map(|(key, known)| Some((key, known.fault.as_deref()?)))
    }

    /// The cluster's own name for itself.
    pub fn cluster_id(&self) -> Option<String> {
        let known = self.objects.get(&super::cluster()?)?;
        match known.value.as_ref()? {
            Object::Cluster(cluster) => cluster.guid.clone(),
            _ => None,
        }
    }

    pub(super) fn has_pool(&self) -> bool {
        self.resources(Kind::IpPool).next().is_some()
    }
}

/// The node whose own object a key is.
fn node_of(key: &Key) -> Option<&Name> {
    match key {
        Key::Resource(ResourceId { kind: Kind::Node, name, .. }) => Some(name),
        _ => None,
    }
}

fn next(
    before: Option<&Known>,
    [revision, created]: [u64; 2],
    what: Result<Object, Fault>,
) -> Known {
    match what {
        Ok(value) => Known { revision, created, value: Some(value), fault: None },
        Err(fault) => {
            let value = before.and_then(|known| known.value.clone()).filter(outlives_a_fault);
            Known { revision, created, value, fault: Some(Arc::new(fault)) }
        }
    }
}

/// Settings stay in force while somebody mends them. Who has which address is believed now or not at all.
const fn outlives_a_fault(object: &Object) -> bool {
    !matches!(object, Object::Block(_) | Object::Affinity(_))
}
