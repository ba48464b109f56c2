//! CNI ADD and DEL in a row: a process started for each, as a runtime does.
//!
//! Three nodes stand side by side: one with our agent, two with Debian's plugins (the second for the A/A
//! ratio). Each round adds one pod on each; when all are there, each round deletes one of each. So bridge
//! and tables grow and shrink alike.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{Setup, rotation};
use crate::{
    cluster::{Agent, Store},
    cni::{Container, Done, Plugin},
    net::site::{Node, Site, Transport},
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let count = setup.effort.choose(10, 100);
    let site = Site::new(3)?;
    let _store = Store::start(&setup.programs, &site, "10.50.0.0/16", Transport::Vxlan)?;
    let agent = Agent::start(&setup.programs, &site.nodes[0], "one")?;
    let records = tempfile::tempdir()?;
    let debian = |name: &str, subnet| Plugin::bridge(&records.path().join(name), subnet, POD_MTU);
    let plugins = [agent.plugin.clone(), debian("a", "10.60.1.0/24"), debian("b", "10.60.2.0/24")];
    for node in &site.nodes[1..] {
        node.namespace.sysctl("net/ipv4/ip_forward", "1")?;
    }
    let lanes = lanes(&site.nodes, plugins, count)?;

    let adds = rounds(&lanes, count, Plugin::add, |_| Ok(())).context("add")?;
    let dels = rounds(&lanes, count, Plugin::del, Container::until_gone).context("delete")?;

    let notes = vec![
        format!(
            "{count} pods are added one by one, then deleted one by one; each time includes the plugin's process."
        ),
        "A/A: Debian's plugins on one node and on another.".to_owned(),
    ];
    let wanted = |row: Row, aim| row.must(Bound::RatioAtMost(0.5)).aim(Bound::MedianAtMost(aim));
    let rows = vec![
        wanted(row("CNI ADD", &adds.answered)?, 0.003),
        wanted(row("CNI DEL", &dels.answered)?, 0.002),
        row("CNI DEL, until the link is gone", &dels.settled)?,
    ];
    Ok(Figure { name: "cni", rows, notes })
}

/// One node, its plugin, its pods.
struct Lane<'a> {
    node: &'a Node,
    plugin: Plugin,
    pods: Vec<Container>,
}

fn lanes(nodes: &[Node], plugins: [Plugin; 3], count: usize) -> Result<Vec<Lane<'_>>> {
    let lanes = nodes.iter().zip(plugins).zip(["ours", "a", "b"]);
    lanes
        .map(|((node, plugin), name)| {
            Ok(Lane { node, plugin, pods: Container::many(name, count)? })
        })
        .collect()
}

/// Seconds of the calls, lane by lane.
#[derive(Default)]
struct Times {
    answered: [Vec<f64>; 3],
    settled: [Vec<f64>; 3],
}

/// Calls each lane's plugin once for each of its pods, and lets the kernel settle before the next.
fn rounds(
    lanes: &[Lane<'_>],
    count: usize,
    call: impl Fn(&Plugin, &Container) -> Result<Done> + Sync,
    settle: impl Fn(&Container) -> Result<()>,
) -> Result<Times> {
    let mut times = Times::default();
    for round in 0..count {
        for n in rotation(round, lanes.len()) {
            let lane = &lanes[n];
            let pod = &lane.pods[round];
            let start = Instant::now();
            let done = lane.node.namespace.run(|| call(&lane.plugin, pod))?;
            settle(pod)?;
            times.answered[n].push(done.took.as_secs_f64());
            times.settled[n].push(start.elapsed().as_secs_f64());
        }
    }
    Ok(times)
}

fn row(what: &str, [ours, debian, again]: &[Vec<f64>; 3]) -> Result<Row> {
    let row = Row::of(what, Unit::Seconds, ours)?;
    row.versus("bridge + host-local", ours, debian)?.noise(again, debian)
}

const POD_MTU: u32 = 1_450;
