//! A lab from within: its namespaces, what runs in them, and what is asked of them.
//!
//! ```text
//!  russet lab up ──▶ outer (new user, mount, pid, net namespace) ──▶ init (pid 1: /proc, reaps)
//!                                                                     └─▶ supervisor: the World, control.sock
//!                                                                           └─▶ agents, stores, pods' probers
//! ```
//!
//! `stage` is that way in, `fabric` lays the underlay, `pod` asks CNI plugins, `process` keeps what runs,
//! `needs` looks for what the topology cannot do without, `server` answers. When the outer process or init
//! ends, for whatever reason, the kernel ends everything inside: nothing has to be cleaned up.

mod by_hand;
mod fabric;
mod needs;
mod pod;
mod process;
mod server;
pub(crate) mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use russet_net::IfName;

use self::process::Processes;
use crate::{
    control::{NodeStatus, PodStatus, RouteLine, Status},
    programs::{self, Programs},
    rtnl::{Carry, Rtnl},
    space::Space,
    topology::{Node, Pod, Topology, form::CutHow},
};

/// Everything inside one lab.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) topology: Topology,
    pub(crate) programs: Programs,
    /// Nodes, the router, switches (`switch-SUBNET`).
    machines: BTreeMap<String, Space>,
    /// The links of the underlay by the name that a topology cuts them by: switch and port.
    ports: BTreeMap<String, fabric::Port>,
    processes: Processes,
    pods: Mutex<BTreeMap<String, Arc<pod::Running>>>,
    cut: Mutex<BTreeSet<String>>,
    since: Instant,
}

impl World {
    /// Builds the lab, telling each stretch of the way to `tell`. Logs go below `dir`.
    pub(crate) fn build(
        topology: Topology,
        dir: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        needs::check(&topology)?;
        let (machines, ports) = fabric::build(&topology)?;
        tell(&format!(
            "{}, {}",
            count(topology.nodes.len(), "node"),
            count(topology.subnets.len(), "subnet")
        ));
        let programs = Programs::beside_this_one()?;
        let processes = Processes::new(dir.join("logs"))?;
        let (pods, cut) = Default::default();
        let since = Instant::now();
        let world = Self { topology, programs, machines, ports, processes, pods, cut, since };
        world.write_files()?;
        for node in &world.topology.nodes {
            world.start_prober(world.machine(node.name.as_str())?, node.name.as_str())?;
        }
        world.start_stores(tell)?;
        world.start_others(tell)?;
        world.add_pods(tell)?;
        Ok(world)
    }

    fn write_files(&self) -> Result<()> {
        for node in &self.topology.nodes {
            let config = programs::agent_config(&self.topology, node)?;
            self.machine(node.name.as_str())?.enter(|| {
                write(Path::new(programs::AGENT_CONFIG), &config)?;
                write(Path::new(programs::CONFLIST), &programs::conflist())?;
                node.files.iter().try_for_each(|(path, text)| write(path, text))
            })?;
        }
        Ok(())
    }

    fn start_stores(&self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let stores = self.topology.stores();
        // None of a cluster answers before most of them have found each other: all first, then wait.
        for (node, _) in &stores {
            for program in node.programs.iter().filter(|program| program.kind.is_store()) {
                self.start(node.name.as_str(), program.name.as_str())?;
            }
        }
        for (node, at) in stores {
            self.wait_for_store(node, at)?;
            tell(&format!("store at {at}"));
        }
        if let Some(config) = &self.topology.config {
            self.put(programs::CONFIG_KEY, &config.to_string())?;
            tell("configuration");
        }
        for (key, resource) in &self.topology.resources {
            self.put(&key.to_string(), &serde_json::to_string(resource)?)?;
            tell(&format!("{} {}", resource.kind, resource.metadata.name));
        }
        Ok(())
    }

    fn wait_for_store(&self, node: &Node, at: SocketAddr) -> Result<()> {
        let listens = eventually(START_WITHIN, || self.listens(node, at).then_some(()));
        listens.ok_or_else(|| anyhow!("the store on {} does not listen at {at}", node.name))
    }

