//! What the agent is told: a TOML file, then environment and flags on top, read whole and checked whole.
//!
//! `raw` has the form that is read; here it becomes the checked [`Config`], or every fault of it at once.
//! Nothing is opened, bound or touched before that.

mod detect;
mod flanneld;
mod raw;
mod uplink;

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use russet_core::choices::Distribution;
use russet_core::model::{Preset, Sealer, Settings, calico::Name};

pub use self::{
    detect::{DetectWords, Detection, Given, Method, MethodError, Wish},
    flanneld::Flanneld,
    raw::{Overrides, RawConfig},
    uplink::{LinkChoice, Pattern, Uplink},
};
use crate::bgp::config::BgpConfig;

/// The agent's checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    pub settings: Settings,
    /// Who is to seal; `None` is the kernel where it can, and else the engine.
    pub sealing: Option<Sealer>,
    pub store: russet_store::ClientConfig,
    /// As the operator wrote them, for `status`.
    pub endpoints: Vec<String>,
    /// The store's folder, without a slash at the end: `/coreos.com/network`.
    pub prefix: String,
    pub uplink: Uplink,
    pub renew_margin: Duration,
    /// How often the paths to all peers are probed.
    pub path_probe: Option<Duration>,
    pub paths: Paths,
    /// Where `/healthz`, `/readyz` and `/metrics` answer; `None` is off.
    pub http: Option<SocketAddr>,
    /// The node's BGP speaker, and the file that it is read from again; `None` is no speaker.
    pub bgp: Option<(BgpConfig, PathBuf)>,
    /// Where the passwords of sessions lie that resources say, a file `NAME/KEY` for each.
    pub bgp_secrets: PathBuf,
    pub on_unspoken: OnUnspoken,
    pub addressing: Addressing,
}

/// Who hands out this node's pod addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// The node itself, out of the subnet that it leases.
    #[default]
    NodeSubnet,
    /// The cluster's pools, in blocks (Calico's IPAM).
    Blocks(BlockSettings),
}

/// How addresses are taken out of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSettings {
    /// This node, as Calico's objects name it.
    pub node: Name,
    /// How long an address rests after its release.
    pub cooldown: Duration,
    /// How many addresses are claimed before a pod asks.
    pub ahead: usize,
}

/// What becomes of an agent whose network has a backend that is not spoken, before any other was in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnspoken {
    /// It waits for another configuration.
    #[default]
    Wait,
    /// It ends, as flanneld does.
    End,
}

/// Files and folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Sockets and the node's lock; gone after a reboot.
    pub run: PathBuf,
    /// Checkpoint and spool; kept across reboots.
    pub state: PathBuf,
    pub subnet_file: PathBuf,
    /// host-local's folder, one folder a network below it.
    pub pods: PathBuf,
    /// The node's WireGuard key.
    pub wireguard_key: PathBuf,
}

impl Paths {
    /// The sockets of the engines.
    pub fn engines(&self) -> PathBuf {
        self.run.join("engine")
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.run.join("admin.sock")
    }

    /// The BGP speaker's own, where the datastore says what it is.
    pub fn bgp_socket(&self) -> PathBuf {
        self.run.join("bgp.sock")
    }

    pub fn cni_socket(&self) -> PathBuf {
        self.run.join("cni.sock")
    }

    pub fn lock(&self) -> PathBuf {
        self.run.join("agent.lock")
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.state.join("checkpoint.json")
    }

    /// Whom the operator's commands have added.
    pub fn errands(&self) -> PathBuf {
        self.state.join("errands.json")
    }

    pub fn spool(&self) -> PathBuf {
        self.state.join("cni-spool")
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults(pub Vec<String>);

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration is refused")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  - {fault}"))
    }
}

impl Config {
    /// Whether the datastore says what the BGP speaker is, and there is one.
    pub fn bgp_by_resources(&self) -> bool {
        self.settings.preset == Preset::Calico && self.settings.distribution == Distribution::Bgp
    }

    /// How addresses are taken out of blocks, where they are.
    pub const fn blocks(&self) -> Option<&BlockSettings> {
        match &self.addressing {
            Addressing::Blocks(settings) => Some(settings),
            Addressing::NodeSubnet => None,
        }
    }

    /// Reads the file, if there is one, puts the overrides on top, and checks the whole.
    ///
    /// # Errors
    ///
    /// With every fault, each with its place.
    pub fn load(file: Option<&Path>, over: Overrides) -> Result<Self, ConfigFaults> {
        let mut raw = match file {
            Some(path) => read(path).map_err(|fault| ConfigFaults(vec![fault]))?,
            None => RawConfig::default(),
        };
        raw.put(over);
        raw.check()
    }
}

