//! Pods, made the way a container runtime makes them: a namespace, and the node's CNI plugins.
//!
//! This is the runtime's half of the CNI specification (CNI §4): the list is read on the node, every plugin
//! gets the previous one's result, and removal runs in reverse. A plugin that says "try again later", or an
//! agent that is not up yet, is asked again for a while.

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use russet_net::Prefix;
use serde_json::{Value, json};

use super::{World, by_hand, eventually_every, lock, process};
use crate::{
    programs::{CONFLIST, PROBE_PORT},
    space::{Space, pod_path},
    topology::Pod,
};

/// A pod that has its network.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) node: String,
    pub(crate) space: Space,
    pub(crate) addresses: Vec<IpAddr>,
    /// The plugins' results, for removal.
    result: Value,
}

impl World {
    /// Makes a pod and starts its prober; its addresses come back.
    pub(crate) fn add_pod(&self, name: &str) -> Result<Vec<IpAddr>> {
        let pod = self.topology.pod(name).ok_or_else(|| anyhow!("there is no pod {name:?}"))?;
        if lock(&self.pods).contains_key(name) {
            bail!("pod {name} is there already");
        }
        let node = self.machine(pod.node.as_str())?;
        let space = node.pod(name)?;
        let added = match self.topology.wired {
            Some(wired) => by_hand::add(self, pod, &space, wired),
            None => self.cni_add_soon(pod),
        };
        let result = match added.with_context(|| format!("add pod {name}")) {
            Ok(result) => result,
            Err(err) => {
                node.forget_pod(name)?;
                return Err(err);
            }
        };
        let addresses = addresses(&result);
        self.start_prober(&space, name)?;
        let running =
            Running { node: pod.node.to_string(), space, addresses: addresses.clone(), result };
        lock(&self.pods).insert(name.to_owned(), Arc::new(running));
        Ok(addresses)
    }

    pub(crate) fn remove_pod(&self, name: &str) -> Result<()> {
        let pod = self.topology.pod(name).ok_or_else(|| anyhow!("there is no pod {name:?}"))?;
        let running = lock(&self.pods).remove(name);
        let running = running.ok_or_else(|| anyhow!("pod {name} is not there"))?;
        self.processes.stop(name, PROBER)?;
        if self.topology.wired.is_none() {
            self.cni(pod, "DEL", Some(&running.result))?;
        }
        self.machine(pod.node.as_str())?.forget_pod(name)
    }

    /// Starts what answers questions, when the addresses are there.
    pub(super) fn start_prober(&self, space: &Space, place: &str) -> Result<()> {
        let args = ["serve".to_owned(), "--port".to_owned(), PROBE_PORT.to_string()];
        let line = process::Line { command: self.programs.probe(&args), env: Vec::new() };
        self.processes.start(space, place, PROBER, &line)
    }

    fn cni_add_soon(&self, pod: &Pod) -> Result<Value> {
        let mut last = anyhow!("no plugin was asked");
        let added = eventually_every(ADD_AGAIN, ADD_WITHIN, || match self.cni(pod, "ADD", None) {
            Ok(result) => Some(result),
            Err(err) => {
                last = err;
                None
            }
        });
        added.ok_or(last)
    }

    /// Runs every plugin of the list; the last one's result comes back.
    fn cni(&self, pod: &Pod, command: &str, previous: Option<&Value>) -> Result<Value> {
        let node = self.machine(pod.node.as_str())?;
        let path = pod.cni.as_deref().unwrap_or(Path::new(CONFLIST));
        node.enter(|| {
            let text =
                fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let list: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            let mut plugins =
                list.get("plugins").and_then(Value::as_array).cloned().unwrap_or_default();
            if command == "DEL" {
                plugins.reverse();
            }
            let mut result = previous.cloned().unwrap_or(Value::Null);
            for plugin in plugins {
                let input = plugin_input(plugin, &list, &result);
                let answer = self.plugin(pod, command, &input)?;
                if command == "ADD" {
                    result = answer;
                }
            }
            Ok(result)
        })
    }

    /// Runs one plugin where the thread is.
    fn plugin(&self, pod: &Pod, command: &str, input: &Value) -> Result<Value> {
        let kind = input.get("type").and_then(Value::as_str).unwrap_or_default();
        let folders = self.programs.cni_folders();
        let program = folders.iter().map(|folder| folder.join(kind)).find(|path| path.is_file());
        let program = program.ok_or_else(|| anyhow!("there is no CNI plugin {kind:?}"))?;
        let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let netns = pod_path(pod.name.as_str()).display().to_string();
        // As a Kubernetes runtime names it.
        let args = || format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={}", pod.name);
        let env = [
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", format!("{}-{}", self.topology.name, pod.name)),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", pod.args.clone().unwrap_or_else(args)),
            ("CNI_PATH", folders.join(":")),
            ("PATH", self.programs.search_path()),
        ];
        let env = env.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let line = process::Line { command: vec![program.display().to_string()], env };
        let done = process::output_of(&line, input.to_string().as_bytes())?;
        if done.status == 0 {
            return Ok(serde_json::from_str(&done.text).unwrap_or(Value::Null));
        }
        bail!("{kind} {command}: {}", told_error(&done.text))
    }
}

/// What a plugin reads: its entry, with the list's name and version and the previous result (CNI §4.5).
fn plugin_input(mut plugin: Value, list: &Value, previous: &Value) -> Value {
    if let Value::Object(entry) = &mut plugin {
        for key in ["name", "cniVersion"] {
            entry.insert(key.to_owned(), list.get(key).cloned().unwrap_or(Value::Null));
        }
        if !previous.is_null() {
            entry.insert("prevResult".to_owned(), previous.clone());
        }
        // Said by the list and used by the runtime; the plugin gets what it asks for, and here nobody asks.
        entry.remove("capabilities");
    }
    plugin
}

/// The message of an error object (CNI §5, "Error"), or the text as it is.
fn told_error(text: &str) -> String {
    let Ok(error) = serde_json::from_str::<Value>(text) else { return text.trim().to_owned() };
    let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    format!(
        "{} {} (code {})",
        part("msg"),
        part("details"),
        error.get("code").unwrap_or(&json!("?"))
    )
}

fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result.get("ips").and_then(Value::as_array);
    let address = |ip: &Value| {
        let (addr, _) = ip.get("address")?.as_str()?.split_once('/')?;
        addr.parse().ok()
    };
    ips.into_iter().flatten().filter_map(address).collect()
}

/// A result as CNI would have it, for a pod that no plugin made.
pub(crate) fn result_of(addr: IpAddr, subnet: Prefix) -> Value {
    json!({ "ips": [{ "address": format!("{addr}/{}", subnet.len()) }] })
}

const PROBER: &str = "prober";
/// An agent may have to get its lease first.
const ADD_WITHIN: Duration = Duration::from_secs(20);
/// Each refusal is a line in the agent's log.
const ADD_AGAIN: Duration = Duration::from_millis(100);
