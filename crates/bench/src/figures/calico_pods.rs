//! 100 pods at once on one node of Calico's, whose addresses come out of blocks in a real etcd; then pods one by one.
//!
//! Beside them stands a bare program that does the netlink work of a routed pod and no more, and Debian's `bridge` with
//! `host-local`. The time of a burst is that of the last of its pods.

use std::{net::Ipv4Addr, path::Path, thread, time::Duration};

use anyhow::{Context, Result};

use super::{
    Setup,
    burst::{at_once, bare, plugin_burst},
    rotation,
};
use crate::{
    calico::{
        Cluster, Distribution, launch, launch_ahead,
        objects::{self, Mode},
    },
    cluster::Agent,
    cni::{Container, Plugin},
    net::{
        Rtnl,
        rtnl::{RoutedWish, add_routed_pod},
        site::{Node, Site},
    },
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut site = Site::new(4)?;
    let mut cluster = Cluster::start(&site, Mode::Vxlan)?;
    // Calico has left it: beside Calico nothing is claimed ahead.
    let (key, value) = objects::resource("ClusterInformation", "default", "{}");
    cluster.client.put(&key, &value, 0)?;
    let mut agent = launch(&setup.programs, &site.nodes[0], "one", Distribution::Store)?;
    agent.wait_until(|status| status.ready)?;
    let mut ahead = launch_ahead(&setup.programs, &site.nodes[3], "two", AHEAD)?;
    ahead.wait_until(|status| status.ready)?;
    let records = tempfile::tempdir()?;
    let debian = Plugin::bridge(records.path(), "10.61.1.0/24", POD_MTU);
    let pods = Container::many("burst", BURST)?;

    // Each by itself: what is claimed anew behind one ADD would fall upon the next, which is another's.
    let lanes = |n: usize, agent: &Agent| [(n, agent.plugin.clone()), (2, debian.clone())];
    let single = in_a_row(setup, &site, "CNI ADD, one by one", &lanes(0, &agent), &pods)?;
    let claimed = format!("the same with {AHEAD} addresses claimed ahead");
    let claimed = in_a_row(setup, &site, &claimed, &lanes(3, &ahead), &pods)?;
    drop(ahead);
    // Ours, bare, bare again, Debian's.
    let mut last: [Vec<f64>; 4] = Default::default();
    for round in 0..setup.effort.choose(2, 10) {
        for n in rotation(round, last.len()) {
            let took = match n {
                0 => plugin_burst(&site.nodes[0], &agent.plugin, &pods)?,
                1 | 2 => bare_burst(&mut site.nodes[1], &pods)?,
                _ => plugin_burst(&site.nodes[2], &debian, &pods)?,
            };
            last[n].push(took.iter().copied().fold(0.0, f64::max));
            pods.iter().try_for_each(Container::until_gone)?;
            thread::sleep(BREATH);
        }
    }
    let [ours, bare, again, bridge] = &last;
    let burst = Row::of("the last of 100 ADDs at once", Unit::Seconds, ours)?
        .versus("bare netlink", ours, bare)?
        .versus("bridge + host-local", ours, bridge)?
        .noise(again, bare)?
        .must(Bound::RatioAtMost(2.0));
    Ok(Figure { name: "calico-pods", rows: vec![burst, single, claimed], notes: Vec::new() })
}

/// Pods one by one, in turn with Debian's plugins: each lane is a node's number and a plugin, ours first.
fn in_a_row(
    setup: &Setup,
    site: &Site,
    what: &str,
    lanes: &[(usize, Plugin); 2],
    pods: &[Container],
) -> Result<Row> {
    let mut took: [Vec<f64>; 2] = Default::default();
    for (round, pod) in pods.iter().take(setup.effort.choose(20, BURST)).enumerate() {
        for n in rotation(round, lanes.len()) {
            let (node, plugin) = (&site.nodes[lanes[n].0], &lanes[n].1);
            let done = node.namespace.run(|| plugin.add(pod))?;
            took[n].push(done.took.as_secs_f64());
            node.namespace.run(|| plugin.del(pod))?;
            pod.until_gone()?;
        }
    }
    let [ours, bridge] = &took;
    let row = Row::of(what, Unit::Seconds, ours)?;
    Ok(row.versus("bridge + host-local", ours, bridge)?.must(Bound::RatioAtMost(0.5)))
}

fn bare_burst(node: &mut Node, pods: &[Container]) -> Result<Vec<f64>> {
    let numbered: Vec<_> = pods.iter().zip(2_u8..).collect();
    let took = at_once(&node.namespace, &numbered, |(pod, n)| {
        bare("bare-routed", &pod.namespace.path(), *n)
    })?;
    for (_, n) in &numbered {
        let link = node.rtnl.index(&host_link(*n))?;
        node.rtnl.delete_link(link)?;
    }
    Ok(took)
}

/// The hidden `bare-routed`: gives the pod whose namespace has that path a link and a route of its own, and no more.
pub fn be_bare_routed(pod: &Path, n: u8) -> Result<()> {
    use std::{fs::File, os::fd::AsFd};

    let namespace = File::open(pod).context("open the pod's namespace")?;
    let mut host = Rtnl::open()?;
    // A socket stays where it was opened, so one step into the pod is enough.
    let inside = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(inside))?;
    let mut pod = Rtnl::open()?;
    let wish = RoutedWish {
        namespace: namespace.as_fd(),
        host_link: &host_link(n),
        mtu: POD_MTU,
        address: Ipv4Addr::new(10, 60, 1, n),
    };
    add_routed_pod(&mut host, &mut pod, &wish).map(drop)
}

fn host_link(n: u8) -> String {
    format!("bare{n}")
}

/// Between two bursts, for what a program still does after its answer.
const BREATH: Duration = Duration::from_millis(500);
const BURST: usize = 100;
const AHEAD: usize = 8;
const POD_MTU: u32 = 1_450;
