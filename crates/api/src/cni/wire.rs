//! What the plugin asks the agent, and what it answers: one request and one reply a connection.
//!
//! With an ADD and a CHECK come two descriptors, attached to the frame's first octet (`SCM_RIGHTS`, in this
//! order): the pod's network namespace, and a routing netlink socket that was opened inside it. With them
//! the agent needs neither the path nor the right to enter.

use std::net::IpAddr;

use russet_net::{IfName, Mac};
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
    Add(Add),
    Del(Pod),
    Check(Check),
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
    /// Addresses that are asked for.
    pub ips: Vec<IpAddr>,
    pub mac: Option<Text<Mac>>,
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

/// Checks a network's name.
///
/// # Errors
///
/// With what is wrong.
pub fn check_network(name: &str) -> Result<(), String> {
    super::check_name(name).map_err(|reason| format!("network {name:?}: {reason}"))
}

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
        let add = Add { pod, mtu: Some(1400), ips: vec![[10, 1, 0, 5].into()], mac };
        let request = Request::new(Call::Add(add));
        let octets = frame::encode(&request).unwrap();
        assert_eq!(frame::read::<Request>(&mut octets.as_slice()).unwrap(), request);
    }

    #[test]
    fn an_interface_name_that_the_kernel_would_refuse_never_gets_in() {
        let body =
            br#"{"version":1,"call":{"del":{"network":"a","container":"c","ifname":"a/b"}}}"#;
        assert!(matches!(frame::decode::<Request>(body), Err(frame::FrameError::Body { .. })));
    }
}
