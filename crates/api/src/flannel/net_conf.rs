//! The network configuration: `net-conf.json`, or the value of `<prefix>/config`.
//!
//! Keys match without regard to case, unknown keys are ignored, the backend's type is lower-cased. What is
//! wrong is told all at once. The MTU of the vxlan backend is the *underlay's*.

mod backend;

use std::net::IpAddr;

use russet_core::{
    ConfigFault, Fault,
    choices::{Choices, Transport, When},
    model::{NetworkConfig, Pool, Preset, TransportConfig},
};
use russet_net::{Family, OutOfRange, Prefix, PresharedKey};
use serde_json::Value;

use self::backend::backend;
pub(super) use self::backend::foreign;
use super::folded::{Folded, said};

/// Reads a network configuration.
///
/// # Errors
///
/// [`Fault::Unreadable`] when it is no JSON object; else [`Fault::Config`] with every fault in it.
pub fn read_net_conf(text: &[u8], preset: Preset) -> Result<NetworkConfig, Fault> {
    let unreadable = |reason: String| Fault::Unreadable { what: "network configuration", reason };
    let value: Value = serde_json::from_slice(text).map_err(|err| unreadable(err.to_string()))?;
    let no_object = format!("{} is no object", said(&value));
    let mut conf = Reader::new(Folded::new(value).ok_or_else(|| unreadable(no_object))?);

    let [v4, v6] = families(&mut conf, preset);
    let v4 = v4.then(|| pool(&mut conf, Family::V4)).flatten();
    let v6 = v6.then(|| pool(&mut conf, Family::V6)).flatten();
    let transport = backend(&mut conf);
    let (Some(transport), true) = (transport, conf.faults.is_empty()) else {
        return Err(conf.faults.into());
    };
    check_choices(&transport, [v4, v6].into_iter().flatten().map(Pool::family))?;
    // There is a pool: a family that is enabled and has none is a fault above.
    NetworkConfig::new(v4, v6, transport).ok_or_else(|| vec![ConfigFault::NoFamily].into())
}

fn families(conf: &mut Reader, preset: Preset) -> [bool; 2] {
    let v4 = conf.flag("EnableIPv4").unwrap_or(true);
    let v6 = conf.flag("EnableIPv6").unwrap_or(false);
    match (v4, v6, preset) {
        (false, false, _) => conf.faults.push(ConfigFault::NoFamily),
        (false, true, Preset::Flannel) => conf.faults.push(ConfigFault::Ipv6Alone),
        _ => {}
    }
    [v4, v6]
}

fn pool(conf: &mut Reader, family: Family) -> Option<Pool> {
    let keys = match family {
        Family::V4 => ["Network", "SubnetLen", "SubnetMin", "SubnetMax"],
        Family::V6 => ["IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax"],
    };
    let before = conf.faults.len();
    let network = conf.network(keys[0], family);
    let len = conf.number(keys[1]);
    let min = conf.addr(keys[2], family);
    let max = conf.addr(keys[3], family);
    // A bound that could not be read must not be taken for one that was not given.
    let network = network.filter(|_| conf.faults.len() == before)?;
    // Zero is Go's way to say nothing.
    match Pool::new(network, len.filter(|len| *len > 0), min, max) {
        Ok(pool) => Some(pool),
        Err(faults) => {
            conf.faults.extend(faults);
            None
        }
    }
}

fn check_choices(
    transport: &TransportConfig,
    families: impl Iterator<Item = Family>,
) -> Result<(), Fault> {
    let choices = match transport {
        TransportConfig::Vxlan(vxlan) if vxlan.direct_routing.is_on() => {
            Choices::flannel(Transport::Vxlan, When::CrossSubnet)
        }
        TransportConfig::Vxlan(_) => Choices::flannel(Transport::Vxlan, When::Always),
        // Whatever somebody else lays, it is a route to us.
        TransportConfig::Direct | TransportConfig::Unmanaged | TransportConfig::Extension(_) => {
            Choices::flannel(Transport::Direct, When::Always)
        }
        TransportConfig::Udp(_) => Choices::flannel(Transport::Udp, When::Always),
        TransportConfig::Ipip(ipip) if ipip.direct_routing.is_on() => {
            Choices::flannel(Transport::Ipip, When::CrossSubnet)
        }
        TransportConfig::Ipip(_) => Choices::flannel(Transport::Ipip, When::Always),
        TransportConfig::Wireguard(_) => Choices::flannel(Transport::Wireguard, When::Always),
    };
    let faults = |broken: Vec<_>| broken.into_iter().map(ConfigFault::Choice).collect::<Vec<_>>();
    choices.check(families).map_err(|broken| faults(broken).into())
}

