//! What a pod asks for in the words of Calico's annotations, where a runtime passes them on.
//!
//! containerd and CRI-O hand a pod's annotations to the plugin that has the capability
//! `io.kubernetes.cri.pod-annotations`; others may set single ones in `runtimeConfig` or in `args.cni`. The first place
//! that has one counts. A value is a list, or a text that is one in JSON, as an annotation must be.

use std::net::IpAddr;

use russet_net::{Family, Mac, Prefix};
use serde_json::Value;

use super::{
    Text,
    conf::Reader,
    env::{parse_ip, parse_mac},
    wire::Asks,
};

/// Where an annotation was found, and what it says.
struct Found {
    place: String,
    value: Value,
}

impl Reader {
    /// What is asked of the addresses, but for what a kind of configuration says itself.
    pub(super) fn asks(&mut self) -> Asks {
        let mut asks = Asks {
            pools_v4: self.texts("ipv4pools").unwrap_or_default(),
            pools_v6: self.texts("ipv6pools").unwrap_or_default(),
            allowed_sources: self.sources(),
            ..Asks::default()
        };
        if let Some(families) = self.families() {
            asks.assign_v4 = Some(families.contains(&Family::V4));
            asks.assign_v6 = Some(families.contains(&Family::V6));
        }
        asks
    }

    pub(super) fn asked_addresses(&mut self) -> Vec<IpAddr> {
        self.each("ipAddrs", "an IP address", parse_ip).unwrap_or_default()
    }

    pub(super) fn asked_mac(&mut self) -> Option<Mac> {
        let Found { place, value } = self.annotation("hwAddr")?;
        match parse_mac(value.as_str().unwrap_or_default()) {
            Ok(mac) => Some(mac),
            Err(reason) => {
                self.wrong(&place, reason);
                None
            }
        }
    }

    fn sources(&mut self) -> Vec<Text<Prefix>> {
        let sources = self.each("allowedSourcePrefixes", "a prefix or an address", parse_prefix);
        sources.unwrap_or_default().into_iter().map(Text).collect()
    }

    fn families(&mut self) -> Option<Vec<Family>> {
        self.each("ipFamilies", "\"IPv4\" or \"IPv6\"", |text| match text {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
    }

    fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        self.each(name, "a text", |text| Some(text.to_owned()))
    }

    /// Reads a list; an element that is not what is wanted is a fault.
    fn each<T>(
        &mut self,
        name: &str,
        wanted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Found { place, value } = self.annotation(name)?;
        let list = match &value {
            Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            other => other.clone(),
        };
        let Value::Array(list) = list else {
            self.wrong(&place, format!("{value} is no list, and no text that is one"));
            return None;
        };
        let mut read_ones = Vec::with_capacity(list.len());
        for one in list {
            match one.as_str().and_then(&read) {
                Some(read) => read_ones.push(read),
                None => self.wrong(&place, format!("{one} is not {wanted}")),
            }
        }
        Some(read_ones)
    }

    fn annotation(&self, name: &str) -> Option<Found> {
        let key = format!("{DOMAIN}/{name}");
        PLACES.iter().find_map(|place| {
            let mut at = self.object.get(place[0])?;
            if let Some(below) = place.get(1) {
                at = at.get(below)?;
            }
            let value = at.get(&key).filter(|value| !value.is_null() && *value != "")?.clone();
            Some(Found { place: format!("{}.{key}", place.join(".")), value })
        })
    }
}

/// A prefix, whatever its host's bits say, or an address.
fn parse_prefix(text: &str) -> Option<Prefix> {
    let Some((addr, len)) = text.split_once('/') else {
        return text.parse().ok().map(Prefix::host);
    };
    Prefix::around(addr.parse().ok()?, len.parse().ok()?).ok()
}

const DOMAIN: &str = "cni.projectcalico.org";
/// The first that has an annotation counts.
const PLACES: [&[&str]; 3] =
    [&["runtimeConfig", "io.kubernetes.cri.pod-annotations"], &["runtimeConfig"], &["args", "cni"]];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cni::{Fault, conf::NetConf};

    #[test]
    fn annotations_are_read_from_wherever_a_runtime_puts_them() {
        let annotations = json!({
            "cni.projectcalico.org/ipAddrs": "[\"10.1.0.7\"]",
            "cni.projectcalico.org/ipv4pools": "[\"blue\", \"10.2.0.0/16\"]",
            "cni.projectcalico.org/ipFamilies": "[\"IPv4\"]",
            "cni.projectcalico.org/hwAddr": "02:00:00:00:00:01",
            "cni.projectcalico.org/allowedSourcePrefixes": "[\"192.0.2.7/24\", \"2001:db8::1\"]",
        });
        for place in [
            json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations}}),
            json!({"runtimeConfig": annotations}),
            json!({"args": {"cni": annotations}}),
        ] {
            let conf = parse(&place).unwrap();
            assert_eq!(conf.ips, ["10.1.0.7".parse::<IpAddr>().unwrap()]);
            assert_eq!(conf.mac.unwrap().to_string(), "02:00:00:00:00:01");
            assert_eq!(conf.asks.pools_v4, ["blue", "10.2.0.0/16"]);
            assert_eq!((conf.asks.assign_v4, conf.asks.assign_v6), (Some(true), Some(false)));
            let sources: Vec<_> =
                conf.asks.allowed_sources.iter().map(|one| one.0.to_string()).collect();
            assert_eq!(sources, ["192.0.2.0/24", "2001:db8::1/128"]);
        }
    }

    #[test]
    fn a_bad_annotation_is_refused_with_its_place() {
        for (name, value, wanted) in [
            ("ipAddrs", "10.1.0.7", "is no list"),
            ("ipFamilies", "[\"v4\"]", "\"v4\" is not \"IPv4\" or"),
            ("allowedSourcePrefixes", "[\"10.0.0.0/33\"]", "is not a prefix"),
            ("hwAddr", "x", "is not a MAC address"),
        ] {
            let key = format!("cni.projectcalico.org/{name}");
            let faults = parse(&json!({"runtimeConfig": {&key: value}})).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert_eq!(faults[0].place, format!("runtimeConfig.{key}"));
            assert!(faults[0].reason.contains(wanted), "{}", faults[0]);
        }
    }

    fn parse(change: &Value) -> Result<NetConf, Vec<Fault>> {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "a", "type": "russet-cni"});
        conf.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        NetConf::parse(conf.to_string().as_bytes())
    }
}
