//! How long an object stays away that another program took from the kernel.
//!
//! The other program is this one: it has its own socket, and the agent knows nothing of it. The time runs
//! from before the message that takes the object until the whole list of objects of the node is what it
//! was. An object that is taken again and again is left alone by the agent for a while (design, rule 5),
//! so a round touches each kind once, another peer each time, and rounds keep their distance.

use std::{
    net::Ipv4Addr,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::Setup;
use crate::{
    cluster::{Agent, Peer, Store, WIDE_NETWORK},
    cni::Container,
    net::{
        Rtnl, objects,
        objects::Objects,
        site::{Node, Site, Transport, port},
        wire::{self, Act, NHA_GATEWAY, NHA_ID, RTM_GETNEXTHOP},
    },
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "repair", rows: Vec::new(), notes: Vec::new() };
    let mut vxlan = Scene::build(setup, Transport::Vxlan)?;
    let mut direct = Scene::build(setup, Transport::Direct)?;
    let mut took = vec![Vec::new(); Target::ALL.len()];
    for round in 0..u16::try_from(setup.effort.choose(2, 20))? {
        let started = Instant::now();
        for (n, (target, samples)) in (0..).zip(Target::ALL.iter().zip(&mut took)) {
            let scene = if *target == Target::Carrier { &mut direct } else { &mut vxlan };
            let peer = scene.peer(round * 5 + n);
            let taken =
                scene.take(*target, peer).with_context(|| format!("take {}", target.word()))?;
            samples.extend(taken.map(|duration| duration.as_secs_f64()));
        }
        thread::sleep(PACE.saturating_sub(started.elapsed()));
    }
    for (target, samples) in Target::ALL.iter().zip(&took) {
        if samples.is_empty() {
            figure.notes.push(format!(
                "{}: the kernel refuses to let another program take them.",
                target.word()
            ));
            continue;
        }
        let row = Row::of(format!("{} back after", target.word()), Unit::Seconds, samples)?;
        figure.rows.push(row.must(Bound::AllAtMost(1.0)));
    }
    figure.notes.push("From before it is taken until everything on the node is as it was; carrier: from its return.".into());
    Ok(figure)
}

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Route,
    NextHop,
    Neighbour,
    Fdb,
    VtepAddress,
    BridgeAddress,
    Rules,
    Vxlan,
    Bridge,
    Carrier,
}

impl Target {
    const ALL: [Self; 10] = [
        Self::Route,
        Self::NextHop,
        Self::Neighbour,
        Self::Fdb,
        Self::VtepAddress,
        Self::BridgeAddress,
        Self::Rules,
        Self::Vxlan,
        Self::Bridge,
        Self::Carrier,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Route => "a route",
            Self::NextHop => "a next hop",
            Self::Neighbour => "a neighbour",
            Self::Fdb => "an FDB entry",
            Self::VtepAddress => "the VXLAN link's address",
            Self::BridgeAddress => "the bridge's address",
            Self::Rules => "the nftables rules",
            Self::Vxlan => "the VXLAN link",
            Self::Bridge => "the bridge",
            Self::Carrier => "the uplink's carrier",
        }
    }
}

/// A node with an agent, peers, and a pod.
struct Scene {
    transport: Transport,
    rtnl: Rtnl,
    switch: Rtnl,
    /// How it is when nobody disturbs.
    whole: Objects,
    rules: String,
    site: Site,
    _pod: Container,
    _agent: Agent,
    _store: Store,
}

impl Scene {
    fn build(setup: &Setup, transport: Transport) -> Result<Self> {
        let site = Site::new(1)?;
        let mut store = Store::start(&setup.programs, &site, WIDE_NETWORK, transport)?;
        for number in PEERS {
            store.put_peer(Peer { number, transport })?;
        }
        let node = site.nodes.first().context("a site has a node")?;
        let mut agent = Agent::start(&setup.programs, node, "one")?;
        let here = |status: &russet_api::admin::Status| {
            status.peers.iter().filter(|peer| peer.transport == transport.word()).count()
                >= PEERS.len()
        };
        agent.wait_until(here)?;
        let pod = Container::new("pod")?;
        node.namespace.run(|| agent.plugin.add(&pod))?;
        let mut rtnl = node.namespace.rtnl()?;
        let routed = |objects: &Objects| {
            PEERS.clone().all(|number| holds(objects, Peer { number, transport }))
        };
        let whole = agent.wait_for(|| objects::list(&mut rtnl).ok().filter(routed))?;
        let rules = rules(node)?;
        let switch = site.switch.rtnl()?;
        Ok(Self {
            transport,
            rtnl,
            switch,
            whole,
            rules,
            site,
            _pod: pod,
            _agent: agent,
            _store: store,
        })
    }

    fn peer(&self, n: u16) -> Peer {
        let number = PEERS.start() + n % u16::try_from(PEERS.len()).unwrap_or(1);
        Peer { number, transport: self.transport }
    }

    /// Takes the object and waits until all is whole again. `None`: the kernel protects it.
    fn take(&mut self, target: Target, peer: Peer) -> Result<Option<Duration>> {
        self.until_whole()?;
        if target == Target::Carrier {
            self.cut_uplink()?;
        }
        let start = Instant::now();
        match target {
            Target::Rules => {
                if !self.delete_tables()? {
                    return Ok(None);
                }
                self.until_ruled()?;
            }
            Target::Carrier => {
                let index = self.switch.index(&port(1))?;
                self.switch.up(index)?;
            }
            _ => self.delete(target, peer)?,
        }
        self.until_whole()?;
        Ok(Some(start.elapsed()))
    }