/// An object that is read key by key, and the faults that came up.
struct Reader {
    object: Folded,
    faults: Vec<ConfigFault>,
}

impl Reader {
    fn new(object: Folded) -> Self {
        Self { object, faults: Vec::new() }
    }

    fn has(&self, key: &str) -> bool {
        self.object.get(key).is_some()
    }

    fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, "true or false", Value::as_bool)
    }

    fn number(&mut self, key: &'static str) -> Option<u64> {
        self.read(key, "a whole number above or equal to 0", Value::as_u64)
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        self.read(key, "a text", |value| value.as_str().map(str::to_owned))
    }

    /// A key that nobody is to see: what is wrong with it is told without it.
    fn secret(&mut self, key: &'static str, text: &str) -> Option<PresharedKey> {
        let parsed = text.parse().map_err(|err: russet_net::ParseError| err.to_string());
        parsed.map_err(|reason| self.faults.push(ConfigFault::Value { key, reason })).ok()
    }

    fn addr(&mut self, key: &'static str, family: Family) -> Option<IpAddr> {
        let wanted = match family {
            Family::V4 => "an IPv4 address",
            Family::V6 => "an IPv6 address",
        };
        let parse =
            |value: &Value| value.as_str()?.parse().ok().filter(|a| Family::of(*a) == family);
        self.read(key, wanted, parse)
    }

    /// Host bits are dropped, as flannel drops them.
    fn network(&mut self, key: &'static str, family: Family) -> Option<Prefix> {
        if !self.has(key) {
            self.faults.push(ConfigFault::NoNetwork { key, family });
            return None;
        }
        let wanted = match family {
            Family::V4 => "an IPv4 network such as 10.50.0.0/16",
            Family::V6 => "an IPv6 network such as fd00:50::/48",
        };
        let parse = |value: &Value| {
            let (addr, len) = value.as_str()?.split_once('/')?;
            let prefix = Prefix::around(addr.parse().ok()?, len.parse().ok()?).ok()?;
            (prefix.family() == family).then_some(prefix)
        };
        self.read(key, wanted, parse)
    }

    fn above_zero<T>(
        &mut self,
        key: &'static str,
        max: u32,
        make: fn(u32) -> Result<T, OutOfRange>,
    ) -> Option<T> {
        if self.object.get(key).and_then(Value::as_u64) == Some(0) {
            return None;
        }
        self.ranged(key, max, make)
    }

    fn ranged<T>(
        &mut self,
        key: &'static str,
        max: u32,
        make: fn(u32) -> Result<T, OutOfRange>,
    ) -> Option<T> {
        let number = self.number(key)?;
        let made = match u32::try_from(number) {
            Ok(raw) => make(raw),
            Err(_) => Err(OutOfRange::new(key, number, 0, max.into())),
        };
        made.map_err(|fault| self.faults.push(ConfigFault::Range { key, fault })).ok()
    }

    fn object(&mut self, key: &'static str) -> Option<Self> {
        let value = self.object.take(key)?;
        let said = said(&value);
        let Some(object) = Folded::new(value) else {
            let reason = format!("{said} is not an object");
            return self.refuse(ConfigFault::Value { key, reason });
        };
        Some(Self::new(object))
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.object.get(key)?;
        let read = read(value);
        if read.is_none() {
            let reason = format!("{} is not {wanted}", said(value));
            self.faults.push(ConfigFault::Value { key, reason });
        }
        read
    }

    fn refuse<T>(&mut self, fault: ConfigFault) -> Option<T> {
        self.faults.push(fault);
        None
    }
}