fn read(path: &Path) -> Result<RawConfig, String> {
    let text = std::fs::read_to_string(path).map_err(|err| format!("{}: {err}", path.display()))?;
    // The parser's text names line and column, and shows the line.
    toml::from_str(&text)
        .map_err(|err| format!("{}: {}", path.display(), err.to_string().trim_end()))
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            run: "/run/russet".into(),
            state: "/var/lib/russet".into(),
            subnet_file: "/run/flannel/subnet.env".into(),
            pods: "/var/lib/cni/networks".into(),
            wireguard_key: "/var/lib/russet/wireguard.key".into(),
        }
    }
}

/// The preset's word in a file.
fn preset(word: &str) -> Option<Preset> {
    match word {
        "flannel" => Some(Preset::Flannel),
        "russet" => Some(Preset::Russet),
        "calico" => Some(Preset::Calico),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, ConfigFaults> {
        toml::from_str::<RawConfig>(text).expect("toml").check()
    }

    #[test]
    fn nothing_said_is_flannel_s_default_on_the_local_store() {
        let config = check("node = 'a'").unwrap();
        assert_eq!(config.settings.preset, Preset::Flannel);
        assert_eq!(config.prefix, "/coreos.com/network");
        assert_eq!(config.renew_margin, Duration::from_hours(1));
        assert!(!config.settings.commands.is_on());
        assert_eq!(config.http, Some(([127, 0, 0, 1], 9_470).into()));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let err = check(
            "node = ''\npreset = 'cilium'\ninterface = 'a/b'\npublic-ip = '10.0.0'\n\
             lease-renew-margin-minutes = 1440\npath-probe-seconds = 86401\nwireguard = 'x'\n[store]\nendpoints = []\nprefix = 'x'\n\
             [pods]\nbridge = 'a-name-that-is-too-long'\n[http]\nlisten = 'x'",
        )
        .unwrap_err();
        assert_eq!(err.0.len(), 11, "{err}");
        for place in [
            "node",
            "preset",
            "interface",
            "public-ip",
            "lease-renew-margin-minutes",
            "path-probe-seconds",
            "wireguard",
            "store",
            "pods.bridge",
            "http.listen",
        ] {
            assert!(err.0.iter().any(|fault| fault.contains(place)), "{place} is missing in {err}");
        }
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let mut raw: RawConfig = toml::from_str("node = 'a'\ninterface = 'eth0'").unwrap();
        raw.put(Overrides { interface: Some("eth1".into()), ..Overrides::default() });
        assert_eq!(raw.check().unwrap().uplink.choices, ["eth1".parse().unwrap()]);
    }

    #[test]
    fn addresses_may_be_looked_for_in_calico_s_words() {
        let config = check("node = 'a'\n[detect]\nipv4-method = 'can-reach=192.0.2.1'").unwrap();
        let method = Method::CanReach([192, 0, 2, 1].into());
        let wanted = Detection { v4: Wish::Detected(method), v6: Wish::Nothing };
        assert_eq!(config.uplink.detection, Some(wanted));
        assert_eq!(check("node = 'a'").unwrap().uplink.detection, None);
        let both = check("node = 'a'\ninterface = 'eth0'\n[detect]\nipv6 = 'x'").unwrap_err();
        assert_eq!(both.0.len(), 2, "{both}");
    }

    #[test]
    fn addresses_out_of_blocks_go_with_routed_pods_of_a_node_with_a_plain_name() {
        let blocks = "preset = 'calico'";
        let config = check(&format!("node = 'a'\n{blocks}")).unwrap();
        let Addressing::Blocks(settings) = config.addressing else { panic!() };
        assert_eq!((settings.node.as_str(), settings.cooldown), ("a", crate::ipam::COOLDOWN));
        assert_eq!(check("node = 'a'").unwrap().addressing, Addressing::NodeSubnet);
        for (text, part) in [
            ("node = 'a'\naddressing = 'blocks'", "addressing: "),
            (&format!("addressing = 'node-subnet'\n{blocks}"), "addressing: "),
            (&format!("{blocks}\n[pods]\nattachment = 'bridge'"), "pods.attachment"),
            (&format!("node = 'a+b'\n{blocks}"), "node: "),
            ("node = 'a'\naddressing = 'x'", "addressing: "),
            (&format!("address-cooldown-seconds = 86401\n{blocks}"), "address-cooldown-seconds"),
            (&format!("addresses-ahead = 65\n{blocks}"), "addresses-ahead: 65 is not within 0"),
        ] {
            let err = check(text).unwrap_err().to_string();
            assert!(err.contains(part), "{part} is not in {err}");
        }
    }

    #[test]
    fn an_unknown_key_is_named() {
        let err = toml::from_str::<RawConfig>("nod = 'a'").unwrap_err();
        assert!(err.to_string().contains("nod"), "{err}");
    }
}
