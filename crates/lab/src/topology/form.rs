//! The form of a topology file: what may be written, as types.
//!
//! schemars turns these types into the schema, so their comments are what an editor shows. They hold what was
//! written; `check` makes a [`super::Topology`] of them, in which every name is resolved and every default is
//! filled in.

use std::{collections::BTreeMap, net::IpAddr};

use russet_net::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::value::{Cidr, LinkAt, Name, Period};

/// A cluster in network namespaces: its nodes and underlay, what is done to it, and what must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The lab's name; `russet lab exec` and `down` speak of it.
    pub name: Name,
    /// What a reader should know of it, in a sentence.
    pub summary: Option<String>,
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
    /// Wires the pods without any agent, the way an administrator would by hand.
    pub wired: Option<HandWired>,
    /// What is done, in this order.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What must hold.
    #[serde(default)]
    pub expect: Vec<Expect>,
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
#[serde(rename_all = "lowercase")]
pub enum Known {
    Agent,
    Store,
    Etcd,
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

/// Something that must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expect {
    /// It comes true within a time, and is looked for before and after the steps.
    Eventually(Box<Eventually>),
    /// It is watched from before the first step to after the last.
    Always(Always),
}

/// A condition that comes true within a time. Exactly one of its conditions is given.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Eventually {
    /// 10s unless said otherwise.
    pub within: Option<Period>,
    /// When it is looked for: before and after the steps, unless said otherwise.
    pub when: Option<When>,
    /// One reaches the other.
    pub reach: Option<Reach>,
    /// One does not reach the other.
    pub not_reach: Option<Reach>,
    /// A packet like this is seen.
    pub packet: Option<Packet>,
    /// A route like this is there.
    pub route: Option<Route>,
    /// No route like this is there.
    pub no_route: Option<Route>,
    /// A link's counter has a value.
    pub counter: Option<Counter>,
    /// A command ends as wanted.
    pub output: Option<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum When {
    Before,
    After,
}

/// Numbered packets flow the whole time, and what is lost is counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Always {
    pub reach: Reach,
    /// How many packets may be lost; none unless said otherwise.
    #[serde(default)]
    pub lost: u64,
    /// The time between two packets; 10ms unless said otherwise.
    pub interval: Option<Period>,
}

/// Packets from one place to another.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reach {
    /// A pod or node.
    #[schemars(extend("format" = "place"))]
    pub from: String,
    /// A pod or node, or an address.
    #[schemars(extend("format" = "target"))]
    pub to: String,
    #[serde(default)]
    pub by: By,
    #[serde(default)]
    pub family: FamilyName,
    /// The port, when it is not the lab's own prober that answers.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    #[default]
    Icmp,
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FamilyName {
    #[default]
    Ipv4,
    Ipv6,
}

impl From<FamilyName> for Family {
    fn from(name: FamilyName) -> Self {
        match name {
            FamilyName::Ipv4 => Self::V4,
            FamilyName::Ipv6 => Self::V6,
        }
    }
}

/// A packet on a link, while others are sent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// The link that is listened at.
    pub on: LinkAt,
    /// What is sent meanwhile.
    #[serde(rename = "while")]
    pub meanwhile: Reach,
    /// Fields of the decoded packet and their values: `vni`, `outer.src`, `outer.dst`, `outer.port`,
    /// `inner.src`, `inner.dst`, `inner.proto`, `src`, `dst`, `proto`, `length`.
    /// A value may name a pod or node in place of its address.
    pub fields: BTreeMap<String, Value>,
}

/// A route of the main table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    #[schemars(extend("format" = "node"))]
    pub node: String,
    /// The exact prefix, or one within which the route's own lies, see `within`.
    pub dst: Option<Cidr>,
    /// Any route whose prefix lies in this one.
    pub within: Option<Cidr>,
    /// Its gateway: an address or a node's name.
    #[schemars(extend("format" = "target"))]
    pub via: Option<String>,
    /// Its link's name.
    pub link: Option<String>,
    /// How many such routes there must be at least; one unless said otherwise.
    pub count: Option<usize>,
}

/// A counter of a link.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    pub on: LinkAt,
    pub name: CounterName,
    pub at_least: Option<u64>,
    pub at_most: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CounterName {
    RxPackets,
    TxPackets,
    RxBytes,
    TxBytes,
    RxErrors,
    TxErrors,
    RxDropped,
    TxDropped,
}

impl CounterName {
    /// In the words of `/sys/class/net/*/statistics`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RxPackets => "rx_packets",
            Self::TxPackets => "tx_packets",
            Self::RxBytes => "rx_bytes",
            Self::TxBytes => "tx_bytes",
            Self::RxErrors => "rx_errors",
            Self::TxErrors => "tx_errors",
            Self::RxDropped => "rx_dropped",
            Self::TxDropped => "tx_dropped",
        }
    }
}

/// Whether a text is an address and not a name.
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}
