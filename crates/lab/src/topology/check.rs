//! What a topology means: names are resolved, addresses given out, and what contradicts itself is found.
//!
//! Two passes, so that the reader hears of as much as possible at once. The first walks the tree and needs no
//! sound file: form, and whether a name that is used was given. The second works on the typed form: addresses
//! within subnets, overlaps, conditions that are none or two.

mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use russet_api::calico::Key;
use russet_net::{Family, Mtu, Prefix};

use self::names::Names;
use super::{
    Fault, HandWired, Name, Node, Pod, Program, ProgramKind, Stores, Subnet, Topology, form,
    schema, tree::Tree,
};

/// Makes a topology of a text, or tells every fault.
pub(super) fn check(text: &str) -> Result<Topology, Vec<Fault>> {
    let tree = Tree::parse(text).map_err(|err| vec![not_yaml(&err)])?;
    let schema = Topology::schema();
    let mut faults = schema::faults(&tree, &schema);
    faults.extend(Names::of(&tree).faults(&tree, &schema));
    if !faults.is_empty() {
        return Err(faults);
    }
    let file: form::File = serde_json::from_value(tree.to_json())
        .map_err(|err| vec![Fault { line: 0, place: String::new(), reason: err.to_string() }])?;
    let underlay = &file.underlay;
    let router = underlay.router.unwrap_or(match underlay.subnets.len() {
        0 | 1 => form::Router::None,
        _ => form::Router::Forwards,
    });
    Meaning { tree: &tree, faults: Vec::new(), router }.topology(file)
}

fn not_yaml(err: &serde_saphyr::Error) -> Fault {
    let line = err.location().map_or(0, |location| location.line());
    let reason = err.without_snippet().to_string();
    Fault { line, place: String::new(), reason }
}

/// The second pass: a typed form becomes a topology.
struct Meaning<'a> {
    tree: &'a Tree,
    faults: Vec<Fault>,
    /// It takes the first address of each subnet.
    router: form::Router,
}

