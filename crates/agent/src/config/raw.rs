//! The form in which the configuration is written, before anything of it is believed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use russet_core::choices::Distribution;
use russet_core::model::{self, Attachment, Preset, Sealer, Settings};
use russet_desired::Flag;
use russet_net::IfName;
use russet_store::{ClientConfig, ClientSettings, config::Secret};
use serde::Deserialize;

use super::{
    Addressing, BgpConfig, BlockSettings, Config, ConfigFaults, DetectWords, Detection, LinkChoice,
    OnUnspoken, Paths, Uplink, preset,
};

/// The file, key by key; every key may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RawConfig {
    pub(super) node: Option<String>,
    pub(super) preset: Option<String>,
    pub(super) interface: Option<String>,
    pub(super) public_ip: Option<String>,
    pub(super) public_ipv6: Option<String>,
    pub(super) lease_renew_margin_minutes: Option<u64>,
    pub(super) path_probe_seconds: Option<u64>,
    pub(super) wireguard: Option<String>,
    pub(super) allow_commands: Option<bool>,
    pub(super) addressing: Option<String>,
    pub(super) distribution: Option<String>,
    pub(super) address_cooldown_seconds: Option<u64>,
    pub(super) addresses_ahead: Option<usize>,
    pub(super) store: RawStore,
    pub(super) pods: RawPods,
    pub(super) paths: RawPaths,
    pub(super) http: RawHttp,
    pub(super) bgp: RawBgp,
    pub(super) detect: DetectWords,
    /// More ways to name the link, which only flanneld's flags have.
    #[serde(skip)]
    pub(super) links: Vec<String>,
    #[serde(skip)]
    pub(super) link_patterns: Vec<String>,
    #[serde(skip)]
    pub(super) link_reaches: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawStore {
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) prefix: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    /// A file whose first line is the password, so that it need not stand in this one.
    pub(super) password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawPods {
    pub(super) attachment: Option<String>,
    pub(super) bridge: Option<String>,
    pub(super) hairpin: Option<bool>,
    /// Calico's way, in place of a gateway that a pod need not ask for.
    pub(super) proxy_arp: Option<bool>,
    pub(super) masquerade: Option<bool>,
    pub(super) masquerade_fully_random: Option<bool>,
    pub(super) hide_client_source: Option<bool>,
    pub(super) forward_accept: Option<bool>,
    pub(super) blackhole: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawPaths {
    pub(super) run: Option<PathBuf>,
    pub(super) state: Option<PathBuf>,
    pub(super) subnet_file: Option<PathBuf>,
    pub(super) pods: Option<PathBuf>,
    pub(super) wireguard_key: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawHttp {
    pub(super) listen: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawBgp {
    /// The speaker's own file.
    pub(super) config: Option<PathBuf>,
    /// Where the passwords lie that resources name.
    pub(super) secrets: Option<PathBuf>,
}

impl RawBgp {
    /// Its faults name the file themselves.
    fn read(self, faults: &mut Faults) -> Option<(BgpConfig, PathBuf)> {
        let file = self.config?;
        let read = BgpConfig::load(&file).map_err(|err| faults.0.extend(err.0));
        Some((read.ok()?, file))
    }
}

/// Where Calico's own plugin, and others, look for the pods' MTU.
const CALICO_MTU: &str = "/var/lib/calico/mtu";
const BGP_SECRETS: &str = "/etc/russet/bgp-secrets";

/// What flags and environment say; each wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub node: Option<String>,
    pub preset: Option<String>,
    pub interface: Option<String>,
    pub public_ip: Option<String>,
    pub public_ipv6: Option<String>,
    pub endpoints: Vec<String>,
    pub prefix: Option<String>,
    pub http_listen: Option<String>,
    pub bgp_config: Option<PathBuf>,
    /// What calico/node's environment says; it counts with Calico's preset alone, because the names are common words.
    pub detect: DetectWords,
}

impl RawConfig {
    /// Lets what flags and environment say win.
    pub fn put(&mut self, over: Overrides) {
        let win = |slot: &mut Option<String>, value: Option<String>| {
            if value.is_some() {
                *slot = value;
            }
        };
        win(&mut self.node, over.node);
        win(&mut self.preset, over.preset);
        win(&mut self.interface, over.interface);
        win(&mut self.public_ip, over.public_ip);
        win(&mut self.public_ipv6, over.public_ipv6);
        win(&mut self.store.prefix, over.prefix);
        win(&mut self.http.listen, over.http_listen);
        if over.bgp_config.is_some() {
            self.bgp.config = over.bgp_config;
        }
        if self.preset.as_deref() == Some(CALICO) {
            self.detect.put(over.detect);
        }
        if !over.endpoints.is_empty() {
            self.store.endpoints = Some(over.endpoints);
        }
    }

    /// Checks the whole.
    ///
    /// # Errors
    ///
    /// With every fault at once.
    pub fn check(self) -> Result<Config, ConfigFaults> {
        let mut faults = Faults::default();
        let settings = self.settings(&mut faults);
        let uplink = self.uplink(&mut faults);
        let renew_margin = self.renew_margin(&mut faults);
        let path_probe = self.path_probe(&mut faults);
        let preset = settings.as_ref().map(|settings| settings.preset);
        let prefix = self.store.prefix(preset, &mut faults);
        let sealing = self.sealing(&mut faults);
        let http = self.http.address(&mut faults);
        let addressing = self.addressing(settings.as_ref(), &mut faults);
        let endpoints = self.store.endpoints();
        let store = self.store.client(&mut faults);
        let paths = self.paths.check(preset, &mut faults);
        let bgp_secrets = self.bgp.secrets.clone().unwrap_or_else(|| BGP_SECRETS.into());
        let bgp = self.bgp.read(&mut faults);
        match (settings, store, faults.0.is_empty()) {
            (Some(settings), Some(store), true) => Ok(Config {
                settings,
                sealing,
                store,
                endpoints,
                prefix,
                uplink,
                renew_margin,
                path_probe,
                paths,
                http,
                bgp,
                bgp_secrets,
                on_unspoken: OnUnspoken::default(),
                addressing: addressing.unwrap_or_default(),
            }),
            _ => Err(ConfigFaults(faults.0)),
        }
    }

    fn settings(&self, faults: &mut Faults) -> Option<Settings> {
        let node = match &self.node {
            Some(name) => name.clone(),
            None => hostname(),
        };
        if node.is_empty()
            || node.len() > 253
            || node.contains(|c: char| c.is_whitespace() || c == '/')
        {
            faults.add("node", &format!("{node:?} is no node name; 1 to 253 characters without blanks or slashes are wanted"));
        }
        let word = self.preset.as_deref().unwrap_or("flannel");
        let Some(preset) = preset(word) else {
            faults.add(
                "preset",
                &format!("{word:?} is not known; \"flannel\", \"calico\" or \"russet\" is wanted"),
            );
            // The bridge is checked all the same.
            let _ = self.pods.bridge(faults);
            return None;
        };
        let on = |value: Option<bool>, default: bool| Flag::from(value.unwrap_or(default));
        let bridge = self.pods.bridge(faults)?;
        let usual = Settings::new(node, preset, bridge);
        let attachment = self.pods.attachment(&usual, faults);
        Some(Settings {
            attachment,
            commands: on(self.allow_commands, false),
            masquerade: on(self.pods.masquerade, true),
            fully_random: on(self.pods.masquerade_fully_random, true),
            hide_client_source: on(self.pods.hide_client_source, usual.hide_client_source.is_on()),
            forward_accept: on(self.pods.forward_accept, usual.forward_accept.is_on()),
            blackhole: on(self.pods.blackhole, false),
            hairpin: on(self.pods.hairpin, true),
            distribution: self.distribution(preset, faults),
            proxy_arp: on(self.pods.proxy_arp, false),
            ..usual
        })
    }

    fn addressing(&self, settings: Option<&Settings>, faults: &mut Faults) -> Option<Addressing> {
        let seconds = self.address_cooldown_seconds.unwrap_or(crate::ipam::COOLDOWN.as_secs());
        if seconds > 86_400 {
            let fault = format!("{seconds} is not within 0 (none) to 86400");
            faults.add("address-cooldown-seconds", &fault);
        }
        let ahead = self.addresses_ahead.unwrap_or_default();
        if ahead > MOST_AHEAD {
            let fault = format!("{ahead} is not within 0 (none) to {MOST_AHEAD}");
            faults.add("addresses-ahead", &fault);
        }
        let settings = settings?;
        let (usual, of_preset) = match settings.addressing {
            model::Addressing::NodeSubnet => ("node-subnet", "flannel and russet"),
            model::Addressing::Blocks => ("blocks", "calico"),
        };
        if let Some(word) = self.addressing.as_deref().filter(|word| *word != usual) {
            let fault =
                format!("{word:?} does not go with the preset; {usual:?} is that of {of_preset}");
            faults.add("addressing", &fault);
        }
        if settings.addressing == model::Addressing::NodeSubnet {
            return Some(Addressing::NodeSubnet);
        }
        let node = faults.parse("node", Some(&settings.node))?;
        let cooldown = Duration::from_secs(seconds);
        Some(Addressing::Blocks(BlockSettings { node, cooldown, ahead }))
    }

    fn uplink(&self, faults: &mut Faults) -> Uplink {
        Uplink {
            choices: self.choices(faults),
            public_ip: faults.parse("public-ip", self.public_ip.as_deref()),
            public_ipv6: faults.parse("public-ipv6", self.public_ipv6.as_deref()),
            detection: self.detection(faults),
        }
    }

    /// Calico's way to the node's addresses, with its preset unless they are told otherwise.
    fn detection(&self, faults: &mut Faults) -> Option<Detection> {
        let told =
            self.interface.is_some() || self.public_ip.is_some() || self.public_ipv6.is_some();
        if self.detect.is_empty() && (told || self.preset.as_deref() != Some(CALICO)) {
            return None;
        }
        if told {
            faults.add(
                "detect",
                "it goes without interface, public-ip and public-ipv6; leave out one way",
            );
        }
        Some(self.detect.check(faults))
    }

    /// Calico's nodes speak BGP unless they are told not to; others do when they have a file that says with whom.
    fn distribution(&self, preset: Preset, faults: &mut Faults) -> Distribution {
        match (self.distribution.as_deref(), preset) {
            (None, Preset::Calico) if self.bgp.config.is_none() => Distribution::Bgp,
            (Some("bgp"), Preset::Calico) => Distribution::Bgp,
            (None | Some("store"), _) => Distribution::Store,
            (Some("bgp"), _) => {
                let fault = "\"bgp\" goes with preset \"calico\"; with others `bgp.config` says it";
                faults.add("distribution", fault);
                Distribution::Store
            }
            (Some(word), _) => {
                faults.add("distribution", &format!("{word:?} is neither \"store\" nor \"bgp\""));
                Distribution::Store
            }
        }
    }

    fn sealing(&self, faults: &mut Faults) -> Option<Sealer> {
        match self.wireguard.as_deref().unwrap_or("auto") {
            "auto" => None,
            "kernel" => Some(Sealer::Kernel),
            "engine" => Some(Sealer::Engine),
            word => {
                let fault = format!("{word:?} is none of \"auto\", \"kernel\" and \"engine\"");
                faults.add("wireguard", &fault);
                None
            }
        }
    }

    fn choices(&self, faults: &mut Faults) -> Vec<LinkChoice> {
        let named = self.interface.as_deref().into_iter().map(|text| ("interface", text));
        let listed = self.links.iter().map(|text| ("iface", text.as_str()));
        let mut choices: Vec<_> = named
            .chain(listed)
            .filter_map(|(place, text)| faults.parse(place, Some(text)))
            .collect();
        let patterns = self.link_patterns.iter();
        let patterns = patterns.filter_map(|text| faults.parse("iface-regex", Some(text)));
        choices.extend(patterns.map(LinkChoice::Pattern));
        let reach = faults.parse("iface-can-reach", self.link_reaches.as_deref());
        choices.extend(reach.map(LinkChoice::Reaches));
        choices
    }

    fn path_probe(&self, faults: &mut Faults) -> Option<Duration> {
        let seconds = self.path_probe_seconds.unwrap_or(60);
        if seconds > 86_400 {
            let fault = format!("{seconds} is not within 0 (never) to 86400");
            faults.add("path-probe-seconds", &fault);
        }
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    fn renew_margin(&self, faults: &mut Faults) -> Duration {
        let minutes = self.lease_renew_margin_minutes.unwrap_or(60);
        if !(1..=1_439).contains(&minutes) {
            faults.add(
                "lease-renew-margin-minutes",
                &format!("{minutes} is not within 1 to 1439 (a lease lives for a day)"),
            );
        }
        Duration::from_mins(minutes)
    }
}

impl RawPods {
    fn attachment(&self, usual: &Settings, faults: &mut Faults) -> Attachment {
        let Some(word) = self.attachment.as_deref() else { return usual.attachment };
        match word {
            // A block has no address to spare for a gateway.
            "bridge" if usual.addressing == model::Addressing::Blocks => {
                let fault = "\"bridge\" needs subnets with a gateway, and addresses come out of blocks; leave it out";
                faults.add("pods.attachment", fault);
                usual.attachment
            }
            "bridge" => Attachment::Bridge,
            "routed" => Attachment::Routed,
            word => {
                let fault = format!("{word:?} is neither \"bridge\" nor \"routed\"");
                faults.add("pods.attachment", &fault);
                Attachment::default()
            }
        }
    }

    fn bridge(&self, faults: &mut Faults) -> Option<IfName> {
        faults.parse("pods.bridge", Some(self.bridge.as_deref().unwrap_or("cni0")))
    }
}

impl RawStore {
    fn prefix(&self, preset: Option<Preset>, faults: &mut Faults) -> String {
        let usual = if preset == Some(Preset::Calico) { "/calico" } else { "/coreos.com/network" };
        let prefix = self.prefix.as_deref().unwrap_or(usual);
        if preset == Some(Preset::Calico) && prefix != usual {
            faults.add(
                "store.prefix",
                &format!("Calico's keys begin with {usual:?}, and nothing else"),
            );
        }
        if !prefix.starts_with('/') || prefix.trim_end_matches('/').is_empty() {
            faults.add(
                "store.prefix",
                &format!("{prefix:?} is no folder; \"/coreos.com/network\" is flannel's"),
            );
        }
        prefix.trim_end_matches('/').to_owned()
    }

    fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone().unwrap_or_else(|| vec!["http://127.0.0.1:2379".to_owned()])
    }

    fn client(self, faults: &mut Faults) -> Option<ClientConfig> {
        let endpoints = self.endpoints();
        let password = self.password_file.as_deref().and_then(|path| read_password(path, faults));
        let settings = ClientSettings {
            endpoints,
            ca_file: self.ca_file,
            cert_file: self.cert_file,
            key_file: self.key_file,
            username: self.username,
            password: password.or(self.password).map(Secret::new),
            request_timeout: None,
        };
        ClientConfig::read(&settings)
            .map_err(|found| found.0.iter().for_each(|fault| faults.add("store", fault)))
            .ok()
    }
}

fn read_password(path: &Path, faults: &mut Faults) -> Option<String> {
    let text = std::fs::read_to_string(path);
    let text = text
        .map_err(|err| faults.add("store.password-file", &format!("{}: {err}", path.display())))
        .ok()?;
    text.lines().next().map(str::to_owned)
}

impl RawPaths {
    fn check(self, preset: Option<Preset>, faults: &mut Faults) -> Paths {
        let usual = Paths::default();
        let told = match preset {
            Some(Preset::Calico) => CALICO_MTU.into(),
            _ => usual.subnet_file,
        };
        let mut absolute = |place: &str, path: Option<PathBuf>, usual: PathBuf| {
            let path = path.unwrap_or(usual);
            if !path.is_absolute() {
                faults.add(place, &format!("{} is not absolute", path.display()));
            }
            path
        };
        let state = absolute("paths.state", self.state, usual.state);
        Paths {
            run: absolute("paths.run", self.run, usual.run),
            wireguard_key: absolute(
                "paths.wireguard-key",
                self.wireguard_key,
                state.join("wireguard.key"),
            ),
            state,
            subnet_file: absolute("paths.subnet-file", self.subnet_file, told),
            pods: absolute("paths.pods", self.pods, usual.pods),
        }
    }
}

impl RawHttp {
    fn address(&self, faults: &mut Faults) -> Option<std::net::SocketAddr> {
        match self.listen.as_deref() {
            Some("" | "off") => None,
            Some(text) => faults.parse("http.listen", Some(text)),
            None => Some(([127, 0, 0, 1], 9_470).into()),
        }
    }
}

/// The faults found so far.
#[derive(Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn add(&mut self, place: &str, fault: &str) {
        self.0.push(format!("{place}: {fault}"));
    }

    pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
        &mut self,
        place: &str,
        text: Option<&str>,
    ) -> Option<T> {
        let text = text?;
        text.parse().map_err(|err| self.add(place, &format!("{text:?}: {err}"))).ok()
    }
}

/// The preset's word.
const CALICO: &str = "calico";
/// How many addresses are claimed ahead at most: a block of the usual size has as many.
const MOST_AHEAD: usize = 64;

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
