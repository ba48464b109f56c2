//! A node of flannel's on a real etcd with 5,000 leases: how long its start takes, its memory, and how soon it is
//! right again when etcd comes back.
//!
//! Each start is on a node whose kernel has nothing yet. A break is as long as it takes until the pauses between
//! the agent's attempts are as long as they get; the clock runs from etcd's first answer, which is that a new lease
//! is written, until the kernel has its route.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Setup, memory, scale};
use crate::{
    cluster::{Agent, CONFIG_KEY, Peer, WIDE_NETWORK, configuration},
    etcd::Server,
    net::{
        site::{Site, Transport},
        wire::RTM_NEWROUTE,
    },
    process,
    report::{Bound, Figure, Row, Unit},
};
use anyhow::{Context, Result};

/// Start, memory, and the return of etcd.
pub fn measure(setup: &Setup) -> Result<Figure> {
    let rounds = setup.effort.choose(2, 10);
    let (mut started, mut resident, mut returned) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let mut scene = Scene::build(setup)?;
        started.push(scene.took.as_secs_f64());
        thread::sleep(SETTLE);
        resident.push(memory::octets(process::memory(scene.agent.pid())?.resident));
        if round <= setup.effort.choose(1, 5) {
            returned.push(scene.away_and_back()?.as_secs_f64());
        }
    }
    let row = |what: &str, unit, samples: &[f64], limit| {
        let row = Row::of(format!("{what}, {LEASES} leases in etcd"), unit, samples)?;
        anyhow::Ok(row.must(Bound::AllAtMost(limit)))
    };
    Ok(Figure {
        name: "flannel",
        rows: vec![
            row("start to in sync and programmed", Unit::Seconds, &started, 2.0)?,
            row("agent's resident memory", Unit::Octets, &resident, 40e6)?,
            row("right again after etcd's return", Unit::Seconds, &returned, 2.0)?,
        ],
        notes: vec![format!("etcd is away for {} s.", OUTAGE.as_secs())],
    })
}

/// An agent that has all leases in its kernel.
struct Scene {
    agent: Agent,
    /// From the program's start until then.
    took: Duration,
    etcd: Server,
    site: Site,
}

impl Scene {
    fn build(setup: &Setup) -> Result<Self> {
        let site = Site::new(1)?;
        let mut etcd = Server::new()?;
        etcd.start(&site)?;
        fill(&mut etcd, &site)?;
        let node = site.nodes.first().context("a site has a node")?;
        let mut rtnl = node.namespace.rtnl()?;
        let began = Instant::now();
        let mut agent = Agent::start(&setup.programs, node, "one")?;
        agent.wait_until(|status| status.store.in_sync)?;
        let wanted = usize::from(LEASES);
        agent.wait_for(|| (memory::gateway_routes(&mut rtnl).ok()? >= wanted).then_some(()))?;
        Ok(Self { agent, took: began.elapsed(), etcd, site })
    }

    /// Stops etcd, starts it, and returns the time from its first answer until all is right.
    fn away_and_back(&mut self) -> Result<Duration> {
        self.etcd.stop();
        thread::sleep(OUTAGE);
        let node = self.site.nodes.first().context("a site has a node")?;
        let peer = Peer { number: LEASES + 1, transport: Transport::Vxlan };
        let (etcd, site) = (&mut self.etcd, &self.site);
        let (began, mut back) = (Instant::now(), None);
        let took = scale::until_event(&node.namespace, RTM_NEWROUTE, peer.subnet(), &mut || {
            etcd.start(site)?;
            let mut client = etcd.client(site)?;
            client.put(&peer.key(), &peer.value(), 0)?;
            back = Some(Instant::now());
            Ok(())
        })?;
        self.agent.wait_until(|status| status.store.in_sync && status.store.connected)?;
        let back = back.context("etcd has answered")?;
        Ok((began + took).saturating_duration_since(back))
    }
}

/// Writes the network's configuration and every lease.
fn fill(etcd: &mut Server, site: &Site) -> Result<()> {
    let mut client = etcd.client(site)?;
    client.grant(GRANT)?;
    client.put(CONFIG_KEY, &configuration(WIDE_NETWORK, Transport::Vxlan), 0)?;
    (1..=LEASES).try_for_each(|number| {
        let peer = Peer { number, transport: Transport::Vxlan };
        client.put(&peer.key(), &peer.value(), GRANT)
    })
}

const LEASES: u16 = 5_000;
const GRANT: u64 = 4_711;
/// Longer than the agent's pauses need to reach their longest.
const OUTAGE: Duration = Duration::from_secs(20);
/// How long an agent that has just started is left alone.
const SETTLE: Duration = Duration::from_secs(3);
