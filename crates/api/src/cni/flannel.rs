//! flannel's network configuration, and what is handed on to the plugin that does the work.
//!
//! ```json
//! { "name": "cbr0", "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } }
//! ```
//!
//! flannel's plugin makes no interface itself: it adds what `subnet.env` says to `delegate` and calls the
//! plugin that is named there, `bridge` unless told (flannel's cni-plugin: `flannel_linux.go`). What it
//! called is kept byte for byte, so that a DEL is made of the same.

use std::{collections::BTreeSet, path::PathBuf};

use russet_net::Prefix;
use serde_json::{Map, Value, json};

use super::{Code, Fault, Version, check_name};
use crate::flannel::SubnetEnv;

/// A checked configuration of type `flannel`.
#[derive(Clone, Debug, PartialEq)]
pub struct FlannelConf {
    /// `None`: the list says nothing, and the delegate is told nothing.
    pub version: Option<Version>,
    pub name: String,
    pub subnet_file: PathBuf,
    /// Where it is kept what was called, a file for each container.
    pub data_folder: PathBuf,
    delegate: Map<String, Value>,
    ipam: Map<String, Value>,
    runtime: Option<Value>,
    /// What only some commands have, and the delegate gets as it is.
    passed_on: Map<String, Value>,
}

impl FlannelConf {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// With every fault in it.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<Fault>> {
        let no_object = |reason: String| vec![Fault::new(Code::DECODE, CONF, reason)];
        let object: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|err| no_object(format!("it is no JSON object: {err}")))?;
        let mut faults = Vec::new();
        let conf = Self {
            version: version(&object, &mut faults),
            name: name(&object, &mut faults),
            subnet_file: path(&object, "subnetFile", SUBNET_FILE, &mut faults),
            data_folder: path(&object, "dataDir", DATA_FOLDER, &mut faults),
            delegate: dictionary(&object, "delegate", &mut faults),
            ipam: dictionary(&object, "ipam", &mut faults),
            runtime: object.get("runtimeConfig").filter(|value| !value.is_null()).cloned(),
            passed_on: PASSED_ON
                .iter()
                .filter_map(|key| object.get_key_value(*key))
                .map(owned)
                .collect(),
        };
        conf.check_delegate(&mut faults);
        if faults.is_empty() { Ok(conf) } else { Err(faults) }
    }

    /// What is called is somebody's program: its name must be one.
    fn check_delegate(&self, faults: &mut Vec<Fault>) {
        let mut wrong =
            |place: &str, reason: String| faults.push(Fault::new(Code::BAD_CONFIG, place, reason));
        match self.delegate.get("type") {
            None => {}
            Some(Value::String(kind)) => {
                if let Err(reason) = check_name(kind) {
                    wrong("delegate.type", format!("{kind:?}: {reason}"));
                }
            }
            Some(other) => wrong("delegate.type", format!("{other} is no text")),
        }
        for key in ["name", "ipam"] {
            if self.delegate.contains_key(key) {
                wrong(
                    &format!("delegate.{key}"),
                    "it is set by flannel's plugin, so it must not be there".into(),
                );
            }
        }
    }

    /// Which plugin is called.
    pub fn kind(&self) -> &str {
        self.delegate.get("type").and_then(Value::as_str).unwrap_or(BRIDGE)
    }

    /// What that plugin reads, with what `subnet.env` says (keys sorted, no blanks: as flannel writes it).
    pub fn delegated(&self, env: &SubnetEnv) -> Value {
        let mut out = self.delegate.clone();
        let bridge = self.kind() == BRIDGE;
        out.insert("name".into(), self.name.clone().into());
        if let Some(version) = self.version {
            out.insert("cniVersion".into(), version.as_str().into());
        }
        out.entry("type").or_insert_with(|| BRIDGE.into());
        // Whoever does not masquerade leaves it to the plugin.
        out.entry("ipMasq").or_insert_with(|| (!env.masquerade.is_on()).into());
        out.entry("mtu").or_insert_with(|| env.mtu.get().into());
        if bridge {
            out.entry("isGateway").or_insert(Value::Bool(true));
        }
        if let Some(runtime) = &self.runtime {
            out.insert("runtimeConfig".into(), runtime.clone());
        }
        out.insert("ipam".into(), self.addresses(env));
        Value::Object(out)
    }

    /// The containers that GC shall keep; `None` when the runtime does not say.
    pub fn valid(&self) -> Option<BTreeSet<&str>> {
        let list = self.passed_on.get(VALID)?.as_array()?;
        Some(list.iter().filter_map(|one| one.get("containerID")?.as_str()).collect())
    }

    /// Adds what belongs to one call to what was kept of the ADD.
    pub fn with_this_call(&self, mut kept: Map<String, Value>) -> Value {
        kept.extend(self.passed_on.clone());
        Value::Object(kept)
    }

    fn addresses(&self, env: &SubnetEnv) -> Value {
        let mut ipam = self.ipam.clone();
        ipam.entry("type").or_insert_with(|| "host-local".into());
        let families = || [env.v4, env.v6].into_iter().flatten();
        let range = |subnet: Prefix| json!([{ "subnet": subnet.to_string() }]);
        let ranges: Vec<_> = families().map(|of| range(of.subnet)).collect();
        let mut routes = ipam.get("routes").and_then(Value::as_array).cloned().unwrap_or_default();
        routes.extend(families().map(|of| json!({ "dst": of.network.to_string() })));
        ipam.insert("ranges".into(), ranges.into());
        ipam.insert("routes".into(), routes.into());
        Value::Object(ipam)
    }
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn name(object: &Map<String, Value>, faults: &mut Vec<Fault>) -> String {
    let name = object.get("name").and_then(Value::as_str).unwrap_or_default();
    if let Err(reason) = check_name(name) {
        faults.push(Fault::new(Code::BAD_CONFIG, "name", format!("{name:?}: {reason}")));
    }
    name.to_owned()
}

