//! The demo: three nodes on two subnets, in namespaces of this machine, and what Russet does there.
//!
//! It calls the built `russet` as a person would and shows what it prints, so it is also a list of commands
//! to try. Everything vanishes at the end; the host's network is never touched.

use std::{
    io::Write,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{Cargo, root};

/// Builds, shows, and ends what it began, also when something fails.
pub fn run() -> Result<()> {
    title("building");
    Cargo::new(["build", "--package", "russet", "--package", "russet-cni"]).run()?;
    let begun = Instant::now();
    let lab = Lab::up()?;
    let shown = show(&lab);
    lab.down();
    shown?;
    println!("\nThat took {:.0} s. The same lab to play with:\n", begun.elapsed().as_secs_f64());
    println!("  target/debug/russet lab up {TOPOLOGY}");
    println!("  target/debug/russet lab exec n1 -- russet status");
    println!("  target/debug/russet lab down");
    Ok(())
}

fn show(lab: &Lab) -> Result<()> {
    let pods = lab.pods()?;
    who_reaches_whom(lab, &pods)?;
    one_packet(lab, &pods)?;
    killed_agent(lab, &pods)?;
    deleted_route(lab)?;
    title("what the node says of itself: russet status");
    lab.print(&["lab", "exec", "n1", "--", "russet", "status"])
}

/// Every pod asks every other.
fn who_reaches_whom(lab: &Lab, pods: &[Pod]) -> Result<()> {
    title("who reaches whom, median round trip in ms (a: node n1, b: n2, both left; c: n3, right)");
    print!("      ");
    for pod in pods {
        print!("{:>8}", pod.name);
    }
    println!();
    for from in pods {
        print!("  {:<4}", from.name);
        for to in pods {
            let cell = if from.name == to.name { "-".to_owned() } else { latency(lab, from, to)? };
            print!("{cell:>8}");
            std::io::stdout().flush()?;
        }
        println!();
    }
    Ok(())
}

fn latency(lab: &Lab, from: &Pod, to: &Pod) -> Result<String> {
    let words = ["lab", "exec", &from.name, "--", "russet", "probe", "ping", "--json"];
    let rest = ["--to", &to.address, "--count", "5", "--interval", "10"];
    let summary = lab.json(&words.into_iter().chain(rest).collect::<Vec<_>>())?;
    let median = summary["latency"]["median_us"].as_f64();
    if summary["lost"] != 0 {
        bail!("{} does not reach {}: {summary}", from.name, to.name);
    }
    Ok(median.map_or("?".into(), |us| format!("{:.2}", us / 1_000.0)))
}

/// The way of one packet through the tunnel, the packet itself, and the way without a tunnel.
fn one_packet(lab: &Lab, pods: &[Pod]) -> Result<()> {
    let (a1, b1, c1) = (find(pods, "a1")?, find(pods, "b1")?, find(pods, "c1")?);
    title("a1 to c1, another subnet: russet path, read from the kernel");
    lab.print(&["lab", "exec", "n1", "--", "russet", "path", &a1.address, &c1.address])?;
    title("such a packet on n1's uplink, decoded: russet lab capture n1/eth0 --vxlan");
    let ping = [
        "lab",
        "exec",
        "a1",
        "--",
        "russet",
        "probe",
        "ping",
        "--to",
        &c1.address,
        "--count",
        "40",
    ];
    let mut ping = lab.quiet(&ping)?;
    let seen = lab.print(&["lab", "capture", "n1/eth0", "--vxlan", "--count", "1"]);
    end(&mut ping);
    seen?;
    title("a1 to b1, the same subnet: routed directly beside it");
    lab.print(&["lab", "exec", "n1", "--", "russet", "path", &a1.address, &b1.address])
}

/// The agent dies and comes back under traffic; packets are numbered, so a loss has a name.
fn killed_agent(lab: &Lab, pods: &[Pod]) -> Result<()> {
    title("the agent of n1 is killed three times while a1 asks c1 every 5 ms");
    let c1 = find(pods, "c1")?;
    let words = ["lab", "exec", "a1", "--", "russet", "probe", "ping", "--to", &c1.address];
    let rest = ["--count", "0", "--interval", "5", "--until-eof", "--json"];
    let mut traffic = lab.command(&words.into_iter().chain(rest).collect::<Vec<_>>());
    let traffic =
        traffic.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(500));
        lab.print(&["lab", "kill", "n1", "agent"])?;
        thread::sleep(Duration::from_millis(500));
        lab.print(&["lab", "start", "n1", "agent"])?;
    }
    thread::sleep(Duration::from_secs(1));
    // Its standard input closes, so it sums up.
    let summary: Value =
        serde_json::from_slice(&traffic.wait_with_output()?.stdout).context("the prober's sum")?;
    println!(
        "  {} asked, {} answered, {} lost",
        summary["sent"], summary["received"], summary["lost"]
    );
    if summary["lost"] != 0 {
        bail!("packets were lost: {summary}");
    }
    Ok(())
}

