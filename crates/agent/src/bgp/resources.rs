//! What the speaker is told by Calico's resources: from nodes, `BGPConfiguration`, `BGPPeer`, `BGPFilter` and pools to
//! a [`BgpConfig`], the same that a file becomes.
//!
//! ```text
//!   Resources ──▶ ours: who we are ──▶ whom: with whom, and by what ──▶ settle: each session ──▶ Wished
//!                                                         rules: what passes ──┘
//! ```
//!
//! [`derive()`] is a pure function but for the passwords, which it is handed. One bad object does not stop the rest: a
//! peer that cannot be settled is named in [`Wished::unsettled`], so that whoever applies the wish leaves its session as it
//! was. All that is wrong, has no effect or is worth knowing is a [`Report`] at its object.
//!
//! `read` makes [`Resources`] of documents, `secrets` has the passwords. `bgp/handover` knows when a session that is not
//! wished any more may go.

mod ours;
mod read;
mod rules;
mod secrets;
mod settle;
#[cfg(test)]
mod tests;
mod whom;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use russet_api::calico::Kind;
use russet_bgp::{fsm::RemoteAs, speaker::PeerAddr};
use russet_core::model::calico::{
    BgpConfiguration, BgpFilter, BgpPeer, IpPool, Name, Node, PeerKind,
};
use russet_net::{Asn, Prefix};

use self::{ours::Ours, rules::Rules, settle::Settle};
pub use self::{
    read::Documents,
    secrets::{Folder, NoSecret, Secrets},
};
use super::config::BgpConfig;
use crate::config::ConfigFaults;

/// All of Calico's objects that the speaker heeds, each as it was last read well.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// This node.
    pub node: Name,
    pub nodes: BTreeMap<Name, Node>,
    /// `default`, and `node.NAME` for one node.
    pub configurations: BTreeMap<Name, BgpConfiguration>,
    pub peers: BTreeMap<Name, BgpPeer>,
    pub filters: BTreeMap<Name, BgpFilter>,
    pub pools: BTreeMap<Name, IpPool>,
    /// What was wrong in reading them.
    pub reports: Vec<Report>,
}

impl Resources {
    /// Nothing is known but who we are.
    pub const fn of(node: Name) -> Self {
        Self {
            node,
            nodes: BTreeMap::new(),
            configurations: BTreeMap::new(),
            peers: BTreeMap::new(),
            filters: BTreeMap::new(),
            pools: BTreeMap::new(),
            reports: Vec::new(),
        }
    }
}

/// What of a speaker no resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub admin_socket: PathBuf,
    /// Where `/metrics` answers; `None` is off.
    pub http: Option<SocketAddr>,
    /// What is announced as ours beside what is here.
    pub announced: Vec<Prefix>,
}

/// The AS numbers that sessions go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsNumbers {
    pub ours: Asn,
    /// Of nodes that say none.
    pub others: Asn,
}

/// Something to tell of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    pub kind: Kind,
    pub name: Name,
    pub grade: Grade,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Something that is wanted is not done.
    Fault,
    /// It is said and means nothing here.
    NoEffect,
    /// It is as it should be, and may surprise.
    Note,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fault => "fault",
            Self::NoEffect => "no effect",
            Self::Note => "note",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.reason)
    }
}

/// What the speaker should be.
#[derive(Clone, Debug)]
pub struct Wished {
    pub config: BgpConfig,
    /// What [`derive()`] is to be told while a speaker of this configuration runs.
    pub asns: AsNumbers,
    /// Peers that are wished and cannot be settled: their sessions stay as they are.
    pub unsettled: BTreeSet<PeerAddr>,
    /// The `BGPPeer`s of these; what they said before stays, too, if it was another address.
    pub faulty: BTreeSet<Name>,
    /// Nodes that are there: a session with another one is with nobody.
    pub nodes: BTreeSet<Name>,
    /// Sorted, each once.
    pub reports: Vec<Report>,
}

impl From<BgpConfig> for Wished {
    /// A file has no objects.
    fn from(config: BgpConfig) -> Self {
        let asn = config.local.asn;
        Self {
            asns: AsNumbers { ours: asn, others: asn },
            config,
            unsettled: BTreeSet::new(),
            faulty: BTreeSet::new(),
            nodes: BTreeSet::new(),
            reports: Vec::new(),
        }
    }
}

impl Wished {
    /// The sessions as an operator is shown them: address, port, AS, kind, and the object or the node.
    pub fn sessions(&self) -> impl Iterator<Item = Vec<String>> {
        self.config.peers.iter().map(|(addr, peer)| {
            let (kind, object) = match &peer.origin {
                Some(origin) => {
                    (name_of(origin.kind), origin.object.as_ref().or(origin.node.as_ref()))
                }
                None => ("", None),
            };
            let asn = match peer.session.remote {
                RemoteAs::Is(asn) => asn.to_string(),
                RemoteAs::Internal => "internal".to_owned(),
                RemoteAs::External => "external".to_owned(),
            };
            let object = object.map(ToString::to_string).unwrap_or_default();
            vec![addr.to_string(), peer.port.get().to_string(), asn, kind.to_owned(), object]
        })
    }
}

/// As `calicoctl node status` has it.
pub(super) const fn name_of(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::NodeMesh => "node-to-node mesh",
        PeerKind::NodePeer => "node specific",
        PeerKind::GlobalPeer => "global",
    }
}

/// Collects what is to be told.
#[derive(Debug, Default)]
struct Reports(BTreeSet<Report>);

impl Reports {
    fn tell(&mut self, kind: Kind, name: &Name, grade: Grade, reason: impl Into<String>) {
        let (name, reason) = (name.clone(), reason.into());
        self.0.insert(Report { kind, name, grade, reason });
    }
}

/// From resources to what the speaker should be. One that runs already keeps its AS, and says which is `in_force`.
///
/// # Errors
///
/// When this node is not known well enough to be anybody.
pub fn derive(
    resources: &Resources,
    base: &Base,
    in_force: Option<AsNumbers>,
    secrets: &dyn Secrets,
) -> Result<Wished, ConfigFaults> {
    let mut reports = Reports(resources.reports.iter().cloned().collect());
    let ours = Ours::of(resources, in_force, &mut reports)?;
    let rules = Rules::of(resources, &mut reports);
    let whom = whom::chosen(resources, &ours, &mut reports);
    let passwords = BTreeMap::new();
    let settle = Settle { resources, ours: &ours, rules, secrets, passwords };
    let sessions = settle.all(whom, &mut reports);
    let config = BgpConfig {
        local: ours.local,
        cluster: ours.cluster(),
        listen: ours.listen(),
        admin_socket: base.admin_socket.clone(),
        http: base.http,
        peers: sessions.peers,
        links: Vec::new(),
        ranges: Vec::new(),
        routes: ours.routes(&base.announced),
        marks: ours.marks(),
        gateways: sessions.gateways,
        withheld: rules::by_the_store(resources),
        patience: PATIENCE,
    };
    Ok(Wished {
        config,
        asns: ours.asns,
        unsettled: sessions.unsettled,
        faulty: sessions.faulty,
        nodes: resources.nodes.keys().cloned().collect(),
        reports: reports.0.into_iter().collect(),
    })
}

/// Long enough to be told by all who are there, and short beside what a dead node would cost a new one.
const PATIENCE: Duration = Duration::from_secs(20);
