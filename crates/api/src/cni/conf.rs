//! The network configuration that comes on standard input (CNI: Network configuration format).
//!
//! Ours is short, because what pods get is the agent's business:
//!
//! ```json
//! { "cniVersion": "1.0.0", "name": "russet", "type": "russet-cni",
//!   "socket": "/run/russet/cni.sock", "spool": "/var/lib/russet/cni-spool", "mtu": 1400 }
//! ```
//!
//! Only `cniVersion`, `name` and `type` are needed. `socket` is where the agent listens, `spool` the folder
//! where a DEL waits for an agent that is away, `mtu` makes a pod's MTU smaller than the network's.
//! `runtimeConfig` and `args.cni` may ask for addresses (`ips`) and a MAC address (`mac`). A key that is not
//! known is refused by name, unless it has a dot: such keys belong to somebody's domain.

use std::{net::IpAddr, path::PathBuf};

use russet_net::{Mac, Mtu};
use serde_json::{Map, Value};

use super::{
    Code, Fault, Version, check_name,
    env::{Attachment, parse_ip, parse_mac},
    result::Outcome,
};

/// A checked network configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct NetConf {
    pub version: Version,
    /// The network's name; it is the name of the records' folder too.
    pub name: String,
    pub socket: PathBuf,
    pub spool: PathBuf,
    pub mtu: Option<Mtu>,
    /// Addresses that the runtime asks for.
    pub ips: Vec<IpAddr>,
    pub mac: Option<Mac>,
    /// The result of the plugin before us, or of our own ADD.
    pub prev: Option<Outcome>,
    /// Handed through into the result.
    pub dns: Option<Value>,
    /// What GC shall keep; `None` when the runtime does not say.
    pub valid: Option<Vec<Attachment>>,
}

impl NetConf {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// With every fault in it.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<Fault>> {
        let fault =
            |reason: String| vec![Fault::new(Code::DECODE, "network configuration", reason)];
        let value: Value =
            serde_json::from_slice(text).map_err(|err| fault(format!("it is no JSON: {err}")))?;
        let Value::Object(object) = value else {
            return Err(fault("it is no JSON object".to_owned()));
        };
        let mut reader = Reader { object, faults: Vec::new() };
        let conf = reader.conf();
        if reader.faults.is_empty() { Ok(conf) } else { Err(reader.faults) }
    }
}

/// The version that a configuration asks for, whatever else is wrong with it: errors are told in it.
pub fn version_of(text: &[u8]) -> Version {
    serde_json::from_slice::<Value>(text)
        .ok()
        .and_then(|conf| Version::parse(conf.get("cniVersion")?.as_str()?))
        .unwrap_or_default()
}

struct Reader {
    object: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Reader {
    fn conf(&mut self) -> NetConf {
        self.unknown_keys();
        self.kind();
        NetConf {
            version: self.version(),
            name: self.name(),
            socket: self.path("socket", DEFAULT_SOCKET),
            spool: self.path("spool", DEFAULT_SPOOL),
            mtu: self.mtu(),
            ips: self.ips(),
            mac: self.mac(),
            prev: self.prev(),
            dns: self.dns(),
            valid: self.valid(),
        }
    }

    fn unknown_keys(&mut self) {
        let unknown: Vec<_> = self
            .object
            .iter()
            .filter(|(key, _)| !key.contains('.') && !KNOWN.contains(&key.as_str()))
            .map(|(key, value)| {
                let hint = hint(key);
                let reason = format!("the field {key} = {value} is not supported{hint}");
                Fault::new(Code::UNSUPPORTED_FIELD, key, reason)
            })
            .collect();
        self.faults.extend(unknown);
    }

    fn kind(&mut self) {
        if self.text("type").is_none() {
            self.wrong("type", format!("is missing; {PLUGIN:?} is wanted"));
        }
    }

    fn version(&mut self) -> Version {
        let Some(text) = self.text("cniVersion") else {
            self.fault(
                Code::INCOMPATIBLE_VERSION,
                "cniVersion",
                format!("is missing; {}", spoken()),
            );
            return Version::default();
        };
        Version::parse(&text).unwrap_or_else(|| {
            let reason = format!("{text:?} is not spoken here; {}", spoken());
            self.fault(Code::INCOMPATIBLE_VERSION, "cniVersion", reason);
            Version::default()
        })
    }

    fn name(&mut self) -> String {
        let name = self.text("name").unwrap_or_default();
        if let Err(reason) = check_name(&name) {
            self.wrong("name", format!("{name:?}: {reason}"));
        }
        name
    }

    fn path(&mut self, key: &str, default: &str) -> PathBuf {
        let path = match self.object.get(key) {
            None | Some(Value::Null) => return default.into(),
            Some(value) => value.as_str().map(PathBuf::from).filter(|path| path.is_absolute()),
        };
        path.unwrap_or_else(|| {
            self.wrong(key, format!("an absolute path is wanted, such as {default:?}"));
            PathBuf::new()
        })
    }