fn version(object: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Version> {
    let asked = object.get("cniVersion").filter(|asked| *asked != "")?;
    let version = asked.as_str().and_then(|text| Version::parse(text, &Version::ALL));
    if version.is_none() {
        let spoken = Version::ALL.map(Version::as_str).join(", ");
        let reason = format!("{asked} is not spoken here; spoken are {spoken}");
        faults.push(Fault::new(Code::INCOMPATIBLE_VERSION, "cniVersion", reason));
    }
    version
}

fn path(object: &Map<String, Value>, key: &str, usual: &str, faults: &mut Vec<Fault>) -> PathBuf {
    match object.get(key) {
        None | Some(Value::Null) => usual.into(),
        // flannel takes the empty text for none.
        Some(Value::String(text)) if text.is_empty() => usual.into(),
        Some(Value::String(text)) => text.into(),
        Some(other) => {
            faults.push(Fault::new(Code::BAD_CONFIG, key, format!("{other} is no path")));
            PathBuf::new()
        }
    }
}

fn dictionary(
    object: &Map<String, Value>,
    key: &str,
    faults: &mut Vec<Fault>,
) -> Map<String, Value> {
    match object.get(key) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(other) => {
            faults.push(Fault::new(Code::BAD_CONFIG, key, format!("{other} is no dictionary")));
            Map::new()
        }
    }
}

/// The plugin's file name, which `type` bears.
pub const FLANNEL: &str = "flannel";
const BRIDGE: &str = "bridge";
const CONF: &str = "network configuration";
const SUBNET_FILE: &str = "/run/flannel/subnet.env";
const DATA_FOLDER: &str = "/var/lib/cni/flannel";
const VALID: &str = "cni.dev/valid-attachments";
const PASSED_ON: &[&str] = &["prevResult", VALID];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flannel_s_own_example_is_handed_on_byte_for_byte() {
        let conf = parse(&json!({
            "name": "cbr0", "cniVersion": "0.3.1", "type": "flannel",
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
        }));
        // Seen in /var/lib/cni/flannel of a node with flannel.
        let seen = r#"{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.244.1.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}"#;
        assert_eq!(conf.unwrap().delegated(&env()).to_string(), seen);
    }

    #[test]
    fn what_the_list_says_wins_and_another_plugin_gets_no_bridge_s_settings() {
        let conf = parse(&json!({
            "name": "n", "type": "flannel", "runtimeConfig": {"portMappings": []},
            "delegate": {"type": "ptp", "mtu": 1300, "ipMasq": true},
            "ipam": {"type": "my-ipam", "routes": [{"dst": "192.168.0.0/16"}]},
        }))
        .unwrap();
        let handed = conf.delegated(&env());
        assert_eq!(
            (conf.kind(), &handed["mtu"], &handed["ipMasq"]),
            ("ptp", &json!(1300), &json!(true))
        );
        assert!(handed.get("isGateway").is_none());
        assert_eq!(handed["ipam"]["type"], "my-ipam");
        let routes = json!([{"dst": "192.168.0.0/16"}, {"dst": "10.244.0.0/16"}]);
        assert_eq!(handed["ipam"]["routes"], routes);
        assert_eq!(handed["runtimeConfig"], json!({"portMappings": []}));
    }

    #[test]
    fn both_families_get_a_range_and_a_route_each() {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\n\
                    FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64\n\
                    FLANNEL_MTU=1430\nFLANNEL_IPMASQ=true\n";
        let conf = parse(&json!({"name": "n", "type": "flannel"})).unwrap();
        let handed = conf.delegated(&SubnetEnv::read(text).unwrap());
        let ranges = json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:0:1::/64"}]]);
        assert_eq!(handed["ipam"]["ranges"], ranges);
        assert_eq!(handed["ipam"]["routes"][1], json!({"dst": "fd00:244::/48"}));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let faults = parse(&json!({
            "name": "", "cniVersion": "9", "type": "flannel", "subnetFile": 7, "ipam": [],
            "delegate": {"type": 1, "name": "x", "ipam": {}},
        }))
        .unwrap_err();
        let places: Vec<_> = faults.iter().map(|fault| fault.place.as_str()).collect();
        let wanted = [
            "cniVersion",
            "name",
            "subnetFile",
            "ipam",
            "delegate.type",
            "delegate.name",
            "delegate.ipam",
        ];
        assert_eq!(places, wanted);
        assert!(parse(&json!({"name": "n", "delegate": {"type": "../sh"}})).is_err(), "no way out");
        assert!(FlannelConf::parse(b"[]").is_err() && FlannelConf::parse(b"{").is_err());
    }

    fn parse(conf: &Value) -> Result<FlannelConf, Vec<Fault>> {
        FlannelConf::parse(conf.to_string().as_bytes())
    }

    fn env() -> SubnetEnv {
        let text = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\n\
                    FLANNEL_IPMASQ=true\n";
        SubnetEnv::read(text).unwrap()
    }
}
