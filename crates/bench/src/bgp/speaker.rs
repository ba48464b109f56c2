//! The speakers, each as a route reflector that takes any peer of the crowd's network.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{
    client::AS,
    routes::{Kind, address},
};
use crate::{
    net::{Namespace, wire::Veth},
    process,
    program::{self, Programs},
};

/// Who reflects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Russet,
    Bird,
    Frr,
}

/// Two namespaces and the line between them.
#[derive(Debug)]
pub struct Stage {
    pub crowd: Namespace,
    speaker: Namespace,
}

/// A speaker that runs.
#[derive(Debug)]
pub struct Speaker {
    process: program::Program,
    _folder: TempDir,
}

/// What a speaker has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub time: Duration,
    pub peak: u64,
}

impl Program {
    /// How many may dial at once. BIRD's queue holds eight, and who finds it full is minutes late: that is not what is
    /// measured.
    pub const fn at_once(self) -> usize {
        match self {
            Self::Russet | Self::Frr => usize::MAX,
            Self::Bird => 8,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Russet => "Russet",
            Self::Bird => "BIRD 2",
            Self::Frr => "FRR",
        }
    }
}

impl Stage {
    /// Makes the line, with so many addresses at the crowd's end.
    pub fn new(peers: usize) -> Result<Self> {
        let (crowd, speaker) = (Namespace::new()?, Namespace::new()?);
        let mut near = speaker.rtnl()?;
        let mut far = crowd.rtnl()?;
        let link = near.add_veth(&Veth {
            name: "eth0",
            master: None,
            mtu: 1_500,
            peer: "eth0",
            peer_mac: None,
            peer_namespace: Some(std::os::fd::AsFd::as_fd(&crowd)),
        })?;
        near.add_address(link, (SPEAKER, 16))?;
        near.up(link)?;
        let link = far.index("eth0")?;
        far.up(link)?;
        for peer in 0..peers {
            far.add_address(link, (address(peer), 16))?;
        }
        Ok(Self { crowd, speaker })
    }

    pub const fn target() -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(SPEAKER), PORT)
    }

    /// Starts a speaker, and waits until it takes connections.
    pub fn start(&self, programs: &Programs, program: Program, kind: Kind) -> Result<Speaker> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("config");
        let (path, text, args) = match program {
            Program::Russet => {
                (programs.path("russet")?, russet(kind, folder.path()), russet_args(&file))
            }
            Program::Bird => ("/usr/sbin/bird".into(), bird(), bird_args(&file, folder.path())),
            Program::Frr => ("/usr/lib/frr/bgpd".into(), frr(kind), frr_args(&file, folder.path())),
        };
        fs::write(&file, text).context("write a configuration")?;
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let log = folder.path().join("log");
        let mut process = program::Program::start(&self.speaker, &path, &args, log)?;
        process.wait(Duration::from_secs(20), || self.answers().then_some(()))?;
        Ok(Speaker { process, _folder: folder })
    }

    /// Whether somebody listens. From an address that no peer has.
    fn answers(&self) -> bool {
        let connect = || Ok(TcpStream::connect_timeout(&Self::target(), Duration::from_secs(1))?);
        self.speaker.run(connect).is_ok()
    }
}

impl Speaker {
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.process.pid();
        let time = process::processor_time(pid)?;
        Ok(Usage { time, peak: process::memory(pid)?.peak })
    }
}

fn russet(kind: Kind, folder: &Path) -> String {
    format!(
        "asn = {AS}\nrouter-id = \"{SPEAKER}\"\nlisten = [\"{SPEAKER}:{PORT}\"]\n\
         admin-socket = \"{socket}\"\n\n[[range]]\nprefix = \"{NETWORK}\"\nlimit = 1000\n\
         asn = {AS}\nclient = true\nfamilies = [\"{family}\"]\n",
        socket = folder.join("socket").display(),
        family = kind.family(),
    )
}

fn russet_args(config: &Path) -> Vec<String> {
    ["bgp", "--config", &config.display().to_string()].map(str::to_owned).to_vec()
}

/// `direct`, so that a next hop is the peer and nothing is looked up for it.
fn bird() -> String {
    format!(
        "router id {SPEAKER};\nprotocol device {{ }}\n\
         protocol bgp crowd {{\n\
           local {SPEAKER} as {AS};\n neighbor range {NETWORK} as {AS};\n direct;\n rr client;\n\
           rr cluster id {SPEAKER};\n dynamic name \"peer\";\n\
           ipv4 {{ import all; export all; gateway direct; next hop keep; }};\n}}\n"
    )
}

fn bird_args(config: &Path, folder: &Path) -> Vec<String> {
    let socket = folder.join("socket").display().to_string();
    ["-f", "-c", &config.display().to_string(), "-s", &socket].map(str::to_owned).to_vec()
}

fn frr(kind: Kind) -> String {
    let (family, unicast) = match kind {
        Kind::V4 => ("ipv4 unicast", ""),
        Kind::Evpn => ("l2vpn evpn", " no bgp default ipv4-unicast\n"),
    };
    format!(
        "hostname bench\nrouter bgp {AS}\n bgp router-id {SPEAKER}\n{unicast} \
         no bgp ebgp-requires-policy\n no bgp network import-check\n bgp cluster-id {SPEAKER}\n \
         neighbor crowd peer-group\n neighbor crowd remote-as {AS}\n \
         bgp listen limit 5000\n bgp listen range {NETWORK} peer-group crowd\n \
         address-family {family}\n  neighbor crowd activate\n  \
         neighbor crowd route-reflector-client\n exit-address-family\nexit\n"
    )
}

/// `bgpd` alone: without zebra it installs nothing, as a reflector need not.
fn frr_args(config: &Path, folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    [
        "-f",
        &config.display().to_string(),
        "-Z",
        "-n",
        "-l",
        &SPEAKER.to_string(),
        "-P",
        "0",
        "-i",
        &at("pid"),
        "--vty_socket",
        &folder.display().to_string(),
        "-S",
        "--log",
        "stdout",
    ]
    .map(str::to_owned)
    .to_vec()
}

const SPEAKER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const NETWORK: &str = "10.9.0.0/16";
const PORT: u16 = 179;
