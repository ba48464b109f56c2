//! A hundred pods added at once whose addresses are out of Calico's blocks in a real etcd, beside a bare program that
//! only does the netlink work.
//!
//! What is compared is the time until the last of the hundred has ended. Ours makes a handle for each pod and writes
//! the blocks, each write by compare and swap, before it answers; the bare program asks nobody.

use std::{path::Path, thread};

use anyhow::{Context, Result};
use russet_net::Mac;

use super::{
    Setup,
    burst::{BREATH, GATEWAY, POD_MTU, bare_burst, plugin_burst},
    flannel::Server,
    rotation,
};
use crate::{
    cluster::{Addresses, Agent, CONFIG_KEY, configuration},
    cni::Container,
    net::site::{Site, Transport},
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut site = Site::new(2)?;
    let mut etcd = Server::new()?;
    etcd.start(&site)?;
    fill(&mut etcd, &site)?;
    let node = site.nodes.first().context("a site has a node")?;
    let agent = Agent::start_with(&setup.programs, node, NODE, Addresses::OfBlocks)?;
    let bridge = site.nodes[1].rtnl.add_bridge("cni0", Mac::local([2, 0, 0, 0, 60, 1]), POD_MTU)?;
    site.nodes[1].rtnl.add_address(bridge, (GATEWAY, 24))?;

    // Ours, bare, bare again: the time of the last, and of each.
    let mut last: [Vec<f64>; 3] = Default::default();
    let mut each: [Vec<f64>; 3] = Default::default();
    let pods = Container::many("blocks", BURST)?;
    for round in 0..setup.effort.choose(3, 10) {
        for n in rotation(round, last.len()) {
            let took = match n {
                0 => plugin_burst(&site.nodes[0], &agent.plugin, &pods)?,
                _ => bare_burst(&mut site.nodes[1], &pods)?,
            };
            last[n].push(took.iter().copied().fold(0.0, f64::max));
            each[n].extend(took);
            pods.iter().try_for_each(Container::until_gone)?;
            thread::sleep(BREATH);
        }
    }
    let rows = vec![
        row("the last of 100 ADDs at once", &last)?.must(Bound::RatioAtMost(2.0)),
        row("each of 100 ADDs at once", &each)?,
    ];
    let notes = vec!["A/A: the bare program, measured twice in each round.".to_owned()];
    Ok(Figure { name: "cni-blocks", rows, notes })
}

fn row(what: &str, [ours, bare, again]: &[Vec<f64>; 3]) -> Result<Row> {
    let row = Row::of(what, Unit::Seconds, ours)?.versus("bare netlink", ours, bare)?;
    row.noise(again, bare)
}

/// The network's configuration, the node's object and a pool.
fn fill(etcd: &mut Server, site: &Site) -> Result<()> {
    let mut client = etcd.client(site)?;
    client.put(CONFIG_KEY, &configuration("10.50.0.0/16", Transport::Direct), 0)?;
    for (kind, path, spec) in [
        ("Node", Path::new("nodes").join(NODE), "{}"),
        ("IPPool", Path::new("ippools").join("pods"), r#"{"cidr":"10.70.0.0/16"}"#),
    ] {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let value = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
        );
        client.put(&format!("{CALICO}/{}", path.display()), &value, 0)?;
    }
    Ok(())
}

const NODE: &str = "one";
const BURST: usize = 100;
const CALICO: &str = "/calico/resources/v3/projectcalico.org";