impl Meaning<'_> {
    fn topology(mut self, file: form::File) -> Result<Topology, Vec<Fault>> {
        let subnets = self.subnets(&file.underlay.subnets);
        let nodes = self.nodes(&file.nodes, &subnets);
        self.no_address_twice(&nodes);
        self.steps(&file.steps, &nodes);
        self.expectations(&file.expect, &nodes);
        let pods = self.pods(file.pods, file.wired.is_some());
        let resources = self.resources(file.resources);
        let mtu = file.underlay.mtu.and_then(|mtu| Mtu::try_from(mtu).ok());
        let mtu = mtu.unwrap_or(Mtu::ETHERNET);
        let topology = Topology {
            name: file.name,
            summary: file.summary,
            needs: file.needs,
            mtu,
            subnets,
            router: self.router,
            nodes,
            pods,
            config: file.config.map(|config| config.into_iter().collect()),
            resources,
            wired: file.wired.and_then(|wired| self.wired(wired)),
            steps: file.steps,
            expect: file.expect,
            stores: Stores::default(),
        };
        self.needs_a_store(&topology);
        if self.faults.is_empty() { Ok(topology) } else { Err(self.faults) }
    }

    fn resources(&mut self, forms: Vec<form::Resource>) -> Vec<(Key, form::Resource)> {
        let mut resources = Vec::new();
        for (i, form) in forms.into_iter().enumerate() {
            match form.key() {
                Ok(key) => resources.push((key, form)),
                Err(reason) => self.fault(&format!("resources[{i}]"), &reason),
            }
        }
        resources
    }

    fn subnets(&mut self, forms: &[form::Subnet]) -> Vec<Subnet> {
        let mut subnets: Vec<Subnet> = Vec::new();
        if forms.is_empty() {
            self.fault("underlay.subnets", "at least one subnet is wanted");
        }
        for (i, form) in forms.iter().enumerate() {
            let at = format!("underlay.subnets[{i}]");
            let v4 =
                form.ipv4.and_then(|cidr| self.roomy(cidr.0, Family::V4, &format!("{at}.ipv4")));
            let v6 =
                form.ipv6.and_then(|cidr| self.roomy(cidr.0, Family::V6, &format!("{at}.ipv6")));
            if form.ipv4.is_none() && form.ipv6.is_none() {
                self.fault(&at, "`ipv4` or `ipv6` is wanted, or both");
            }
            for prefix in v4.into_iter().chain(v6) {
                let other = subnets.iter().find(|s| s.prefixes().any(|p| p.overlaps(prefix)));
                if let Some(other) = other {
                    let reason = format!("{prefix} overlaps the subnet {}", other.name);
                    self.fault(&at, &reason);
                }
            }
            subnets.push(Subnet { name: form.name.clone(), v4, v6 });
        }
        subnets
    }

    /// The prefix, when it is of the family and has room for a router and some nodes.
    fn roomy(&mut self, prefix: Prefix, family: Family, place: &str) -> Option<Prefix> {
        let longest = if family == Family::V4 { 28 } else { 120 };
        if prefix.family() != family {
            self.fault(place, &format!("{prefix} is no {family} subnet"));
            return None;
        }
        if prefix.len() > longest {
            self.fault(place, &format!("{prefix} is too small: at most /{longest} is wanted"));
            return None;
        }
        Some(prefix)
    }

    fn nodes(&mut self, forms: &[form::Node], subnets: &[Subnet]) -> Vec<Node> {
        if forms.is_empty() {
            self.fault("nodes", "at least one node is wanted");
        }
        if forms.len() > MAX_NODES {
            self.fault("nodes", &format!("at most {MAX_NODES} nodes can be built"));
        }
        forms.iter().enumerate().filter_map(|(i, form)| self.node(i, form, subnets)).collect()
    }

    fn node(&mut self, i: usize, form: &form::Node, subnets: &[Subnet]) -> Option<Node> {
        let at = format!("nodes[{i}]");
        let subnet = match (&form.subnet, subnets) {
            (Some(name), _) => subnets.iter().position(|subnet| subnet.name.as_str() == name)?,
            (None, [_]) => 0,
            (None, _) => {
                self.fault(&at, "`subnet` is missing; it may only be left out when there is one");
                return None;
            }
        };
        let mut addresses = Vec::new();
        for (family, wanted) in [(Family::V4, &form.ipv4), (Family::V6, &form.ipv6)] {
            let key = if family == Family::V4 { "ipv4" } else { "ipv6" };
            let given = wanted.as_deref().and_then(form::address);
            let prefix = subnets.get(subnet).and_then(|subnet| subnet.prefix(family));
            addresses.extend(self.node_address(i, prefix, given, &format!("{at}.{key}")));
        }
        Some(Node {
            name: form.name.clone(),
            subnet,
            addresses,
            programs: self.programs(&form.runs, &at),
            late: form.late,
            files: self.files(&form.files, &at),
            agent: form.agent.clone(),
        })
    }

    fn node_address(
        &mut self,
        i: usize,
        prefix: Option<Prefix>,
        given: Option<IpAddr>,
        place: &str,
    ) -> Option<(IpAddr, u8)> {
        match (prefix, given) {
            (None, None) => None,
            (None, Some(addr)) => {
                self.fault(place, &format!("{addr} is given, but the subnet has no such family"));
                None
            }
            (Some(prefix), Some(addr)) if !prefix.contains(addr) => {
                self.fault(place, &format!("{addr} must lie in {prefix}"));
                None
            }
            (Some(prefix), Some(addr))
                if self.router == form::Router::Forwards && prefix.nth(1) == Some(addr) =>
            {
                let reason = format!("{addr} is the router's, as the first address of {prefix}");
                self.fault(place, &reason);
                None
            }
            (Some(prefix), Some(addr)) => Some((addr, prefix.len())),
            (Some(prefix), None) => match prefix.nth(nth_of_node(i, prefix.family())) {
                Some(addr) if addr != prefix.last() => Some((addr, prefix.len())),
                _ => {
                    self.fault(place, &format!("{prefix} has no room for node {}", i + 1));
                    None
                }
            },
        }
    }

    fn programs(&mut self, runs: &[form::Runs], at: &str) -> Vec<Program> {
        let mut names = BTreeSet::new();
        let mut programs = Vec::new();
        for (i, runs) in runs.iter().enumerate() {
            let program = program(runs);
            let place = format!("{at}.runs[{i}]");
            if !names.insert(program.name.clone()) {
                self.fault(&place, &format!("{} runs on this node already", program.name));
            }
            if program.kind == ProgramKind::Command(Vec::new()) {
                self.fault(&place, "`command` names no program");
            }
            programs.push(program);
        }
        programs
    }

    fn files(&mut self, files: &BTreeMap<String, String>, at: &str) -> BTreeMap<PathBuf, String> {
        for path in files.keys() {
            let own = OWN_FOLDERS.iter().any(|folder| path.starts_with(folder));
            if !own || path.split('/').any(|part| part == "..") {
                let wanted = OWN_FOLDERS.join(", ");
                let reason = format!("{path:?} is not below a folder of the node's own: {wanted}");
                self.fault(&format!("{at}.files"), &reason);
            }
        }
        files.iter().map(|(path, text)| (PathBuf::from(path), text.clone())).collect()
    }

    fn no_address_twice(&mut self, nodes: &[Node]) {
        let mut taken = BTreeMap::new();
        for node in nodes {
            for (addr, _) in &node.addresses {
                if let Some(other) = taken.insert(*addr, &node.name) {
                    let reason = format!("{addr} is the address of {other} and of {}", node.name);
                    self.fault("nodes", &reason);
                }
            }
        }
    }

    fn pods(&mut self, forms: Vec<form::Pod>, by_hand: bool) -> Vec<Pod> {
        let mut pods = Vec::new();
        for (i, form) in forms.into_iter().enumerate() {
            if by_hand && form.cni.is_some() {
                self.fault(&format!("pods[{i}].cni"), "pods that are wired by hand have no CNI");
            }
            let Ok(node) = form.node.parse() else { continue };
            pods.push(Pod {
                name: form.name,
                node,
                cni: form.cni.map(PathBuf::from),
                args: form.args,
            });
        }
        pods
    }

    fn wired(&mut self, wired: form::HandWired) -> Option<HandWired> {
        let network =
            wired.network.map_or_else(|| HAND_NETWORK.parse().ok(), |cidr| Some(cidr.0))?;
        if network.family() != Family::V4 || network.len() > 22 {
            self.fault("wired.network", "an IPv4 network of at most /22 is wanted");
            return None;
        }
        Some(HandWired { transport: wired.transport, network })
    }

    fn steps(&mut self, steps: &[form::Step], nodes: &[Node]) {
        for (i, step) in steps.iter().enumerate() {
            let at = format!("steps[{i}]");
            match step {
                form::Step::Start(p) | form::Step::Stop(p) | form::Step::Restart(p) => {
                    self.runs(&p.node, &p.process, nodes, &at);
                }
                form::Step::Kill(kill) => self.runs(&kill.node, &kill.process, nodes, &at),
                form::Step::Exec(command) if command.command.is_empty() => {
                    self.fault(&at, "`command` names no program");
                }
                form::Step::Expect(eventually) => self.condition(eventually, &at),
                form::Step::DeleteRoute(route) => self.route(route, &at),
                form::Step::AddPod(name) | form::Step::RemovePod(name) => self.is_pod(name, &at),
                _ => {}
            }
        }
    }

    fn runs(&mut self, node: &str, process: &Name, nodes: &[Node], at: &str) {
        let Some(node) = nodes.iter().find(|n| n.name.as_str() == node) else { return };
        if !node.programs.iter().any(|program| program.name == *process) {
            self.fault(at, &format!("{} does not run {process}", node.name));
        }
    }

    fn is_pod(&mut self, name: &Name, at: &str) {
        let pods = self.tree.get("pods").map(Tree::list).unwrap_or_default();
        let has_name = |pod: &Tree| pod.get("name").and_then(Tree::text) == Some(name.as_str());
        if !pods.iter().any(has_name) {
            self.fault(at, &format!("there is no pod {name}"));
        }
    }

    fn expectations(&mut self, expect: &[form::Expect], nodes: &[Node]) {
        for (i, expect) in expect.iter().enumerate() {
            let at = format!("expect[{i}]");
            match expect {
                form::Expect::Eventually(eventually) => self.condition(eventually, &at),
                form::Expect::Always(always) => {
                    self.target(&always.reach, &at);
                    if always.reach.by == form::By::Tcp {
                        let reason = "a stream has no packets to count: wanted is icmp or udp";
                        self.fault(&at, reason);
                    }
                }
                form::Expect::Quiet(quiet) => self.runs(&quiet.node, &quiet.process, nodes, &at),
            }
        }
    }

    fn condition(&mut self, eventually: &form::Eventually, at: &str) {
        let conditions = eventually.conditions();
        if conditions != 1 {
            let reason = format!(
                "exactly one condition is wanted (reach, not_reach, packet, route, no_route, counter or output), not {conditions}"
            );
            self.fault(at, &reason);
        }
        for reach in eventually.reach.iter().chain(&eventually.not_reach) {
            self.target(reach, at);
        }
        if let Some(packet) = &eventually.packet {
            self.target(&packet.meanwhile, at);
            for field in packet.fields.keys().filter(|f| !PACKET_FIELDS.contains(&f.as_str())) {
                let known = PACKET_FIELDS.join(", ");
                self.fault(at, &format!("a packet has no field {field:?}; known are: {known}"));
            }
        }
        for route in eventually.route.iter().chain(&eventually.no_route) {
            self.route(route, at);
        }
        if eventually.output.as_ref().is_some_and(|output| output.command.is_empty()) {
            self.fault(at, "`command` names no program");
        }
    }

    fn route(&mut self, route: &form::Route, at: &str) {
        if route.dst.is_some() == route.within.is_some() {
            self.fault(at, "one of `dst` and `within` is wanted");
        }
    }

    fn target(&mut self, reach: &form::Reach, at: &str) {
        if let Some(addr) = form::address(&reach.to)
            && Family::of(addr) != reach.family.into()
        {
            let family = Family::from(reach.family);
            self.fault(at, &format!("{addr} is no {family} address, and `family` says so"));
        }
    }

    /// Agents and configuration need a place to meet.
    fn needs_a_store(&mut self, topology: &Topology) {
        if !topology.stores().is_empty() {
            return;
        }
        if !topology.resources.is_empty() {
            self.fault("resources", "no node runs a store that they could be put into");
        }
        if topology.config.is_some() {
            self.fault("config", "no node runs a store that it could be put into");
        }
        if topology.steps.iter().any(|step| matches!(step, form::Step::Apply { .. })) {
            self.fault("steps", "`apply` wants a node that runs store or etcd");
        }
    }

    fn fault(&mut self, place: &str, reason: &str) {
        let line = line_of(self.tree, place);
        self.faults.push(Fault { line, place: place.to_owned(), reason: reason.to_owned() });
    }
}

