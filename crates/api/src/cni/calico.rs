//! The configuration of Calico's two plugins, `calico` and `calico-ipam`, as their users have it.
//!
//! ```json
//! { "name": "k8s-pod-network", "cniVersion": "0.3.1", "type": "calico", "mtu": 1440,
//!   "ipam": { "type": "calico-ipam", "assign_ipv4": "true", "ipv4_pools": ["blue"] },
//!   "container_settings": { "allow_ip_forwarding": true } }
//! ```
//!
//! Calico's plugin passes over what it does not know, so nothing is refused for its name here. What it would obey and we
//! do not is listed ([`Calico::without_effect`]), and what only says where its datastore is, or how it logs, is passed
//! over: the agent knows that of itself (cni-plugin: `pkg/types/types.go`).

use serde_json::{Map, Value};

use super::{
    Fault, Version,
    conf::{KNOWN, Kind, NetConf, Reader},
    wire::Asks,
};

/// The file names of the plugins, which `type` and `ipam.type` bear.
pub const CALICO: &str = "calico";
pub const CALICO_IPAM: &str = "calico-ipam";

/// What only Calico's configuration has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calico {
    /// Whether a pod may forward what is not its own.
    pub forwarding: Forwarding,
    /// Fields that are set, and that are not obeyed here.
    pub without_effect: Vec<String>,
}

/// `container_settings.allow_ip_forwarding`: it is turned off where it is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    Allowed,
    #[default]
    Denied,
}

impl NetConf {
    /// Reads a configuration of type `calico`.
    ///
    /// # Errors
    ///
    /// With every fault in it.
    pub fn parse_calico(text: &[u8]) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::of(text, &Version::CALICO)?;
        old_version(&mut reader.object);
        let base = reader.conf();
        let conf = Self {
            asks: reader.ipam(base.asks.clone()),
            kind: Kind::Calico(Calico {
                forwarding: reader.forwarding(),
                without_effect: without_effect(&reader.object),
            }),
            ..base
        };
        reader.finish(conf)
    }

    /// Reads the configuration of a plugin that takes its addresses from `calico-ipam`. Only `name`, the version
    /// and `ipam` are ours to look at.
    ///
    /// # Errors
    ///
    /// With every fault in it.
    pub fn parse_calico_ipam(text: &[u8]) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::of(text, &Version::CALICO)?;
        old_version(&mut reader.object);
        let ipam = reader.object.get("ipam").cloned().unwrap_or_default();
        reader.object.retain(|key, _| NEEDED.contains(&key.as_str()) || key.contains('.'));
        for key in ["socket", "spool"] {
            reader.object.extend(ipam.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        reader.object.insert("ipam".to_owned(), ipam);
        let base = reader.conf();
        let conf = Self { asks: reader.ipam(base.asks.clone()), kind: Kind::CalicoIpam, ..base };
        reader.finish(conf)
    }
}

/// Who does not say speaks the oldest (cni-plugin: `cmdAdd`).
fn old_version(object: &mut Map<String, Value>) {
    let said = object.get("cniVersion").is_some_and(|version| !version.is_null() && version != "");
    if !said {
        object.insert("cniVersion".to_owned(), Version::V0_2_0.as_str().into());
    }
}

impl Reader {
    /// What `ipam` says, where the pod itself says nothing. An IPv4 address is given unless it is refused, an IPv6
    /// address only when it is asked for (cni-plugin: `ipam_plugin.go`).
    fn ipam(&mut self, pod: Asks) -> Asks {
        let ipam = self.object.get("ipam").cloned().unwrap_or_default();
        let asks = if ipam.get("type").and_then(Value::as_str) == Some(CALICO_IPAM) {
            let pools = |own: Vec<String>, key| {
                if own.is_empty() { texts(&ipam, key) } else { own }
            };
            Asks {
                assign_v4: pod.assign_v4.or(Some(!is_word(&ipam, "assign_ipv4", false))),
                assign_v6: pod.assign_v6.or(Some(is_word(&ipam, "assign_ipv6", true))),
                pools_v4: pools(pod.pools_v4, "ipv4_pools"),
                pools_v6: pools(pod.pools_v6, "ipv6_pools"),
                ..pod
            }
        } else {
            pod
        };
        if let Err(reason) = asks.check() {
            self.wrong("ipam", reason);
        }
        asks
    }

    fn forwarding(&self) -> Forwarding {
        let settings = self.object.get("container_settings");
        match settings.and_then(|settings| settings.get("allow_ip_forwarding")) {
            Some(Value::Bool(true)) => Forwarding::Allowed,
            _ => Forwarding::Denied,
        }
    }
}

