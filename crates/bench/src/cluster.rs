//! Russet's own programs in a site: a store on the switch, an agent on a node, and leases of peers that
//! need not exist.
//!
//! Every file of an agent is in a folder that goes with its value. The store listens on the switch's
//! underlay address, which only the site's nodes can reach.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use russet_api::{
    admin::{Answer, Ask, Reply, Request, Status},
    frame,
};
use russet_kernel::engine::{Client, links_in, socket_in};
use russet_net::Mac;
use tempfile::TempDir;

use crate::{
    cni::Plugin,
    etcd::Etcd,
    net::site::{Node, SWITCH, Site, Transport},
    program::{Program, Programs},
};

/// `russet store` and a connection to it.
#[derive(Debug)]
pub struct Store {
    pub client: Etcd,
    _program: Program,
    _folder: TempDir,
}

impl Store {
    /// Starts it with a network's configuration in it.
    pub fn start(
        programs: &Programs,
        site: &Site,
        network: &str,
        transport: Transport,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let server = SocketAddr::from((SWITCH, PORT));
        let args = ["store", "--memory", "--listen", &server.to_string(), "--allow-plaintext"];
        let log = folder.path().join("log");
        let mut program = Program::start(&site.switch, &programs.path("russet")?, &args, log)?;
        let mut client = program.wait(PATIENCE, || Etcd::connect(&site.switch, server).ok())?;
        client.grant(LEASE)?;
        client.put(CONFIG_KEY, &configuration(network, transport), 0)?;
        Ok(Self { client, _program: program, _folder: folder })
    }

    pub fn put_peer(&mut self, peer: Peer) -> Result<()> {
        self.client.put(&peer.key(), &peer.value(), LEASE)
    }

    pub fn delete_peer(&mut self, peer: Peer) -> Result<()> {
        self.client.delete(&peer.key())
    }
}

/// `russet agent` on one node.
#[derive(Debug)]
pub struct Agent {
    pub plugin: Plugin,
    program: Program,
    folder: TempDir,
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub fn start(programs: &Programs, node: &Node, name: &str) -> Result<Self> {
        let mut agent = Self::launch(programs, node, |folder| {
            format!("interface = 'eth0'\n{}", settings(name, folder))
        })?;
        agent.wait_until(|status| status.ready)?;
        Ok(agent)
    }

    /// Starts it with what `settings` says of its folder, and does not wait.
    pub fn launch(
        programs: &Programs,
        node: &Node,
        settings: impl FnOnce(&Path) -> String,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("agent.toml");
        fs::write(&file, settings(folder.path())).context("write the agent's configuration")?;
        let args = ["agent", "--config", file.to_str().context("a folder in UTF-8")?];
        let log = folder.path().join("log");
        let program = Program::start(&node.namespace, &programs.path("russet")?, &args, log)?;
        let socket = folder.path().join("run/cni.sock");
        let plugin =
            Plugin::russet(programs.path("russet-cni")?, &socket, &folder.path().join("spool"));
        Ok(Self { plugin, program, folder })
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Where its engines have their sockets.
    pub fn engines(&self) -> PathBuf {
        self.folder.path().join("run/engine")
    }

    /// Waits until the agent says so of itself.
    pub fn wait_until(&mut self, mut fulfilled: impl FnMut(&Status) -> bool) -> Result<Status> {
        let socket = self.folder.path().join("run/admin.sock");
        let ready = || ask(&socket).ok().filter(|status| fulfilled(status));
        self.program.wait(PATIENCE, ready)
    }

    /// Waits until something of the kernel is so, or the agent has ended.
    pub fn wait_for<T>(&mut self, ready: impl FnMut() -> Option<T>) -> Result<T> {
        self.program.wait(PATIENCE, ready)
    }
}

/// An agent's engines outlive it; the bench they do not.
impl Drop for Agent {
    fn drop(&mut self) {
        self.program.end();
        let folder = self.engines();
        for link in links_in(&folder).unwrap_or_default() {
            let engine = Client::connect(&socket_in(&folder, link));
            let _ = engine.and_then(|engine| engine.stop());
        }
    }
}

fn ask(socket: &Path) -> Result<Status> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    frame::write(&mut stream, &Request::new(Ask::Status))?;
    let reply: Reply = frame::read(&mut stream)?;
    match reply.answer {
        Answer::Status(status) => Ok(*status),
        other => bail!("{other:?}"),
    }
}