impl form::Eventually {
    fn conditions(&self) -> usize {
        [
            self.reach.is_some(),
            self.not_reach.is_some(),
            self.packet.is_some(),
            self.route.is_some(),
            self.no_route.is_some(),
            self.counter.is_some(),
            self.output.is_some(),
        ]
        .into_iter()
        .filter(|given| *given)
        .count()
    }
}

fn program(runs: &form::Runs) -> Program {
    let (name, kind) = match runs {
        form::Runs::Known(form::Known::Agent) => ("agent", ProgramKind::Agent),
        form::Runs::Known(form::Known::Store) => ("store", ProgramKind::Store),
        form::Runs::Known(form::Known::Etcd) => ("etcd", ProgramKind::Etcd),
        form::Runs::Known(form::Known::EtcdMember) => ("etcd", ProgramKind::EtcdMember),
        form::Runs::Program(program) => {
            return Program {
                name: program.name.clone(),
                kind: ProgramKind::Command(program.command.clone()),
                env: program.env.clone(),
            };
        }
    };
    Program { name: Name::known(name), kind, env: BTreeMap::new() }
}

/// The host part of a node's address. The first node has 11 in either family, as it is read: `.11`, `::11`.
fn nth_of_node(i: usize, family: Family) -> u128 {
    let base = if family == Family::V4 { 11 } else { 0x11 };
    base + u128::try_from(i).unwrap_or_default()
}

/// The line of the value that a place leads to, or of the nearest around it.
fn line_of(tree: &Tree, place: &str) -> u64 {
    let mut at = tree;
    for part in place.split('.') {
        let (key, index) = part.split_once('[').map_or((part, None), |(key, rest)| {
            (key, rest.trim_end_matches(']').parse::<usize>().ok())
        });
        let Some(next) = at.get(key) else { break };
        at = index.and_then(|i| next.list().get(i)).unwrap_or(next);
    }
    at.line
}

/// The fields of a decoded packet that an expectation can name.
pub(crate) const PACKET_FIELDS: [&str; 12] = [
    "vni",
    "outer.src",
    "outer.dst",
    "outer.port",
    "outer.proto",
    "inner.src",
    "inner.dst",
    "inner.proto",
    "src",
    "dst",
    "proto",
    "length",
];
/// Where a node's mount namespace is its own.
pub(crate) const OWN_FOLDERS: [&str; 3] = ["/run/", "/etc/", "/var/lib/"];
const HAND_NETWORK: &str = "10.244.0.0/16";
/// What one machine is asked to carry.
const MAX_NODES: usize = 64;