/// Whether a field is this word, which Calico writes as a text.
fn is_word(ipam: &Value, key: &str, word: bool) -> bool {
    match ipam.get(key) {
        Some(Value::Bool(value)) => *value == word,
        Some(Value::String(text)) => *text == word.to_string(),
        _ => false,
    }
}

fn texts(ipam: &Value, key: &str) -> Vec<String> {
    let list = ipam.get(key).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Names every field that would change something in Calico, and changes nothing here.
fn without_effect(object: &Map<String, Value>) -> Vec<String> {
    let unknown = object.keys().filter(|key| {
        let key = key.as_str();
        !key.contains('.') && ![KNOWN, PASSED_OVER].concat().contains(&key) && is_set(&object[key])
    });
    let mut names: Vec<String> = unknown.cloned().collect();
    for path in BELOW {
        let value = path.split('.').try_fold(None, |at: Option<&Value>, key| {
            let value = at.map_or_else(|| object.get(key), |at| at.get(key));
            value.map(Some)
        });
        if value.flatten().is_some_and(|value| is_set(value) && !is_usual(path, value)) {
            names.push((*path).to_owned());
        }
    }
    names
}

/// What is as good as absent in Go.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(on) => *on,
        Value::Number(n) => n.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => fields.values().any(is_set),
    }
}

/// Values that ask for what is done anyhow.
fn is_usual(path: &str, value: &Value) -> bool {
    let word = value.as_str().unwrap_or_default();
    match path {
        "ipam.type" => [CALICO_IPAM, "host-local"].contains(&word),
        // The agent's own subnet.
        "ipam.subnet" => word.to_ascii_lowercase().starts_with("usepodcidr"),
        "num_queues" => *value == 1,
        _ => false,
    }
}

/// What `calico-ipam` reads of another plugin's configuration.
const NEEDED: &[&str] = &["cniVersion", "name", "type", "args", "runtimeConfig", "prevResult"];

/// Where Calico's datastore is, which node this is, and how it logs: the agent's own business. What is read here, and
/// what [`BELOW`] looks into.
const PASSED_OVER: &[&str] = &[
    "ipam",
    "container_settings",
    "feature_control",
    "policy",
    "num_queues",
    "nodename",
    "nodename_file",
    "nodename_file_optional",
    "hostname",
    "ipam_lock_file",
    "datastore_type",
    "etcd_endpoints",
    "etcd_discovery_srv",
    "etcd_scheme",
    "etcd_authority",
    "etcd_key_file",
    "etcd_cert_file",
    "etcd_ca_cert_file",
    "log_level",
    "log_file_path",
    "log_file_max_size",
    "log_file_max_age",
    "log_file_max_count",
    "kubernetes",
    "endpoint_status_dir",
    "require_mtu_file",
    "windows_pod_deletion_timestamp_timeout",
    "windows_use_single_network",
    "windows_disable_default_deny_all_policy",
    "windows_loopback_DSR",
    "RuntimeConfig",
];

