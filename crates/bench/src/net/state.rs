//! What a namespace looks like to a packet: devices, what they can, hooks, routes; in words that two
//! namespaces can be compared by.
//!
//! Names, numbers, MAC and IP addresses differ between two sites that are built alike, so they are left
//! out, and links are called by what they are for. What is left - kind, MTU, queues, queueing
//! discipline, offload limits, flags, every option of bridge, port and VXLAN, base chains and the number
//! of their rules, routes by shape - is what decides how fast a packet goes.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, ensure};
use russet_kernel::netlink::{Attrs, Message};
use serde_json::Value;

use super::{
    Namespace,
    wire::{
        AF_BRIDGE, AF_INET, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA,
        IFLA_LINKINFO, IFLA_MASTER, IFLA_MTU, IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL, NDA_DST,
        RTM_GETLINK, RTM_GETNEIGH, RTM_GETROUTE,
    },
};

/// Properties by name; the name begins with what they are of: `vxlan mtu`.
pub type State = BTreeMap<String, String>;

/// Reads the namespace.
pub fn read(namespace: &Namespace) -> Result<State> {
    let mut state = State::new();
    let mut rtnl = namespace.rtnl()?;
    let links = rtnl.list(RTM_GETLINK, &[0; 16], |message| Some(link(message)))?;
    let names: BTreeMap<u32, String> =
        links.iter().map(|link| (link.index, link.role.clone())).collect();
    state.extend(links.into_iter().flat_map(|link| link.properties));

    let mut fixed = [0; 12];
    fixed[0] = AF_INET;
    let routes = rtnl.list(RTM_GETROUTE, &fixed, |message| route(message, &names))?;
    let neighbours = rtnl.list(RTM_GETNEIGH, &fixed, |message| neighbour(message, &names))?;
    fixed[0] = AF_BRIDGE;
    let fdb = rtnl.list(RTM_GETNEIGH, &fixed, |message| vtep(message, &names))?;
    for shape in routes.into_iter().chain(neighbours).chain(fdb) {
        count(&mut state, shape);
    }
    for chain in base_chains(namespace)? {
        count(&mut state, chain);
    }
    Ok(state)
}

/// What is different, a line each.
pub fn differences(hand: &State, ours: &State) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = hand.keys().chain(ours.keys()).collect();
    let show = |value: Option<&String>| value.map_or_else(|| "absent".to_owned(), Clone::clone);
    keys.into_iter()
        .filter(|key| hand.get(*key) != ours.get(*key))
        .map(|key| {
            format!("{key}: {} by hand, {} by Russet", show(hand.get(key)), show(ours.get(key)))
        })
        .collect()
}

/// Alike things are counted under the name of their shape.
fn count(state: &mut State, shape: String) {
    let entry = state.entry(shape).or_insert_with(|| "0".to_owned());
    *entry = (entry.parse::<u32>().unwrap_or_default() + 1).to_string();
}

struct Link {
    index: u32,
    role: String,
    properties: State,
}

fn link(message: Message<'_>) -> Link {
    let attrs = message.attrs(16);
    let name = attrs.clone().find(IFLA_IFNAME).map(|attr| attr.str()).unwrap_or_default();
    let info = attrs.clone().find(IFLA_LINKINFO).map_or(Attrs::new(&[]), |attr| attr.attrs());
    let kind = info.clone().find(IFLA_INFO_KIND).map(|attr| attr.str()).unwrap_or_default();
    let role = match (kind, attrs.clone().find(IFLA_MASTER)) {
        ("veth", Some(_)) => "pod's port",
        ("veth", None) if name.starts_with("cali") => "pod's port",
        ("bridge" | "vxlan", _) => kind,
        _ => name,
    };
    let mut properties = State::new();
    let mut put = |what: String, value: &[u8]| {
        properties.insert(format!("{role} {what}"), hex(value));
    };
    put("kind".to_owned(), kind.as_bytes());
    put("flags".to_owned(), &message.u32(8).to_be_bytes());
    for (number, what) in LINK_ATTRS {
        if let Some(attr) = attrs.clone().find(*number) {
            put((*what).to_owned(), attr.value);
        }
    }
    for (part, fleeting) in
        [(IFLA_INFO_DATA, fleeting(kind)), (IFLA_INFO_SLAVE_DATA, PORT_FLEETING)]
    {
        let data = info.clone().find(part).map_or(Attrs::new(&[]), |attr| attr.attrs());
        for attr in data.filter(|attr| !fleeting.contains(&attr.kind)) {
            put(format!("option {part}.{}", attr.kind), attr.value);
        }
    }
    Link { index: message.u32(4), role: role.to_owned(), properties }
}

