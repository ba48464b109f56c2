//! Calling a CNI plugin as a runtime does: a process, its environment, a configuration on standard input.
//!
//! The time of a call runs from before the process is started until it has ended and its output is read.

use std::{
    io::Write,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::net::Namespace;

/// A plugin with its configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    program: PathBuf,
    configuration: Value,
}

/// One container's interface.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    pub namespace: Namespace,
}

/// What a call came to.
#[derive(Debug)]
pub struct Done {
    pub took: Duration,
    /// The result object of an ADD.
    pub result: Value,
}

impl Plugin {
    /// Ours, asking the agent whose socket is named.
    pub fn russet(program: PathBuf, socket: &Path, spool: &Path) -> Self {
        let configuration = json!({
            "cniVersion": "1.0.0", "name": NETWORK, "type": "russet-cni",
            "socket": socket, "spool": spool,
        });
        Self { program, configuration }
    }

    /// Debian's `bridge` with `host-local`, told to do the same: a gateway on the bridge, hairpin, no
    /// masquerading.
    pub fn bridge(data: &Path, subnet: &str, mtu: u32) -> Self {
        let configuration = json!({
            "cniVersion": "1.0.0", "name": NETWORK, "type": "bridge", "bridge": "cni0",
            "isGateway": true, "isDefaultGateway": true, "hairpinMode": true, "ipMasq": false, "mtu": mtu,
            "ipam": { "type": "host-local", "dataDir": data, "ranges": [[{ "subnet": subnet }]] },
        });
        Self { program: Path::new(DEBIAN).join("bridge"), configuration }
    }

    pub fn add(&self, container: &Container) -> Result<Done> {
        self.call("ADD", container)
    }

    pub fn del(&self, container: &Container) -> Result<Done> {
        self.call("DEL", container)
    }

    /// Calls the plugin from the calling thread's namespace.
    fn call(&self, command: &str, container: &Container) -> Result<Done> {
        let input = self.configuration.to_string();
        let mut call = Command::new(&self.program);
        call.env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &container.id)
            .env("CNI_NETNS", container.namespace.path())
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", DEBIAN)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());

        let start = Instant::now();
        let mut child =
            call.spawn().with_context(|| format!("start {}", self.program.display()))?;
        child.stdin.take().context("the plugin's input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();

        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{command} of {}: {}", container.id, String::from_utf8_lossy(&said).trim());
        }
        Ok(Done { took, result: serde_json::from_slice(&output.stdout).unwrap_or_default() })
    }
}

impl Container {
    pub fn new(id: impl Into<String>) -> Result<Self> {
        Ok(Self { id: id.into(), namespace: Namespace::new()? })
    }

    pub fn many(prefix: &str, count: usize) -> Result<Vec<Self>> {
        (0..count).map(|n| Self::new(format!("{prefix}{n}"))).collect()
    }

    /// Waits until its interface is gone: a plugin may answer before the kernel is done, and the next
    /// measurement is not to wait for it.
    pub fn until_gone(&self) -> Result<()> {
        let mut rtnl = self.namespace.rtnl()?;
        let until = Instant::now() + PATIENCE;
        while rtnl.find(INTERFACE)?.is_some() {
            ensure!(
                Instant::now() < until,
                "{INTERFACE} of {} is there after {PATIENCE:?}",
                self.id
            );
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Done {
    /// The IPv4 address that the pod got.
    pub fn address(&self) -> Result<Ipv4Addr> {
        let ips = self.result["ips"].as_array().context("a result without addresses")?;
        let mut addresses = ips.iter().filter_map(|ip| ip["address"].as_str()?.split('/').next());
        addresses.find_map(|text| text.parse().ok()).context("a result without an IPv4 address")
    }
}

const INTERFACE: &str = "eth0";
const PATIENCE: Duration = Duration::from_secs(10);
const NETWORK: &str = "bench";
/// Where Debian's package containernetworking-plugins has them.
const DEBIAN: &str = "/usr/lib/cni";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_s_address_is_read_from_a_result() {
        let result = json!({ "ips": [{ "address": "fd00::2/64" }, { "address": "10.50.1.2/24" }] });
        let done = Done { took: Duration::ZERO, result };
        assert_eq!(done.address().unwrap(), Ipv4Addr::new(10, 50, 1, 2));
        let none = Done { took: Duration::ZERO, result: Value::Null };
        assert!(none.address().is_err());
    }
}