    fn listens(&self, node: &Node, at: SocketAddr) -> bool {
        let connect = || Ok(TcpStream::connect_timeout(&at, Duration::from_secs(1))?);
        self.machine(node.name.as_str()).and_then(|machine| machine.enter(connect)).is_ok()
    }

    /// Starts what is no store, node by node. A second store is started here as well.
    fn start_others(&self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        for node in self.topology.nodes.iter().filter(|node| !node.late) {
            for program in &node.programs {
                if !self.processes.is_running(node.name.as_str(), program.name.as_str()) {
                    self.start(node.name.as_str(), program.name.as_str())?;
                    tell(&format!("{} on {}", program.name, node.name));
                }
            }
        }
        Ok(())
    }

    fn add_pods(&self, tell: &mut dyn FnMut(&str)) -> Result<()> {
        let late = |pod: &&Pod| self.topology.node(pod.node.as_str()).is_some_and(|node| node.late);
        for pod in self.topology.pods.iter().filter(|pod| !late(pod)) {
            let addresses = self.add_pod(pod.name.as_str())?;
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            tell(&format!("pod {} on {}: {}", pod.name, pod.node, addresses.join(" ")));
        }
        if let Some(wired) = &self.topology.wired {
            by_hand::join(self, *wired)?;
            tell("wired by hand");
        }
        Ok(())
    }

    pub(crate) fn machine(&self, name: &str) -> Result<&Space> {
        self.machines.get(name).ok_or_else(|| {
            let known: Vec<_> = self.machines.keys().map(String::as_str).collect();
            anyhow!("there is no {name:?} in this lab; there are: {}", known.join(", "))
        })
    }

    /// Runs `work` inside a machine or a pod.
    pub(crate) fn inside<T: Send>(
        &self,
        place: &str,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        let pod = lock(&self.pods).get(place).map(Arc::clone);
        match pod {
            Some(pod) => pod.space.enter(work),
            None => self.machine(place)?.enter(work),
        }
    }

    pub(crate) fn start(&self, node: &str, process: &str) -> Result<()> {
        let known = self.topology.node(node).ok_or_else(|| anyhow!("there is no node {node:?}"))?;
        let program = known.programs.iter().find(|program| program.name.as_str() == process);
        let program = program.ok_or_else(|| anyhow!("{node} does not run {process:?}"))?;
        let command = self.programs.command(&self.topology, known, program);
        let path = ("PATH".to_owned(), self.programs.search_path());
        let env = program.env.iter().map(|(k, v)| (k.clone(), v.clone())).chain([path]).collect();
        self.processes.start(self.machine(node)?, node, process, &process::Line { command, env })
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.processes
    }

    /// Puts a value into the store, from a node that it runs on and answers.
    pub(crate) fn put(&self, key: &str, value: &str) -> Result<()> {
        let stores = self.topology.stores();
        // It may have been started a moment ago.
        let answering = || stores.iter().find(|(node, at)| self.listens(node, *at)).copied();
        let (node, at) =
            eventually(START_WITHIN, answering).ok_or_else(|| anyhow!("no store answers"))?;
        let command = self.programs.put(at, key, value);
        let env = vec![("PATH".to_owned(), self.programs.search_path())];
        let done =
            self.inside(node.name.as_str(), || process::output(&process::Line { command, env }))?;
        if done.status == 0 { Ok(()) } else { bail!("put {key}: {}", done.text.trim()) }
    }

    pub(crate) fn cut(&self, link: &str, how: CutHow) -> Result<()> {
        let port = self.port(link)?;
        self.machine(&port.switch)?.enter(|| {
            let mut rtnl = Rtnl::open()?;
            match how {
                CutHow::Carrier => rtnl.set_carry(port.name, Carry::Down)?,
                CutHow::Silent => rtnl.set_master(port.name, None)?,
            }
            Ok(())
        })?;
        lock(&self.cut).insert(link.to_owned());
        Ok(())
    }

