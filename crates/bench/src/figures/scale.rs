//! Ten thousand remote nodes: from the decoded snapshot to the kernel's last acknowledgement, and one change
//! from the store to the kernel.
//!
//! The first runs the agent's own calculation and reconcile lane, side by side as the agent has them (the
//! calculation hands over in pieces, and the lane is at work meanwhile), and is held to the cheapest messages that
//! reach the same state: encoded beforehand, in batches of 64, nothing compared and nothing remembered.
//! Both have their VXLAN link already, in a fresh namespace; decoding the leases is not part of the time.
//! The second runs a real store and a real agent; the time is from just before the Put to the kernel's own
//! event of the route.

use std::{
    net::Ipv4Addr,
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use russet_api::flannel::{read_lease, read_net_conf};
use russet_core::{
    Calc, Change, Fact, FactId, Source,
    model::{LeaseKey, NodeFact, Prepared, Preset, Settings, UnderlayFact},
};
use russet_kernel::{
    lane::{Generation, LaneSettings, ReconcileLane, Report},
    netlink::{Batch, Message, Protocol, Socket},
};
use russet_net::{Mac, Mtu, Prefix};

use super::{Setup, rotation};
use crate::{
    cluster::{Agent, Peer, Store, WIDE_NETWORK, configuration},
    net::{
        Namespace,
        rtnl::Rtnl,
        site::{Site, Transport, UNDERLAY_MTU, underlay},
        wire::{self, Act, RTA_DST, RTM_DELROUTE, RTM_NEWROUTE, Via, Vxlan},
    },
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "scale", rows: Vec::new(), notes: Vec::new() };
    figure.rows.extend(snapshot(setup)?);
    figure.rows.extend(one_change(setup)?);
    figure.notes.push(format!(
        "{NODES} nodes: for each a neighbour, an FDB entry, a next hop and a route. A/A: the cheapest messages, measured twice in each round."
    ));
    figure.notes.push(
        "One change: from before the Put to the event of the route, with a store and an agent."
            .into(),
    );
    Ok(figure)
}

fn snapshot(setup: &Setup) -> Result<[Row; 2]> {
    let mut took: [Vec<f64>; 3] = Default::default();
    let mut calculations = Vec::new();
    for round in 0..setup.effort.choose(3, 20) {
        for n in rotation(round, took.len()) {
            if n == 0 {
                let (all, calculation) = calculated(NODES)?;
                took[n].push(all);
                calculations.push(calculation);
            } else {
                took[n].push(cheapest(NODES)?);
            }
        }
    }
    let [ours, cheapest, again] = &took;
    let row =
        Row::of(format!("{NODES} nodes, snapshot to last acknowledgement"), Unit::Seconds, ours)?;
    let row = row.versus("cheapest messages", ours, cheapest)?.noise(again, cheapest)?;
    let part =
        Row::of("of which until all is calculated and handed over", Unit::Seconds, &calculations)?;
    Ok([row.must(Bound::RatioAtMost(1.3)), part])
}

/// Hands decoded leases to the calculation and what follows to the reconcile lane, and returns the seconds that
/// all of it took, and those until the last piece was handed over.
fn calculated(nodes: u16) -> Result<(f64, f64)> {
    let site = Site::new(1)?;
    let node = site.nodes.first().context("a site has a node")?;
    let peers = (1..=nodes).map(|number| lease(Peer { number, transport: Transport::Vxlan }));
    let leases = peers.collect::<Result<Vec<_>>>()?;
    let mut calc = Calc::new(Settings::new("bench", Preset::Flannel, "cni0".parse()?));
    let base = calc.apply(ground()?);
    let took = node.namespace.run(move || {
        let (tell, reports) = mpsc::channel();
        let report = move |report| {
            // Nobody listens any more once the time is taken.
            let _ = tell.send((Instant::now(), report));
        };
        let lane = ReconcileLane::start(LaneSettings::default(), report)?;
        let generation = lane.patch(base);
        lane.complete();
        fulfilled(&reports, generation)?;

        let start = Instant::now();
        let (mut generation, mut routes) = (generation, 0);
        calc.apply_in_pieces(leases, |patches| {
            routes += patches.routes.len();
            generation = lane.patch(patches);
        });
        let calculation = start.elapsed().as_secs_f64();
        ensure!(routes == usize::from(nodes), "not every lease becomes a route");
        let end = fulfilled(&reports, generation)?;
        Ok((end.saturating_duration_since(start).as_secs_f64(), calculation))
    })?;
    clear(&mut node.namespace.rtnl()?, nodes)?;
    Ok(took)
}

