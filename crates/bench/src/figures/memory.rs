//! The agent's resident memory, and what it does when nothing happens, with few nodes and with many.
//!
//! The nodes are leases in the store; their routes are really in the kernel before anything is measured.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use super::Setup;
use crate::{
    cluster::{Agent, Peer, Store, WIDE_NETWORK},
    net::{
        Rtnl,
        site::{Site, Transport},
        wire::{AF_INET, RTM_GETROUTE},
    },
    process,
    report::{Bound, Figure, Row, Unit},
};

/// Resident memory with 3 nodes and with 10,000.
pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "memory", rows: Vec::new(), notes: Vec::new() };
    for (nodes, limit) in [(FEW, 14e6), (MANY, 60e6)] {
        let scene = Scene::build(setup, nodes)?;
        let samples = scene.resident(setup.effort.choose(5, 20))?;
        let row =
            Row::of(format!("agent's resident memory, {nodes} nodes"), Unit::Octets, &samples)?;
        figure.rows.push(row.must(Bound::AllAtMost(limit)));
        let memory = process::memory(scene.agent.pid())?;
        figure.notes.push(format!(
            "{nodes} nodes: peak {}, proportional share (Pss) {}.",
            Unit::Octets.show(octets(memory.peak)),
            Unit::Octets.show(octets(memory.proportional)),
        ));
    }
    Ok(figure)
}

/// Share of a core that the agent uses when nothing happens.
pub fn measure_idle(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "idle", rows: Vec::new(), notes: Vec::new() };
    let window = Duration::from_secs(setup.effort.choose(20, 60) as u64);
    for nodes in [FEW, MANY] {
        let scene = Scene::build(setup, nodes)?;
        thread::sleep(SETTLE);
        let before = process::processor_time(scene.agent.pid())?;
        thread::sleep(window);
        let used = process::processor_time(scene.agent.pid())?.saturating_sub(before);
        let share = used.as_secs_f64() / window.as_secs_f64();
        let row =
            Row::of(format!("agent's idle time on a core, {nodes} nodes"), Unit::Share, &[share])?;
        figure.rows.push(row.must(Bound::AllAtMost(0.001)));
    }
    figure.notes.push(format!("Over {} s, from schedstat of all threads.", window.as_secs()));
    Ok(figure)
}

/// An agent that knows that many nodes, itself included.
struct Scene {
    agent: Agent,
    _store: Store,
    _site: Site,
}

impl Scene {
    fn build(setup: &Setup, nodes: u16) -> Result<Self> {
        let site = Site::new(1)?;
        let mut store = Store::start(&setup.programs, &site, WIDE_NETWORK, Transport::Vxlan)?;
        for number in 1..nodes {
            store.put_peer(Peer { number, transport: Transport::Vxlan })?;
        }
        let node = site.nodes.first().context("a site has a node")?;
        let mut agent = Agent::start(&setup.programs, node, "one")?;
        let mut rtnl = node.namespace.rtnl()?;
        let wanted = usize::from(nodes) - 1;
        agent.wait_for(|| (gateway_routes(&mut rtnl).ok()? >= wanted).then_some(()))?;
        Ok(Self { agent, _store: store, _site: site })
    }

    /// Samples when its start is over, one each tenth of a second.
    fn resident(&self, count: usize) -> Result<Vec<f64>> {
        thread::sleep(START_IS_OVER);
        let mut samples = Vec::new();
        for _ in 0..count {
            samples.push(octets(process::memory(self.agent.pid())?.resident));
            thread::sleep(Duration::from_millis(100));
        }
        Ok(samples)
    }
}

/// How many /24 routes with a gateway there are.
pub(super) fn gateway_routes(rtnl: &mut Rtnl) -> Result<usize> {
    let mut fixed = [0; 12];
    fixed[0] = AF_INET;
    let routes = rtnl.list(RTM_GETROUTE, &fixed, |message| {
        (message.u8(1) == 24 && message.attrs(12).find(5).is_some()).then_some(())
    })?;
    Ok(routes.len())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(super) fn octets(value: u64) -> f64 {
    value as f64
}

const FEW: u16 = 3;
const MANY: u16 = 10_000;
/// The agent forgets ten seconds after its snapshot which pages of its program it has mapped till then.
const START_IS_OVER: Duration = Duration::from_secs(15);
/// How long an agent that has just started is left alone.
const SETTLE: Duration = Duration::from_secs(3);
