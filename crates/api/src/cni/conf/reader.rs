//! Reads a configuration field by field, and notes every fault on its way.

use std::{net::IpAddr, path::PathBuf};

use russet_net::{Mac, Mtu};
use serde_json::{Map, Value};

use super::{DEFAULT_SOCKET, DEFAULT_SPOOL, Kind, NetConf, PLUGIN, VALID};
use crate::cni::{
    Code, Fault, Version, check_name,
    env::{Attachment, parse_ip, parse_mac},
    result::Outcome,
};

/// A configuration that is being read, and the faults that it has been found to have.
pub(in crate::cni) struct Reader {
    pub(in crate::cni) object: Map<String, Value>,
    faults: Vec<Fault>,
    spoken: &'static [Version],
}

impl Reader {
    /// # Errors
    ///
    /// When it is no JSON object.
    pub(in crate::cni) fn of(text: &[u8], spoken: &'static [Version]) -> Result<Self, Vec<Fault>> {
        let fault =
            |reason: String| vec![Fault::new(Code::DECODE, "network configuration", reason)];
        match serde_json::from_slice(text) {
            Err(err) => Err(fault(format!("it is no JSON: {err}"))),
            Ok(Value::Object(object)) => Ok(Self { object, faults: Vec::new(), spoken }),
            Ok(_) => Err(fault("it is no JSON object".to_owned())),
        }
    }

    /// # Errors
    ///
    /// With every fault that was found.
    pub(in crate::cni) fn finish(self, conf: NetConf) -> Result<NetConf, Vec<Fault>> {
        if self.faults.is_empty() { Ok(conf) } else { Err(self.faults) }
    }

    /// What every kind of configuration has.
    pub(in crate::cni) fn conf(&mut self) -> NetConf {
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
            asks: self.asks(),
            kind: Kind::Russet,
        }
    }

    /// Refuses what is not known, by name.
    pub(in crate::cni) fn unknown_keys(&mut self, known: &[&str]) {
        let unknown: Vec<_> = self
            .object
            .iter()
            .filter(|(key, _)| !key.contains('.') && !known.contains(&key.as_str()))
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
                format!("is missing; {}", self.said()),
            );
            return Version::default();
        };
        Version::parse(&text, self.spoken).unwrap_or_else(|| {
            let reason = format!("{text:?} is not spoken here; {}", self.said());
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
        ips.extend(self.asked_addresses());
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
        self.asked_mac()
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

    fn said(&self) -> String {
        let spoken: Vec<_> = self.spoken.iter().map(|version| version.as_str()).collect();
        format!("spoken are {}", spoken.join(", "))
    }

    pub(in crate::cni) fn text(&self, key: &str) -> Option<String> {
        self.object.get(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn refuse<T>(&mut self, place: &str, reason: impl Into<String>) -> Option<T> {
        self.wrong(place, reason);
        None
    }

    pub(in crate::cni) fn wrong(&mut self, place: &str, reason: impl Into<String>) {
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