    fn mtu(&mut self) -> Option<Mtu> {
        let value = self.object.get("mtu").filter(|value| !value.is_null())?.clone();
        // Zero is "as the network has it", as in the bridge plugin's configuration.
        if value == 0 {
            return None;
        }
        let mtu = value.as_u64().and_then(|n| u32::try_from(n).ok()).map(Mtu::try_from);
        match mtu {
            Some(Ok(mtu)) => Some(mtu),
            Some(Err(err)) => self.refuse("mtu", err.to_string()),
            None => self.refuse("mtu", format!("{value} is no number from 68 to 65535")),
        }
    }

    /// Asked for by the `ips` capability, or by `args.cni.ips`.
    fn ips(&mut self) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for place in ["runtimeConfig", "args.cni"] {
            let Some(list) = self.asked(place, "ips") else { continue };
            let Value::Array(list) = list else {
                self.wrong(&format!("{place}.ips"), "a list of IP addresses is wanted");
                continue;
            };
            for (n, value) in list.iter().enumerate() {
                if let Some(ip) = value.as_str().and_then(parse_ip) {
                    ips.push(ip);
                } else {
                    let reason = format!("{value} is no IP address");
                    self.wrong(&format!("{place}.ips[{n}]"), reason);
                }
            }
        }
        ips
    }

    fn mac(&mut self) -> Option<Mac> {
        for place in ["runtimeConfig", "args.cni"] {
            let Some(value) = self.asked(place, "mac") else { continue };
            let text = value.as_str().unwrap_or_default().to_owned();
            return match parse_mac(&text) {
                Ok(mac) => Some(mac),
                Err(reason) => self.refuse(&format!("{place}.mac"), reason),
            };
        }
        None
    }

    fn asked(&self, place: &str, key: &str) -> Option<Value> {
        let (first, rest) = place.split_once('.').unwrap_or((place, ""));
        let at = self.object.get(first)?;
        let at = if rest.is_empty() { at } else { at.get(rest)? };
        at.get(key).filter(|value| !value.is_null()).cloned()
    }

    fn prev(&mut self) -> Option<Outcome> {
        let value = self.object.get("prevResult").filter(|value| !value.is_null())?.clone();
        match Outcome::from_json(value) {
            Ok(outcome) => Some(outcome),
            Err(reason) => {
                self.fault(Code::DECODE, "prevResult", reason);
                None
            }
        }
    }

    fn dns(&mut self) -> Option<Value> {
        let dns = self.object.get("dns").filter(|value| !value.is_null())?.clone();
        if dns.is_object() { Some(dns) } else { self.refuse("dns", "an object is wanted") }
    }

    fn valid(&mut self) -> Option<Vec<Attachment>> {
        let value = self.object.get(VALID).filter(|value| !value.is_null())?.clone();
        let Value::Array(list) = value else {
            return self.refuse(VALID, "a list of attachments is wanted");
        };
        let read = list.iter().enumerate().map(|(n, value)| (n, attachment(value)));
        let (mut valid, mut bad) = (Vec::new(), Vec::new());
        for (n, attachment) in read {
            match attachment {
                Ok(attachment) => valid.push(attachment),
                Err(reason) => bad.push((n, reason)),
            }
        }
        for (n, reason) in bad {
            self.wrong(&format!("{VALID}[{n}]"), reason);
        }
        Some(valid)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.object.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn refuse<T>(&mut self, place: &str, reason: impl Into<String>) -> Option<T> {
        self.wrong(place, reason);
        None
    }

    fn wrong(&mut self, place: &str, reason: impl Into<String>) {
        self.fault(Code::BAD_CONFIG, place, reason);
    }

    fn fault(&mut self, code: Code, place: &str, reason: impl Into<String>) {
        self.faults.push(Fault::new(code, place, reason));
    }
}

/// An attachment as GC names it.
fn attachment(value: &Value) -> Result<Attachment, String> {
    let text = |key: &str| {
        value.get(key).and_then(Value::as_str).ok_or_else(|| format!("{key} is missing"))
    };
    let container = text("containerID")?;
    check_name(container).map_err(|reason| format!("containerID {container:?}: {reason}"))?;
    let ifname = text("ifname")?.parse().map_err(|err| format!("ifname: {err}"))?;
    Ok(Attachment { container: container.to_owned(), ifname })
}

fn spoken() -> String {
    format!("spoken are {}", Version::ALL.map(Version::as_str).join(", "))
}

/// What a user of the bridge plugin most likely wants instead.
fn hint(key: &str) -> &'static str {
    match key {
        "ipam" => "; the agent hands out the addresses of the node's subnet",
        "bridge" | "hairpinMode" | "ipMasq" | "isGateway" | "isDefaultGateway" => {
            "; it is a setting of the agent"
        }
        _ => "",
    }
}

