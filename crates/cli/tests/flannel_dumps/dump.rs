//! One recorded node: the commands that put a node into its state, and the lab around it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::listing::Listing;

/// What was recorded of one node, `a`, of two.
pub(crate) struct Dump {
    name: String,
    all: Value,
}

impl Dump {
    pub(crate) fn read(name: &str) -> Self {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../../shared/vectors/flannel/kernel")
            .join(name)
            .with_extension("json");
        let text = fs::read_to_string(&file).expect("a recorded dump");
        Self { name: name.to_owned(), all: serde_json::from_str(&text).expect("JSON") }
    }

    /// What `ip`, `bridge` and `iptables-save` told of it.
    pub(crate) fn listing(&self) -> Listing {
        let part = |name: &str| self.list(name).to_vec();
        Listing {
            links: part("links"),
            addresses: part("addresses"),
            routes: [part("routes4"), part("routes6")].concat(),
            neighbours: part("neighbours"),
            fdb: part("fdb"),
            tables: [self.texts("nat"), self.texts("filter")].concat(),
        }
    }

    /// The peer's subnets, by their routes' names.
    pub(crate) fn peers(&self) -> Vec<String> {
        let key = self.lease_keys().find(|key| !key.contains(&self.subnet_key())).expect("a peer");
        let subnets = key.rsplit('/').next().expect("a name");
        subnets
            .split('&')
            .map(|subnet| subnet.rsplit_once('-').expect("a length"))
            .map(|(base, len)| format!("{base}/{len}"))
            .collect()
    }

    /// A lab of two nodes in the recorded one's addresses. `a` is as recorded until the steps swap its
    /// program; `b` runs Russet, with the lease that the recorded peer had. Listings of `a` go to `out`.
    pub(crate) fn topology(&self, out: &Path, lossless: bool) -> Value {
        let out = out.display();
        let list = |name: &str| json!({"exec": {"on": "a", "command": ["sh", "/etc/lab/list.sh", format!("{out}/{name}")]}});
        let start =
            "russet flanneld -etcd-endpoints $0 -iface eth0 -ip-masq >/run/russet.log 2>&1 &";
        let mut steps = vec![list("before")];
        steps.push(json!({"exec": {"on": "a", "command": ["sh", "-c", start, "http://192.168.77.2:2379"]}}));
        steps.push(json!({"expect": {"output": {"on": "a", "command": ["russet", "status"], "contains": "in sync"}}}));
        steps.push(json!({"expect": {"output": {"on": "a", "command": ["sh", "-c", "iptables-nft-save"], "lacks": "FLANNEL"}}}));
        steps.push(json!({"exec": {"on": "a", "command": ["cat", "/run/flannel/subnet.env"], "contains": self.env_after().trim()}}));
        steps.push(list("after"));
        json!({
            "name": format!("dump-{}", self.name),
            "needs": if self.name.starts_with("vxlan") { vec!["vxlan"] } else { vec![] },
            "underlay": {"subnets": [{"name": "rack", "ipv4": "192.168.77.0/24", "ipv6": "fd77::/64"}]},
            "nodes": [
                self.node("a", 1, &[json!({"name": "flannel", "command": ["sh", "/etc/lab/flanneld.sh"]})]),
                self.node("b", 2, &[json!("store"), json!({"name": "node", "command": ["sh", "/etc/lab/node.sh", "{store}"]})]),
            ],
            "pods": [{"name": "p", "node": "b"}],
            "config": serde_json::from_str::<Value>(self.text("config")).expect("JSON"),
            "steps": steps,
            "expect": self.expectations(lossless),
        })
    }

    fn node(&self, name: &str, n: u8, runs: &[Value]) -> Value {
        json!({
            "name": name,
            "ipv4": format!("192.168.77.{n}"),
            "ipv6": format!("fd77::{n}"),
            "runs": runs,
            "files": {
                "/run/flannel/subnet.env": self.env(name),
                "/etc/lab/flanneld.sh": self.state(),
                "/etc/lab/node.sh": self.peer(),
                "/etc/lab/list.sh": include_str!("list.sh"),
            },
        })
    }

