//! flannel's own bytes: configurations, leases, and whole dumps of a running flanneld.
//!
//! The vectors are other projects' data and lie beside the repository. Where `CI` is `true` a missing file
//! is a failure; elsewhere the test says by name that it was skipped.

use std::{collections::BTreeSet, path::Path};

use russet_api::flannel::{Keys, StoreKey, SubnetEnv, read_lease, read_net_conf, write_lease};
use russet_core::{
    Calc, Change, Fact, FactId,
    model::{
        Flag, Lease, LeaseKey, NetworkConfig, NodeFact, Prepared, Preset, Settings,
        TransportConfig, UdpConfig, UnderlayFact,
    },
};
use russet_desired::{LinkKind, Tables};
use russet_net::{Family, Mtu};
use serde_json::Value;

#[test]
fn net_conf_is_read_as_flannel_reads_it() {
    let Some(rows) = vector("net-conf.json") else { return };
    for row in rows.as_array().unwrap() {
        let name = text(row, "name");
        let read = read_net_conf(text(row, "conf").as_bytes(), Preset::Flannel);
        match (row["accepted"].as_bool().unwrap(), row["type"].as_str()) {
            (true, Some("vxlan")) => {
                let read = read.unwrap();
                let TransportConfig::Vxlan(vxlan) = read.transport() else {
                    panic!("{name}: no vxlan")
                };
                assert_eq!(u64::from(vxlan.port.get()), row["port"].as_u64().unwrap(), "{name}");
                assert_eq!(vxlan.direct_routing.is_on(), row["directRouting"].as_bool().unwrap());
            }
            (true, Some("udp")) => {
                assert_eq!(read.unwrap().transport(), &TransportConfig::Udp(UdpConfig::default()));
            }
            // flannel takes it; we say by name what we do not speak.
            (true, Some(other)) => {
                let told = read.unwrap_err().to_string();
                assert!(told.contains(&format!("backend {other} is not spoken")), "{name}: {told}");
            }
            (true, None) => panic!("{name}: the vector has no type"),
            (false, _) => assert!(read.is_err(), "{name}"),
        }
    }
}

#[test]
fn leases_are_written_byte_for_byte() {
    let Some(rows) = vector("leases.json") else { return };
    for row in rows.as_array().unwrap() {
        assert_round_trip(text(row, "key"), text(row, "value"));
    }
    for name in KERNELS {
        let dump = vector(&format!("kernel/{name}.json")).unwrap();
        for (key, value) in dump["leases"].as_object().unwrap() {
            assert_round_trip(key, value.as_str().unwrap());
        }
    }
}

#[test]
fn subnet_env_is_written_byte_for_byte() {
    if vector("leases.json").is_none() {
        return;
    }
    for name in KERNELS {
        let dump = vector(&format!("kernel/{name}.json")).unwrap();
        for lines in dump["subnet.env"].as_object().unwrap().values() {
            let file = lines_of(lines);
            let env = SubnetEnv::read(&file).unwrap();
            assert_eq!(env.write(), file, "{name}");
        }
    }
}

#[test]
fn vxlan_makes_flannel_s_kernel_state() {
    assert_same_kernel_state("vxlan");
}

#[test]
fn vxlan_with_direct_routing_makes_flannel_s_kernel_state() {
    assert_same_kernel_state("vxlan-direct");
}

#[test]
fn dual_stack_vxlan_makes_flannel_s_kernel_state() {
    assert_same_kernel_state("vxlan-dual");
}

#[test]
fn host_gw_makes_flannel_s_kernel_state() {
    assert_same_kernel_state("host-gw");
}

/// A peer of a backend that we do not speak is that peer's refusal, and nothing more.
#[test]
fn a_udp_peer_is_skipped_by_name() {
    let Some(dump) = vector("kernel/udp.json") else { return };
    let conf = br#"{"Network":"10.50.0.0/16","Backend":{"Type":"vxlan"}}"#;
    let calc = calculated(&dump, read_net_conf(conf, Preset::Flannel).unwrap());
    let told: Vec<_> = calc.refusals().values().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("udp"), "{told:?}");
    assert!(calc.tables().routes.is_empty());
    assert!(!calc.tables().links.is_empty());
}

