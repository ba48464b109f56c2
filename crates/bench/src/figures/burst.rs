//! Twenty pods added at once: ours, a bare program that only does the netlink work, Debian's plugins.
//!
//! The bare program is this one under another name (`bare-add`): a process for each pod that makes the
//! veth, the address and the route, and neither hands out the address nor writes it down nor answers. What
//! is compared is the time until the last of the twenty has ended.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use russet_net::Mac;

use super::{Setup, rotation};
use crate::{
    cluster::{Agent, Store},
    cni::{Container, Plugin},
    net::{
        Namespace,
        site::{Node, Site, Transport},
    },
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut site = Site::new(3)?;
    let _store = Store::start(&setup.programs, &site, "10.50.0.0/16", Transport::Vxlan)?;
    let agent = Agent::start(&setup.programs, &site.nodes[0], "one")?;
    let bridge = site.nodes[1].rtnl.add_bridge("cni0", Mac::local([2, 0, 0, 0, 60, 1]), POD_MTU)?;
    site.nodes[1].rtnl.add_address(bridge, (GATEWAY, 24))?;
    let records = tempfile::tempdir()?;
    let debian = Plugin::bridge(records.path(), "10.61.1.0/24", POD_MTU);

    // Ours, bare, bare again, Debian's: the time of the last, and of each.
    let mut last: [Vec<f64>; 4] = Default::default();
    let mut each: [Vec<f64>; 4] = Default::default();
    let pods = Container::many("burst", BURST)?;
    for round in 0..setup.effort.choose(3, 20) {
        for n in rotation(round, last.len()) {
            let took = match n {
                0 => plugin_burst(&site.nodes[0], &agent.plugin, &pods)?,
                1 | 2 => bare_burst(&mut site.nodes[1], &pods)?,
                _ => plugin_burst(&site.nodes[2], &debian, &pods)?,
            };
            last[n].push(took.iter().copied().fold(0.0, f64::max));
            each[n].extend(took);
            pods.iter().try_for_each(Container::until_gone)?;
            thread::sleep(BREATH);
        }
    }
    let rows = vec![
        row("the last of 20 ADDs at once", &last)?.must(Bound::RatioAtMost(2.0)),
        row("each of 20 ADDs at once", &each)?,
    ];
    let notes = vec!["A/A: the bare program, measured twice in each round.".to_owned()];
    Ok(Figure { name: "cni-burst", rows, notes })
}

fn row(what: &str, [ours, bare, again, debian]: &[Vec<f64>; 4]) -> Result<Row> {
    let row = Row::of(what, Unit::Seconds, ours)?.versus("bare netlink", ours, bare)?;
    row.versus("bridge + host-local", ours, debian)?.noise(again, bare)
}

/// Adds the pods at once and deletes them one by one.
pub(super) fn plugin_burst(node: &Node, plugin: &Plugin, pods: &[Container]) -> Result<Vec<f64>> {
    let took = at_once(&node.namespace, pods, |pod| Ok(plugin.add(pod)?.took))?;
    for pod in pods {
        node.namespace.run(|| plugin.del(pod))?;
    }
    Ok(took)
}

fn bare_burst(node: &mut Node, pods: &[Container]) -> Result<Vec<f64>> {
    let numbered: Vec<_> = pods.iter().zip(2_u8..).collect();
    let took = at_once(&node.namespace, &numbered, |(pod, n)| {
        bare("bare-add", &pod.namespace.path(), *n)
    })?;
    for (_, n) in &numbered {
        let link = node.rtnl.index(&host_link(*n))?;
        node.rtnl.delete_link(link)?;
    }
    Ok(took)
}

/// Starts one job for each item at the same moment, in the namespace, and returns their seconds.
pub(super) fn at_once<T: Sync>(
    namespace: &Namespace,
    items: &[T],
    job: impl Fn(&T) -> Result<Duration> + Sync,
) -> Result<Vec<f64>> {
    let barrier = Barrier::new(items.len());
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .iter()
            .map(|item| {
                scope.spawn(|| {
                    // All arrive at the barrier, whether they could enter or not.
                    let entered = namespace.enter();
                    barrier.wait();
                    entered.and_then(|()| job(item))
                })
            })
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Duration>>| {
            let took = thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            Ok(took.as_secs_f64())
        };
        threads.into_iter().map(join).collect()
    })
}

/// Starts this program under the name of a bare one, for the pod whose namespace has that path.
pub(super) fn bare(name: &str, pod: &str, n: u8) -> Result<Duration> {
    let own = std::env::current_exe().context("find this program")?;
    let mut command = Command::new(own);
    command.args([name, pod, &n.to_string()]);
    let start = Instant::now();
    let status = command.status().context("start the bare program")?;
    ensure!(status.success(), "the bare program: {status}");
    Ok(start.elapsed())
}

/// The hidden `bare-add`: connects the pod whose namespace has that path to the bridge, and nothing else.
pub fn be_bare(pod: &Path, n: u8) -> Result<()> {
    use crate::net::{
        Rtnl,
        rtnl::{PodWish, add_pod},
    };
    use std::{fs::File, os::fd::AsFd};

    let namespace = File::open(pod).context("open the pod's namespace")?;
    let mut host = Rtnl::open()?;
    let bridge = host.index("cni0")?;
    // A socket stays where it was opened, so one step into the pod is enough.
    let inside = rustix::thread::LinkNameSpaceType::Network;
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(inside))?;
    let mut pod = Rtnl::open()?;
    let [a, b, c, _] = GATEWAY.octets();
    let wish = PodWish {
        namespace: namespace.as_fd(),
        host_link: &host_link(n),
        bridge,
        mtu: POD_MTU,
        address: (Ipv4Addr::new(a, b, c, n), 24),
        gateway: GATEWAY,
    };
    add_pod(&mut host, &mut pod, &wish)
}

fn host_link(n: u8) -> String {
    format!("bare{n}")
}

/// Between two bursts, for what a program still does after its answer.
const BREATH: Duration = Duration::from_millis(500);
const BURST: usize = 20;
const POD_MTU: u32 = 1_450;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 60, 1, 1);
