//! The value of a lease in the store: how its holder is reached.
//!
//! Written in flannel's order and without blanks, because flannel's own tests of equality are on the text:
//! `{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"…"}}`.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use russet_core::{
    Fault,
    model::{Backend, Foreign, Lease, Vtep, WireguardEnd},
};
use russet_net::{Family, Port, Vni};
use serde::Serialize;
use serde_json::Value;

use super::{
    folded::{Folded, said},
    net_conf::foreign,
};
use crate::error::FormError;

/// flannel's `LeaseAttrs`. The order of the fields is the order of the bytes.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct LeaseForm {
    #[serde(rename = "PublicIP")]
    public_ip: Ipv4Addr,
    #[serde(rename = "PublicIPv6")]
    public_ipv6: Option<Ipv6Addr>,
    #[serde(skip_serializing_if = "str::is_empty")]
    backend_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_data: Option<DataForm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_v6_data: Option<DataForm>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DataForm {
    Vtep(VtepForm),
    Wireguard(WireguardForm),
    Text(String),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WireguardForm {
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

#[derive(Serialize)]
struct VtepForm {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    mac: String,
}

impl From<WireguardEnd> for WireguardForm {
    fn from(end: WireguardEnd) -> Self {
        Self { public_key: end.key.to_string(), port: end.port.map(Port::get) }
    }
}

impl From<Vtep> for VtepForm {
    fn from(vtep: Vtep) -> Self {
        Self { vni: vtep.vni.get(), mac: vtep.mac.to_string() }
    }
}

/// Writes a lease as flannel does. The data of a backend that is not spoken is not ours to write.
pub fn write_lease(lease: &Lease) -> String {
    let data = |family| {
        let vtep = lease.vtep(family).map(|vtep| DataForm::Vtep(vtep.into()));
        vtep.or_else(|| lease.wireguard(family).map(|end| DataForm::Wireguard(end.into())))
    };
    let text = match &lease.backend {
        Backend::Extension(text) => text.as_ref().map(|text| DataForm::Text(text.to_string())),
        _ => None,
    };
    let form = LeaseForm {
        public_ip: lease.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
        public_ipv6: lease.public_ipv6,
        backend_type: type_of(&lease.backend),
        backend_data: text.or_else(|| data(Family::V4)),
        backend_v6_data: data(Family::V6),
    };
    // Texts, numbers and addresses: nothing in it can fail to be JSON.
    serde_json::to_string(&form).unwrap_or_default()
}

fn type_of(backend: &Backend) -> &'static str {
    match backend {
        Backend::Vxlan { .. } => "vxlan",
        // A lease of flannel's never says where tunnels end one by one.
        Backend::HostGw | Backend::Ends(_) => "host-gw",
        Backend::Wireguard { .. } => "wireguard",
        Backend::Udp | Backend::Foreign(Foreign::Unknown | Foreign::Cloud) => "",
        Backend::Ipip => "ipip",
        Backend::Extension(_) => "extension",
        Backend::Foreign(Foreign::Alloc) => "alloc",
        Backend::Foreign(Foreign::Ipsec) => "ipsec",
    }
}

/// Reads the value of a lease. What is missing is `None`, and the calculation says what for.
///
/// # Errors
///
/// [`Fault::Unreadable`] with the first thing that is not of its form.
pub fn read_lease(text: &[u8]) -> Result<Lease, Fault> {
    let value: Value = serde_json::from_slice(text).map_err(|err| bad(err.to_string()))?;
    let mut form = object(value)?;
    let public_ip = public(&form, "PublicIP")?;
    Ok(Lease {
        // Go writes an address that is not set as all zero.
        public_ip: public_ip.filter(|ip: &Ipv4Addr| !ip.is_unspecified()),
        public_ipv6: public(&form, "PublicIPv6")?,
        backend: backend(&mut form)?,
    })
}

fn backend(form: &mut Folded) -> Result<Backend, FormError> {
    let name = match form.get("BackendType") {
        None => String::new(),
        Some(Value::String(name)) => name.to_lowercase(),
        Some(other) => return Err(bad(format!("BackendType: {} is not a text", said(other)))),
    };
    Ok(match name.as_str() {
        "vxlan" => {
            Backend::Vxlan { v4: vtep(form, "BackendData")?, v6: vtep(form, "BackendV6Data")? }
        }
        "host-gw" => Backend::HostGw,
        "ipip" => Backend::Ipip,
        "wireguard" => Backend::Wireguard {
            v4: wireguard(form, "BackendData")?,
            v6: wireguard(form, "BackendV6Data")?,
        },
        "extension" => Backend::Extension(printed(form)?),
        "" | "udp" => Backend::Udp,
        other => Backend::Foreign(foreign(other)),
    })
}

/// A VNI that is not said is flannel's default: old versions leave it out.
fn vtep(form: &mut Folded, key: &str) -> Result<Option<Vtep>, FormError> {
    let Some(value) = form.take(key) else { return Ok(None) };
    let data = object(value).map_err(|err| bad(format!("{key}: {}", err.reason)))?;
    let vni = match data.get("VNI") {
        None => 1,
        Some(value) => value
            .as_u64()
            .ok_or_else(|| bad(format!("{key}.VNI: {} is not a whole number", said(value))))?,
    };
    let vni = u32::try_from(vni).unwrap_or(u32::MAX);
    let vni = Vni::try_from(vni).map_err(|err| bad(format!("{key}.VNI: {err}")))?;
    let Some(mac) = data.get("VtepMAC") else { return Ok(None) };
    let mac = mac
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| bad(format!("{key}.VtepMAC: {} is not a MAC address", said(mac))))?;
    Ok(Some(Vtep { vni, mac }))
}

