//! A topology: a whole cluster as one checked value.
//!
//! A file is YAML. `tree` reads it so that every value knows its line, `schema` holds it against the schema
//! that comes from the types in `form`, and `check` resolves names and fills in addresses. All faults are told
//! at once, each with its line and what would be right; only a faultless file becomes a [`Topology`].

mod check;
pub mod form;
mod schema;
mod tree;
pub mod value;
mod vars;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use russet_api::calico::Key;
use russet_net::{Family, Mtu, Prefix};
use serde_json::Value;

pub use self::{
    form::{Expect, Need, Step},
    schema::Fault,
    value::{Cidr, LinkAt, Name, Period},
    vars::Setting,
};

/// A cluster that can be built: every name in it means something, every node has its addresses.
#[derive(Clone, Debug)]
pub struct Topology {
    pub name: Name,
    pub summary: Option<String>,
    pub needs: Vec<Need>,
    pub mtu: Mtu,
    pub subnets: Vec<Subnet>,
    pub router: form::Router,
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    /// The value of the network configuration's key.
    pub config: Option<Value>,
    /// Calico's objects, each with its key in the store.
    pub resources: Vec<(Key, form::Resource)>,
    pub wired: Option<HandWired>,
    pub steps: Vec<Step>,
    pub expect: Vec<Expect>,
    /// What is run where the topology says `store`.
    pub stores: Stores,
}

/// What is run where a topology says `store`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Stores {
    /// `russet store`, as written
    #[default]
    Store,
    /// A real etcd in its place
    Etcd,
}

/// One switch.
#[derive(Clone, Debug)]
pub struct Subnet {
    pub name: Name,
    pub v4: Option<Prefix>,
    pub v6: Option<Prefix>,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: Name,
    /// The subnet's place in [`Topology::subnets`].
    pub subnet: usize,
    /// At most one of each family, each with the length of its subnet's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    pub programs: Vec<Program>,
    /// Nothing is started on it, and no pod made, before a step says so.
    pub late: bool,
    pub files: BTreeMap<PathBuf, String>,
    pub agent: BTreeMap<String, Value>,
}

/// What runs on a node.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: Name,
    pub kind: ProgramKind,
    pub env: BTreeMap<String, String>,
}

/// How a program is started; `programs` has the command lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    Agent,
    Store,
    Etcd,
    /// One of a cluster, of which all such programs of the topology are members.
    EtcdMember,
    Command(Vec<String>),
}

impl ProgramKind {
    /// Whether it keeps the cluster's keys.
    pub const fn is_store(&self) -> bool {
        matches!(self, Self::Store | Self::Etcd | Self::EtcdMember)
    }
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: Name,
    /// The node's name.
    pub node: Name,
    pub cni: Option<PathBuf>,
    /// What the runtime says in `CNI_ARGS`, where it is not what Kubernetes' would say.
    pub args: Option<String>,
}

/// Pods that are wired without an agent.
#[derive(Clone, Copy, Debug)]
pub struct HandWired {
    pub transport: form::HandTransport,
    pub network: Prefix,
}

/// A topology file that cannot be used, with everything that is wrong with it.
#[derive(Debug)]
pub struct Faults {
    pub file: String,
    pub faults: Vec<Fault>,
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "{}: {count} fault{}", self.file, if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Topology {
    /// Reads and checks a topology; `file` names it in messages.
    ///
    /// # Errors
    ///
    /// Every fault of the text.
    pub fn parse(file: &str, text: &str) -> Result<Self, Faults> {
        check::check(text).map_err(|mut faults| {
            faults.sort();
            faults.dedup();
            Faults { file: file.to_owned(), faults }
        })
    }

    /// Reads and checks a topology file; its text comes beside it, with the words that it leaves open filled in.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or [`Faults`].
    pub fn read(path: &Path, settings: &[Setting]) -> anyhow::Result<(Self, String)> {
        use anyhow::Context as _;
        let text =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let file = path.display().to_string();
        let text = vars::fill_in(&file, &text, settings)?;
        let topology = Self::parse(&file, &text)?;
        Ok((topology, text))
    }

    /// The JSON schema of topology files.
    pub fn schema() -> Value {
        schemars::schema_for!(form::File).to_value()
    }

    /// The same cluster upon other stores. With etcd in its place the process is still called `store`, so every
    /// step that speaks of it means etcd now; the lab's name differs, so that both can be up.
    #[must_use]
    pub fn upon(mut self, stores: Stores) -> Self {
        self.stores = stores;
        if stores == Stores::Store {
            return self;
        }
        let programs = self.nodes.iter_mut().flat_map(|node| &mut node.programs);
        for program in programs.filter(|program| program.kind == ProgramKind::Store) {
            program.kind = ProgramKind::Etcd;
        }
        if !self.needs.contains(&Need::Etcd) {
            self.needs.push(Need::Etcd);
        }
        self.name = self.name.with_suffix("-etcd");
        self
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }

    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.name.as_str() == name)
    }

    /// The nodes that the store runs on, and where it listens: one, or every member of a cluster.
    pub fn stores(&self) -> Vec<(&Node, SocketAddr)> {
        let members: Vec<_> = self.members().collect();
        if !members.is_empty() {
            return members;
        }
        self.listening(&[ProgramKind::Store, ProgramKind::Etcd]).take(1).collect()
    }

    /// The members of the store's cluster.
    pub fn members(&self) -> impl Iterator<Item = (&Node, SocketAddr)> {
        self.listening(&[ProgramKind::EtcdMember])
    }

    /// The nodes that run one of these, and where it listens.
    fn listening(&self, kinds: &[ProgramKind]) -> impl Iterator<Item = (&Node, SocketAddr)> {
        let at = move |node: &'_ Node| node.programs.iter().any(|p| kinds.contains(&p.kind));
        self.nodes.iter().filter(move |node| at(node)).filter_map(|node| {
            let (addr, _) = node.addresses.first()?;
            Some((node, SocketAddr::new(*addr, STORE_PORT)))
        })
    }
}

impl Subnet {
    pub fn prefix(&self, family: Family) -> Option<Prefix> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        self.v4.into_iter().chain(self.v6)
    }

    /// The router's address: the first above the base.
    pub fn router(&self, family: Family) -> Option<IpAddr> {
        self.prefix(family)?.nth(1)
    }
}

impl Node {
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().map(|(addr, _)| *addr).find(|addr| Family::of(*addr) == family)
    }
}

/// etcd's client port, the store's as well.
pub const STORE_PORT: u16 = 2_379;
/// The name of the namespace that joins the subnets.
pub const ROUTER: &str = "router";

#[cfg(test)]
mod tests;