    /// The pod reaches the node's bridge, in each family that the network has.
    fn expectations(&self, lossless: bool) -> Vec<Value> {
        let families = self.gateways().len();
        let mut all = Vec::new();
        for (gateway, family) in self.gateways().into_iter().zip(["ipv4", "ipv6"]).take(families) {
            let reach = json!({"from": "p", "to": gateway, "family": family});
            let eventually = if lossless {
                json!({"reach": reach})
            } else {
                json!({"reach": reach, "when": "after"})
            };
            all.push(json!({"eventually": eventually}));
            if lossless {
                all.push(json!({"always": {"reach": reach, "lost": 0}}));
            }
        }
        all
    }

    /// The node's own addresses in its subnets.
    fn gateways(&self) -> Vec<String> {
        self.own_prefixes().iter().map(|p| p.split('/').next().expect("text").to_owned()).collect()
    }

    /// `10.50.67.1/24`, and of IPv6 where the network has it.
    fn own_prefixes(&self) -> Vec<String> {
        let env = self.env("a");
        let of = |line: &str| {
            ["FLANNEL_SUBNET=", "FLANNEL_IPV6_SUBNET="]
                .iter()
                .find_map(|k| line.strip_prefix(k).map(str::to_owned))
        };
        env.lines().filter_map(of).collect()
    }

    /// The commands that make the recorded state, in the order in which flanneld and its bridge do.
    fn state(&self) -> String {
        let mut sh = String::from("set -e\n");
        sh.push_str("echo 1 > /proc/sys/net/ipv4/ip_forward\necho 1 > /proc/sys/net/ipv6/conf/all/forwarding\n");
        sh.push_str("ip link set eth0 address 02:00:00:00:77:01\n");
        for link in self.devices() {
            push_device(&mut sh, link);
        }
        for address in self.list("addresses") {
            push_addresses(&mut sh, address);
        }
        writeln!(sh, "ip link add cni0 address 3e:87:97:00:00:01 mtu {} type bridge", self.mtu())
            .expect("text");
        for prefix in self.own_prefixes() {
            let nodad = if prefix.contains(':') { "nodad" } else { "" };
            writeln!(sh, "ip addr add {prefix} dev cni0 {nodad}").expect("text");
        }
        sh.push_str("ip link set cni0 up\n");
        for neighbour in self.list("neighbours") {
            let [dst, mac, dev] = ["dst", "lladdr", "dev"].map(|key| text(neighbour, key));
            writeln!(sh, "ip neigh add {dst} lladdr {mac} dev {dev} nud permanent").expect("text");
        }
        for entry in self.list("fdb").iter().filter(|entry| entry.get("dst").is_some()) {
            let [mac, dev, dst] = ["mac", "ifname", "dst"].map(|key| text(entry, key));
            writeln!(sh, "bridge fdb append {mac} dev {dev} dst {dst} self permanent")
                .expect("text");
        }
        for route in [self.list("routes4"), self.list("routes6")].concat() {
            push_route(&mut sh, &route);
        }
        for table in ["nat", "filter"] {
            let rules = self.texts(table).join("\n");
            writeln!(sh, "iptables-nft-restore <<'END'\n{rules}\nEND").expect("text");
        }
        sh.push_str("exec sleep 600\n");
        sh
    }

    /// The peer: its device as flanneld made it, both leases, and Russet.
    fn peer(&self) -> String {
        let mut sh = String::from("set -e\n");
        for (key, value) in self.all["leases"].as_object().expect("leases") {
            let value = value.as_str().expect("text");
            writeln!(
                sh,
                "until russet store put --endpoint \"$1\" '{key}' '{value}'; do sleep 0.1; done"
            )
            .expect("text");
        }
        for link in self.devices() {
            let name = text(link, "ifname");
            let v6 = name.contains("v6");
            let (mac, local) = (self.peer_mac(v6), if v6 { "fd77::2" } else { "192.168.77.2" });
            writeln!(sh, "ip link add {name} address {mac} mtu {} type vxlan id 1 local {local} dev eth0 dstport 8472 nolearning", link["mtu"]).expect("text");
            writeln!(sh, "ip link set {name} up").expect("text");
        }
        sh.push_str("exec russet agent --config /etc/russet/agent.toml\n");
        sh
    }

