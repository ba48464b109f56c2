//! What an ADD answers, and what comes back as `prevResult` (CNI: Result).
//!
//! The versions differ little: up to 0.4.0 an address says its family, from 1.0.0 on it does not, and 1.1.0
//! adds the interface's MTU. A previous result is kept as it came, so that what other plugins put into it
//! and we do not know gets through.

use std::net::IpAddr;

use russet_net::{Family, IfName, Mac, Mtu};
use serde_json::{Map, Value, json};

use super::Version;

/// What an attachment consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    pub interfaces: Vec<Interface>,
    pub ips: Vec<Ip>,
    pub routes: Vec<Value>,
    pub dns: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub name: String,
    pub mac: Option<Mac>,
    pub mtu: Option<Mtu>,
    /// The path of the namespace; empty for the host's.
    pub sandbox: String,
    /// Fields that we do not know.
    pub more: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ip {
    pub addr: IpAddr,
    /// Prefix length in bits.
    pub len: u8,
    pub gateway: Option<IpAddr>,
    /// Index into the result's interfaces.
    pub interface: Option<usize>,
}

impl Interface {
    pub fn new(name: IfName, mac: Option<Mac>, mtu: Option<Mtu>) -> Self {
        Self { name: name.to_string(), mac, mtu, sandbox: String::new(), more: Map::new() }
    }

    #[must_use]
    pub fn inside(self, sandbox: impl Into<String>) -> Self {
        Self { sandbox: sandbox.into(), ..self }
    }

    fn to_json(&self, version: Version) -> Value {
        let mut object = self.more.clone();
        object.insert("name".into(), self.name.clone().into());
        if let Some(mac) = self.mac {
            object.insert("mac".into(), mac.to_string().into());
        }
        if let Some(mtu) = self.mtu.filter(|_| version >= Version::V1_1_0) {
            object.insert("mtu".into(), mtu.get().into());
        }
        if !self.sandbox.is_empty() {
            object.insert("sandbox".into(), self.sandbox.clone().into());
        }
        object.into()
    }

    fn from_json(value: Value) -> Result<Self, String> {
        let Value::Object(mut more) = value else {
            return Err("an interface is no object".to_owned());
        };
        let mut text = |key: &str| match more.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("interface's {key} {other} is no text")),
        };
        let name = text("name")?.ok_or("an interface has no name")?;
        let mac = text("mac")?.filter(|mac| !mac.is_empty());
        let mac = mac.map(|mac| mac.parse().map_err(|err| format!("interface {name}: {err}")));
        let sandbox = text("sandbox")?.unwrap_or_default();
        let mtu = more.remove("mtu").and_then(|mtu| u32::try_from(mtu.as_u64()?).ok());
        let mtu = mtu.and_then(|mtu| Mtu::try_from(mtu).ok());
        Ok(Self { name, mac: mac.transpose()?, mtu, sandbox, more })
    }
}

impl Ip {
    fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        if version <= Version::V0_4_0 {
            let family = match Family::of(self.addr) {
                Family::V4 => "4",
                Family::V6 => "6",
            };
            object.insert("version".into(), family.into());
        }
        if let Some(interface) = self.interface {
            object.insert("interface".into(), interface.into());
        }
        object.insert("address".into(), format!("{}/{}", self.addr, self.len).into());
        if let Some(gateway) = self.gateway {
            object.insert("gateway".into(), gateway.to_string().into());
        }
        object.into()
    }

    fn from_json(value: &Value) -> Result<Self, String> {
        let text = value.get("address").and_then(Value::as_str).ok_or("an ip has no address")?;
        let bad = || format!("address {text:?} is not of the form ADDRESS/LENGTH");
        let (addr, len) = text.split_once('/').ok_or_else(bad)?;
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let len = len.parse().ok().filter(|len| *len <= Family::of(addr).bits()).ok_or_else(bad)?;
        let gateway = value.get("gateway").and_then(Value::as_str).filter(|text| !text.is_empty());
        let gateway = gateway.map(|text| text.parse().map_err(|_| format!("gateway {text:?}")));
        let interface = value.get("interface").and_then(Value::as_u64);
        let interface = interface.and_then(|n| usize::try_from(n).ok());
        Ok(Self { addr, len, gateway: gateway.transpose()?, interface })
    }
}