/// The plugin's file name, which `type` bears.
pub const PLUGIN: &str = "russet-cni";
pub const DEFAULT_SOCKET: &str = "/run/russet/cni.sock";
pub const DEFAULT_SPOOL: &str = "/var/lib/russet/cni-spool";
const VALID: &str = "cni.dev/valid-attachments";
const KNOWN: &[&str] = &[
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "socket",
    "spool",
    "mtu",
    "args",
    "runtimeConfig",
    "prevResult",
    "capabilities",
    "dns",
    "disableCheck",
    "disableGC",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_short_configuration_gets_the_defaults() {
        let conf =
            parse(&json!({"cniVersion": "0.4.0", "name": "a", "type": "russet-cni"})).unwrap();
        assert_eq!(conf.version, Version::V0_4_0);
        assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
        assert_eq!((conf.mtu, conf.valid), (None, None));
    }

    #[test]
    fn a_runtime_s_wishes_and_gc_s_list_are_read() {
        let conf = parse(&json!({
            "cniVersion": "1.1.0", "name": "a", "type": "russet-cni", "mtu": 1400,
            "runtimeConfig": {"ips": ["10.1.0.7/24"], "mac": "02:00:00:00:00:01"},
            "args": {"cni": {"ips": ["fd00::7"]}},
            "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
            "example.org/other": true,
        }));
        let conf = conf.unwrap();
        assert_eq!(conf.ips, ["10.1.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(conf.mac.unwrap().to_string(), "02:00:00:00:00:01");
        assert_eq!(conf.valid.unwrap()[0].container, "c1");
        assert_eq!(conf.mtu.unwrap().get(), 1400);
    }

    #[test]
    fn every_fault_is_told_with_its_place_and_what_would_be_right() {
        let table = [
            (json!({"cniVersion": "0.1.0"}), "cniVersion: \"0.1.0\" is not spoken here", 1),
            (json!({"cniVersion": null}), "cniVersion: is missing; spoken are 0.3.1", 1),
            (json!({"name": "../x"}), "name: \"../x\": it must begin with", 7),
            (json!({"name": 7}), "name: \"\": it is empty", 7),
            (json!({"type": null}), "type: is missing; \"russet-cni\" is wanted", 7),
            (json!({"mtu": 20}), "mtu: MTU 20 is not within 68 to 65535", 7),
            (json!({"mtu": "1400"}), "mtu: \"1400\" is no number", 7),
            (json!({"mtu": -1}), "mtu: -1 is no number", 7),
            (json!({"socket": "run/x"}), "socket: an absolute path is wanted", 7),
            (json!({"sokcet": "/run/x"}), "the field sokcet = \"/run/x\" is not supported", 2),
            (json!({"ipam": {"type": "dhcp"}}), "the agent hands out the addresses", 2),
            (json!({"runtimeConfig": {"ips": ["x"]}}), "runtimeConfig.ips[0]: \"x\" is no IP", 7),
            (json!({"args": {"cni": {"ips": "x"}}}), "args.cni.ips: a list", 7),
            (json!({"runtimeConfig": {"mac": "ff:ff:ff:ff:ff:ff"}}), "runtimeConfig.mac", 7),
            (json!({"prevResult": {"ips": [{}]}}), "prevResult: ", 6),
            (json!({"dns": 1}), "dns: an object is wanted", 7),
            (json!({"cni.dev/valid-attachments": [{"ifname": "e"}]}), "[0]: containerID is", 7),
        ];
        for (change, wanted, code) in table {
            let faults = parse(&with(&change)).unwrap_err();
            let err = crate::cni::CniError::from_faults(&faults).unwrap();
            assert!(err.msg.contains(wanted), "{}", err.msg);
            assert_eq!(err.code, Code(code), "{}", err.msg);
        }
        let faults = parse(&with(&json!({"mtu": 1, "name": "", "x": 1}))).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:?}");
    }

    #[test]
    fn what_is_no_json_object_is_a_decoding_fault() {
        for text in ["", "{", "[]", "null", "\u{0}"] {
            assert_eq!(NetConf::parse(text.as_bytes()).unwrap_err()[0].code, Code::DECODE);
        }
    }

    #[test]
    fn errors_are_told_in_the_version_that_was_asked_for() {
        assert_eq!(version_of(br#"{"cniVersion":"0.3.1"}"#), Version::V0_3_1);
        assert_eq!(version_of(b"{"), Version::default());
    }

    fn with(change: &Value) -> Value {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "a", "type": "russet-cni"});
        let object = conf.as_object_mut().unwrap();
        object.extend(change.as_object().unwrap().clone());
        object.retain(|_, value| !value.is_null());
        conf
    }

    fn parse(conf: &Value) -> Result<NetConf, Vec<Fault>> {
        NetConf::parse(conf.to_string().as_bytes())
    }
}