#[cfg(test)]
mod tests {
    use russet_core::model::{Flag, IpipConfig, VxlanConfig, WireguardMode};
    use russet_net::Port;

    use super::*;

    #[test]
    fn keys_match_in_any_case_and_unknown_ones_are_ignored() {
        let config = read(
            r#"{"network":"10.50.0.0/16","SUBNETLEN":26,"Fancy":1,
                "backend":{"type":"VXLAN","PORT":4789,"directrouting":true,"Whim":[]}}"#,
        )
        .unwrap();
        let TransportConfig::Vxlan(vxlan) = config.transport() else { panic!("{config:?}") };
        assert_eq!(vxlan.port, Port::VXLAN);
        assert!(vxlan.direct_routing.is_on());
        assert_eq!(config.pool(Family::V4).unwrap().subnet_len(), 26);
    }

    #[test]
    fn what_is_not_given_has_flannel_s_default() {
        let config = read(r#"{"Network":"10.50.0.0/16","Backend":{"Type":"vxlan"}}"#).unwrap();
        assert_eq!(config.transport(), &TransportConfig::Vxlan(VxlanConfig::default()));
        let pool = config.pool(Family::V4).unwrap();
        assert_eq!(
            (pool.min().to_string(), pool.max().to_string()),
            ("10.50.1.0/24".to_owned(), "10.50.255.0/24".to_owned())
        );
        assert_eq!(config.pool(Family::V6), None);
    }

    #[test]
    fn null_and_zero_are_as_if_not_given() {
        let config = read(
            r#"{"Network":"10.50.0.0/16","SubnetLen":0,"EnableIPv6":null,
                "Backend":{"Type":"vxlan","MTU":0,"Port":0,"VNI":null}}"#,
        )
        .unwrap();
        assert_eq!(config.transport(), &TransportConfig::Vxlan(VxlanConfig::default()));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let Fault::Config(faults) = read(
            r#"{"Network":"10.50.0.0/16","SubnetLen":40,"EnableIPv6":true,
                "Backend":{"Type":"vxlan","VNI":16777216,"Port":"8472","MTU":9}}"#,
        )
        .unwrap_err() else {
            panic!("not a configuration's fault")
        };
        let told = faults.to_string();
        for part in ["SubnetLen 40", "IPv6Network is missing", "VNI", "Port", "MTU 9"] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
        assert_eq!(faults.0.len(), 5, "{told}");
    }

    #[test]
    fn a_backend_that_is_not_spoken_is_refused_by_name() {
        for (backend, part) in [
            (r#""Backend":{"Type":"ipsec"}"#, "use wireguard"),
            (r#""Backend":{"Type":"ipip","DirectRouting":1}"#, "1 is not true or false"),
            (r#""Backend":{"Type":"WireGuard","Mode":"both"}"#, "\"both\" is none of separate"),
            (r#""Backend":{"Type":"wireguard","PSK":"hunter2"}"#, "44 characters"),
            (r#""Backend":{"Type":"wireguard","PersistentKeepaliveInterval":70000}"#, "70000"),
            (r#""Backend":{"Type":"aws-vpc"}"#, "backend of a cloud"),
            (r#""Backend":{"Type":"carrier-pigeon"}"#, "\"carrier-pigeon\" is unknown"),
            (r#""Backend":{}"#, "Backend.Type is missing"),
            (r#""Backend":{"Type":7}"#, "7 is not a text"),
            (r#""Backend":"vxlan""#, "is not an object"),
        ] {
            let told = read(&format!(r#"{{"Network":"10.50.0.0/16",{backend}}}"#)).unwrap_err();
            assert!(told.to_string().contains(part), "{part} is not in {told}");
        }
    }

    #[test]
    fn wireguard_is_read_with_flannel_s_keys_and_its_secret_is_never_told() {
        let psk = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let config = read(&format!(
            r#"{{"Network":"10.50.0.0/16","Backend":{{"Type":"wireguard","ListenPort":4000,"PSK":"{psk}",
                "PersistentKeepaliveInterval":25,"Mode":"separate","MTU":1450}}}}"#
        ))
        .unwrap();
        let TransportConfig::Wireguard(wireguard) = config.transport() else {
            panic!("{config:?}")
        };
        assert_eq!((wireguard.port.get(), wireguard.port_v6), (4_000, Port::FLANNEL_WIREGUARD_V6));
        assert_eq!((wireguard.keepalive, wireguard.psk.is_some()), (25, true));
        assert_eq!(wireguard.mode, WireguardMode::Separate);
        assert!(!format!("{config:?}").contains(psk));
        let told =
            read(r#"{"Network":"10.50.0.0/16","Backend":{"Type":"wireguard","PSK":"hunter2"}}"#);
        assert!(!told.unwrap_err().to_string().contains("hunter2"));
    }

    #[test]
    fn the_commands_of_an_extension_are_read_and_blanks_are_none() {
        let config = read(
            r#"{"Network":"10.50.0.0/16","Backend":{"Type":"extension","presubnet":1,"PreStartupCommand":" ",
                "SubnetAddCommand":"ip route add $SUBNET via $PUBLIC_IP","subnetremovecommand":"x"}}"#,
        )
        .unwrap();
        let TransportConfig::Extension(extension) = config.transport() else {
            panic!("{config:?}")
        };
        assert_eq!((&extension.pre_startup, &extension.post_startup), (&None, &None));
        assert_eq!(extension.subnet_add.as_deref(), Some("ip route add $SUBNET via $PUBLIC_IP"));
        assert_eq!(extension.subnet_remove.as_deref(), Some("x"));
        let long = format!(r#""SubnetAddCommand":"{}","PostStartupCommand":7"#, "x".repeat(4_097));
        let bad =
            format!(r#"{{"Network":"10.50.0.0/16","Backend":{{"Type":"extension",{long}}}}}"#);
        let told = read(&bad).unwrap_err().to_string();
        assert!(told.contains("SubnetAddCommand") && told.contains("PostStartup"), "{told}");
    }

    #[test]
    fn ipip_is_read_and_ipv6_beside_it_is_refused_by_name() {
        let ipip = r#""Backend":{"Type":"ipip","directrouting":true}"#;
        let config = read(&format!(r#"{{"Network":"10.50.0.0/16",{ipip}}}"#)).unwrap();
        let wanted = IpipConfig { direct_routing: Flag::On, mtu: None };
        assert_eq!(config.transport(), &TransportConfig::Ipip(wanted));
        let both = format!(
            r#"{{"Network":"10.50.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:50::/48",{ipip}}}"#
        );
        let told = read(&both).unwrap_err().to_string();
        assert!(told.contains("ipip carries IPv4 only"), "{told}");
    }

    #[test]
    fn ipv6_alone_is_refused_under_flannel_and_has_a_key_under_russet() {
        let text = br#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:50::/48",
                        "Backend":{"Type":"host-gw"}}"#;
        let told = read_net_conf(text, Preset::Flannel).unwrap_err().to_string();
        assert!(told.contains("preset russet"), "{told}");
        let config = read_net_conf(text, Preset::Russet).unwrap();
        assert_eq!(config.families().collect::<Vec<_>>(), [Family::V6]);
    }

    #[test]
    fn no_family_at_all_is_refused() {
        let told = read(r#"{"EnableIPv4":false,"Backend":{"Type":"host-gw"}}"#).unwrap_err();
        assert!(told.to_string().contains("both false"), "{told}");
    }

    #[test]
    fn what_is_no_object_is_unreadable() {
        for text in ["", "[]", "7", "{", "null", "\"x\""] {
            assert!(matches!(read(text), Err(Fault::Unreadable { .. })), "{text}");
        }
    }

    fn read(text: &str) -> Result<NetworkConfig, Fault> {
        read_net_conf(text.as_bytes(), Preset::Flannel)
    }
}
