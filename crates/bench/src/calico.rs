//! A cluster of Calico's in a real etcd, and Russet's agent among its nodes.
//!
//! `objects` writes keys and values as Calico does: pools, nodes, and blocks that are as full as in a cluster that is
//! in use.

pub mod objects;

use std::path::Path;

use anyhow::Result;

use self::objects::{Mode, Remote};
use crate::{
    cluster::{Agent, settings},
    etcd::{Etcd, Server},
    net::site::{Node, Site},
    program::Programs,
};

/// An etcd with a pool and nodes in it.
#[derive(Debug)]
pub struct Cluster {
    pub client: Etcd,
    _server: Server,
}

impl Cluster {
    /// Starts it with one pool and what the cluster says of itself.
    pub fn start(site: &Site, mode: Mode) -> Result<Self> {
        let mut server = Server::new()?;
        server.start(site)?;
        let mut client = server.client(site)?;
        for (key, value) in [objects::pool(mode), objects::cluster()] {
            client.put(&key, &value, 0)?;
        }
        Ok(Self { client, _server: server })
    }

    /// Writes nodes 1 to `nodes`, each with so many blocks.
    pub fn fill(&mut self, nodes: u16, blocks: u16) -> Result<()> {
        for node in (1..=nodes).map(Remote) {
            let (key, value) = node.object(blocks);
            self.client.put(&key, &value, 0)?;
            for nth in 0..blocks {
                let (key, value) = node.block(nth);
                self.client.put(&key, &value, 0)?;
            }
        }
        Ok(())
    }
}

/// Who tells an agent where blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    Store,
    Bgp,
}

/// Starts an agent with preset calico, and does not wait for it.
pub fn launch(
    programs: &Programs,
    node: &Node,
    name: &str,
    distribution: Distribution,
) -> Result<Agent> {
    Agent::launch(programs, node, |folder| preset(name, folder, distribution))
}

/// The same, with so many addresses claimed before a pod asks.
pub fn launch_ahead(programs: &Programs, node: &Node, name: &str, ahead: usize) -> Result<Agent> {
    let preset = |folder: &Path| preset(name, folder, Distribution::Store);
    Agent::launch(programs, node, |folder| format!("addresses-ahead = {ahead}\n{}", preset(folder)))
}

fn preset(name: &str, folder: &Path, distribution: Distribution) -> String {
    let word = match distribution {
        Distribution::Store => "store",
        Distribution::Bgp => "bgp",
    };
    format!("preset = 'calico'\ndistribution = '{word}'\n{}", settings(name, folder))
}
