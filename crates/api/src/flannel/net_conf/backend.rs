//! The `Backend` of a network configuration: its type, and the keys that each type has.

use russet_core::{
    ConfigFault,
    model::{
        ExtensionConfig, Flag, Foreign, IpipConfig, TransportConfig, UdpConfig, VxlanConfig,
        WireguardConfig, WireguardMode,
    },
};
use russet_net::{Family, Mtu, OutOfRange, Port, Vni};

use super::Reader;

/// No backend at all means `udp` (flannel's documentation says vxlan; its code does not).
pub(super) fn backend(conf: &mut Reader) -> Option<TransportConfig> {
    if !conf.has("Backend") {
        return Some(TransportConfig::Udp(UdpConfig::default()));
    }
    let mut backend = conf.object("Backend")?;
    let name = backend.text("Type").map(|name| name.to_lowercase()).unwrap_or_default();
    let transport = match name.as_str() {
        "vxlan" => Some(TransportConfig::Vxlan(vxlan(&mut backend))),
        "host-gw" => Some(TransportConfig::Direct),
        "udp" => Some(TransportConfig::Udp(udp(&mut backend))),
        "ipip" => Some(TransportConfig::Ipip(ipip(&mut backend))),
        "wireguard" => Some(TransportConfig::Wireguard(wireguard(&mut backend))),
        "alloc" => Some(TransportConfig::Unmanaged),
        "extension" => Some(TransportConfig::Extension(extension(&mut backend))),
        // A type that is no text has been told already.
        "" if backend.faults.is_empty() => backend.refuse(ConfigFault::NoBackendType),
        "" => None,
        name => backend.refuse(unspoken(name)),
    };
    conf.faults.append(&mut backend.faults);
    transport
}

fn unspoken(name: &str) -> ConfigFault {
    match foreign(name) {
        Foreign::Unknown => {
            ConfigFault::UnknownBackend { name: name.chars().take(MOST_NAME).collect() }
        }
        known => ConfigFault::Unspoken(known),
    }
}

/// flannel's names of what this version does not speak.
pub(in crate::flannel) fn foreign(name: &str) -> Foreign {
    match name {
        "alloc" => Foreign::Alloc,
        "ipsec" => Foreign::Ipsec,
        "aws-vpc" | "gce" | "ali-vpc" | "tencent-vpc" => Foreign::Cloud,
        _ => Foreign::Unknown,
    }
}

/// A name from outside is shown up to here.
const MOST_NAME: usize = 40;

fn wireguard(backend: &mut Reader) -> WireguardConfig {
    let usual = WireguardConfig::default();
    let psk = backend.text("PSK").filter(|text| !text.is_empty());
    let psk = psk.and_then(|text| backend.secret("Backend.PSK", &text));
    let keepalive = backend.number("PersistentKeepaliveInterval").unwrap_or(0);
    let range = OutOfRange::new("PersistentKeepaliveInterval", keepalive, 0, u16::MAX.into());
    let keepalive = u16::try_from(keepalive).unwrap_or_else(|_| {
        let key = "PersistentKeepaliveInterval";
        backend.faults.push(ConfigFault::Range { key, fault: range });
        0
    });
    let mut port = |key| backend.above_zero(key, u16::MAX.into(), Port::try_from);
    let (port, port_v6) = (port("ListenPort"), port("ListenPortV6"));
    WireguardConfig {
        mode: wireguard_mode(backend),
        port: port.unwrap_or(usual.port),
        port_v6: port_v6.unwrap_or(usual.port_v6),
        psk,
        keepalive,
        mtu: backend.above_zero("MTU", Mtu::MAX.get(), Mtu::try_from),
    }
}

fn wireguard_mode(backend: &mut Reader) -> WireguardMode {
    let mode = backend.text("Mode").unwrap_or_default();
    match mode.to_lowercase().as_str() {
        "" | "separate" => WireguardMode::Separate,
        "auto" => WireguardMode::Auto,
        "ipv4" => WireguardMode::Over(Family::V4),
        "ipv6" => WireguardMode::Over(Family::V6),
        _ => {
            let mode: String = mode.chars().take(MOST_NAME).collect();
            let reason = format!("{mode:?} is none of separate, auto, ipv4 and ipv6");
            backend.faults.push(ConfigFault::Value { key: "Backend.Mode", reason });
            WireguardMode::Separate
        }
    }
}

/// A command of blanks is none.
fn extension(backend: &mut Reader) -> ExtensionConfig {
    let mut command = |key| {
        let text = backend.text(key).filter(|text| !text.trim().is_empty())?;
        if text.len() <= MOST_COMMAND {
            return Some(text.into());
        }
        let reason = format!("it has {} octets; at most {MOST_COMMAND} are taken", text.len());
        backend.refuse(ConfigFault::Value { key, reason })
    };
    ExtensionConfig {
        pre_startup: command("PreStartupCommand"),
        post_startup: command("PostStartupCommand"),
        subnet_add: command("SubnetAddCommand"),
        subnet_remove: command("SubnetRemoveCommand"),
    }
}

/// As much of a command line as is taken.
const MOST_COMMAND: usize = 4_096;

fn udp(backend: &mut Reader) -> UdpConfig {
    let port = backend.above_zero("Port", u16::MAX.into(), Port::try_from);
    UdpConfig { port: port.unwrap_or(UdpConfig::default().port) }
}

fn ipip(backend: &mut Reader) -> IpipConfig {
    let direct_routing = Flag::from(backend.flag("DirectRouting").unwrap_or(false));
    IpipConfig { direct_routing, mtu: None }
}

fn vxlan(backend: &mut Reader) -> VxlanConfig {
    let usual = VxlanConfig::default();
    let flag = |on: Option<bool>| Flag::from(on.unwrap_or(false));
    let mtu = backend.above_zero("MTU", Mtu::MAX.get(), Mtu::try_from);
    VxlanConfig {
        vni: backend.ranged("VNI", Vni::MAX.get(), Vni::try_from).unwrap_or(usual.vni),
        // Zero is Go's way to say nothing.
        port: backend.above_zero("Port", u16::MAX.into(), Port::try_from).unwrap_or(usual.port),
        mtu,
        mtu_v6: mtu,
        gbp: flag(backend.flag("GBP")),
        learning: flag(backend.flag("Learning")),
        direct_routing: flag(backend.flag("DirectRouting")),
    }
}