/// An agent's configuration file, but for its uplink and its preset, which may stand before it.
pub fn settings(node: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "node = '{node}'\n\
         [store]\nendpoints = ['http://{SWITCH}:{PORT}']\n\
         [pods]\nmasquerade = true\n\
         [paths]\nrun = '{folder}/run'\nstate = '{folder}/state'\n\
         subnet-file = '{folder}/run/subnet.env'\npods = '{folder}/pods'\n\
         [http]\nlisten = 'off'\n"
    )
}

/// A network's configuration as flannel's users write it.
pub fn configuration(network: &str, transport: Transport) -> String {
    let backend = match transport {
        Transport::Direct => "host-gw",
        Transport::Vxlan => "vxlan",
        Transport::Udp => "udp",
        Transport::Wireguard => "wireguard",
    };
    format!(r#"{{"Network":"{network}","SubnetLen":24,"Backend":{{"Type":"{backend}"}}}}"#)
}

/// A node that is known by its lease alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub number: u16,
    pub transport: Transport,
}

impl Peer {
    /// Its pods' subnet, a /24 above the first 256 of 10.0.0.0/8, which are left to agents that look for one.
    pub fn subnet(self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, high + 1, low, 0)
    }

    /// Its underlay address: on the switch's subnet where packets go there without a tunnel.
    pub fn public(self) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        match self.transport {
            Transport::Direct => Ipv4Addr::new(192, 168, 77, low),
            Transport::Vxlan | Transport::Udp | Transport::Wireguard => {
                Ipv4Addr::new(172, 16, high, low)
            }
        }
    }

    pub fn mac(self) -> Mac {
        let [high, low] = self.number.to_be_bytes();
        Mac::local([2, 0, 0, 1, high, low])
    }

    pub fn key(self) -> String {
        format!("{PREFIX}/subnets/{}-24", self.subnet())
    }

    /// The lease's value as flannel writes it.
    pub fn value(self) -> String {
        let public = self.public();
        match self.transport {
            Transport::Direct => {
                format!(r#"{{"PublicIP":"{public}","PublicIPv6":null,"BackendType":"host-gw"}}"#)
            }
            Transport::Udp => format!(r#"{{"PublicIP":"{public}","PublicIPv6":null}}"#),
            Transport::Wireguard => {
                // 32 octets in base64, of which the number makes the first.
                let key = format!("{:A>8}{}=", self.number, "A".repeat(35));
                format!(
                    r#"{{"PublicIP":"{public}","PublicIPv6":null,"BackendType":"wireguard","BackendData":{{"PublicKey":"{key}","Port":51820}}}}"#
                )
            }
            Transport::Vxlan => format!(
                r#"{{"PublicIP":"{public}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
                self.mac()
            ),
        }
    }
}

/// The network of a site with many peers.
pub const WIDE_NETWORK: &str = "10.0.0.0/8";
/// Where a network's configuration is.
pub const CONFIG_KEY: &str = "/coreos.com/network/config";
const PREFIX: &str = "/coreos.com/network";
const PORT: u16 = 2_379;
/// The id of the lease that all peers' keys hang on.
const LEASE: u64 = 4_711;
/// How long a program may take to become what is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_s_lease_is_what_flannel_writes() {
        let peer = Peer { number: 258, transport: Transport::Vxlan };
        assert_eq!(peer.key(), "/coreos.com/network/subnets/10.2.2.0-24");
        assert_eq!(
            peer.value(),
            r#"{"PublicIP":"172.16.1.2","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:01:01:02"}}"#
        );
    }

    #[test]
    fn ten_thousand_peers_are_all_different() {
        let peers = (0..10_000).map(|number| Peer { number, transport: Transport::Vxlan });
        let keys: std::collections::BTreeSet<_> = peers.map(|p| (p.key(), p.value())).collect();
        assert_eq!(keys.len(), 10_000);
    }
}
