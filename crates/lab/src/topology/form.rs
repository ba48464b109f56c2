//! The form of a topology file: what may be written, as types.
//!
//! schemars turns these types into the schema, so their comments are what an editor shows. They hold what was
//! written; `check` makes a [`super::Topology`] of them, in which every name is resolved and every default is
//! filled in.

mod expect;

use std::{collections::BTreeMap, net::IpAddr};

use russet_api::calico::{Key, Kind, ResourceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::expect::{
    Always, By, Counter, CounterName, Eventually, Expect, FamilyName, Packet, Quiet, Reach, Route,
    When,
};
use super::value::{Cidr, LinkAt, Name, Period};

/// A cluster in network namespaces: its nodes and underlay, what is done to it, and what must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The lab's name; `russet lab exec` and `down` speak of it.
    pub name: Name,
    /// What a reader should know of it, in a sentence.
    pub summary: Option<String>,
    /// Words that the file leaves open, with their usual values: `<word>` stands for one anywhere in the file, and
    /// `russet lab run --set word=value` gives it another.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// What the machine must have, looked for before anything is built.
    #[serde(default)]
    pub needs: Vec<Need>,
    pub underlay: Underlay,
    pub nodes: Vec<Node>,
    /// Pods, made one after another through the nodes' CNI plugin.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// The network's configuration, put into the store as JSON under /coreos.com/network/config.
    pub config: Option<BTreeMap<String, Value>>,
    /// Calico's objects (kind, metadata, spec), put into the store under their keys.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// Wires the pods without any agent, the way an administrator would by hand.
    pub wired: Option<HandWired>,
    /// What is done, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What must hold.
    #[serde(default)]
    pub expect: Vec<Expect>,
}

/// An object of Calico's API that lies in no namespace.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Resource {
    pub kind: String,
    /// `projectcalico.org/v3` unless said otherwise.
    #[serde(default = "usual_version")]
    pub api_version: String,
    pub metadata: Metadata,
    pub spec: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct Metadata {
    pub name: String,
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

fn usual_version() -> String {
    "projectcalico.org/v3".to_owned()
}

impl Resource {
    /// Where Calico keeps it in etcd.
    ///
    /// # Errors
    ///
    /// With why it cannot be put there as it is written.
    pub fn key(&self) -> Result<Key, String> {
        let kind = Kind::of_object(&self.kind);
        let kind = kind.ok_or_else(|| format!("{:?} is no kind of Calico's", self.kind))?;
        if kind.is_namespaced() {
            return Err(format!("{kind} lies in a namespace; put it by `apply` under its key"));
        }
        if !kind.is_written_by_hand() || kind == Kind::IpamConfiguration {
            return Err(format!("{kind} has another form in etcd; put that by `apply`"));
        }
        let name = self.metadata.name.parse();
        let name = name.map_err(|err: russet_net::ParseError| format!("its name: {err}"))?;
        Ok(Key::Resource(ResourceId { kind, namespace: None, name }))
    }
}

/// Something of the machine that a topology cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Need {
    /// Links of type vxlan.
    Vxlan,
    /// /dev/net/tun.
    Tun,
    /// Links of type ipip.
    Ipip,
    /// Links of type wireguard.
    Wireguard,
    /// Programs of eBPF, which only the real root may load.
    Bpf,
    /// The programs etcd and etcdctl.
    Etcd,
    /// The program ping.
    Ping,
    /// The program iperf3.
    Iperf3,
    /// Calico's own programs, and what its Felix needs of others.
    Calico,
}

/// The network that the nodes stand in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// The MTU of every link of the underlay, in octets; 1500 unless said otherwise.
    #[schemars(range(min = 576, max = 65_535))]
    pub mtu: Option<u32>,
    /// Each is one switch. Several are joined by a router that forwards.
    pub subnets: Vec<Subnet>,
    /// Whether a router joins the subnets; it does when there are several.
    pub router: Option<Router>,
}

/// What joins the subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Router {
    /// A namespace that forwards; it has the first address of every subnet.
    Forwards,
    /// Nothing.
    None,
}

/// One switch and its addresses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    pub name: Name,
    /// At most /28, for example 192.168.1.0/24.
    pub ipv4: Option<Cidr>,
    /// At most /120, for example `fd00:1::/64`.
    pub ipv6: Option<Cidr>,
}

