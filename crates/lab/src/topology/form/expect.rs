//! What a topology may expect, as types.

use std::collections::BTreeMap;

use russet_net::Family;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::Command;
use crate::topology::value::{Cidr, LinkAt, Name, Period};

/// Something that must hold.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Expect {
    /// It comes true within a time, and is looked for before and after the steps.
    Eventually(Box<Eventually>),
    /// It is watched from before the first step to after the last.
    Always(Always),
    /// A process does little from before the first step to after the last, and is not started again.
    Quiet(Quiet),
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

/// The most that a process does during the steps.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quiet {
    #[schemars(extend("format" = "node"))]
    pub node: String,
    pub process: Name,
    /// The most time that it may spend on a processor.
    pub cpu: Period,
    /// How many lines it may write at most.
    pub lines: u64,
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
    /// Fields of the decoded packet and their values: `vni`, `outer.src`, `outer.dst`, `outer.port`, `outer.proto`,
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
