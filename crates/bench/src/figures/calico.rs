//! A node of a large cluster of Calico's, on a real etcd: 5,000 nodes with 20,000 blocks, as full as they are where
//! they are in use.
//!
//! The start is timed from the program's start to the last route in the kernel, on a node whose kernel has nothing yet,
//! beside the fewest messages that reach the same state. Then: what it takes up, what it does when nothing happens, and
//! how soon it has the route of a block that appears.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use russet_kernel::netlink::Batch;

use super::{Setup, memory, scale};
use crate::{
    calico::{
        Cluster, Distribution, launch,
        objects::{Mode, Remote},
    },
    cluster::Agent,
    net::{
        Rtnl,
        site::{Node, Site},
        wire::{self, AF_INET, Act, RTM_GETROUTE, RTM_NEWROUTE, Via, Vxlan},
    },
    process,
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let rounds = setup.effort.choose(2, 10);
    let nodes = u16::try_from(setup.effort.choose(1_000, 5_000))?;
    let mut site = Site::new(u8::try_from(2 * rounds)?)?;
    let mut cluster = Cluster::start(&site, Mode::Vxlan)?;
    cluster.fill(nodes, BLOCKS)?;

    let mut times = Times::default();
    let mut last = None;
    for round in 0..rounds {
        drop(last.take());
        let node = site.nodes.get_mut(2 * round + 1).context("a node")?;
        times.messages.push(cheapest(node, nodes)?);
        let node = site.nodes.get(2 * round).context("a node")?;
        let mut agent = Started::on(setup, node, &format!("bench-{round}"), nodes)?;
        times.started.push(agent.took.as_secs_f64());
        thread::sleep(SETTLE);
        let used = process::memory(agent.agent.pid())?;
        times.resident.push(memory::octets(used.resident));
        times.peak.push(memory::octets(used.peak));
        agent.agent.wait_until(|status| status.store.in_sync)?;
        last = Some((agent, node.namespace.path()));
    }
    let (agent, _) = last.context("one round at least")?;
    let node = site.nodes.get(2 * rounds - 2).context("a node")?;
    let appeared = appear(setup, node, &mut cluster, nodes)?;
    let window = Duration::from_secs(setup.effort.choose(20, 60) as u64);
    let idle = idle(&agent.agent, window)?;
    figure(nodes, &times, &appeared, idle)
}

/// By round.
#[derive(Default)]
struct Times {
    started: Vec<f64>,
    messages: Vec<f64>,
    resident: Vec<f64>,
    peak: Vec<f64>,
}

fn figure(nodes: u16, times: &Times, appeared: &[f64], idle: f64) -> Result<Figure> {
    let of = format!("{nodes} nodes, {} blocks in etcd", u32::from(nodes) * u32::from(BLOCKS));
    let start = Row::of(format!("start to the last route, {of}"), Unit::Seconds, &times.started)?
        .versus("the fewest messages", &times.started, &times.messages)?
        .must(Bound::AllAtMost(3.0));
    let resident =
        Row::of(format!("agent's resident memory, {of}"), Unit::Octets, &times.resident)?
            .must(Bound::AllAtMost(60e6));
    let peak = Row::of("the most it ever was", Unit::Octets, &times.peak)?;
    let block = Row::of("a block appears, from the store to the kernel", Unit::Seconds, appeared)?
        .must(Bound::MedianAtMost(0.010));
    let idle = Row::of(format!("agent's idle time on a core, {of}"), Unit::Share, &[idle])?
        .must(Bound::AllAtMost(0.001));
    Ok(Figure { name: "calico", rows: vec![start, resident, peak, block, idle], notes: Vec::new() })
}

/// An agent that has all routes in its kernel.
struct Started {
    agent: Agent,
    /// From the program's start until then.
    took: Duration,
}

impl Started {
    fn on(setup: &Setup, node: &Node, name: &str, nodes: u16) -> Result<Self> {
        let mut rtnl = node.namespace.rtnl()?;
        let wanted = usize::from(nodes) * usize::from(BLOCKS);
        let began = Instant::now();
        let agent = launch(&setup.programs, node, name, Distribution::Store)?;
        until_block_routes(&mut rtnl, wanted)?;
        Ok(Self { agent, took: began.elapsed() })
    }
}