    /// Mends one link, or all that are cut.
    pub(crate) fn heal(&self, link: Option<&str>) -> Result<()> {
        let links = match link {
            Some(link) => vec![link.to_owned()],
            None => lock(&self.cut).iter().cloned().collect(),
        };
        for link in links {
            let port = self.port(&link)?;
            self.machine(&port.switch)?.enter(|| {
                let mut rtnl = Rtnl::open()?;
                rtnl.set_master(port.name, Some(fabric::bridge()?))?;
                rtnl.set_carry(port.name, Carry::Up)?;
                Ok(())
            })?;
            lock(&self.cut).remove(&link);
        }
        Ok(())
    }

    fn port(&self, link: &str) -> Result<&fabric::Port> {
        self.ports.get(link).ok_or_else(|| {
            let known: Vec<_> = self.ports.keys().map(String::as_str).collect();
            anyhow!("there is no link {link:?} to cut; there are: {}", known.join(", "))
        })
    }

    pub(crate) fn routes(&self, place: &str) -> Result<Vec<RouteLine>> {
        self.inside(place, || {
            let mut rtnl = Rtnl::open()?;
            let names: BTreeMap<_, _> =
                rtnl.links()?.into_iter().map(|link| (link.index, link.name)).collect();
            let line = |route: crate::rtnl::RouteFact| RouteLine {
                dst: route.dst.to_string(),
                via: route.via,
                link: names.get(&route.index).cloned().unwrap_or_default(),
                protocol: route.protocol,
                metric: route.metric,
            };
            Ok(rtnl.routes()?.into_iter().map(line).collect())
        })
    }

    pub(crate) fn counters(&self, place: &str, link: &str) -> Result<Vec<(String, u64)>> {
        let found = self.inside(place, || Ok(Rtnl::open()?.links()?))?;
        let found = found.into_iter().find(|fact| fact.name == link);
        let found = found.ok_or_else(|| anyhow!("{place} has no link {link}"))?;
        Ok(found.counters.into_iter().map(|(name, n)| (name.to_owned(), n)).collect())
    }

    pub(crate) fn delete_link(&self, place: &str, link: &str) -> Result<()> {
        let link: IfName = link.parse()?;
        self.inside(place, || Ok(Rtnl::open()?.delete_link(link)?))
    }

    pub(crate) fn status(&self) -> Status {
        let node = |node: &Node| NodeStatus {
            name: node.name.to_string(),
            subnet: self
                .topology
                .subnets
                .get(node.subnet)
                .map(|s| s.name.to_string())
                .unwrap_or_default(),
            addresses: node.addresses.iter().map(|(addr, len)| format!("{addr}/{len}")).collect(),
            processes: self.processes.of_node(node.name.as_str()),
        };
        let pods = lock(&self.pods);
        let pod = |(name, pod): (&String, &Arc<pod::Running>)| PodStatus {
            name: name.clone(),
            node: pod.node.clone(),
            addresses: pod.addresses.clone(),
        };
        Status {
            name: self.topology.name.to_string(),
            pid: std::process::id(),
            uptime_s: self.since.elapsed().as_secs(),
            nodes: self.topology.nodes.iter().map(node).collect(),
            pods: pods.iter().map(pod).collect(),
            cut: lock(&self.cut).iter().cloned().collect(),
        }
    }
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Writes a file of the machine that the thread is in. A link to the host's file is replaced by it.
fn write(path: &Path, text: &str) -> Result<()> {
    let told = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(told)?;
    }
    if path.is_symlink() {
        fs::remove_file(path).with_context(told)?;
    }
    fs::write(path, text).with_context(told)
}

/// Asks again and again until there is an answer or the time is over.
pub(crate) fn eventually<T>(within: Duration, ask: impl FnMut() -> Option<T>) -> Option<T> {
    eventually_every(ASK_AGAIN, within, ask)
}

/// The same, with a pause of `every` between two questions.
fn eventually_every<T>(
    every: Duration,
    within: Duration,
    mut ask: impl FnMut() -> Option<T>,
) -> Option<T> {
    let until = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(every);
    }
}

/// A panic elsewhere leaves these tables whole: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folders that a topology's files want to themselves.
fn fresh_folders(node: &Node) -> Vec<PathBuf> {
    node.files.keys().filter_map(|path| path.parent().map(Path::to_owned)).collect()
}

const START_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(20);
