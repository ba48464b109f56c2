//! TCP between pods on two nodes: Russet's state of the kernel, the same built by hand, node to node.
//!
//! Both sites stand at once and are measured in turn; whichever is not measured is idle. Besides the
//! traffic, what the two look like to a packet is compared item by item: where that is equal, a
//! difference in speed is noise.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Setup, rotation};
use crate::{
    cluster::{Agent, Store},
    cni::Container,
    net::{
        Namespace,
        site::{Site, Transport, pod_address, underlay},
        state,
    },
    report::{Bound, Figure, Row, Unit},
    traffic::Path,
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "path", rows: Vec::new(), notes: Vec::new() };
    for transport in [Transport::Direct, Transport::Vxlan] {
        let hand = Hand::build(transport)?;
        let ours = Ours::build(setup, transport).context("build with Russet")?;
        let node = [&hand.site.nodes[0].namespace, &ours.site.nodes[0].namespace];
        let pod = [&hand.pods[0], &ours.pods[0].namespace];
        differences(&mut figure, transport, node, pod)?;
        race(
            &mut figure,
            setup,
            transport,
            [hand.pods_path(), ours.pods_path(), hand.pods_path(), hand.nodes_path()],
        )?;
    }
    figure.notes.push("Ratio of a stream: of throughput, more is better. Of a round trip: of time, less is better.".into());
    figure.notes.push("A/A: the pods of the hand-built site, measured twice in each round.".into());
    Ok(figure)
}

/// The rounds of one transport. The paths: by hand, by Russet, by hand again, node to node.
pub(super) fn race(
    figure: &mut Figure,
    setup: &Setup,
    transport: Transport,
    paths: [Path<'_>; 4],
) -> Result<()> {
    let mut streams: [Vec<f64>; 4] = Default::default();
    let mut trips: [Vec<f64>; 4] = Default::default();
    for round in 0..setup.effort.choose(3, 30) {
        for n in rotation(round, paths.len()) {
            streams[n].push(paths[n].stream(STREAM)?);
            trips[n].push(paths[n].round_trip(ROUND_TRIPS)?);
        }
    }
    let word = transport.word();
    let row = |what: &str, unit, [hand, ours, again, nodes]: &[Vec<f64>; 4]| {
        Row::of(format!("{what}, {word}"), unit, ours)?
            .versus("by hand", ours, hand)?
            .versus("node to node", ours, nodes)?
            .noise(again, hand)
    };
    let stream = row("one TCP stream", Unit::BitsPerSecond, &streams)?;
    figure.rows.push(stream.must(Bound::RatioAtLeast(0.95)));
    let trip = row("TCP round trip", Unit::Seconds, &trips)?;
    figure.rows.push(trip.must(Bound::RatioAtMost(1.0 / 0.95)));
    Ok(())
}

/// Counts what a packet would meet differently by hand and by Russet, on a node and in a pod.
pub(super) fn differences(
    figure: &mut Figure,
    transport: Transport,
    node: [&Namespace; 2],
    pod: [&Namespace; 2],
) -> Result<()> {
    let mut found = Vec::new();
    for (place, [hand, ours]) in [("node", node), ("pod", pod)] {
        let differences = state::differences(&state::read(hand)?, &state::read(ours)?);
        found.extend(
            differences.into_iter().map(|text| format!("{}, {place}: {text}", transport.word())),
        );
    }
    let count = f64::from(u32::try_from(found.len()).unwrap_or(u32::MAX));
    let what = format!("differences of kernel state from by hand, {}", transport.word());
    figure.rows.push(Row::of(what, Unit::Count, &[count])?.must(Bound::AllAtMost(0.0)));
    figure.notes.extend(found);
    Ok(())
}

/// A site built by hand.
struct Hand {
    site: Site,
    pods: Vec<Namespace>,
}

impl Hand {
    fn build(transport: Transport) -> Result<Self> {
        let mut site = Site::new(2)?;
        let pods = site.nodes.iter_mut().zip([(1, 2), (2, 1)]);
        let pods = pods
            .map(|(node, (n, peer))| node.build_by_hand(transport, n, peer))
            .collect::<Result<_>>()?;
        Ok(Self { site, pods })
    }

    fn pods_path(&self) -> Path<'_> {
        Path { client: &self.pods[0], server: &self.pods[1], address: pod_address(2) }
    }

    fn nodes_path(&self) -> Path<'_> {
        let [client, server] = [0, 1].map(|n| &self.site.nodes[n].namespace);
        Path { client, server, address: underlay(2) }
    }
}

/// A site built by Russet's programs.
pub struct Ours {
    site: Site,
    pub pods: Vec<Container>,
    pub server: std::net::Ipv4Addr,
    pub agents: Vec<Agent>,
    _store: Store,
}

impl Ours {
    pub fn build(setup: &Setup, transport: Transport) -> Result<Self> {
        let site = Site::new(2)?;
        let store = Store::start(&setup.programs, &site, NETWORK, transport)?;
        let names = ["one", "two"];
        let agents = site
            .nodes
            .iter()
            .zip(names)
            .map(|(node, name)| Agent::start(&setup.programs, node, name));
        let mut agents = agents.collect::<Result<Vec<_>>>()?;
        let pods = Container::many("path", 2)?;
        let mut server = None;
        for ((agent, node), pod) in agents.iter_mut().zip(&site.nodes).zip(&pods) {
            agent.wait_until(|status| {
                status.peers.iter().any(|peer| peer.transport == transport.word())
            })?;
            server = Some(node.namespace.run(|| agent.plugin.add(pod))?.address()?);
        }
        let server = server.context("two pods")?;
        Ok(Self { site, pods, server, agents, _store: store })
    }

    pub fn pods_path(&self) -> Path<'_> {
        let [client, server] = [0, 1].map(|n| &self.pods[n].namespace);
        Path { client, server, address: self.server }
    }
}

const NETWORK: &str = "10.50.0.0/16";
const STREAM: Duration = Duration::from_millis(500);
const ROUND_TRIPS: usize = 1_000;
