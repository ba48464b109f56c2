//! What all BGP speakers of the cluster have in common.

use std::{collections::BTreeMap, time::Duration};

use russet_desired::Flag;
use russet_net::{Asn, Port, Prefix};

use super::Community;

/// The cluster's, or one node's, settings of BGP. `None` is what the cluster's say, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BgpConfiguration {
    pub asn: Option<Asn>,
    /// Whether every node is a peer of every other.
    pub mesh: Option<Flag>,
    pub listen_port: Option<Port>,
    pub bind_mode: Option<BindMode>,
    /// Where service addresses are announced from; others are not.
    pub service_cluster: Vec<Prefix>,
    pub service_external: Vec<Prefix>,
    pub service_load_balancer: Vec<Prefix>,
    /// By the name that advertisements use.
    pub communities: BTreeMap<String, Community>,
    pub advertisements: Vec<PrefixAdvertisement>,
    pub mesh_password: Option<SecretRef>,
    pub mesh_restart_time: Option<Duration>,
    /// Links whose addresses are not announced; `*` stands for any letters.
    pub ignored_links: Vec<String>,
}

impl BgpConfiguration {
    pub const USUAL_ASN: Asn = Asn::new(64_512);
    /// Nothing is said.
    pub const NONE: Self = Self {
        asn: None,
        mesh: None,
        listen_port: None,
        bind_mode: None,
        service_cluster: Vec::new(),
        service_external: Vec::new(),
        service_load_balancer: Vec::new(),
        communities: BTreeMap::new(),
        advertisements: Vec::new(),
        mesh_password: None,
        mesh_restart_time: None,
        ignored_links: Vec::new(),
    };

    pub fn asn(&self) -> Asn {
        self.asn.unwrap_or(Self::USUAL_ASN)
    }

    pub fn has_mesh(&self) -> bool {
        self.mesh.is_none_or(Flag::is_on)
    }
}

/// Which addresses the speaker listens on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    #[default]
    None,
    NodeIp,
}

/// Communities for what is announced within a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixAdvertisement {
    pub cidr: Prefix,
    pub communities: Vec<Tag>,
}

/// A community, or the name of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    Value(Community),
    Named(String),
}

/// Where a password lies: never the password.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretRef {
    pub name: String,
    pub key: String,
}
