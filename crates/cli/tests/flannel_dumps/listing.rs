//! What `ip`, `bridge` and `iptables-save` tell of a node, and what taking it over may change in it.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

/// Everything of one node that flannel or Russet may have made.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    pub(crate) links: Vec<Value>,
    pub(crate) addresses: Vec<Value>,
    pub(crate) routes: Vec<Value>,
    pub(crate) neighbours: Vec<Value>,
    pub(crate) fdb: Vec<Value>,
    /// The lines of `iptables-save`.
    pub(crate) tables: Vec<String>,
}

impl Listing {
    /// What `list.sh` wrote.
    pub(crate) fn read(folder: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join(name)).expect("a listing");
        let json = |name: &str| match text(name).trim() {
            "" => Vec::new(),
            text => serde_json::from_str::<Vec<Value>>(text).expect("JSON"),
        };
        let lines = |name: &str| text(name).lines().map(str::to_owned).collect::<Vec<_>>();
        Self {
            links: json("links"),
            addresses: addresses(json("addresses")),
            routes: [json("routes4"), json("routes6")].concat(),
            neighbours: json("neighbours"),
            fdb: json("fdb"),
            tables: [lines("nat"), lines("filter")].concat(),
        }
    }

    /// Each object of flannel's in `recorded` is here as well, value for value.
    pub(crate) fn has_what_is_flannels(&self, recorded: &Self) {
        for (kind, there, wanted) in
            self.parts().into_iter().zip(recorded.parts()).map(|((kind, a), (_, b))| (kind, a, b))
        {
            for object in wanted.into_iter().filter(is_flannels) {
                assert!(
                    there.iter().any(|other| has(other, &object)),
                    "{kind}: {object} is not in {there:#?}"
                );
            }
        }
        let rules = |lines: &[String]| -> Vec<_> {
            lines
                .iter()
                .filter(|line| line.contains("FLANNEL"))
                .map(|line| without_counters(line))
                .collect()
        };
        assert_eq!(rules(&self.tables), rules(&recorded.tables));
    }

    /// What this becomes by being taken over, by the design's rules and no others.
    pub(crate) fn taken_over(&self, peers: &[String], bridge_mtu: u32) -> Self {
        let mut next = self.clone();
        for link in &mut next.links {
            let name = link["ifname"].as_str().expect("a name").to_owned();
            if let Some(role) = role(&name) {
                link["group"] = json!("21077");
                link["ifalias"] = json!(format!("russet:{role}"));
            }
            if name == "cni0" {
                link["mtu"] = json!(bridge_mtu);
            }
        }
        for route in &mut next.routes {
            if peers.iter().any(|peer| route["dst"] == peer.as_str()) {
                route["protocol"] = json!("82");
            }
        }
        next.tables.retain(|line| !line.contains("FLANNEL"));
        next
    }

    /// Everything but what lies on `link`, which must be marked as ours.
    pub(crate) fn without(mut self, link: &str) -> Self {
        let on = |object: &Value| object["ifname"] == link || object["dev"] == link;
        let device = self.links.iter().find(|object| on(object)).expect("a link of ours");
        assert_eq!((&device["group"], &device["ifalias"]), (&json!("21077"), &json!("russet:udp")));
        for route in self.routes.iter().filter(|route| on(route) && route["protocol"] != "kernel") {
            assert_eq!(route["protocol"], "82", "{route}");
        }
        for part in [&mut self.links, &mut self.addresses, &mut self.routes] {
            part.retain(|object| !on(object));
        }
        self
    }

    pub(crate) fn equals(&self, other: &Self) {
        for ((kind, there), (_, wanted)) in self.parts().into_iter().zip(other.parts()) {
            let (there, wanted) = (lines(&there), lines(&wanted));
            let new: Vec<_> = there.difference(&wanted).collect();
            let gone: Vec<_> = wanted.difference(&there).collect();
            assert!(new.is_empty() && gone.is_empty(), "{kind}: new {new:#?}, gone {gone:#?}");
        }
        let rules = |lines: &[String]| -> Vec<_> {
            let rules = lines.iter().filter(|line| !line.starts_with('#'));
            rules.map(|line| without_counters(line)).collect()
        };
        assert_eq!(rules(&self.tables), rules(&other.tables));
    }

    fn parts(&self) -> [(&'static str, Vec<Value>); 5] {
        [
            ("links", self.links.clone()),
            ("addresses", self.addresses.clone()),
            ("routes", self.routes.clone()),
            ("neighbours", self.neighbours.clone()),
            ("fdb", self.fdb.clone()),
        ]
    }
}

/// The addresses alone: `ip addr` tells of the links as well.
fn addresses(links: Vec<Value>) -> Vec<Value> {
    let alone = |link: Value| json!({"ifname": link["ifname"], "addr_info": link["addr_info"]});
    links.into_iter().map(alone).collect()
}

/// What the alias of a link of ours says that it is for.
fn role(link: &str) -> Option<&'static str> {
    match link {
        "cni0" => Some("bridge"),
        _ if link.starts_with("flannel") => Some("vxlan"),
        _ => None,
    }
}

fn is_flannels(object: &Value) -> bool {
    let on = |key: &str| {
        object[key].as_str().is_some_and(|name| name.starts_with("flannel") && name != "flannel0")
    };
    on("dev") || on("ifname") || (object["protocol"] == "boot" && object["dev"] != "flannel0")
}

/// Whether every value of `part` is one of `whole`.
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .filter(|(key, _)| !NUMBERS.contains(&key.as_str()))
            .all(|(key, value)| whole.get(key).is_some_and(|there| has(there, value))),
        (Value::Array(whole), Value::Array(part)) => {
            part.iter().all(|value| whole.iter().any(|there| has(there, value)))
        }
        _ => whole == part,
    }
}

/// One line for each value of each object, beginning with what the object is known by.
fn lines(objects: &[Value]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for object in objects {
        let named = ["ifname", "mac", "dst", "dev"].iter().filter_map(|key| object[key].as_str());
        push_lines(&named.collect::<Vec<_>>().join(" "), object, &mut all);
    }
    all
}

fn push_lines(path: &str, value: &Value, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| !PASSING.contains(&key.as_str())) {
                push_lines(&format!("{path} {key}"), value, all);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            for value in values {
                push_lines(&format!("{path} {}", value["local"]), value, all);
            }
        }
        _ => _ = all.insert(format!("{path} {value}")),
    }
}

/// `:FORWARD ACCEPT [0:0]` counts packets.
fn without_counters(line: &str) -> String {
    line.split(" [").next().expect("a first part").to_owned()
}

/// What the kernel gives in the order of making.
const NUMBERS: &[&str] = &["ifindex", "link_index", "link_netnsid"];

/// What tells of the moment, and the next-hop object that a route of ours goes through.
const PASSING: &[&str] =
    &["gc_timer", "hello_timer", "tcn_timer", "topology_change_timer", "nhid", "nh_info"];