impl Outcome {
    /// The result as a runtime reads it, as one line of JSON.
    pub fn to_json(&self, version: Version) -> String {
        if version <= Version::V0_2_0 {
            return self.to_oldest(version);
        }
        let interfaces: Vec<_> = self.interfaces.iter().map(|one| one.to_json(version)).collect();
        let ips: Vec<_> = self.ips.iter().map(|ip| ip.to_json(version)).collect();
        let mut object = Map::new();
        object.insert("cniVersion".into(), version.as_str().into());
        if !interfaces.is_empty() {
            object.insert("interfaces".into(), interfaces.into());
        }
        object.insert("ips".into(), ips.into());
        if !self.routes.is_empty() {
            object.insert("routes".into(), self.routes.clone().into());
        }
        object.insert("dns".into(), self.dns.clone().unwrap_or_else(|| json!({})));
        Value::from(object).to_string()
    }

    /// Before 0.3.0 there was an address of each family, and no interface (CNI 0.2.0: Result).
    fn to_oldest(&self, version: Version) -> String {
        let mut object = Map::new();
        object.insert("cniVersion".into(), version.as_str().into());
        for ip in self.ips.iter().rev() {
            let family = if ip.addr.is_ipv4() { "ip4" } else { "ip6" };
            let mut one = Map::new();
            one.insert("ip".into(), format!("{}/{}", ip.addr, ip.len).into());
            if let Some(gateway) = ip.gateway {
                one.insert("gateway".into(), gateway.to_string().into());
            }
            object.insert(family.into(), one.into());
        }
        object.insert("dns".into(), self.dns.clone().unwrap_or_else(|| json!({})));
        Value::from(object).to_string()
    }

    /// Reads a result of any of our versions.
    ///
    /// # Errors
    ///
    /// With what is wrong in it.
    pub fn from_json(value: Value) -> Result<Self, String> {
        let Value::Object(mut object) = value else {
            return Err("it is no object".to_owned());
        };
        let mut list = |key: &str| match object.remove(key) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(format!("{key} is no list")),
        };
        let interfaces = list("interfaces")?.into_iter().map(Interface::from_json);
        let interfaces = interfaces.collect::<Result<_, _>>()?;
        let ips = list("ips")?.iter().map(Ip::from_json).collect::<Result<_, _>>()?;
        let routes = list("routes")?;
        let dns = object.remove("dns").filter(|dns| !dns.is_null());
        Ok(Self { interfaces, ips, routes, dns })
    }

    /// Adds what a later plugin made: its addresses' interfaces are counted behind those that are there.
    pub fn extend(&mut self, later: Self) {
        let offset = self.interfaces.len();
        self.interfaces.extend(later.interfaces);
        self.ips.extend(later.ips.into_iter().map(|ip| {
            let interface = ip.interface.map(|n| n + offset);
            Ip { interface, ..ip }
        }));
        for route in later.routes {
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
        self.dns = later.dns.or(self.dns.take());
    }

    /// The addresses that it says of the interface `name` in a container.
    pub fn addresses_of(&self, name: IfName) -> Vec<(IpAddr, u8)> {
        let inside = |n: usize| {
            self.interfaces
                .get(n)
                .is_some_and(|one| one.name == name.as_str() && !one.sandbox.is_empty())
        };
        let of_it = self.ips.iter().filter(|ip| ip.interface.is_some_and(inside));
        of_it.map(|ip| (ip.addr, ip.len)).collect()
    }

    /// Whether it names the interface `name` in a container.
    pub fn has_inside(&self, name: IfName) -> bool {
        self.interfaces.iter().any(|one| one.name == name.as_str() && !one.sandbox.is_empty())
    }
}

