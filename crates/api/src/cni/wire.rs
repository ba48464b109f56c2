//! What the plugin asks the agent, and what it answers: one request and one reply a connection.
//!
//! With an ADD and a CHECK come two descriptors, attached to the frame's first octet (`SCM_RIGHTS`, in this
//! order): the pod's network namespace, and a routing netlink socket that was opened inside it. With them
//! the agent needs neither the path nor the right to enter.

use std::net::IpAddr;

use russet_net::{IfName, Mac, Prefix};
use serde::{Deserialize, Serialize};

use super::Text;
use crate::frame::Message;

/// The version that this program speaks.
pub const VERSION: u32 = 1;

/// How many descriptors come with an ADD and a CHECK.
pub const DESCRIPTORS: usize = 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub version: u32,
    pub call: Call,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    Add(Box<Add>),
    Del(Pod),
    Check(Check),
    /// Addresses alone, for an interface that another plugin makes. No descriptors come with it.
    Assign(Box<Add>),
    /// Gives back what [`Call::Assign`] gave.
    Release(Pod),
    /// Whether an ADD would be served now.
    Status,
    Gc(Gc),
}

/// One interface of one container in one network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    pub network: String,
    pub container: String,
    pub ifname: Text<IfName>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Add {
    pub pod: Pod,
    /// A smaller MTU than the network's.
    pub mtu: Option<u32>,
    #[serde(default)]
    pub above: Above,
    /// Addresses that are asked for.
    pub ips: Vec<IpAddr>,
    pub mac: Option<Text<Mac>>,
    /// A plugin that is older than this field sends none, and an older agent does not look for it: both go
    /// through an upgrade in any order, so the protocol's version stays.
    #[serde(default)]
    pub asks: Asks,
}

/// What becomes of an MTU that is larger than the network's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Above {
    #[default]
    Refused,
    /// The pod gets the network's: Calico's configurations often name the underlay's.
    Lowered,
}

/// What the runtime and the network configuration ask of a pod's addresses, in the form of a request:
/// [`Asks::check`] bounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asks {
    /// Kubernetes' names of the pod, where the runtime says them (`K8S_POD_NAMESPACE`, `K8S_POD_NAME`).
    pub namespace: Option<String>,
    pub pod: Option<String>,
    /// Pools by name or by prefix, the first to be tried first; empty: as the agent chooses.
    pub pools_v4: Vec<String>,
    pub pools_v6: Vec<String>,
    /// Whether an address of the family is wanted; `None`: as the agent has it.
    pub assign_v4: Option<bool>,
    pub assign_v6: Option<bool>,
    /// What the pod may send from, besides its own addresses.
    pub allowed_sources: Vec<Text<Prefix>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub pod: Pod,
    /// What the previous result says of the interface.
    pub ips: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gc {
    pub network: String,
    /// What stays.
    pub valid: Vec<Pod>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub version: u32,
    pub answer: Answer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Attached(Attached),
    Assigned(Assigned),
    Done,
    /// The pod is to have an IPv6 address and its namespace has IPv6 turned off. Only the plugin, which
    /// may enter the namespace, can turn it on, and then ask again.
    Ipv6Disabled,
    Error {
        code: u32,
        msg: String,
        details: String,
    },
}

/// What an ADD made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Where the pod is a port of one.
    pub bridge: Option<Text<IfName>>,
    pub bridge_mac: Option<Text<Mac>>,
    pub host_link: Text<IfName>,
    pub host_mac: Text<Mac>,
    pub mac: Text<Mac>,
    pub mtu: u32,
    pub ips: Vec<PodIp>,
}