    fn peer_mac(&self, v6: bool) -> String {
        let own = self.subnet_key();
        let leases = self.all["leases"].as_object().expect("leases");
        let (_, value) = leases.iter().find(|(key, _)| !key.contains(&own)).expect("a peer");
        let lease: Value = serde_json::from_str(value.as_str().expect("text")).expect("JSON");
        text(&lease[if v6 { "BackendV6Data" } else { "BackendData" }], "VtepMAC").to_owned()
    }

    /// flannel's own VXLAN links; a TUN cannot be without the process that holds it.
    fn devices(&self) -> impl Iterator<Item = &Value> {
        self.list("links").iter().filter(|link| link["linkinfo"]["info_kind"] == "vxlan")
    }

    /// `10.50.67.0-24`.
    fn subnet_key(&self) -> String {
        let own = &self.own_prefixes()[0];
        own.replace(".1/", ".0-")
    }

    fn lease_keys(&self) -> impl Iterator<Item = &String> {
        self.all["leases"].as_object().expect("leases").keys()
    }

    fn mtu(&self) -> String {
        let env = self.env("a");
        env.lines().find_map(|line| line.strip_prefix("FLANNEL_MTU=")).expect("an MTU").to_owned()
    }

    fn env(&self, node: &str) -> String {
        let lines = self.all["subnet.env"][node].as_array().expect("lines");
        lines.iter().fold(String::new(), |text, line| text + line.as_str().expect("text") + "\n")
    }

    fn env_after(&self) -> String {
        let (mtu, next) = (self.mtu(), self.bridge_mtu_after());
        self.env("a").replace(&format!("FLANNEL_MTU={mtu}"), &format!("FLANNEL_MTU={next}"))
    }

    /// Ours differs where flannel is wrong: VXLAN over an IPv6 underlay takes 70 octets.
    pub(crate) fn bridge_mtu_after(&self) -> u32 {
        if self.name == "vxlan-dual" { 1430 } else { self.mtu().parse().expect("a number") }
    }

    fn text(&self, key: &str) -> &str {
        text(&self.all, key)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        self.list(key).iter().map(|line| line.as_str().expect("text").to_owned()).collect()
    }

    fn list(&self, key: &str) -> &[Value] {
        self.all[key].as_array().expect("a list")
    }
}

fn push_device(sh: &mut String, link: &Value) {
    let data = &link["linkinfo"]["info_data"];
    let local = data
        .get("local")
        .or_else(|| data.get("local6"))
        .and_then(Value::as_str)
        .expect("an address");
    let [name, mac] = ["ifname", "address"].map(|key| text(link, key));
    let (mtu, id, port) = (&link["mtu"], &data["id"], &data["port"]);
    writeln!(sh, "ip link add {name} address {mac} mtu {mtu} type vxlan id {id} local {local} dev eth0 dstport {port} nolearning").expect("text");
    writeln!(sh, "ip link set {name} up").expect("text");
}

fn push_addresses(sh: &mut String, link: &Value) {
    let name = text(link, "ifname");
    if !name.starts_with("flannel") || name == "flannel0" {
        return;
    }
    for address in link["addr_info"].as_array().expect("a list") {
        if address["scope"] == "global" {
            let nodad = if address["family"] == "inet6" { "nodad" } else { "" };
            let (local, len) = (text(address, "local"), &address["prefixlen"]);
            writeln!(sh, "ip addr add {local}/{len} dev {name} {nodad}").expect("text");
        }
    }
}

/// flanneld marks its routes with nothing but protocol boot.
fn push_route(sh: &mut String, route: &Value) {
    let dev = text(route, "dev");
    if route["protocol"] != "boot" || dev == "flannel0" {
        return;
    }
    let onlink = if route["flags"].as_array().is_some_and(|f| f.contains(&json!("onlink"))) {
        "onlink"
    } else {
        ""
    };
    let [dst, gateway] = ["dst", "gateway"].map(|key| text(route, key));
    let family = if gateway.contains(':') { "-6" } else { "-4" };
    writeln!(sh, "ip {family} route add {dst} via {gateway} dev {dev} {onlink}").expect("text");
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}
