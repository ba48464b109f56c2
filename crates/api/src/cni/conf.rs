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
//! `runtimeConfig` and `args.cni` may ask for addresses (`ips`) and a MAC address (`mac`), and in the words of Calico's annotations. A key that is not
//! known is refused by name, unless it has a dot: such keys belong to somebody's domain.

mod reader;

use std::{net::IpAddr, path::PathBuf};

use russet_net::{Mac, Mtu};
use serde_json::Value;

pub(super) use self::reader::Reader;
use super::{Fault, Version, calico::Calico, env::Attachment, result::Outcome, wire::Asks};

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
    /// What is asked of the addresses.
    pub asks: Asks,
    pub kind: Kind,
}

/// Whose configuration it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Russet,
    Calico(Calico),
    /// Another plugin's, which takes its addresses from `calico-ipam`.
    CalicoIpam,
}

impl NetConf {
    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// With every fault in it.
    pub fn parse(text: &[u8]) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::of(text, &Version::ALL)?;
        reader.unknown_keys(KNOWN);
        let conf = reader.conf();
        reader.finish(conf)
    }
}

/// The version that a configuration asks for, whatever else is wrong with it: errors are told in it.
pub fn version_of(text: &[u8]) -> Version {
    serde_json::from_slice::<Value>(text)
        .ok()
        .and_then(|conf| Version::parse(conf.get("cniVersion")?.as_str()?, &Version::CALICO))
        .unwrap_or_default()
}

/// Which plugin a configuration asks for.
pub fn kind_of(text: &[u8]) -> Option<String> {
    let conf: Value = serde_json::from_slice(text).ok()?;
    Some(conf.get("type")?.as_str()?.to_owned())
}

/// The plugin's file name, which `type` bears.
pub const PLUGIN: &str = "russet-cni";
pub const DEFAULT_SOCKET: &str = "/run/russet/cni.sock";
pub const DEFAULT_SPOOL: &str = "/var/lib/russet/cni-spool";
const VALID: &str = "cni.dev/valid-attachments";
/// What the specification gives to every plugin, and what is ours.
pub(super) const KNOWN: &[&str] = &[
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
    use crate::cni::Code;

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
        assert_eq!(version_of(br#"{"cniVersion":"0.2.0"}"#), Version::V0_2_0);
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
