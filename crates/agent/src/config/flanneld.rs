//! What flanneld's flags say, as the agent's configuration.

use std::path::PathBuf;

use super::{
    Config, ConfigFaults, OnUnspoken,
    raw::{RawConfig, RawHttp, RawPaths, RawPods, RawStore},
};

/// flanneld's flags, by their names.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "flanneld has as many switches")]
pub struct Flanneld {
    pub node: Option<String>,
    pub etcd_endpoints: Vec<String>,
    pub etcd_prefix: Option<String>,
    pub etcd_keyfile: Option<PathBuf>,
    pub etcd_certfile: Option<PathBuf>,
    pub etcd_cafile: Option<PathBuf>,
    pub etcd_username: Option<String>,
    pub etcd_password: Option<String>,
    pub iface: Vec<String>,
    pub iface_regex: Vec<String>,
    pub iface_can_reach: Option<String>,
    pub subnet_file: Option<PathBuf>,
    pub public_ip: Option<String>,
    pub public_ipv6: Option<String>,
    /// Minutes; a negative number is refused like every other out of range.
    pub subnet_lease_renew_margin: i64,
    pub ip_masq: bool,
    pub fully_random: bool,
    pub forward_rules: bool,
    pub blackhole_route: bool,
    /// `ADDRESS:PORT`; `None` is off.
    pub healthz: Option<String>,
    pub wireguard_key: Option<PathBuf>,
}

impl Flanneld {
    /// # Errors
    ///
    /// With every fault at once.
    pub fn check(self) -> Result<Config, ConfigFaults> {
        let margin = u64::try_from(self.subnet_lease_renew_margin).unwrap_or_default();
        // flannel itself does not mind a folder without its first slash.
        let prefix = self.etcd_prefix.map(|text| format!("/{}", text.trim_start_matches('/')));
        let raw = RawConfig {
            node: self.node,
            public_ip: self.public_ip,
            public_ipv6: self.public_ipv6,
            lease_renew_margin_minutes: Some(margin),
            // flanneld runs what the store names.
            allow_commands: Some(true),
            store: RawStore {
                endpoints: Some(self.etcd_endpoints),
                prefix,
                ca_file: self.etcd_cafile,
                cert_file: self.etcd_certfile,
                key_file: self.etcd_keyfile,
                username: self.etcd_username,
                password: self.etcd_password,
                ..RawStore::default()
            },
            pods: RawPods {
                masquerade: Some(self.ip_masq),
                masquerade_fully_random: Some(self.fully_random),
                forward_accept: Some(self.forward_rules),
                blackhole: Some(self.blackhole_route),
                ..RawPods::default()
            },
            paths: RawPaths {
                subnet_file: self.subnet_file,
                wireguard_key: self.wireguard_key,
                ..RawPaths::default()
            },
            http: RawHttp { listen: Some(self.healthz.unwrap_or_else(|| "off".to_owned())) },
            links: self.iface,
            link_patterns: self.iface_regex,
            link_reaches: self.iface_can_reach,
            ..RawConfig::default()
        };
        raw.check().map(|config| Config { on_unspoken: OnUnspoken::End, ..config })
    }
}