/// Removes the routes and then the VXLAN link with all behind it, and waits for it: a namespace that is left
/// full is emptied by the kernel in the background, with the lock that the next measurement needs. The
/// routes go first, because the kernel walks the whole table for each next hop that has any.
fn clear(rtnl: &mut Rtnl, nodes: u16) -> Result<()> {
    let mut routes = Batch::new();
    for number in 1..=nodes {
        let peer = Peer { number, transport: Transport::Vxlan };
        wire::delete_route(&mut routes, (peer.subnet(), 24));
    }
    rtnl.send_all(&mut routes)?;
    let link = rtnl.index(VTEP)?;
    rtnl.delete_link(link)
}

/// Waits for the report that the wishes of a generation are in the kernel, all of them.
fn fulfilled(reports: &Receiver<(Instant, Report)>, wanted: Generation) -> Result<Instant> {
    let until = Instant::now() + PATIENCE;
    while let Ok((at, report)) =
        reports.recv_timeout(until.saturating_duration_since(Instant::now()))
    {
        if let Some(error) = report.error {
            bail!("the reconcile lane: {error}");
        }
        if report.generation >= wanted {
            let refused = report.counters.refused;
            ensure!(refused == 0, "{refused} objects are refused: {:?}", report.news);
            return Ok(at);
        }
    }
    bail!("the reconcile lane does not come to rest")
}

/// What the agent knows before it hears of a peer: configuration, itself, its own lease, and all in sync.
fn ground() -> Result<Vec<Change>> {
    let configuration = configuration(WIDE_NETWORK, Transport::Vxlan);
    let config = read_net_conf(configuration.as_bytes(), Preset::Flannel)?;
    let own = LeaseKey::new(Some("10.0.1.0/24".parse()?), None).context("a subnet")?;
    let underlay = UnderlayFact {
        link: "eth0".parse()?,
        mtu: Mtu::try_from(UNDERLAY_MTU)?,
        v4: Some(underlay(1)),
        v6: None,
        onlink: vec!["192.168.77.0/24".parse()?],
        gateways: Vec::new(),
        router_advertised: false,
        spoils_checksums: Vec::new(),
        prepared: Prepared::new(),
    };
    let node = NodeFact { underlay, foreign: Vec::new() };
    let facts = [
        (FactId::Config, Fact::Config(config)),
        (FactId::Node, Fact::Node(Box::new(node))),
        (FactId::Own, Fact::Own(own)),
    ];
    let known = facts.into_iter().map(|(id, fact)| Change::Upsert { id, fact, rev: 1 });
    Ok(known.chain(Source::ALL.map(Change::InSync)).collect())
}

/// A peer's lease, decoded from what the store would hold.
fn lease(peer: Peer) -> Result<Change> {
    let lease = read_lease(peer.value().as_bytes())?;
    let key =
        LeaseKey::new(Some(Prefix::new(peer.subnet().into(), 24)?), None).context("a subnet")?;
    Ok(Change::Upsert {
        id: FactId::Lease(key),
        fact: Fact::Lease(Box::new(lease)),
        rev: u64::from(peer.number) + 1,
    })
}

/// Sends the fewest messages and returns the seconds.
fn cheapest(nodes: u16) -> Result<f64> {
    let (_site, mut rtnl, link) = vtep()?;
    let mut batches: [Batch; 4] = Default::default();
    let [neighbours, fdb, next_hops, routes] = &mut batches;
    for (id, number) in (1..).zip(1..=nodes) {
        let peer = Peer { number, transport: Transport::Vxlan };
        wire::neighbour(neighbours, Act::Add, link, peer.subnet(), peer.mac());
        wire::fdb(fdb, Act::Add, link, peer.mac(), peer.public());
        wire::next_hop(next_hops, id, peer.subnet(), link);
        wire::route(routes, (peer.subnet(), 24), Via::Object(id));
    }
    let start = Instant::now();
    for batch in &mut batches {
        rtnl.send_all(batch)?;
    }
    let took = start.elapsed().as_secs_f64();
    clear(&mut rtnl, nodes)?;
    Ok(took)
}