/// The shape of a unicast route of the main table.
fn route(message: Message<'_>, names: &BTreeMap<u32, String>) -> Option<String> {
    let (len, table, kind) = (message.u8(1), message.u8(4), message.u8(7));
    if (table, kind) != (254, 1) {
        return None;
    }
    let attrs = message.attrs(12);
    let link = names.get(&attrs.clone().find(4)?.u32()).map_or("?", String::as_str);
    let gateway = if attrs.clone().find(5).is_some() { " via a gateway" } else { "" };
    let onlink = if message.u32(8) & 4 == 4 { " onlink" } else { "" };
    Some(format!("route /{len}{gateway} dev {link}{onlink}"))
}

fn neighbour(message: Message<'_>, names: &BTreeMap<u32, String>) -> Option<String> {
    let permanent = message.u16(8) & 0x80 != 0;
    let link = names.get(&message.u32(4))?;
    (permanent && link == "vxlan").then(|| format!("permanent neighbour dev {link}"))
}

fn vtep(message: Message<'_>, names: &BTreeMap<u32, String>) -> Option<String> {
    let link = names.get(&message.u32(4))?;
    let remote = message.attrs(12).find(NDA_DST).is_some();
    (remote && link == "vxlan").then(|| format!("FDB entry dev {link}"))
}

/// Every base chain, with its type, hook, priority, policy and number of rules.
fn base_chains(namespace: &Namespace) -> Result<Vec<String>> {
    let listed = namespace.run(|| {
        Command::new("nft").args(["-j", "list", "ruleset"]).output().context("start nft")
    })?;
    ensure!(listed.status.success(), "nft: {}", String::from_utf8_lossy(&listed.stderr));
    let ruleset: Value = serde_json::from_slice(&listed.stdout).context("read nft's list")?;
    let items = ruleset["nftables"].as_array().cloned().unwrap_or_default();
    let same = |a: &Value, b: &Value| a["family"] == b["family"] && a["table"] == b["table"];
    let rules = |chain: &Value| {
        let of = items.iter().map(|item| &item["rule"]).filter(|rule| same(rule, chain));
        of.filter(|rule| rule["chain"] == chain["name"]).count()
    };
    let chains = items.iter().map(|item| &item["chain"]).filter(|chain| chain["hook"].is_string());
    Ok(chains
        .map(|chain| {
            format!(
                "{} chain of type {} at {}, priority {}, policy {}, {} rules",
                text(&chain["family"]),
                text(&chain["type"]),
                text(&chain["hook"]),
                chain["prio"],
                text(&chain["policy"]),
                rules(chain)
            )
        })
        .collect())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn hex(value: &[u8]) -> String {
    value.iter().fold(String::new(), |text, octet| text + &format!("{octet:02x}"))
}

/// Options of a link of that kind that are a name, a timer or a count.
fn fleeting(kind: &str) -> &'static [u16] {
    match kind {
        "bridge" => BRIDGE_FLEETING,
        "vxlan" => &[IFLA_VXLAN_LINK, IFLA_VXLAN_LOCAL],
        _ => &[],
    }
}

/// `IFLA_BR_ROOT_ID` to `IFLA_BR_GC_TIMER`, and `IFLA_BR_FDB_N_LEARNED`.
const BRIDGE_FLEETING: &[u16] = &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 47];
/// `IFLA_BRPORT_ROOT_ID` to `IFLA_BRPORT_HOLD_TIMER`.
const PORT_FLEETING: &[u16] = &[13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

/// Attributes of a link (`if_link.h`), the limits of segmentation offload included.
const LINK_ATTRS: &[(u16, &str)] = &[
    (IFLA_MTU, "mtu"),
    (6, "qdisc"),
    (13, "txqlen"),
    (16, "operstate"),
    (30, "promiscuity"),
    (31, "num_tx_queues"),
    (32, "num_rx_queues"),
    (40, "gso_max_segs"),
    (41, "gso_max_size"),
    (58, "gro_max_size"),
    (59, "tso_max_size"),
    (60, "tso_max_segs"),
    (61, "allmulti"),
    (63, "gso_ipv4_max_size"),
    (64, "gro_ipv4_max_size"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_in_both_directions() {
        let state = |pairs: &[(&str, &str)]| -> State {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
        };
        let hand = state(&[("vxlan mtu", "1450"), ("bridge flags", "1"), ("same", "x")]);
        let ours = state(&[("vxlan mtu", "1500"), ("chain", "1"), ("same", "x")]);
        assert_eq!(
            differences(&hand, &ours),
            [
                "bridge flags: 1 by hand, absent by Russet",
                "chain: absent by hand, 1 by Russet",
                "vxlan mtu: 1450 by hand, 1500 by Russet",
            ]
        );
    }
}