/// flannel leads the whole network into the device, we lead each peer's subnet.
#[test]
fn udp_makes_flannel_s_device_with_its_address_and_subnet_env() {
    let Some(dump) = vector("kernel/udp.json") else { return };
    let config = read_net_conf(text(&dump, "config").as_bytes(), Preset::Flannel).unwrap();
    let calc = calculated(&dump, config.clone());
    let tables = calc.tables();
    assert_eq!(calc.refusals().len(), 0, "{:?}", calc.refusals());
    let theirs = rows(&dump, "links").find(|link| link["ifname"] == "flannel0").unwrap();
    let ours = &tables.links[&"flannel0".parse().unwrap()];
    assert_eq!(u64::from(ours.mtu.get()), theirs["mtu"].as_u64().unwrap());
    assert_eq!(our_addresses(&tables), their_addresses(&dump));
    assert_eq!(
        our_routes(&tables).into_iter().collect::<Vec<_>>(),
        ["10.50.34.0/24 via 10.50.34.0 dev flannel0 onlink"]
    );
    assert_subnet_env(&dump, &calc, &config);
}

// ---- a dump of flanneld on node a, and what we make of the same leases

const KERNELS: [&str; 5] = ["vxlan", "vxlan-direct", "vxlan-dual", "host-gw", "udp"];

fn assert_same_kernel_state(name: &str) {
    let Some(dump) = vector(&format!("kernel/{name}.json")) else { return };
    let config = read_net_conf(text(&dump, "config").as_bytes(), Preset::Flannel).unwrap();
    let calc = calculated(&dump, config.clone());
    let tables = calc.tables();

    assert_eq!(calc.refusals().values().count(), 0, "{:?}", calc.refusals());
    assert_eq!(our_links(&tables), their_links(&dump), "{name}: links");
    assert_eq!(our_addresses(&tables), their_addresses(&dump), "{name}: addresses");
    assert_eq!(our_routes(&tables), their_routes(&dump), "{name}: routes");
    assert_eq!(our_neighbours(&tables), their_neighbours(&dump), "{name}: neighbours");
    assert_eq!(our_fdb(&tables), their_fdb(&dump), "{name}: FDB");
    assert_subnet_env(&dump, &calc, &config);
}

/// The pods' MTU over IPv6 is 70 below the underlay's and not 50, which is a fault of flannel's.
fn assert_subnet_env(dump: &Value, calc: &Calc, config: &NetworkConfig) {
    let network = calc.pod_network().unwrap();
    let env = SubnetEnv::new(config, calc.world().own().unwrap(), network.mtu, Flag::On);
    let mut theirs = lines_of(&dump["subnet.env"]["a"]);
    if config.pool(Family::V6).is_some() {
        theirs = theirs.replace("MTU=1450", "MTU=1430");
    }
    assert_eq!(env.write(), theirs);
}

fn calculated(dump: &Value, config: NetworkConfig) -> Calc {
    let settings = Settings::new("a", Preset::Flannel, "cni0".parse().unwrap());
    let mut calc = Calc::new(settings);
    let leases: Vec<_> = leases(dump).collect();
    let own = leases.iter().find(|(_, lease)| lease.public_ip == underlay().v4).unwrap().0;
    let upsert = |id, fact| Change::Upsert { id, fact, rev: 1 };
    calc.apply([
        upsert(FactId::Config, Fact::Config(config)),
        upsert(
            FactId::Node,
            Fact::Node(Box::new(NodeFact { underlay: underlay(), foreign: vec![] })),
        ),
        upsert(FactId::Own, Fact::Own(own)),
    ]);
    calc.apply(
        leases.into_iter().map(|(key, l)| upsert(FactId::Lease(key), Fact::Lease(Box::new(l)))),
    );
    calc
}

fn leases(dump: &Value) -> impl Iterator<Item = (LeaseKey, Lease)> {
    dump["leases"].as_object().unwrap().iter().map(|(key, value)| {
        let StoreKey::Lease(key) = Keys::default().read(key.as_bytes()) else { panic!("{key}") };
        (key, read_lease(value.as_str().unwrap().as_bytes()).unwrap())
    })
}

fn underlay() -> UnderlayFact {
    UnderlayFact {
        link: "eth0".parse().unwrap(),
        mtu: Mtu::ETHERNET,
        v4: Some([192, 168, 77, 1].into()),
        v6: Some("fd77::1".parse().unwrap()),
        onlink: vec!["192.168.77.0/24".parse().unwrap(), "fd77::/64".parse().unwrap()],
        gateways: Vec::new(),
        router_advertised: false,
        spoils_checksums: Vec::new(),
        prepared: Prepared::new(),
    }
}

/// Name, MTU, VNI, local address, underlay, port, learning. The MAC is derived and so another.
fn our_links(tables: &Tables) -> BTreeSet<String> {
    let line = |(name, spec): (&russet_net::IfName, &russet_desired::LinkSpec)| {
        let LinkKind::Vxlan(v) = &spec.kind else { return None };
        let learning = v.learning.is_on();
        let mtu = spec.mtu;
        Some(format!("{name} {mtu} {} {} {} {} {learning}", v.vni, v.local, v.underlay, v.port))
    };
    tables.links.iter().filter_map(line).collect()
}