    fn delete(&mut self, target: Target, peer: Peer) -> Result<()> {
        let vtep = self.rtnl.index("flannel.1")?;
        match target {
            Target::Route => {
                self.rtnl.send("delete route", |b| wire::delete_route(b, (peer.subnet(), 24)))
            }
            Target::NextHop => {
                let id = self.next_hop(peer.subnet())?;
                self.rtnl.send("delete next hop", |b| wire::delete_next_hop(b, id))
            }
            Target::Neighbour => self.rtnl.send("delete neighbour", |b| {
                wire::neighbour(b, Act::Remove, vtep, peer.subnet(), peer.mac());
            }),
            Target::Fdb => self.rtnl.send("delete FDB entry", |b| {
                wire::fdb(b, Act::Remove, vtep, peer.mac(), peer.public());
            }),
            Target::VtepAddress => self.delete_address("flannel.1"),
            Target::BridgeAddress => self.delete_address("cni0"),
            Target::Vxlan => self.rtnl.delete_link(vtep),
            Target::Bridge => {
                let bridge = self.rtnl.index("cni0")?;
                self.rtnl.delete_link(bridge)
            }
            Target::Rules | Target::Carrier => bail!("not an object of rtnetlink"),
        }
    }

    fn delete_address(&mut self, link: &str) -> Result<()> {
        let index = self.rtnl.index(link)?;
        let line = self
            .whole
            .iter()
            .find_map(|line| line.strip_prefix("address ")?.strip_suffix(&format!(" dev {link}")));
        let (addr, len) =
            line.and_then(|text| text.split_once('/')).context("an address to delete")?;
        let net = (addr.parse::<Ipv4Addr>()?, len.parse()?);
        self.rtnl.send("delete address", |batch| wire::address(batch, Act::Remove, index, net))
    }

    fn next_hop(&mut self, gateway: Ipv4Addr) -> Result<u32> {
        let found = self.rtnl.list(RTM_GETNEXTHOP, &[0; 8], |message| {
            let attrs = message.attrs(8);
            let is_it = attrs.clone().find(NHA_GATEWAY)?.ip() == Some(gateway.into());
            is_it.then(|| attrs.find(NHA_ID).map(|attr| attr.u32()))?
        })?;
        found.first().copied().with_context(|| format!("no next hop {gateway}"))
    }

    /// Takes the uplink's carrier and waits until the kernel has taken its routes with it.
    fn cut_uplink(&mut self) -> Result<()> {
        let index = self.switch.index(&port(1))?;
        self.switch.down(index)?;
        let until = Instant::now() + PATIENCE;
        while objects::list(&mut self.rtnl)? == self.whole {
            ensure!(Instant::now() < until, "the loss of the carrier changed nothing");
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn until_whole(&mut self) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut now = objects::list(&mut self.rtnl)?;
        while now != self.whole {
            let differs = |line: &&String| !now.contains(line) || !self.whole.contains(line);
            if Instant::now() >= until {
                let lines: Vec<_> =
                    self.whole.iter().chain(&now).filter(differs).cloned().collect();
                bail!("not whole after {PATIENCE:?}:\n{}", lines.join("\n"));
            }
            thread::sleep(POLL);
            now = objects::list(&mut self.rtnl)?;
        }
        Ok(())
    }

    /// Deletes our tables with `nft`. False when they are protected by their owner.
    fn delete_tables(&self) -> Result<bool> {
        let node = self.site.nodes.first().context("a site has a node")?;
        let words = our_tables(&self.rules).map(|table| format!("delete table {table}"));
        let script = words.collect::<Vec<_>>().join("; ");
        ensure!(!script.is_empty(), "Russet has no table");
        let output = nft(node, &script)?;
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.success() {
            true => Ok(true),
            false if said.contains("not permitted") => Ok(false),
            false => bail!("nft: {said}"),
        }
    }

    fn until_ruled(&self) -> Result<()> {
        let node = self.site.nodes.first().context("a site has a node")?;
        let until = Instant::now() + PATIENCE;
        while rules(node)? != self.rules {
            ensure!(Instant::now() < until, "no rules after {PATIENCE:?}");
        }
        Ok(())
    }
}

fn holds(objects: &Objects, peer: Peer) -> bool {
    let route = format!("route {}/24 ", peer.subnet());
    objects.iter().any(|line| line.starts_with(&route))
}

/// Family and name of each table of ours in a listed ruleset.
fn our_tables(rules: &str) -> impl Iterator<Item = String> {
    rules.lines().filter_map(|line| {
        let mut words = line.strip_prefix("table ")?.split_whitespace();
        let (family, name) = (words.next()?, words.next()?);
        (name == "russet").then(|| format!("{family} {name}"))
    })
}

fn rules(node: &Node) -> Result<String> {
    let output = nft(node, "list ruleset")?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn nft(node: &Node, script: &str) -> Result<std::process::Output> {
    node.namespace.run(|| Command::new("nft").arg(script).output().context("start nft"))
}

/// Few enough to list often, enough that a round takes another one.
const PEERS: std::ops::RangeInclusive<u16> = 101..=112;
/// The agent backs off from what is set back three times in ten seconds.
const PACE: Duration = Duration::from_secs(11);
const POLL: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_tables_are_found_whatever_nft_says_behind_their_names() {
        let rules = "table ip russet { # progname russet\n\tset x {\n}\n}\ntable ip6 russet {\n}\ntable ip x {\n}\n";
        assert_eq!(our_tables(rules).collect::<Vec<_>>(), ["ip russet", "ip6 russet"]);
    }
}