/// A machine: a network namespace with its own /run, /etc/russet, /etc/cni/net.d and /var/lib.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub name: Name,
    /// The subnet it stands in; may be left out when there is only one.
    #[schemars(extend("format" = "subnet"))]
    pub subnet: Option<String>,
    /// Its IPv4 address; the eleventh of the subnet for the first node, and so on, unless said otherwise.
    #[schemars(extend("format" = "ip"))]
    pub ipv4: Option<String>,
    /// Its IPv6 address; `::11` of the subnet for the first node, and so on, unless said otherwise.
    #[schemars(extend("format" = "ip"))]
    pub ipv6: Option<String>,
    /// What is started on it, in this order.
    #[serde(default)]
    pub runs: Vec<Runs>,
    /// Whether it joins later: its programs and pods wait for steps that start and add them.
    #[serde(default)]
    pub late: bool,
    /// Files by absolute path, written before anything is started.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Settings of its agent, laid over the lab's own and written to /etc/russet/agent.toml.
    #[serde(default)]
    pub agent: BTreeMap<String, Value>,
}

/// Something that runs on a node.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Runs {
    Known(Known),
    Program(Program),
}

/// A program that the lab knows how to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    Agent,
    Store,
    Etcd,
    /// An etcd that makes a cluster with all others of its kind; its name is `etcd`.
    EtcdMember,
}

/// A program of the topology's own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub name: Name,
    /// The program and its arguments. `{russet}` stands for the russet command, `{ipv4}` and `{ipv6}` for
    /// the node's addresses, `{node}` for its name, `{store}` for the store's URL.
    pub command: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// A pod: a network namespace that the node's CNI plugin gives a network.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    pub name: Name,
    #[schemars(extend("format" = "node"))]
    pub node: String,
    /// The network configuration list on the node; Russet's own unless said otherwise.
    pub cni: Option<String>,
    /// What the runtime says in `CNI_ARGS`; the pod's name and namespace, as Kubernetes' do, unless said otherwise.
    pub args: Option<String>,
}

/// Pods wired by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HandWired {
    /// How packets cross the underlay.
    pub transport: HandTransport,
    /// The network that every node gets a /24 of; 10.244.0.0/16 unless said otherwise.
    pub network: Option<Cidr>,
}

/// How packets of pods that are wired by hand cross the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HandTransport {
    /// A vxlan link with neighbours and forwarding entries, as flannel makes it.
    Vxlan,
    /// Routes through the other node's address, as flannel's host-gw makes them.
    HostGw,
}

/// One thing that is done to the cluster.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Puts a value into the store; what is no text is put as JSON.
    Apply { key: String, value: Value },
    /// Starts a process that is not running.
    Start(ProcessAt),
    /// Ends a process by SIGTERM and waits for its end.
    Stop(ProcessAt),
    /// Sends a process a signal.
    Kill(Kill),
    /// Ends a process by SIGTERM, waits for its end, and starts it again.
    Restart(ProcessAt),
    /// Cuts a node's, or the router's, link to its switch.
    Cut(Cut),
    /// Mends what was cut: one link, or all.
    Heal(Heal),
    /// Deletes all routes like this, behind the agent's back; there must be one.
    DeleteRoute(Route),
    /// Deletes a link behind the agent's back.
    DeleteLink(LinkAt),
    /// Runs a command to its end.
    Exec(Command),
    /// Adds a pod that was taken away.
    AddPod(Name),
    /// Takes a pod away.
    RemovePod(Name),
    /// Waits. Only for showing something; what must hold is an expectation.
    Wait(Period),
    /// Waits until something holds, before the next step.
    Expect(Box<Eventually>),
}

/// A process of a node.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessAt {
    #[schemars(extend("format" = "node"))]
    pub node: String,
    /// `agent`, `store`, `etcd` or a program's name.
    pub process: Name,
}

/// A signal to a process of a node.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    #[schemars(extend("format" = "node"))]
    pub node: String,
    pub process: Name,
    /// KILL unless said otherwise.
    #[serde(default)]
    pub signal: SignalName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    #[default]
    Kill,
    Term,
    Int,
    Hup,
    Stop,
    Cont,
    Usr1,
    Usr2,
}

/// A cut link.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The node whose link it is, or the subnet whose link to the router it is.
    #[schemars(extend("format" = "link"))]
    pub link: String,
    #[serde(default)]
    pub how: CutHow,
}

/// How a link is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CutHow {
    /// The node sees its carrier go, as when a cable is pulled.
    #[default]
    Carrier,
    /// Packets vanish, and nobody is told, as when a switch breaks.
    Silent,
}

/// What is mended.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heal {
    /// All links when none is named.
    #[schemars(extend("format" = "link"))]
    pub link: Option<String>,
}

/// A command and how it must end.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The node or pod that it runs in.
    #[schemars(extend("format" = "place"))]
    pub on: String,
    pub command: Vec<String>,
    /// The exit status that it must end with; 0 unless said otherwise.
    #[serde(default)]
    pub status: i32,
    /// A text that its output must contain.
    pub contains: Option<String>,
    /// A text that its output must not contain.
    pub lacks: Option<String>,
}

/// Whether a text is an address and not a name.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