/// How many routes to blocks through something there are, by a link where one is told.
fn block_routes(rtnl: &mut Rtnl, by: Option<u32>) -> Result<usize> {
    let mut fixed = [0; 12];
    fixed[0] = AF_INET;
    let routes = rtnl.list(RTM_GETROUTE, &fixed, |message| {
        let attrs = message.attrs(12);
        let link = attrs.clone().find(RTA_OIF).map(|link| link.u32());
        let is_its = by.is_none_or(|by| link == Some(by));
        (message.u8(1) == 26 && attrs.find(RTA_GATEWAY).is_some() && is_its).then_some(())
    })?;
    Ok(routes.len())
}

/// Waits until there are so many.
pub(super) fn until_block_routes(rtnl: &mut Rtnl, wanted: usize) -> Result<()> {
    until_block_routes_by(rtnl, wanted, None)
}

/// The same by a link: until a node says where its tunnel ends, others reach it without.
pub(super) fn until_block_routes_by(rtnl: &mut Rtnl, wanted: usize, by: Option<u32>) -> Result<()> {
    let began = Instant::now();
    // Every look at a full table takes the kernel a while, so there are few.
    while block_routes(rtnl, by)? < wanted {
        ensure!(began.elapsed() < PATIENCE, "{} of {wanted} routes", block_routes(rtnl, by)?);
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Sends the fewest messages and returns the seconds.
fn cheapest(node: &mut Node, nodes: u16) -> Result<f64> {
    let link = node.rtnl.add_vxlan(&Vxlan {
        name: VTEP,
        mac: Remote(0).mac(),
        mtu: 1_450,
        vni: 4_096,
        local: node.address,
        underlay: node.uplink,
        port: 4_789,
    })?;
    node.rtnl.add_address(link, (Remote(0).tunnel(), 32))?;
    let mut batches: [Batch; 4] = Default::default();
    let [neighbours, fdb, next_hops, routes] = &mut batches;
    for (id, remote) in (1..).zip((1..=nodes).map(Remote)) {
        wire::neighbour(neighbours, Act::Add, link, remote.tunnel(), remote.mac());
        wire::fdb(fdb, Act::Add, link, remote.mac(), remote.public());
        wire::next_hop(next_hops, id, remote.tunnel(), link);
        for nth in 0..BLOCKS {
            wire::route(routes, (remote.base(nth), 26), Via::Object(id));
        }
    }
    let start = Instant::now();
    for batch in &mut batches {
        node.rtnl.send_all(batch)?;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// Blocks of a node that has one already, one by one: seconds from before the Put to the kernel's event.
fn appear(setup: &Setup, node: &Node, cluster: &mut Cluster, nodes: u16) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for number in 1..=u16::try_from(setup.effort.choose(10, 100))?.min(nodes) {
        let (key, value) = Remote(number).block(BLOCKS);
        let base: Ipv4Addr = Remote(number).base(BLOCKS);
        let write = &mut || cluster.client.put(&key, &value, 0);
        took.push(scale::until_event(&node.namespace, RTM_NEWROUTE, base, write)?.as_secs_f64());
    }
    Ok(took)
}

/// The share of a core that the agent uses when nothing happens.
pub(super) fn idle(agent: &Agent, window: Duration) -> Result<f64> {
    thread::sleep(SETTLE);
    let before = process::processor_time(agent.pid())?;
    thread::sleep(window);
    let used = process::processor_time(agent.pid())?.saturating_sub(before);
    Ok(used.as_secs_f64() / window.as_secs_f64())
}

pub(super) const VTEP: &str = "vxlan.calico";
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// Of each node.
const BLOCKS: u16 = 4;
const SETTLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_messages_are_all_accepted() {
        let mut site = Site::new(1).unwrap();
        assert!(cheapest(&mut site.nodes[0], 50).unwrap() > 0.0);
        assert_eq!(block_routes(&mut site.nodes[0].rtnl, None).unwrap(), 200);
    }
}