fn their_links(dump: &Value) -> BTreeSet<String> {
    let line = |link: &Value| {
        let data = link["linkinfo"].get("info_data")?;
        let local = data.get("local").or(data.get("local6")).unwrap().as_str().unwrap();
        let words = [
            text(link, "ifname"),
            &link["mtu"].to_string(),
            &data["id"].to_string(),
            local,
            text(data, "link"),
            &data["port"].to_string(),
            &data["learning"].to_string(),
        ];
        Some(words.join(" "))
    };
    rows(dump, "links").filter_map(line).collect()
}

fn our_addresses(tables: &Tables) -> BTreeSet<String> {
    let flannel = tables.addresses.keys().filter(|key| key.link.as_str().starts_with("flannel"));
    flannel.map(ToString::to_string).collect()
}

fn their_addresses(dump: &Value) -> BTreeSet<String> {
    let of_link = |link: &Value| {
        let name = text(link, "ifname").to_owned();
        let global = |info: &Value| {
            (info["scope"] == "global")
                .then(|| format!("{}/{} dev {name}", text(info, "local"), info["prefixlen"]))
        };
        let ours = name.starts_with("flannel");
        let infos = link["addr_info"].as_array().unwrap().iter();
        infos.filter_map(global).filter(|_| ours).collect::<Vec<_>>()
    };
    rows(dump, "addresses").flat_map(of_link).collect()
}

fn our_routes(tables: &Tables) -> BTreeSet<String> {
    let line = |(key, spec): (&russet_desired::RouteKey, &russet_desired::RouteSpec)| {
        let hop = tables
            .next_hops
            .get(&spec.via.hop().unwrap())
            .expect("a route's next hop is wanted too");
        let onlink = if hop.onlink.is_on() { " onlink" } else { "" };
        format!("{} {}{onlink}", key.dst, spec.via)
    };
    tables.routes.iter().map(line).collect()
}

fn their_routes(dump: &Value) -> BTreeSet<String> {
    let line = |route: &Value| {
        if route["protocol"] != "boot" || route["dst"] == "default" {
            return None;
        }
        let onlink = if route["flags"].as_array().unwrap().is_empty() { "" } else { " onlink" };
        let (dst, via, dev) = (text(route, "dst"), text(route, "gateway"), text(route, "dev"));
        Some(format!("{dst} via {via} dev {dev}{onlink}"))
    };
    rows(dump, "routes4").chain(rows(dump, "routes6")).filter_map(line).collect()
}

fn our_neighbours(tables: &Tables) -> BTreeSet<String> {
    tables.neighbours.iter().map(|(key, spec)| format!("{key} lladdr {}", spec.mac)).collect()
}

fn their_neighbours(dump: &Value) -> BTreeSet<String> {
    let both = rows(dump, "neighbours").chain(rows(dump, "neighbours6"));
    let permanent = both.filter(|row| row["state"][0] == "PERMANENT");
    let line = |row: &Value| {
        format!("{} dev {} lladdr {}", text(row, "dst"), text(row, "dev"), text(row, "lladdr"))
    };
    permanent.map(line).collect()
}

fn our_fdb(tables: &Tables) -> BTreeSet<String> {
    tables.fdb.iter().map(|(key, spec)| format!("{key} dst {}", spec.dst)).collect()
}

fn their_fdb(dump: &Value) -> BTreeSet<String> {
    let remote = rows(dump, "fdb").filter(|row| row.get("dst").is_some());
    let line = |row: &Value| {
        format!("{} dev {} dst {}", text(row, "mac"), text(row, "ifname"), text(row, "dst"))
    };
    remote.map(line).collect()
}

// ---- the vectors

fn vector(name: &str) -> Option<Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/flannel");
    let path = dir.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Err(err) => {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "read {}: {err}", path.display());
            eprintln!("skipped: {} is not here", path.display());
            None
        }
    }
}

fn assert_round_trip(key: &str, value: &str) {
    let keys = Keys::default();
    let StoreKey::Lease(lease_key) = keys.read(key.as_bytes()) else { panic!("{key}") };
    assert_eq!(keys.lease(lease_key), key);
    assert_eq!(write_lease(&read_lease(value.as_bytes()).unwrap()), value);
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text in {value}"))
}

fn rows<'a>(dump: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    dump[key].as_array().into_iter().flatten()
}

fn lines_of(lines: &Value) -> String {
    let lines = lines.as_array().unwrap().iter().map(|line| line.as_str().unwrap());
    lines.flat_map(|line| [line, "\n"]).collect()
}