/// A default route of the family of `gateway`.
pub fn default_route(gateway: IpAddr) -> Value {
    let dst = match Family::of(gateway) {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    };
    json!({ "dst": dst, "gw": gateway.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_gets_its_own_form() {
        let outcome = sample();
        let old: Value = serde_json::from_str(&outcome.to_json(Version::V0_4_0)).unwrap();
        assert_eq!(old["ips"][0]["version"], "4");
        assert_eq!(old["ips"][1]["version"], "6");
        assert_eq!(old["interfaces"][0].get("mtu"), None);
        let new: Value = serde_json::from_str(&outcome.to_json(Version::V1_1_0)).unwrap();
        assert_eq!(new["ips"][0].get("version"), None);
        assert_eq!(new["interfaces"][1]["mtu"], 1450);
        assert_eq!(new["interfaces"][1]["sandbox"], "/run/netns/a");
        assert_eq!(new["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.1.0.1"}));
    }

    #[test]
    fn the_oldest_versions_have_an_address_of_each_family() {
        let old: Value = serde_json::from_str(&sample().to_json(Version::V0_2_0)).unwrap();
        let wanted = json!({"cniVersion": "0.2.0", "dns": {},
            "ip4": {"ip": "10.1.0.5/24", "gateway": "10.1.0.1"},
            "ip6": {"ip": "fd00::5/64", "gateway": "fd00::1"}});
        assert_eq!(old, wanted);
    }

    #[test]
    fn a_result_that_is_written_is_read_again_in_every_version() {
        for version in Version::ALL {
            let text = sample().to_json(version);
            let back = Outcome::from_json(serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(back.to_json(version), text);
            assert_eq!(back.addresses_of("eth0".parse().unwrap()).len(), 2);
        }
    }

    #[test]
    fn an_earlier_plugin_s_result_is_kept_and_ours_comes_behind_it() {
        let earlier = json!({"cniVersion": "1.0.0",
            "interfaces": [{"name": "x0", "sandbox": "/n", "socketPath": "/s"}],
            "ips": [{"address": "192.0.2.1/24", "interface": 0}]});
        let mut merged = Outcome::from_json(earlier).unwrap();
        merged.extend(sample());
        let merged: Value = serde_json::from_str(&merged.to_json(Version::V1_0_0)).unwrap();
        assert_eq!(merged["interfaces"][0]["socketPath"], "/s");
        assert_eq!(merged["ips"][0]["interface"], 0);
        assert_eq!(merged["ips"][1]["interface"], 2);
    }

    #[test]
    fn a_bad_previous_result_is_refused_by_what_is_wrong() {
        let table = [
            (json!([]), "no object"),
            (json!({"ips": {}}), "ips is no list"),
            (json!({"ips": [{}]}), "no address"),
            (json!({"ips": [{"address": "10.0.0.1"}]}), "ADDRESS/LENGTH"),
            (json!({"ips": [{"address": "10.0.0.1/33"}]}), "ADDRESS/LENGTH"),
            (json!({"interfaces": [{}]}), "has no name"),
            (json!({"interfaces": [{"name": "a", "mac": "x"}]}), "is not a MAC address"),
            (json!({"interfaces": [{"name": 1}]}), "is no text"),
        ];
        for (value, wanted) in table {
            let err = Outcome::from_json(value).unwrap_err();
            assert!(err.contains(wanted), "{err}");
        }
    }

    fn sample() -> Outcome {
        let mtu = Mtu::try_from(1450).ok();
        let ip = |addr: &str, gateway: &str, len| Ip {
            addr: addr.parse().unwrap(),
            len,
            gateway: gateway.parse().ok(),
            interface: Some(1),
        };
        Outcome {
            interfaces: vec![
                Interface::new("rst0".parse().unwrap(), Some(Mac::local([1; 6])), mtu),
                Interface::new("eth0".parse().unwrap(), None, mtu).inside("/run/netns/a"),
            ],
            ips: vec![ip("10.1.0.5", "10.1.0.1", 24), ip("fd00::5", "fd00::1", 64)],
            routes: vec![default_route([10, 1, 0, 1].into())],
            dns: None,
        }
    }
}