/// A stranger deletes the route to n3's pods.
fn deleted_route(lab: &Lab) -> Result<()> {
    title("a stranger deletes n1's route through the tunnel");
    let routes = lab.json(&["lab", "exec", "n1", "--", "russet", "get", "routes", "-o", "json"])?;
    let tunnelled = |route: &&Value| route["link"] == "flannel.1";
    let route = routes
        .as_array()
        .into_iter()
        .flatten()
        .find(tunnelled)
        .context("a route through the tunnel")?;
    let dst = route["dst"].as_str().unwrap_or_default();
    lab.print(&["lab", "exec", "n1", "--", "russet", "probe", "cut-route", "--dst", dst])
}

/// A lab that is up.
struct Lab {
    russet: PathBuf,
    /// Its sockets and logs, away from other labs of the user.
    folder: PathBuf,
}

struct Pod {
    name: String,
    address: String,
}

impl Lab {
    fn up() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("russet-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let lab = Self { russet: root().join("target/debug/russet"), folder };
        title("three nodes on two subnets, two pods each");
        match lab.print(&["lab", "up", TOPOLOGY]) {
            Ok(()) => Ok(lab),
            Err(err) => {
                lab.down();
                Err(err)
            }
        }
    }

    fn down(&self) {
        // Whatever is wrong with it now is not worth hiding what went before.
        let _ = self
            .command(&["lab", "down", "--all"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn pods(&self) -> Result<Vec<Pod>> {
        let status = self.json(&["lab", "status", "--json"])?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let pod =
            |pod: &Value| Pod { name: text(&pod["name"]), address: text(&pod["addresses"][0]) };
        Ok(status["pods"].as_array().context("the lab's pods")?.iter().map(pod).collect())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.russet);
        command.current_dir(root()).args(words).env("XDG_RUNTIME_DIR", &self.folder);
        command
    }

    /// Runs it, its output going where ours goes.
    fn print(&self, words: &[&str]) -> Result<()> {
        let status = self.command(words).status().context("start russet")?;
        if status.success() { Ok(()) } else { bail!("russet {}: {status}", words.join(" ")) }
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let out = self.command(words).output().context("start russet")?;
        serde_json::from_slice(&out.stdout).with_context(|| {
            format!("russet {}: {}", words.join(" "), String::from_utf8_lossy(&out.stderr))
        })
    }

    fn quiet(&self, words: &[&str]) -> Result<Child> {
        let mut command = self.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start russet")
    }
}

fn find<'a>(pods: &'a [Pod], name: &str) -> Result<&'a Pod> {
    pods.iter()
        .find(|pod| pod.name == name)
        .with_context(|| format!("the topology has no pod {name}"))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn title(text: &str) {
    println!("\n── {text}");
}

const TOPOLOGY: &str = "docs/lab/three-nodes.yaml";