/// What a [`Call::Assign`] gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assigned {
    pub ips: Vec<AssignedIp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedIp {
    pub addr: IpAddr,
    /// Prefix length in bits, of what the address was taken from.
    pub len: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIp {
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
    pub gateway: IpAddr,
}

impl Request {
    pub const fn new(call: Call) -> Self {
        Self { version: VERSION, call }
    }
}

impl Reply {
    pub const fn new(answer: Answer) -> Self {
        Self { version: VERSION, answer }
    }
}

impl Message for Request {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Message for Reply {
    const VERSION: u32 = VERSION;

    fn version(&self) -> u32 {
        self.version
    }
}

impl Pod {
    /// Checks the names, which become parts of paths: a peer's word is not taken for it.
    ///
    /// # Errors
    ///
    /// With what is wrong.
    pub fn check(&self) -> Result<(), String> {
        check_network(&self.network)?;
        super::check_name(&self.container)
            .map_err(|reason| format!("container {:?}: {reason}", self.container))
    }
}

impl Add {
    /// Checks what a peer could make too long or lead astray with.
    ///
    /// # Errors
    ///
    /// With what is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.pod.check()?;
        bounded("ips", self.ips.len(), LIST_MAX)?;
        self.asks.check()
    }
}

impl Asks {
    /// Names Kubernetes' pod, where both of its names are known.
    pub fn kubernetes(&self) -> Option<(&str, &str)> {
        Some((self.namespace.as_deref()?, self.pod.as_deref()?))
    }

    /// Bounds every list and every text.
    ///
    /// # Errors
    ///
    /// With what is too long.
    pub fn check(&self) -> Result<(), String> {
        for (what, text) in [("namespace", &self.namespace), ("pod", &self.pod)] {
            bounded(what, text.as_ref().map_or(0, String::len), TEXT_MAX)?;
        }
        for (what, pools) in [("IPv4 pools", &self.pools_v4), ("IPv6 pools", &self.pools_v6)] {
            bounded(what, pools.len(), LIST_MAX)?;
            pools.iter().try_for_each(|pool| bounded("a pool's name", pool.len(), TEXT_MAX))?;
        }
        bounded("allowed sources", self.allowed_sources.len(), LIST_MAX)
    }
}

fn bounded(what: &str, len: usize, max: usize) -> Result<(), String> {
    if len <= max { Ok(()) } else { Err(format!("{what}: {len} are more than the {max} allowed")) }
}

/// Checks a network's name.
///
/// # Errors
///
/// With what is wrong.
pub fn check_network(name: &str) -> Result<(), String> {
    super::check_name(name).map_err(|reason| format!("network {name:?}: {reason}"))
}

/// In octets: a name of Kubernetes' has 253 at most.
const TEXT_MAX: usize = 253;
/// Pools, addresses and sources of one pod.
const LIST_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    #[test]
    fn a_request_crosses_the_socket_unchanged() {
        let pod = Pod {
            network: "a".into(),
            container: "c".into(),
            ifname: Text("eth0".parse().unwrap()),
        };
        let mac = Some(Text(Mac::local([7; 6])));
        let asks = Asks {
            namespace: Some("default".into()),
            pod: Some("web-0".into()),
            pools_v4: vec!["10.1.0.0/16".into()],
            assign_v6: Some(false),
            allowed_sources: vec![Text("192.0.2.0/24".parse().unwrap())],
            ..Asks::default()
        };
        let add = Add {
            pod,
            mtu: Some(1400),
            ips: vec![[10, 1, 0, 5].into()],
            mac,
            asks,
            above: Above::Lowered,
        };
        assert_eq!(add.check(), Ok(()));
        let request = Request::new(Call::Add(Box::new(add)));
        let octets = frame::encode(&request).unwrap();
        assert_eq!(frame::read::<Request>(&mut octets.as_slice()).unwrap(), request);
    }

    #[test]
    fn an_older_plugin_asks_nothing() {
        let add: Add = serde_json::from_str(
            r#"{"pod":{"network":"a","container":"c","ifname":"e"},"mtu":null,"ips":[],"mac":null}"#,
        )
        .unwrap();
        assert_eq!(add.asks, Asks::default());
    }

    #[test]
    fn what_a_pod_may_ask_is_bounded() {
        let pools =
            |n: usize, len: usize| Asks { pools_v6: vec!["x".repeat(len); n], ..Asks::default() };
        assert_eq!(pools(64, 253).check(), Ok(()));
        for asks in [
            pools(65, 1),
            pools(1, 254),
            Asks { pod: Some("x".repeat(254)), ..Asks::default() },
            Asks {
                allowed_sources: vec![Text("10.0.0.0/8".parse().unwrap()); 65],
                ..Asks::default()
            },
        ] {
            assert!(asks.check().is_err(), "{asks:?}");
        }
    }

    #[test]
    fn an_interface_name_that_the_kernel_would_refuse_never_gets_in() {
        let body =
            br#"{"version":1,"call":{"del":{"network":"a","container":"c","ifname":"a/b"}}}"#;
        assert!(matches!(frame::decode::<Request>(body), Err(frame::FrameError::Body { .. })));
    }
}