fn wireguard(form: &mut Folded, key: &str) -> Result<Option<WireguardEnd>, FormError> {
    let Some(value) = form.take(key) else { return Ok(None) };
    let data = object(value).map_err(|err| bad(format!("{key}: {}", err.reason)))?;
    let Some(text) = data.get("PublicKey") else { return Ok(None) };
    let public = text.as_str().and_then(|text| text.parse().ok());
    let public = public
        .ok_or_else(|| bad(format!("{key}.PublicKey: {} is not a WireGuard key", said(text))))?;
    let port = match data.get("Port") {
        // Zero is Go's way to say nothing.
        Some(value) if value.as_u64() != Some(0) => {
            let port = value.as_u64().and_then(|port| u32::try_from(port).ok());
            let port = port.and_then(|port| Port::try_from(port).ok());
            Some(port.ok_or_else(|| bad(format!("{key}.Port: {} is not a port", said(value))))?)
        }
        _ => None,
    };
    Ok(Some(WireguardEnd { key: public, port }))
}

/// What a command of the holder's printed, for the commands of the others.
fn printed(form: &Folded) -> Result<Option<Arc<str>>, FormError> {
    let Some(value) = form.get("BackendData") else { return Ok(None) };
    let text = value.as_str().filter(|text| text.len() <= MOST_PRINTED);
    text.map(|text| Some(text.into())).ok_or_else(|| {
        bad(format!("BackendData: {} is not a text of at most {MOST_PRINTED} octets", said(value)))
    })
}

/// As much as a peer may have a command of ours read.
const MOST_PRINTED: usize = 16_384;

fn public<T: std::str::FromStr>(form: &Folded, key: &str) -> Result<Option<T>, FormError> {
    let Some(value) = form.get(key) else { return Ok(None) };
    let addr = value.as_str().and_then(|text| text.parse().ok());
    addr.map(Some)
        .ok_or_else(|| bad(format!("{key}: {} is not an address of its family", said(value))))
}

fn object(value: Value) -> Result<Folded, FormError> {
    let said = said(&value);
    match value {
        Value::Null => Ok(Folded::empty()),
        value => Folded::new(value).ok_or_else(|| bad(format!("{said} is not an object"))),
    }
}

fn bad(reason: String) -> FormError {
    FormError { form: "lease", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_other_family_is_refused() {
        let told = read_lease(br#"{"PublicIP":"fd77::1"}"#).unwrap_err().to_string();
        assert!(told.contains("PublicIP"), "{told}");
    }

    #[test]
    fn a_corrupt_mac_is_told_with_its_place() {
        let told = read_lease(
            br#"{"PublicIP":"192.0.2.1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"zz"}}"#,
        )
        .unwrap_err()
        .to_string();
        assert!(told.contains("BackendData.VtepMAC"), "{told}");
    }

    #[test]
    fn a_backend_that_is_not_spoken_is_no_corruption() {
        let lease = read_lease(
            br#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"ipsec","BackendData":{"x":"y"}}"#,
        )
        .unwrap();
        assert_eq!(lease.backend, Backend::Foreign(Foreign::Ipsec));
    }

    #[test]
    fn a_wireguard_lease_is_written_as_it_is_read_and_a_bad_key_is_told_with_its_place() {
        let text = r#"{"PublicIP":"192.0.2.1","PublicIPv6":"fd77::1","BackendType":"wireguard","BackendData":{"PublicKey":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","Port":51820},"BackendV6Data":{"PublicKey":"hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=","Port":51821}}"#;
        let lease = read_lease(text.as_bytes()).unwrap();
        assert_eq!(lease.wireguard(Family::V6).unwrap().port, Some(Port::FLANNEL_WIREGUARD_V6));
        assert_eq!(write_lease(&lease), text);
        let old = read_lease(text.replacen(",\"Port\":51820", "", 1).as_bytes()).unwrap();
        assert_eq!(old.wireguard(Family::V4).unwrap().port, None);
        for (from, to, place) in
            [("hSDw", "", "PublicKey"), ("51820", "-1", "Port"), ("51820", "true", "Port")]
        {
            let told = read_lease(text.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            assert!(told.contains(&format!("BackendData.{place}")), "{told}");
        }
    }

    #[test]
    fn a_lease_of_commands_is_written_as_it_is_read_and_what_is_no_text_is_told() {
        for data in [r#","BackendData":"a b\"c""#, r#","BackendData":"""#, ""] {
            let text = format!(
                r#"{{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"extension"{data}}}"#
            );
            assert_eq!(write_lease(&read_lease(text.as_bytes()).unwrap()), text);
        }
        for data in
            ["7".to_owned(), r#"{"a":"b"}"#.to_owned(), format!("\"{}\"", "x".repeat(16_385))]
        {
            let text = format!(
                r#"{{"PublicIP":"192.0.2.1","BackendType":"extension","BackendData":{data}}}"#
            );
            let told = read_lease(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains("BackendData") && told.len() < 200, "{told}");
        }
    }

    #[test]
    fn ipv6_alone_has_no_ipv4_address() {
        let lease = Lease {
            public_ip: None,
            public_ipv6: Some("fd77::1".parse().unwrap()),
            backend: Backend::HostGw,
        };
        let text = write_lease(&lease);
        assert_eq!(
            text,
            r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd77::1","BackendType":"host-gw"}"#
        );
        assert_eq!(read_lease(text.as_bytes()), Ok(lease));
    }
}