/// A node with a VXLAN link and nothing behind it.
fn vtep() -> Result<(Site, Rtnl, u32)> {
    let mut site = Site::new(1)?;
    let node = site.nodes.first_mut().context("a site has a node")?;
    let link = node.rtnl.add_vxlan(&Vxlan {
        name: VTEP,
        mac: Mac::local([2, 0, 0, 0, 1, 1]),
        mtu: 1_450,
        vni: 1,
        local: node.address,
        underlay: node.uplink,
        port: 8_472,
    })?;
    node.rtnl.add_address(link, (Ipv4Addr::new(10, 0, 1, 0), 32))?;
    let rtnl = node.namespace.rtnl()?;
    Ok((site, rtnl, link))
}

/// One lease that comes, and one that goes.
fn one_change(setup: &Setup) -> Result<[Row; 2]> {
    let site = Site::new(1)?;
    let mut store = Store::start(&setup.programs, &site, WIDE_NETWORK, Transport::Vxlan)?;
    let node = site.nodes.first().context("a site has a node")?;
    let _agent = Agent::start(&setup.programs, node, "one")?;
    let (mut came, mut went) = (Vec::new(), Vec::new());
    for number in 1..=u16::try_from(setup.effort.choose(10, 100))? {
        let peer = Peer { number, transport: Transport::Vxlan };
        let time = |kind, write: &mut dyn FnMut() -> Result<()>| {
            let took = until_event(&node.namespace, kind, peer.subnet(), write)?;
            anyhow::Ok(took.as_secs_f64())
        };
        came.push(time(RTM_NEWROUTE, &mut || store.put_peer(peer))?);
        went.push(time(RTM_DELROUTE, &mut || store.delete_peer(peer))?);
    }
    let row = |what: &str, took| {
        let row = Row::of(
            format!("one lease {what}, from the store to the kernel"),
            Unit::Seconds,
            took,
        )?;
        anyhow::Ok(row.must(Bound::MedianAtMost(0.005)))
    };
    Ok([row("added", &came)?, row("removed", &went)?])
}

/// Runs `write` and waits for the kernel's event of that kind about the route to `subnet`.
pub(super) fn until_event(
    namespace: &Namespace,
    kind: u16,
    subnet: Ipv4Addr,
    write: &mut dyn FnMut() -> Result<()>,
) -> Result<Duration> {
    let mut events = namespace.run(|| Ok(Socket::open(Protocol::Route)?))?;
    events.join(RTNLGRP_IPV4_ROUTE)?;
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || tell.send(wait_for_route(&mut events, kind, subnet)));
        let start = Instant::now();
        write()?;
        let seen = told.recv().map_err(|_| anyhow!("the listener ended"))??;
        Ok(seen.saturating_duration_since(start))
    })
}

/// Reads events until one tells of the route.
fn wait_for_route(events: &mut Socket, kind: u16, subnet: Ipv4Addr) -> Result<Instant> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let Some(mut messages) = events.receive(PATIENCE)? else { break };
        let dst = |message: Message<'_>| message.attrs(12).find(RTA_DST)?.ip();
        if messages.any(|message| message.kind == kind && dst(message) == Some(subnet.into())) {
            return Ok(Instant::now());
        }
    }
    Err(anyhow!("no event of the route to {subnet} within {PATIENCE:?}"))
}

const VTEP: &str = "flannel.1";
const NODES: u16 = 10_000;
const RTNLGRP_IPV4_ROUTE: u32 = 7;
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_messages_are_all_accepted() {
        assert!(cheapest(300).unwrap() > 0.0);
    }

    #[test]
    fn the_calculation_reaches_the_kernel() {
        let (all, calculation) = calculated(300).unwrap();
        assert!(calculation > 0.0 && all > calculation);
    }
}