const BELOW: &[&str] = &[
    "num_queues",
    "policy.type",
    "feature_control.ip_addrs_no_ipam",
    "feature_control.floating_ips",
    "ipam.type",
    "ipam.subnet",
    "ipam.ranges",
    "ipam.routes",
    "ipam.ip_pools_label_selector_keys",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The list of Calico's manifest (`calico.yaml`: `cni_network_config`), its first plugin as a runtime hands it on.
    fn manifest() -> Value {
        json!({
            "name": "k8s-pod-network", "cniVersion": "0.3.1", "type": "calico",
            "log_level": "info", "log_file_path": "/var/log/calico/cni/cni.log",
            "etcd_endpoints": "https://192.0.2.1:2379", "etcd_key_file": "", "etcd_cert_file": "",
            "etcd_ca_cert_file": "", "datastore_type": "etcdv3", "nodename": "n1", "mtu": 0,
            "nodename_file_optional": false, "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"}, "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        })
    }

    #[test]
    fn the_manifest_s_configuration_is_taken_as_it_is() {
        let conf = NetConf::parse_calico(manifest().to_string().as_bytes()).unwrap();
        assert_eq!((conf.name.as_str(), conf.version), ("k8s-pod-network", Version::V0_3_1));
        assert_eq!((conf.mtu, conf.socket.to_str()), (None, Some("/run/russet/cni.sock")));
        assert_eq!((conf.asks.assign_v4, conf.asks.assign_v6), (Some(true), Some(false)));
        let Kind::Calico(calico) = conf.kind else { panic!("{conf:?}") };
        assert_eq!(calico.forwarding, Forwarding::Denied);
        assert_eq!(calico.without_effect, ["policy.type"]);
    }

    #[test]
    fn what_concerns_addresses_and_the_pod_is_used() {
        let conf = parse(&json!({
            "mtu": 1440, "container_settings": {"allow_ip_forwarding": true}, "num_queues": 1,
            "ipam": {"type": "calico-ipam", "assign_ipv4": "false", "assign_ipv6": "true",
                     "ipv4_pools": ["blue"], "ipv6_pools": ["fd00::/48"]},
            "args": {"cni": {"cni.projectcalico.org/ipv4pools": "[\"green\"]"}},
            "policy": {}, "socket": "/run/x/cni.sock",
        }));
        assert_eq!((conf.asks.assign_v4, conf.asks.assign_v6), (Some(false), Some(true)));
        assert_eq!(conf.asks.pools_v4, ["green"], "the pod's own word comes first");
        assert_eq!(conf.asks.pools_v6, ["fd00::/48"]);
        assert_eq!(conf.mtu.map(russet_net::Mtu::get), Some(1440));
        assert_eq!(conf.socket.to_str(), Some("/run/x/cni.sock"));
        let Kind::Calico(calico) = conf.kind else { panic!("a kind") };
        assert_eq!(calico.forwarding, Forwarding::Allowed);
        assert_eq!(calico.without_effect, [""; 0]);
    }

    #[test]
    fn what_is_not_obeyed_is_named_and_nothing_is_refused_for_its_name() {
        let conf = parse(&json!({
            "ipam": {"type": "host-local", "subnet": "usePodCidr", "routes": [{"dst": "10.0.0.0/8"}]},
            "num_queues": 4, "feature_control": {"floating_ips": true, "ip_addrs_no_ipam": false},
            "readiness_gates": ["http://localhost/"], "include_default_routes": true,
            "policy_setup_timeout_seconds": 10, "dataplane_options": {}, "mode": "",
            "windows_use_single_network": true, "somebody_s": 1, "example.org/x": 2,
        }));
        assert_eq!(conf.asks.assign_v4, None, "the agent's own addresses");
        let Kind::Calico(calico) = conf.kind else { panic!("a kind") };
        let mut names = calico.without_effect;
        names.sort_unstable();
        let wanted = [
            "feature_control.floating_ips",
            "include_default_routes",
            "ipam.routes",
            "num_queues",
            "policy.type",
            "policy_setup_timeout_seconds",
            "readiness_gates",
            "somebody_s",
        ];
        assert_eq!(names, wanted);
    }

    #[test]
    fn the_oldest_version_is_spoken_where_none_is_said() {
        assert_eq!(parse(&json!({"cniVersion": null})).version, Version::V0_2_0);
        assert_eq!(parse(&json!({"cniVersion": ""})).version, Version::V0_2_0);
        assert_eq!(parse(&json!({"cniVersion": "0.1.0"})).version, Version::V0_1_0);
    }

    #[test]
    fn what_makes_calico_fail_fails_here_with_every_fault() {
        let bad = json!({"name": "a/b", "cniVersion": "9", "type": "calico", "mtu": "1440",
            "ipam": {"type": "calico-ipam", "ipv4_pools": vec!["x"; 65]}});
        let faults = NetConf::parse_calico(bad.to_string().as_bytes()).unwrap_err();
        let places: Vec<_> = faults.iter().map(|fault| fault.place.as_str()).collect();
        assert_eq!(places, ["cniVersion", "name", "mtu", "ipam"]);
    }

    #[test]
    fn another_plugin_s_configuration_is_read_for_its_addresses_alone() {
        let conf = json!({"name": "n", "cniVersion": "1.0.0", "type": "ptp", "ipMasq": true, "mtu": "x",
            "ipam": {"type": "calico-ipam", "ipv4_pools": ["blue"], "socket": "/run/y/cni.sock"}});
        let conf = NetConf::parse_calico_ipam(conf.to_string().as_bytes()).unwrap();
        assert_eq!((conf.kind, conf.mtu), (Kind::CalicoIpam, None));
        assert_eq!(conf.socket.to_str(), Some("/run/y/cni.sock"));
        assert_eq!(conf.asks.pools_v4, ["blue"]);
    }

    fn parse(change: &Value) -> NetConf {
        let mut conf = manifest();
        conf.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        NetConf::parse_calico(conf.to_string().as_bytes()).unwrap()
    }
}
