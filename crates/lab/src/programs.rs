//! The command lines and settings of what a lab runs: one place to look when a program's flags change.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use russet_net::Family;
use serde_json::{Value, json};

use crate::topology::{Node, Program, ProgramKind, Topology, form::Router};

/// Where the programs are: beside the one that runs now.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    russet: PathBuf,
    folder: PathBuf,
}

impl Programs {
    pub(crate) fn beside_this_one() -> Result<Self> {
        let russet = env::current_exe().context("find this program")?;
        let folder = russet.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { russet, folder })
    }

    pub(crate) fn russet(&self) -> String {
        self.russet.display().to_string()
    }

    /// Program and arguments of what runs on a node.
    pub(crate) fn command(
        &self,
        topology: &Topology,
        node: &Node,
        program: &Program,
    ) -> Vec<String> {
        let listen = node.addresses.first().map(|(addr, _)| *addr);
        let listen =
            listen.map(|addr| SocketAddr::new(addr, crate::topology::STORE_PORT).to_string());
        let listen = listen.unwrap_or_default();
        let russet = self.russet();
        match &program.kind {
            ProgramKind::Agent => words(&[&russet, "agent", "--config", AGENT_CONFIG]),
            ProgramKind::Store => {
                words(&[&russet, "store", "--listen", &listen, "--allow-plaintext"])
            }
            ProgramKind::Etcd => etcd(&listen, node.name.as_str()),
            ProgramKind::EtcdMember => etcd_member(topology, node, &listen),
            ProgramKind::Command(command) => {
                command.iter().map(|word| self.fill_in(word, topology, node)).collect()
            }
        }
    }

    /// Puts one value into the store.
    pub(crate) fn put(&self, store: SocketAddr, key: &str, value: &str) -> Vec<String> {
        words(&[&self.russet(), "store", "put", "--endpoint", &url(store), key, value])
    }

    /// The prober: `probe ARGS`.
    pub(crate) fn probe(&self, args: &[String]) -> Vec<String> {
        [self.russet(), "probe".to_owned()].into_iter().chain(args.iter().cloned()).collect()
    }

    /// One step of the lab's own way into its namespaces.
    pub(crate) fn stage(&self, stage: &str, dir: &Path) -> Vec<String> {
        words(&[&self.russet(), "lab", "stage", stage, &dir.display().to_string()])
    }

    /// Where CNI plugins are looked for, the first folder first: ours, what `CNI_PATH` names, the usual ones.
    pub(crate) fn cni_folders(&self) -> Vec<PathBuf> {
        let named = env::var_os("CNI_PATH").unwrap_or_default();
        let usual = ["/opt/cni/bin".into(), "/usr/lib/cni".into()];
        [self.folder.clone()].into_iter().chain(env::split_paths(&named)).chain(usual).collect()
    }

    /// The search path of everything that runs in a lab.
    pub(crate) fn search_path(&self) -> String {
        let own = self.folder.display();
        let given = env::var("PATH").unwrap_or_default();
        format!("{own}:{given}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    }

    fn fill_in(&self, word: &str, topology: &Topology, node: &Node) -> String {
        let address =
            |family| node.address(family).map(|addr| addr.to_string()).unwrap_or_default();
        word.replace("{russet}", &self.russet())
            .replace("{node}", node.name.as_str())
            .replace("{ipv4}", &address(Family::V4))
            .replace("{ipv6}", &address(Family::V6))
            .replace(
                "{store}",
                &topology.stores().first().map(|&(_, at)| url(at)).unwrap_or_default(),
            )
    }
}

/// The agent's configuration file: what the lab knows, with the topology's own settings laid over it.
pub(crate) fn agent_config(topology: &Topology, node: &Node) -> Result<String> {
    let mut settings = BTreeMap::from([("node".to_owned(), json!(node.name.as_str()))]);
    let stores: Vec<_> = topology.stores().into_iter().map(|(_, at)| url(at)).collect();
    if !stores.is_empty() {
        settings.insert("store".to_owned(), json!({ "endpoints": stores }));
    }
    if topology.router == Router::None && !node.agent.contains_key("detect") {
        // An agent tells the uplink by the default route, and here there is none, unless it looks for its addresses.
        settings.insert("interface".to_owned(), json!("eth0"));
    }
    for (key, value) in &node.agent {
        lay_over(settings.entry(key.clone()).or_insert(Value::Null), value);
    }
    toml::to_string(&settings).context("write the agent's configuration")
}

/// The network configuration list that a node's runtime finds.
pub(crate) fn conflist() -> String {
    let plugin = json!({ "type": CNI_PLUGIN });
    json!({ "cniVersion": "1.0.0", "name": "russet", "plugins": [plugin] }).to_string()
}

fn lay_over(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay_over(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

fn etcd(listen: &str, node: &str) -> Vec<String> {
    etcd_with(listen, node, &["--listen-peer-urls", "http://127.0.0.1:2380"])
}

/// An etcd that knows all other members of its cluster from the start.
fn etcd_member(topology: &Topology, node: &Node, listen: &str) -> Vec<String> {
    let peer = |addr| format!("http://{}", SocketAddr::new(addr, ETCD_PEER_PORT));
    let all: Vec<_> =
        topology.members().map(|(node, at)| format!("{}={}", node.name, peer(at.ip()))).collect();
    let own = node.addresses.first().map(|(addr, _)| peer(*addr)).unwrap_or_default();
    let cluster = [
        "--listen-peer-urls",
        &own,
        "--initial-advertise-peer-urls",
        &own,
        "--initial-cluster",
        &all.join(","),
    ];
    etcd_with(listen, node.name.as_str(), &cluster)
}

fn etcd_with(listen: &str, node: &str, more: &[&str]) -> Vec<String> {
    let clients = format!("http://{listen},http://127.0.0.1:2379");
    let advertised = format!("http://{listen}");
    let own = [
        "etcd",
        "--name",
        node,
        "--data-dir",
        "/var/lib/etcd/lab",
        "--listen-client-urls",
        &clients,
        "--advertise-client-urls",
        &advertised,
    ];
    words(&[&own, more].concat())
}

fn url(store: SocketAddr) -> String {
    format!("http://{store}")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub(crate) const AGENT_CONFIG: &str = "/etc/russet/agent.toml";
pub(crate) const CONFLIST: &str = "/etc/cni/net.d/10-russet.conflist";
/// The store's key of the network's configuration (flannel's).
pub(crate) const CONFIG_KEY: &str = "/coreos.com/network/config";
/// Where the prober answers in every pod.
pub(crate) const PROBE_PORT: u16 = 7_007;
const ETCD_PEER_PORT: u16 = 2_380;
const CNI_PLUGIN: &str = "russet-cni";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_s_settings_are_laid_over_the_lab_s() {
        let text = "
name: t
underlay: {subnets: [{name: lan, ipv4: 192.168.1.0/24}]}
nodes:
  - {name: n1, runs: [store]}
  - {name: n2, runs: [agent], agent: {store: {prefix: /x}, log: {level: debug}}}
";
        let topology = Topology::parse("t", text).unwrap();
        let config = agent_config(&topology, &topology.nodes[1]).unwrap();
        let read: Value = toml::from_str(&config).unwrap();
        assert_eq!(
            read,
            json!({
                "node": "n2",
                "interface": "eth0",
                "store": {"endpoints": ["http://192.168.1.11:2379"], "prefix": "/x"},
                "log": {"level": "debug"},
            })
        );
    }

    #[test]
    fn a_program_of_the_topology_s_own_learns_where_it_runs() {
        let text = "
name: t
underlay: {subnets: [{name: lan, ipv4: 192.168.1.0/24}]}
nodes: [{name: n1, runs: [etcd, {name: x, command: ['{russet}', '--on={ipv4}', '{store}']}]}]
";
        let topology = Topology::parse("t", text).unwrap();
        let programs = Programs::beside_this_one().unwrap();
        let node = &topology.nodes[0];
        let command = programs.command(&topology, node, &node.programs[1]);
        assert_eq!(command[1..], ["--on=192.168.1.11", "http://192.168.1.11:2379"]);
        assert_eq!(command[0], programs.russet());
    }

    #[test]
    fn members_know_each_other_and_agents_know_them_all() {
        let text = "
name: t
underlay: {subnets: [{name: lan, ipv4: 192.168.1.0/24}]}
nodes: [{name: n1, runs: [etcd-member]}, {name: n2, runs: [etcd-member, agent]}]
";
        let topology = Topology::parse("t", text).unwrap();
        let programs = Programs::beside_this_one().unwrap();
        let node = &topology.nodes[1];
        let command = programs.command(&topology, node, &node.programs[0]);
        let all = "n1=http://192.168.1.11:2380,n2=http://192.168.1.12:2380";
        assert_eq!(command.last().map(String::as_str), Some(all));
        let config = agent_config(&topology, node).unwrap();
        assert!(config.contains("http://192.168.1.11:2379"), "{config}");
        assert!(config.contains("http://192.168.1.12:2379"), "{config}");
    }
}
